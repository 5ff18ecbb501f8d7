"""What the resources of a Redfish tree say about sensors, chassis, managers, logs and inventories."""

import collections

import walk_hardware as hardware
from walk_index import MANAGERS, absent, dig, ident, number, pick, placeholder, plain, rows, squeeze, text, usable
from walk_hardware import mac, merge, tidy

EXCERPTS = ("EnvironmentMetrics", "ThermalMetrics", "PowerSupplyMetrics", "PowerDistributionMetrics", "BatteryMetrics",
            "HeaterMetrics", "FanMetrics", "PumpMetrics", "Fan", "Pump", "Outlet", "OutletGroup", "Circuit",
            "PowerSubsystem", "ThermalSubsystem")


# ---------------------------------------------------------------- sensors

def blank():
    return {"total": 0, "numeric": 0, "null": 0, "missing": 0, "text": 0, "absent": 0}


def tally(count, body, *keys, status=True):
    """Count one reading: the first of the keys that is present decides."""
    count["total"] += 1
    present = [key for key in keys if key in body]
    values = [body[key] for key in present]
    if any(number(value) for value in values):
        count["numeric"] += 1
    elif not present:
        count["missing"] += 1
    elif all(value is None for value in values):
        count["null"] += 1
    else:
        count["text"] += 1
    if status and absent(body):
        count["absent"] += 1


def excerpts(body, top=True):
    """Sensor excerpts inside a document: objects with a reading or with a data source."""
    if isinstance(body, list):
        for item in body:
            yield from excerpts(item, False)
    elif isinstance(body, dict):
        if not top and ("Reading" in body or "DataSourceUri" in body or "SpeedRPM" in body):
            yield body
            return
        for key, value in sorted(body.items()):
            if key not in ("Oem", "Thresholds", "Links", "Actions", "Status"):
                yield from excerpts(value, False)


LEGACY = {
    "Thermal": (("Temperatures", ("ReadingCelsius",)), ("Fans", ("Reading", "ReadingRPM"))),
    "Power": (("Voltages", ("ReadingVolts",)), ("PowerControl", ("PowerConsumedWatts",)), (
        "PowerSupplies", ("LineInputVoltage", "LastPowerOutputWatts", "PowerInputWatts", "PowerOutputWatts"))),
}


def sensors(scope):
    routes, by_name, repeated = {}, collections.defaultdict(set), 0
    for item in scope("Sensor"):
        tally(routes.setdefault("Sensor", blank()), item.body, "Reading")
        by_name[squeeze(item.get("Name")) or item.id].add("Sensor")
        if isinstance(item.get("Reading"), str):
            scope.tree.note("reading that is text", f"{item.uri}: {item.get('Reading')!r}")
    for kind, groups in LEGACY.items():
        for item in scope(kind):
            for group, keys in groups:
                for row in rows(item.get(group)):
                    tally(routes.setdefault(f"{kind}.{group}", blank()), row, *keys)
                    by_name[squeeze(row.get("Name") or row.get("FanName")) or text(row.get("MemberId"))].add("legacy")
    for kind in EXCERPTS:
        for item in scope(kind):
            for body in excerpts(item.body):
                tally(routes.setdefault(kind, blank()), body, "Reading", "SpeedRPM", status=False)
                if isinstance(body.get("Reading"), str):
                    scope.tree.note("reading that is text", item.uri)
                if scope.tree.find(body.get("DataSourceUri")) is not None:
                    repeated += 1
    total = {key: sum(route[key] for route in routes.values()) for key in blank()}
    legacy = {key: sum(count[key] for name, count in routes.items() if name.split(".")[0] in LEGACY) for key in blank()}
    return {"by_route": dict(sorted(routes.items())), "all_routes": total, "legacy": legacy,
            "sensors": routes.get("Sensor", blank()), "excerpts_with_own_sensor": repeated,
            "names": {"both": sum(len(kinds) == 2 for kinds in by_name.values()),
                      "only_sensor": sum(kinds == {"Sensor"} for kinds in by_name.values()),
                      "only_legacy": sum(kinds == {"legacy"} for kinds in by_name.values())}}


