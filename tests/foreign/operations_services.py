"""Writing to the services: sessions, accounts, tasks, updates, events and certificates."""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any

import tls
from operations import Text
from operations_managers import MANAGER
from protocol import ROOT, Refusal, Request, Response
from service import Service, assign, listed, route, typed

# ---------------------------------------------------------------- sessions and accounts


@route("POST", "SessionService/Sessions(?:/Members)?")
def create_session(service: Service, request: Request) -> Response:
    body = request.json()
    for name in ("UserName", "Password"):
        if not isinstance(body.get(name), str):
            raise Refusal(400, "PropertyMissing", name)
    key, session = service.access.open_session(request, body["UserName"], body["Password"])
    path = f"{ROOT}/SessionService/Sessions/{key}"
    response = service.created(path)
    response.headers["X-Auth-Token"] = session["token"]
    if service.p.session_location == "absolute":
        response.headers["Location"] = f"{request.scheme}://{request.headers.get('host', '')}{path}/"
    account = service.machine.state["accounts"][request.account]
    if account["password_change_required"]:
        required = Refusal(201, "PasswordChangeRequired", f"{ROOT}/AccountService/Accounts/{request.account}")
        response.body = {
            **response.body,
            "@Message.ExtendedInfo": service.refuse(required).body["error"]["@Message.ExtendedInfo"],
        }
    return response


@route("DELETE", "SessionService/Sessions/<session>")
def delete_session(service: Service, request: Request, session: str) -> Response:
    del service.machine.state["sessions"][session]
    return Response(204)


@route("PATCH", "SessionService")
def patch_session_service(service: Service, request: Request) -> Response:
    def timeout(value: Any) -> None:
        if not 30 <= typed(int, "SessionTimeout", value) <= 86400:
            raise Refusal(400, "PropertyValueOutOfRange", value, "SessionTimeout")
        service.machine.state["session_timeout_seconds"] = value

    assign(request.json(), {"SessionTimeout": timeout})
    return service.patched(request.path)


def checked_password(service: Service, value: Any) -> str:
    """A password that meets the length rules."""
    lower, upper = service.p.password_length
    typed(str, "Password", value)
    if not lower <= len(value) <= upper:
        raise Refusal(400, "PropertyValueFormatError", "******", "Password")
    return value


def checked_role(service: Service, value: Any) -> str:
    return listed(("Administrator", "Operator", "ReadOnly", "None"), "RoleId", value)


@route("POST", "AccountService/Accounts(?:/Members)?", lambda p: p.account_form == "members")
def create_account(service: Service, request: Request) -> Response:
    body, state = request.json(), service.machine.state
    for name in ("UserName", "Password", "RoleId"):
        if name not in body and not (name == "RoleId" and "Oem" in body):
            raise Refusal(400, "CreateFailedMissingReqProperties", name)
    user = typed(str, "UserName", body["UserName"])
    if any(a["user"] == user for a in state["accounts"].values()):
        raise Refusal(400, "ResourceAlreadyExists", "ManagerAccount", "UserName", user)
    key = user if service.p.account_ids == "name" else str(state["next_account"])
    state["next_account"] += 1
    state["accounts"][key] = {
        "user": user,
        "password": checked_password(service, body["Password"]),
        "role": checked_role(service, body.get("RoleId", "Administrator")),
        "enabled": body.get("Enabled", True),
        "locked_until": None,
        "failed_logins": 0,
        "password_change_required": body.get("PasswordChangeRequired", False),
    }
    return service.created(f"{ROOT}/AccountService/Accounts/{key}")


