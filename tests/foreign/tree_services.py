"""The services: accounts, sessions, tasks, updates, events, certificates, telemetry, registries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from access import ROLES
from hardware import BIOS_ATTRIBUTES
from protocol import MESSAGES, ROOT
from tree import OK, link, links, stamp
from tree_managers import TASK_STATES

if TYPE_CHECKING:
    from tree import Tree


def task_path(task_id: str) -> str:
    """Where a task is."""
    return f"{ROOT}/TaskService/Tasks/{task_id}"


def monitor_path(tree: Tree, task_id: str) -> str:
    """Where the monitor of a task is, in the family's form."""
    return {
        "openbmc": f"{task_path(task_id)}/Monitor",
        "ami": task_path(task_id),
        "lenovo": f"{ROOT}/TaskService/TaskMonitors/{task_id}-xcc",
    }.get(tree.p.tasks, f"{ROOT}/TaskService/TaskMonitors/{task_id}")


def build(tree: Tree) -> None:
    """Add the services."""
    for part in (_accounts, _sessions, _tasks, _update, _events, _certificates, _telemetry, _registries):
        part(tree)


def _accounts(tree: Tree) -> None:
    p, base, state = tree.p, f"{ROOT}/AccountService", tree.state
    policy = state["account_policy"]
    tree.add(
        base,
        "AccountService",
        "Account Service",
        ServiceEnabled=True,
        Accounts=link(f"{base}/Accounts"),
        Roles=link(f"{base}/Roles"),
        MinPasswordLength=p.password_length[0],
        MaxPasswordLength=p.password_length[1],
        AccountLockoutThreshold=policy["threshold"],
        AccountLockoutDuration=policy["duration_seconds"],
        Status=OK,
    )
    roles = [r for r in ROLES if r != "None" or p.account_form == "slots"]
    tree.collection(f"{base}/Roles", "Role", "Roles", [f"{base}/Roles/{r}" for r in roles])
    for role in roles:
        tree.add(
            f"{base}/Roles/{role}", "Role", "User Role", RoleId=role, IsPredefined=True, AssignedPrivileges=ROLES[role]
        )
    tree.collection(
        f"{base}/Accounts", "ManagerAccount", "Accounts", [f"{base}/Accounts/{a}" for a in state["accounts"]]
    )
    for key, account in state["accounts"].items():
        tree.add(
            f"{base}/Accounts/{key}",
            "ManagerAccount",
            "User Account",
            UserName=account["user"],
            Password=None,
            RoleId=account["role"],
            Enabled=account["enabled"],
            Locked=account["locked_until"] is not None,
            PasswordChangeRequired=account["password_change_required"] if p.account_types else ...,
            AccountTypes=["Redfish"] if p.account_types else ...,
            Links={"Role": link(f"{base}/Roles/{account['role']}")},
        )


def _sessions(tree: Tree) -> None:
    base = f"{ROOT}/SessionService"
    tree.add(
        base,
        "SessionService",
        "Session Service",
        ServiceEnabled=True,
        SessionTimeout=tree.state["session_timeout_seconds"],
        Sessions=link(f"{base}/Sessions"),
        Status=OK,
    )
    tree.collection(f"{base}/Sessions", "Session", "Sessions", [f"{base}/Sessions/{s}" for s in tree.state["sessions"]])
    for key, session in tree.state["sessions"].items():
        tree.add(
            f"{base}/Sessions/{key}",
            "Session",
            "User Session",
            UserName=session["user"],
            CreatedTime=stamp(session["created"]),
            ClientOriginIPAddress=session["client"],
            Password=None,
        )


def _tasks(tree: Tree) -> None:
    base, tasks = f"{ROOT}/TaskService", {k: t for k, t in tree.state["tasks"].items() if not t["gone"]}
    tree.add(
        base,
        "TaskService",
        "Task Service",
        ServiceEnabled=True,
        DateTime="",
        Tasks=link(f"{base}/Tasks"),
        CompletedTaskOverWritePolicy="Oldest",
        LifeCycleEventOnTaskStateChange=False,
        Status=OK,
    )
    tree.collection(f"{base}/Tasks", "Task", "Tasks", [task_path(t) for t in tasks])
    for key, task in tasks.items():
        open_ = task["state"] in ("Running", "Pending", "New")
        tree.add(
            task_path(key),
            "Task",
            task["name"],
            TaskState=task["state"],
            TaskStatus=task["status"],
            StartTime=stamp(task["started"]),
            EndTime=stamp(task["ended"]) if task["ended"] else ...,
            PercentComplete=task["percent"] if tree.p.tasks not in ("ami", "dell") else ...,
            Oem={
                "Dell": {
                    "@odata.type": "#DellJob.v1_5_0.DellJob",
                    "PercentComplete": task["percent"],
                    "JobState": TASK_STATES.get(task["state"], task["state"]),
                }
            }
            if tree.p.tasks == "dell"
            else ...,
            TaskMonitor=monitor_path(tree, key) if open_ and tree.p.tasks != "ami" else ...,
            Payload=task["payload"] or ...,
            Messages=task["messages"] if tree.p.task_messages or task["state"] == "Exception" else ...,
        )