def power_supplies(scope):
    found, excluded = [], 0
    for item in scope("PowerSupply"):
        entry = pick(item.body, name="Name", model="Model", part="PartNumber")
        entry.update(serial=ident(item.get("SerialNumber")), at=[item.uri], routes=["PowerSubsystem"],
                     gone=absent(item.body))
        found.append(entry)
    for item in scope("Power"):
        for index, row in enumerate(rows(item.get("PowerSupplies"))):
            entry = pick(row, name="Name", model="Model", part="PartNumber")
            entry.update(serial=ident(row.get("SerialNumber")), at=[f"{item.uri}#/PowerSupplies/{index}"],
                         routes=["Power"], gone=absent(row))
            found.append(entry)
    for entry in list(found):
        if entry.pop("gone"):
            found.remove(entry)
            excluded += 1
    return {"present": tidy(merge(found, scope.tree, "power supply")), "absent": excluded}


def fans(scope):
    found, excluded = [], 0
    for item in scope("Fan"):
        if absent(item.body):
            excluded += 1
        else:
            found.append({"name": text(item.get("Name")) or item.id, "at": [item.uri], "routes": ["ThermalSubsystem"]})
    for item in scope("Thermal"):
        for index, row in enumerate(rows(item.get("Fans"))):
            name = text(row.get("Name") or row.get("FanName")) or str(index)
            if absent(row):
                excluded += 1
                continue
            twins = [fan for fan in found if fan["routes"] == ["ThermalSubsystem"] and (
                squeeze(fan["name"]).endswith(squeeze(name)) or squeeze(name).endswith(squeeze(fan["name"])))]
            if twins:
                twins[0]["routes"].append("Thermal")
                twins[0]["at"].append(f"{item.uri}#/Fans/{index}")
            else:
                found.append({"name": name, "at": [f"{item.uri}#/Fans/{index}"], "routes": ["Thermal"]})
    return {"present": tidy(found), "absent": excluded}


def leds(scope, *kinds):
    """Location lights, in the current and in the older property."""
    keys = ("LocationIndicatorActive", "IndicatorLED")
    return [{"at": item.uri, **{key: item.get(key) for key in keys if key in item.body}}
            for item in scope(*kinds) if any(key in item.body for key in keys)]


# ---------------------------------------------------------------- managers, logs, firmware, registries

def logs(tree, relations):
    found = []
    for item in tree.all("LogService"):
        home = tree.home(item.uri, ("ComputerSystem", "Chassis", "Manager"))
        where = next(iter(tree.linked(item.get("Entries"))), None)
        page = tree.find(where) if where else None
        members = set(tree.linked(page.get("Members"))) if page else set()
        # A member without a link of its own still is an entry.
        loose = sum(1 for row in rows(page.get("Members")) if not row.get("@odata.id")) if page else 0
        below = {entry.uri for entry in tree.all("LogEntry") if where and entry.uri.startswith(where + "/")}
        dead = {uri for uri in members if tree.find(uri) is None or uri in tree.errors}
        found.append({
            "id": item.id, "at": item.uri,
            "owner": home.uri if home else None, "owner_type": home.type if home else None,
            "server": relations.server_for(item.uri), "entries": len(members | below) + loose,
            "entries_seen": len(below), "dead_members": len(dead), "entries_link": where,
            "claimed": page.get("Members@odata.count") if page else None})
    return found


