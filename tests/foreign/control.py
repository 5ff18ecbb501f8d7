"""The control channel of the judge: log, state, behaviour and certificate, as JSON without authentication."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import tls
from events import EventHub
from rules import Conductor, patch_machine
from server import RedfishServer


class Control:
    """What can be asked and told on the control port."""

    def __init__(self, server: RedfishServer, conductor: Conductor, hub: EventHub, install: Callable[[dict], None]):
        self.server, self.conductor, self.hub, self.install = server, conductor, hub, install
        self.tls_options: dict = {}

    def read(self, path: str, query: dict) -> Any:
        """Answer a GET."""
        if path == "/log":
            since = int(query.get("since", ["0"])[0])
            with self.conductor.machine.lock:
                return [dict(record) for record in self.server.log.records[since:]]
        if path == "/machine":
            return self._machine()
        if path == "/behaviour":
            return self.conductor.show()
        if path == "/tls":
            return {
                "scheme": self.server.scheme,
                "options": self.tls_options,
                "handshakes_failed": self.server.log.handshakes_failed,
            }
        raise LookupError(path)

    def _machine(self) -> dict:
        machine, now = self.conductor.machine, time.monotonic()
        with machine.lock:
            state = json.loads(json.dumps(machine.state))
            for key, session in state["sessions"].items():
                session["idle_seconds"] = round(now - machine.last_used.get(key, now), 3)
        return {"personality": machine.personality.name, "monotonic": now, **state}

    def write(self, path: str, value: Any) -> Any:
        """Carry out a POST."""
        if path == "/machine":
            patch_machine(self.conductor.machine, value)
            return self._machine()
        if path == "/behaviour":
            self.conductor.configure(value)
            return self.conductor.show()
        if path == "/event":
            self.hub.send(value)
            return {}
        if path == "/tls":
            self.install(value)
            self.tls_options = value
            return self.read("/tls", {})
        raise LookupError(path)


def serve(control: Control, host: str) -> int:
    """Start the control port; returns its number."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            self._answer(lambda: control.read(url.path, parse_qs(url.query)))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer(lambda: control.write(urlsplit(self.path).path, json.loads(body or b"{}")))

        def _answer(self, action: Callable[[], Any]) -> None:
            try:
                status, value = 200, action()
            except LookupError as error:
                status, value = 404, {"error": f"nothing at {error}"}
            except (ValueError, TypeError, AttributeError, tls.TlsError) as error:
                status, value = 400, {"error": str(error)}
            data = json.dumps(value, default=str).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]
