"""Vendor families: what each kind of BMC offers, where it puts it, and how it deviates from the standard.

The values follow what public dumps of such BMCs show.  Nothing here depends on a client.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXPAND_ALL = {"ExpandAll": True, "Levels": True, "Links": True, "NoLinks": True, "MaxLevels": 2}
EXPAND_NONE = {"ExpandAll": False, "Levels": False, "Links": False, "NoLinks": False}


def features(expand: dict, *, select=True, only=True, filter_=True, excerpt=False) -> dict:
    """A ProtocolFeaturesSupported object."""
    return {
        "ExpandQuery": expand,
        "SelectQuery": select,
        "OnlyMemberQuery": only,
        "FilterQuery": filter_,
        "ExcerptQuery": excerpt,
        "DeepOperations": {"DeepPATCH": False, "DeepPOST": False},
    }


@dataclass(frozen=True)
class System:
    """One ComputerSystem; a `baseboard` has processors only: no Reset, no BIOS, no boot settings."""

    id: str
    chassis: str
    manager: str
    serial: str = "SN-7F3A91"
    kind: str = "host"
    cpus: tuple[str, ...] = ("CPU1", "CPU2")
    gpus: tuple[str, ...] = ()
    dimms: tuple[str, ...] = ("DIMM1", "DIMM2", "DIMM3", "DIMM4")
    nics: tuple[str, ...] = ("NIC1", "NIC2")
    uuid: str = "6d1f0c3a-4f1e-4b56-9c1a-0f2d5c7e8a10"


@dataclass(frozen=True)
class Chassis:
    """One Chassis; `main` ones have sensors, power supplies and fans."""

    id: str
    type: str = "RackMount"
    systems: tuple[str, ...] = ()
    manager: str = ""
    serial: str | None = "SN-7F3A91"
    contained_by: str | None = None
    main: bool = True


@dataclass(frozen=True)
class Manager:
    """One Manager; the first of several may be an auxiliary one that serves no host."""

    id: str
    chassis: str
    systems: tuple[str, ...] = ()
    model: str = "BMC"
    version: str = "2.10.04"
    auxiliary: bool = False


@dataclass(frozen=True)
class Slot:
    """A virtual media slot; `also` shows the same slot at the other place (systems or managers)."""

    id: str
    types: tuple[str, ...] | None = ("CD", "DVD")
    home: str = "Managers"
    also: bool = False


@dataclass(frozen=True)
class Storage:
    """A storage subsystem; drives live below it or below a chassis of their own."""

    id: str = "1"
    drives: tuple[str, ...] = ("Disk1", "Disk2", "Disk3", "Disk4")
    controllers: str = "link"
    drive_chassis: str | None = None
    protocol: str = "NVMe"
    volumes: bool = True
    raid: bool = True


@dataclass(frozen=True)
class Personality:
    """Everything in which the families differ.  The defaults are the plain DMTF service."""

    name: str = "standard"
    vendor: str | None = "Contoso"
    product: str | None = "Contoso 3500"
    manufacturer: str = "Contoso"
    model: str = "3500"
    redfish_version: str = "1.20.0"
    root_uuid: str | None = "92384634-2938-2342-8820-489239905423"
    root_oem: dict = field(default_factory=dict)
    protocol_features: dict | None = field(default_factory=lambda: features(EXPAND_ALL))
    root_redirect: bool = False
    ignore_case: bool = False
    trailing_slash_bios: bool = False
    odata_context: bool = False
    username: str = "admin"
    password: str = "Passw0rd-fake"
    systems: tuple[System, ...] = (System("S1", "C1", "BMC"),)
    chassis: tuple[Chassis, ...] = (Chassis("C1", systems=("S1",), manager="BMC"),)
    managers: tuple[Manager, ...] = (Manager("BMC", "C1", ("S1",)),)
    system_links_chassis: bool = True
    sku: str | None = "8675309"
    # Entity tags: form weak|strong|none, and what If-Match must look like.
    etag: str = "strong"
    etag_in_body: bool = True
    if_match: str = "checked"  # checked | no_star | star_only | ignored
    if_match_required: bool = False
    errors: dict = field(default_factory=dict)
    # Power
    reset_types: tuple[str, ...] = (
        "On",
        "ForceOff",
        "GracefulShutdown",
        "GracefulRestart",
        "ForceRestart",
        "Nmi",
        "ForceOn",
        "PushPowerButton",
        "PowerCycle",
    )
    reset_info: str = "inline"  # inline | action_info | both
    reset_answer: int = 204
    reset_task: bool = False
    patch_answer: str = "resource"  # resource | none | success: the body after a PATCH
    empty_action_body: str = "accept"  # accept | refuse: an action POST without any body
    same_state: str = "accept"  # accept | refuse: what On does when already on
    restart_when_off: str = "refuse"  # refuse | power_on
    shows_transitions: bool = True
    boot_progress: bool = True
    chassis_reset: tuple[str, ...] = ()
    ac_cycle: str | None = None  # dell | lenovo | nvidia | chassis
    location_indicator: bool = True
    indicator_led: bool = True
    # Boot
    boot_targets: tuple[str, ...] | None = (
        "None",
        "Pxe",
        "Cd",
        "Usb",
        "Hdd",
        "BiosSetup",
        "Diags",
        "UefiTarget",
        "UefiHttp",
        "UefiBootNext",
    )
    boot_targets_shown: bool = True
    boot_modes: tuple[str, ...] = ("UEFI", "Legacy")
    boot_mode_writable: bool = True
    boot_enabled: tuple[str, ...] = ("Disabled", "Once", "Continuous")
    boot_enabled_shown: bool = True
    boot_options: bool = True
    boot_option_id: str = "reference"  # reference | number | digits
    boot_order_at: str = "system"  # system | settings
    boot_settings: str | None = None  # name of the settings resource of the system
    boot_override_at: str = "system"  # system | settings
    http_boot_uri: bool = True
    boot_next: bool = True
    boot_partial_resets: bool = False  # a partial PATCH resets Enabled and Mode
    refuse_boot_during_post: bool = False
    boot_target_kept: bool = False  # after a Once boot the target stays and only Enabled changes
    # BIOS
    bios: bool = True
    bios_settings: str | None = "Settings"
    bios_pending: str = "changed"  # changed | all
    bios_apply_times: tuple[str, ...] | None = ("OnReset", "AtMaintenanceWindowStart")
    bios_apply_time_accepted: bool = True
    bios_job: bool = False
    bios_answer: int = 200
    bios_registry: str | None = "BiosAttributeRegistryC35.v1_0_0"
    bios_attribute_suffix: str = ""
    bios_extra: dict = field(default_factory=dict)
    secure_boot: bool = True
    secure_boot_databases: bool = True
    # Hardware
    storage: tuple[Storage, ...] = (Storage(),)
    secure_erase: bool = True
    erase_types_shown: bool = True
    ethernet_interfaces: bool = True
    mac_upper: bool = True
    network_adapters: bool = True
    network_interfaces: bool = True
    pcie: str = "chassis"  # chassis | system_list | none
    # Sensors
    thermal_and_power: bool = True
    subsystems: bool = True
    sensors: bool = True
    environment_metrics: bool = True
    numbers_as_text: bool = False
    # Virtual media
    media: tuple[Slot, ...] = (Slot("CD1"), Slot("USB1", ("USBStick",)))
    media_form: str = "action"  # action | patch | eject_when_inserted
    media_requires: tuple[str, ...] = ("Image",)
    media_empty: Any = None
    # Services
    session_limit: int = 8
    session_timeout: int = 1800
    session_limit_oem: tuple[str, str] | None = None
    session_location: str = "path"  # path | absolute
    account_form: str = "members"  # members | slots
    account_slots: int = 16
    account_types: bool = True
    account_ids: str = "number"  # number | name
    password_length: tuple[int, int] = (8, 64)
    lockout: tuple[int, int] = (5, 30)
    logs_system: tuple[str, ...] = ("EventLog",)
    logs_manager: tuple[str, ...] = ("Log",)
    logs_unclearable: tuple[str, ...] = ()
    log_entries: int = 60
    page_size: int = 0
    page_lists_everything: bool = False
    manager_reset: tuple[str, ...] = ("ForceRestart", "GracefulRestart")
    manager_defaults: tuple[str, ...] = ("ResetAll", "PreserveNetworkAndUsers")
    ntp_in_protocol: bool = True
    simple_update: tuple[str, ...] | None = ("HTTP", "HTTPS")
    simple_update_info: str = "inline"
    push_multipart: str | None = "/redfish/v1/UpdateService/update-multipart"
    push_raw: str | None = "/redfish/v1/UpdateService/update"
    push_busy: bool = False
    firmware_ids: dict = field(default_factory=lambda: {"BMC": "BMC", "BIOS": "BIOS", "NIC": "NIC"})
    software_inventory: bool = True
    tasks: str = "standard"  # standard | dell | openbmc | lenovo | ami
    task_payload: bool = False
    task_messages: bool = False
    task_location: bool = True
    sse: str | None = "/redfish/v1/EventService/SSE"
    event_fields: str = "formats"  # formats | types
    subscription_limit: int = 20
    telemetry: bool = True
    certificates: tuple[str, ...] = ("GenerateCSR", "ReplaceCertificate")
    registries: tuple[str, ...] = ("Base.1.16", "TaskEvent.1.0", "Update.1.0", "ResourceEvent.1.3")


STANDARD = Personality()
