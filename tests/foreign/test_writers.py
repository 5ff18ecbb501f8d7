"""Self-check of the judge of writers: each rule on a history that breaks it and on one that just does not."""

from __future__ import annotations

import copy
import functools
import json
import operator
import random
import subprocess
import sys
import unittest

import writers
from fake_client import Fake
from writers_history import Malformed
from writers_random import ROOT, SESSIONS, SYSTEM, break_history, legal_history, request

RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"
ERASE = f"{SYSTEM}/Storage/1/Drives/1/Actions/Drive.SecureErase"


def write(agent, at, ended=0.01, **fields):
    """A request; `ended` counts from its arrival, and None leaves it open."""
    return request(agent, at, None if ended is None else at + ended, **fields)


def outage(agent, kind, begin, end=None):
    return {"agent": agent, "kind": kind, "from": begin, "to": end}


def history(*records, outages=(), ended=None, started=None):
    """One BMC and the gateways a, b and c, which start at 0 and count each other out after 10 seconds."""
    records = [{"n": number, **record} for number, record in enumerate(records, 1)]
    gateways = [{"agent": agent, "started": (started or {}).get(agent, 0), "ended": (ended or {}).get(agent)}
                for agent in "abc"]
    return {"silence": 10.0, "bmcs": {"bmc": records}, "gateways": gateways, "outages": list(outages)}


