#!/usr/bin/env python3
"""Serve a recorded tree as a BMC that can only be read, written from the standard without a look at any client.

Usage:
    recorded.py TREE.json.gz [--host 127.0.0.1] [--port 0]

It prints one line, `{"host", "port"}`, and serves until its standard input ends. A login is answered whoever it is;
every other write is refused and printed to standard error, so that a test can see that nothing was written.
"""

import argparse
import gzip
import http.server
import json
import sys
import threading
import urllib.parse


def key(path):
    """Paths without case, trailing slash or spelling of the query: recordings of pages are named by theirs."""
    path, _, query = path.partition("?")
    path = path.rstrip("/").lower()
    return f"{path}?{urllib.parse.unquote(query).lower()}" if query else path


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing: what matters is printed."""

    def answer(self, status, body, headers=()):
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in [("Content-Type", "application/json"), ("Content-Length", str(len(raw))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def refuse(self, status, word):
        self.answer(status, {"error": {"code": f"Base.1.0.{word}", "message": "a recording can only be read"}})

    def do_GET(self):
        tree = self.server.tree
        body = tree.get(key(self.path), tree.get(key(self.path.partition("?")[0])))
        if body is None:
            self.refuse(404, "ResourceMissingAtURI")
        else:
            self.answer(200, body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.rstrip("/")
        if path.endswith("/Sessions"):
            here = f"{path}/recorded"
            body = {"@odata.id": here, "Id": "recorded", "Name": "Session"}
            self.answer(201, body, [("X-Auth-Token", "recorded"), ("Location", here)])
        elif self.command == "DELETE" and "/Sessions/" in path:
            self.answer(200, {})
        else:
            print(f"{self.command} {self.path} refused", file=sys.stderr, flush=True)
            self.refuse(405, "OperationNotAllowed")

    do_PATCH = do_PUT = do_DELETE = do_POST


class Server(http.server.ThreadingHTTPServer):
    """The tree on its address."""

    daemon_threads = True
    request_queue_size = 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("tree")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    server = Server((options.host, options.port), Handler)
    with gzip.open(options.tree) as file:
        server.tree = {key(path): body for path, body in json.load(file).items()}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"host": options.host, "port": server.server_port}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
