"""Hardware of one server as its Redfish resources report it, counted once however many routes show it."""

import collections
import re

from walk_index import absent, dig, ident, number, pick, plain, rows, squeeze, targets, text, usable

MAC = re.compile(r"[0-9a-f]{12}")
GPU = re.compile(r"\bgpu|nvidia [ahblv]\d|\b[ah][12]00\b|instinct|accelerator", re.I)
SECRET = re.compile(r"password|passwd|hash|salt|secret|\bkey\b", re.I)


# ---------------------------------------------------------------- merging

def merge(items, tree, what):
    """Merge items of one serial number (and of agreeing models) that came by different routes.

    Each item is a dict with "serial", "model", "routes" ([route]) and "at" ([uri]).
    Two members of one collection stay apart even when they share a serial number.
    """
    merged = []
    for item in items:
        serial = usable(item.get("serial") if not isinstance(item.get("serial"), dict) else None)
        twin = None
        for other in merged if serial else ():
            models = {squeeze(item.get("model")), squeeze(other.get("model"))} - {""}
            if other.get("serial") == serial and len(models) < 2:
                folders = {uri.rsplit("/", 1)[0] for uri in other["at"]}
                if item["at"][0].rsplit("/", 1)[0] in folders:
                    tree.note(f"one serial number twice in a collection ({what})", f"{serial}: {item['at'][0]}")
                else:
                    twin = other
        if twin is None:
            merged.append(item)
            continue
        twin["at"] += item["at"]
        twin["routes"] += [route for route in item["routes"] if route not in twin["routes"]]
        for key, value in item.items():
            twin.setdefault(key, value)
    return merged


def tidy(items):
    """Stable order, with routes and paths sorted inside each item."""
    for item in items:
        item["routes"], item["at"] = sorted(item["routes"]), sorted(item["at"])
    return sorted(items, key=lambda item: item["at"])


# ---------------------------------------------------------------- parts of a server

def processors(scope):
    cpus, accelerators, excluded, cores = [], [], 0, 0
    for item in scope("Processor"):
        kind = text(item.get("ProcessorType"))
        if kind in ("Core", "Thread") or "/SubProcessors/" in item.uri:
            cores += 1
            continue
        if absent(item.body):
            excluded += 1
            continue
        entry = pick(item.body, model="Model", socket="Socket", type="ProcessorType", cores="TotalCores",
                     threads="TotalThreads", manufacturer="Manufacturer")
        entry.update(serial=ident(item.get("SerialNumber")), at=[item.uri], routes=["Processor"])
        (accelerators if kind and kind != "CPU" else cpus).append(entry)
    own = [cpu for cpu in cpus if not scope.of_part(cpu["at"][0])]
    for cpu in [cpu for cpu in cpus if scope.of_part(cpu["at"][0])]:
        twins = [other for other in own if other.get("socket") and other.get("socket") == cpu.get("socket")
                 and other.get("model") == cpu.get("model")]
        if len(twins) == 1:  # the same package shown by the host and by its part
            twins[0]["at"] += cpu["at"]
            twins[0]["routes"].append("Processor of a part system")
        else:
            own.append(cpu)
    return {"cpus": tidy(own), "accelerators": tidy(accelerators), "absent": excluded, "subprocessors": cores}


def memory(scope):
    dimms, other, excluded = [], [], 0
    for item in scope("Memory"):
        capacity = item.get("CapacityMiB")
        if absent(item.body) or not capacity or (number(capacity) and capacity <= 0):
            excluded += 1
            continue
        if not number(capacity):
            scope.tree.note("capacity is no number", f"{item.uri}: {capacity!r}")
        entry = pick(item.body, part="PartNumber", type="MemoryDeviceType", model="Model", slot="DeviceLocator")
        entry.setdefault("slot", text(item.get("Location", "PartLocation", "ServiceLabel")) or item.id)
        entry.update(serial=ident(item.get("SerialNumber")), capacity_mib=capacity, at=[item.uri], routes=["Memory"])
        kind = (text(item.get("MemoryDeviceType")) or "").upper()
        holder = other if kind.startswith("HBM") or scope.of_part(item.uri) else dimms
        holder.append(entry)
    dimms = merge(dimms, scope.tree, "memory")
    return {"dimms": tidy(dimms), "accelerator_memory": tidy(other), "absent_or_empty": excluded}


