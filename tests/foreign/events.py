"""Events: to subscribers on loopback by POST, and to open event streams."""

from __future__ import annotations

import itertools
import json
import queue
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime

from machine import Machine
from protocol import ROOT

TASK_EVENTS = {
    "Running": "TaskStarted",
    "Completed": "TaskCompletedOK",
    "Exception": "TaskAborted",
    "Pending": "TaskPaused",
}


class EventHub:
    """Turns state changes into Redfish events and delivers them."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.streams: list[queue.Queue] = []
        self._numbers = itertools.count(1)
        self._deliveries: queue.Queue = queue.Queue()
        machine.watchers.append(self._on_effects)
        threading.Thread(target=self._deliver_all, daemon=True).start()

    def _on_effects(self, effects: list[dict]) -> None:
        for effect in effects:
            part, _, rest = effect["what"].partition("/")
            if part == "systems" and rest.endswith("/power"):
                origin = f"{ROOT}/Systems/{rest.split('/')[0]}"
                self.send(
                    {
                        "MessageId": "ResourceEvent.1.3.ResourceChanged",
                        "Message": f"The power state changed to {effect['to']}.",
                        "Severity": "OK",
                        "OriginOfCondition": {"@odata.id": origin},
                    }
                )
            elif part == "tasks":
                task_id = rest.split("/")[0]
                state = (
                    effect["to"].get("state")
                    if isinstance(effect["to"], dict)
                    else effect["to"]
                    if rest.endswith("/state")
                    else None
                )
                if state in TASK_EVENTS:
                    self.send(
                        {
                            "MessageId": f"TaskEvent.1.0.{TASK_EVENTS[state]}",
                            "Message": f"The task {task_id} is {state}.",
                            "MessageArgs": [task_id],
                            "Severity": "OK",
                            "OriginOfCondition": {"@odata.id": f"{ROOT}/TaskService/Tasks/{task_id}"},
                        }
                    )

    def send(self, record: dict) -> None:
        """Send one event record to everybody."""
        number = str(next(self._numbers))
        full = {
            "MemberId": "0",
            "EventId": number,
            "EventTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "EventType": "Alert",
            **record,
        }
        event = {"@odata.type": "#Event.v1_7_0.Event", "Id": number, "Name": "Event", "Events": [full]}
        for stream in list(self.streams):
            stream.put(event)
        for key, subscription in self.machine.state["subscriptions"].items():
            self._deliveries.put(
                (
                    key,
                    subscription["destination"],
                    subscription["headers"],
                    {**event, "Context": subscription["context"]},
                )
            )

    def _deliver_all(self) -> None:
        while True:
            key, destination, headers, event = self._deliveries.get()
            result = "delivered" if self._deliver(destination, headers, event) else "failed"
            with self.machine.transaction():
                if key in self.machine.state["subscriptions"]:
                    self.machine.state["subscriptions"][key][result] += 1

    @staticmethod
    def _deliver(destination: str, headers: list, event: dict) -> bool:
        host = urllib.parse.urlsplit(destination).hostname or ""
        if host != "localhost" and not host.startswith("127."):
            return False  # nothing leaves this machine
        request = urllib.request.Request(
            destination, json.dumps(event).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        for header in headers:
            for name, value in header.items():
                request.add_header(name, value)
        unverified = ssl._create_unverified_context()  # noqa: S323 - a BMC does not know the receiver's certificate
        try:
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified)
            )
            with opener.open(request, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False
