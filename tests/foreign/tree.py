"""The resource tree, rendered from the state of the machine.

The whole tree is rebuilt when the state changed; it is small, and so every link and count is consistent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from machine import Machine
from protocol import ROOT

OK = {"State": "Enabled", "Health": "OK"}
TYPES_WITH_CLOCK = (".Manager", ".LogService", ".TaskService", ".HpeiLODateTime")

# Schema versions used by all personalities; an older family overrides a few of them.
VERSIONS = {
    "ServiceRoot": "v1_16_1",
    "ComputerSystem": "v1_20_1",
    "Chassis": "v1_23_1",
    "Manager": "v1_18_0",
    "Processor": "v1_18_0",
    "Memory": "v1_18_0",
    "EthernetInterface": "v1_9_0",
    "NetworkInterface": "v1_2_2",
    "NetworkAdapter": "v1_9_0",
    "Port": "v1_9_0",
    "NetworkDeviceFunction": "v1_9_0",
    "PCIeDevice": "v1_12_0",
    "PCIeFunction": "v1_5_0",
    "Storage": "v1_15_0",
    "StorageController": "v1_7_0",
    "Drive": "v1_18_0",
    "Volume": "v1_9_0",
    "Bios": "v1_2_2",
    "SecureBoot": "v1_1_1",
    "SecureBootDatabase": "v1_0_2",
    "BootOption": "v1_0_5",
    "VirtualMedia": "v1_6_2",
    "LogService": "v1_5_0",
    "LogEntry": "v1_15_0",
    "Sensor": "v1_8_0",
    "Thermal": "v1_7_2",
    "Power": "v1_7_2",
    "PowerSubsystem": "v1_1_1",
    "PowerSupply": "v1_5_1",
    "ThermalSubsystem": "v1_2_1",
    "Fan": "v1_5_0",
    "EnvironmentMetrics": "v1_3_1",
    "ManagerNetworkProtocol": "v1_9_1",
    "AccountService": "v1_14_0",
    "ManagerAccount": "v1_11_0",
    "Role": "v1_3_2",
    "SessionService": "v1_1_9",
    "Session": "v1_6_0",
    "TaskService": "v1_2_1",
    "Task": "v1_7_3",
    "UpdateService": "v1_13_0",
    "SoftwareInventory": "v1_10_1",
    "EventService": "v1_10_2",
    "EventDestination": "v1_14_1",
    "CertificateService": "v1_0_5",
    "CertificateLocations": "v1_0_4",
    "Certificate": "v1_7_0",
    "TelemetryService": "v1_3_3",
    "MetricReport": "v1_5_1",
    "MessageRegistryFile": "v1_1_3",
    "ActionInfo": "v1_4_0",
}
OLD_VERSIONS = {
    "ami": {
        "ComputerSystem": "v1_17_0",
        "Manager": "v1_14_0",
        "ManagerAccount": "v1_3_0",
        "Drive": "v1_6_0",
        "Task": "v1_4_1",
    },
    "supermicro": {
        "ServiceRoot": "v1_9_0",
        "ComputerSystem": "v1_14_0",
        "Processor": "v1_14_0",
        "VirtualMedia": "v1_4_1",
    },
    "dell": {"ComputerSystem": "v1_20_1", "Drive": "v1_12_1", "VirtualMedia": "v1_4_0", "ManagerAccount": "v1_8_0"},
}


def link(path: str) -> dict:
    """A reference to a resource."""
    return {"@odata.id": path}


def links(paths: list[str]) -> list[dict]:
    """References to resources."""
    return [link(path) for path in paths]


def stamp(seconds: float) -> str:
    """A time as Redfish writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


# The functions that add the parts of a tree; filled by bmc.py.
BUILDERS: list[Callable[[Tree], None]] = []