class RuleTest(unittest.TestCase):
    def found(self, expected, *records, **facts):
        """What is found by rule, in which records."""
        found = {}
        for each in writers.judge(history(*records, **facts))["findings"]:
            found.setdefault(each["rule"], []).extend(each["records"])
        self.assertEqual(expected, found)

    def test_two_writers(self):
        self.found({"two-writers": [1, 2]}, write("a", 5, 2), write("b", 6.9))
        self.found({}, write("a", 5, 2), write("b", 7))
        self.found({"two-writers": [1, 3]}, write("a", 5, None), write("a", 6), write("b", 7, None))
        self.found({}, write("a", 5, 2, method="GET"), write("b", 6), write("a", 6, path=SESSIONS, method="POST"))
        self.found({"two-writers": [1, 2]}, write("a", 5, 2, path=f"{ROOT}/SessionService"), write("b", 6))
        # A process that died waits for nothing, even if the BMC goes on.
        for length in (None, 90):
            self.found({}, write("a", 20, length), write("b", 33), outages=[outage("a", "kill", 21)])
            self.found({}, write("a", 20, length), write("b", 33), ended={"a": 21})
            self.found({"two-writers": [1, 2]}, write("a", 20, length), write("b", 33), ended={"a": 34})

    def test_a_change_of_writer_needs_a_reason_of_its_own(self):
        rule = "took-turns-without-a-reason"
        self.found({}, write("a", 20), write("b", 30))  # the starts
        self.found({rule: [2, 3]}, write("a", 20), write("b", 30), write("a", 40))
        turns, later = [write("a", 20), write("b", 30), write("b", 40), write("a", 50)], {"a": 0, "b": 1, "c": 99}
        self.found({rule: [3, 4]}, *turns, started=later)
        for time in (29.1, 31, 49):  # who starts at 29.1 is no member before 30.1
            self.found({}, *turns, started={**later, "c": time})
        for time in (28.9, 50.1):
            self.found({rule: [3, 4]}, *turns, started={**later, "c": time})
        self.found({}, *turns, started=later, ended={"b": 45})
        for kind in ("pause", "partition", "kill", "stop"):
            self.found({}, *turns, started=later, outages=[outage("b", kind, 45)])
        for kind, found in (("pause", {}), ("partition", {}), ("kill", {rule: [3, 4]}), ("stop", {rule: [3, 4]})):
            # `to` of a kill or stop tells nothing: what is started then is another process.
            self.found(found, *turns, started=later, outages=[outage("c", kind, 5, 45)])

    def test_events_are_used_once(self):
        rule, later = "took-turns-without-a-reason", {"a": 0, "b": 1, "c": 1}
        turns = [write("a", 20), write("b", 30), write("a", 30.2), write("b", 30.4)]
        self.found({rule: [2, 3, 3, 4]}, *turns, started=later)
        self.found({}, *turns, started=later, outages=[outage("c", "pause", 29, 29.5)])  # its beginning and its end
        self.found({}, *turns, started=later, outages=[outage("c", "stop", 29)], ended={"c": 29.1})
        # A kill and the end that it brings are one event.
        self.found({rule: [3, 4]}, *turns, started=later, outages=[outage("c", "kill", 29)], ended={"c": 29.1})
        # The change at 30.2 may have either reason, the one at 30.4 only the second.
        for order in ("ab", "ba"):
            self.found({}, *turns, started=later, outages=[outage(agent, "partition", 29.9) for agent in order])
        self.found({}, *turns, started={**later, "c": 29.9}, outages=[outage("a", "partition", 28)])

    def test_a_loss_has_its_effect_when_it_is_noticed(self):
        # `b` writes for the first time while it is already cut off, and the BMC is taken over once it is counted out.
        changes, cut = [write("a", 20), write("b", 35), write("c", 43)], [outage("b", "partition", 32)]
        self.found({}, *changes, outages=cut, started={"a": 0, "b": 1, "c": 99})
        cut[0].update({"from": 24.9, "agent": "a"})
        self.found({"took-turns-without-a-reason": [2, 3]}, *changes, outages=cut, started={"a": 0, "b": 1, "c": 99})

    def test_retired_by_death(self):
        for facts in ({"ended": {"a": 30}}, {"outages": [outage("a", "kill", 30, 31)]}):
            self.found({}, write("a", 30.5), write("b", 31), **facts)
            self.found({"retired": [1]}, write("a", 30.6), write("b", 31), **facts)
            self.found({"retired": [2]}, write("b", 31), write("a", 80), **facts)
        self.found({}, write("a", 32), write("b", 33), outages=[outage("a", "stop", 30, 32)], ended={"a": 32})

    def test_retired_by_a_pause(self):
        for length in (5, 10, 10.1):
            facts = {"outages": [outage("a", "pause", 30, 30 + length)]}
            self.found({}, write("a", 30.5), **facts)
            self.found({"retired": [1]}, write("a", 30.6), **facts)
            self.found({"retired": [1]}, write("a", 29.9 + length), **facts)
            for after in (0, 0.1, 0.9):
                self.found({"retired": [1]} if length > 10 else {}, write("a", 30 + length + after), **facts)
            self.found({}, write("a", 31 + length), **facts)

    def test_retired_by_a_partition(self):
        for end in (None, 45):
            facts = {"outages": [outage("a", "partition", 30, end)]}
            self.found({}, write("a", 30), write("a", 40), **facts)
            self.found({"retired": [1]}, write("a", 40.1), **facts)
            self.found({"retired": [1]}, write("a", 45.9), **facts)
        self.found({}, write("a", 46.1), **facts)
        self.found({}, write("a", 40.1), outages=[outage("a", "partition", 30, 40)])
        # Two outages that overlap are one silence; between two that do not it was heard of.
        for end, found in ((37, {"retired": [1]}), (35, {})):
            outages = [outage("a", "pause", 36, 43), outage("a", "partition", 30, end)]
            self.found(found, write("a", 43.5), outages=outages)

    def test_repeated(self):
        erase = {"method": "POST", "path": ERASE, "body": {"Kind": 1, "Name": "x"}}
        again = {**erase, "body": {"Name": "x", "Kind": 1}}
        lost = write("a", 20, answer_lost=True, **erase)
        self.found({"repeated": [1, 2]}, lost, write("b", 31, **again))
        self.found({"repeated": [1, 3]}, lost, write("b", 30, path=RESET), write("b", 31, **again))
        self.found({"repeated": [1, 3]}, lost, write("a", 21, **erase | {"status": 503}), write("b", 31, **again))
        self.found({"repeated": [1, 3]}, lost, write("b", 21, **erase | {"method": "GET"}), write("b", 31, **again))
        self.found({}, lost, write("a", 21, **again), write("b", 31, **again))  # the repetition was answered
        self.found({}, lost, write("b", 21, **erase | {"body": {}}), write("b", 31, **again))
        self.found({}, lost, write("a", 31, **again))
        self.found({}, write("a", 20, **erase), write("b", 31, **again))
        self.found({"repeated": [1, 2]}, write("a", 20, None, **erase), write("b", 31, **again), ended={"a": 25})
        self.found({}, lost | {"path": SESSIONS}, write("b", 31, **erase | {"path": SESSIONS}))

    def test_repeated_around_an_outage(self):
        erase = {"method": "POST", "path": ERASE, "body": {}}
        for kind in ("kill", "pause", "partition", "stop"):
            cut = {"outages": [outage("a", kind, 20)]}
            self.found({"repeated": [1, 2]}, write("a", 19.6, **erase), write("b", 31, **erase), **cut)
            self.found({}, write("a", 19.4, **erase), write("b", 31, **erase), **cut)
            for at, length in ((20.4, 0.01), (15, 6)):  # it was on its way, it was open
                found = {} if kind == "stop" else {"repeated": [1, 2]}
                self.found(found, write("a", at, length, **erase), write("b", 31, **erase), **cut)

    def test_a_reset_may_be_repeated_when_it_names_a_state(self):
        for kind in ("On", "ForceOff", "GracefulShutdown", "ForceRestart", None, []):
            reset = {"method": "POST", "path": RESET, "body": {"ResetType": kind}}
            records = write("a", 20, answer_lost=True, **reset), write("b", 31, **reset)
            self.found({} if kind in writers.LASTING else {"repeated": [1, 2]}, *records)

    def test_session(self):
        use, end = {"method": "GET", "session": "5"}, {"method": "DELETE", "path": f"{SESSIONS}/5/", "status": 204}
        self.found({"session": [1, 2]}, write("a", 20, **use), write("b", 21.9, **end))
        self.found({"session": [1, 3]}, write("a", 20, **use), write("b", 21, **use), write("b", 21.9, **end))
        self.found({}, write("a", 20, **use), write("b", 22.1, **end))
        self.found({}, write("a", 20, **use), write("a", 21, **end, session="5"))
        self.found({}, write("a", 20, **use), write("b", 21, **end), ended={"a": 20.5})
        self.found({}, write("a", 20, **use | {"status": 401}), write("b", 21, **end))
        cut = [outage("a", "partition", 9)]  # who has lost the BMC has no right to the session either
        self.found({}, write("a", 20, **use), write("b", 21, **end), outages=cut)
        self.found({"session": [1, 2]}, write("a", 18.9, **use), write("b", 19.2, **end), outages=cut)
        self.found({"session": [1, 2]}, write("b", 20, **use), write("a", 21, **end), outages=cut)
        for change in ({"status": None}, {"status": 401}, {"method": "GET"}, {"path": f"{SYSTEM}/5"}):
            self.found({}, write("a", 20, **use), write("b", 21, **end | change))
        effect = {"effect": [{"what": "sessions/5", "to": None}], "answer_lost": True, "status": None}
        self.found({"session": [1, 2]}, write("a", 20, **use), write("b", 21, **end | effect))
        self.found({}, write("curl", 20, **use), write("b", 21, **end))
        self.found({}, write("a", 20, **use), write(None, 21, **end))


