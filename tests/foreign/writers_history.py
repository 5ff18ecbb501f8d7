"""What became of each gateway process, from the input of the judge of writers, and what follows from it for a write."""

from __future__ import annotations

import math

KINDS = ("pause", "partition", "kill", "stop")
DELIVERY = 0.5  # between the last thing that a process did and the arrival of it at the BMC
JOINING = 1.0  # who starts, or was counted out and comes back, is no member before this
NEVER = math.inf


class Malformed(ValueError):
    """The input is not what it has to be."""


def need(condition: bool, message: str) -> None:
    if not condition:
        raise Malformed(message)


def moment(value: object, what: str, after: float | None = None) -> float:
    """A time; with `after` it may be null, for never, and is not before that."""
    if value is None and after is not None:
        return NEVER
    need(isinstance(value, (int, float)) and not isinstance(value, bool), f"{what} is no time: {value!r}")
    need(math.isfinite(value) and (after is None or value >= after), f"{what} cannot be {value!r}")
    return value


def rows(value: object, what: str, *names: str) -> list[dict]:
    """A list of objects that have at least these fields."""
    need(isinstance(value, list), f"{what} is no list")
    for row in value:
        need(isinstance(row, dict), f"{what} holds {row!r}")
        need(not set(names) - set(row), f"{what}: {sorted(set(names) - set(row))} missing in {row!r}"[:500])
    return value


class Gateways:
    """What became of each process, and when."""

    def __init__(self, document: dict):
        self.silence = moment(document.get("silence"), "silence")
        # A change of writer that a start or a return explains may come so much later.
        self.joined = moment(document.get("joined_within", JOINING), "joined_within")
        need(self.silence > 0, "silence must be longer than nothing")
        self.gone: dict[str, float] = {}  # no process does anything after this
        self.outages: dict[str, list[tuple[str, float, float]]] = {}
        # When an event happens, and until when at least its effect may take: the reasons for a change of writer.
        self.events: list[tuple[float, float]] = []
        ends = {}
        for row in rows(document.get("gateways"), "gateways", "agent", "started", "ended"):
            agent, started = row["agent"], moment(row["started"], "started")
            need(isinstance(agent, str) and agent not in self.gone, f"agent is not the name of one process: {agent!r}")
            self.gone[agent] = ends[agent] = moment(row["ended"], "ended", started)
            self.outages[agent] = []
            self.events.append((started, started + self.joined))
        for row in rows(document.get("outages"), "outages", "agent", "kind", "from", "to"):
            agent, kind, begin = row["agent"], row["kind"], moment(row["from"], "from")
            need(isinstance(agent, str) and agent in self.gone and kind in KINDS, f"outage not understood: {row!r}")
            end = moment(row["to"], "to", begin)
            self.outages[agent].append((kind, begin, end))
            # The others notice a loss at the latest when it has lasted for `silence`.
            self.events.append((begin, begin + self.silence))
            if kind == "kill":
                # No process survives it, whatever `to` says: what is started again is another process, and its start
                # is an event of its own. The end that was noted is the same event as the kill.
                self.gone[agent] = min(self.gone[agent], begin)
                ends[agent] = NEVER
            elif kind != "stop" and end < NEVER:  # a stop ends with the process
                self.events.append((end, end + self.joined))
        for agent, end in ends.items():
            if end < NEVER:
                self.events.append((end, end + self.silence))
        self.silent = {agent: self._silent(outages) for agent, outages in self.outages.items()}

    @staticmethod
    def _silent(outages: list[tuple[str, float, float]]) -> list[list[float]]:
        """When a process was not heard of: pauses and partitions that overlap are one silence."""
        spans: list[list[float]] = []
        for begin, end in sorted((begin, end) for kind, begin, end in outages if kind in ("pause", "partition")):
            if spans and begin < spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], end)
            else:
                spans.append([begin, end])
        return spans

    def end(self, write: dict) -> float:
        """When a write was over: a dead process waits for nothing, even if the BMC is still at it."""
        return max(write["at"], min(NEVER if write["ended"] is None else write["ended"], self.gone[write["agent"]]))

    def retired(self, agent: str, at: float) -> str | None:
        """Why a write of this process cannot have been right when it arrived."""
        # Nobody tells a process that it will be killed or stopped in a moment: what it had sent until then still
        # arrives. Later than DELIVERY nothing is on its way any more.
        if at > self.gone[agent] + DELIVERY:
            return "its process had ended"
        for kind, begin, end in self.outages[agent]:
            # From `to` on a process that was paused is awake, and after a short pause it may still be the writer.
            if kind == "pause" and begin + DELIVERY < at < end:
                return "its process was paused"
        for begin, end in self.silent[agent]:
            # It was last heard of before the silence began, so `silence` later others may write. No time for delivery
            # is allowed here: it can know this moment, and has to send early enough. A silence that is not longer
            # than `silence` proves no loss. After a longer one it has to notice the loss and to join again, which
            # takes JOINING from the end of the silence; from then on it may have been given the BMC again.
            if end - begin > self.silence and begin + self.silence < at < end + JOINING:
                return "it had not been heard of for too long" if at < end else "it cannot be a member again yet"
        return None

    def unknown(self, write: dict) -> bool:
        """Whether it may be that no successor can know how a write ended."""
        if write.get("answer_lost") or write["ended"] is None:
            return True
        for kind, begin, _ in self.outages[write["agent"]]:
            # A process that is stopped keeps the answers to what it sends meanwhile; from the others it may be lost
            # if it had been sent, or was open, when the outage began. What was on its way then arrives a bit later.
            late = 0 if kind == "stop" else DELIVERY
            if begin - DELIVERY <= write["at"] <= begin + late:
                return True
            if kind != "stop" and write["at"] <= begin <= write["ended"]:
                return True
        return False
