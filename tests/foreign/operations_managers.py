"""Writing to managers, virtual media and logs."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

from hardware import build_accounts, empty_media
from operations import led_setters
from protocol import Refusal, Request, Response
from service import Service, assign, listed, route, typed

MANAGER = "Managers/<manager>"


# ---------------------------------------------------------------- managers


@route("PATCH", MANAGER)
def patch_manager(service: Service, request: Request, manager: str) -> Response:
    state = service.machine.state["managers"][manager]

    def set_clock(value: Any) -> None:
        try:
            wanted = datetime.fromisoformat(typed(str, "DateTime", value).replace("Z", "+00:00"))
        except ValueError as error:
            raise Refusal(400, "PropertyValueFormatError", value, "DateTime") from error
        if wanted.tzinfo is None or wanted.microsecond:
            raise Refusal(400, "PropertyValueFormatError", value, "DateTime")
        state["clock_offset_seconds"] = round(wanted.timestamp() - time.time(), 1)

    setters = {"DateTime": set_clock, "DateTimeLocalOffset": lambda v: listed(("+00:00",), "DateTimeLocalOffset", v)}
    if service.p.name == "standard":
        setters.update(led_setters(service, state))
    assign(request.json(), setters)
    return service.patched(request.path)


@route("PATCH", MANAGER + "/NetworkProtocol")
def patch_protocol(service: Service, request: Request, manager: str) -> Response:
    state = service.machine.state["managers"][manager]

    def ntp(value: Any) -> None:
        assign(
            typed(dict, "NTP", value),
            {
                "ProtocolEnabled": lambda v: state["ntp"].update(enabled=typed(bool, "ProtocolEnabled", v)),
                "NTPServers": lambda v: state["ntp"].update(servers=typed(list, "NTPServers", v)),
            },
        )

    def protocol(name: str) -> Any:
        return lambda v: state["protocols"].update({name: {**state["protocols"].get(name, {}), **typed(dict, name, v)}})

    setters = {
        "HostName": lambda v: state.update(host_name=typed(str, "HostName", v)),
        **{name: protocol(name) for name in ("SSH", "IPMI", "KVMIP", "VirtualMedia")},
    }
    if service.p.ntp_in_protocol:
        setters["NTP"] = ntp
    assign(request.json(), setters, ("FQDN", "HTTP", "HTTPS"))
    return service.patched(request.path)


@route("PATCH", MANAGER + "/DateTime", lambda p: p.name == "hpe")
def patch_hpe_time(service: Service, request: Request, manager: str) -> Response:
    ntp = service.machine.state["managers"][manager]["ntp"]
    assign(
        request.json(),
        {
            "StaticNTPServers": lambda v: ntp.update(
                servers=[s for s in typed(list, "StaticNTPServers", v) if s], enabled=any(v)
            )
        },
    )
    return service.success("iLO.2.16.ResetRequired")


@route("PATCH", MANAGER + "/EthernetInterfaces/1")
def patch_interface(service: Service, request: Request, manager: str) -> Response:
    state = service.machine.state["managers"][manager]
    network = state["network"]
    assign(
        request.json(),
        {
            "HostName": lambda v: state.update(host_name=typed(str, "HostName", v)),
            "DHCPv4": lambda v: network.update(dhcp=typed(bool, "DHCPEnabled", v.get("DHCPEnabled", network["dhcp"]))),
            "VLAN": lambda v: network.update(
                vlan=v.get("VLANId", network["vlan"]) if v.get("VLANEnable", True) else None
            ),
            "IPv4StaticAddresses": lambda v: network.update(address=v[0]["Address"], dhcp=False),
        },
    )
    return service.patched(request.path)


@route("PATCH", MANAGER + "/Oem/Dell/DellAttributes/<name>", lambda p: p.name == "dell")
def patch_dell_attributes(service: Service, request: Request, manager: str, name: str) -> Response:
    bag = service.machine.state["oem"]["dell_attributes"]

    def update(values: dict) -> None:
        for key, value in values.items():
            if key not in bag:
                raise Refusal(400, "PropertyUnknown", key)
            bag[key] = value

    assign(request.json(), {"Attributes": update})
    return service.patched(request.path)


@route("POST", MANAGER + "/Actions/Manager.Reset")
def reset_manager(service: Service, request: Request, manager: str) -> Response:
    service.one_of(request, "Manager.Reset", "ResetType", service.p.manager_reset, default=service.p.manager_reset[0])
    service.machine.restart_bmc(manager)
    return service.done()


@route("POST", MANAGER + "/Actions/Manager.ResetToDefaults")
def reset_to_defaults(service: Service, request: Request, manager: str) -> Response:
    kind = service.one_of(request, "Manager.ResetToDefaults", "ResetType", service.p.manager_defaults)
    state = service.machine.state
    state["managers"][manager]["defaults_reset"] += 1
    if kind == "ResetAll":
        state["accounts"], state["subscriptions"] = build_accounts(service.p), {}
    service.machine.restart_bmc(manager)
    return service.done()


# ---------------------------------------------------------------- virtual media

MEDIA = "(?P<owner>Managers|Systems)/<owner_id>/VirtualMedia/<slot>"


def media_state(service: Service, owner: str, owner_id: str, slot: str) -> dict:
    """State of a slot, also when it is addressed at the place that only mirrors it."""
    media = service.machine.state["media"]
    key = f"{owner}/{owner_id}/{slot}"
    return media[key if key in media else next(k for k in media if k.endswith("/" + slot))]


def insert(service: Service, state: dict, body: dict) -> None:
    """Put an image in."""
    image = body.get("Image")
    for name in service.p.media_requires:
        if not body.get(name):
            raise Refusal(400, "ActionParameterMissing", "VirtualMedia.InsertMedia", name)
    if not isinstance(image, str) or "://" not in image:
        raise Refusal(400, "PropertyValueFormatError", image, "Image")
    if service.p.name == "supermicro" and re.search("[?=]", image):
        raise Refusal(400, "PropertyValueFormatError", image, "Image")
    if state["inserted"]:
        raise Refusal(
            409 if service.p.name != "dell" else 500,
            "ResourceInUse",
            oem=("IDRAC.2.8.VRM0012", "The media is already attached.") if service.p.name == "dell" else None,
        )
    state.update(
        image=image,
        inserted=body.get("Inserted", True),
        write_protected=body.get("WriteProtected", True),
        protocol=body.get("TransferProtocolType") or image.split(":")[0].upper(),
        user=body.get("UserName"),
    )


@route("POST", MEDIA + "/Actions/VirtualMedia.InsertMedia", lambda p: p.media_form != "patch")
def insert_media(service: Service, request: Request, owner: str, owner_id: str, slot: str) -> Response:
    insert(service, media_state(service, owner, owner_id, slot), request.json())
    return service.done()


@route("POST", MEDIA + "/Actions/VirtualMedia.EjectMedia", lambda p: p.media_form != "patch")
def eject_media(service: Service, request: Request, owner: str, owner_id: str, slot: str) -> Response:
    state = media_state(service, owner, owner_id, slot)
    if not state["inserted"] and service.p.name == "dell":
        raise Refusal(
            500, "GeneralError", oem=("IDRAC.2.8.VRM0009", "No virtual media devices are currently connected.")
        )
    state.update(empty_media())
    return service.done()


@route("PATCH", MEDIA)
def patch_media(service: Service, request: Request, owner: str, owner_id: str, slot: str) -> Response:
    state, body = media_state(service, owner, owner_id, slot), request.json()
    if service.p.name == "hpe" and "Oem" in body:
        state["boot_next"] = typed(
            bool, "BootOnNextServerReset", body["Oem"].get("Hpe", {}).get("BootOnNextServerReset")
        )
    elif service.p.media_form != "patch":
        raise Refusal(400, "PropertyNotWritable", next(iter(body), "Image"))
    elif body.get("Image") and body.get("Inserted", True):
        insert(service, state, body)
    elif "Image" in body or body.get("Inserted") is False:
        state.update(empty_media())
    else:
        raise Refusal(400, "PropertyUnknown", next(iter(body), "Image"))
    return service.patched(request.path)


# ---------------------------------------------------------------- logs


@route("POST", "(?P<owner>Managers|Systems)/<owner_id>/LogServices/<name>/Actions/LogService.ClearLog")
def clear_log(service: Service, request: Request, owner: str, owner_id: str, name: str) -> Response:
    service.machine.state["logs"][f"{owner}/{owner_id}/{name}"] = []
    return service.done()
