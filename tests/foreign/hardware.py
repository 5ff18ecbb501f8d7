"""The machine as delivered: builds the initial state of a personality.

The state is plain JSON so that the control channel can show and patch all of it.
"""

from __future__ import annotations

import hashlib
import time

from personality import Personality, Storage, System

GIB = 1024**3

# name, type of value, default, allowed values or (lower, upper)
BIOS_ATTRIBUTES = (
    ("BootMode", "Enumeration", "Uefi", ("Uefi", "Bios")),
    ("ProcVirtualization", "Enumeration", "Enabled", ("Enabled", "Disabled")),
    ("LogicalProc", "Enumeration", "Enabled", ("Enabled", "Disabled")),
    ("SriovGlobalEnable", "Enumeration", "Disabled", ("Enabled", "Disabled")),
    ("SysProfile", "Enumeration", "PerfPerWatt", ("PerfPerWatt", "PerfOptimized", "Custom")),
    ("SerialComm", "Enumeration", "Off", ("Off", "OnConRedirCom1", "OnConRedirCom2")),
    ("PxeDev1EnDis", "Enumeration", "Enabled", ("Enabled", "Disabled")),
    ("HttpDev1EnDis", "Enumeration", "Disabled", ("Enabled", "Disabled")),
    ("HttpDev1Uri", "String", "", (0, 255)),
    ("AcPwrRcvryUserDelay", "Integer", 120, (60, 600)),
    ("AssetTag", "String", "", (0, 63)),
    ("SystemServiceTag", "String", "READONLY", None),
)


def token(*parts: object, length: int = 12) -> str:
    """A stable made-up identifier."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:length]


def mac(personality: Personality, system: System, number: int) -> str:
    """A stable locally meaningless MAC address in the family's letter case."""
    digits = "3c" + token(personality.name, system.id, "mac", length=8) + f"{number:02x}"
    text = ":".join(digits[i : i + 2] for i in range(0, 12, 2))
    return text.upper() if personality.mac_upper else text


def build_system(p: Personality, system: System) -> dict:
    """State of one ComputerSystem."""
    nics = {}
    for number, nic in enumerate(system.nics):
        nics[nic] = {
            "mac": mac(p, system, number),
            "link": "LinkUp" if number == 0 else "LinkDown",
            "speed_mbps": 25000,
            "vendor_id": "0x15b3",
            "device_id": "0x101d",
            "model": "MT2892 [ConnectX-6 Dx]",
            "manufacturer": "Mellanox Technologies",
            "serial": "MT" + token(system.id, nic, length=10).upper(),
        }
    options = {}
    for number, nic in enumerate(system.nics[:2]):
        address = nics[nic]["mac"].replace(":", "").upper()
        options[f"Boot{number + 1:04X}"] = {
            "name": f"PXE Device {number + 1}: {nic}",
            "alias": "Pxe",
            "enabled": True,
            "nic": nic,
            "path": f"PciRoot(0x0)/Pci(0x1,0x0)/Pci(0x0,0x{number})/MAC({address},0x1)/IPv4(0.0.0.0)",
        }
    options["Boot000A"] = {
        "name": "Linux",
        "alias": "Hdd",
        "enabled": True,
        "nic": None,
        "path": "HD(1,GPT,7A46B329-CF6A-4DCA-9785-48677E8A27BF,0x800,0x100000)/\\EFI\\linux\\shimx64.efi",
    }
    options["Boot000B"] = {
        "name": "Virtual CD",
        "alias": "Cd",
        "enabled": True,
        "nic": None,
        "path": "PciRoot(0x0)/Pci(0x14,0x0)/USB(0xd,0x0)/USB(0x1,0x0)/CDROM(0x1)",
    }
    attributes = bios_defaults(p)
    host = system.kind == "host"
    return {
        "kind": system.kind,
        "power": "On",
        "generation": 0,
        "identity": {
            "manufacturer": p.manufacturer,
            "model": p.model,
            "serial": system.serial,
            "uuid": system.uuid,
            "sku": p.sku,
            "asset_tag": "",
            "part_number": "PN-" + token(p.name, length=6).upper(),
        },
        "host_name": "",
        "led": "Off",
        "boot_progress": "OSRunning",
        "in_post": False,
        "os": {"running": True, "answers_shutdown": True},
        "boot": {
            "enabled": "Disabled",
            "target": "None",
            "mode": "UEFI",
            "uefi_target": None,
            "http_uri": None,
            "next": None,
            "order": list(options),
            "pending": {},
        }
        if host
        else None,
        "boot_options": options if host else {},
        "boots": [],
        "resets": [],
        "nmi": 0,
        "ac_cycles": 0,
        "bios": {
            "version": "1.8.2",
            "current": attributes,
            "pending": {},
            "reset_pending": False,
            "passwords": {},
            "job": None,
            "messages": [],
        }
        if host
        else None,
        "secure_boot": {
            "enabled": False,
            "pending": None,
            "mode": "UserMode",
            "databases": ["PK", "KEK", "db", "dbx"],
            "certificates": {},
        }
        if host and p.secure_boot
        else None,
        "cpus": {
            cpu: {
                "model": "Intel(R) Xeon(R) Gold 6354 CPU @ 3.00GHz",
                "manufacturer": "Intel",
                "cores": 18,
                "threads": 36,
                "mhz": 4000,
            }
            for cpu in system.cpus
        },
        "gpus": {
            gpu: {
                "model": "NVIDIA H100 80GB HBM3",
                "manufacturer": "NVIDIA",
                "vendor_id": "0x10de",
                "device_id": "0x2330",
                "subsystem_vendor_id": "0x10de",
                "subsystem_id": "0x16c1",
                "memory_mib": 81559,
                "uuid": f"{token(gpu, 'u', length=8)}-0f6f-c471-d807-{token(gpu, 'v')}",
                "serial": "16" + str(int(token(system.id, gpu, length=9), 16))[:11],
                "firmware": "96.00.A6.00.01",
            }
            for gpu in system.gpus
        },
        "memory": {
            dimm: {
                "mib": 32768,
                "type": "HBM3" if not host else "DDR5",
                "manufacturer": "Samsung",
                "mhz": 4800,
                "part_number": "M321R4GA3BB6-CQKET",
                "serial": token(system.id, dimm, length=8).upper(),
            }
            for dimm in system.dimms
        },
        "nics": nics,
        "storage": {s.id: build_storage(system, s) for s in p.storage} if host else {},
    }


