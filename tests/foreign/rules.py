"""Faults on demand: rules that say which request is answered how, and the conductor that applies them."""

from __future__ import annotations

import json
import re
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

from machine import DEFAULT_SETTINGS, Machine
from protocol import Refusal, Request, Response, message
from service import Service

MATCH_KEYS = {"method", "path", "body", "nth", "times", "for_seconds"}
DO_KEYS = {
    "delay",
    "delay_answer",
    "lose_answer",
    "lose_request",
    "hang",
    "status",
    "error",
    "retry_after",
    "ignore",
    "late",
    "task",
    "garbage",
    "truncate",
    "wrong_type",
    "huge",
    "old_value",
    "drop_member",
    "error_member",
    "headers",
}


@dataclass
class Rule:
    """One rule with what it has seen so far."""

    spec: dict
    installed: float = field(default_factory=time.monotonic)
    seen: int = 0
    fired: int = 0

    def __post_init__(self) -> None:
        match, do = self.spec.get("match", {}), self.spec.get("do", {})
        unknown = (set(match) - MATCH_KEYS) | (set(do) - DO_KEYS) | (set(self.spec) - {"match", "do"})
        if unknown or not do:
            raise ValueError(f"rule not understood: {sorted(unknown) or 'nothing to do'}")
        re.compile(match.get("path", ""))
        re.compile(match.get("body", ""))

    def applies(self, request: Request) -> bool:
        """Whether the rule fires for a request; counts it."""
        match = self.spec.get("match", {})
        if time.monotonic() - self.installed > match.get("for_seconds", float("inf")) or self.fired >= match.get(
            "times", float("inf")
        ):
            return False
        methods = match.get("method")
        if methods and request.method not in ([methods] if isinstance(methods, str) else methods):
            return False
        if not re.search(match.get("path", ""), request.path) or not re.search(
            match.get("body", ""), request.body.decode("utf-8", "replace")
        ):
            return False
        self.seen += 1
        if "nth" in match and self.seen != match["nth"]:
            return False
        self.fired += 1
        return True

    def show(self) -> dict:
        """The rule and its counters."""
        return {**self.spec, "seen": self.seen, "fired": self.fired}


@dataclass
class Outcome:
    """What the connection has to do: send a response, cut, wait for ever, or stream events."""

    response: Response | None = None
    cut: bool = False
    hang: bool = False
    stream: bool = False
    keep_bytes: int | None = None
    extra_headers: dict = field(default_factory=dict)


