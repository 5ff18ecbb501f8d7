"""Self-check of the fakes of the tools that erase drives: they must agree with the standards before they may judge anything."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from typing import Any, NamedTuple

TOOLS = pathlib.Path(__file__).parent / "drive_tools"
NAMES = ("nvme", "hdparm", "sg_opcodes", "sg_sanitize", "sg_format")
SIZE = 8192
ALL = ("block", "crypto", "overwrite")
KNOWS = "--yes-i-know-what-i-am-doing"

sys.path.insert(0, str(TOOLS))
import drive as drives  # noqa: E402
import scsi  # noqa: E402, F401

CODE = {name: compile((TOOLS / name).read_text(encoding="utf-8"), str(TOOLS / name), "exec") for name in NAMES}


class Ran(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


def child(tool: str, argv: list[str], out: int, err: int) -> None:
    """The tool in a child of this process, without the start of an interpreter."""
    code = 70
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8")
        sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), encoding="utf-8")
        sys.argv = [tool, *argv]
        try:
            exec(CODE[tool], {"__name__": "__main__", "__file__": str(TOOLS / tool)})
        except SystemExit as end:
            code = int(end.code or 0)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
    finally:
        os._exit(code)


class DriveTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dev = pathlib.Path(folder.name)
        self.before: dict[str, bytes] = {}

    def make(self, name: str, **description: Any) -> str:
        """A drive; the path of its node. For NVMe, `name` is a controller with two namespaces."""
        nodes = [f"{name}n1", f"{name}n2"] if description["kind"] == "nvme" else [name]
        for node in nodes:
            self.before[node] = os.urandom(SIZE)
            (self.dev / node).write_bytes(self.before[node])
        self.describe(name, **description)
        return str(self.dev / name)

    def describe(self, name: str, **description: Any) -> None:
        (self.dev / f"{name}.drive.json").write_text(json.dumps(description), encoding="utf-8")

    def call(self, tool: str, *argv: str) -> Ran:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if pid == 0:
                child(tool, list(argv), out.fileno(), err.fileno())
            _, status = os.waitpid(pid, 0)
            out.seek(0)
            err.seek(0)
            return Ran(os.waitstatus_to_exitcode(status), out.read(), err.read().decode())

    def works(self, tool: str, *argv: str) -> Ran:
        ran = self.call(tool, *argv)
        self.assertEqual(0, ran.code, ran)
        return ran

    def data(self, node: str) -> bytes:
        return (self.dev / node).read_bytes()

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.dev / "tools.log").read_text(encoding="utf-8").splitlines()]

    def unchanged(self, node: str) -> None:
        self.assertEqual(self.before[node], self.data(node))

    def zeros(self, node: str) -> None:
        self.assertEqual(bytes(SIZE), self.data(node))

    def scrambled(self, node: str) -> None:
        data = self.data(node)
        self.assertEqual(SIZE, len(data))
        self.assertNotEqual(self.before[node], data)
        self.assertGreater(len(set(data)), 200)


class NvmeTest(DriveTest):
    def page(self, path: str) -> tuple[int, int, int]:
        """SPROG, SSTAT and SCDW10 of the Sanitize Status log."""
        page = self.works("nvme", "sanitize-log", path, "--raw-binary").out
        self.assertEqual(512, len(page))
        return struct.unpack_from("<HHI", page, 0)

    def test_identify(self) -> None:
        path = self.make("nvme0", kind="nvme", sanitize=["block", "crypto"], format=True, format_crypto=True, serial="S1", model="M1")
        data = self.works("nvme", "id-ctrl", path, "--raw-binary").out
        self.assertEqual(4096, len(data))
        self.assertEqual((b"S1", b"M1"), (data[4:24].rstrip(), data[24:64].rstrip()))
        self.assertTrue(data[256] & 0x02)
        self.assertEqual(0b011, struct.unpack_from("<I", data, 328)[0])
        self.assertEqual(2, struct.unpack_from("<I", data, 516)[0])
        self.assertEqual(0b100, data[524])
        self.assertEqual(data, self.works("nvme", "id-ctrl", "-b", path + "n1").out)
        self.assertEqual(data, self.works("nvme", "id-ctrl", "--output-format=binary", path).out)
        told = json.loads(self.works("nvme", "id-ctrl", path, "-o", "json").text)
        self.assertEqual((6, 3, 2, 4), (told["oacs"], told["sanicap"], told["nn"], told["fna"]))

    def test_identify_bits(self) -> None:
        plain = self.works("nvme", "id-ctrl", "-b", self.make("nvme0", kind="nvme")).out
        self.assertEqual((0, 0, 0), (plain[256] & 2, struct.unpack_from("<I", plain, 328)[0], plain[524]))
        full = self.works("nvme", "id-ctrl", "-b", self.make("nvme1", kind="nvme", sanitize=ALL, format=True, format_all_namespaces=True)).out
        self.assertEqual((2, 0b111, 0b011), (full[256] & 2, struct.unpack_from("<I", full, 328)[0], full[524]))

    def test_namespace(self) -> None:
        path = self.make("nvme0", kind="nvme")
        data = self.works("nvme", "id-ns", path + "n1", "--raw-binary").out
        self.assertEqual(4096, len(data))
        lbads = data[128 + 4 * (data[26] & 15) + 2]
        self.assertEqual(SIZE, struct.unpack_from("<Q", data, 0)[0] << lbads)
        self.assertEqual(data, self.works("nvme", "id-ns", path, "-n", "1", "-b").out)
        self.assertIn("get-namespace-id", self.call("nvme", "id-ns", path, "-b").err)
        self.assertIn("0x400b", self.call("nvme", "id-ns", path, "-n", "9").err)

    def test_sanitize(self) -> None:
        path = self.make("nvme0", kind="nvme", sanitize=ALL)
        self.assertEqual((0xFFFF, 0), self.page(path)[:2])
        self.works("nvme", "sanitize", path, "--sanact=4")
        self.scrambled("nvme0n1")
        self.scrambled("nvme0n2")
        self.works("nvme", "sanitize", path + "n1", "-a", "start-block-erase", "--ause")
        self.zeros("nvme0n1")
        self.zeros("nvme0n2")
        sprog, sstat, cdw10 = self.page(path + "n2")
        self.assertEqual((0xFFFF, 1, 1, 0b1010), (sprog, sstat & 7, sstat >> 8 & 1, cdw10))
        self.works("nvme", "sanitize", path, "--sanact", "3", "--ovrpat=0x04030201", "--owpass=2")
        self.assertEqual(bytes([1, 2, 3, 4]) * (SIZE // 4), self.data("nvme0n1"))
        self.assertEqual(2, self.page(path)[1] >> 3 & 0x1F)

    def test_sanitize_takes_time(self) -> None:
        path = self.make("nvme0", kind="nvme", sanitize=["block"], format=True, seconds=0.3)
        self.works("nvme", "sanitize", path, "--sanact=2")
        self.unchanged("nvme0n1")
        sprog, sstat, _ = self.page(path)
        self.assertEqual(2, sstat & 7)
        self.assertLess(sprog, 0xFFFF)
        self.assertIn("0x401d", self.call("nvme", "sanitize", path, "--sanact=2").err)
        self.assertIn("0x401d", self.call("nvme", "format", path + "n1", "--ses=1", "--force").err)
        self.works("nvme", "id-ctrl", path)
        time.sleep(0.35)
        told = json.loads(self.works("nvme", "sanitize-log", path, "-o", "json").text)["nvme0"]
        self.assertEqual((65535, "(1) "), (told["sprog"], told["sstat"]["status"][:4]))
        self.zeros("nvme0n1")

    def test_sanitize_no_deallocate(self) -> None:
        path = self.make("nvme0", kind="nvme", sanitize=["block"], no_deallocate_inhibited=True)
        self.works("nvme", "sanitize", path, "--sanact=2", "--no-dealloc")
        self.assertEqual(4, self.page(path)[1] & 7)

    def test_sanitize_fails(self) -> None:
        path = self.make("nvme0", kind="nvme", sanitize=["block"], format=True, fault="fails")
        self.works("nvme", "sanitize", path, "--sanact=2")
        self.assertEqual(3, self.page(path)[1] & 7)
        self.unchanged("nvme0n1")
        self.assertIn("0x401c", self.call("nvme", "format", path + "n1", "--ses=1", "--force").err)
        self.assertIn("0x401c", self.call("nvme", "sanitize", path, "--sanact=1").err)
        self.works("nvme", "sanitize", path, "--sanact=2")
        self.assertIn("0x401c", self.call("nvme", "sanitize", path, "--sanact=2", "--ause").err)
        self.describe("nvme0", kind="nvme", sanitize=["block"], format=True)
        self.works("nvme", "sanitize", path, "--sanact=2")
        self.works("nvme", "format", path + "n1", "--ses=1", "--force")

    def test_sanitize_refused(self) -> None:
        path = self.make("nvme0", kind="nvme", sanitize=["block"])
        for argv in (["--sanact=4"], [], ["--sanact=9"], ["--sanact=1", "--ause"], ["--sanact=2", "--owpass=1"], ["--sanact=3", "--owpass=16"]):
            self.assertEqual(1, self.call("nvme", "sanitize", path, *argv).code, argv)
        without = self.make("nvme1", kind="nvme")
        self.assertIn("0x4001", self.call("nvme", "sanitize", without, "--sanact=2").err)
        self.assertIn("0x4109", self.call("nvme", "sanitize-log", without, "-b").err)
        self.unchanged("nvme0n1")

    def test_format(self) -> None:
        path = self.make("nvme0", kind="nvme", format=True, format_crypto=True)
        warned = self.works("nvme", "format", path + "n1", "--ses=0")
        self.assertIn("You have 10 seconds", warned.err)
        self.unchanged("nvme0n1")
        quiet = self.works("nvme", "format", path + "n1", "-s", "1", "-n", "1", "--lbaf=0", "--timeout=1000", "--force")
        self.assertEqual(("", "Success formatting namespace:1\n"), (quiet.err, quiet.text))
        self.zeros("nvme0n1")
        self.unchanged("nvme0n2")
        self.works("nvme", "format", path, "--namespace-id=0xffffffff", "--ses=2", "--force")
        self.scrambled("nvme0n2")
        self.assertIn("get-namespace-id", self.call("nvme", "format", path, "--ses=1", "--force").err)

    def test_format_of_all_namespaces(self) -> None:
        for index, key in enumerate(("format_all_namespaces", "erase_all_namespaces")):
            path = self.make(f"nvme{index}", kind="nvme", format=True, **{key: True})
            self.works("nvme", "format", path + "n1", "--ses=1", "--force")
            self.zeros(f"nvme{index}n2")

    def test_format_sets_the_block_size(self) -> None:
        path = self.make("nvme0", kind="nvme", format=True)
        self.works("nvme", "format", path + "n1", "--block-size=4k", "--force")
        data = self.works("nvme", "id-ns", path + "n1", "-b").out
        self.assertEqual((1, SIZE // 4096), (data[26] & 15, struct.unpack_from("<Q", data, 0)[0]))

    def test_format_refused(self) -> None:
        path = self.make("nvme0", kind="nvme", format=True, busy=True)
        self.assertIn("busy", self.call("nvme", "format", path + "n1", "--ses=1").err)
        self.assertIn("0x4002", self.call("nvme", "format", path + "n1", "--ses=2", "--force").err)
        self.assertIn("0x410a", self.call("nvme", "format", path + "n1", "--lbaf=7", "--force").err)
        self.assertIn("0x400b", self.call("nvme", "format", path, "-n", "7", "--force").err)
        self.assertIn("0x4001", self.call("nvme", "format", self.make("nvme1", kind="nvme") + "n1", "--force").err)
        self.unchanged("nvme0n1")

    def test_format_longer_than_its_timeout(self) -> None:
        path = self.make("nvme0", kind="nvme", format=True, seconds=30)
        self.assertIn("0x371", self.call("nvme", "format", path + "n1", "--ses=1", "--force", "-t", "50").err)

    def test_versions(self) -> None:
        path = self.make("nvme0", kind="nvme", sanitize=["block"], nvme_cli="2.0")
        self.assertEqual(1, self.call("nvme", "sanitize", path, "--sanact=start-block-erase").code)
        self.assertEqual(1, self.call("nvme", "sanitize", path, "--sanact=2", "--verbose").code)
        self.works("nvme", "sanitize", path, "--sanact=2")

    def test_command_line(self) -> None:
        path = self.make("nvme0", kind="nvme", sanitize=["block"], format=True)
        for argv in (
            ["sanitize"],
            ["sanitize", "--sanact=2"],
            ["sanitize", path, "--sanact=2", "--force"],
            ["sanitize", path, "--sanact=2x"],
            ["sanitize", path, "-a"],
            ["sanitize", path, "extra", "--sanact=2"],
            ["sanitize", path + "n9", "--sanact=2"],
            ["format", path + "n1", "--force=1"],
            ["format", path + "n1", "--ses=256", "--force"],
            ["id-ctrl", path, "-o", "xml"],
            ["erase", path],
        ):
            self.assertEqual(1, self.call("nvme", *argv).code, argv)
        self.unchanged("nvme0n1")


class AtaTest(DriveTest):
    SECURE = {"kind": "ata", "security": True, "enhanced": True}

    def words(self, path: str) -> list[int]:
        ran = self.works("hdparm", "--Istdout", path)
        lines = ran.text.splitlines()
        self.assertEqual(["", f"{path}:"], lines[:2])
        self.assertEqual(34, len(lines))
        for line in lines[2:]:
            self.assertRegex(line, r"^[0-9a-f]{4}( [0-9a-f]{4}){7}$")
        words = [int(word, 16) for line in lines[2:] for word in line.split(" ")]
        self.assertEqual(0xA5, words[255] & 0xFF)
        self.assertEqual(0, sum(struct.pack("<256H", *words)) & 0xFF)
        return words

    def state(self, path: str) -> tuple[bool, ...]:
        """Supported, enabled, locked, frozen, count expired, as word 128 tells."""
        word = self.words(path)[128]
        return tuple(bool(word >> bit & 1) for bit in range(5))

    def password(self, path: str, *argv: str) -> Ran:
        return self.call("hdparm", "--user-master", "u", *argv, path)

    def test_identify(self) -> None:
        words = self.words(self.make("sda", **self.SECURE, sanitize=["block", "crypto"], minutes=10, serial="S1", model="M1"))
        self.assertEqual(b"S1", struct.pack(">10H", *words[10:20]).strip())
        self.assertEqual(b"M1", struct.pack(">20H", *words[27:47]).strip())
        self.assertEqual((1, 1, 0, 1), tuple(words[59] >> bit & 1 for bit in (12, 13, 14, 15)))
        self.assertEqual((1, 0), (words[82] >> 1 & 1, words[85] >> 1 & 1))
        self.assertEqual((5, 5), (words[89], words[90]))
        self.assertEqual(0b100001, words[128])
        self.assertEqual(SIZE // 512, struct.unpack("<Q", struct.pack("<4H", *words[100:104]))[0])

    def test_identify_without(self) -> None:
        words = self.words(self.make("sda", kind="ata"))
        self.assertEqual((0, 0, 0, 0), (words[59] >> 12, words[82] >> 1 & 1, words[128], words[89]))
        long = self.words(self.make("sdb", kind="ata", security=True, minutes=1000))
        self.assertEqual((0x8000 | 500, 0), (long[89], long[90]))

    def test_erase(self) -> None:
        path = self.make("sda", **self.SECURE)
        refused = self.password(path, "--security-erase", "p")
        self.assertEqual((5, True), (refused.code, "SECURITY_ERASE: Input/output error" in refused.err))
        self.assertEqual(0, self.password(path, "--security-set-pass", "p").code)
        self.assertEqual((True, True, False, False, False), self.state(path))
        self.assertEqual(1, self.words(path)[85] >> 1 & 1)
        self.assertEqual(5, self.password(path, "--security-erase", "q").code)
        self.unchanged("sda")
        self.assertEqual(0, self.password(path, "--security-erase", "p").code)
        self.zeros("sda")
        self.assertEqual((True, False, False, False, False), self.state(path))

    def test_erase_enhanced(self) -> None:
        for name, enhanced, code in (("sda", True, 0), ("sdb", False, 5)):
            path = self.make(name, kind="ata", security=True, enhanced=enhanced)
            self.password(path, "--security-set-pass", "p")
            self.assertEqual(code, self.password(path, "--security-erase-enhanced", "p").code)
        self.zeros("sda")
        self.unchanged("sdb")

    def test_erase_takes_time(self) -> None:
        path = self.make("sda", **self.SECURE, seconds=0.2)
        self.password(path, "--security-set-pass", "p")
        began = time.monotonic()
        self.assertEqual(0, self.password(path, "--security-erase", "p").code)
        self.assertGreater(time.monotonic() - began, 0.19)
        self.zeros("sda")

    def test_frozen(self) -> None:
        path = self.make("sda", **self.SECURE, frozen=True)
        self.assertTrue(self.state(path)[3])
        self.assertEqual(5, self.password(path, "--security-set-pass", "p").code)
        self.assertIn("ERASE_PREPARE", self.password(path, "--security-erase", "p").err)

    def test_locked(self) -> None:
        path = self.make("sda", **self.SECURE, sanitize=["block"], locked_with="old")
        self.assertEqual((True, True, True, False, False), self.state(path))
        self.assertEqual(5, self.password(path, "--security-set-pass", "p").code)
        self.assertEqual(5, self.call("hdparm", KNOWS, "--sanitize-block-erase", path).code)
        self.assertEqual(0, self.password(path, "--security-unlock", "old").code)
        self.assertFalse(self.state(path)[2])
        drives.power_cycle(path)
        self.assertTrue(self.state(path)[2])
        self.assertEqual(0, self.password(path, "--security-disable", "old").code)
        self.assertEqual((True, False, False, False, False), self.state(path))

    def test_locked_drive_can_be_erased(self) -> None:
        path = self.make("sda", **self.SECURE, locked_with="old")
        self.assertEqual(0, self.password(path, "--security-erase", "old").code)
        self.zeros("sda")
        self.assertEqual((True, False, False, False, False), self.state(path))

    def test_attempts(self) -> None:
        path = self.make("sda", **self.SECURE, locked_with="old")
        for _ in range(5):
            self.assertEqual(5, self.password(path, "--security-unlock", "new").code)
        self.assertTrue(self.state(path)[4])
        self.assertEqual(5, self.password(path, "--security-erase", "old").code)
        drives.power_cycle(path)
        self.assertEqual(0, self.password(path, "--security-erase", "old").code)

    def test_master_password_enables_nothing(self) -> None:
        path = self.make("sda", **self.SECURE)
        self.works("hdparm", "--user-master", "m", "--security-set-pass", "p", path)
        self.assertFalse(self.state(path)[1])
        self.assertEqual(5, self.call("hdparm", "--user-master", "m", "--security-erase", "p", path).code)

    def test_erase_fails(self) -> None:
        for name, fault in (("sda", "fails"), ("sdb", "refuses")):
            path = self.make(name, **self.SECURE, fault=fault)
            self.password(path, "--security-set-pass", "p")
            self.assertEqual(5, self.password(path, "--security-erase", "p").code)
            self.assertTrue(self.state(path)[1])
            self.unchanged(name)

    def test_sanitize(self) -> None:
        path = self.make("sda", kind="ata", sanitize=ALL)
        idle = self.works("hdparm", "--sanitize-status", path).text
        self.assertIn("SD0 Sanitize Idle", idle)
        self.assertNotIn("Completed Without Error", idle)
        started = self.works("hdparm", KNOWS, "--sanitize-crypto-scramble", path)
        self.assertIn("Operation started in background", started.text)
        self.scrambled("sda")
        self.works("hdparm", KNOWS, "--sanitize-block-erase", path)
        self.zeros("sda")
        self.works("hdparm", KNOWS, "--sanitize-overwrite-passes", "1", "--sanitize-overwrite", "hex:04030201", path)
        self.assertEqual(bytes([1, 2, 3, 4]) * (SIZE // 4), self.data("sda"))
        self.assertIn("Last Sanitize Operation Completed Without Error", self.works("hdparm", "--sanitize-status", path).text)

    def test_sanitize_takes_time(self) -> None:
        path = self.make("sda", kind="ata", sanitize=["block"], seconds=0.2)
        self.works("hdparm", KNOWS, "--sanitize-block-erase", path)
        status = self.works("hdparm", "--sanitize-status", path).text
        self.assertRegex(status, r"SD2 Sanitize operation In Process\n    Progress: 0x[0-9a-f]+ \(\d+%\)")
        self.assertEqual(5, self.call("hdparm", KNOWS, "--sanitize-block-erase", path).code)
        self.unchanged("sda")
        time.sleep(0.25)
        self.assertIn("SD0", self.works("hdparm", "--sanitize-status", path).text)
        self.zeros("sda")

    def test_sanitize_refused(self) -> None:
        path = self.make("sda", kind="ata", sanitize=["block"])
        self.assertEqual(1, self.call("hdparm", "--sanitize-block-erase", path).code)
        unsupported = self.call("hdparm", KNOWS, "--sanitize-crypto-scramble", path)
        self.assertEqual((5, True), (unsupported.code, "Unsupported command" in unsupported.err))
        frozen = self.call("hdparm", KNOWS, "--sanitize-block-erase", self.make("sdb", kind="ata", sanitize=["block"], sanitize_frozen=True))
        self.assertEqual((5, True), (frozen.code, "Device in FROZEN state" in frozen.err))
        self.assertEqual(22, self.call("hdparm", "--sanitize-status", self.make("sdc", kind="ata")).code)
        self.unchanged("sda")

    def test_sanitize_fails(self) -> None:
        path = self.make("sda", kind="ata", sanitize=["block"], fault="fails")
        self.works("hdparm", KNOWS, "--sanitize-block-erase", path)
        status = self.call("hdparm", "--sanitize-status", path)
        self.assertEqual(5, status.code)
        self.assertIn("Last Sanitize Command completed unsuccessfully", status.err)
        self.unchanged("sda")

    def test_order_of_options(self) -> None:
        path = self.make("sda", **self.SECURE, sanitize=["block"])
        for argv in (
            [],
            ["--Istdout"],
            ["--bogus", path],
            ["--user-master=u", path],
            ["--security-set-pass", path],
            ["--security-set-pass", "p", "--user-master", "u", path],
            ["--sanitize-block-erase", KNOWS, path],
            ["--Istdout", "--security-erase", "p", path],
            ["--security-set-pass", "p" * 33, path],
            [KNOWS, "--sanitize-overwrite", "00000000", path],
        ):
            self.assertEqual(22, self.call("hdparm", *argv).code, argv)
        self.assertEqual(2, self.call("hdparm", "--Istdout", str(self.dev / "sdz")).code)
        self.unchanged("sda")

    def test_drives_that_are_not_ata(self) -> None:
        scsi_path = self.make("sda", kind="scsi")
        blind = self.works("hdparm", "--Istdout", scsi_path)
        self.assertIn("bad/missing sense data", blind.err)
        self.assertEqual({"0000"}, set(blind.text.split()[1:]))
        self.works("hdparm", "--security-erase", "p", scsi_path)
        self.unchanged("sda")
        none = self.works("hdparm", "--Istdout", self.make("nvme0", kind="nvme") + "n1")
        self.assertEqual(1, len(none.text.split()))


class ScsiTest(DriveTest):
    def one(self, path: str, opcode: str) -> bytes:
        return self.works("sg_opcodes", "--raw", f"--opcode={opcode}", path).out

    def test_opcodes(self) -> None:
        path = self.make("sda", kind="scsi", sanitize=["block", "overwrite"], scsi_format=True)
        block = self.one(path, "0x48,2")
        self.assertEqual((3, 10, 14), (block[1] & 7, struct.unpack_from(">H", block, 2)[0], len(block)))
        self.assertEqual((0x48, 0x02), (block[4], block[5] & 0x1F))
        self.assertTrue(block[5] & 0x80)
        self.assertEqual(3, self.one(path, "48h,1")[1] & 7)
        self.assertEqual(bytes([0, 1, 0, 0]), self.one(path, "72,3"))
        self.assertEqual((3, 6), (self.one(path, "4")[1] & 7, self.one(path, "4")[3]))
        self.assertEqual(block, self.works("sg_opcodes", "-r", "-o", "0x48", "-s", "2", path).out)
        self.assertIn("Command is supported [conforming to SCSI standard]", self.works("sg_opcodes", "--opcode=0x48,2", path).text)
        self.assertIn("Command is NOT supported", self.works("sg_opcodes", "--opcode=0x48,3", path).text)

    def test_opcodes_with_timeouts(self) -> None:
        data = self.works("sg_opcodes", "--raw", "--rctd", "--opcode=0x48,2", self.make("sda", kind="scsi", sanitize=["block"])).out
        self.assertEqual((0x80, 4 + 10 + 12), (data[1] & 0x80, len(data)))

    def test_opcodes_list(self) -> None:
        data = self.works("sg_opcodes", "-r", self.make("sda", kind="scsi", sanitize=["crypto"])).out
        self.assertEqual(len(data), struct.unpack_from(">I", data, 0)[0] + 4)
        self.assertEqual(0, (len(data) - 4) % 8)
        found = {(data[at], struct.unpack_from(">H", data, at + 2)[0]) for at in range(4, len(data), 8)}
        self.assertLessEqual({(0x48, 3), (0x48, 0x1F), (0xA3, 0x0C)}, found)
        self.assertNotIn((0x48, 2), found)

    def test_opcodes_refused(self) -> None:
        path = self.make("sda", kind="scsi", sanitize=["block"], scsi_format=True)
        self.assertEqual(5, self.call("sg_opcodes", "--opcode=0x48", path).code)
        self.assertEqual(5, self.call("sg_opcodes", "--opcode=4,0", path).code)
        self.assertEqual(9, self.call("sg_opcodes", "-r", "-o", "4", self.make("sdb", kind="scsi", report_opcodes=False)).code)
        self.assertEqual(bytes(4), self.works("sg_opcodes", "-r", "-o", "0x48", self.make("sdc", kind="ata", sanitize=["block"])).out)

    def test_sanitize_and_wait(self) -> None:
        path = self.make("sda", kind="scsi", sanitize=ALL, seconds=0.15)
        began = time.monotonic()
        quiet = self.works("sg_sanitize", "--block", "--quick", "--wait", path)
        self.assertGreater(time.monotonic() - began, 0.14)
        self.assertNotIn("15 seconds", quiet.text)
        self.zeros("sda")

    def test_sanitize(self) -> None:
        path = self.make("sda", kind="scsi", sanitize=ALL)
        self.works("sg_sanitize", "-C", "-Q", "-w", path)
        self.scrambled("sda")
        self.assertIn("15 seconds", self.works("sg_sanitize", "-Bw", path).text)
        self.zeros("sda")
        (self.dev / "pattern").write_bytes(b"\x01\x02")
        self.works("sg_sanitize", "-OQw", f"--pattern={self.dev / 'pattern'}", path)
        self.assertEqual(b"\x01\x02" * (SIZE // 2), self.data("sda"))
        self.works("sg_sanitize", "--overwrite", "-zz", "--quick", "--wait", path)
        self.assertEqual(b"\xff" * SIZE, self.data("sda"))
        self.works("sg_sanitize", "--block", "--quick", "--wait", "--dry-run", path)
        self.assertEqual(b"\xff" * SIZE, self.data("sda"))

    def test_sanitize_early(self) -> None:
        path = self.make("sda", kind="scsi", sanitize=["block"], scsi_format=True, seconds=0.2)
        self.works("sg_sanitize", "--block", "--quick", "--early", path)
        self.unchanged("sda")
        self.assertEqual(2, self.call("sg_opcodes", "-r", "-o", "0x48,2", path).code)
        self.assertEqual(2, self.call("sg_sanitize", "-BQw", path).code)
        self.assertEqual(2, self.call("sg_format", "-FQw", path).code)
        time.sleep(0.25)
        self.works("sg_opcodes", "-r", "-o", "0x48,2", path)
        self.zeros("sda")

    def test_sanitize_fails(self) -> None:
        path = self.make("sda", kind="scsi", sanitize=["block"], scsi_format=True, fault="fails")
        self.assertEqual(3, self.call("sg_sanitize", "--block", "--quick", "--wait", path).code)
        self.works("sg_sanitize", "--block", "--quick", path)
        self.assertEqual(3, self.call("sg_format", "--format", "--quick", "--wait", path).code)
        self.assertEqual(5, self.call("sg_sanitize", "--fail", path).code)
        self.unchanged("sda")

    def test_sanitize_refused(self) -> None:
        path = self.make("sda", kind="scsi", sanitize=["block"])
        self.assertEqual(5, self.call("sg_sanitize", "-CQw", path).code)
        for name, kind in (("sdb", "scsi"), ("sdc", "ata")):
            self.assertEqual(9, self.call("sg_sanitize", "-BQw", self.make(name, kind=kind)).code)
        self.unchanged("sda")

    def test_format(self) -> None:
        path = self.make("sda", kind="scsi", scsi_format=True)
        self.assertIn("No changes made", self.works("sg_format", path).text)
        self.unchanged("sda")
        self.works("sg_format", "--format", "--ffmt=1", "--quick", "--wait", path)
        self.unchanged("sda")
        self.works("sg_format", "--format", "--quick", "--wait", "--size=512", "--dcrt", path)
        self.zeros("sda")
        self.assertIn("FORMAT UNIT Complete", self.works("sg_format", "--format", "--quick", path).text)
        failing = self.make("sdb", kind="scsi", scsi_format=True, fault="fails")
        self.assertEqual(3, self.call("sg_format", "-F", "-Q", "-w", failing).code)
        self.assertEqual(0, self.call("sg_format", "-F", "-Q", failing).code)
        self.assertEqual(9, self.call("sg_format", "-FQw", self.make("sdc", kind="scsi")).code)

    def test_command_line(self) -> None:
        path = self.make("sda", kind="scsi", sanitize=ALL, scsi_format=True)
        missing = str(self.dev / "sdz")
        for tool, code, argv in (
            ("sg_sanitize", 31, [path]),
            ("sg_sanitize", 31, ["--block", "--crypto", path]),
            ("sg_sanitize", 31, ["--overwrite", "--quick", path]),
            ("sg_sanitize", 1, ["--block"]),
            ("sg_sanitize", 1, ["--block", path, path]),
            ("sg_sanitize", 1, ["-O", "-z", "--count=32", path]),
            ("sg_sanitize", 52, ["-BQw", missing]),
            ("sg_sanitize", 0, ["--block", "--quick", "--wait", "--bogus", path]),
            ("sg_opcodes", 0, ["--raw", "--bogus", path]),
            ("sg_opcodes", 1, ["--opcode=0x100", path]),
            ("sg_opcodes", 1, []),
            ("sg_opcodes", 31, ["--sa=2", path]),
            ("sg_opcodes", 52, [missing]),
            ("sg_format", 1, ["--format", "--quick", "--wait", "--bogus", path]),
            ("sg_format", 1, ["--format", "--size=-1", path]),
            ("sg_format", 31, ["--format", "--resize", "--count=1", path]),
            ("sg_format", 52, ["--format", missing]),
        ):
            ran = self.call(tool, *argv)
            self.assertEqual((code, b""), (ran.code, ran.out if tool != "sg_format" else b""), (tool, argv))
        self.unchanged("sda")


class FaultTest(DriveTest):
    ERASES = (
        ("nvme0", {"kind": "nvme", "sanitize": ["block"]}, "nvme0n1", ("nvme", "sanitize", "{}", "--sanact=2")),
        ("nvme1", {"kind": "nvme", "format": True}, "nvme1n1", ("nvme", "format", "{}n1", "--ses=1", "--force")),
        ("sda", {"kind": "ata", "security": True, "locked_with": "p"}, "sda", ("hdparm", "--security-erase", "p", "{}")),
        ("sdb", {"kind": "ata", "sanitize": ["block"]}, "sdb", ("hdparm", KNOWS, "--sanitize-block-erase", "{}")),
        ("sdc", {"kind": "scsi", "sanitize": ["block"]}, "sdc", ("sg_sanitize", "-BQw", "{}")),
        ("sdd", {"kind": "scsi", "scsi_format": True}, "sdd", ("sg_format", "-FQw", "{}")),
    )

    def each(self, fault: str) -> list[tuple[str, Ran]]:
        ran = []
        for name, description, node, (tool, *argv) in self.ERASES:
            path = self.make(name, **description, fault=fault)
            ran.append((node, self.call(tool, *[word.format(path) for word in argv])))
        return ran

    def test_lies(self) -> None:
        for node, ran in self.each("lies"):
            self.assertEqual(0, ran.code)
            self.unchanged(node)

    def test_lies_half(self) -> None:
        for node, ran in self.each("lies_half"):
            self.assertEqual(0, ran.code)
            self.assertEqual(bytes(SIZE // 2) + self.before[node][SIZE // 2 :], self.data(node))

    def test_refuses(self) -> None:
        for node, ran in self.each("refuses"):
            self.assertIn(ran.code, (1, 5))
            self.unchanged(node)

    def test_vanishes(self) -> None:
        for node, ran in self.each("vanishes"):
            self.assertIn(ran.code, (1, 5, 55))
            self.assertIn("Input/output error", ran.err)
            self.assertFalse((self.dev / node).exists())
            self.assertEqual(self.before[node], self.data(node + ".vanished"))
        self.assertIn("No such file", self.call("nvme", "id-ctrl", str(self.dev / "nvme0")).err)

    def test_silent(self) -> None:
        path = self.make("nvme0", kind="nvme", sanitize=["block"], fault="silent")
        self.works("nvme", "sanitize", path, "--sanact=2")
        page = self.works("nvme", "sanitize-log", path, "-b").out
        self.assertEqual(2, page[2] & 7)
        self.unchanged("nvme0n1")

    def test_hangs(self) -> None:
        path = self.make("sda", kind="scsi", sanitize=["block"], fault="hangs")
        process = subprocess.Popen([TOOLS / "sg_sanitize", "--block", "--quick", "--wait", path], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 10
            while not (self.dev / "tools.log").exists() and time.monotonic() < until:
                time.sleep(0.01)
            self.assertIsNone(process.poll())
            self.assertIsNone(self.log()[-1]["exit"])
        finally:
            process.kill()
            process.wait()
        self.unchanged("sda")


class RunTest(DriveTest):
    def test_log(self) -> None:
        path = self.make("nvme0", kind="nvme", sanitize=["block"])
        self.call("nvme", "id-ctrl", path, "-b")
        self.call("nvme", "sanitize", path, "--bogus")
        expected = [
            {"tool": "nvme", "argv": ["id-ctrl", path, "-b"], "exit": 0},
            {"tool": "nvme", "argv": ["sanitize", path, "--bogus"], "exit": 1},
        ]
        self.assertEqual(expected, self.log())

    def test_found_on_the_path(self) -> None:
        path = self.make("sda", kind="ata")
        environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}"}
        ran = subprocess.run(["hdparm", "--Istdout", path], env=environment, capture_output=True, check=True)
        self.assertEqual(34, len(ran.stdout.splitlines()))
        for name in NAMES:
            self.assertTrue(os.access(TOOLS / name, os.X_OK), name)

    def test_links(self) -> None:
        path = self.make("sda", kind="ata")
        (self.dev / "by-id").mkdir()
        (self.dev / "by-id" / "ata-1").symlink_to(path)
        self.works("hdparm", "--Istdout", str(self.dev / "by-id" / "ata-1"))
        self.assertEqual(1, len(self.log()))

    def test_ended_by_a_signal(self) -> None:
        path = self.make("sda", kind="scsi", sanitize=["block"], seconds=60)
        process = subprocess.Popen([TOOLS / "sg_sanitize", "--block", "--quick", "--wait", path], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while not (self.dev / "sda.state.json").exists() and time.monotonic() < until:
            time.sleep(0.01)
        process.terminate()
        self.assertEqual(-signal.SIGTERM, process.wait(10))
        self.assertEqual(-signal.SIGTERM, self.log()[-1]["exit"])

    def test_description_is_checked(self) -> None:
        path = self.make("sda", kind="ata", sanitise=["block"])
        self.assertEqual((125, True), (self.call("hdparm", "--Istdout", path).code, "sanitise" in self.call("hdparm", "--Istdout", path).err))

    def test_readme_names_every_key(self) -> None:
        text = (TOOLS / "README.md").read_text(encoding="utf-8")
        for key in drives.KEYS:
            self.assertTrue(re.search(rf"`{key}`", text), key)
        for fault in drives.FAULTS:
            self.assertTrue(fault is None or f"`{fault}`" in text, fault)


if __name__ == "__main__":
    unittest.main()
