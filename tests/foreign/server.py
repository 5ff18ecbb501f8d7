"""HTTP/1.1 and TLS: connections, the request log, and answers that are cut, cropped or never sent."""

from __future__ import annotations

import itertools
import json
import queue
import re
import select
import socket
import socketserver
import ssl
import threading
import time
import traceback
from http.client import responses
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, unquote, urlsplit

from events import EventHub
from protocol import Part, Request, Response
from rules import Conductor

MAX_BODY = 1 << 30
MAX_LOGGED = 1 << 16


class RequestLog:
    """Every request in the order of arrival."""

    def __init__(self):
        self.records: list[dict] = []
        self.handshakes_failed: list[dict] = []
        self._lock = threading.Lock()

    def open(self, **facts: object) -> dict:
        """Start the record of a request that just arrived."""
        with self._lock:
            record = {
                "n": len(self.records) + 1,
                "at": time.monotonic(),
                "ended": None,
                **facts,
                "status": None,
                "user": None,
                "session": None,
                "body": None,
                "bytes": 0,
                "rule": None,
                "answer_lost": False,
                "effect": [],
            }
            self.records.append(record)
            return record


class RedfishServer:
    """The Redfish port.  It can go away and come back on the same port, and change its certificate."""

    def __init__(self, host: str, port: int, conductor: Conductor, hub: EventHub, context: ssl.SSLContext | None):
        self.host, self.port, self.conductor, self.hub, self.context = host, port, conductor, hub, context
        self.log = RequestLog()
        self.connections = itertools.count(1)
        self.open_sockets: set[socket.socket] = set()
        self.closing = False
        self._listener: _Listener | None = None
        self._lock = threading.Lock()
        self.listen()
        conductor.machine.watchers.append(self._on_effects)

    def listen(self) -> None:
        """Start to accept connections."""
        self._listener = _Listener((self.host, self.port), self)
        self.port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()

    def go_away(self) -> None:
        """Refuse new connections and cut the present ones, as during a BMC reset."""
        listener, self._listener = self._listener, None
        if listener:
            listener.shutdown()
            listener.server_close()
        for connection in list(self.open_sockets):
            cut(connection)

    def _on_effects(self, effects: list[dict]) -> None:
        states = [e["to"] for e in effects if e["what"] == "bmc/state"]
        if states:
            threading.Thread(target=self._follow, args=(states[-1],), daemon=True).start()

    def _follow(self, state: str) -> None:
        with self._lock:
            if state == "down":
                self.go_away()
            elif self._listener is None:
                for _ in range(50):  # the port may be taken for a moment
                    try:
                        return self.listen()
                    except OSError:
                        time.sleep(0.1)

    @property
    def scheme(self) -> str:
        """http or https."""
        return "https" if self.context else "http"


