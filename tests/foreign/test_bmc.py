"""Self-check of the fake BMC: it must be consistent before it may judge anything else."""

from __future__ import annotations

import http.server
import json
import threading
import time
import unittest

from fake_client import ROOT, Fake, references
from families import PERSONALITIES


class TreeTest(unittest.TestCase):
    """Each family: the whole tree, by links only."""

    def test_walk(self) -> None:
        for name in PERSONALITIES:
            with self.subTest(personality=name), Fake(name) as fake:
                self.assertEqual(201, fake.login())
                self.walk(fake)
                self.actions(fake)

    def walk(self, fake: Fake) -> None:
        todo, seen, counts = [f"{ROOT}/"], {}, {}
        while todo:
            path = todo.pop()
            key = path.rstrip("/").lower()
            if key in seen:
                continue
            status, headers, body = fake.call("GET", path)
            self.assertEqual(200, status, path)
            self.assertEqual("4.0", headers["odata-version"])
            seen[key] = body
            self.assertIn("@odata.id", body, path)
            self.assertIn("@odata.type", body, path)
            self.assertIn("Name", body, path)
            if "Members@odata.count" in body:
                members = counts.setdefault(body["@odata.id"], [body["Members@odata.count"], set()])
                members[1].update(m["@odata.id"] for m in body["Members"])
            else:
                self.assertIn("Id", body, path)
                self.assertEqual(body["@odata.id"].rstrip("/").lower(), key.split("?")[0])
            for key_, value in body.items():
                if key_.endswith("@odata.count"):
                    self.assertIn(key_.removesuffix("@odata.count"), body)
            todo += [r.split("#")[0] for r in references(body)]
        for path, (count, members) in counts.items():
            self.assertEqual(count, len(members), path)
        self.assertGreater(len(seen), 150)

    def actions(self, fake: Fake) -> None:
        """A reset turns the power off, as the family shows it, and the log proves it."""
        system = fake.system()
        target = fake.get(system)["Actions"]["#ComputerSystem.Reset"]["target"]
        status, _, _ = fake.call("POST", target, {"ResetType": "ForceOff"})
        self.assertIn(status, (200, 202, 204))
        self.assertTrue(fake.until(lambda: fake.get(system)["PowerState"] == "Off"))
        records = [r for r in fake.control("/log") if r["path"] == target]
        self.assertTrue(any(e["what"].endswith("/power") and e["to"] == "Off" for e in records[0]["effect"]))
        status, _, body = fake.call("POST", target, {"ResetType": "Nonsense"})
        self.assertEqual(400, status)
        self.assertIn("@Message.ExtendedInfo", body["error"])
        self.assertEqual(404, fake.call("POST", system + "/Actions/ComputerSystem.Explode", {})[0])
        self.assertEqual(401, fake.call("GET", system, auth="none")[0])