@route("PATCH", "AccountService/Accounts/<account>")
def patch_account(service: Service, request: Request, account: str) -> Response:
    state = service.machine.state["accounts"][account]
    if service.p.account_form == "slots" and account == "1":
        raise Refusal(405, "OperationNotAllowed")

    def unlock(value: Any) -> None:
        if typed(bool, "Locked", value):
            raise Refusal(400, "PropertyValueNotInList", "true", "Locked")
        state.update(locked_until=None, failed_logins=0)

    def password(value: Any) -> None:
        state.update(password=checked_password(service, value), password_change_required=False)

    own_only = service.machine.state["accounts"][request.account]["role"] != "Administrator"
    setters = {"Password": password}
    if not own_only:
        setters.update(
            UserName=lambda v: state.update(user=typed(str, "UserName", v)),
            Locked=unlock,
            Enabled=lambda v: state.update(enabled=typed(bool, "Enabled", v)),
            RoleId=lambda v: state.update(role=checked_role(service, v)),
            PasswordChangeRequired=lambda v: state.update(
                password_change_required=typed(bool, "PasswordChangeRequired", v)
            ),
        )
    assign(request.json(), setters)
    return service.patched(request.path)


@route("DELETE", "AccountService/Accounts/<account>", lambda p: p.account_form == "members")
def delete_account(service: Service, request: Request, account: str) -> Response:
    state = service.machine.state
    if account == request.account and len(state["accounts"]) == 1:
        raise Refusal(400, "ResourceCannotBeDeleted")
    del state["accounts"][account]
    state["sessions"] = {k: s for k, s in state["sessions"].items() if s["account"] != account}
    return Response(204)


@route("PATCH", "AccountService")
def patch_account_service(service: Service, request: Request) -> Response:
    policy = service.machine.state["account_policy"]
    assign(
        request.json(),
        {
            "AccountLockoutThreshold": lambda v: policy.update(threshold=typed(int, "AccountLockoutThreshold", v)),
            "AccountLockoutDuration": lambda v: policy.update(duration_seconds=typed(int, "AccountLockoutDuration", v)),
        },
    )
    return service.patched(request.path)


# ---------------------------------------------------------------- tasks, updates


@route("DELETE", "TaskService/Tasks/<task>")
@route("DELETE", MANAGER + "/Oem/Dell/Jobs/<task>", lambda p: p.name == "dell")
def delete_task(service: Service, request: Request, task: str, manager: str | None = None) -> Response:
    state = service.machine.state
    del state["tasks"][task]
    for system in state["systems"].values():
        if system["bios"] and system["bios"]["job"] == task:
            system["bios"].update(job=None, pending={})
    return Response(204)


@route("POST", MANAGER + "/Oem/Dell/DellJobService/Actions/DellJobService.DeleteJobQueue", lambda p: p.name == "dell")
def delete_job_queue(service: Service, request: Request, manager: str) -> Response:
    wanted, tasks = request.json().get("JobID"), service.machine.state["tasks"]
    if wanted not in tasks and wanted not in ("JID_CLEARALL", "JID_CLEARALL_FORCE"):
        raise Refusal(400, "ActionParameterMissing", "DellJobService.DeleteJobQueue", "JobID")
    for task in [t for t in tasks if wanted in (t, "JID_CLEARALL", "JID_CLEARALL_FORCE")]:
        delete_task(service, request, task)
    return service.success()


@route("PATCH", "UpdateService", lambda p: p.push_busy)
def patch_update(service: Service, request: Request) -> Response:
    state = service.machine.state
    assign(
        request.json(),
        {
            "HttpPushUriTargetsBusy": lambda v: state.update(push_busy=typed(bool, "HttpPushUriTargetsBusy", v)),
            "HttpPushUriTargets": lambda v: typed(list, "HttpPushUriTargets", v),
        },
    )
    return service.patched(request.path)


