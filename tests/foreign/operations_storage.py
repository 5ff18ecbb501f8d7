"""Writing to drives and volumes."""

from __future__ import annotations

import secrets
import time

from personality import Storage
from protocol import ROOT, Refusal, Request, Response
from service import Service, assign, listed, route, typed
from tree_storage import ERASE_TYPES
from tree_systems import drive_path, system_path


def find_drive(service: Service, path: str) -> tuple[str, Storage, str]:
    """System, storage and key of the drive at a path."""
    tree = service.trees.current()
    for system in service.p.systems:
        for storage in service.p.storage if system.kind == "host" else ():
            for key in service.machine.state["systems"][system.id]["storage"][storage.id]["drives"]:
                if tree.key(drive_path(tree, system, storage, key)) == tree.key(path):
                    return system.id, storage, key
    raise Refusal(404, "ResourceMissingAtURI", path)


def storage_state(service: Service, system: str, storage: str) -> dict:
    """State of a storage subsystem."""
    return service.machine.state["systems"][system]["storage"][storage]


DRIVE = "(?:Systems/[^/]+/Storage|Chassis)/[^/]+/Drives/[^/]+"


@route("PATCH", DRIVE)
def patch_drive(service: Service, request: Request) -> Response:
    system, storage, key = find_drive(service, request.path)
    drive = storage_state(service, system, storage.id)["drives"][key]
    assign(
        request.json(),
        {"LocationIndicatorActive": lambda v: drive.update(led=typed(bool, "LocationIndicatorActive", v))},
    )
    return service.patched(request.path)


@route("POST", DRIVE + "/Actions/Drive.SecureErase")
def erase_drive(service: Service, request: Request) -> Response:
    system, storage, key = find_drive(service, request.path.split("/Actions/")[0])
    state = storage_state(service, system, storage.id)
    how = service.one_of(request, "Drive.SecureErase", "SanitizationType", ERASE_TYPES, default="CryptographicErase")
    if any(key in volume["drives"] for volume in state["volumes"].values()):
        raise Refusal(409, "ResourceInUse")

    def erase() -> None:
        drive = storage_state(service, system, storage.id)["drives"][key]
        drive["content"] = "erased-" + secrets.token_hex(6)
        drive["erased"] = {"how": how, "at": time.monotonic()}

    job = service.p.tasks == "dell"
    return service.start(
        request,
        f"Secure Erase {key}",
        erase,
        kind="RAIDConfiguration",
        location=(lambda t: f"{ROOT}/TaskService/Tasks/{t}") if job else None,
    )


@route("POST", "Systems/<system>/Storage/<storage>/Volumes", lambda p: any(s.volumes for s in p.storage))
def create_volume(service: Service, request: Request, system: str, storage: str) -> Response:
    layout = next(s for s in service.p.storage if s.id == storage)
    body, state = request.json(), storage_state(service, system, storage)
    if not layout.volumes or not layout.raid:
        raise Refusal(405, "OperationNotAllowed")
    raid, references = body.get("RAIDType", "RAID0"), body.get("Links", {}).get("Drives") or body.get("Drives")
    if not references:
        raise Refusal(400, "CreateFailedMissingReqProperties", "Links/Drives")
    listed(("RAID0", "RAID1", "RAID5", "RAID10"), "RAIDType", raid)
    drives = [find_drive(service, reference["@odata.id"])[2] for reference in references]
    if any(d in volume["drives"] for d in drives for volume in state["volumes"].values()):
        raise Refusal(409, "ResourceInUse")
    if len(drives) < {"RAID0": 1, "RAID1": 2, "RAID5": 3, "RAID10": 4}[raid]:
        raise Refusal(400, "PropertyValueIncorrect", "Links/Drives", len(drives))

    def create() -> Response:
        now = storage_state(service, system, storage)
        key = str(now["next_volume"])
        size = sum(now["drives"][d]["capacity_bytes"] for d in drives) // {"RAID1": len(drives), "RAID10": 2}.get(
            raid, 1
        )
        now["next_volume"] += 1
        now["volumes"][key] = {
            "name": body.get("Name") or f"Volume {key}",
            "raid_type": raid,
            "drives": drives,
            "capacity_bytes": min(body.get("CapacityBytes") or size, size),
        }
        for drive in drives:
            now["drives"][drive]["content"] = f"raid-{secrets.token_hex(4)}"
        return service.created(f"{system_path(system)}/Storage/{storage}/Volumes/{key}")

    if service.p.tasks == "dell":
        return service.start(
            request,
            f"Configure: {storage}",
            create,
            kind="RAIDConfiguration",
            location=lambda t: f"{ROOT}/TaskService/Tasks/{t}",
        )
    return create()


@route("DELETE", "Systems/<system>/Storage/<storage>/Volumes/<volume>", lambda p: any(s.volumes for s in p.storage))
def delete_volume(service: Service, request: Request, system: str, storage: str, volume: str) -> Response:
    def delete() -> None:
        storage_state(service, system, storage)["volumes"].pop(volume, None)

    if service.p.tasks == "dell":
        if request.body and request.json():
            raise Refusal(400, "PropertyUnknown", next(iter(request.json())))
        return service.start(
            request,
            f"Configure: {storage}",
            delete,
            kind="RAIDConfiguration",
            location=lambda t: f"{ROOT}/TaskService/Tasks/{t}",
        )
    delete()
    return Response(204)


@route("POST", "Systems/<system>/Storage/<storage>/Volumes/<volume>/Actions/Volume.Initialize")
def initialize_volume(service: Service, request: Request, system: str, storage: str, volume: str) -> Response:
    kind = service.one_of(request, "Volume.Initialize", "InitializeType", ("Fast", "Slow"), default="Fast")

    def initialize() -> None:
        state = storage_state(service, system, storage)
        for drive in state["volumes"][volume]["drives"]:
            state["drives"][drive]["content"] = f"{kind.lower()}-initialized-{secrets.token_hex(4)}"

    return service.start(request, f"Initialize {volume}", initialize)
