#!/usr/bin/env python3
"""Hold what the gateway tells of a BMC against what the independent walker finds in the same tree.

Usage:
    completeness.py TREE DUMP.json

TREE is a recorded tree, as `walk.py` takes it. DUMP.json holds what the gateway answered while it read that tree:
messages of its contract in their protobuf JSON form, named by their methods. `ListAccounts` and `ListFirmware`
stand at the top; `systems` maps the id of a system to its `GetManager`, `GetHardware`, `GetSystem`, `GetBios`,
`GetBiosRegistry`, `GetSensors`, `ListLogs`, `ListVolumes`, and `ReadLog` by the path of the log. A call that failed
is `{"error": ...}`.

First come the counts, `# tree server: class: walker/gateway`; then a line for each difference, with tabs between:
class, server, `lack` (the walker has it, the gateway does not), `extra` (the other way round) or `differ` (other
values), what, @odata.id, and the class of the cause, as far as tree and contract tell it. The exit code is 0
whatever is found: whose mistake a difference is, a person has to say.
"""

import argparse
import collections
import json
import os
import pathlib

import facts
import walk
from walk_hardware import SECRET, mac
from walk_index import Tree, dig, normal, number, plain, rows, squeeze, text, usable
from walk_servers import Relations

# What no message of the contract has a field for.
NO_FIELD = {"other manager", "InfiniBand function"}
# What the contract calls the parts that the walker has a list for.
PARTS = {"TPM": ("TPM",), "accelerator memory": ("AcceleratorMemory",), "storage controller": ("StorageController",),
         "power supply": ("PowerSupply",), "network adapter": ("NetworkAdapter",)}
IDENTITY = "serial:serialNumber manufacturer model uuid:systemUuid sku bios:biosVersion hostname:hostName"
ROWS = {"Thermal": (("Temperatures", ("ReadingCelsius",)), ("Fans", ("Reading", "ReadingRPM"))),
        "Power": (("Voltages", ("ReadingVolts",)), ("PowerControl", ("PowerConsumedWatts",)), ("PowerSupplies", (
            "LastPowerOutputWatts", "LineInputVoltage", "PowerInputWatts", "PowerOutputWatts")))}


def known(value):
    """Comparable text of a value; None for nothing, for zero and for placeholders."""
    value = text(value) or "0"
    return None if value == "0" else value if value.isdigit() else (usable(value) or "").lower() or None


def place(row):
    """Path of something that the walker found; what the gateway shows has none, or one of its own."""
    return row["at"][0] if isinstance(row.get("at"), list) else row.get("at") or row.get("uri") or ""


def ident(row):
    return row.get("id")


def pci_id(value):
    return (value or "").lower().removeprefix("0x").zfill(4)


def reading(name, value):
    """What makes two readings one: the name without spelling, and the value."""
    # A power supply is one row of three readings there, and three rows here.
    for what in (" line input", " input", " output"):
        name = name.removesuffix(what)
    return squeeze(name), round(float(value), 1)


