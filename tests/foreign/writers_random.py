"""Histories that dice make up for the self-check of the judge of writers, and violations to put into them."""

from __future__ import annotations

import itertools
import random

ROOT = "/redfish/v1"
SYSTEM = f"{ROOT}/Systems/S1"
SESSIONS = f"{ROOT}/SessionService/Sessions"
SILENCE = 10.0
EPOCH = 30.0  # from one event to the next


class Story:
    """Gateways come and go, one event after the other, and each BMC has one writer at a time."""

    def __init__(self, dice: random.Random):
        self.dice, self.now, self.numbers = dice, 0.0, itertools.count(1)
        self.gateways: list[dict] = []
        self.outages: list[dict] = []
        self.members = [self.start() for _ in range(3)]
        self.logs: dict[str, list[dict]] = {f"bmc{n}": [] for n in range(dice.randint(1, 4))}
        self.writers = {bmc: dice.choice(self.members) for bmc in self.logs}
        for bmc in self.logs:
            self.write(bmc, dice.uniform(5, 6), EPOCH)
        self.now = EPOCH

    def start(self) -> str:
        agent = f"gateway-{len(self.gateways)}"
        self.gateways.append({"agent": agent, "started": self.now, "ended": None})
        return agent

    def write(self, bmc: str, begin: float, end: float) -> None:
        """The writer of a BMC writes one after the other, the first at `begin`."""
        while (ended := begin + self.dice.uniform(0.01, 1)) < end:
            self.logs[bmc].append(request(self.writers[bmc], begin, ended, **self.content()))
            begin = ended + self.dice.uniform(0.05, 6)

    def content(self) -> dict:
        """Something to write; only what may be repeated is not always answered."""
        number = next(self.numbers)
        return self.dice.choice([
            {"method": "PATCH", "body": {"AssetTag": str(number % 3)}, "answer_lost": number % 5 == 0},
            {"method": "POST", "path": f"{SYSTEM}/Storage/1/Volumes", "body": {"Name": str(number)}},
            {"method": "POST", "path": f"{SYSTEM}/Actions/ComputerSystem.Reset", "body": {"ResetType": "ForceOff"},
             "answer_lost": number % 2 == 0}])

    def happen(self, kind: str) -> None:
        """One event, and what comes of it until the next."""
        dice, now, end = self.dice, self.now, self.now + EPOCH
        anybody = self.members if self.outages else []  # the first one hits a writer, so that there is a handover
        victim = None if kind == "start" else dice.choice([*self.writers.values(), *anybody])
        short = kind in ("pause", "partition") and dice.random() < 0.5
        back = dice.uniform(now + 0.6, now + SILENCE) if short else None
        last, change = now, now + SILENCE + 0.01  # when the victim has to be done, and others may begin
        if kind == "start":
            self.members.append(self.start())
            change = now + 1
        elif kind == "stop":
            last, change = now + 0.5, now + 0.5
            self.gateways[int(victim.split("-")[1])]["ended"] = last
        elif kind == "kill":
            self.gateways[int(victim.split("-")[1])]["ended"] = now + 0.01
        elif kind == "partition":
            last = now + SILENCE
        if kind != "start":
            self.outages.append({"agent": victim, "kind": kind, "from": now, "to": last if kind == "stop" else back})
            if not short:
                self.members.remove(victim)
        for bmc, log in self.logs.items():
            mine = self.writers[bmc] == victim
            if short and mine:
                self.write(bmc, back if kind == "pause" else now, end)
            elif mine:
                self.write(bmc, now + 0.01, last)
                if kind in ("kill", "pause") and dice.random() < 0.5:  # it was on its way
                    log.append(request(victim, now + dice.uniform(0, 0.5), None if kind == "kill" else now + 0.5))
                self.hand_over(bmc, change, end)
            else:
                self.hand_over(bmc, change, end, now)
        self.now = end
        if kind in ("pause", "partition") and not short:
            self.outages[-1]["to"] = end
            self.members.append(victim)
            for bmc in self.logs:
                self.hand_over(bmc, end + 1.01, end + EPOCH, end)
            self.now = end + EPOCH

    def hand_over(self, bmc: str, change: float, end: float, begin: float | None = None) -> None:
        """The BMC gets another writer, or perhaps not if the one that it has may go on from `begin` on."""
        change += self.dice.choice([0, self.dice.uniform(0, 9)])
        if begin is not None:
            if self.dice.random() < 0.6:
                return self.write(bmc, begin, end)
            self.write(bmc, begin, change)
        self.writers[bmc] = self.dice.choice([one for one in self.members if one != self.writers[bmc]])
        return self.write(bmc, change, end)

    def read(self) -> None:
        """Everybody reads everywhere, with a session of its own, which it ends when it is stopped."""
        for bmc, log in self.logs.items():
            for row in self.gateways:
                end, own = row["ended"] or self.now, {"session": f"{bmc}-{row['agent']}"}
                times = sorted(self.dice.uniform(row["started"], end) for _ in range(5))
                log += [request(row["agent"], at, at + 0.5, method="GET", **own) for at in times]
                log.append(request(row["agent"], row["started"], None, method="POST", path=SESSIONS, **own))
                if row["ended"]:
                    path = f"{SESSIONS}/{own['session']}"
                    log.append(request(row["agent"], end, end, method="DELETE", path=path, **own))


