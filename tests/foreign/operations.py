"""Writing to systems and chassis."""

from __future__ import annotations

import secrets
from typing import Any

from hardware import BIOS_ATTRIBUTES
from personality import Personality
from protocol import ROOT, Refusal, Request, Response
from service import Service, assign, listed, route, typed
from tree_systems import bios_settings_path

Text = (str, type(None))


def host(service: Service, system_id: str) -> dict:
    """The state of a system that can be controlled."""
    state = service.machine.state["systems"][system_id]
    if state["kind"] != "host":
        raise Refusal(405, "OperationNotAllowed")
    return state


def set_led(state: dict, name: str, value: Any) -> None:
    """IndicatorLED or LocationIndicatorActive of something."""
    if name == "LocationIndicatorActive":
        state["led"] = "Blinking" if typed(bool, name, value) else "Off"
    else:
        state["led"] = listed(("Lit", "Blinking", "Off"), name, value)


def led_setters(service: Service, state: dict, always: bool = False) -> dict:
    """The setters for the indicator properties that the family has."""
    names = [
        n
        for n, offered in (
            ("IndicatorLED", service.p.indicator_led),
            ("LocationIndicatorActive", service.p.location_indicator or always),
        )
        if offered
    ]
    return {name: (lambda value, name=name: set_led(state, name, value)) for name in names}


# ---------------------------------------------------------------- systems


@route("PATCH", "Systems/<system>")
def patch_system(service: Service, request: Request, system: str) -> Response:
    state = host(service, system)
    setters = {
        "AssetTag": lambda v: state["identity"].update(asset_tag=typed(Text, "AssetTag", v) or ""),
        "HostName": lambda v: state.update(host_name=typed(Text, "HostName", v) or ""),
        **led_setters(service, state),
    }
    if service.p.boot_override_at == "system" or service.p.boot_order_at == "system":
        setters["Boot"] = lambda v: patch_boot(
            service, state, v, service.p.boot_override_at == "system", service.p.boot_order_at == "system"
        )
    assign(request.json(), setters, ("Boot", "BiosVersion", "SKU", "IndicatorLED"))
    return service.patched(request.path)


@route("PATCH", "Systems/<system>/(?:Settings|SD|Pending)", lambda p: p.boot_settings is not None)
def patch_system_settings(service: Service, request: Request, system: str) -> Response:
    state = host(service, system)
    assign(
        request.json(),
        {
            "Boot": lambda v: patch_boot(
                service,
                state,
                v,
                service.p.boot_override_at == "settings" or service.p.name == "dell",
                True,
                pending=True,
            )
        },
    )
    if service.p.bios_job and "Boot" in request.json() and "BootOrder" in request.json()["Boot"]:
        return bios_job(service, request, system, "BootOrder")
    return service.patched(request.path)


