#!/usr/bin/env python3
"""Ask a gateway for everything that it tells of a BMC, and print it as JSON: what `completeness.py` compares.

Usage:
    ask.py HOST:PORT BMC

The services are found by reflection, so that nothing here is generated from our contract. It needs `grpcio`,
`grpcio-reflection` and `protobuf`.
"""

import json
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PACKAGE = "ironyard.bmc.v1"


class Gateway:
    """Calls by name."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", 256 << 20)])
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))

    def call(self, method, **request):
        """The answer, or `{"error": ...}`."""
        service, name = method.split(".")
        found = self.pool.FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(name)
        message = json_format.ParseDict(request, GetMessageClass(found.input_type)())
        call = self.channel.unary_unary(
            f"/{PACKAGE}.{service}/{name}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        try:
            return json_format.MessageToDict(call(message, timeout=600))
        except grpc.RpcError as error:
            return {"error": f"{error.code().name}: {error.details()}"}


def log(gateway, system, uri):
    """All entries of a log."""
    entries, token = [], ""
    while True:
        page = gateway.call("TelemetryService.ReadLog", system=system, log=uri, pageSize=1000, pageToken=token)
        if "error" in page:
            return page
        entries += page.get("entries", [])
        token = page.get("nextPageToken", "")
        if not token:
            return {"entries": entries}


def main():
    address, bmc = sys.argv[1:]
    gateway = Gateway(address)
    told = {
        "ListSystems": gateway.call("SystemService.ListSystems", bmc=bmc),
        "ListAccounts": gateway.call("ManagerService.ListAccounts", bmc=bmc),
        "ListFirmware": gateway.call("ManagerService.ListFirmware", bmc=bmc),
        "systems": {},
    }
    for listed in told["ListSystems"].get("systems", []):
        if listed.get("isPart"):
            continue
        system = {"bmc": bmc, "systemId": listed["systemId"]}
        one = told["systems"][listed["systemId"]] = {
            name: gateway.call(f"SystemService.{name}", system=system)
            for name in ("GetHardware", "GetSystem", "GetBios", "GetBiosRegistry")
        }
        one["GetManager"] = gateway.call("ManagerService.GetManager", bmc=bmc, systemId=listed["systemId"])
        one["ListVolumes"] = gateway.call("StorageService.ListVolumes", system=system)
        one["GetSensors"] = gateway.call("TelemetryService.GetSensors", system=system)
        one["ListLogs"] = gateway.call("TelemetryService.ListLogs", system=system)
        uris = [row["uri"] for row in one["ListLogs"].get("logs", [])]
        one["ReadLog"] = {uri: log(gateway, system, uri) for uri in uris}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