def cut(connection: socket.socket) -> None:
    """Break a connection without a word."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], owner: RedfishServer):
        self.owner = owner
        super().__init__(address, _Connection)

    def finish_request(self, request: socket.socket, client_address: tuple) -> None:
        """The TLS handshake happens here, in the thread of the connection."""
        owner, context = self.owner, self.owner.context
        if context:
            request.settimeout(10)
            try:
                request = context.wrap_socket(request, server_side=True)
            except (OSError, ssl.SSLError) as error:
                owner.log.handshakes_failed.append({"at": time.monotonic(), "error": str(error)})
                return
            request.settimeout(None)
        owner.open_sockets.add(request)
        try:
            self.RequestHandlerClass(request, client_address, self)
        except OSError:
            pass  # the client went away
        finally:
            owner.open_sockets.discard(request)
            self.shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A fault of the double itself must be seen."""
        traceback.print_exc()


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.number = next(self.server.owner.connections)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr; the request log has it all."""

    def __getattr__(self, name: str):
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    # ------------------------------------------------------------ one request

    def handle_any(self) -> None:
        """Record, read, perform, answer."""
        owner, url = self.server.owner, urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        tls = (
            {"version": self.connection.version(), "cipher": self.connection.cipher()[0]}
            if isinstance(self.connection, ssl.SSLSocket)
            else None
        )
        auth = (
            "token"
            if "x-auth-token" in headers
            else "basic"
            if headers.get("authorization", "").lower().startswith("basic")
            else "none"
        )
        record = owner.log.open(
            connection=self.number,
            agent=headers.get("user-agent"),
            method=self.command,
            path=unquote(url.path),
            query=url.query,
            auth=auth,
            tls=tls,
        )
        try:
            body = self._read_body(headers)
        except (OSError, ValueError):
            record.update(ended=time.monotonic(), answer_lost=True)
            self.close_connection = True
            return
        record["bytes"] = len(body)
        request = Request(
            self.command,
            unquote(url.path),
            dict(parse_qsl(url.query, keep_blank_values=True)),
            headers,
            body,
            read_parts(headers.get("content-type", ""), body),
            record,
            self.client_address[0],
            owner.scheme,
        )
        record["body"] = logged_body(request)
        outcome = owner.conductor.perform(request)
        try:
            if outcome.hang:
                self._wait_for_client()
            elif outcome.stream:
                self._stream(record)
            if outcome.cut or outcome.hang or outcome.stream:
                record["answer_lost"] = not outcome.stream
                self.close_connection = True
                cut(self.connection)
            else:
                self._send(outcome.response, outcome.keep_bytes, outcome.extra_headers, record)
        except OSError:
            record["answer_lost"] = True
            self.close_connection = True
        finally:
            record["ended"] = time.monotonic()

    def _read_body(self, headers: dict) -> bytes:
        if "chunked" in headers.get("transfer-encoding", ""):
            chunks = []
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if not size:
                    while self.rfile.readline().strip():
                        pass
                    return b"".join(chunks)
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
        length = int(headers.get("content-length") or 0)
        if length > MAX_BODY:
            raise ValueError("body too large")
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the client went away")
        return body

    def _send(self, response: Response, keep: int | None, extra: dict, record: dict) -> None:
        body = response.encoded()
        self.send_response_only(response.status, responses.get(response.status, "Status"))
        headers = {
            "OData-Version": "4.0",
            "Cache-Control": "no-cache",
            "Content-Length": str(len(body)),
            **response.headers,
            **extra,
        }
        if response.status in (204, 304):
            headers.pop("Content-Length")
        elif body and "Content-Type" not in headers:
            headers["Content-Type"] = "application/json; charset=utf-8"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        record["status"] = response.status
        if self.command != "HEAD" and response.status not in (204, 304):
            self.wfile.write(body if keep is None else body[:keep])
        self.wfile.flush()
        if keep is not None:
            record["answer_lost"] = True
            self.close_connection = True
            cut(self.connection)

    def _wait_for_client(self) -> None:
        """Do nothing until the client gives up or the server ends."""
        while not self.server.owner.closing:
            readable, _, _ = select.select([self.connection], [], [], 0.2)
            if readable:
                return

    def _stream(self, record: dict) -> None:
        """Server-sent events until the client leaves."""
        hub, events = self.server.owner.hub, queue.Queue()
        self.send_response_only(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")
        self.end_headers()
        record["status"] = 200
        self.wfile.write(b": stream keep-alive\n\n")
        hub.streams.append(events)
        try:
            while not self.server.owner.closing:
                try:
                    event = events.get(timeout=0.5)
                except queue.Empty:
                    if select.select([self.connection], [], [], 0)[0]:
                        return
                    continue
                self.wfile.write(f"id: {event['Id']}\ndata: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()
        finally:
            hub.streams.remove(events)


def read_parts(content_type: str, body: bytes) -> list[Part]:
    """The parts of a multipart form."""
    match = re.search(r'multipart/form-data.*?boundary="?([^";]+)', content_type, re.I)
    if not match:
        return []
    parts = []
    for chunk in body.split(b"--" + match[1].encode())[1:]:
        head, separator, content = chunk.partition(b"\r\n\r\n")
        if not separator:
            continue
        disposition = re.search(rb"content-disposition:([^\r\n]*)", head, re.I)
        fields = dict(re.findall(r'(\w+)="([^"]*)"', disposition[1].decode("utf-8", "replace"))) if disposition else {}
        parts.append(Part(fields.get("name", ""), fields.get("filename"), content.removesuffix(b"\r\n")))
    return parts


def logged_body(request: Request) -> object:
    """The body as the log keeps it: JSON as it is, forms by their fields, anything else by its size."""
    if request.parts:
        return {"form": [part.describe() for part in request.parts]}
    if not request.body:
        return None
    if len(request.body) <= MAX_LOGGED:
        try:
            return json.loads(request.body)
        except ValueError:
            pass
    return {"raw_bytes": len(request.body)}