def request(agent: str, at: float, ended: float | None, **fields: object) -> dict:
    """The record of a request."""
    return {"at": at, "ended": ended, "agent": agent, "method": "PATCH", "path": SYSTEM, "status": 200, "session": None,
            "body": None, "answer_lost": False, "effect": [], **fields}


def numbered(history: dict) -> dict:
    """The same with the records in their order."""
    for log in history["bmcs"].values():
        log.sort(key=lambda record: record["at"])
        for number, record in enumerate(log, 1):
            record["n"] = number
    return history


def legal_history(dice: random.Random) -> dict:
    """A history in which nothing is to be found; at least one process dies in it."""
    story = Story(dice)
    for number in range(dice.randint(3, 8)):
        kinds = ["start", "stop", "kill", "pause", "partition"] if len(story.members) > 2 else ["start"]
        story.happen(dice.choice(kinds) if number else dice.choice(["stop", "kill"]))
    story.read()
    return numbered({"silence": SILENCE, "bmcs": story.logs, "gateways": story.gateways, "outages": story.outages})


def break_history(dice: random.Random, rule: str, history: dict) -> dict:
    """Put one violation of a rule into a legal history."""
    agents = [row["agent"] for row in history["gateways"]]
    writes = {bmc: [record for record in log if record["method"] != "GET" and SESSIONS not in record["path"]]
              for bmc, log in history["bmcs"].items()}
    pairs = [(bmc, one, two) for bmc, log in writes.items() for one, two in itertools.pairwise(log)]
    dice.shuffle(pairs)

    def another(agent: str) -> str:
        return dice.choice([one for one in agents if one != agent])

    def insert(bmc: str, *args: object, **fields: object) -> None:
        history["bmcs"][bmc].append(request(*args, **fields))

    if rule == "two-writers":
        bmc, one = next((bmc, one) for bmc, one, _ in pairs if one["ended"])
        middle = (one["at"] + one["ended"]) / 2
        insert(bmc, another(one["agent"]), middle, dice.choice([None, middle, one["ended"] + 1]))
    elif rule == "took-turns-without-a-reason":
        events = [row[name] for row in [*history["gateways"], *history["outages"]]
                  for name in ("started", "ended", "from", "to") if row.get(name) is not None]
        bmc, one, two = next(
            (bmc, one, two) for bmc, one, two in pairs if one["agent"] == two["agent"] and one["ended"]
            and not any(one["ended"] - SILENCE <= event <= two["at"] for event in events))
        insert(bmc, another(one["agent"]), (one["ended"] + two["at"]) / 2, two["at"])
    elif rule == "retired":
        spans = [(row["agent"], row["ended"] + 0.52, row["ended"] + 60) for row in history["gateways"] if row["ended"]]
        for row in history["outages"]:
            agent, kind, begin, end = row["agent"], row["kind"], row["from"], row["to"]
            if kind == "pause":
                spans += [(agent, begin + 0.51, end - 0.01)]
            if kind in ("pause", "partition") and end - begin > SILENCE:
                spans += [(agent, begin + SILENCE + 0.01, end - 0.01), (agent, end, end + 0.99)]
        agent, begin, end = dice.choice(spans)
        insert(dice.choice(list(writes)), agent, at := dice.uniform(begin, end), at)
    elif rule == "repeated":
        bmc, one, two = next((bmc, one, two) for bmc, one, two in pairs if one["agent"] != two["agent"])
        same = {"method": "POST", "path": f"{SYSTEM}/Storage/1/Volumes", "body": {"Name": "again"}}
        one.update(same, **dice.choice([{"answer_lost": True}, {"ended": None}]))
        two.update(same)
    else:
        used = dice.choice(history["gateways"])
        # Before anything happens to it.
        bmc, at = dice.choice(list(writes)), used["started"] + dice.uniform(0, EPOCH - 2)
        insert(bmc, used["agent"], at, at, method="GET", session="shared")
        at += dice.uniform(0.01, 1.99)
        insert(bmc, another(used["agent"]), at, at, method="DELETE", path=f"{SESSIONS}/shared")
    return numbered(history)