def _update(tree: Tree) -> None:
    p, base, state = tree.p, f"{ROOT}/UpdateService", tree.state
    actions = {}
    if p.simple_update:
        actions["#UpdateService.SimpleUpdate"] = tree.action(
            base,
            "UpdateService.SimpleUpdate",
            {"ImageURI": None, "TransferProtocol": list(p.simple_update)},
            p.simple_update_info,
        )
    if p.name in ("dell", "supermicro"):
        actions["#UpdateService.StartUpdate"] = tree.action(base, "UpdateService.StartUpdate")
    options = {"HttpPushUriApplyTime": {"ApplyTime": "OnReset" if p.tasks == "openbmc" else "Immediate"}}
    tree.add(
        base,
        "UpdateService",
        "Update Service",
        ServiceEnabled=True,
        FirmwareInventory=link(f"{base}/FirmwareInventory"),
        Status=OK,
        SoftwareInventory=link(f"{base}/SoftwareInventory") if p.software_inventory else ...,
        HttpPushUri=p.push_raw or ...,
        MultipartHttpPushUri=p.push_multipart or ...,
        HttpPushUriTargetsBusy=state["push_busy"] if p.push_busy else ...,
        HttpPushUriTargets=[] if p.push_busy else ...,
        HttpPushUriOptions=options if p.tasks in ("openbmc", "lenovo") else ...,
        MaxImageSizeBytes=419430400 if p.tasks in ("openbmc", "lenovo") else ...,
        Actions=actions or ...,
    )
    tree.collection(
        f"{base}/FirmwareInventory",
        "SoftwareInventory",
        "Firmware Inventory",
        [f"{base}/FirmwareInventory/{k}" for k in state["firmware"]],
    )
    for key, item in state["firmware"].items():
        tree.add(
            f"{base}/FirmwareInventory/{key}",
            "SoftwareInventory",
            item["name"],
            Version=item["version"],
            Updateable=item["updateable"],
            Status=OK,
            SoftwareId=f"id-{item['kind'].lower()}",
        )
    if p.software_inventory:
        tree.collection(
            f"{base}/SoftwareInventory",
            "SoftwareInventory",
            "Software Inventory",
            [f"{base}/SoftwareInventory/{k}" for k in state["software"]],
        )
        for key, item in state["software"].items():
            tree.add(
                f"{base}/SoftwareInventory/{key}",
                "SoftwareInventory",
                item["name"],
                Version=item["version"],
                Updateable=False,
                Status=OK,
            )


def _events(tree: Tree) -> None:
    p, base = tree.p, f"{ROOT}/EventService"
    by_type = p.event_fields == "types"
    tree.add(
        base,
        "EventService",
        "Event Service",
        ServiceEnabled=True,
        DeliveryRetryAttempts=3,
        DeliveryRetryIntervalSeconds=30,
        Status=OK,
        EventTypesForSubscription=["StatusChange", "ResourceUpdated", "ResourceAdded", "ResourceRemoved", "Alert"]
        if by_type
        else ...,
        EventFormatTypes=... if by_type else ["Event", "MetricReport"],
        RegistryPrefixes=... if by_type else ["Base", "ResourceEvent", "TaskEvent"],
        ServerSentEventUri=p.sse or ...,
        Subscriptions=link(f"{base}/Subscriptions"),
        Actions={"#EventService.SubmitTestEvent": tree.action(base, "EventService.SubmitTestEvent")},
    )
    tree.collection(
        f"{base}/Subscriptions",
        "EventDestination",
        "Event Subscriptions",
        [f"{base}/Subscriptions/{s}" for s in tree.state["subscriptions"]],
    )
    for key, item in tree.state["subscriptions"].items():
        tree.add(
            f"{base}/Subscriptions/{key}",
            "EventDestination",
            "Event Subscription",
            Destination=item["destination"],
            Protocol="Redfish",
            Context=item["context"],
            SubscriptionType="RedfishEvent",
            EventFormatType="Event",
            Status=OK,
            EventTypes=item["types"] or ... if by_type else ...,
        )


