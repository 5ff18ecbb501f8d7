"""The machine behind the service: state, transactions with recorded effects, power, boots and tasks.

Every change happens in a transaction.  The difference between the state before and after is written
to the log record of the request that caused it, also when it takes effect much later.
"""

from __future__ import annotations

import heapq
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from hardware import bios_defaults, build_state, empty_media
from personality import Personality
from protocol import Refusal, message

DEFAULT_SETTINGS = {
    "latency": 0.0,
    "sessions_limit": None,
    "login_fails_for": 0.0,
    "unauthorized_paths": [],
    "http_error_in_200": None,
    "reset_during_update": False,
    "power_seconds": 0.2,
    "shutdown_seconds": 0.5,
    "post_seconds": 0.5,
    "task_seconds": 0.5,
    "bmc_reset_seconds": 1.0,
    "os_ignores_shutdown": False,
    "if_match": None,
    "page_size": None,
}
VOLATILE = {"generation", "percent", "next_account"}


class Transaction:
    """What happens between two consistent states; a rolled back one leaves no trace."""

    def __init__(self, record: dict | None):
        self.record, self.rolled_back, self.scheduled = record, False, []

    def rollback(self) -> None:
        """Forget all changes and everything scheduled when the transaction ends."""
        self.rolled_back = True