class MachineTest(unittest.TestCase):
    """What the machine does, on the plain and on some deviating families."""

    def test_power_and_boot(self) -> None:
        with Fake("standard") as fake:
            fake.login()
            path = fake.system()
            reset = path + "/Actions/ComputerSystem.Reset"
            status, headers, body = fake.call(
                "PATCH",
                path,
                {
                    "Boot": {
                        "BootSourceOverrideEnabled": "Once",
                        "BootSourceOverrideTarget": "UefiHttp",
                        "HttpBootUri": "http://boot/x.efi",
                    }
                },
            )
            self.assertEqual((200, "UefiHttp"), (status, body["Boot"]["BootSourceOverrideTarget"]))
            self.assertEqual(412, fake.call("PATCH", path, {"AssetTag": "x"}, If_Match='"other"')[0])
            self.assertEqual(200, fake.call("PATCH", path, {"AssetTag": "x"}, If_Match=headers["etag"])[0])
            self.assertEqual(
                400, fake.call("PATCH", path, {"Boot": {"BootSourceOverrideTarget": "Moon"}, "AssetTag": "y"})[0]
            )
            self.assertEqual("x", fake.get(path)["AssetTag"])
            bios = fake.get(path)["Bios"]["@odata.id"]
            settings = fake.get(bios)["@Redfish.Settings"]["SettingsObject"]["@odata.id"]
            self.assertEqual(200, fake.call("PATCH", settings, {"Attributes": {"SysProfile": "Custom"}})[0])
            self.assertEqual(400, fake.call("PATCH", settings, {"Attributes": {"SysProfile": "Magic"}})[0])
            self.assertEqual("PerfPerWatt", fake.get(bios)["Attributes"]["SysProfile"])
            self.assertEqual(204, fake.call("POST", reset, {"ResetType": "GracefulRestart"})[0])
            self.assertTrue(fake.until(lambda: fake.control("/machine")["systems"]["S1"]["boots"]))
            boot = fake.control("/machine")["systems"]["S1"]["boots"][0]
            self.assertEqual(("UefiHttp", "http://boot/x.efi"), (boot["source"], boot["http_uri"]))
            self.assertEqual("Disabled", fake.get(path)["Boot"]["BootSourceOverrideEnabled"])
            self.assertEqual("Custom", fake.get(bios)["Attributes"]["SysProfile"])
            fake.until(lambda: fake.get(path)["BootProgress"]["LastState"] == "OSRunning")
            fake.rules(os_ignores_shutdown=True)
            fake.call("POST", reset, {"ResetType": "GracefulShutdown"})
            time.sleep(0.9)
            self.assertEqual("On", fake.get(path)["PowerState"])
            fake.control("/machine", {"systems": {"S1": {"power": "Off", "identity": {"serial": "OTHER"}}}})
            self.assertEqual(("Off", "OTHER"), (fake.get(path)["PowerState"], fake.get(path)["SerialNumber"]))
            self.assertEqual(409, fake.call("POST", reset, {"ResetType": "Nmi"})[0])

    def test_media(self) -> None:
        for name in ("standard", "dell", "lenovo", "supermicro", "hpe", "blade"):
            with self.subTest(personality=name), Fake(name) as fake:
                fake.login()
                place = fake.get(fake.system())
                if "VirtualMedia" not in place:
                    place = fake.get(fake.get(f"{ROOT}/Managers")["Members"][0]["@odata.id"])
                slot = fake.get(place["VirtualMedia"]["@odata.id"])["Members"][0]["@odata.id"]
                actions = fake.get(slot).get("Actions", {})
                if actions:
                    status = fake.call(
                        "POST", actions["#VirtualMedia.InsertMedia"]["target"], {"Image": "http://h/a.iso"}
                    )[0]
                else:
                    status = fake.call("PATCH", slot, {"Image": "http://h/a.iso", "Inserted": True})[0]
                self.assertIn(status, (200, 204))
                self.assertEqual(("http://h/a.iso", True), tuple(fake.get(slot)[k] for k in ("Image", "Inserted")))
                actions = fake.get(slot).get("Actions", {})
                if actions:
                    status = fake.call("POST", actions["#VirtualMedia.EjectMedia"]["target"], {})[0]
                else:
                    status = fake.call("PATCH", slot, {"Image": None, "Inserted": False})[0]
                self.assertIn(status, (200, 204))
                self.assertFalse(fake.get(slot)["Inserted"])

    def test_storage_and_tasks(self) -> None:
        for name in ("standard", "dell"):
            with self.subTest(personality=name), Fake(name) as fake:
                fake.login()
                storage = fake.get(fake.get(fake.get(fake.system())["Storage"]["@odata.id"])["Members"][0]["@odata.id"])
                drive = storage["Drives"][0]["@odata.id"]
                contents = lambda: [
                    d["content"]
                    for s in fake.control("/machine")["systems"].values()
                    for v in s["storage"].values()
                    for d in v["drives"].values()
                ]
                before = contents()
                status, headers, body = fake.call(
                    "POST", fake.get(drive)["Actions"]["#Drive.SecureErase"]["target"], {}
                )
                self.assertEqual(202, status)
                self.assertNotIn("Payload", body)
                self.assertEqual(before, contents())
                self.assertEqual("Running", fake.get(body["@odata.id"])["TaskState"])
                self.assertTrue(fake.until(lambda: fake.get(body["@odata.id"])["TaskState"] == "Completed"))
                self.assertEqual(1, sum(a != b for a, b in zip(before, contents())))
                if name == "standard":
                    self.assertEqual(200, fake.call("GET", headers["location"])[0])
                    self.assertEqual(404, fake.call("GET", headers["location"])[0])
                volumes = storage["Volumes"]["@odata.id"]
                status, headers, _ = fake.call(
                    "POST", volumes, {"RAIDType": "RAID1", "Name": "v", "Links": {"Drives": storage["Drives"][:2]}}
                )
                self.assertIn(status, (201, 202))
                self.assertTrue(fake.until(lambda: fake.get(volumes)["Members@odata.count"] == 1))
                self.assertEqual(
                    409, fake.call("POST", fake.get(drive)["Actions"]["#Drive.SecureErase"]["target"], {})[0]
                )
                self.assertIn(fake.call("DELETE", fake.get(volumes)["Members"][0]["@odata.id"])[0], (202, 204))
                self.assertTrue(fake.until(lambda: fake.get(volumes)["Members@odata.count"] == 0))

    def test_dell_bios_job(self) -> None:
        with Fake("dell") as fake:
            fake.login()
            path = fake.system()
            settings = path + "/Bios/Settings"
            change = {"Attributes": {"LogicalProc": "Disabled"}, "@Redfish.SettingsApplyTime": {"ApplyTime": "OnReset"}}
            status, headers, _ = fake.call("PATCH", settings, change)
            self.assertEqual(202, status)
            self.assertEqual("Scheduled", fake.get(headers["location"])["JobState"])
            self.assertEqual(400, fake.call("PATCH", settings, change)[0])
            fake.call("POST", path + "/Actions/ComputerSystem.Reset", {"ResetType": "ForceRestart"})
            self.assertTrue(fake.until(lambda: fake.get(headers["location"])["JobState"] == "Completed"))
            self.assertEqual("Disabled", fake.get(path + "/Bios")["Attributes"]["LogicalProc"])

    def test_update_and_bmc_reset(self) -> None:
        with Fake("openbmc", set={"bmc_reset_seconds": 0.6}) as fake:
            fake.login()
            body = (
                b'--x\r\nContent-Disposition: form-data; name="UpdateParameters"\r\nContent-Type: application/json\r\n\r\n{}\r\n'
                b'--x\r\nContent-Disposition: form-data; name="UpdateFile"; filename="bmc-3.1.0.tar"\r\n\r\n'
                + b"z" * 5000
                + b"\r\n--x--\r\n"
            )
            push = fake.get(f"{ROOT}/UpdateService")["MultipartHttpPushUri"]
            status, _, task = fake.call("POST", push, raw=body, Content_Type="multipart/form-data; boundary=x")
            self.assertEqual(202, status)
            self.assertTrue(fake.until(lambda: fake.control("/machine")["bmc"]["state"] == "down"))
            time.sleep(0.15)
            with self.assertRaises(OSError):
                fake.call("GET", f"{ROOT}/", fresh=True)
            self.assertTrue(fake.until(lambda: fake.control("/machine")["bmc"]["state"] == "up"))
            fake.reconnect()
            self.assertEqual(401, fake.call("GET", task["@odata.id"])[0])
            self.assertEqual(201, fake.login())
            self.assertEqual(404, fake.call("GET", task["@odata.id"])[0])
            self.assertEqual("3.1.0", fake.get(f"{ROOT}/Managers/bmc")["FirmwareVersion"])
            form = next(r for r in fake.control("/log") if r["path"] == push)["body"]["form"]
            self.assertEqual([("UpdateParameters", 2), ("UpdateFile", 5000)], [(p["name"], p["size"]) for p in form])