class HistoryTest(unittest.TestCase):
    """Histories that a seed makes up: nothing is found in the legal ones, and each violation that is put in is."""

    def test_legal_histories_and_violations(self):
        for seed in range(200):
            dice = random.Random(seed)
            legal = legal_history(dice)
            report = writers.judge(legal)
            self.assertEqual(([], True), (report["findings"], report["handovers"] > 0), seed)
            for rule in ("two-writers", "took-turns-without-a-reason", "retired", "repeated", "session"):
                broken = break_history(dice, rule, json.loads(json.dumps(legal)))
                rules = {each["rule"] for each in writers.judge(broken)["findings"]}
                self.assertIn(rule, rules, (seed, rule))


class CommandTest(unittest.TestCase):
    def run_on(self, document):
        text = document if isinstance(document, str) else json.dumps(document)
        done = subprocess.run([sys.executable, writers.__file__, "-"], input=text, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def test_exit_codes(self):
        code, out, _ = self.run_on(history(write("a", 5), write("b", 7)))
        report = {"writes": 2, "bmcs": 1, "runs": 2, "handovers": 1, "findings": []}
        self.assertEqual((0, report), (code, json.loads(out)))
        code, out, _ = self.run_on(history(write("a", 5, 3), write("b", 7)))
        self.assertEqual((1, "bmc"), (code, json.loads(out)["findings"][0]["bmc"]))
        for nothing in (history(), history(write("a", 5), write("b", 6, method="GET"))):
            code, _, error = self.run_on(nothing)
            self.assertEqual((2, True), (code, "nothing to judge" in error))
        for text in ("", "[]", "{", "[" * 99999, json.dumps(history(write("a", 5), write("z", 7)))):
            self.assertEqual((2, ""), self.run_on(text)[:2], text[:20])
        self.assertEqual(2, subprocess.call([sys.executable, writers.__file__], stderr=subprocess.DEVNULL))

    def test_malformed(self):
        good = history(write("a", 5), write("b", 7), outages=[outage("a", "pause", 20, 21)], ended={"b": 8})
        wrong = {
            "silence": ("9", 0, -1, None, True), "bmcs": (None, [], {"bmc": {}}, {"bmc": [3]}), "gateways": ({}, [3]),
            "outages": (None, {}), "n": ("1", None, True, 2), "at": ("5", None, float("nan"), 8), "path": (None, []),
            "method": (None, 1), "agent": (None, 1, [], "z"), "started": (None, "0", 9), "kind": (None, [], "nap"),
            "from": (None, "20", 22), "ended": (True, "9", -1), "to": ([], 19)}
        for place in ((), ("bmcs", "bmc", 0), ("gateways", 1), ("outages", 0)):
            keys = set(functools.reduce(operator.getitem, place, good)) & set(wrong)
            for key, value in [(key, value) for key in keys for value in (*wrong[key], KeyError)]:
                bad = copy.deepcopy(good)
                target = functools.reduce(operator.getitem, place, bad)
                target[key] = value
                if value is KeyError:
                    del target[key]
                with self.subTest(place=place, key=key, value=value):
                    self.assertRaises(Malformed, writers.judge, bad)
        good["bmcs"]["bmc"].reverse()
        self.assertEqual([], writers.judge(good)["findings"])  # numbers tell the order


class LogTest(unittest.TestCase):
    def test_on_logs_of_the_fake(self):
        with Fake("standard") as fake:
            fake.login()
            for agent in ("a", "b"):
                fake.call("PATCH", fake.system(), {"AssetTag": agent}, User_Agent=agent)
            fake.call("GET", f"{SESSIONS}", User_Agent="a")
            session = fake.control("/log")[-1]["session"]
            self.assertEqual(204, fake.call("DELETE", f"{SESSIONS}/{session}", User_Agent="b")[0])
            log = fake.control("/log")
        self.assertEqual({"a", "b", None}, {record["agent"] for record in log})
        report = writers.judge({**history(), "bmcs": {"fake": log}})
        self.assertEqual((2, 1, "session"), (report["writes"], report["handovers"], report["findings"][0]["rule"]))


if __name__ == "__main__":
    unittest.main()