def update(service: Service, request: Request, source: str, size: int, targets: list[str]) -> Response:
    """Install an image: the version becomes what the name of the image says after the last dash."""
    machine = service.machine
    if any(t["kind"] == "Update" and t["state"] == "Running" for t in machine.state["tasks"].values()):
        raise Refusal(503, "ResourceInUse", headers={"Retry-After": "5"})
    wanted = re.search(r"[-_]v?(\d[\w.]*?)(?:\.(?:bin|exe|fwpkg|zip|tar|gz|img|hpm|pup))*$", source)
    kinds = {path.rsplit("/", 1)[1]: path for path in targets}
    machine.state["updates"].append({"at": time.monotonic(), "source": source, "size": size, "targets": targets})
    if machine.settings["reset_during_update"]:
        machine.after(machine.settings["task_seconds"] / 2, machine.restart_bmc, service.p.managers[-1].id)

    def install() -> None:
        state, lower = machine.state["firmware"], source.lower()
        keys = [
            k
            for k in state
            if k in kinds
            or ("bios" in lower) == (state[k]["kind"] == "BIOS")
            and not kinds
            and state[k]["kind"] in ("BMC", "BIOS")
        ]
        if not keys:
            raise Refusal(400, "OperationFailed")
        for key in keys:
            version = wanted[1] if wanted else state[key]["version"] + ".1"
            if state[key]["kind"] == "BMC":
                state[key]["version"] = version
                for manager in machine.state["managers"].values():
                    manager["version"] = version
                machine.restart_bmc(service.p.managers[-1].id)
            else:
                state[key]["pending"] = version

    return service.start(request, "Firmware Update", install, kind="Update")


@route("POST", "UpdateService/Actions/UpdateService.SimpleUpdate", lambda p: p.simple_update)
def simple_update(service: Service, request: Request) -> Response:
    body = request.json()
    if not body.get("ImageURI"):
        raise Refusal(400, "ActionParameterMissing", "UpdateService.SimpleUpdate", "ImageURI")
    if "TransferProtocol" in body and body["TransferProtocol"] not in service.p.simple_update:
        raise Refusal(
            400,
            "ActionParameterValueNotInList",
            body["TransferProtocol"],
            "TransferProtocol",
            "UpdateService.SimpleUpdate",
        )
    return update(service, request, body["ImageURI"], 0, body.get("Targets") or [])


@route("POST", "UpdateService/Actions/UpdateService.StartUpdate")
def start_update(service: Service, request: Request) -> Response:
    return service.done()


def push_image(service: Service, request: Request) -> Response:
    """An image in the body, alone or as a part of a form."""
    if "chunked" in request.headers.get("transfer-encoding", "") and service.p.name == "dell":
        raise Refusal(411, "HeaderInvalid", "Content-Length")
    if not request.parts:
        if not request.body:
            raise Refusal(400, "MissingOrMalformedPart")
        return update(service, request, "image.bin", len(request.body), [])
    image = next((p for p in request.parts if p.name in ("UpdateFile", "file") and p.filename), None)
    if image is None:
        raise Refusal(400, "MissingOrMalformedPart")
    parameters: dict = {}
    for part in request.parts:
        if part.name == "UpdateParameters":
            try:
                parameters = json.loads(part.content or b"{}")
            except ValueError as error:
                raise Refusal(400, "MalformedJSON") from error
    return update(service, request, image.filename, len(image.content), parameters.get("Targets") or [])


# ---------------------------------------------------------------- events


@route("POST", "EventService/Subscriptions(?:/Members)?")
def subscribe(service: Service, request: Request) -> Response:
    body, state, p = request.json(), service.machine.state, service.p
    for name in ("Destination", "Protocol"):
        if not body.get(name):
            raise Refusal(400, "CreateFailedMissingReqProperties", name)
    if p.name == "hpe" and "DeliveryRetryPolicy" in body:
        raise Refusal(400, "PropertyUnknown", "DeliveryRetryPolicy")
    if p.event_fields == "types" and not body.get("EventTypes"):
        raise Refusal(400, "CreateFailedMissingReqProperties", "EventTypes")
    if any(s["destination"] == body["Destination"] for s in state["subscriptions"].values()) and p.name != "openbmc":
        raise Refusal(400, "ResourceAlreadyExists", "EventDestination", "Destination", body["Destination"])
    if len(state["subscriptions"]) >= p.subscription_limit:
        raise Refusal(503, "CreateLimitReachedForResource")
    key = str(max((int(k) for k in state["subscriptions"]), default=0) + 1)
    state["subscriptions"][key] = {
        "destination": body["Destination"],
        "context": body.get("Context", ""),
        "types": body.get("EventTypes", []),
        "headers": body.get("HttpHeaders") or [],
        "delivered": 0,
        "failed": 0,
    }
    return service.created(f"{ROOT}/EventService/Subscriptions/{key}")


