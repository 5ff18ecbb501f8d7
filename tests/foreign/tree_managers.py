"""Managers with their network, virtual media and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocol import ROOT
from tree import OK, link, links, stamp
from tree_systems import system_path

if TYPE_CHECKING:
    from personality import Manager
    from tree import Tree

TASK_STATES = {"Pending": "Scheduled", "Exception": "Failed"}


def build(tree: Tree) -> None:
    """Add managers, their media and all logs."""
    for part in (_managers, _media, _logs, _dell):
        part(tree)


def _managers(tree: Tree) -> None:
    base = f"{ROOT}/Managers"
    tree.collection(base, "Manager", "Manager Collection", [f"{base}/{m.id}" for m in tree.p.managers])
    for manager in tree.p.managers:
        _manager(tree, manager, f"{base}/{manager.id}")


def _manager(tree: Tree, manager: Manager, path: str) -> None:
    p, state = tree.p, tree.state["managers"][manager.id]
    actions = {
        "#Manager.Reset": tree.action(
            path, "Manager.Reset", {"ResetType": list(p.manager_reset)}, p.reset_info, "ResetActionInfo"
        )
    }
    if p.manager_defaults:
        actions["#Manager.ResetToDefaults"] = tree.action(
            path, "Manager.ResetToDefaults", {"ResetType": list(p.manager_defaults)}
        )
    relations: dict[str, Any] = {
        "ManagerForServers": links([system_path(s) for s in manager.systems]),
        "ManagerForChassis": [link(f"{ROOT}/Chassis/{manager.chassis}")],
        "ManagerInChassis": link(f"{ROOT}/Chassis/{manager.chassis}"),
    }
    oem = ...
    if p.name == "dell":
        relations["Oem"] = {
            "Dell": {
                "@odata.type": "#DellOem.v1_3_0.DellOemLinks",
                "DellJobService": link(f"{path}/Oem/Dell/DellJobService"),
                "Jobs": link(f"{path}/Oem/Dell/Jobs"),
                "DellAttributes": [link(f"{path}/Oem/Dell/DellAttributes/{manager.id}")],
            }
        }
    if p.name == "hpe":
        oem = {
            "Hpe": {
                "@odata.type": "#HpeiLO.v2_16_1.HpeiLO",
                "Links": {
                    "DateTimeService": link(f"{path}/DateTime"),
                    "SecurityService": link(f"{path}/SecurityService"),
                },
            }
        }
        tree.add(
            f"{path}/DateTime",
            "HpeiLODateTime",
            "iLO DateTime",
            type="#HpeiLODateTime.v2_0_0.HpeiLODateTime",
            DateTime="",
            StaticNTPServers=(state["ntp"]["servers"] + ["", ""])[:2],
            NTPServers=state["ntp"]["servers"],
        )
        tree.add(
            f"{path}/SecurityService",
            "HpeSecurityService",
            "SecurityService",
            type="#HpeSecurityService.v2_3_1.HpeSecurityService",
            Links={"HttpsCert": link(f"{path}/SecurityService/HttpsCert")},
        )
        tree.add(
            f"{path}/SecurityService/HttpsCert",
            "HpeHttpsCert",
            "HttpsCert",
            type="#HpeHttpsCert.v2_0_0.HpeHttpsCert",
            Actions={
                "#HpeHttpsCert.ImportCertificate": tree.action(
                    f"{path}/SecurityService/HttpsCert", "HpeHttpsCert.ImportCertificate"
                )
            },
        )
    has_media = not manager.auxiliary and any(s.home == "Managers" or s.also for s in p.media)
    tree.add(
        path,
        "Manager",
        "Manager",
        ManagerType="BMC",
        Model=manager.model,
        FirmwareVersion=state["version"],
        DateTime="",
        DateTimeLocalOffset="+00:00",
        Status=OK,
        PowerState="On",
        NetworkProtocol=link(f"{path}/NetworkProtocol"),
        EthernetInterfaces=link(f"{path}/EthernetInterfaces"),
        LogServices=link(f"{path}/LogServices"),
        VirtualMedia=link(f"{path}/VirtualMedia") if has_media else ...,
        Actions=actions,
        Links=relations,
        Oem=oem,
        SerialConsole={"ServiceEnabled": True, "MaxConcurrentSessions": 2, "ConnectTypesSupported": ["SSH", "IPMI"]}
        if p.name != "supermicro"
        else ...,
        CommandShell={"ServiceEnabled": True, "MaxConcurrentSessions": 5, "ConnectTypesSupported": ["SSH"]},
        LocationIndicatorActive=state["led"] != "Off" if p.name == "standard" else ...,
    )
    protocols = {
        name: {"ProtocolEnabled": True, "Port": port, **state["protocols"].get(name, {})}
        for name, port in (("SSH", 22), ("IPMI", 623), ("KVMIP", 5900), ("VirtualMedia", 623))
    }
    https = {"ProtocolEnabled": True, "Port": 443}
    if p.certificates:
        https["Certificates"] = link(f"{path}/NetworkProtocol/HTTPS/Certificates")
        certificate = f"{path}/NetworkProtocol/HTTPS/Certificates/1"
        tree.collection(
            f"{path}/NetworkProtocol/HTTPS/Certificates", "Certificate", "HTTPS Certificates", [certificate]
        )
        now = tree.state["certificate"]
        tree.add(
            certificate,
            "Certificate",
            "HTTPS Certificate",
            CertificateString=now["pem"],
            CertificateType="PEM",
            Subject={"CommonName": now["subject"] or "bmc"},
            Issuer={"CommonName": now["subject"] or "bmc"},
            Fingerprint=now["fingerprint"],
            FingerprintHashAlgorithm="TPM_ALG_SHA256",
        )
    tree.add(
        f"{path}/NetworkProtocol",
        "ManagerNetworkProtocol",
        "Manager Network Protocol",
        HostName=state["host_name"],
        Status=OK,
        HTTPS=https,
        HTTP={"ProtocolEnabled": False, "Port": 80},
        **protocols,
        NTP={"ProtocolEnabled": state["ntp"]["enabled"], "NTPServers": state["ntp"]["servers"]}
        if p.ntp_in_protocol
        else ...,
    )
    network = state["network"]
    tree.collection(
        f"{path}/EthernetInterfaces",
        "EthernetInterface",
        "Manager Ethernet Interfaces",
        [f"{path}/EthernetInterfaces/1"],
    )
    tree.add(
        f"{path}/EthernetInterfaces/1",
        "EthernetInterface",
        "Manager NIC",
        MACAddress="b0:7b:25:00:51:82",
        PermanentMACAddress="b0:7b:25:00:51:82",
        LinkStatus="LinkUp",
        InterfaceEnabled=True,
        HostName=state["host_name"],
        DHCPv4={"DHCPEnabled": network["dhcp"]},
        Status=OK,
        IPv4Addresses=[
            {
                "Address": network["address"],
                "SubnetMask": "255.255.255.0",
                "Gateway": "192.0.2.1",
                "AddressOrigin": "DHCP" if network["dhcp"] else "Static",
            }
        ],
        VLAN={"VLANEnable": network["vlan"] is not None, **({"VLANId": network["vlan"]} if network["vlan"] else {})},
    )


def _media(tree: Tree) -> None:
    p, places = tree.p, {}
    for key, state in tree.state["media"].items():
        owner, owner_id, slot_id = key.split("/")
        slot = next(s for s in p.media if s.id == slot_id and s.home == owner)
        homes = [f"{ROOT}/{owner}/{owner_id}"]
        if slot.also:
            homes += [system_path(s.id) for s in p.systems if s.kind == "host"]
        for home in homes:
            path = f"{home}/VirtualMedia/{slot_id}"
            places.setdefault(home, []).append(path)
            inserted, actions = state["inserted"], {}
            if p.media_form != "patch":
                if p.media_form == "action" or not inserted:
                    actions["#VirtualMedia.InsertMedia"] = tree.action(path, "VirtualMedia.InsertMedia")
                if p.media_form == "action" or inserted:
                    actions["#VirtualMedia.EjectMedia"] = tree.action(path, "VirtualMedia.EjectMedia")
            tree.add(
                path,
                "VirtualMedia",
                f"Virtual Media {slot_id}",
                MediaTypes=list(slot.types) if slot.types else ...,
                Inserted=inserted,
                Image=state["image"] if inserted else p.media_empty,
                ImageName=state["image"].rsplit("/", 1)[-1] if inserted else p.media_empty,
                ConnectedVia="URI" if inserted else "NotConnected",
                WriteProtected=state["write_protected"],
                Actions=actions or ...,
                TransferProtocolType=(state["protocol"] if inserted else None)
                if p.name in ("standard", "blade", "dell", "lenovo", "supermicro")
                else ...,
                Oem={
                    "Hpe": {
                        "@odata.type": "#HpeiLOVirtualMedia.v2_2_0.HpeiLOVirtualMedia",
                        "BootOnNextServerReset": state["boot_next"],
                    }
                }
                if p.name == "hpe"
                else ...,
            )
    for home, members in places.items():
        tree.collection(f"{home}/VirtualMedia", "VirtualMedia", "Virtual Media", members)


def _logs(tree: Tree) -> None:
    owners: dict[str, list[str]] = {}
    for key, entries in tree.state["logs"].items():
        owner, owner_id, name = key.split("/")
        base = f"{ROOT}/{owner}/{owner_id}/LogServices"
        path = f"{base}/{name}"
        owners.setdefault(base, []).append(path)
        tree.add(
            path,
            "LogService",
            f"{name} Log",
            ServiceEnabled=True,
            OverWritePolicy="WrapsWhenFull",
            MaxNumberOfRecords=4096,
            Entries=link(f"{path}/Entries"),
            DateTime="",
            DateTimeLocalOffset="+00:00",
            Status=OK,
            Actions={"#LogService.ClearLog": tree.action(path, "LogService.ClearLog")}
            if name not in tree.p.logs_unclearable
            else ...,
        )
        members = [
            tree.add(
                f"{path}/Entries/{e['id']}",
                "LogEntry",
                f"Log Entry {e['id']}",
                EntryType="Event",
                Created=stamp(e["created"]),
                Severity=e["severity"],
                Message=e["message"],
                MessageId=e["message_id"],
            )
            for e in reversed(entries)
        ]
        tree.collection(f"{path}/Entries", "LogEntry", f"{name} Entries", members)
    for system in tree.p.systems if tree.p.logs_system else ():
        owners.setdefault(f"{system_path(system.id)}/LogServices", [])
    for manager in tree.p.managers:
        owners.setdefault(f"{ROOT}/Managers/{manager.id}/LogServices", [])
    for base, paths in owners.items():
        tree.collection(base, "LogService", "Log Services", paths)


def _dell(tree: Tree) -> None:
    """Job queue and attribute bag of an iDRAC."""
    if tree.p.name != "dell":
        return
    manager = tree.p.managers[0].id
    base = f"{ROOT}/Managers/{manager}/Oem/Dell"
    jobs = {k: t for k, t in tree.state["tasks"].items() if not t["gone"]}
    tree.collection(f"{base}/Jobs", "DellJob", "JobQueue", [f"{base}/Jobs/{k}" for k in jobs])
    for key, task in jobs.items():
        tree.add(
            f"{base}/Jobs/{key}",
            "DellJob",
            task["name"],
            type="#DellJob.v1_5_0.DellJob",
            JobState=TASK_STATES.get(task["state"], task["state"]),
            JobType=task["kind"],
            PercentComplete=task["percent"],
            StartTime="TIME_NOW",
            EndTime="TIME_NA",
            TargetSettingsURI=task["target"],
            MessageId="PR19" if task["state"] == "Completed" else "JCP001",
            MessageArgs=[],
            Message="Job completed successfully." if task["state"] == "Completed" else "Task successfully scheduled.",
            CompletionTime=stamp(task["ended"])[:19] if task["ended"] else None,
        )
    service = f"{base}/DellJobService"
    tree.add(
        service,
        "DellJobService",
        "DellJobService",
        type="#DellJobService.v1_2_0.DellJobService",
        Actions={"#DellJobService.DeleteJobQueue": tree.action(service, "DellJobService.DeleteJobQueue")},
    )
    tree.add(
        f"{base}/DellAttributes/{manager}",
        "DellAttributes",
        "OEM Attributes",
        type="#DellAttributes.v1_0_0.DellAttributes",
        AttributeRegistry="ManagerAttributeRegistry.v1_0_0",
        Attributes=tree.state["oem"]["dell_attributes"],
    )