def drives(scope):
    tree = scope.tree
    by_storage = {uri for item in tree.all("Storage") for uri in tree.linked(item.get("Drives"))}
    by_chassis = {uri for item in tree.all("Chassis") for uri in tree.linked(item.get("Links", "Drives"))}
    found, excluded, virtual, oddities = [], 0, [], []
    for item in scope("Drive", "HpeSmartStorageDiskDrive"):
        if absent(item.body):
            excluded += 1
            continue
        entry = pick(item.body, model="Model", media="MediaType", protocol="Protocol", name="Name")
        routes = ["Storage.Drives"] if item.uri in by_storage else []
        routes += ["Chassis.Links.Drives"] if item.uri in by_chassis else []
        routes += ["Chassis Drives collection"] if tree.home(item.uri, ("Chassis",)) else []
        routes += ["OEM SmartStorage"] if item.type.startswith("Hpe") else []
        capacity = item.get("CapacityBytes")
        entry.update(serial=ident(item.get("SerialNumber")), at=[item.uri], routes=routes or ["Drive"])
        if number(capacity):
            entry["capacity_bytes"] = capacity
        found.append(entry)
    found = merge(sorted(found, key=lambda item: (item["routes"] == ["OEM SmartStorage"], item["at"])), tree, "drive")
    taken = set()
    for storage in scope("SimpleStorage"):
        for index, device in enumerate(rows(storage.get("Devices"))):
            uri, name, model = f"{storage.uri}#/Devices/{index}", text(device.get("Name")), squeeze(device.get("Model"))
            if absent(device):
                excluded += 1
                continue
            if re.search(r"backplane|enclosure", name or "", re.I) and not device.get("CapacityBytes"):
                oddities.append(uri)
                continue
            twins = [item for item in found if id(item) not in taken and item["routes"] != ["SimpleStorage"] and (
                item["at"][0].rsplit("/", 1)[-1] == name
                or (model and squeeze(item.get("model")) == model
                    and device.get("CapacityBytes") in (None, item.get("capacity_bytes"))))]
            if twins:
                taken.add(id(twins[0]))
                twins[0]["at"].append(uri)
                twins[0]["routes"].append("SimpleStorage")
                extra = pick(device, model="Model", name="Name")
                if number(device.get("CapacityBytes")):
                    extra["capacity_bytes"] = device["CapacityBytes"]
                for key, value in extra.items():
                    twins[0].setdefault(key, value)
                continue
            entry = pick(device, model="Model", name="Name")
            if number(device.get("CapacityBytes")):
                entry["capacity_bytes"] = device["CapacityBytes"]
            entry.update(serial=None, at=[uri], routes=["SimpleStorage"])
            found.append(entry)
    for item in list(found):
        if re.search(r"^virtual|virtual (cdrom|hdisk|floppy|media)", item.get("model") or "", re.I):
            virtual.append(item)
            found.remove(item)
        elif not item.get("model") and not usable(item["serial"] if isinstance(item["serial"], str) else None):
            tree.note("drive without model and serial number", item["at"][0])
    for uri in oddities:
        tree.note("SimpleStorage device that is no drive", uri)
    return {"drives": tidy(found), "virtual_drives": tidy(virtual), "absent": excluded}


