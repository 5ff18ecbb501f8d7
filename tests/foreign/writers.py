#!/usr/bin/env python3
"""Judge from the logs of fake BMCs whether each BMC had one gateway process as its writer at a time.

Usage:
    writers.py FILE        `-` reads standard input

It prints a report as JSON. The exit code is 0 when nothing was found, 1 when something was, and 2 when the input is
malformed or when nothing was found because there was nothing to judge. README.md beside this file says what FILE holds.
"""

from __future__ import annotations

import itertools
import json
import sys

from writers_history import NEVER, Gateways, moment, need, rows

READS = {"GET", "HEAD", "OPTIONS"}
OWN = {"sessionservice", "eventservice"}
LASTING = ("On", "ForceOff", "GracefulShutdown")  # they name a state that is to hold: asking again is harmless
RECENT = 2.0  # a session that was used so shortly before is in use


def is_write(record: dict) -> bool:
    """Whether a request may change the BMC; sessions and subscriptions are each process's own."""
    above = record["path"].lower().rstrip("/").split("/")[:-1]  # the two services themselves are shared
    return record["method"] not in READS and not OWN & set(above)


def overlapping(writes: list[dict], gateways: Gateways):
    """Rule `two-writers`: a write that arrives while one of another process is open."""
    pending: list[dict] = []
    for write in writes:
        pending = [one for one in pending if gateways.end(one) > write["at"]]
        others = [one for one in pending if one["agent"] != write["agent"]]
        if others:
            yield f"{write['agent']} writes while a write of {others[-1]['agent']} is open", [*others, write]
        pending.append(write)


def unreasoned(runs: list[list[dict]], gateways: Gateways):
    """Rule `took-turns-without-a-reason`: each change of writer needs an event of its own.

    An event is of use from when it happens until it has its effect, and that must not lie before the change before.
    The one whose use ends first is taken, so that whenever reasons can be given to all changes, they are.
    """
    free, before = sorted(gateways.events, key=lambda event: event[1]), -NEVER
    for earlier, later in itertools.pairwise(runs):
        now = later[0]["at"]
        reason = next((event for event in free if event[0] <= now and event[1] > before), None)
        if reason:
            free.remove(reason)
        else:
            yield f"{later[0]['agent']} writes after {earlier[0]['agent']} for no reason", [earlier[-1], later[0]]
        before = now


def retired(writes: list[dict], gateways: Gateways):
    """Rule `retired`: a write by a process that has lost the BMC, or is no more."""
    for write in writes:
        why = gateways.retired(write["agent"], write["at"])
        if why:
            yield f"{write['agent']} writes at {write['at']:.3f}, and {why}", [write]


def repeated(writes: list[dict], gateways: Gateways):
    """Rule `repeated`: a POST whose outcome nobody knows is sent again by another process."""
    last: dict[str, tuple[str, list[dict]]] = {}  # the last body by path, and those whose outcome is not known
    for write in writes:
        path, body = write["path"].rstrip("/"), write.get("body")
        what = f"{write['method']} {json.dumps(body, sort_keys=True)}"
        same, lost = last.get(path, ("", []))
        lost = lost if same == what else []
        others = [one for one in lost if one["agent"] != write["agent"]]
        lasting = "ComputerSystem.Reset" in path and isinstance(body, dict) and body.get("ResetType") in LASTING
        if others and write["method"] == "POST" and not lasting:
            yield f"{write['agent']} repeats POST {path} of {others[-1]['agent']}", [others[-1], write]
        if gateways.unknown(write):
            lost = [*lost, write]
        elif 200 <= (write.get("status") or 0) < 300:  # a refusal tells nothing about the one before
            lost = []
        last[path] = what, lost


def sessions(records: list[dict], gateways: Gateways):
    """Rule `session`: a session is ended that another living process has just used."""
    uses: dict[str, dict[str, dict]] = {}
    for record in records:
        agent, at, used = record.get("agent"), record["at"], record.get("session")
        if agent not in gateways.gone:
            continue  # a person, or the test itself
        *above, key = record["path"].rstrip("/").split("/")
        ends = record["method"] == "DELETE" and "sessionservice" in map(str.lower, above)
        gone = any(effect["what"].startswith(f"sessions/{key}") for effect in record.get("effect") or [])
        if ends and (gone or 200 <= (record.get("status") or 0) < 300):  # a refused DELETE ends nothing
            for other, use in uses.pop(key, {}).items():
                if other != agent and at - use["at"] <= RECENT and gateways.gone[other] > at:
                    yield f"{agent} ends a session that {other} uses", [use, record]
        elif used and record.get("status") != 401 and not gateways.retired(agent, at):
            # Who has lost the BMC and does not know it yet has no right to the session: a read does no harm.
            uses.setdefault(used, {})[agent] = record


def judge(document: object) -> dict:
    """The report on a whole history."""
    need(isinstance(document, dict) and isinstance(document.get("bmcs"), dict), "bmcs is no object")
    gateways, findings, written, runs_in_all = Gateways(document), [], [], 0
    for bmc, log in document["bmcs"].items():
        for row in rows(log, bmc, "n", "at", "ended", "method", "path"):
            agent = row.get("agent")
            types = (int, str, str) == tuple(type(row[name]) for name in ("n", "method", "path"))
            need(types and isinstance(agent, str | None), f"{bmc}: record not understood: {row!r}"[:500])
            moment(row["ended"], f"{bmc}: ended", moment(row["at"], f"{bmc}: at"))
            known = agent in gateways.gone or not is_write(row)
            need(known, f"{bmc}: record {row['n']} is a write of {agent!r}, which is none of the gateways")
        log = sorted(log, key=lambda row: row["n"])
        for one, two in itertools.pairwise(log):
            need(one["n"] < two["n"] and one["at"] <= two["at"], f"{bmc}: record {two['n']} is out of order")
        writes = [row for row in log if is_write(row)]
        runs = [list(run) for _, run in itertools.groupby(writes, key=lambda row: row["agent"])]
        written += [writes] if writes else []
        runs_in_all += len(runs)
        for rule, found in (("two-writers", overlapping(writes, gateways)),
                            ("took-turns-without-a-reason", unreasoned(runs, gateways)),
                            ("retired", retired(writes, gateways)), ("repeated", repeated(writes, gateways)),
                            ("session", sessions(log, gateways))):
            findings += [{"rule": rule, "bmc": bmc, "message": message, "records": [row["n"] for row in records]}
                         for message, records in found]
    return {"writes": sum(map(len, written)), "bmcs": len(written), "runs": runs_in_all,
            "handovers": runs_in_all - len(written), "findings": findings}


def main(arguments: list[str]) -> int:
    """Read, judge, report."""
    try:
        need(len(arguments) == 1, "usage: writers.py FILE")
        if arguments[0] == "-":
            report = judge(json.load(sys.stdin))
        else:
            with open(arguments[0], encoding="utf-8") as file:
                report = judge(json.load(file))
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        # Whatever it is: code 1, which Python would end with, says that something was found.
        print(f"writers.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report))
    if report["findings"]:
        return 1
    if not report["handovers"]:
        print("writers.py: nothing to judge: no BMC was written to by more than one process", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
