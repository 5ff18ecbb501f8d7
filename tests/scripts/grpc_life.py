"""A second-language client: speaks to every service through reflection, and runs the calls of docs/grpcurl.md in their order."""

import json
import pathlib
import re
import shlex
import sys
import time

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

address, document, protos = sys.argv[1:]
channel = grpc.insecure_channel(address)
stub = reflection_pb2_grpc.ServerReflectionStub(channel)
pool = descriptor_pool.DescriptorPool()
files = {}


def ask(**request):
    (reply,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**request)]))
    assert not reply.HasField("error_response"), reply.error_response
    return reply


def load(symbol):
    for raw in ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto:
        file = descriptor_pb2.FileDescriptorProto.FromString(raw)
        files.setdefault(file.name, file)


services = sorted(s.name for s in ask(list_services="").list_services_response.service)
ours = [s for s in services if s.startswith("ironyard.")]
written = sorted(
    f"{package.group(1)}.{name}"
    for text in (file.read_text() for file in pathlib.Path(protos).rglob("*.proto"))
    if (package := re.search(r"^package ([\w.]+);", text, re.M))
    for name in re.findall(r"^service (\w+)", text, re.M)
)
assert ours == written, f"served {ours}, written {written}"
for service in services:
    load(service)
added = set()


def add(name):
    if name in added or name not in files:
        return
    added.add(name)
    for dependency in files[name].dependency:
        if dependency not in files:
            raw = ask(file_by_filename=dependency).file_descriptor_response.file_descriptor_proto
            for one in raw:
                file = descriptor_pb2.FileDescriptorProto.FromString(one)
                files.setdefault(file.name, file)
        add(dependency)
    pool.Add(files[name])


for name in list(files):
    add(name)
for service in ours:
    file = pool.FindServiceByName(service).file.name
    comments = [l for l in files[file].source_code_info.location if l.leading_comments]
    assert len(comments) > 3, f"{service} has no comments"
print(f"reflection lists {len(services)} services, each with comments")


def call(method, body):
    service, name = method.rsplit("/", 1)
    descriptor = pool.FindServiceByName(service).methods_by_name[name]
    request = json_format.ParseDict(body, message_factory.GetMessageClass(descriptor.input_type)())
    answer = message_factory.GetMessageClass(descriptor.output_type)
    kind = channel.unary_stream if descriptor.server_streaming else channel.unary_unary
    invoke = kind(f"/{service}/{name}", lambda m: m.SerializeToString(), answer.FromString)
    replied = invoke(request, timeout=30)
    if descriptor.server_streaming:
        messages = [json_format.MessageToDict(one) for one in replied]
        assert messages and all(messages), f"{method} streamed {messages}"
        return messages[-1]
    return json_format.MessageToDict(replied)


text = open(document, encoding="utf-8").read()
calls = 0
for line in re.findall(r"^grpcurl .*$", text, re.M):
    # grpcurl -plaintext [-d JSON] ADDRESS METHOD   # until FIELD=VALUE
    line, _, until = line.partition("   # until ")
    words = shlex.split(line)
    body = json.loads(words[words.index("-d") + 1]) if "-d" in words else {}
    method = words[-1]
    if method in ("list", "describe") or words[-2] in ("list", "describe"):
        continue
    calls += 1
    deadline = time.monotonic() + 120
    while True:
        answer = call(method, body)
        if not until:
            break
        field, _, value = until.partition("=")
        found = answer
        for key in field.split("."):
            found = found[int(key)] if isinstance(found, list) and len(found) > int(key) else (found.get(key) if isinstance(found, dict) else None)
        if str(found) == value:
            break
        assert time.monotonic() < deadline, f"{method}: {field} is {found!r}, not {value!r}"
        time.sleep(0.1)
    print(f"ok {method}{f' until {until}' if until else ''}")
assert calls >= 8, calls
print(f"{calls} passed, 0 failed")