class AccessTest(unittest.TestCase):
    """Sessions, accounts, queries, events."""

    def test_sessions_and_lockout(self) -> None:
        with Fake("standard", set={"sessions_limit": 2}) as fake:
            self.assertEqual([201, 201, 503], [fake.login() for _ in range(3)])
            self.assertEqual(
                204, fake.call("DELETE", fake.get(f"{ROOT}/SessionService/Sessions")["Members"][0]["@odata.id"])[0]
            )
            self.assertEqual(201, fake.login())
            fake.control("/machine", {"account_policy": {"threshold": 2, "duration_seconds": 1}})
            self.assertEqual([401, 401, 401], [fake.login("wrong"), fake.login("wrong"), fake.login()])
            self.assertTrue(fake.get(f"{ROOT}/AccountService/Accounts/1")["Locked"])
            self.assertEqual(2, fake.control("/machine")["accounts"]["1"]["failed_logins"])
            time.sleep(1.1)
            fake.rules(sessions_limit=9)
            self.assertEqual(201, fake.login())
            fake.rules(login_fails_for=0.4)
            self.assertEqual(401, fake.login())
            time.sleep(0.5)
            self.assertEqual(201, fake.login())
            self.assertEqual(200, fake.call("GET", f"{ROOT}/Systems", auth="basic")[0])
            fake.control("/machine", {"session_timeout_seconds": 0.2})
            time.sleep(0.4)
            self.assertEqual(401, fake.call("GET", f"{ROOT}/Systems")[0])
            fake.control(
                "/machine", {"session_timeout_seconds": 60, "accounts": {"1": {"password_change_required": True}}}
            )
            self.assertEqual(201, fake.login())
            self.assertEqual(403, fake.call("GET", f"{ROOT}/Systems")[0])
            self.assertEqual(
                200, fake.call("PATCH", f"{ROOT}/AccountService/Accounts/1", {"Password": "another-Pw1"})[0]
            )
            self.assertEqual(200, fake.call("GET", f"{ROOT}/Systems")[0])

    def test_etag_families(self) -> None:
        for name, expected in (("hpe", [200, 412, 200]), ("ami", [428, 204, 412])):
            with self.subTest(personality=name), Fake(name) as fake:
                fake.login()
                path = fake.system()
                tag = fake.call("GET", path)[1]["etag"]
                led = {"LocationIndicatorActive": True} if name == "hpe" else {"IndicatorLED": "Lit"}
                got = [
                    fake.call("PATCH", path, led, **({"If_Match": value} if value else {}))[0]
                    for value in (None, "*", tag)
                ]
                if name == "hpe":
                    tag = fake.call("GET", path)[1]["etag"]
                    got[2] = fake.call("PATCH", path, led, If_Match=tag)[0]
                self.assertEqual(expected, got)

    def test_queries(self) -> None:
        with Fake("dell") as fake:
            fake.login()
            entries = f"{ROOT}/Managers/iDRAC.Embedded.1/LogServices/Lclog/Entries"
            first = fake.get(entries)
            self.assertEqual((50, 140), (len(first["Members"]), first["Members@odata.count"]))
            self.assertEqual(50, len(fake.get(first["Members@odata.nextLink"])["Members"]))
            warned = fake.get(entries + "?$filter=Severity%20eq%20'Critical'")
            self.assertTrue(all(m["Severity"] == "Critical" for m in warned["Members"]))
            self.assertIn("PowerState", fake.get(f"{ROOT}/Systems?$expand=.($levels=1)")["Members"][0])
            self.assertEqual(
                {"@odata.id", "@odata.type", "@odata.context", "PowerState"},
                set(fake.get(fake.system() + "?$select=PowerState")),
            )
        with Fake("openbmc") as fake:
            fake.login()
            self.assertEqual(501, fake.call("GET", f"{ROOT}/Systems?$expand=*")[0])

    def test_events(self) -> None:
        received = []

        class Receiver(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as server, Fake("standard") as fake:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            fake.login()
            status, _, _ = fake.call(
                "POST",
                f"{ROOT}/EventService/Subscriptions",
                {"Destination": f"http://127.0.0.1:{server.server_port}/", "Protocol": "Redfish", "Context": "me"},
            )
            self.assertEqual(201, status)
            stream = fake.connect()
            stream.request("GET", f"{ROOT}/EventService/SSE", headers={"X-Auth-Token": fake.token})
            events = stream.getresponse()
            fake.call(
                "POST", f"{ROOT}/EventService/Actions/EventService.SubmitTestEvent", {"MessageId": "Test.1.0.Hello"}
            )
            self.assertTrue(fake.until(lambda: received))
            self.assertEqual(("me", "Test.1.0.Hello"), (received[0]["Context"], received[0]["Events"][0]["MessageId"]))
            lines = [events.fp.readline() for _ in range(4)]
            self.assertIn(b"Test.1.0.Hello", b"".join(lines))
            stream.close()
            server.shutdown()


if __name__ == "__main__":
    unittest.main()