def _certificates(tree: Tree) -> None:
    p, base = tree.p, f"{ROOT}/CertificateService"
    if not p.certificates:
        return
    tree.add(
        base,
        "CertificateService",
        "Certificate Service",
        CertificateLocations=link(f"{base}/CertificateLocations"),
        Actions={f"#CertificateService.{a}": tree.action(base, f"CertificateService.{a}") for a in p.certificates},
    )
    tree.add(
        f"{base}/CertificateLocations",
        "CertificateLocations",
        "Certificate Locations",
        Links={
            "Certificates": links([f"{ROOT}/Managers/{m.id}/NetworkProtocol/HTTPS/Certificates/1" for m in p.managers])
        },
    )


def _telemetry(tree: Tree) -> None:
    if not tree.p.telemetry:
        return
    base, chassis = f"{ROOT}/TelemetryService", next(c for c in tree.p.chassis if c.main)
    tree.add(
        base,
        "TelemetryService",
        "Telemetry Service",
        ServiceEnabled=True,
        Status=OK,
        MetricReports=link(f"{base}/MetricReports"),
    )
    tree.collection(f"{base}/MetricReports", "MetricReport", "Metric Reports", [f"{base}/MetricReports/Power"])
    tree.add(
        f"{base}/MetricReports/Power",
        "MetricReport",
        "Power Metrics",
        ReportSequence="1",
        Timestamp=stamp(tree.machine.now()),
        MetricValues=[
            {
                "MetricId": "TotalPower",
                "MetricValue": "344",
                "Timestamp": stamp(tree.machine.now()),
                "MetricProperty": f"{ROOT}/Chassis/{chassis.id}/Sensors/TotalPower#/Reading"
                if tree.p.sensors
                else f"{ROOT}/Chassis/{chassis.id}#/PowerState",
            }
        ],
    )


def _registries(tree: Tree) -> None:
    p, base = tree.p, f"{ROOT}/Registries"
    names = [*p.registries, *([p.bios_registry] if p.bios_registry else [])]
    tree.collection(base, "MessageRegistryFile", "Registry File Collection", [f"{base}/{name}" for name in names])
    for name in names:
        uri = f"{base}/{name}/{name}.json"
        short = name.replace(".v", ".").replace("_", ".") if name == p.bios_registry else name
        tree.add(
            f"{base}/{name}",
            "MessageRegistryFile",
            f"{name} Registry",
            Registry=short,
            Languages=["en"],
            Location=[{"Language": "en", "Uri": uri}],
        )
        content = {"Language": "en", "OwningEntity": p.vendor or "Fake", "RegistryVersion": "1.0.0"}
        if name == p.bios_registry:
            tree.add(
                uri,
                "AttributeRegistry",
                "BIOS Attribute Registry",
                id=name,
                type="#AttributeRegistry.v1_3_6.AttributeRegistry",
                RegistryEntries={"Attributes": [_attribute(tree, *a) for a in BIOS_ATTRIBUTES], "Dependencies": []},
                **content,
            )
        else:
            tree.add(
                uri,
                "MessageRegistry",
                f"{name} Message Registry",
                id=name,
                type="#MessageRegistry.v1_6_1.MessageRegistry",
                RegistryPrefix=name.split(".")[0],
                Messages={
                    key: {
                        "Description": text,
                        "Message": text,
                        "MessageSeverity": severity,
                        "NumberOfArgs": text.count("%"),
                        "Resolution": resolution,
                    }
                    for key, (text, severity, resolution) in MESSAGES.items()
                },
                **content,
            )


def _attribute(tree: Tree, name: str, kind: str, default: Any, allowed: tuple | None) -> dict:
    result = {
        "AttributeName": name + (tree.p.bios_attribute_suffix if kind == "Enumeration" else ""),
        "Type": kind,
        "DisplayName": name,
        "ReadOnly": allowed is None,
        "ResetRequired": True,
        "DefaultValue": default,
        "MenuPath": "./",
    }
    if kind == "Enumeration":
        result["Value"] = [{"ValueName": value, "ValueDisplayName": value} for value in allowed]
    elif kind == "Integer":
        result.update(LowerBound=allowed[0], UpperBound=allowed[1], ScalarIncrement=1)
    elif allowed:
        result.update(MinLength=allowed[0], MaxLength=allowed[1])
    return result