class Conductor:
    """Takes each request through rules, global settings and the service."""

    def __init__(self, service: Service):
        self.service, self.machine = service, service.machine
        self.lock = threading.Lock()
        self.rules: list[Rule] = []

    # ------------------------------------------------------------ configuration

    def configure(self, value: Any) -> None:
        """Replace the rules (a list), or rules and settings (an object)."""
        if isinstance(value, list):
            value = {"rules": value}
        settings, rules = value.get("settings", {}), value.get("rules")
        unknown = (set(settings) - set(DEFAULT_SETTINGS)) | (set(value) - {"rules", "settings"})
        if unknown:
            raise ValueError(f"unknown settings: {sorted(unknown)}")
        fresh = [Rule(rule) for rule in rules] if rules is not None else None
        with self.lock, self.machine.lock:
            if fresh is not None:
                self.rules = fresh
            self.machine.settings.update(settings)
            if "login_fails_for" in settings:
                self.service.access.login_fails_until = time.monotonic() + settings["login_fails_for"]

    def show(self) -> dict:
        """Rules with counters, and settings."""
        with self.lock:
            return {"rules": [rule.show() for rule in self.rules], "settings": self.machine.settings}

    def _pick(self, request: Request) -> tuple[int | None, dict]:
        with self.lock:
            for number, rule in enumerate(self.rules):
                if rule.applies(request):
                    return number, rule.spec["do"]
        return None, {}

    # ------------------------------------------------------------ one request

    def perform(self, request: Request) -> Outcome:
        """Handle a request as the rules want it."""
        number, do = self._pick(request)
        user, session = self.service.access.claimed(request)
        request.record.update(rule=number, user=user, session=session)
        time.sleep(self.machine.settings["latency"])
        if do.get("lose_request") or self.machine.state["bmc"]["state"] == "down":
            return Outcome(cut=True)
        if do.get("hang"):
            return Outcome(hang=True)
        time.sleep(do.get("delay", 0))
        response = self._respond(request, do)
        if response is None:
            return Outcome(stream=True)
        outcome = self._alter(request, do, response)
        time.sleep(do.get("delay_answer", 0))
        if do.get("lose_answer"):
            return Outcome(cut=True)
        return outcome

    def _respond(self, request: Request, do: dict) -> Response | None:
        service = self.service
        try:
            if self.machine.state["bmc"]["state"] == "starting":
                raise Refusal(503, "ServiceTemporarilyUnavailable", "5", headers={"Retry-After": "5"})
            if "status" in do and "late" not in do and "task" not in do:
                return self._fault(do)
            service.authenticate(request)
            if request.method == "GET" and request.path == self.machine.personality.sse:
                return None
            response = self._handle(request, do)
            if request.session and not request.record["session"]:  # it just opened its session
                request.record.update(user=self._user(request), session=request.session)
            return response
        except Refusal as refusal:
            return service.refuse(refusal)
        except Exception:  # a fault of the double: visible on stderr, and an error for the client
            traceback.print_exc()
            return service.refuse(Refusal(500, "InternalError"))

    def _user(self, request: Request) -> str | None:
        account = self.machine.state["accounts"].get(request.account or "")
        return account["user"] if account else None

    def _handle(self, request: Request, do: dict) -> Response:
        service = self.service
        if do.get("ignore"):
            return service.handle(request, keep=False)
        if do.get("old_value"):
            answer = service.handle(request, keep=False)
            with self.machine.lock:
                present = service.trees.current().get(request.path)
            return Response(200, present) if request.method in ("PATCH", "PUT") and answer.body is not None else answer
        if "late" in do:
            answer = service.handle(request, keep=False)
            late = do["late"] if isinstance(do["late"], dict) else {"seconds": do["late"]}
            with self.machine.transaction(request.record):
                self.machine.after(late.get("seconds", 1), service._write, request)
            status = late.get("status", do.get("status"))
            return (
                answer if status is None else Response(status, None if status == 204 else answer.body, answer.headers)
            )
        if "task" in do:
            options = do["task"] if isinstance(do["task"], dict) else {"seconds": do["task"]}
            service.handle(request, keep=False)
            with self.machine.transaction(request.record):
                task = self.machine.start_task(
                    options.get("name", f"{request.method} {request.path}"),
                    lambda: service._write(request),
                    seconds=options.get("seconds"),
                    fails=options.get("fails", False),
                    vanishes=options.get("vanishes", False),
                    payload=service.payload(request) if options.get("payload") else None,
                )
                return service.accepted(task)
        return service.handle(request)

    def _fault(self, do: dict) -> Response:
        """An error of the rule's own, without acting."""
        error, status = do.get("error", "GeneralError"), do["status"]
        headers = {"Retry-After": str(do["retry_after"])} if "retry_after" in do else {}
        if isinstance(error, str):
            response = self.service.refuse(Refusal(status, error)) if status >= 400 else Response(status, None)
        elif "body" in error:
            raw = error["body"]
            response = Response(status, raw.encode() if isinstance(raw, str) else raw)
        else:
            info = {
                **message(error.get("message_id", "GeneralError"), *error.get("args", [])),
                **({"Message": error["message"]} if "message" in error else {}),
            }
            response = Response(
                status,
                {"error": {"code": info["MessageId"], "message": info["Message"], "@Message.ExtendedInfo": [info]}},
            )
        response.headers.update(headers)
        return response

    # ------------------------------------------------------------ broken bodies

    def _alter(self, request: Request, do: dict, response: Response) -> Outcome:
        body, outcome = response.body, Outcome(response=response, extra_headers=do.get("headers", {}))
        pattern = self.machine.settings["http_error_in_200"]
        if pattern and request.method == "GET" and response.status == 200 and re.search(pattern, request.path):
            body = self.service.refuse(Refusal(500, "InternalError")).body
        if isinstance(body, dict) and "Members" in body:
            body = alter_members(body, do)
        if "wrong_type" in do and isinstance(body, dict):
            body = wrong_types(body, do["wrong_type"])
        if "huge" in do:
            size = do["huge"] if do["huge"] is not True else 64 << 20
            body = json.dumps({**(body if isinstance(body, dict) else {}), "Padding": "x" * size}).encode()
        if "garbage" in do:
            body = do["garbage"].encode() if isinstance(do["garbage"], str) else b"\xff\xfe<html>not JSON \x00{"
        outcome.response = Response(response.status, body, response.headers)
        if do.get("truncate"):
            length = len(outcome.response.encoded())
            outcome.keep_bytes = length // 2 if do["truncate"] is True else min(do["truncate"], length)
        return outcome