def managers(tree, relations):
    order = tree.linked(dig(getattr(tree.find(MANAGERS), "body", None), "Members"))
    order += [item.uri for item in relations.managers if item.uri not in order]
    found = []
    for uri in order:
        item = tree.find(uri)
        if item is None or item.type != "Manager":
            continue
        inside = [other for other in tree.by_path.values()
                  if other.uri.startswith(uri + "/") and not tree.is_settings(other.uri)]
        protocols = next((other for other in inside if other.type == "ManagerNetworkProtocol"), None)
        entry = pick(item.body, type="ManagerType", firmware="FirmwareVersion", model="Model", clock="DateTime",
                     offset="DateTimeLocalOffset", health=("Status", "Health"), power="PowerState")
        entry.update(
            uri=uri, id=item.id, uuid=ident(item.get("UUID")), position=order.index(uri),
            manager_for_servers=tree.linked(item.get("Links", "ManagerForServers")),
            manager_for_chassis=tree.linked(item.get("Links", "ManagerForChassis")),
            main_for=[server for server, main in sorted(relations.main_manager.items()) if main and main["uri"] == uri],
            virtual_media=sorted(other.uri for other in inside if other.type == "VirtualMedia"),
            accounts=sum(other.type == "ManagerAccount" for other in inside),
            log_services=sorted(other.uri for other in inside if other.type == "LogService"),
            ethernet_interfaces=[{"id": other.id, "mac": mac(other.get("MACAddress")), "addresses": sorted(
                text(row.get("Address")) for row in rows(other.get("IPv4Addresses")) if text(row.get("Address")))}
                for other in sorted(inside, key=lambda other: other.uri) if other.type == "EthernetInterface"],
            protocols=sorted(key for key, value in (protocols.body if protocols else {}).items()
                             if dig(value, "ProtocolEnabled")),
            network_protocol=protocols.uri if protocols else None)
        found.append(entry)
    return found


def firmware(tree):
    services = tree.all("UpdateService")
    groups = {"firmware": [], "software": [], "elsewhere": []}
    for item in tree.all("SoftwareInventory"):
        group = "elsewhere"
        for key, name in (("FirmwareInventory", "firmware"), ("SoftwareInventory", "software")):
            if any(item.uri.startswith(uri + "/") for service in services for uri in tree.linked(service.get(key))):
                group = name
        groups[group].append(dict(pick(item.body, version="Version", name="Name"), id=item.id, uri=item.uri))
    return groups


def registries(tree):
    found = []
    for item in tree.all("MessageRegistryFile"):
        places = []
        for row in rows(item.get("Location")):
            place = tree.find(row.get("Uri"))
            places.append({"language": text(row.get("Language")),
                           "uri": next(filter(None, (text(row.get(key)) for key in (
                               "Uri", "ArchiveUri", "PublicationUri"))), None),
                           "in_tree": place is not None and place.uri not in tree.errors})
        found.append({"id": item.id, "registry": text(item.get("Registry")), "uri": item.uri, "locations": places,
                      "in_tree": any(place["in_tree"] for place in places),
                      "languages": [text(value) for value in plain(item.get("Languages")) if text(value)]})
    return found


def accounts(tree):
    found = tree.all("ManagerAccount")
    return {"count": len(found), "named": sum(bool(text(item.get("UserName"))) for item in found),
            "enabled": sum(item.get("Enabled") is True for item in found)}


# ---------------------------------------------------------------- report

class Scope:
    """The resources of given types that belong to one server (or to the given chassis)."""

    def __init__(self, tree, relations, server=None, below=None):
        self.tree, self.relations, self.server, self.below = tree, relations, server, below
        self.family = relations.family(server) if server else []
        self.cache = {}

    def __call__(self, *types):
        return [item for kind in types for item in self._of(kind)]

    def _of(self, kind):
        if kind not in self.cache:
            self.cache[kind] = [item for item in self.tree.all(kind) if self._mine(item.uri)]
        return self.cache[kind]

    def _mine(self, uri):
        if self.below is not None:
            home = self.tree.home(uri, ("ComputerSystem", "Chassis", "Manager"))
            return home is not None and home.uri == self.below
        return self.server is None or self.relations.server_for(uri) == self.server

    def of_part(self, uri):
        return any(uri.startswith(part + "/") for part in self.family[1:])