def patch_boot(service: Service, state: dict, body: Any, override: bool, order: bool, pending: bool = False) -> None:
    """Change boot order and boot override."""
    p, boot = service.p, state["boot"]
    typed(dict, "Boot", body)
    if p.refuse_boot_during_post and state["in_post"]:
        raise Refusal(400, "iLO.2.16.UnableToModifyDuringSystemPOST")
    setters: dict = {}
    if override:
        setters.update(
            {
                "BootSourceOverrideEnabled": lambda v: boot.update(
                    enabled=listed(p.boot_enabled, "BootSourceOverrideEnabled", v)
                ),
                "BootSourceOverrideTarget": lambda v: boot.update(
                    target=listed(p.boot_targets, "BootSourceOverrideTarget", v)
                ),
            }
        )
        if p.boot_mode_writable and p.name != "nvidia-hgx":
            setters["BootSourceOverrideMode"] = lambda v: boot.update(
                mode=listed(p.boot_modes, "BootSourceOverrideMode", v)
            )
        if "UefiTarget" in p.boot_targets:
            setters["UefiTargetBootSourceOverride"] = lambda v: boot.update(
                uefi_target=typed(Text, "UefiTargetBootSourceOverride", v)
            )
        if p.http_boot_uri:
            setters["HttpBootUri"] = lambda v: boot.update(http_uri=typed(Text, "HttpBootUri", v))
        if p.boot_next:
            setters["BootNext"] = lambda v: boot.update(
                next=None if v is None else listed(boot["order"], "BootNext", v)
            )
    if order and p.boot_options:
        setters["BootOrder"] = lambda v: set_order(state, typed(list, "BootOrder", v), pending)
    overriding = {k for k in body if k.startswith("BootSourceOverride") and "@" not in k}
    if (
        p.boot_partial_resets
        and overriding
        and overriding != {"BootSourceOverrideEnabled", "BootSourceOverrideTarget", "BootSourceOverrideMode"}
    ):
        boot.update(enabled="Once", mode="Legacy" if "Legacy" in p.boot_modes else boot["mode"])
    assign(body, setters, ("BootOptions", "BootSourceOverrideMode", "BootOrder"))
    if boot["enabled"] == "Disabled" and "BootSourceOverrideTarget" not in body and not p.boot_target_kept:
        boot["target"] = "None"


def set_order(state: dict, order: list, pending: bool) -> None:
    """A new boot order must hold the same options."""
    if sorted(map(str, order)) != sorted(state["boot"]["order"]):
        raise Refusal(400, "PropertyValueIncorrect", "BootOrder", order)
    if pending:
        state["boot"]["pending"] = {"order": order}
    else:
        state["boot"]["order"] = order


@route("PATCH", "Systems/<system>/BootOptions/<option>")
def patch_boot_option(service: Service, request: Request, system: str, option: str) -> Response:
    resource = service.trees.current().get(request.path)
    state = host(service, system)["boot_options"][resource["BootOptionReference"]]
    assign(request.json(), {"BootOptionEnabled": lambda v: state.update(enabled=typed(bool, "BootOptionEnabled", v))})
    return service.patched(request.path)


@route("POST", "Systems/<system>/Actions/ComputerSystem.Reset")
def reset_system(service: Service, request: Request, system: str) -> Response:
    host(service, system)
    kind = service.one_of(request, "ComputerSystem.Reset", "ResetType", service.p.reset_types)
    if service.p.reset_task:
        return service.start(
            request,
            "Computer Reset",
            lambda: service.machine.reset(system, kind),
            seconds=service.machine.settings["power_seconds"],
        )
    service.machine.reset(system, kind)
    return service.done()


@route("POST", "Systems/<system>/Actions/Oem/LenovoComputerSystem.SystemReset")
def lenovo_ac_cycle(service: Service, request: Request, system: str) -> Response:
    service.one_of(request, "LenovoComputerSystem.SystemReset", "ResetType", ("ACPowerCycle",))
    service.machine.ac_cycle(system)
    return service.done()


# ---------------------------------------------------------------- BIOS and secure boot

BIOS = "[Ss]ystems/<system>/[Bb]ios"


@route("PATCH", BIOS + "/(?:Settings|settings|Pending|SD)", lambda p: p.bios_settings is not None)
def patch_bios(service: Service, request: Request, system: str) -> Response:
    p, bios, body = service.p, host(service, system)["bios"], request.json()
    apply_time = body.get("@Redfish.SettingsApplyTime")
    if apply_time is not None:
        if not p.bios_apply_time_accepted or not p.bios_apply_times:
            raise Refusal(400, "PropertyUnknown", "@Redfish.SettingsApplyTime")
        listed(p.bios_apply_times, "ApplyTime", typed(dict, "@Redfish.SettingsApplyTime", apply_time).get("ApplyTime"))
    if bios["job"]:
        raise Refusal(
            400, "ResourceInUse", oem=("IDRAC.2.8.SYS011", "A configuration job is already created for the device.")
        )
    assign(
        body,
        {
            "Attributes": lambda v: bios["pending"].update(
                checked_attributes(service, bios, typed(dict, "Attributes", v))
            )
        },
    )
    if p.bios_job and apply_time:
        return bios_job(service, request, system, "BIOSConfiguration")
    if p.name == "hpe":
        return service.success("iLO.2.16.SystemResetRequired")
    if p.bios_answer == 202:
        return Response(202, {"Accepted": service.success("Success").body["Success"]})
    return service.patched(request.path)