def storage(scope):
    controllers, volumes = [], []
    for item in scope("Volume"):
        entry = pick(item.body, name="Name", raid="RAIDType", volume_type="VolumeType", capacity_bytes="CapacityBytes")
        entry.update(at=[item.uri], routes=["Volume"])
        volumes.append(entry)
    for item in scope("HpeSmartStorageLogicalDrive"):
        sizes = [int(volume["capacity_bytes"]) // 2**20 for volume in volumes
                 if volume.get("capacity_bytes", "").isdigit()]
        own = item.get("CapacityMiB") if number(item.get("CapacityMiB")) else 0
        if not any(abs(size - own) < 64 for size in sizes):
            entry = pick(item.body, name="LogicalDriveName", raid="Raid")
            entry.update(at=[item.uri], routes=["OEM SmartStorage"])
            volumes.append(entry)
    for item in scope("StorageController", "HpeSmartStorageArrayController"):
        entry = pick(item.body, model="Model", name="Name", firmware="FirmwareVersion")
        route = "OEM SmartStorage" if item.type.startswith("Hpe") else "Controllers"
        entry.update(serial=ident(item.get("SerialNumber")), at=[item.uri], routes=[route])
        controllers.append(entry)
    controllers = merge(controllers, scope.tree, "storage controller")
    for item in scope("Storage"):
        for index, body in enumerate(rows(item.get("StorageControllers"))):
            entry = pick(body, model="Model", name="Name", firmware="FirmwareVersion")
            place = f"{item.uri}#/StorageControllers/{index}"
            entry.update(serial=ident(body.get("SerialNumber")), at=[place], routes=["inline"])
            twins = [other for other in controllers if any(uri.startswith(item.uri + "/") for uri in other["at"])
                     and "inline" not in other["routes"]
                     and squeeze(other.get("model")) in ("", squeeze(entry.get("model")))]
            if twins:
                twins[0]["at"] += entry["at"]
                twins[0]["routes"].append("inline")
            else:
                controllers.append(entry)
    return {"controllers": tidy(controllers), "volumes": tidy(volumes), "subsystems": len(scope("Storage"))}


# ---------------------------------------------------------------- network

def mac(value):
    """MAC as lower case with colons; None for anything else, for zeros and for broadcast."""
    bare = re.sub(r"[:\-. ]", "", (text(value) or "").lower())
    if not MAC.fullmatch(bare) or len(set(bare)) == 1:
        return None
    return ":".join(bare[at:at + 2] for at in range(0, 12, 2))


def local(value):
    """True for a locally administered address, as virtual interfaces have."""
    found = mac(value)
    return bool(found) and bool(int(found[:2], 16) & 2)


class Macs:
    """MAC addresses with the routes by which each was seen."""

    def __init__(self, tree):
        self.tree, self.routes = tree, collections.defaultdict(set)

    def add(self, value, route, where):
        found = mac(value)
        if found:
            self.routes[found].add(route)
        elif text(value) and squeeze(value).strip("0f"):
            self.tree.note("address that is no MAC", f"{where}: {text(value)}")

    def listing(self):
        return [{"mac": key, "routes": sorted(self.routes[key])} for key in sorted(self.routes)]


