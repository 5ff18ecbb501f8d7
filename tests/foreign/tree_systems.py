"""Resources below /redfish/v1/Systems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import ROOT
from tree import OK, link, links

if TYPE_CHECKING:
    from personality import Storage, System
    from tree import Tree

SETTINGS = "#Settings.v1_3_5.Settings"


def system_path(system_id: str) -> str:
    """Where a system is."""
    return f"{ROOT}/Systems/{system_id}"


def bios_path(tree: Tree, system_id: str) -> str:
    """Where the BIOS of a system is; one family writes it in lower case and with a slash at the end."""
    if tree.p.trailing_slash_bios:
        return f"{ROOT}/systems/{system_id}/bios/"
    return f"{system_path(system_id)}/Bios"


def bios_settings_path(tree: Tree, system_id: str) -> str | None:
    """Where the pending BIOS values are."""
    if not tree.p.bios_settings:
        return None
    return (
        bios_path(tree, system_id).rstrip("/")
        + "/"
        + tree.p.bios_settings
        + ("/" if tree.p.trailing_slash_bios else "")
    )


def drive_path(tree: Tree, system: System, storage: Storage, drive: str) -> str:
    """Where a drive is: below its storage or below a chassis."""
    if storage.drive_chassis:
        return f"{ROOT}/Chassis/{storage.drive_chassis}/Drives/{drive}"
    return f"{system_path(system.id)}/Storage/{storage.id}/Drives/{drive}"


def pcie_devices(tree: Tree, system: System) -> dict[str, dict]:
    """The PCIe devices of a system by path, with the state they come from."""
    state, base = tree.state["systems"][system.id], f"{ROOT}/Chassis/{system.chassis}/PCIeDevices"
    prefix = f"{system.id}-" if sum(s.chassis == system.chassis for s in tree.p.systems) > 1 else ""
    if tree.p.pcie == "none":
        return {}
    return {
        f"{base}/{prefix}{key}": {**part, "gpu": kind == "gpus"}
        for kind in ("gpus", "nics")
        for key, part in state[kind].items()
    }


def shown_power(tree: Tree, power: str) -> str:
    """The PowerState as the family reports it during a transition."""
    if tree.p.shows_transitions:
        return power
    return {"PoweringOn": "Off", "PoweringOff": "On"}.get(power, power)


def build(tree: Tree) -> None:
    """Add all systems."""
    tree.collection(
        f"{ROOT}/Systems", "ComputerSystem", "Computer System Collection", [system_path(s.id) for s in tree.p.systems]
    )
    for system in tree.p.systems:
        _system(tree, system)
        _processors(tree, system)
        _memory(tree, system)
        if system.kind == "host":
            _boot(tree, system)
            _bios(tree, system)
            _secure_boot(tree, system)


def boot_object(tree: Tree, system: System) -> dict:
    """The Boot property of a system."""
    p, boot = tree.p, tree.state["systems"][system.id]["boot"]
    result = {
        "BootSourceOverrideEnabled": boot["enabled"],
        "BootSourceOverrideTarget": boot["target"],
        "BootSourceOverrideMode": boot["mode"],
    }
    if p.boot_targets_shown:
        result["BootSourceOverrideTarget@Redfish.AllowableValues"] = list(p.boot_targets)
    if p.boot_enabled_shown:
        result["BootSourceOverrideEnabled@Redfish.AllowableValues"] = list(p.boot_enabled)
    if p.name in ("openbmc", "ami"):
        result["BootSourceOverrideMode@Redfish.AllowableValues"] = list(p.boot_modes)
    if p.name == "nvidia-hgx":
        del result["BootSourceOverrideMode"]
    if "UefiTarget" in p.boot_targets:
        result["UefiTargetBootSourceOverride"] = boot["uefi_target"] or ("None" if p.name == "hpe" else None)
    if p.http_boot_uri:
        result["HttpBootUri"] = boot["http_uri"]
    if p.boot_next:
        result["BootNext"] = boot["next"]
    if p.boot_options:
        result["BootOptions"] = link(f"{system_path(system.id)}/BootOptions")
        result["BootOrder"] = boot["order"]
    if p.name == "dell":
        result["BootOrder@odata.count"] = len(boot["order"])
    return result


def _system(tree: Tree, system: System) -> None:
    p, path, state = tree.p, system_path(system.id), tree.state["systems"][system.id]
    identity, host = state["identity"], system.kind == "host"
    actions = {}
    if host:
        actions["#ComputerSystem.Reset"] = tree.action(
            path, "ComputerSystem.Reset", {"ResetType": list(p.reset_types)}, p.reset_info, "ResetActionInfo"
        )
        if p.ac_cycle == "lenovo":
            actions["Oem"] = {
                "#LenovoComputerSystem.SystemReset": {
                    "target": f"{path}/Actions/Oem/LenovoComputerSystem.SystemReset",
                    "title": "SystemReset",
                    "ResetType@Redfish.AllowableValues": ["ACPowerCycle"],
                }
            }
    settings = None
    if host and p.boot_settings:
        settings = f"{path}/{p.boot_settings}"
        tree.add(
            settings,
            "ComputerSystem",
            "Pending Settings",
            Boot={
                **(
                    {"BootOrder": state["boot"]["pending"].get("order", state["boot"]["order"])}
                    if p.boot_options
                    else {}
                ),
                **(boot_object(tree, system) if p.boot_override_at == "settings" else {}),
            },
        )
    lists = {}
    if host and p.pcie == "system_list":
        lists["PCIeDevices"] = links(list(pcie_devices(tree, system)))
        lists["PCIeDevices@odata.count"] = len(lists["PCIeDevices"])
    board = {
        "Links": {
            **({"Chassis": [link(f"{ROOT}/Chassis/{system.chassis}")]} if p.system_links_chassis else {}),
            "ManagedBy": [link(f"{ROOT}/Managers/{system.manager}")],
        }
    }
    total = sum(m["mib"] for m in state["memory"].values()) / 1024
    cpus = list(state["cpus"].values())
    media = (
        host
        and any(key.startswith(f"Systems/{system.id}/") for key in tree.state["media"])
        or (host and any(s.also for s in p.media))
    )
    tree.add(
        path,
        "ComputerSystem",
        "System" if host else system.id,
        SystemType="Physical",
        Manufacturer=identity["manufacturer"] or ...,
        Model=identity["model"] or ...,
        SerialNumber=identity["serial"] or ...,
        UUID=identity["uuid"] or ...,
        SKU=identity["sku"] if identity["sku"] else ...,
        PartNumber=identity["part_number"],
        AssetTag=identity["asset_tag"] if host else ...,
        HostName=state["host_name"] if host else ...,
        PowerState=shown_power(tree, state["power"]),
        Status={"State": "Enabled" if state["power"] != "Off" else "StandbyOffline", "Health": "OK"},
        BiosVersion=state["bios"]["version"] if host else ...,
        Boot=boot_object(tree, system) if host else ...,
        BootProgress={"LastState": state["boot_progress"]} if host and p.boot_progress else ...,
        IndicatorLED=("Lit" if p.name == "dell" and state["led"] == "Off" else state["led"])
        if host and p.indicator_led
        else ...,
        LocationIndicatorActive=state["led"] != "Off" if host and p.location_indicator else ...,
        MemorySummary={"TotalSystemMemoryGiB": total, "Status": OK},
        ProcessorSummary={
            "Count": len(cpus),
            "CoreCount": sum(c["cores"] for c in cpus),
            "Model": cpus[0]["model"],
            "Status": OK,
        }
        if cpus
        else ...,
        Processors=link(f"{path}/Processors"),
        Memory=link(f"{path}/Memory"),
        Bios=link(bios_path(tree, system.id)) if host and p.bios else ...,
        SecureBoot=link(f"{path}/SecureBoot") if host and p.secure_boot else ...,
        Storage=link(f"{path}/Storage") if host else ...,
        EthernetInterfaces=link(f"{path}/EthernetInterfaces") if host and p.ethernet_interfaces else ...,
        NetworkInterfaces=link(f"{path}/NetworkInterfaces")
        if host and p.network_interfaces and p.network_adapters
        else ...,
        LogServices=link(f"{path}/LogServices") if p.logs_system else ...,
        VirtualMedia=link(f"{path}/VirtualMedia") if media else ...,
        SerialConsole={"MaxConcurrentSessions": 15, "SSH": {"ServiceEnabled": True, "Port": 2200}}
        if host and p.name in ("openbmc", "nvidia-hgx", "standard")
        else ...,
        __Settings={"@odata.type": SETTINGS, "SettingsObject": link(settings)}
        if settings and p.name != "dell"
        else ...,
        Actions=actions or ...,
        **board,
        **lists,
    )
    if settings and p.name == "dell":
        tree.get(path)["@Redfish.Settings"] = {
            "@odata.type": SETTINGS,
            "SettingsObject": link(settings),
            "SupportedApplyTimes": ["Immediate", "OnReset"],
        }


def _processors(tree: Tree, system: System) -> None:
    path, state = f"{system_path(system.id)}/Processors", tree.state["systems"][system.id]
    gpus = [f"{path}/{gpu}" for gpu in state["gpus"]]
    tree.collection(path, "Processor", "Processors", gpus + [f"{path}/{cpu}" for cpu in state["cpus"]])
    devices = [key for key, part in pcie_devices(tree, system).items() if part["gpu"]]
    for number, (gpu, part) in enumerate(state["gpus"].items()):
        tree.add(
            f"{path}/{gpu}",
            "Processor",
            "Processor",
            ProcessorType="GPU",
            Manufacturer=part["manufacturer"],
            Model=part["model"],
            SerialNumber=part["serial"],
            UUID=part["uuid"] if tree.p.name == "nvidia-hgx" else ...,
            FirmwareVersion=part["firmware"],
            Status=OK,
            MemorySummary={"TotalMemorySizeMiB": part["memory_mib"], "ECCModeEnabled": True}
            if tree.p.name == "nvidia-hgx"
            else ...,
            SystemInterface={
                "InterfaceType": "PCIe",
                "PCIe": {"PCIeType": "Gen5", "MaxPCIeType": "Gen5", "LanesInUse": 16, "MaxLanes": 16},
            },
            Links={
                "Chassis": link(f"{ROOT}/Chassis/{system.chassis}"),
                **({"PCIeDevice": link(devices[number])} if devices else {}),
            },
        )
    for number, (cpu, part) in enumerate(state["cpus"].items()):
        tree.add(
            f"{path}/{cpu}",
            "Processor",
            f"CPU {number + 1}",
            ProcessorType="CPU",
            Socket=f"CPU{number + 1}",
            Manufacturer=part["manufacturer"],
            Model=part["model"] + (" " * 12 if tree.p.name in ("hpe", "ami") else ""),
            TotalCores=part["cores"],
            TotalThreads=part["threads"],
            MaxSpeedMHz=part["mhz"],
            ProcessorArchitecture="x86",
            InstructionSet="x86-64",
            Status=OK,
        )


def _memory(tree: Tree, system: System) -> None:
    path, state = f"{system_path(system.id)}/Memory", tree.state["systems"][system.id]
    members = [f"{path}/{dimm}" for dimm in state["memory"]]
    for dimm, part in state["memory"].items():
        tree.add(
            f"{path}/{dimm}",
            "Memory",
            dimm,
            CapacityMiB=part["mib"],
            MemoryType="DRAM",
            MemoryDeviceType=part["type"],
            Manufacturer=part["manufacturer"],
            PartNumber=part["part_number"],
            SerialNumber=part["serial"],
            OperatingSpeedMhz=part["mhz"],
            DeviceLocator=dimm,
            Status=OK,
        )
    if tree.p.name == "hpe":  # this family also lists the empty sockets
        members.append(f"{path}/proc2dimm8")
        tree.add(members[-1], "Memory", "proc2dimm8", CapacityMiB=0, Status={"State": "Absent"})
    tree.collection(path, "Memory", "Memory Modules", members)


def _boot(tree: Tree, system: System) -> None:
    if not tree.p.boot_options:
        return
    path, state, form = f"{system_path(system.id)}/BootOptions", tree.state["systems"][system.id], tree.p.boot_option_id
    members = []
    for number, (reference, option) in enumerate(state["boot_options"].items(), start=1):
        option_id = {"number": str(number), "digits": reference[4:]}.get(form, reference)
        members.append(f"{path}/{option_id}")
        tree.add(
            members[-1],
            "BootOption",
            option["name"],
            BootOptionReference=reference,
            DisplayName=option["name"],
            BootOptionEnabled=None if tree.p.name in ("hpe", "lenovo") else option["enabled"],
            UefiDevicePath=option["path"] if tree.p.name != "supermicro" else None,
            Alias=option["alias"] if tree.p.name == "standard" else ...,
        )
    tree.collection(path, "BootOption", "Boot Options", members)


def _bios(tree: Tree, system: System) -> None:
    p, bios, path = tree.p, tree.state["systems"][system.id]["bios"], bios_path(tree, system.id)
    if not p.bios:
        return
    settings = bios_settings_path(tree, system.id)
    slash = "/" if p.trailing_slash_bios else ""
    actions = {"#Bios.ResetBios": tree.action(path, f"Bios.ResetBios{slash}")}
    if settings:
        actions["#Bios.ChangePassword"] = tree.action(
            path, "Bios.ChangePasswords/" if p.name == "hpe" else "Bios.ChangePassword"
        )
    note = ...
    if settings:
        note = {"@odata.type": SETTINGS, "SettingsObject": link(settings)}
        if p.bios_apply_times:
            note["SupportedApplyTimes"] = list(p.bios_apply_times)
        if bios["messages"]:
            note["Messages"] = bios["messages"]
        pending = {**bios["current"], **bios["pending"]} if p.bios_pending == "all" else bios["pending"]
        tree.add(
            settings,
            "Bios",
            "BIOS Configuration Pending Settings",
            AttributeRegistry=p.bios_registry or ...,
            Attributes=... if p.name == "supermicro" and not bios["pending"] else pending,
            Actions={
                "Oem": {
                    "DellManager.v1_0_0#DellManager.ClearPending": {
                        "target": f"{settings}/Actions/Oem/DellManager.ClearPending"
                    }
                }
            }
            if p.name == "dell"
            else ...,
        )
    tree.add(
        path,
        "Bios",
        "BIOS Configuration Current Settings",
        id="Bios",
        AttributeRegistry=p.bios_registry or ...,
        Attributes=bios["current"] if bios["current"] else ...,
        __Settings=note,
        Actions=actions,
        ResetBiosToDefaultsPending=bios["reset_pending"] if p.name in ("standard", "dell", "blade") else ...,
    )


def _secure_boot(tree: Tree, system: System) -> None:
    path, secure = f"{system_path(system.id)}/SecureBoot", tree.state["systems"][system.id]["secure_boot"]
    if not secure:
        return
    enabled = secure["enabled"] if secure["pending"] is None else secure["pending"]
    tree.add(
        path,
        "SecureBoot",
        "UEFI Secure Boot",
        SecureBootEnable=enabled,
        SecureBootCurrentBoot="Enabled" if secure["enabled"] else "Disabled",
        SecureBootMode=secure["mode"],
        SecureBootDatabases=link(f"{path}/SecureBootDatabases") if tree.p.secure_boot_databases else ...,
        Actions={
            "#SecureBoot.ResetKeys": tree.action(
                path, "SecureBoot.ResetKeys", {"ResetKeysType": ["ResetAllKeysToDefault", "DeleteAllKeys", "DeletePK"]}
            )
        }
        if tree.p.name != "nvidia-hgx"
        else ...,
    )
    if not tree.p.secure_boot_databases:
        return
    base = f"{path}/SecureBootDatabases"
    tree.collection(
        base, "SecureBootDatabase", "UEFI SecureBoot Databases", [f"{base}/{db}" for db in secure["databases"]]
    )
    for db in secure["databases"]:
        certificates = secure["certificates"].get(db, {})
        tree.add(
            f"{base}/{db}",
            "SecureBootDatabase",
            f"{db} Database",
            DatabaseId=db,
            Certificates=link(f"{base}/{db}/Certificates"),
        )
        tree.collection(
            f"{base}/{db}/Certificates",
            "Certificate",
            f"{db} Certificates",
            [f"{base}/{db}/Certificates/{c}" for c in certificates],
        )
        for key, pem in certificates.items():
            tree.add(
                f"{base}/{db}/Certificates/{key}",
                "Certificate",
                "Certificate",
                CertificateString=pem,
                CertificateType="PEM",
            )