class Tree:
    """All resources by path; properties given as `...` are left out."""

    def __init__(self, machine: Machine):
        self.machine, self.p, self.state = machine, machine.personality, machine.state
        self.resources: dict[str, dict] = {}
        self.versions = {**VERSIONS, **OLD_VERSIONS.get(self.p.name, {})}
        self.targets: dict[str, str] = {}
        self._root()
        for build in BUILDERS:
            build(self)
        for resource in self.resources.values():
            self._collect_targets(resource.get("Actions", {}))

    # ------------------------------------------------------------ building blocks

    def add(
        self, path: str, kind: str, name: str, *, id: str | None = None, type: str | None = None, **properties: Any
    ) -> dict:
        """Put a resource of a DMTF schema at a path."""
        resource = {
            "@odata.id": path,
            "@odata.type": type or f"#{kind}.{self.versions[kind]}.{kind}",
            "Id": id or path.rstrip("/").rsplit("/", 1)[1],
            "Name": name,
        }
        if self.p.odata_context:
            resource["@odata.context"] = f"{ROOT}/$metadata#{kind}.{kind}"
        resource.update(
            (key.replace("__", "@Redfish."), value) for key, value in properties.items() if value is not ...
        )
        self.resources[self.key(path)] = resource
        return resource

    def collection(self, path: str, kind: str, name: str, members: list) -> dict:
        """Put a collection at a path; members are paths or whole inline resources."""
        resource = {
            "@odata.id": path,
            "@odata.type": f"#{kind}Collection.{kind}Collection",
            "Name": name,
            "Members": [link(m) if isinstance(m, str) else m for m in members],
            "Members@odata.count": len(members),
        }
        if self.p.odata_context:
            resource["@odata.context"] = f"{ROOT}/$metadata#{kind}Collection.{kind}Collection"
        self.resources[self.key(path)] = resource
        return resource

    def action_info(self, path: str, name: str, parameters: dict[str, list | None]) -> str:
        """An ActionInfo resource; returns its path."""
        self.add(
            path,
            "ActionInfo",
            name,
            Parameters=[
                {
                    "Name": key,
                    "Required": number == 0,
                    "DataType": "String",
                    **({"AllowableValues": list(values)} if values else {}),
                }
                for number, (key, values) in enumerate(parameters.items())
            ],
        )
        return path

    def action(
        self,
        owner: str,
        action: str,
        parameters: dict[str, list | None] | None = None,
        form: str = "inline",
        info: str | None = None,
    ) -> dict:
        """An action object, with its allowable values inline, in an ActionInfo, or both."""
        owner = owner.rstrip("/")
        result = {"target": f"{owner}/Actions/{action}"}
        if form in ("inline", "both"):
            result.update(
                {f"{key}@Redfish.AllowableValues": list(values) for key, values in (parameters or {}).items() if values}
            )
        if form in ("action_info", "both") and parameters:
            result["@Redfish.ActionInfo"] = self.action_info(
                f"{owner}/{info or action.split('.')[-1] + 'ActionInfo'}", f"{action} Action Info", parameters
            )
        return result

    def key(self, path: str) -> str:
        """The form in which paths are compared."""
        path = path.rstrip("/")
        return path.lower() if self.p.ignore_case else path

    def get(self, path: str) -> dict | None:
        """The resource at a path, with the running clock filled in."""
        resource = self.resources.get(self.key(path))
        if resource and "DateTime" in resource:
            resource = {
                **resource,
                "DateTime": stamp(
                    self.machine.now(resource["@odata.id"].split("/")[4])
                    if "/Managers/" in resource["@odata.id"]
                    else self.machine.now()
                ),
            }
        return resource

    def etag(self, path: str) -> str | None:
        """The entity tag of a resource in the family's form."""
        resource = self.resources.get(self.key(path))
        if resource is None or self.p.etag == "none":
            return None
        digest = hashlib.sha1(json.dumps(resource, sort_keys=True).encode()).hexdigest()[:16]
        return f'W/"{digest}"' if self.p.etag == "weak" else f'"{digest}"'

    def _collect_targets(self, actions: dict) -> None:
        for name, action in actions.items():
            if isinstance(action, dict) and "target" in action:
                self.targets[self.key(action["target"])] = name
            elif isinstance(action, dict):
                self._collect_targets(action)

    # ------------------------------------------------------------ service root

    def _root(self) -> None:
        p = self.p
        self.resources[self.key("/redfish")] = {"v1": f"{ROOT}/"}
        self.resources[self.key(f"{ROOT}/odata")] = {
            "@odata.context": f"{ROOT}/$metadata",
            "value": [{"name": "Service", "kind": "Singleton", "url": f"{ROOT}/"}]
            + [{"name": n, "kind": "Singleton", "url": f"{ROOT}/{n}"} for n in ("Systems", "Chassis", "Managers")],
        }
        self.add(
            f"{ROOT}/" if p.name in ("standard", "blade") else ROOT,
            "ServiceRoot",
            "Root Service",
            id="RootService",
            RedfishVersion=p.redfish_version,
            UUID=p.root_uuid or ...,
            Vendor=p.vendor or ...,
            Product=p.product or ...,
            ProtocolFeaturesSupported=p.protocol_features or ...,
            Oem=p.root_oem or ...,
            Systems=link(f"{ROOT}/Systems"),
            Chassis=link(f"{ROOT}/Chassis"),
            Managers=link(f"{ROOT}/Managers"),
            AccountService=link(f"{ROOT}/AccountService"),
            SessionService=link(f"{ROOT}/SessionService"),
            Tasks=link(f"{ROOT}/TaskService"),
            EventService=link(f"{ROOT}/EventService"),
            UpdateService=link(f"{ROOT}/UpdateService"),
            Registries=link(f"{ROOT}/Registries"),
            CertificateService=link(f"{ROOT}/CertificateService") if p.certificates else ...,
            TelemetryService=link(f"{ROOT}/TelemetryService") if p.telemetry else ...,
            Links={"Sessions": link(f"{ROOT}/SessionService/Sessions")},
        )


class TreeCache:
    """Keeps the tree of the current revision of the state."""

    def __init__(self, machine: Machine):
        self.machine, self._revision, self._tree = machine, -1, None

    def current(self, fresh: bool = False) -> Tree:
        """The tree of the present state; `fresh` also within a transaction that is not finished."""
        if fresh:
            return Tree(self.machine)
        if self._tree is None or self._revision != self.machine.revision or self._tree.state is not self.machine.state:
            self._revision, self._tree = self.machine.revision, Tree(self.machine)
        return self._tree
