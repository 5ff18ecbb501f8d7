#!/usr/bin/env python3
"""A fake BMC that speaks Redfish on loopback, for tests that need a second opinion.

It prints one line of JSON with its addresses and credentials, and serves until its standard input ends
or it is terminated.  README.md beside this file describes the control channel.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import signal
import sys
import threading

import control as control_channel
import operations  # noqa: F401 - registers its routes
import operations_managers  # noqa: F401 - registers its routes
import operations_services  # noqa: F401 - registers its routes
import operations_storage  # noqa: F401 - registers its routes
import tls
import tree
import tree_chassis
import tree_managers
import tree_services
import tree_storage
import tree_systems
from events import EventHub
from families import PERSONALITIES, choose
from machine import DEFAULT_SETTINGS, Machine
from rules import Conductor
from server import RedfishServer
from service import Service

tree.BUILDERS[:] = [part.build for part in (tree_systems, tree_storage, tree_chassis, tree_managers, tree_services)]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--personality", choices=sorted(PERSONALITIES), default="standard")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--scheme", choices=("http", "https"), default="http")
    parser.add_argument("--tls", type=json.loads, default={}, metavar="JSON")
    parser.add_argument(
        "--set", type=json.loads, default={}, metavar="JSON", help="settings and personality fields to override"
    )
    return parser.parse_args()


class FakeBmc:
    """All the parts put together."""

    def __init__(self, options: argparse.Namespace):
        personality, rest = choose(options.personality, options.set)
        unknown = set(rest) - set(DEFAULT_SETTINGS)
        if unknown:
            raise ValueError(f"unknown settings: {sorted(unknown)}")
        self.machine = Machine(personality, rest)
        self.service = Service(self.machine)
        self.conductor = Conductor(self.service)
        self.conductor.configure({"settings": rest})
        self.hub = EventHub(self.machine)
        self.service.send_event = self.hub.send
        self.tls_options = tls.complete(options.tls)
        self.https = options.scheme == "https"
        context = self._make_context(self.tls_options)
        self.machine.watchers.append(self._on_effects)
        self.server = RedfishServer(
            options.host, options.port, self.conductor, self.hub, context if self.https else None
        )
        self.control = control_channel.Control(self.server, self.conductor, self.hub, self.install)
        self.control.tls_options = options.tls
        control_port = control_channel.serve(self.control, "127.0.0.1")
        self.hello = {
            "url": f"{options.scheme}://{options.host}:{self.server.port}",
            "host": options.host,
            "port": self.server.port,
            "control": f"http://127.0.0.1:{control_port}",
            "username": personality.username,
            "password": personality.password,
            "personality": personality.name,
        }

    def _make_context(self, options: dict):
        """A certificate by the options, stored in the machine, and the context that uses it."""
        certificate, key = tls.make_certificate(options)
        context = tls.server_context(certificate, key, options)
        tls.check_handshake(context, options)
        self.service.keys[certificate] = key
        with self.machine.lock:
            self.machine.state["certificate"].update(pem=certificate, **tls.describe(certificate))
            self.machine.revision += 1
        return context

    def install(self, options: dict) -> None:
        """Another certificate made by other options; open connections keep the old one."""
        options = tls.complete(options)
        context = self._make_context(options)
        self.tls_options = options
        if self.https:
            self.server.context = context

    def _on_effects(self, effects: list[dict]) -> None:
        """A certificate that came in through Redfish is used from the next connection on."""
        if self.https and any(e["what"] == "certificate/pem" for e in effects):
            pem = self.machine.state["certificate"]["pem"]
            self.server.context = tls.server_context(pem, self.service.keys[pem], self.tls_options)


def main() -> int:
    """Start, say hello, and wait for the end."""
    options = arguments()
    ended = threading.Event()
    try:
        if not ipaddress.ip_address(options.host).is_loopback:
            raise ValueError("only loopback addresses are served")
        bmc = FakeBmc(options)
    except (tls.TlsError, ValueError, OSError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 3
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    print(json.dumps(bmc.hello), flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    ended.wait()
    bmc.server.closing = True
    return 0


if __name__ == "__main__":
    sys.exit(main())