@route("PATCH", "EventService/Subscriptions/<subscription>")
def patch_subscription(service: Service, request: Request, subscription: str) -> Response:
    state = service.machine.state["subscriptions"][subscription]
    assign(request.json(), {"Context": lambda v: state.update(context=typed(Text, "Context", v) or "")})
    return service.patched(request.path)


@route("DELETE", "EventService/Subscriptions/<subscription>")
def unsubscribe(service: Service, request: Request, subscription: str) -> Response:
    del service.machine.state["subscriptions"][subscription]
    return Response(204)


@route("POST", "EventService/Actions/EventService.SubmitTestEvent")
def test_event(service: Service, request: Request) -> Response:
    body = request.json()
    service.send_event(
        {
            "EventType": body.get("EventType", "Alert"),
            "EventId": body.get("EventId") or str(uuid.uuid4()),
            "MessageId": body.get("MessageId") or "ResourceEvent.1.0.TestMessage",
            "Message": body.get("Message", "Test event"),
            "Severity": body.get("Severity", "OK"),
        }
    )
    return service.done()


# ---------------------------------------------------------------- certificates


@route("POST", "CertificateService/Actions/CertificateService.GenerateCSR", lambda p: "GenerateCSR" in p.certificates)
def generate_csr(service: Service, request: Request) -> Response:
    body = request.json()
    for name in ("CommonName", "CertificateCollection"):
        if name not in body:
            raise Refusal(400, "ActionParameterMissing", "CertificateService.GenerateCSR", name)
    key, csr = tls.signing_request(str(body["CommonName"]), [str(n) for n in body.get("AlternativeNames", [])])
    service.csr_key = key
    return Response(
        200,
        {
            "@odata.type": "#CertificateService.v1_0_5.GenerateCSRResponse",
            "CSRString": csr,
            "CertificateCollection": body["CertificateCollection"],
        },
    )


@route(
    "POST",
    "CertificateService/Actions/CertificateService.ReplaceCertificate",
    lambda p: "ReplaceCertificate" in p.certificates,
)
def replace_certificate(service: Service, request: Request) -> Response:
    body = request.json()
    for name in ("CertificateString", "CertificateType", "CertificateUri"):
        if name not in body:
            raise Refusal(400, "ActionParameterMissing", "CertificateService.ReplaceCertificate", name)
    target = body["CertificateUri"]["@odata.id"]
    if service.trees.current().get(target) is None:
        raise Refusal(400, "ResourceMissingAtURI", target)
    install_certificate(service, body["CertificateString"])
    response = service.done()
    response.headers["Location"] = target
    return response


@route("POST", MANAGER + "/SecurityService/HttpsCert/Actions/HpeHttpsCert.ImportCertificate", lambda p: p.name == "hpe")
def import_certificate(service: Service, request: Request, manager: str) -> Response:
    install_certificate(service, request.json().get("Certificate", ""))
    service.machine.restart_bmc(manager)
    return service.done()


def install_certificate(service: Service, pem: str) -> None:
    """Use a certificate that fits the key of the last signing request, the present key, or a key in the same text."""
    certificates, own_key = tls.split_pem(pem)
    candidates = [
        k for k in (own_key, service.csr_key, service.keys.get(service.machine.state["certificate"]["pem"])) if k
    ]
    key = next((k for k in candidates if certificates and tls.key_fits(certificates, k)), None)
    if key is None:
        raise Refusal(400, "PropertyValueIncorrect", "CertificateString", "(PEM)")
    facts = tls.describe(certificates)
    service.machine.state["certificate"].update(
        pem=certificates, replaced=service.machine.state["certificate"]["replaced"] + 1, **facts
    )
    service.keys[certificates] = key