def server_report(tree, relations, server):
    scope = Scope(tree, relations, server)
    item = tree.find(server)
    report = {
        "uri": server, "parts": relations.family(server)[1:],
        "processors": hardware.processors(scope), "memory": hardware.memory(scope), "storage": hardware.storage(scope),
        "network": hardware.network(scope), "pcie": hardware.pcie(scope), "boot": hardware.boot(scope, server),
        "secure_boot": hardware.secure_boot(scope), "tpm": hardware.trusted_modules(scope),
        "bios": hardware.bios(scope),
        "chassis": [{"uri": uri, "why": reasons} for uri, reasons in sorted(relations.owned[server].items())],
        "sensors": sensors(scope), "power_supplies": power_supplies(scope), "fans": fans(scope),
        "leds": leds(scope, "ComputerSystem", "Chassis"), "manager": relations.main_manager[server],
        "managers": relations.managers_of(server),
        "virtual_media": sorted(media.uri for media in scope("VirtualMedia")),
    }
    report["storage"].update(hardware.drives(scope))
    # Controllers that only stand for one NVMe drive each are not adapters.
    serials = {drive["serial"] for drive in report["storage"]["drives"] if isinstance(drive["serial"], str)}
    for controller in report["storage"]["controllers"]:
        controller["is_a_drive"] = isinstance(controller.get("serial"), str) and controller["serial"] in serials
    linked = set(tree.linked(item.get("Links", "Chassis")))
    listed = tree.linked(dig(getattr(tree.find(MANAGERS), "body", None), "Members"))
    outside = [Scope(tree, relations, below=uri) for uri in relations.owned[server] if uri not in linked]
    report["narrow_view_misses"] = {
        "chassis_not_in_system_links": len([uri for uri in relations.owned[server] if uri not in linked]),
        "sensors_outside_linked_chassis": sum(len(scope("Sensor")) for scope in outside),
        "drives_not_in_system_storage": sum("Storage.Drives" not in drive["routes"]
                                            for drive in report["storage"]["drives"]),
        "macs_not_in_system_ethernet": sum(not any(route.startswith("System Ethernet") for route in entry["routes"])
                                           for entry in report["network"]["host_macs"]),
        "sensor_names_not_in_legacy": report["sensors"]["names"]["only_sensor"],
        "legacy_names_without_sensor": report["sensors"]["names"]["only_legacy"],
        "first_manager_is_main": bool(listed) and listed[0] == dig(report["manager"], "uri"),
        "accelerators_on_parts": sum(scope.of_part(entry["at"][0]) for entry in report["processors"]["accelerators"]),
    }
    return report


def system_report(relations, system):
    verdict = relations.verdicts[system.uri]
    entry = pick(system.body, type="SystemType", manufacturer="Manufacturer", model="Model", sku="SKU",
                 part="PartNumber", hostname="HostName", bios="BiosVersion", power="PowerState", health=("Status", "Health"),
                 rollup=("Status", "HealthRollup"), state=("Status", "State"), subtype="SubModel")
    for key in ("model", "manufacturer", "sku", "part"):
        if placeholder(entry.get(key)):
            entry[key] = ident(entry[key])
    uuid = (text(system.get("UUID")) or "").lower()
    if uuid.startswith("00000000-0000-0000-0000-") and not placeholder(uuid):
        entry["uuid_is_a_mac"] = mac(uuid[-12:])
    entry.update(uri=system.uri, id=system.id, uuid=ident(system.get("UUID")),
                 serial=ident(system.get("SerialNumber")), **verdict)
    if system.uri in relations.hosts:
        entry["part_of"], entry["part_reason"] = relations.hosts[system.uri]
    return entry


