"""Resources below /redfish/v1/Chassis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import ROOT
from tree import OK, link, links
from tree_systems import drive_path, pcie_devices, shown_power, system_path

if TYPE_CHECKING:
    from personality import Chassis
    from tree import Tree

# id, name, reading while on, type, unit, context, upper caution, upper critical
SENSORS = (
    ("CPU1Temp", "CPU1 Temp", 48.0, "Temperature", "Cel", "CPU", 90.0, 100.0),
    ("InletTemp", "Inlet Temp", 22.5, "Temperature", "Cel", "Intake", 38.0, 42.0),
    ("Fan1", "Fan 1", 7200.0, "Rotational", "RPM", "Fan", None, None),
    ("Fan2", "Fan 2", 7150.0, "Rotational", "RPM", "Fan", None, None),
    ("TotalPower", "Total Power", 344.0, "Power", "W", "SystemBoard", None, 1400.0),
    ("PS1Voltage", "PS1 Voltage", 230.0, "Voltage", "V", "PowerSupply", 264.0, 270.0),
)


def build(tree: Tree) -> None:
    """Add all chassis."""
    tree.collection(
        f"{ROOT}/Chassis", "Chassis", "Chassis Collection", [f"{ROOT}/Chassis/{c.id}" for c in tree.p.chassis]
    )
    for chassis in tree.p.chassis:
        _chassis(tree, chassis)
        if chassis.main:
            _readings(tree, chassis)
        _devices(tree, chassis)


def reading(tree: Tree, chassis: Chassis, value: float, kind: str) -> float | str | None:
    """A sensor value: nothing or a residual value while all hosts are off."""
    powered = not chassis.systems or any(tree.state["systems"][s]["power"] not in ("Off",) for s in chassis.systems)
    if not powered and kind != "Voltage":
        value = {"Power": 14.0, "Rotational": 0.0, "Temperature": 21.0}[kind]
    return f"{value:.6f}" if tree.p.numbers_as_text else value


def _chassis(tree: Tree, chassis: Chassis) -> None:
    p, path, state = tree.p, f"{ROOT}/Chassis/{chassis.id}", tree.state["chassis"][chassis.id]
    own = [s for s in p.systems if s.chassis == chassis.id]
    first = tree.state["systems"][chassis.systems[0]] if chassis.systems else None
    relations = {
        "ComputerSystems": links([system_path(s) for s in chassis.systems]),
        "ManagedBy": [link(f"{ROOT}/Managers/{chassis.manager}")],
    }
    if chassis.contained_by:
        relations["ContainedBy"] = link(f"{ROOT}/Chassis/{chassis.contained_by}")
    inside = [f"{ROOT}/Chassis/{c.id}" for c in p.chassis if c.contained_by == chassis.id]
    if inside:
        relations["Contains"] = links(inside)
    drives = [
        drive_path(tree, s, storage, d)
        for s in p.systems
        if s.kind == "host"
        for storage in p.storage
        for d in tree.state["systems"][s.id]["storage"][storage.id]["drives"]
        if (storage.drive_chassis or s.chassis) == chassis.id
    ]
    if drives:
        relations["Drives"] = links(drives)
    managers = [f"{ROOT}/Managers/{m.id}" for m in p.managers if m.chassis == chassis.id]
    if managers:
        relations["ManagersInChassis"] = links(managers)
    actions = {}
    if chassis.main and p.chassis_reset and own and own[0].kind == "host":
        actions["#Chassis.Reset"] = tree.action(
            path, "Chassis.Reset", {"ResetType": list(p.chassis_reset)}, p.reset_info, "ResetActionInfo"
        )
    if p.ac_cycle == "dell" and own:
        actions["Oem"] = {
            "#DellOemChassis.ExtendedReset": {
                "target": f"{path}/Actions/Oem/DellOemChassis.ExtendedReset",
                "ResetType@Redfish.AllowableValues": ["PowerCycle"],
                "FinalPowerState@Redfish.AllowableValues": ["On", "Off"],
            }
        }
    if p.ac_cycle == "nvidia" and own and own[0].kind == "host":
        info = tree.action_info(
            f"{path}/Oem/Nvidia/AuxPowerResetActionInfo",
            "Auxiliary Power Reset Action Info",
            {"ResetType": ["AuxPowerCycle"]},
        )
        actions["Oem"] = {
            "#NvidiaChassis.AuxPowerReset": {
                "target": f"{path}/Actions/Oem/NvidiaChassis.AuxPowerReset",
                "@Redfish.ActionInfo": info,
            }
        }
    pcie = any(pcie_devices(tree, s) for s in own)
    tree.add(
        path,
        "Chassis",
        f"Chassis {chassis.id}",
        ChassisType=chassis.type,
        Manufacturer=p.manufacturer or ...,
        Model=p.model or ...,
        SerialNumber=state["serial"] or ...,
        AssetTag=state["asset_tag"] if chassis.main else ...,
        PartNumber="PN-CH-1",
        PowerState=shown_power(tree, first["power"]) if first else ...,
        Status=OK,
        IndicatorLED=("Lit" if p.name == "dell" and state["led"] == "Off" else state["led"])
        if chassis.main and p.indicator_led
        else ...,
        LocationIndicatorActive=state["led"] != "Off" if chassis.main and p.location_indicator else ...,
        Thermal=link(f"{path}/Thermal") if chassis.main and p.thermal_and_power else ...,
        Power=link(f"{path}/Power") if chassis.main and p.thermal_and_power else ...,
        ThermalSubsystem=link(f"{path}/ThermalSubsystem") if chassis.main and p.subsystems else ...,
        PowerSubsystem=link(f"{path}/PowerSubsystem") if chassis.main and p.subsystems else ...,
        EnvironmentMetrics=link(f"{path}/EnvironmentMetrics") if chassis.main and p.environment_metrics else ...,
        Sensors=link(f"{path}/Sensors") if chassis.main and p.sensors else ...,
        NetworkAdapters=link(f"{path}/NetworkAdapters") if p.network_adapters and any(s.nics for s in own) else ...,
        PCIeDevices=link(f"{path}/PCIeDevices") if pcie else ...,
        Drives=link(f"{path}/Drives") if any(s.drive_chassis == chassis.id for s in p.storage) else ...,
        Links=relations,
        Actions=actions or ...,
    )
    if any(s.drive_chassis == chassis.id for s in p.storage):
        tree.collection(f"{path}/Drives", "Drive", "Drives", drives)


def _thresholds(caution: float | None, critical: float | None) -> dict:
    result = {}
    if caution is not None:
        result["UpperCaution"] = {"Reading": caution}
    if critical is not None:
        result["UpperCritical"] = {"Reading": critical}
    return result


def _readings(tree: Tree, chassis: Chassis) -> None:
    p, path = tree.p, f"{ROOT}/Chassis/{chassis.id}"
    values = {s[0]: reading(tree, chassis, s[2], s[3]) for s in SENSORS}
    if p.sensors:
        tree.collection(f"{path}/Sensors", "Sensor", "Sensors", [f"{path}/Sensors/{s[0]}" for s in SENSORS])
        for key, name, _, kind, unit, context, caution, critical in SENSORS:
            tree.add(
                f"{path}/Sensors/{key}",
                "Sensor",
                name,
                Reading=values[key],
                ReadingType=kind,
                ReadingUnits=unit,
                PhysicalContext=context,
                Thresholds=_thresholds(caution, critical) or ...,
                Status=OK,
            )
    if p.thermal_and_power:
        _legacy(tree, chassis, path, values)
    if p.subsystems:
        _subsystems(tree, path, values)
    if p.environment_metrics:

        def excerpt(key: str) -> dict:
            return {"Reading": values[key], **({"DataSourceUri": f"{path}/Sensors/{key}"} if p.sensors else {})}

        tree.add(
            f"{path}/EnvironmentMetrics",
            "EnvironmentMetrics",
            "Chassis Environment Metrics",
            TemperatureCelsius=excerpt("InletTemp"),
            PowerWatts=excerpt("TotalPower"),
        )


def _legacy(tree: Tree, chassis: Chassis, path: str, values: dict) -> None:
    """Thermal and Power as services had them before the subsystems."""
    temperatures, fans = [s for s in SENSORS if s[3] == "Temperature"], [s for s in SENSORS if s[3] == "Rotational"]
    tree.add(
        f"{path}/Thermal",
        "Thermal",
        "Thermal",
        Temperatures=[
            {
                "@odata.id": f"{path}/Thermal#/Temperatures/{n}",
                "MemberId": str(n),
                "Name": s[1],
                "ReadingCelsius": values[s[0]],
                "UpperThresholdNonCritical": s[6],
                "UpperThresholdCritical": s[7],
                "PhysicalContext": s[5],
                "Status": OK,
            }
            for n, s in enumerate(temperatures)
        ],
        Fans=[
            {
                "@odata.id": f"{path}/Thermal#/Fans/{n}",
                "MemberId": str(n),
                "Name": s[1],
                "Reading": int(values[s[0]]) if not tree.p.numbers_as_text else values[s[0]],
                "ReadingUnits": "RPM",
                "Status": OK,
            }
            for n, s in enumerate(fans)
        ],
    )
    limit = tree.state["chassis"][chassis.id]["power_limit_watts"]
    tree.add(
        f"{path}/Power",
        "Power",
        "Power",
        PowerControl=[
            {
                "@odata.id": f"{path}/Power#/PowerControl/0",
                "MemberId": "0",
                "Name": "System Power Control",
                "PowerConsumedWatts": values["TotalPower"],
                "PowerCapacityWatts": 1600,
                "Status": OK,
                "PowerLimit": {"LimitInWatts": limit},
            }
        ],
        Voltages=[
            {
                "@odata.id": f"{path}/Power#/Voltages/0",
                "MemberId": "0",
                "Name": "PS1 Voltage",
                "ReadingVolts": values["PS1Voltage"],
                "Status": OK,
            }
        ],
        PowerSupplies=[
            {
                "@odata.id": f"{path}/Power#/PowerSupplies/{n}",
                "MemberId": str(n),
                "Name": f"PSU {n + 1}",
                "PowerCapacityWatts": 1600,
                "LastPowerOutputWatts": 172,
                "LineInputVoltage": 230,
                "SerialNumber": f"PSU{n}FAKE",
                "FirmwareVersion": "00.1B.53",
                "Status": OK,
            }
            for n in range(2)
        ],
    )


def _subsystems(tree: Tree, path: str, values: dict) -> None:
    """PowerSubsystem and ThermalSubsystem."""
    tree.add(
        f"{path}/PowerSubsystem",
        "PowerSubsystem",
        "Power Subsystem",
        CapacityWatts=3200,
        Status=OK,
        PowerSupplies=link(f"{path}/PowerSubsystem/PowerSupplies"),
    )
    supplies = [f"{path}/PowerSubsystem/PowerSupplies/PSU{n}" for n in (1, 2)]
    tree.collection(f"{path}/PowerSubsystem/PowerSupplies", "PowerSupply", "Power Supplies", supplies)
    for supply in supplies:
        tree.add(
            supply,
            "PowerSupply",
            "Power Supply",
            PowerCapacityWatts=1600,
            SerialNumber=supply[-4:] + "FAKE",
            FirmwareVersion="00.1B.53",
            LineInputStatus="Normal",
            Status=OK,
        )
    tree.add(
        f"{path}/ThermalSubsystem",
        "ThermalSubsystem",
        "Thermal Subsystem",
        Fans=link(f"{path}/ThermalSubsystem/Fans"),
        Status=OK,
    )
    fans = [s for s in SENSORS if s[3] == "Rotational"]
    tree.collection(
        f"{path}/ThermalSubsystem/Fans", "Fan", "Fans", [f"{path}/ThermalSubsystem/Fans/{s[0]}" for s in fans]
    )
    for fan in fans:
        tree.add(
            f"{path}/ThermalSubsystem/Fans/{fan[0]}",
            "Fan",
            fan[1],
            PhysicalContext="Chassis",
            Status=OK,
            SpeedPercent={"SpeedRPM": values[fan[0]], "Reading": 45.0 if not tree.p.numbers_as_text else "45"},
        )


def _devices(tree: Tree, chassis: Chassis) -> None:
    path = f"{ROOT}/Chassis/{chassis.id}"
    own = [s for s in tree.p.systems if s.chassis == chassis.id]
    if not own:
        return
    devices = {key: part for s in own for key, part in pcie_devices(tree, s).items()}
    if devices:
        tree.collection(f"{path}/PCIeDevices", "PCIeDevice", "PCIe Devices", list(devices))
    for key, part in devices.items():
        tree.add(
            key,
            "PCIeDevice",
            part["model"],
            Manufacturer=part["manufacturer"],
            Model=part["model"],
            SerialNumber=part["serial"],
            DeviceType="MultiFunction" if not part["gpu"] else "SingleFunction",
            FirmwareVersion=part.get("firmware", "22.00.6"),
            Status=OK,
            PCIeFunctions=link(f"{key}/PCIeFunctions"),
            Links={"Chassis": [link(path)]},
        )
        tree.collection(f"{key}/PCIeFunctions", "PCIeFunction", "PCIe Functions", [f"{key}/PCIeFunctions/0"])
        tree.add(
            f"{key}/PCIeFunctions/0",
            "PCIeFunction",
            part["model"],
            FunctionId=0,
            FunctionType="Physical",
            DeviceClass="DisplayController" if part["gpu"] else "NetworkController",
            ClassCode="0x030200" if part["gpu"] else "0x020000",
            VendorId=part["vendor_id"],
            DeviceId=part["device_id"],
            SubsystemVendorId=part.get("subsystem_vendor_id", "0x15b3"),
            SubsystemId=part.get("subsystem_id", "0x0009"),
            Status=OK,
            Links={"PCIeDevice": link(key)},
        )
    if not tree.p.network_adapters or not any(s.nics for s in own):
        return
    adapters = []
    for system in own:
        prefix = f"{system.id}-" if len(own) > 1 else ""
        for nic, part in tree.state["systems"][system.id]["nics"].items():
            adapters.append(f"{path}/NetworkAdapters/{prefix}{nic}")
            _adapter(tree, adapters[-1], f"{path}/PCIeDevices/{prefix}{nic}", part)
    tree.collection(f"{path}/NetworkAdapters", "NetworkAdapter", "Network Adapters", adapters)


def _adapter(tree: Tree, path: str, device: str, part: dict) -> None:
    known = tree.key(device) in tree.resources
    tree.add(
        path,
        "NetworkAdapter",
        part["model"],
        Manufacturer=part["manufacturer"],
        Model=part["model"],
        SerialNumber=part["serial"],
        Status=OK,
        Controllers=[
            {
                "FirmwarePackageVersion": "22.00.6",
                "ControllerCapabilities": {"NetworkPortCount": 1, "NetworkDeviceFunctionCount": 1},
                **({"Links": {"PCIeDevices": [link(device)]}} if known else {}),
            }
        ],
        Ports=link(f"{path}/Ports"),
        NetworkDeviceFunctions=link(f"{path}/NetworkDeviceFunctions"),
    )
    port, function = f"{path}/Ports/1", f"{path}/NetworkDeviceFunctions/0"
    tree.collection(f"{path}/Ports", "Port", "Ports", [port])
    tree.add(
        port,
        "Port",
        "Port 1",
        PortId="1",
        PortProtocol="Ethernet",
        LinkStatus=part["link"],
        LinkState="Enabled",
        Status=OK,
        CurrentSpeedGbps=part["speed_mbps"] / 1000 if part["link"] == "LinkUp" else 0,
        Ethernet={"AssociatedMACAddresses": [part["mac"]]},
    )
    tree.collection(f"{path}/NetworkDeviceFunctions", "NetworkDeviceFunction", "Network Device Functions", [function])
    tree.add(
        function,
        "NetworkDeviceFunction",
        "Function 0",
        NetDevFuncType="Ethernet",
        Status=OK,
        Ethernet={"MACAddress": part["mac"], "PermanentMACAddress": part["mac"]},
        Links={"PhysicalNetworkPortAssignment": link(port)},
    )