def build_storage(system: System, storage: Storage) -> dict:
    """State of one storage subsystem with its drives and volumes."""
    return {
        "name": f"Storage {storage.id}",
        "model": "RAID Controller" if storage.raid else "NVMe",
        "serial": token(system.id, storage.id).upper(),
        "firmware": "52.26.0-5179",
        "drives": {
            d: {
                "serial": "D" + token(system.id, storage.id, d, length=11).upper(),
                "model": "MTFDKCC1T9TFR",
                "manufacturer": "Micron",
                "capacity_bytes": 1920383410176,
                "media": "SSD",
                "protocol": storage.protocol,
                "revision": "1.2.0",
                "life_left_percent": 97,
                "content": "data-" + token(system.id, d, "content"),
                "erased": None,
                "led": False,
                "state": "Enabled",
                "health": "OK",
            }
            for d in storage.drives
        },
        "volumes": {},
        "next_volume": 1,
    }


def bios_defaults(p: Personality) -> dict:
    """Factory values of the BIOS attributes, with the family's way of naming them."""
    if p.bios_registry is None and p.bios_settings is None:
        return {}
    attributes = {
        name + (p.bios_attribute_suffix if kind == "Enumeration" else ""): value
        for name, kind, value, _ in BIOS_ATTRIBUTES
    }
    return {**attributes, **p.bios_extra}


def build_accounts(p: Personality) -> dict:
    """The administrator, and the empty slots of families that have a fixed number of accounts."""

    def account(user: str, password: str | None, role: str, enabled: bool) -> dict:
        return {
            "user": user,
            "password": password,
            "role": role,
            "enabled": enabled,
            "locked_until": None,
            "failed_logins": 0,
            "password_change_required": False,
        }

    if p.account_form == "slots":
        slots = {str(n): account("", None, "None", False) for n in range(1, p.account_slots + 1)}
        slots["2"] = account(p.username, p.password, "Administrator", True)
        return slots
    return {p.username if p.account_ids == "name" else "1": account(p.username, p.password, "Administrator", True)}


def log_entries(count: int, start: float) -> list[dict]:
    """A log with `count` entries, oldest first, one every ten minutes."""
    texts = (
        ("System power is on.", "OK"),
        ("A fan has been inserted.", "OK"),
        ("Power supply lost input.", "Warning"),
        ("User admin logged in.", "OK"),
        ("Correctable memory error at DIMM1.", "Warning"),
        ("CPU1 thermal trip.", "Critical"),
    )
    return [
        {
            "id": str(n + 1),
            "created": start - 600 * (count - n),
            "message": texts[n % 6][0],
            "severity": texts[n % 6][1],
            "message_id": f"Fake.1.0.Event{n % 6}",
        }
        for n in range(count)
    ]