def report(tree, relations):
    """Everything about a tree, in one document."""
    chassis = []
    for item in relations.chassis:
        scope = Scope(tree, relations, below=item.uri)
        readings = sensors(scope)
        chassis.append(dict(
            pick(item.body, type="ChassisType", manufacturer="Manufacturer", model="Model", part="PartNumber",
                 sku="SKU", health=("Status", "Health")),
            uri=item.uri, id=item.id, serial=ident(item.get("SerialNumber")), uuid=ident(item.get("UUID")),
            servers=sorted(server for server in relations.servers if item.uri in relations.owned[server]),
            shared_by=relations.shared.get(item.uri, []), inside=sorted(relations._parents(item)),
            sensors={key: readings[key] for key in ("sensors", "legacy", "all_routes")},
            power_supplies=len(power_supplies(scope)["present"]), fans=len(fans(scope)["present"]),
            leds=leds(scope, "Chassis")))
    settings = [uri for uri, item in sorted(tree.by_path.items())
                if item.type == "ComputerSystem" and tree.is_settings(uri)]
    whole = Scope(tree, relations)
    servers = [server_report(tree, relations, server) for server in relations.servers]
    serials = collections.defaultdict(list)
    for system in relations.systems:
        serials[usable(system.get("SerialNumber"))].append(system.uri)
    for serial, uris in serials.items():
        if serial and len(uris) > 1:
            tree.note("one serial number on several systems", f"{serial}: {' '.join(uris)}")
    return {
        "systems": [system_report(relations, system) for system in relations.systems],
        "settings_objects_of_systems": settings,
        "servers": servers, "chassis": chassis, "managers": managers(tree, relations), "firmware": firmware(tree),
        "logs": logs(tree, relations), "registries": registries(tree), "accounts": accounts(tree),
        "whole_service": {"sensors": sensors(whole), "power_supplies": len(power_supplies(whole)["present"]),
                          "fans": len(fans(whole)["present"]), "unattributed": unattributed(tree, relations)},
        "tree": {"resources": len(tree.documents), "recorded": tree.recorded,
                 "embedded_only": sum(item.embedded for item in tree.by_path.values()), "pages": len(tree.pages),
                 "types": {kind: len(items) for kind, items in sorted(tree.types.items())},
                 "errors_in_disguise": sorted(tree.errors), "resources_with_error": sorted(tree.partial_errors),
                 "untyped": sorted(tree.untyped), "not_json": sorted(tree.not_json), **tree.link_report()},
        "odd": sorted(tree.odd, key=lambda entry: (entry["what"], entry["where"])),
    }


def unattributed(tree, relations):
    """Things that exist but belong to no server, by type."""
    kinds = ("Processor", "Memory", "Drive", "Volume", "EthernetInterface", "NetworkDeviceFunction", "PCIeDevice",
             "Sensor", "PowerSupply", "Power", "Thermal", "Fan")
    count = {kind: sum(relations.server_for(item.uri) is None for item in tree.all(kind)) for kind in kinds}
    return {kind: size for kind, size in count.items() if size}


# ---------------------------------------------------------------- summary

COLUMNS = (("docs", 6), ("srv", 4), ("part", 5), ("chas", 5), ("own", 4), ("mgr", 4), ("cpu", 4), ("acc", 4),
           ("dimm", 5), ("drive", 6), ("vol", 4), ("ctrl", 5), ("mac", 4), ("bmc", 4), ("pcie", 5), ("func", 5), ("boot", 5),
           ("bios", 5), ("sens", 5), ("num", 5), ("none", 5), ("leg", 5), ("lnum", 5), ("psu", 4), ("fan", 4), ("fw", 4),
           ("logs", 5), ("entry", 6), ("reg", 4), ("dang", 5), ("err", 4))
SUMMARY_HEAD = f"{'tree':<26}" + "".join(f"{name:>{width}}" for name, width in COLUMNS)


def summary(name, found):
    """One line of counts; servers of a tree are added up."""
    servers = found["servers"]

    def add(*keys):
        return sum(len(dig(server, *keys) or []) for server in servers)

    readings = found["whole_service"]["sensors"]
    values = [
        found["tree"]["resources"], len(servers), sum(bool(system.get("part_of")) for system in found["systems"]),
        len(found["chassis"]), add("chassis"), len(found["managers"]),
        add("processors", "cpus"), add("processors", "accelerators"),
        add("memory", "dimms"), add("storage", "drives"), add("storage", "volumes"), add("storage", "controllers"),
        add("network", "host_macs"), add("network", "bmc_macs"), add("pcie", "devices"), add("pcie", "functions"),
        add("boot", "options"),
        sum(entry["count"] for server in servers for entry in server["bios"]),
        readings["sensors"]["total"], readings["sensors"]["numeric"],
        readings["sensors"]["total"] - readings["sensors"]["numeric"],
        readings["legacy"]["total"], readings["legacy"]["numeric"],
        found["whole_service"]["power_supplies"], found["whole_service"]["fans"], len(found["firmware"]["firmware"]),
        len(found["logs"]), sum(entry["entries"] for entry in found["logs"]), len(found["registries"]),
        found["tree"]["dangling"],
        len(found["tree"]["errors_in_disguise"]) + len(found["tree"]["resources_with_error"])]
    return f"{name:<26}" + "".join(f"{value:>{width}}" for value, (_, width) in zip(values, COLUMNS))
