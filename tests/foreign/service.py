"""The Redfish service: authentication, dispatch to the operations, answers in the family's form."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import query
from access import Access
from machine import Machine
from protocol import ROOT, Refusal, Request, Response, error_body, message
from tree import Tree, TreeCache
from tree_services import monitor_path, task_path

Handler = Callable[..., Response]
ROUTES: list[tuple[str, str, Handler, Callable]] = []
METADATA = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">\n'
    b'<edmx:Reference Uri="/redfish/v1/Schemas/ServiceRoot_v1.xml"><edmx:Include Namespace="ServiceRoot"/></edmx:Reference>\n</edmx:Edmx>\n'
)


def route(method: str, pattern: str, when: Callable = lambda p: True) -> Callable[[Handler], Handler]:
    """Register the handler of a method on the paths (below /redfish/v1) that match a pattern."""

    def register(handler: Handler) -> Handler:
        full = re.escape(ROOT) + "/" + re.sub(r"(?<!P)<(\w+)>", r"(?P<\1>[^/]+)", pattern) + "/?"
        ROUTES.append((method, full, handler, when))
        return handler

    return register


class Service:
    """One Redfish service over one machine."""

    def __init__(self, machine: Machine):
        self.machine, self.p = machine, machine.personality
        self.access = Access(machine)
        self.trees = TreeCache(machine)
        self.csr_key: str | None = None
        self.keys: dict[str, str] = {}  # private key by certificate
        self.send_event: Callable[[dict], None] = lambda event: None

    # ------------------------------------------------------------ entry

    def authenticate(self, request: Request) -> None:
        """Raise a refusal when the sender may not do this; failed logins are counted."""
        if request.method == "POST" or request.basic_credentials():
            with self.machine.transaction(request.record):
                self.access.authenticate(request)
        else:
            with self.machine.lock:
                self.access.authenticate(request)

    def handle(self, request: Request, *, keep: bool = True) -> Response:
        """Carry out an authenticated request; with keep=False only find out what the answer would be."""
        if request.headers.get("odata-version", "4.0") not in ("4.0", "4.01"):
            raise Refusal(412, "HeaderInvalid", "OData-Version")
        if request.method in ("GET", "HEAD") and "/Monitor" not in request.path and "TaskMonitors" not in request.path:
            with self.machine.lock:
                return self._read(request)
        with self.machine.transaction(request.record) as transaction:
            try:
                response = self._read(request) if request.method in ("GET", "HEAD") else self._write(request)
            except Refusal as refusal:
                if refusal.status != 401:  # failed logins stay counted
                    transaction.rollback()
                raise
            if not keep:
                transaction.rollback()
            return response

    def refuse(self, refusal: Refusal) -> Response:
        """The response for a refusal."""
        headers = dict(refusal.headers)
        return Response(refusal.status, error_body(self.p.errors, refusal), headers)

    # ------------------------------------------------------------ reading

    def _read(self, request: Request) -> Response:
        tree, path = self.trees.current(), request.path
        if path.rstrip("/") == f"{ROOT}/$metadata":
            return Response(200, METADATA, {"Content-Type": "application/xml"})
        if self.p.root_redirect and path == ROOT:
            return Response(308, None, {"Location": ROOT + "/"})
        task = self._task_of_monitor(tree, path)
        if task:
            return self._monitor(task)
        resource = tree.get(path)
        if resource is None:
            if tree.key(path) in tree.targets:
                raise Refusal(405, "OperationNotAllowed", headers={"Allow": "POST"})
            raise Refusal(404, "ResourceMissingAtURI", path)
        etag = tree.etag(path)
        if etag and request.headers.get("if-none-match") == etag:
            return Response(304, None, {"ETag": etag})
        size = self.machine.settings["page_size"]
        body = query.answer(
            tree,
            resource.get("@odata.id", path),
            resource,
            request.query,
            self.p.page_size if size is None else size,
        )
        headers = {"Allow": ", ".join(self._allowed(path)), "Link": self._schema_link(body)}
        if etag:
            headers["ETag"] = etag
            if self.p.etag_in_body and body is not None and "@odata.id" in body:
                body = {**body, "@odata.etag": etag}
        return Response(200, body, headers)

    @staticmethod
    def _schema_link(body: dict) -> str:
        kind = body.get("@odata.type", "#ServiceRoot").split(".")[0].lstrip("#")
        return f"<http://redfish.dmtf.org/schemas/v1/{kind}.json>; rel=describedby"

    def _allowed(self, path: str) -> list[str]:
        methods = [m for m, pattern, _, when in ROUTES if self._fits(pattern, path) and when(self.p)]
        return ["GET", "HEAD", *dict.fromkeys(methods)]

    def _fits(self, pattern: str, path: str) -> re.Match | None:
        return re.fullmatch(pattern, path, re.IGNORECASE if self.p.ignore_case else 0)

    # ------------------------------------------------------------ tasks

    def _task_of_monitor(self, tree: Tree, path: str) -> str | None:
        if self.p.tasks == "ami":
            return None
        return next((t for t in self.machine.state["tasks"] if tree.key(monitor_path(tree, t)) == tree.key(path)), None)

    def _monitor(self, task_id: str) -> Response:
        task = self.machine.state["tasks"][task_id]
        if task["gone"] or task["collected"]:
            raise Refusal(404, "ResourceMissingAtURI", task_path(task_id))
        if task["state"] in ("Running", "Pending", "New"):
            return self.accepted(task_id)
        task["collected"] = True
        if self.p.tasks == "lenovo":  # reading the monitor of a finished task removes the task
            task["gone"] = True
        return Response(task["result"]["status"], task["result"]["body"])

    def accepted(self, task_id: str, location: str | None = None) -> Response:
        """A 202 with the task, and with its monitor if the family says where that is."""
        tree = self.trees.current(fresh=True)
        headers = {"Retry-After": "1"}
        if self.p.task_location:
            headers["Location"] = location or monitor_path(tree, task_id)
        return Response(202, tree.get(task_path(task_id)), headers)

    # ------------------------------------------------------------ writing

    def _write(self, request: Request) -> Response:
        tree, path = self.trees.current(), request.path
        if path in (self.p.push_multipart, self.p.push_raw) and request.method == "POST":
            from operations_services import push_image

            return push_image(self, request)
        known = tree.get(path) is not None or tree.key(path) in tree.targets
        for method, pattern, handler, when in ROUTES:
            match = self._fits(pattern, path)
            if method != request.method or not match or not when(self.p):
                continue
            if not known and not (
                request.method == "POST" and path.rstrip("/").endswith("/Members") and tree.get(path.rstrip("/")[:-8])
            ):
                break
            is_action = "/Actions/" in path
            self._check_content(request, is_action)
            if request.method in ("PATCH", "PUT"):
                self._check_etag(request, tree)
            return handler(self, request, **match.groupdict())
        if not known:
            raise Refusal(404, "ResourceMissingAtURI", path)
        allowed = self._allowed(path) if tree.get(path) else ["POST"]
        raise Refusal(405, "OperationNotAllowed", headers={"Allow": ", ".join(allowed)})

    def _check_content(self, request: Request, is_action: bool) -> None:
        kind = request.headers.get("content-type", "")
        if request.body and request.method in ("POST", "PATCH", "PUT") and not kind.startswith("application/json"):
            raise Refusal(415, "UnsupportedMediaType")
        if is_action and not request.body and self.p.empty_action_body == "refuse":
            raise Refusal(415, "UnsupportedMediaType") if self.p.name == "hpe" else Refusal(400, "MalformedJSON")

    def _check_etag(self, request: Request, tree: Tree) -> None:
        mode = self.machine.settings["if_match"] or self.p.if_match
        given, real = request.headers.get("if-match"), tree.etag(request.path)
        if given is None:
            if self.p.if_match_required:
                raise Refusal(428, "PreconditionRequired")
            return
        if mode == "ignored" or real is None and mode == "checked":
            return
        if given == "*":
            if mode == "no_star":
                raise Refusal(412, "PreconditionFailed")
            return
        if mode == "star_only" or real not in [tag.strip() for tag in given.split(",")]:
            raise Refusal(412, "PreconditionFailed")

    # ------------------------------------------------------------ answers

    def patched(self, path: str) -> Response:
        """The answer to a successful PATCH."""
        if self.p.patch_answer == "none":
            return Response(204)
        if self.p.patch_answer == "resource":
            tree = self.trees.current(fresh=True)
            etag = tree.etag(path)
            return Response(200, tree.get(path), {"ETag": etag} if etag else {})
        return self.success()

    def success(self, key: str = "Success", status: int = 200) -> Response:
        """A body that only says that all went well, in the family's wrapping."""
        registry = self.p.errors.get("registry", "Base.1.16")
        if self.p.name == "dell":
            return Response(
                status,
                {
                    "@Message.ExtendedInfo": [
                        message(key, registry=registry),
                        {
                            "MessageId": "IDRAC.2.8.SYS413",
                            "Message": "The operation successfully completed.",
                            "MessageArgs": [],
                            "Severity": "OK",
                            "RelatedProperties": [],
                            "Resolution": "No response action is required.",
                        },
                    ]
                },
            )
        if self.p.name == "supermicro":
            return Response(
                status,
                {
                    "Success": {
                        "code": f"{registry}.{key}",
                        "message": message(key)["Message"],
                        "@Message.ExtendedInfo": [message(key, registry=registry)],
                    }
                },
            )
        return Response(
            status,
            {
                "error": {
                    "code": self.p.errors.get("code", f"{registry}.{key}"),
                    "message": self.p.errors.get("text", key),
                    "@Message.ExtendedInfo": [message(key, registry=registry, full=not self.p.errors.get("short"))],
                }
            },
        )

    def done(self) -> Response:
        """The answer to a successful action."""
        return self.success() if self.p.reset_answer == 200 else Response(204)

    def created(self, path: str) -> Response:
        """The answer to a successful creation."""
        return Response(201, self.trees.current(fresh=True).get(path), {"Location": path})

    def start(
        self,
        request: Request,
        name: str,
        action: Callable | None,
        *,
        location: Callable[[str], str] | None = None,
        **options: Any,
    ) -> Response:
        """Begin a task for the request and answer 202."""
        task_id = self.machine.start_task(
            name, action, payload=self.payload(request) if self.p.task_payload else None, **options
        )
        return self.accepted(task_id, location(task_id) if location else None)

    @staticmethod
    def payload(request: Request) -> dict:
        """The Payload property of a task for a request."""
        return {
            "HttpHeaders": [f"Host: {request.headers.get('host', '')}"],
            "HttpOperation": request.method,
            "JsonBody": request.body.decode("utf-8", "replace") if len(request.body) < 4096 else "",
            "TargetUri": request.path,
        }

    # ------------------------------------------------------------ checks of bodies

    def one_of(
        self, request: Request, action: str, parameter: str, allowed: tuple | list, default: str | None = None
    ) -> str:
        """The value of an action parameter that must be one of the allowed ones."""
        value = request.json().get(parameter, default)
        if value is None:
            raise Refusal(400, "ActionParameterMissing", action, parameter)
        if value not in allowed:
            raise Refusal(400, "ActionParameterValueNotInList", value, parameter, action)
        return value


def assign(body: dict, setters: dict[str, Callable[[Any], None]], read_only: tuple = ()) -> None:
    """Give each property of a PATCH to its setter; unknown and read-only ones refuse the request."""
    wanted = {key: value for key, value in body.items() if "@" not in key}
    if not wanted:
        raise Refusal(400, "NoOperation")
    for key in wanted:
        if key not in setters:
            common = (
                "Id",
                "Name",
                "Status",
                "Actions",
                "Links",
                "Members",
                "PowerState",
                "SerialNumber",
                "UUID",
                "Model",
                "Manufacturer",
            )
            raise Refusal(
                400,
                "PropertyNotWritable" if key in read_only + common else "PropertyUnknown",
                key,
                related=[f"#/{key}"],
            )
    for key, value in wanted.items():
        setters[key](value)


def typed(kind: type | tuple, name: str, value: Any) -> Any:
    """The value, if it has the type that the property has."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool and kind != (bool, type(None))):
        raise Refusal(400, "PropertyValueTypeError", value, name)
    return value


def listed(allowed: tuple | list, name: str, value: Any) -> Any:
    """The value, if it is one of the allowed ones."""
    if value not in allowed:
        raise Refusal(400, "PropertyValueNotInList", value, name)
    return value