def bios_job(service: Service, request: Request, system: str, kind: str) -> Response:
    """Dell: changes are applied by a job that the next boot runs."""
    settings = bios_settings_path(service.trees.current(), system)
    jobs = f"{ROOT}/Managers/{service.p.managers[0].id}/Oem/Dell/Jobs/"
    response = service.start(
        request,
        "Configure: BIOS.Setup.1-1",
        None,
        waits_for=system,
        kind=kind,
        target=settings,
        location=lambda t: jobs + t,
    )
    host(service, system)["bios"]["job"] = response.headers["Location"].rsplit("/", 1)[1]
    return response


def checked_attributes(service: Service, bios: dict, wanted: dict) -> dict:
    """Check values against the registry that the service publishes."""
    known = {
        name + (service.p.bios_attribute_suffix if kind == "Enumeration" else ""): (kind, allowed)
        for name, kind, _, allowed in BIOS_ATTRIBUTES
    }
    for name, value in wanted.items():
        if name not in bios["current"]:
            raise Refusal(400, "PropertyUnknown", name, related=[f"#/Attributes/{name}"])
        kind, allowed = known.get(name, ("String", None))
        if allowed is None:
            raise Refusal(400, "PropertyNotWritable", name, related=[f"#/Attributes/{name}"])
        if kind == "Integer":
            typed(int, name, value)
            if not allowed[0] <= value <= allowed[1]:
                raise Refusal(400, "PropertyValueOutOfRange", value, name)
        else:
            typed(str, name, value)
            if kind == "Enumeration":
                listed(allowed, name, value)
    return wanted


@route("POST", BIOS + "/Settings/Actions/Oem/DellManager.ClearPending", lambda p: p.name == "dell")
def clear_pending(service: Service, request: Request, system: str) -> Response:
    bios = host(service, system)["bios"]
    if bios["job"]:
        raise Refusal(
            400,
            "ResourceInUse",
            oem=("IDRAC.2.8.SYS011", "Pending data cannot be deleted because a configuration job is scheduled."),
        )
    bios["pending"] = {}
    return service.done()


@route("POST", BIOS + "/Actions/Bios.ResetBios")
def reset_bios(service: Service, request: Request, system: str) -> Response:
    bios = host(service, system)["bios"]
    bios["reset_pending"], bios["pending"] = True, {}
    return service.done()


@route("POST", BIOS + "/Actions/Bios.ChangePasswords?")
def change_bios_password(service: Service, request: Request, system: str) -> Response:
    passwords, body = host(service, system)["bios"]["passwords"], request.json()
    for name in ("PasswordName", "OldPassword", "NewPassword"):
        if name not in body:
            raise Refusal(400, "ActionParameterMissing", "Bios.ChangePassword", name)
    if passwords.get(body["PasswordName"], "") != (body["OldPassword"] or ""):
        raise Refusal(400, "ActionParameterValueConflict", "OldPassword", "***")
    passwords.setdefault("pending", {})[body["PasswordName"]] = body["NewPassword"] or ""
    return service.done()


@route("PATCH", "Systems/<system>/SecureBoot", lambda p: p.secure_boot)
def patch_secure_boot(service: Service, request: Request, system: str) -> Response:
    secure = host(service, system)["secure_boot"]
    assign(
        request.json(),
        {"SecureBootEnable": lambda v: secure.update(pending=typed(bool, "SecureBootEnable", v))},
        ("SecureBootMode", "SecureBootCurrentBoot"),
    )
    return service.patched(request.path)