def build_state(p: Personality) -> dict:
    """The whole initial state."""
    now = time.time()
    logs = {}
    for system in p.systems:
        for name in p.logs_system:
            logs[f"Systems/{system.id}/{name}"] = log_entries(p.log_entries, now)
    for manager in p.managers:
        for name in p.logs_manager:
            logs[f"Managers/{manager.id}/{name}"] = log_entries(p.log_entries, now)
    media = {}
    for slot in p.media:
        owners = (
            [s.id for s in p.systems if s.kind == "host"]
            if slot.home == "Systems"
            else [m.id for m in p.managers if not m.auxiliary]
        )
        for owner in owners:
            media[f"{slot.home}/{owner}/{slot.id}"] = empty_media()
    versions = {
        "BMC": p.managers[-1].version,
        "BIOS": "1.8.2",
        "NIC": "22.00.6",
        "Backup": "11.01.01",
        "BMCBackup": "42S-2.83",
        "CPLD": "0.2.1.8",
        "GPU": "96.00.A6.00.01",
        "EROT": "01.03.0136.0000_n01",
    }
    return {
        "systems": {s.id: build_system(p, s) for s in p.systems},
        "chassis": {
            c.id: {"led": "Off", "serial": c.serial, "asset_tag": "", "power_limit_watts": None} for c in p.chassis
        },
        "managers": {
            m.id: {
                "version": m.version,
                "clock_offset_seconds": 0.0,
                "led": "Off",
                "resets": [],
                "defaults_reset": 0,
                "ntp": {"enabled": False, "servers": []},
                "host_name": f"bmc-{m.id.lower()}",
                "protocols": {},
                "network": {"dhcp": True, "address": "192.0.2.10", "vlan": None},
            }
            for m in p.managers
        },
        "media": media,
        "accounts": build_accounts(p),
        "next_account": 2,
        "account_policy": {"threshold": p.lockout[0], "duration_seconds": p.lockout[1]},
        "sessions": {},
        "session_timeout_seconds": p.session_timeout,
        "tasks": {},
        "firmware": {
            key: {
                "kind": kind,
                "name": f"{kind} firmware",
                "version": versions[kind],
                "updateable": kind not in ("Backup", "EROT"),
                "pending": None,
            }
            for kind, key in p.firmware_ids.items()
        },
        "software": {"Driver.Pack": {"name": "OS driver pack", "version": "24.07.00"}},
        "push_busy": False,
        "updates": [],
        "logs": logs,
        "subscriptions": {},
        "certificate": {"subject": None, "fingerprint": None, "pem": None, "replaced": 0},
        "bmc": {"state": "up", "resets": 0},
        "oem": {"dell_attributes": dell_attributes() if p.name == "dell" else {}},
    }


def empty_media() -> dict:
    """An empty virtual media slot."""
    return {
        "image": None,
        "inserted": False,
        "write_protected": True,
        "protocol": None,
        "user": None,
        "boot_next": False,
    }


def dell_attributes() -> dict:
    """The attribute bag of an iDRAC, with the kinds of secrets that real ones hand out."""
    bag = {
        "IPMILan.1.CommunityName": "public",
        "IPMILan.1.EncryptionKey": token("ipmi", length=40),
        "IPMILan.1.Enable": "Enabled",
        "SNMP.1.AgentCommunity": "fake-community",
        "SNMP.1.AgentEnable": "Enabled",
        "LDAP.1.BindPassword": None,
        "NTPConfigGroup.1.NTPEnable": "Disabled",
        "NTPConfigGroup.1.NTP1": "",
        "ServerBoot.1.BootOnce": "Enabled",
        "ServerBoot.1.FirstBootDevice": "Normal",
        "Security.1.PasswordMinimumLength": 0,
        "SysLog.1.SysLogEnable": "Disabled",
        "NIC.1.DNSRacName": "idrac-7FK3S03",
        "VNCServer.1.Password": None,
        "WebServer.1.CustomCipherString": "",
    }
    for slot in range(1, 17):
        used = slot == 2
        bag.update(
            {
                f"Users.{slot}.UserName": "root" if used else "",
                f"Users.{slot}.Password": None,
                f"Users.{slot}.IPMIKey": token("k", slot, length=64) if used else "",
                f"Users.{slot}.SHA1v3Key": token("s", slot, length=40) if used else "",
                f"Users.{slot}.MD5v3Key": token("m", slot, length=32) if used else "",
                f"Users.{slot}.SHA256Password": token("p", slot, length=64) if used else "",
                f"Users.{slot}.SHA256PasswordSalt": token("t", slot, length=32) if used else "",
                f"Users.{slot}.SNMPv3AuthenticationPassphrase": "auth-passphrase-fake" if used else None,
                f"Users.{slot}.SNMPv3PrivacyPassphrase": "priv-passphrase-fake" if used else None,
            }
        )
    return bag