class Comparison:
    """The differences of one tree."""

    def __init__(self, path, dump):
        self.tree = Tree(*walk.load(path))
        self.relations = Relations(self.tree)
        self.report = facts.report(self.tree, self.relations)
        self.dump, self.counts, self.found = dump, [], []
        self.server, self.name, self.scope = None, "(service)", None

    def add(self, kind, side, what, uri, reason=None):
        self.found.append((kind, self.name, side, what, uri, reason or self.why(kind, uri)))

    def match(self, kind, theirs, key, ours=(), my_key=None, fields="", what=lambda row, key: key):
        """Pair the objects of both sides by their keys; note what is left, and which fields (`theirs:mine`) differ."""
        self.counts.append((self.name, kind, len(theirs), len(ours)))
        left = collections.defaultdict(list)
        for row in ours:
            left[my_key(row)].append(row)
        for row in theirs:
            pair = left[key(row)].pop(0) if left[key(row)] else None
            if pair is None:
                self.add(kind, "lack", what(row, key(row)), place(row))
            for name, _, mine in [field.partition(":") for field in fields.split()] if pair is not None else ():
                value, mine = row.get(name), pair.get(mine or name)
                if known(value) != known(mine):
                    side = "lack" if known(mine) is None else "extra" if known(value) is None else "differ"
                    self.add(f"{kind}: {name}", side, f"{key(row)}: {value!r} / {mine!r}", place(row), "one property")
        for mine, row in [(mine, row) for mine, some in left.items() for row in some]:
            about = " ".join(str(row[name]) for name in ("name", "model", "uri") if row.get(name))
            twice = mine in map(key, theirs)
            self.add(kind, "extra", f"{mine} {about}", "", "shown twice" if twice else "the walker does not count it")

    def why(self, kind, uri):
        """The class of the cause that something is not shown."""
        if kind in NO_FIELD:
            return "no field in the contract"
        tree, path, family = self.tree, normal(uri), self.relations.family(self.server) if self.server else []
        chassis, found, above = tree.home(path, ("Chassis",)), tree.find(path), tree.find(path.rsplit("/", 1)[0])
        if any(path.startswith(part + "/") for part in family[1:]):
            return "below a part system"
        if chassis and family and chassis.uri not in tree.linked(tree.find(self.server).get("Links", "Chassis")):
            return "chassis is not in the system's Links.Chassis"
        if found and "#" not in uri and above and isinstance(above.get("Members"), list) and (
                found.uri not in tree.linked(above.get("Members"))):
            return "not a member of its collection"
        if found and chassis and kind == "sensor":
            old = [kind for kind in ROWS if tree.linked(chassis.get(kind))]
            if found.type == "Sensor":
                return f"Sensors are not read beside {' and '.join(old)}" if old else "Sensors are not read"
            return "a property that is not read" if found.type in ROWS else f"{found.type} is not read"
        return f"{found.type if found else 'it'} is not read, or left out"

    def compare(self):
        for system in self.report["systems"]:
            if system["uri"] not in self.relations.servers and system["id"] in self.dump["systems"]:
                self.add("system", "extra", system["id"], system["uri"], f"no server: {system['reason']}")
        for found in self.report["servers"]:
            self.server = found["uri"]
            system = next(row for row in self.report["systems"] if row["uri"] == self.server)
            self.name, self.scope = system["id"], facts.Scope(self.tree, self.relations, self.server)
            answers = self.dump["systems"].get(self.name)
            if answers is None:
                self.add("system", "lack", self.name, self.server, "the system is not listed")
                continue
            for method in [name for name, answer in answers.items() if "error" in answer]:
                self.add("call", "lack", f"{method}: {answers[method]['error']}", self.server, "the call fails")
            hardware = answers["GetHardware"]
            self.match("identity", [system], lambda row: "system", [hardware], lambda row: "system", IDENTITY)
            self.hardware(found, hardware)
            self.parts(found, hardware)
            self.network(found["network"], hardware.get("networkInterfaces", []))
            self.readings(answers["GetSensors"])
            self.logs(answers)
            self.bios(found, answers["GetBios"].get("attributes", {}), answers["GetBiosRegistry"].get("attributes", {}))
            self.system(found, answers["GetSystem"], answers["ListVolumes"].get("volumes", []))
        self.server, self.name = None, "(service)"
        firmware, components = self.report["firmware"], self.dump["ListFirmware"].get("components", [])
        self.match("firmware", firmware["firmware"] + firmware["software"] + firmware["elsewhere"], ident,
                   components, ident, "version name")
        named = [{"id": row.id, "at": row.uri} for row in self.tree.all("ManagerAccount") if text(row.get("UserName"))]
        self.match("account", named, ident, self.dump["ListAccounts"].get("accounts", []), ident)

    def hardware(self, found, mine):
        socket = lambda row: squeeze(row.get("socket") or self.tree.find(place(row)).id)
        self.match("CPU", found["processors"]["cpus"], socket,
                   mine.get("processors", []), socket, "model cores threads manufacturer")
        dimm = lambda row: known(row.get("serial") or row.get("serialNumber")) or squeeze(row.get("slot"))
        self.match("DIMM", found["memory"]["dimms"], dimm, mine.get("memoryModules", []), dimm,
                   "part:partNumber capacity_mib:capacityMib")
        names = {}  # what the gateway calls a drive, to what the walker calls it
        for row in found["storage"]["drives"] + found["storage"]["virtual_drives"]:
            names.update({((at.split("#")[0], row.get("name")) if "#" in at else at): place(row) for at in row["at"]})
        uri = lambda row: self.tree.same(row.get("uri"))
        self.match("drive", found["storage"]["drives"], place, mine.get("drives", []),
                   lambda row: names.get(uri(row)) or names.get((uri(row), row.get("name"))) or uri(row),
                   "serial:serialNumber model media:mediaType protocol capacity_bytes:capacityBytes")
        there = [row for row in found["pcie"]["devices"] if (row.get("state") or "").lower() != "absent"]
        devices = mine.get("pciDevices", [])
        # The functions of one device are rows of one address.
        whole = {row.get("address", "").split("/")[0].lower(): row for row in devices}
        self.match("PCI device", there, lambda row: place(row).rsplit("/", 1)[-1].lower(),
                   list(whole.values()), lambda row: row.get("address", "").split("/")[0].lower())
        functions = [row for row in found["pcie"]["functions"] if pci_id(row["vendor"]).strip("0")]
        for row in functions:
            # HPE's iLO 5 writes ids in decimal; a vendor beyond four hex digits, or of its own machines, tells.
            if any(str(row["vendor"]) in ("32902", "36869", "4139", "5555") for row in functions):
                row.update({key: f"0x{int(row[key]):04x}" for key in ("vendor", "device") if str(row[key]).isdigit()})
        self.match("PCI function", functions or found["pcie"]["oem_devices"],
                   lambda row: f"{pci_id(row['vendor'])}:{pci_id(row['device'])}",
                   [row for row in devices if row.get("vendorId")], lambda row: row["vendorId"] + ":" + row.get("deviceId", "0000"))

    def parts(self, found, mine):
        """What stands in the list of parts, by kind and path; and what no message can carry."""
        # A part is known by its serial number; some are shown by an old document and by a new one.
        uri = lambda row: (known(row.get("serial") or row.get("serialNumber")) or normal(place(row)).lower()).lower()
        tpms = [dict(row, uri=row.get("uri") or f"{self.server}#/TrustedModules/{n}") for n, row in enumerate(found["tpm"])]
        lists = {"TPM": tpms, "accelerator memory": found["memory"]["accelerator_memory"],
                 "storage controller": [row for row in found["storage"]["controllers"] if not row["is_a_drive"]],
                 "power supply": found["power_supplies"]["present"], "network adapter": found["network"]["adapters"],
                 "accelerator": found["processors"]["accelerators"]}
        named = {kind for kinds in PARTS.values() for kind in kinds} | {"Chassis", "PCIeDevice"}
        for kind, listed in lists.items():
            ours = [row for row in mine.get("parts", [])
                    if (row["kind"] in PARTS[kind] if kind in PARTS else row["kind"] not in named)]
            self.match(kind, listed, uri, ours, uri, "serial:serialNumber model")
        fabric = [{"uri": row.uri, "serial": row.get("InfiniBand", "PermanentPortGUID")}
                  for row in self.scope("NetworkDeviceFunction") if text(row.get("InfiniBand", "PermanentPortGUID"))]
        for kind, listed in (
                ("InfiniBand function", fabric),
                ("other manager", [{"uri": uri, "name": uri} for uri in (found["manager"] or {}).get("others", [])])):
            self.match(kind, listed, lambda row: " ".join(
                str(row[name]) for name in ("type", "slot", "model", "name", "serial") if row.get(name)))

    def network(self, found, mine):
        by_mac, where = {mac(row["macAddress"]): row for row in mine}, {}
        for entry in self.scope("EthernetInterface", "NetworkDeviceFunction", "Port", "NetworkPort", "BootOption"):
            flat = squeeze(json.dumps(entry.body))
            for row in [row for row in found["host_macs"] if squeeze(row["mac"]) in flat]:
                where.setdefault(row["mac"], entry.uri)
        self.match("MAC", [dict(row, at=where.get(row["mac"])) for row in found["host_macs"]], lambda row: row["mac"],
                   mine, lambda row: mac(row["macAddress"]), what=lambda row, key: f"{key} {row['routes']}")
        links, neighbours = [], []
        for port in self.scope("Port", "NetworkPort"):
            listed = plain(port.get("Ethernet", "AssociatedMACAddresses") or port.get("AssociatedNetworkAddresses"))
            row = next((by_mac[mac(value)] for value in listed if mac(value) in by_mac), {})
            up = (text(port.get("LinkStatus")) or "").lower() in ("up", "linkup")
            speed = port.get("CurrentSpeedGbps") or port.get("CurrentLinkSpeedMbps")
            if row and (up and not row.get("linkUp") or speed and not row.get("speedMbps")):
                links.append({"key": f"{row['macAddress']} up {up} speed {speed}", "uri": port.uri})
            heard = dig(port.body, "Ethernet", "LLDPReceive") or {}
            if text(heard.get("ChassisId")) and not row.get("neighbors"):
                neighbours.append({"key": f"{heard['ChassisId']} {heard.get('PortId')}", "uri": port.uri})
        self.match("NIC link", links, lambda row: row["key"])
        self.match("NIC neighbour", neighbours, lambda row: row["key"])

    def readings(self, mine):
        theirs, powers = {}, []
        for entry in self.scope("Sensor"):
            if number(entry.get("Reading")):
                theirs[entry.uri] = reading(entry.get("Name") or entry.id, entry.get("Reading"))
        own = set(theirs.values())
        for entry in self.scope(*ROWS):
            for group, keys in ROWS[entry.type]:
                for index, row in enumerate(rows(entry.get(group))):
                    name = row.get("Name") or row.get("FanName") or row.get("MemberId")
                    for key in [key for key in keys if number(row.get(key))]:
                        at = f"{entry.uri}#/{group}/{index}/{key}"
                        if group == "PowerControl" and index == 0:
                            powers.append((row[key], at))
                        elif reading(name, row[key]) not in own:
                            theirs[at] = reading(name, row[key])
        for entry in self.scope("EnvironmentMetrics"):
            watts, above = entry.get("PowerWatts", "Reading"), entry.uri.rsplit("/", 1)[0]
            powers += [(watts, entry.uri)] if number(watts) and above in self.relations.owned[self.server] else []
        self.match("sensor", [{"at": at, "key": key} for at, key in theirs.items()], lambda row: row["key"],
                   [row for row in mine.get("sensors", []) if "reading" in row],
                   lambda row: reading(row["name"], row["reading"]))
        watts = mine.get("powerWatts")
        self.counts.append((self.name, "power", sorted({value for value, _ in powers}), watts))
        if powers and (watts is None or not any(abs(watts - value) < 1 for value, _ in powers)):
            self.add("power", "lack" if watts is None else "differ", f"{powers[0][0]} / {watts}", powers[0][1])

    def logs(self, answers):
        sizes = {self.tree.same(uri): len(log.get("entries", [])) for uri, log in answers["ReadLog"].items()}
        theirs = [row for row in self.report["logs"] if row["server"] == self.server]
        ours = [{"at": self.tree.same(row["uri"]), "size": sizes.get(self.tree.same(row["uri"]))}
                for row in answers["ListLogs"].get("logs", [])]
        self.match("log", theirs, place, ours, place, "entries_seen:size")
        self.counts.append((self.name, "log entry", sum(row["entries_seen"] for row in theirs), sum(sizes.values())))

    def bios(self, found, mine, registry):
        for row in found["bios"]:
            for name, value in row["attributes"].items():
                if value in (None, "(redacted)"):
                    continue
                value, shown = json.dumps(value) if isinstance(value, bool) else str(value).strip(), mine.get(name)
                if shown is None:
                    self.add("BIOS attribute", "lack", f"{name} = {value[:60]}", row["at"],
                             "withheld as a secret" if SECRET.search(name) else None)
                elif value != shown:
                    self.add("BIOS attribute", "differ", f"{name}: {len(value)} / {len(shown)} characters", row["at"],
                             "cut short" if value.startswith(shown) else "another value")
            self.counts.append((self.name, "BIOS attribute", row["count"], len(mine)))
            self.counts.append((self.name, "BIOS registry", row.get("registry_entries", 0), len(registry)))
            if row.get("registry_entries") and not registry:
                self.add("BIOS registry", "lack", f"{row['registry_entries']} entries, {row['registry_match']}; named "
                         f"{row['registry_named']!r} by Bios", row["registry_at"], "its name is not found")

    def system(self, found, mine, volumes):
        # Some show a drive below the system and below its manager.
        media = {self.tree.find(uri).id: {"uri": uri, "id": self.tree.find(uri).id} for uri in found["virtual_media"]}
        self.match("virtual media", list(media.values()), ident, mine.get("virtualDrives", []), ident)
        options = [dict(row, mac=next(iter(row["macs"]), None)) for row in found["boot"]["options"]]
        self.match("boot option", options, lambda row: row["reference"] or row["id"], mine.get("bootOptions", []),
                   lambda row: row.get("reference"), "mac:macAddress name:displayName")
        if found["boot"]["order"] != mine.get("bootOrder", []):
            self.add("boot order", "differ", f"{found['boot']['order']} / {mine.get('bootOrder')}", self.server)
        for entry in map(self.tree.find, found["virtual_media"]):
            images = [row.get("image") for row in mine.get("virtualDrives", [])]
            if entry.get("Inserted") and text(entry.get("Image")) not in [None, *images]:
                self.add("inserted image", "lack", f"{entry.get('MediaTypes')} {entry.get('Image')}", entry.uri)
        lights = {row["at"]: row.get("LocationIndicatorActive", row.get("IndicatorLED")) for row in found["leds"]}
        for uri, lit in lights.items():
            mistaken = mine.get("indicatorLed") != (lit in (True, "Lit", "Blinking"))
            if mistaken and lit not in (None, "Unknown") and (uri == self.server or self.server not in lights):
                self.add("LED", "differ", f"{lit} / {mine.get('indicatorLed')}", uri)
        self.match("volume", found["storage"]["volumes"], lambda row: place(row).rsplit("/", 1)[-1], volumes, ident)
        main, chosen = found["manager"], self.dump["systems"][self.name]["GetManager"].get("id")
        self.counts.append((self.name, "manager", main and main["uri"].rsplit("/", 1)[-1], chosen))
        if main and self.tree.find(main["uri"]).id != chosen:
            self.add("manager", "differ", f"{main['uri']} / {chosen}", main["uri"], "another manager")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tree")
    parser.add_argument("dump")
    options = parser.parse_args()
    comparison = Comparison(options.tree, json.loads(pathlib.Path(options.dump).read_text(encoding="utf-8")))
    comparison.compare()
    for server, kind, theirs, ours in comparison.counts:
        print(f"# {os.path.basename(options.tree)} {server}: {kind}: {theirs}/{ours}")
    for row in sorted(comparison.found, key=str):
        print("\t".join(str(cell) for cell in row))


if __name__ == "__main__":
    main()
