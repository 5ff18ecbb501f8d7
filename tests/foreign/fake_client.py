"""Starts a fake BMC and talks to it: what the self-checks, and other tests, need."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

BMC = Path(__file__).with_name("bmc.py")
ROOT = "/redfish/v1"


class Fake:
    """A running fake BMC and a small client for it."""

    def __init__(self, personality: str, **options: object):
        command = [sys.executable, str(BMC), "--personality", personality]
        for name, value in options.items():
            command += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = json.loads(self.process.stdout.readline())
        self.token: str | None = None
        self.connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        if self.connection:
            self.connection.close()
        self.process.stdin.close()
        self.process.wait(5)
        self.process.stdout.close()

    def connect(self, timeout: float = 10) -> http.client.HTTPConnection:
        url = urlsplit(self.hello["url"])
        if url.scheme == "https":
            context = ssl._create_unverified_context()
            return http.client.HTTPSConnection(url.hostname, url.port, timeout=timeout, context=context)
        return http.client.HTTPConnection(url.hostname, url.port, timeout=timeout)

    def reconnect(self) -> None:
        """Forget the kept connection, for instance after the BMC restarted."""
        if self.connection:
            self.connection.close()
        self.connection = None

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        auth: str = "token",
        raw: bytes | None = None,
        timeout: float = 10,
        fresh: bool = False,
        **headers: str,
    ):
        """One request; returns status, headers and parsed body."""
        connection = self.connect(timeout) if fresh or self.connection is None else self.connection
        if not fresh:
            self.connection = connection
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        if data is not None:
            fields.setdefault("Content-Type", "application/json")
        if auth == "token" and self.token:
            fields["X-Auth-Token"] = self.token
        elif auth == "basic":
            fields["Authorization"] = (
                "Basic " + base64.b64encode(f"{self.hello['username']}:{self.hello['password']}".encode()).decode()
            )
        answer = None
        try:
            connection.request(method, path, data, fields)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            if answer:
                answer.close()
            connection.close()
            if connection is self.connection:
                self.connection = None
            raise
        finally:
            if fresh:
                connection.close()
        return (
            answer.status,
            {k.lower(): v for k, v in answer.getheaders()},
            json.loads(text) if text[:1] in (b"{", b"[") else text,
        )

    def get(self, path: str) -> dict:
        status, _, body = self.call("GET", path)
        assert status == 200, (path, status, body)
        return body

    def login(self, password: str | None = None) -> int:
        status, headers, _ = self.call(
            "POST",
            f"{ROOT}/SessionService/Sessions",
            {"UserName": self.hello["username"], "Password": password or self.hello["password"]},
            auth="none",
        )
        self.token = headers.get("x-auth-token", self.token)
        return status

    def control(self, path: str, value: object = None):
        url = urlsplit(self.hello["control"])
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
        connection.request(
            "POST" if value is not None else "GET", path, json.dumps(value) if value is not None else None
        )
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        if answer.status != 200:
            raise ValueError(body["error"])
        return body

    def rules(self, *rules: dict, **settings: object) -> None:
        self.control("/behaviour", {"rules": list(rules), "settings": settings})

    def system(self) -> str:
        """The first system that can be reset."""
        return next(
            m["@odata.id"] for m in self.get(f"{ROOT}/Systems")["Members"] if "Actions" in self.get(m["@odata.id"])
        )

    def until(self, test, seconds: float = 5) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if test():
                return True
            time.sleep(0.05)
        return False


def references(value: object) -> list[str]:
    """All links in a resource."""
    if isinstance(value, dict):
        own = [
            value[k]
            for k in ("@odata.id", "Uri", "@Redfish.ActionInfo", "Members@odata.nextLink")
            if isinstance(value.get(k), str)
        ]
        return own + [r for item in value.values() for r in references(item)]
    return [r for item in value for r in references(item)] if isinstance(value, list) else []