def network(scope):
    tree = scope.tree
    host, bmc, bridge = Macs(tree), Macs(tree), Macs(tree)
    bmc_side = {uri for item in tree.all("HostInterface") for uri in tree.linked(item.get("ManagerEthernetInterface"))}
    for item in scope("EthernetInterface"):
        home = tree.home(item.uri, ("ComputerSystem", "Manager", "Chassis"))
        of_manager = home is not None and home.type == "Manager"
        named = re.search(r"tomanager|tohost|hostusb|^usb\d", item.id, re.I) or item.get("Links", "HostInterface")
        # Some services name their only real port as the host interface: its address is then a universal one.
        if "/HostInterfaces/" in item.uri or named or (item.uri in bmc_side and local(item.get("MACAddress"))):
            side = "BMC" if of_manager and "/HostInterfaces/" not in item.uri else "host"
            table, route = bridge, f"host interface, {side} side"
        else:
            table = bmc if of_manager else host
            route = "Manager EthernetInterface" if of_manager else "System EthernetInterface"
        table.add(item.get("MACAddress"), route, item.uri)
        table.add(item.get("PermanentMACAddress"), route + " (permanent)", item.uri)
        first, second = mac(item.get("MACAddress")), mac(item.get("PermanentMACAddress"))
        if first and second and first != second:
            tree.note("MAC differs from the permanent one", f"{item.uri}: {first} {second}")
    for item in scope("NetworkDeviceFunction"):
        for key in ("MACAddress", "PermanentMACAddress"):
            host.add(item.get("Ethernet", key), "NetworkDeviceFunction", item.uri)
    for item in scope("Port", "NetworkPort"):
        home = tree.home(item.uri, ("Manager", "Chassis", "ComputerSystem"))
        table = bmc if home is not None and home.type == "Manager" else host
        for key in (("AssociatedMACAddresses",), ("AssociatedNetworkAddresses",),
                    ("Ethernet", "AssociatedMACAddresses")):
            for value in plain(item.get(*key)):
                table.add(value, item.type, item.uri)
    for item in scope("HpeBaseNetworkAdapter"):
        for port in rows(item.get("PhysicalPorts")):
            host.add(port.get("MacAddress"), "OEM BaseNetworkAdapter", item.uri)
    for item in scope("BootOption"):
        for value in macs_in_option(item):
            host.add(value, "BootOption", item.uri)
    for item in scope("Bios"):
        attributes = item.get("Attributes")
        for name, value in sorted(attributes.items() if isinstance(attributes, dict) else ()):
            about = "mac" in name.lower() and "virtual" not in name.lower()
            if about and isinstance(value, str) and ":" in value and mac(value):
                host.add(value, "BIOS attribute", item.uri)
    for key in sorted(host.routes):
        if host.routes[key] == {"BootOption"} and local(key):  # the USB network card that a BMC offers its host
            bridge.routes[key].add("BootOption, locally administered")
            del host.routes[key]
    for key in sorted(set(host.routes) & (set(bmc.routes) | set(bridge.routes))):
        only = host.routes[key] <= {"BootOption", "BIOS attribute"}
        if not only:
            tree.note("MAC on the host and on the BMC", key)
        else:
            del host.routes[key]
    functions = [item.uri for item in scope("NetworkDeviceFunction")]
    return {"host_macs": host.listing(), "bmc_macs": bmc.listing(), "host_interface_macs": bridge.listing(),
            "network_device_functions": len(functions), "adapters": sorted(
                (dict(pick(item.body, model="Model", manufacturer="Manufacturer", part="PartNumber"),
                      serial=ident(item.get("SerialNumber")), uri=item.uri) for item in scope("NetworkAdapter")),
                key=lambda entry: entry["uri"])}


def macs_in_option(item):
    """MAC addresses in the device path or in the display name of a boot option."""
    path, name = text(item.get("UefiDevicePath")) or "", text(item.get("DisplayName")) or ""
    found = re.findall(r"MAC\(([0-9A-Fa-f]{12})", path) + re.findall(r"MAC:([0-9A-Fa-f]{12})", name)
    found += re.findall(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])", name)
    return sorted({mac(value) for value in found} - {None})


# ---------------------------------------------------------------- PCIe, boot, BIOS

def hexadecimal(value):
    """A PCI id as 0x and four or more digits, whether reported as text or as a number."""
    if number(value):
        return f"0x{int(value):04x}"
    value = text(value)
    return value.lower() if value else None


def pcie(scope):
    devices, functions, oem = {}, {}, []
    for kind, table in (("PCIeDevice", devices), ("PCIeFunction", functions)):
        for item in scope(kind):
            below = re.sub(r"^.*/PCIeDevices/", "", item.uri)
            chassis = scope.tree.home(item.uri, ("Chassis", "ComputerSystem"))
            seen = [key for key in table if key[0] == below and key[1] != (chassis.type if chassis else None)]
            key = seen[0] if seen else (below, chassis.type if chassis else None, item.uri)
            if kind == "PCIeDevice":
                entry = pick(item.body, name="Name", model="Model", manufacturer="Manufacturer",
                             state=("Status", "State"))
                entry["serial"] = ident(item.get("SerialNumber"))
            else:
                entry = {short: hexadecimal(item.get(name)) for short, name in (
                    ("vendor", "VendorId"), ("device", "DeviceId"), ("class", "ClassCode"))}
                entry["device_class"] = text(item.get("DeviceClass"))
            table.setdefault(key, dict(entry, at=[], routes=[]))
            table[key]["at"].append(item.uri)
            table[key]["routes"] += [] if not chassis or chassis.type in table[key]["routes"] else [chassis.type]
    for item in scope("HpeServerPciDevice"):
        oem.append({"name": text(item.get("Name")), "vendor": hexadecimal(item.get("VendorID")), "at": item.uri,
                    "device": hexadecimal(item.get("DeviceID")), "class": hexadecimal(item.get("ClassCode"))})
    listed = tidy(list(functions.values()))
    known = [entry for entry in listed if re.sub(r"^0x0*$", "", entry["vendor"] or "")]
    standard = [f"{item.id} {item.get('Name')} {item.get('Model')}" for item in scope("PCIeDevice")]
    gpus = [sum(bool(GPU.search(name)) for name in names)
            for names in (standard, [entry["name"] or "" for entry in oem])]
    return {"devices": tidy(list(devices.values())), "functions": listed, "functions_with_vendor": len(known),
            "gpu_like_devices": max(gpus), "oem_devices": oem}