def alter_members(body: dict, do: dict) -> dict:
    """Lose a member of a collection, or put an error in its place; the count stays."""
    members = list(body["Members"])

    def position(which: Any) -> int | None:
        if which is True:
            return len(members) - 1 if members else None
        if isinstance(which, int):
            return which if which < len(members) else None
        return next((n for n, m in enumerate(members) if m["@odata.id"].rstrip("/").endswith("/" + which)), None)

    if "drop_member" in do and position(do["drop_member"]) is not None:
        del members[position(do["drop_member"])]
    if "error_member" in do and position(do["error_member"]) is not None:
        at = position(do["error_member"])
        members[at] = {
            "@odata.id": members[at]["@odata.id"],
            "error": {
                "code": "Base.1.16.InternalError",
                "message": "InternalError",
                "@Message.ExtendedInfo": [message("InternalError")],
            },
        }
    return {**body, "Members": members}


def wrong_types(body: dict, wanted: Any) -> dict:
    """Give properties (`a/b` for nested ones) other values, or with True turn the types of all around."""
    if wanted is True:
        return {
            key: value if key.startswith("@") else ([value] if isinstance(value, (str, dict)) else str(value))
            for key, value in body.items()
        }
    result = json.loads(json.dumps(body))
    for path, value in wanted.items():
        place, steps = result, path.strip("/").split("/")
        for step in steps[:-1]:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        place[int(steps[-1]) if isinstance(place, list) else steps[-1]] = value
    return result


def merge_patch(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396), except that null empties a plain value instead of removing its key."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None and isinstance(result.get(key), dict):
            del result[key]
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def patch_machine(machine: Machine, patch: dict) -> None:
    """Change the machine by hand, keeping it consistent."""
    unknown = set(patch) - set(machine.state)
    if unknown:
        raise ValueError(f"no such part of the state: {sorted(unknown)}")
    with machine.transaction():
        before = {key: system["power"] for key, system in machine.state["systems"].items()}
        machine.state = merge_patch(machine.state, patch)
        for key, system in machine.state["systems"].items():
            if system["power"] != before.get(key):
                on = system["power"] == "On"
                system["generation"] += 1
                system.update(in_post=False, boot_progress="OSRunning" if on else "None")
                system["os"]["running"] = on
        for number, (key, session) in enumerate(machine.state["sessions"].items()):
            for name, value in (
                ("user", "someone"),
                ("account", None),
                ("token", f"{key}-{number}"),
                ("created", machine.now()),
                ("client", "192.0.2.99"),
            ):
                session.setdefault(name, value)
