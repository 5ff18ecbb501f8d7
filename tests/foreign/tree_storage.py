"""Network interfaces and storage of systems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import ROOT
from tree import OK, link, links
from tree_systems import drive_path, system_path

if TYPE_CHECKING:
    from personality import Storage, System
    from tree import Tree

ERASE_TYPES = ["BlockErase", "CryptographicErase", "Overwrite"]


def build(tree: Tree) -> None:
    """Add what belongs to the hosts."""
    for system in tree.p.systems:
        if system.kind == "host":
            _network(tree, system)
            _storage(tree, system)


def _network(tree: Tree, system: System) -> None:
    p, path, state = tree.p, system_path(system.id), tree.state["systems"][system.id]
    if p.ethernet_interfaces:
        members = [f"{path}/EthernetInterfaces/{nic}" for nic in state["nics"]]
        for nic, part in state["nics"].items():
            tree.add(
                f"{path}/EthernetInterfaces/{nic}",
                "EthernetInterface",
                "" if p.name == "hpe" else nic,
                MACAddress=part["mac"],
                PermanentMACAddress=part["mac"] if p.mac_upper else ...,
                LinkStatus=part["link"] if p.name != "ami" else ...,
                SpeedMbps=part["speed_mbps"] if part["link"] == "LinkUp" else (None if p.name == "hpe" else 0),
                Status=OK,
            )
        if p.name == "lenovo":  # the USB interface between the host and the BMC
            members.insert(0, f"{path}/EthernetInterfaces/ToManager")
            tree.add(
                members[0],
                "EthernetInterface",
                "ToManager",
                MACAddress="0a:8f:c3:00:8a:71",
                PermanentMACAddress="0a:8f:c3:00:8a:71",
                LinkStatus="LinkDown",
            )
        tree.collection(f"{path}/EthernetInterfaces", "EthernetInterface", "Ethernet Interfaces", members)
    if p.network_interfaces and p.network_adapters:
        base = f"{path}/NetworkInterfaces"
        tree.collection(base, "NetworkInterface", "Network Interfaces", [f"{base}/{nic}" for nic in state["nics"]])
        prefix = f"{system.id}-" if sum(s.chassis == system.chassis for s in p.systems) > 1 else ""
        for nic in state["nics"]:
            adapter = f"{ROOT}/Chassis/{system.chassis}/NetworkAdapters/{prefix}{nic}"
            tree.add(
                f"{base}/{nic}",
                "NetworkInterface",
                "Network Device View",
                Ports=link(f"{adapter}/Ports"),
                Status=OK,
                NetworkDeviceFunctions=link(f"{adapter}/NetworkDeviceFunctions"),
                Links={"NetworkAdapter": link(adapter)},
            )


def _storage(tree: Tree, system: System) -> None:
    base = f"{system_path(system.id)}/Storage"
    tree.collection(base, "Storage", "Storage Collection", [f"{base}/{s.id}" for s in tree.p.storage])
    for storage in tree.p.storage:
        path, state = f"{base}/{storage.id}", tree.state["systems"][system.id]["storage"][storage.id]
        drives = {key: drive_path(tree, system, storage, key) for key in state["drives"]}
        controller = {
            "Name": state["name"],
            "Model": state["model"],
            "FirmwareVersion": state["firmware"],
            "SerialNumber": state["serial"],
            "Status": OK,
            "SupportedDeviceProtocols": [storage.protocol],
        }
        raid = ["RAID0", "RAID1", "RAID5", "RAID10"] if storage.raid and storage.volumes else []
        inline = storage.controllers == "inline"
        tree.add(
            path,
            "Storage",
            state["name"],
            Status={**OK, "HealthRollup": "OK"},
            Drives=links(list(drives.values())),
            Controllers=link(f"{path}/Controllers") if not inline else ...,
            Volumes=link(f"{path}/Volumes"),
            StorageControllers=[{"@odata.id": f"{path}#/StorageControllers/0", "MemberId": "0", **controller}]
            if inline
            else ...,
            Links={"Enclosures": [link(f"{ROOT}/Chassis/{storage.drive_chassis or system.chassis}")]},
            **{"Drives@odata.count": len(drives)},
        )
        if not inline:
            tree.collection(
                f"{path}/Controllers", "StorageController", "Storage Controllers", [f"{path}/Controllers/0"]
            )
            tree.add(
                f"{path}/Controllers/0",
                "StorageController",
                state["name"],
                Manufacturer="Broadcom",
                **{k: v for k, v in controller.items() if k != "Name"},
                SupportedRAIDTypes=raid,
            )
        for key, drive_at in drives.items():
            _drive(tree, system, storage, state, key, drive_at, f"{path}/Volumes")
        tree.collection(f"{path}/Volumes", "Volume", "Volumes", [f"{path}/Volumes/{v}" for v in state["volumes"]])
        for key, volume in state["volumes"].items():
            tree.add(
                f"{path}/Volumes/{key}",
                "Volume",
                volume["name"],
                RAIDType=volume["raid_type"],
                CapacityBytes=volume["capacity_bytes"],
                Status=OK,
                Links={"Drives": links([drives[d] for d in volume["drives"]])},
                Actions={
                    "#Volume.Initialize": tree.action(
                        f"{path}/Volumes/{key}", "Volume.Initialize", {"InitializeType": ["Fast", "Slow"]}
                    )
                },
            )


def _drive(tree: Tree, system: System, storage: Storage, state: dict, key: str, path: str, volumes: str) -> None:
    p, drive = tree.p, state["drives"][key]
    used_by = [v for v, volume in state["volumes"].items() if key in volume["drives"]]
    actions = ...
    if p.secure_erase and not (p.name == "hpe" and used_by):  # hidden there while the drive is part of a volume
        actions = {
            "#Drive.SecureErase": tree.action(
                path, "Drive.SecureErase", {"SanitizationType": ERASE_TYPES} if p.erase_types_shown else None
            )
        }
        if p.name == "dell":
            actions["#Drive.SecureErase"]["@Redfish.OperationApplyTimeSupport"] = {
                "@odata.type": "#Settings.v1_3_5.OperationApplyTimeSupport",
                "SupportedValues": ["Immediate", "OnReset"],
            }
    tree.add(
        path,
        "Drive",
        f"Drive {key}",
        CapacityBytes=drive["capacity_bytes"],
        MediaType=drive["media"],
        Protocol=drive["protocol"],
        SerialNumber=drive["serial"],
        Model=drive["model"],
        Manufacturer=drive["manufacturer"],
        Revision=drive["revision"],
        PredictedMediaLifeLeftPercent=drive["life_left_percent"],
        FailurePredicted=False,
        EncryptionAbility="SelfEncryptingDrive",
        EncryptionStatus="Unlocked" if p.name == "standard" else "Unencrypted",
        LocationIndicatorActive=drive["led"] if p.name != "dell" else ...,
        Status={"State": drive["state"], "Health": drive["health"]},
        Actions=actions,
        Links={
            "Volumes": links([f"{volumes}/{v}" for v in used_by]),
            "Chassis": link(f"{ROOT}/Chassis/{storage.drive_chassis or system.chassis}"),
        },
    )