def boot(scope, server):
    body = scope.tree.find(server).body
    options = [{"id": item.id, "reference": text(item.get("BootOptionReference")), "at": item.uri,
                "name": text(item.get("DisplayName")), "enabled": item.get("BootOptionEnabled"),
                "macs": macs_in_option(item)} for item in scope("BootOption")]
    order = [value for value in plain(dig(body, "Boot", "BootOrder")) if isinstance(value, str)]
    references = {option["reference"] or option["id"] for option in options}
    enough = bool(options)
    return {"options": options, "order": order,
            "order_without_option": [value for value in order if enough and value not in references],
            "options_outside_order": sorted(references - set(order)) if order else [],
            "override": pick(dig(body, "Boot"), target="BootSourceOverrideTarget", enabled="BootSourceOverrideEnabled",
                             mode="BootSourceOverrideMode")}


def secure_boot(scope):
    return [dict(pick(item.body, current="SecureBootCurrentBoot", mode="SecureBootMode"),
                 enabled=item.get("SecureBootEnable"), at=item.uri) for item in scope("SecureBoot")]


def trusted_modules(scope):
    found = [dict(pick(body, type="InterfaceType", firmware="FirmwareVersion", state=("Status", "State")),
                  route="TrustedModules")
             for uri in scope.family for body in rows(scope.tree.find(uri).get("TrustedModules"))]
    found += [dict(pick(item.body, type="TrustedComponentType", model="Model", firmware="FirmwareVersion"),
                   at=item.uri, serial=ident(item.get("SerialNumber")), route="TrustedComponent")
              for item in scope("TrustedComponent")]
    return found


def bios(scope):
    """BIOS attributes and the registry found by name, by registry file, or by attribute names."""
    tree, found = scope.tree, []
    for item in scope("Bios"):
        attributes = item.get("Attributes") if isinstance(item.get("Attributes"), dict) else {}
        shown = {key: "(redacted)" if SECRET.search(key) and isinstance(value, str) and value else value
                 for key, value in attributes.items()}
        name, match, registry = text(item.get("AttributeRegistry")), "none", None
        overlaps = {}
        for other in tree.all("AttributeRegistry"):
            names = {text(row.get("AttributeName")) for row in rows(other.get("RegistryEntries", "Attributes"))}
            overlaps[other.uri] = len(names & set(attributes))
            if name and (text(other.get("Id")) or "").lower() == name.lower() and registry is None:
                registry, match = other, "Id equals Bios.AttributeRegistry"
        if registry is None and name:
            for other in tree.all("MessageRegistryFile"):
                if name.lower() in ((text(other.get("Id")) or "").lower(), (text(other.get("Registry")) or "").lower()):
                    places = [tree.find(row.get("Uri")) for row in rows(other.get("Location"))]
                    registry = next((place for place in places if place is not None), None)
                    match = "through its MessageRegistryFile" if registry else "its MessageRegistryFile leads nowhere"
        if registry is None and attributes and overlaps:
            best = max(sorted(overlaps), key=lambda uri: overlaps[uri])
            if overlaps[best] * 2 >= len(attributes):
                registry, match = tree.find(best), "by its attribute names"
        entry = {"at": item.uri, "count": len(attributes), "nulls": sum(value is None for value in attributes.values()),
                 "attributes": shown, "registry_named": name, "registry_match": match,
                 "settings_object": next(iter(targets(item.get("@Redfish.Settings", "SettingsObject"))), None)}
        if registry is not None:
            entry["registry_at"] = registry.uri
            entry["registry_entries"] = len(rows(registry.get("RegistryEntries", "Attributes")))
            entry["attributes_in_registry"] = overlaps.get(registry.uri, 0)
        found.append(entry)
    return found