@route("POST", "Systems/<system>/SecureBoot/Actions/SecureBoot.ResetKeys", lambda p: p.secure_boot)
def reset_keys(service: Service, request: Request, system: str) -> Response:
    secure = host(service, system)["secure_boot"]
    kind = service.one_of(
        request, "SecureBoot.ResetKeys", "ResetKeysType", ("ResetAllKeysToDefault", "DeleteAllKeys", "DeletePK")
    )
    secure["mode"] = "UserMode" if kind == "ResetAllKeysToDefault" else "SetupMode"
    if kind != "DeletePK":
        secure["certificates"] = {}
    return service.done()


@route(
    "POST", "Systems/<system>/SecureBoot/SecureBootDatabases/<database>/Certificates", lambda p: p.secure_boot_databases
)
def add_key(service: Service, request: Request, system: str, database: str) -> Response:
    body = request.json()
    for name in ("CertificateString", "CertificateType"):
        if name not in body:
            raise Refusal(400, "CreateFailedMissingReqProperties", name)
    key = secrets.token_hex(3)
    host(service, system)["secure_boot"]["certificates"].setdefault(database, {})[key] = body["CertificateString"]
    return service.created(f"{request.path.rstrip('/')}/{key}")


@route(
    "DELETE",
    "Systems/<system>/SecureBoot/SecureBootDatabases/<database>/Certificates/<certificate>",
    lambda p: p.secure_boot_databases,
)
def delete_key(service: Service, request: Request, system: str, database: str, certificate: str) -> Response:
    del host(service, system)["secure_boot"]["certificates"][database][certificate]
    return Response(204)


# ---------------------------------------------------------------- chassis


@route("PATCH", "Chassis/<chassis>")
def patch_chassis(service: Service, request: Request, chassis: str) -> Response:
    state = service.machine.state["chassis"][chassis]
    assign(
        request.json(),
        {"AssetTag": lambda v: state.update(asset_tag=typed(Text, "AssetTag", v) or ""), **led_setters(service, state)},
    )
    return service.patched(request.path)


@route("PATCH", "Chassis/<chassis>/Power", lambda p: p.thermal_and_power)
def patch_power(service: Service, request: Request, chassis: str) -> Response:
    def limit(value: Any) -> None:
        watts = typed(dict, "PowerLimit", typed(list, "PowerControl", value)[0].get("PowerLimit")).get("LimitInWatts")
        service.machine.state["chassis"][chassis]["power_limit_watts"] = typed(
            (int, float, type(None)), "LimitInWatts", watts
        )

    assign(request.json(), {"PowerControl": limit})
    return service.patched(request.path)


def hosts_of(p: Personality, chassis: str) -> list[str]:
    """The systems that lose power with a chassis."""
    return [s.id for s in p.systems if s.chassis == chassis and s.kind == "host"]


@route("POST", "Chassis/<chassis>/Actions/Chassis.Reset")
def reset_chassis(service: Service, request: Request, chassis: str) -> Response:
    kind = service.one_of(request, "Chassis.Reset", "ResetType", service.p.chassis_reset)
    for system in hosts_of(service.p, chassis):
        if kind == "PowerCycle" and service.p.ac_cycle:
            service.machine.ac_cycle(system)
        else:
            service.machine.reset(system, kind)
    return service.done()


@route("POST", "Chassis/<chassis>/Actions/Oem/(?:DellOemChassis.ExtendedReset|NvidiaChassis.AuxPowerReset)")
def ac_cycle_chassis(service: Service, request: Request, chassis: str) -> Response:
    service.one_of(
        request,
        "ExtendedReset",
        "ResetType",
        ("PowerCycle",) if service.p.ac_cycle == "dell" else ("AuxPowerCycle", "AuxPowerCycleForce"),
    )
    for system in hosts_of(service.p, chassis):
        service.machine.ac_cycle(system)
    return service.done()
