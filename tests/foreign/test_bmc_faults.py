"""Self-check of the faults that the fake BMC can be told to have, and of its certificates."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import unittest
import warnings

import tls
from fake_client import BMC, ROOT, Fake


class BehaviourTest(unittest.TestCase):
    """Each rule does what it says."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.fake = Fake("standard")
        cls.fake.login()
        cls.path = cls.fake.system()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.fake.__exit__()

    def tearDown(self) -> None:
        self.fake.control("/behaviour", [])

    def tag(self) -> str:
        return self.fake.control("/machine")["systems"]["S1"]["identity"]["asset_tag"]

    def patch(self, value: str, **do: object):
        match = {"method": "PATCH", "path": "/Systems/S1$", "times": 1}
        self.fake.rules({"match": match, "do": do})
        return self.fake.call("PATCH", self.path, {"AssetTag": value})

    def last(self) -> dict:
        return [r for r in self.fake.control("/log") if r["method"] == "PATCH"][-1]

    def test_lost(self) -> None:
        for do, acted in (("lose_request", False), ("lose_answer", True)):
            with self.assertRaises((OSError, http.client.HTTPException)):
                self.patch(do, **{do: True})
            self.assertEqual(acted, self.tag() == do)
            self.assertEqual(
                (None, True, acted), (self.last()["status"], self.last()["answer_lost"], bool(self.last()["effect"]))
            )
        self.fake.rules({"match": {"path": "/Systems/S1$"}, "do": {"hang": True}})
        with self.assertRaises(TimeoutError):
            self.fake.call("GET", self.path, timeout=0.3, fresh=True)

    def test_delays_overlap(self) -> None:
        self.fake.rules({"match": {"method": "GET", "path": "/Systems/S1$"}, "do": {"delay_answer": 0.4}})
        start = time.monotonic()
        threads = [
            threading.Thread(target=self.fake.call, args=("GET", self.path), kwargs={"fresh": True}) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertLess(time.monotonic() - start, 1.0)
        last = self.fake.control("/log")[-3:]
        self.assertLess(max(r["at"] for r in last), min(r["ended"] for r in last))

    def test_answers_without_acting(self) -> None:
        status, headers, body = self.patch("s", status=503, error="ResourceInUse", retry_after=7)
        self.assertEqual((503, "7"), (status, headers["retry-after"]))
        self.assertIn("ResourceInUse", body["error"]["@Message.ExtendedInfo"][0]["MessageId"])
        self.assertEqual("ignored", self.patch("ignored", ignore=True)[2]["AssetTag"])
        self.assertNotEqual("old", self.patch("old", old_value=True)[2]["AssetTag"])
        self.assertNotIn(self.tag(), ("s", "ignored", "old"))
        self.assertEqual([], self.last()["effect"])

    def test_late_and_task(self) -> None:
        self.assertEqual(204, self.patch("late", late={"seconds": 0.3, "status": 204})[0])
        self.assertNotEqual("late", self.tag())
        self.assertTrue(self.fake.until(lambda: self.tag() == "late"))
        self.assertEqual("late", self.last()["effect"][0]["to"])
        status, headers, body = self.patch("task", task={"seconds": 0.3, "payload": True})
        self.assertEqual((202, "PATCH"), (status, body["Payload"]["HttpOperation"]))
        self.assertEqual(202, self.fake.call("GET", headers["location"])[0])
        self.assertTrue(self.fake.until(lambda: self.tag() == "task"))
        body = self.patch("fails", task={"seconds": 0.1, "fails": True})[2]
        self.assertTrue(self.fake.until(lambda: self.fake.get(body["@odata.id"])["TaskState"] == "Exception"))
        body = self.patch("gone", task={"seconds": 0.1, "vanishes": True})[2]
        self.assertTrue(self.fake.until(lambda: self.fake.call("GET", body["@odata.id"])[0] == 404))
        self.assertEqual("gone", self.tag())

    def test_broken_bodies(self) -> None:
        match = {"method": "GET", "path": "/Systems/S1$|/Chassis$|/Processors$"}
        self.fake.rules({"match": match, "do": {"garbage": True}})
        self.assertIsInstance(self.fake.call("GET", self.path)[2], bytes)
        self.fake.rules({"match": match, "do": {"truncate": True}})
        with self.assertRaises(http.client.IncompleteRead):
            self.fake.call("GET", self.path)
        self.fake.rules({"match": match, "do": {"wrong_type": {"PowerState": 5, "Boot/BootOrder": "x"}}})
        self.assertEqual(
            (5, "x"), (self.fake.get(self.path)["PowerState"], self.fake.get(self.path)["Boot"]["BootOrder"])
        )
        self.fake.rules({"match": match, "do": {"huge": 100000}})
        self.assertGreater(len(self.fake.get(self.path)["Padding"]), 99999)
        self.fake.rules({"match": match, "do": {"drop_member": "CPU1"}})
        cpus = self.fake.get(self.path + "/Processors")
        self.assertEqual((2, 1), (cpus["Members@odata.count"], len(cpus["Members"])))
        self.fake.rules({"match": match, "do": {"error_member": 0}})
        self.assertIn("error", self.fake.get(self.path + "/Processors")["Members"][0])
        self.fake.rules(http_error_in_200="/Systems/S1$")
        self.assertEqual(["error"], list(self.fake.get(self.path)))
        self.fake.rules(http_error_in_200=None, unauthorized_paths=["/Systems/S1$"])
        self.assertEqual(401, self.fake.call("GET", self.path)[0])
        self.fake.rules(unauthorized_paths=[])

    def test_counting(self) -> None:
        self.fake.rules({"match": {"path": "/Systems/S1$", "nth": 2}, "do": {"status": 500}})
        self.assertEqual([200, 500, 200], [self.fake.call("GET", self.path)[0] for _ in range(3)])
        self.fake.rules({"match": {"path": "/Systems/S1$", "for_seconds": 0.3}, "do": {"status": 500}})
        self.assertEqual(500, self.fake.call("GET", self.path)[0])
        time.sleep(0.35)
        self.assertEqual(200, self.fake.call("GET", self.path)[0])
        with self.assertRaises(ValueError):
            self.fake.rules({"match": {}, "do": {"explode": True}})


class TlsTest(unittest.TestCase):
    """Certificates and old TLS."""

    @staticmethod
    def peer(fake: Fake) -> tuple[str, str]:
        """Fingerprint and TLS version that the fake shows."""
        context = ssl._create_unverified_context()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with (
            socket.create_connection((fake.hello["host"], fake.hello["port"]), 5) as plain,
            context.wrap_socket(plain) as secure,
        ):
            return tls.describe(ssl.DER_cert_to_PEM_cert(secure.getpeercert(True)))["fingerprint"], secure.version()

    def test_certificates(self) -> None:
        with Fake("standard", scheme="https", tls={"key": "ec256"}) as fake:
            fake.login()
            first, _ = self.peer(fake)
            self.assertEqual(first, fake.control("/machine")["certificate"]["fingerprint"])
            target = fake.get(f"{ROOT}/CertificateService/CertificateLocations")["Links"]["Certificates"][0]
            certificate, key = tls.make_certificate({"key": "ec256", "names": ["new"]})
            actions = fake.get(f"{ROOT}/CertificateService")["Actions"]
            replace = actions["#CertificateService.ReplaceCertificate"]["target"]
            body = {"CertificateString": certificate, "CertificateType": "PEM", "CertificateUri": target}
            self.assertEqual(400, fake.call("POST", replace, body)[0])
            self.assertEqual(204, fake.call("POST", replace, {**body, "CertificateString": certificate + key})[0])
            self.assertEqual(tls.describe(certificate)["fingerprint"], self.peer(fake)[0])
            status, _, csr = fake.call(
                "POST",
                actions["#CertificateService.GenerateCSR"]["target"],
                {"CommonName": "bmc", "CertificateCollection": {"@odata.id": target["@odata.id"].rsplit("/", 1)[0]}},
            )
            self.assertEqual(200, status)
            self.assertIn("BEGIN CERTIFICATE REQUEST", csr["CSRString"])
            fake.control("/tls", {"key": "rsa1024", "signature": "sha1", "version": "1.0", "x509": 1, "expired": True})
            self.assertEqual("TLSv1", self.peer(fake)[1])
            self.assertEqual("TLSv1.3", fake.control("/log")[0]["tls"]["version"])

    def test_impossible(self) -> None:
        done = subprocess.run(
            [sys.executable, str(BMC), "--scheme", "https", "--tls", '{"key": "ed25519", "version": "1.0"}'],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        self.assertEqual(3, done.returncode)
        self.assertIn("error", json.loads(done.stdout))


if __name__ == "__main__":
    unittest.main()