def differences(old: Any, new: Any, path: str = "") -> list[dict]:
    """The changed leaves between two JSON values."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        result = []
        for key in [*old, *(k for k in new if k not in old)]:
            if key not in VOLATILE:
                result += differences(old.get(key), new.get(key), f"{path}/{key}" if path else key)
        return result
    if isinstance(old, list) and isinstance(new, list) and new[: len(old)] == old:
        if path.startswith("logs/"):
            return []
        return [{"what": path + "/+", "from": None, "to": item} for item in new[len(old) :]]
    return [{"what": path, "from": old, "to": new}]


class Machine:
    """State and behaviour of one fake BMC and its hosts."""

    def __init__(self, personality: Personality, settings: dict):
        self.personality = personality
        self.settings = {**DEFAULT_SETTINGS, **settings}
        self.lock = threading.RLock()
        self.state = build_state(personality)
        self.last_used: dict[str, float] = {}
        self.revision = 0
        self.watchers: list[Callable[[list[dict]], None]] = []
        self.started = time.monotonic()
        self._transaction: Transaction | None = None
        self._queue: list = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._task_numbers = itertools.count(1)
        threading.Thread(target=self._run_schedule, daemon=True).start()

    # ------------------------------------------------------------ time and transactions

    @contextmanager
    def transaction(self, record: dict | None = None):
        """Hold the machine, and on leaving commit and record the changes, or undo them."""
        with self.lock:
            if self._transaction:
                yield self._transaction
                return
            before = json.dumps(self.state)
            current = self._transaction = Transaction(record)
            try:
                yield current
            except Refusal:
                raise
            except BaseException:
                current.rollback()
                raise
            finally:
                self._transaction = None
                self._settle(current, before)

    def _settle(self, transaction: Transaction, before: str) -> None:
        if transaction.rolled_back:
            self.state = json.loads(before)
            return
        for due, action, arguments in transaction.scheduled:
            self._push(due, action, arguments, transaction.record)
        if json.dumps(self.state) == before:
            return
        self.revision += 1
        effects = differences(json.loads(before), self.state)
        if transaction.record is not None:
            now = time.monotonic()
            transaction.record["effect"].extend({"at": now, **effect} for effect in effects)
        for watcher in self.watchers:
            watcher(effects)

    def after(self, seconds: float, action: Callable, *arguments: Any) -> None:
        """Run `action` later, on behalf of the request that is being handled."""
        due = time.monotonic() + seconds
        if self._transaction:
            self._transaction.scheduled.append((due, action, arguments))
        else:
            self._push(due, action, arguments, None)

    def _push(self, due: float, action: Callable, arguments: tuple, record: dict | None) -> None:
        with self._wake:
            heapq.heappush(self._queue, (due, next(self._order), action, arguments, record))
            self._wake.notify()

    def _run_schedule(self) -> None:
        while True:
            with self._wake:
                while not self._queue or self._queue[0][0] > time.monotonic():
                    self._wake.wait(self._queue[0][0] - time.monotonic() if self._queue else None)
                _, _, action, arguments, record = heapq.heappop(self._queue)
            try:
                with self.transaction(record):
                    action(*arguments)
            except Refusal:
                pass
            except Exception as error:  # a fault of the double must be seen, not stop the clock
                print(f"scheduled action failed: {error!r}", file=sys.stderr)

    def now(self, manager: str | None = None) -> float:
        """The time of a manager's clock."""
        offset = (
            self.state["managers"][manager]["clock_offset_seconds"]
            if manager
            else next(iter(self.state["managers"].values()))["clock_offset_seconds"]
        )
        return time.time() + offset

    def write_log(self, system: str | None, text: str, severity: str = "OK") -> None:
        """Add an entry to the first log of the system, or of the first manager with one."""
        for path, entries in self.state["logs"].items():
            if system is None or path.startswith(f"Systems/{system}/") or not self.personality.logs_system:
                number = max((int(e["id"]) for e in entries), default=0) + 1
                entries.append(
                    {
                        "id": str(number),
                        "created": self.now(),
                        "message": text,
                        "severity": severity,
                        "message_id": "Fake.1.0.StateChange",
                    }
                )
                return

    # ------------------------------------------------------------ power

    def reset(self, system_id: str, kind: str) -> None:
        """Start the transition that the ResetType asks for."""
        system, p = self.state["systems"][system_id], self.personality
        on = system["power"] in ("On", "PoweringOn")
        entry = {"at": time.monotonic(), "type": kind, "power": system["power"]}
        if kind == "PushPowerButton":
            kind = "GracefulShutdown" if on else "On"
        if kind == "Nmi":
            if not on:
                raise self._conflict(kind)
            system["nmi"] += 1
        elif kind in ("On", "ForceOn"):
            if on and p.same_state == "refuse":
                raise self._conflict(kind)
            if not on:
                self._power_on(system_id)
        elif kind in ("ForceOff", "GracefulShutdown"):
            if not on and system["power"] == "Off":
                if p.same_state == "refuse":
                    raise self._conflict(kind)
            elif kind == "ForceOff":
                self._power_off(system_id)
            elif self._os_obeys(system):
                generation = self._begin(system)
                self.after(self.settings["shutdown_seconds"], self._if_current, system_id, generation, self._power_off)
        elif not on:
            if p.restart_when_off == "refuse":
                raise self._conflict(kind)
            self._power_on(system_id)
        elif kind == "ForceRestart":
            generation = self._begin(system)
            self.after(self.settings["power_seconds"], self._if_current, system_id, generation, self._begin_boot)
        elif kind == "GracefulRestart":
            if self._os_obeys(system):
                generation = self._begin(system)
                self.after(self.settings["shutdown_seconds"], self._if_current, system_id, generation, self._begin_boot)
        elif kind == "PowerCycle":
            self._power_off(system_id, then=self._power_on)
        system["resets"].append(entry)

    def _conflict(self, kind: str) -> Refusal:
        if self.personality.name == "dell":
            return Refusal(
                409,
                "ActionParameterValueConflict",
                "ResetType",
                kind,
                oem=("IDRAC.2.8.PSU501", "Server is already in the requested power state."),
            )
        if self.personality.name == "hpe":
            return Refusal(400, "iLO.2.16.InvalidOperationForSystemState")
        return Refusal(409, "ActionParameterValueConflict", "ResetType", kind)

    def _os_obeys(self, system: dict) -> bool:
        return system["os"]["running"] and system["os"]["answers_shutdown"] and not self.settings["os_ignores_shutdown"]

    def _begin(self, system: dict) -> int:
        """Invalidate a transition that is under way."""
        system["generation"] += 1
        return system["generation"]

    def _if_current(self, system_id: str, generation: int, action: Callable, *arguments: Any) -> None:
        if self.state["systems"][system_id]["generation"] == generation:
            action(system_id, *arguments)

    def _power_off(self, system_id: str, then: Callable | None = None) -> None:
        system = self.state["systems"][system_id]
        generation = self._begin(system)
        system["power"] = "PoweringOff"
        self.after(self.settings["power_seconds"], self._if_current, system_id, generation, self._is_off, then)

    def _is_off(self, system_id: str, then: Callable | None) -> None:
        system = self.state["systems"][system_id]
        system.update(power="Off", boot_progress="None", in_post=False)
        system["os"]["running"] = False
        self.write_log(system_id, "System power is off.")
        if then:
            generation = self._begin(system)
            self.after(self.settings["power_seconds"], self._if_current, system_id, generation, then)

    def _power_on(self, system_id: str) -> None:
        system = self.state["systems"][system_id]
        generation = self._begin(system)
        system["power"] = "PoweringOn"
        self.after(self.settings["power_seconds"], self._if_current, system_id, generation, self._begin_boot)

    def ac_cycle(self, system_id: str) -> None:
        """Take mains power away: hosts and the BMC restart."""
        self.state["systems"][system_id]["ac_cycles"] += 1
        self._power_off(system_id, then=self._power_on)
        self.restart_bmc(next(iter(self.state["managers"])))

    # ------------------------------------------------------------ boot

    def _begin_boot(self, system_id: str) -> None:
        system = self.state["systems"][system_id]
        system["power"] = "On"
        system["os"]["running"] = False
        generation = self._begin(system)
        if system["kind"] == "host":
            self._apply_pending(system_id, system)
            system["boots"].append(self._choose_source(system_id, system))
        system.update(in_post=True, boot_progress="SystemHardwareInitializationComplete")
        self.write_log(system_id, "System power is on.")
        self.after(self.settings["post_seconds"], self._if_current, system_id, generation, self._post_done)

    def _post_done(self, system_id: str) -> None:
        system = self.state["systems"][system_id]
        system.update(in_post=False, boot_progress="OSRunning")
        system["os"]["running"] = True

    def _apply_pending(self, system_id: str, system: dict) -> None:
        bios, boot, secure = system["bios"], system["boot"], system["secure_boot"]
        if bios["reset_pending"]:
            bios["current"], bios["reset_pending"] = bios_defaults(self.personality), False
        bios["current"].update(bios["pending"])
        bios["pending"] = {}
        bios["passwords"].update(bios["passwords"].pop("pending", {}))
        boot.update(boot["pending"])
        boot["pending"] = {}
        if secure and secure["pending"] is not None:
            secure["enabled"], secure["pending"] = secure["pending"], None
        for item in self.state["firmware"].values():
            if item["pending"] and item["kind"] != "BMC":
                item["version"], item["pending"] = item["pending"], None
                if item["kind"] == "BIOS":
                    bios["version"] = item["version"]
        for task_id, task in self.state["tasks"].items():
            if task["waits_for"] == system_id:
                task.update(waits_for=None, state="Running")
                self.after(self.settings["post_seconds"], self.finish_task, task_id, None, False)
        bios["job"] = None

    def _choose_source(self, system_id: str, system: dict) -> dict:
        """Decide what this boot starts from, and use up a one-time override."""
        boot = system["boot"]
        found = {"at": time.monotonic(), "mode": boot["mode"], "http_uri": None, "image": None}
        attributes = self.state["oem"]["dell_attributes"]
        from_media = [m for m in self.state["media"].values() if m["boot_next"] and m["inserted"]]
        if boot["enabled"] != "Disabled" and boot["target"] not in (None, "None"):
            found["source"] = boot["target"]
            if boot["target"] in ("UefiTarget", "UefiBootNext"):
                found["option"] = boot["uefi_target"] if boot["target"] == "UefiTarget" else boot["next"]
            found["http_uri"] = boot["http_uri"] if boot["target"] == "UefiHttp" else None
        elif attributes.get("ServerBoot.1.FirstBootDevice", "Normal") != "Normal":
            found["source"] = {"VCD-DVD": "VirtualCd"}.get(attributes["ServerBoot.1.FirstBootDevice"], "Other")
            if attributes["ServerBoot.1.BootOnce"] == "Enabled":
                attributes["ServerBoot.1.FirstBootDevice"] = "Normal"
        elif from_media:
            found["source"] = "Cd"
        else:
            found.update(source="BootOrder", option=boot["order"][0] if boot["order"] else None)
        if found["source"] in ("Cd", "UsbCd", "VirtualCd", "Usb") and self._sees_virtual_media(found["source"]):
            images = [
                m["image"]
                for key, m in self.state["media"].items()
                if m["inserted"] and (key.startswith("Managers/") or key.startswith(f"Systems/{system_id}/"))
            ]
            found["image"] = images[0] if images else None
        if boot["enabled"] == "Once":
            boot["enabled"] = "Disabled"
            if not self.personality.boot_target_kept:
                boot.update(target="None", uefi_target=None, http_uri=None)
        boot["next"] = None
        for slot in from_media:
            slot["boot_next"] = False
        return found

    def _sees_virtual_media(self, source: str) -> bool:
        """Whether the family's boot target means the virtual drive (Dell and Supermicro: `Cd` is the real one)."""
        return {"dell": source == "VirtualCd", "supermicro": source == "UsbCd"}.get(self.personality.name, True)

    # ------------------------------------------------------------ the BMC itself

    def restart_bmc(self, manager: str) -> None:
        """Make the service disappear, then answer 503, then come back without its sessions."""
        bmc, seconds = self.state["bmc"], self.settings["bmc_reset_seconds"]
        bmc["resets"] += 1
        self.state["managers"][manager]["resets"].append({"at": time.monotonic()})
        self.after(0.05, self._bmc_state, "down", bmc["resets"])
        self.after(0.05 + seconds * 0.6, self._bmc_state, "starting", bmc["resets"])
        self.after(0.05 + seconds, self._bmc_state, "up", bmc["resets"])

    def _bmc_state(self, state: str, generation: int) -> None:
        if self.state["bmc"]["resets"] != generation:
            return
        self.state["bmc"]["state"] = state
        if state == "down":
            self.state["sessions"] = {}
            self.state["media"] = {key: empty_media() for key in self.state["media"]}
            if self.personality.tasks == "openbmc":
                self.state["tasks"], self.state["subscriptions"] = {}, {}
            for item in self.state["firmware"].values():
                if item["pending"] and item["kind"] == "BMC":
                    item["version"], item["pending"] = item["pending"], None

    # ------------------------------------------------------------ tasks

    def start_task(
        self,
        name: str,
        action: Callable | None,
        *,
        seconds: float | None = None,
        waits_for: str | None = None,
        fails: bool = False,
        vanishes: bool = False,
        payload: dict | None = None,
        kind: str = "Task",
        target: str | None = None,
    ) -> str:
        """Create a task that runs `action` at its end; returns its id.

        With `waits_for` the task waits for the next boot of that system instead of for time to pass.
        """
        seconds = self.settings["task_seconds"] if seconds is None else seconds
        number = next(self._task_numbers)
        task_id = f"JID_{400000000000 + number}" if self.personality.tasks == "dell" else str(number)
        self.state["tasks"][task_id] = {
            "name": name,
            "kind": kind,
            "target": target,
            "state": "Pending" if waits_for else "Running",
            "status": "OK",
            "percent": 0,
            "started": self.now(),
            "ended": None,
            "messages": [],
            "payload": payload,
            "result": None,
            "collected": False,
            "gone": False,
            "vanishes": vanishes,
            "waits_for": waits_for,
        }
        if not waits_for:
            self.after(seconds / 2, self._half_way, task_id)
            self.after(seconds, self.finish_task, task_id, action, fails)
        return task_id

    def _half_way(self, task_id: str) -> None:
        task = self.state["tasks"].get(task_id)
        if task and task["state"] == "Running":
            task["percent"] = 50
            self.revision += 1

    def finish_task(self, task_id: str, action: Callable | None, fails: bool) -> None:
        """Let the effect of a task happen and close it."""
        task = self.state["tasks"].get(task_id)
        if not task or task["state"] != "Running":
            return
        result = {
            "status": 200,
            "body": {
                "error": {
                    "code": "Base.1.16.Success",
                    "message": "Success",
                    "@Message.ExtendedInfo": [message("Success")],
                }
            },
        }
        try:
            if fails:
                raise Refusal(500, "OperationFailed")
            answer = action() if action else None
            if answer is not None:
                result = {"status": answer.status, "body": answer.body}
            task.update(state="Completed", status="OK", percent=100, messages=[message("Success")])
        except Refusal as refusal:
            task.update(
                state="Exception", status="Critical", percent=100, messages=[message(refusal.key, *refusal.args_)]
            )
            result = {
                "status": refusal.status,
                "body": {
                    "error": {"code": refusal.key, "message": refusal.key, "@Message.ExtendedInfo": task["messages"]}
                },
            }
        task.update(ended=self.now(), result=result, gone=task["vanishes"])
