"""A drive whose data is a plain file: its description, its state, what an erase does to it, and how a tool's run is recorded.

The tools in this folder share it. Nothing here speaks a drive's language; that is for each tool to do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# What a description may hold, and what stands for a key that is left out.
KEYS: dict[str, Any] = {
    "kind": None,
    "model": "Foreign Drive",
    "serial": "FD0001",
    "firmware": "1.0",
    "sanitize": [],
    "format": False,
    "format_crypto": False,
    "format_all_namespaces": False,
    "erase_all_namespaces": False,
    "namespaces": None,
    "security": False,
    "enhanced": False,
    "frozen": False,
    "locked_with": None,
    "minutes": None,
    "sanitize_frozen": False,
    "no_deallocate_inhibited": False,
    "scsi_format": False,
    "report_opcodes": True,
    "crypto_reads_zeros": False,
    "seconds": 0,
    "fault": None,
    "busy": False,
    "nvme_cli": "2.16",
}
KINDS = ("nvme", "ata", "scsi")
METHODS = ("block", "crypto", "overwrite")
FAULTS = (None, "refuses", "fails", "lies", "lies_half", "hangs", "silent", "vanishes")
CHUNK = 1 << 20
NVME = re.compile(r"(nvme\d+)(?:n(\d+))?$")
BAD_DESCRIPTION = 125


class Exit(Exception):
    """The tool ends here with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Refused(Exception):
    """The drive rejects the erase command."""


class Vanished(Exception):
    """The drive left the bus when the erase began."""


class Hangs(Exception):
    """The erase command never returns."""


class BadOption(Exception):
    """An option that the tool does not have, or one without its argument."""


def err(text: str) -> None:
    sys.stderr.write(text + "\n")


def out(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def raw(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


class Drive:
    """One drive, found by the path of a device node; `node` is the node, `name` the drive (for NVMe the controller)."""

    def __init__(self, path: str) -> None:
        real = os.path.realpath(path)
        self.folder, self.node = os.path.split(real)
        match = NVME.match(self.node)
        self.name = match.group(1) if match else self.node
        self.nsid = int(match.group(2)) if match and match.group(2) else None
        self._description = os.path.join(self.folder, f"{self.name}.drive.json")
        self._state = os.path.join(self.folder, f"{self.name}.state.json")
        self.state: dict[str, Any] = {}
        if not os.path.exists(self._description):
            raise OSError(errno.ENOTTY if os.path.exists(real) else errno.ENOENT, "no such drive")
        self.description = self._describe()
        if match and self.nsid is None:
            gone = self._load().get("vanished", False)
        else:
            gone = not os.path.exists(real) or (self.nsid is not None and self.node not in self.namespaces())
        if gone:
            raise OSError(errno.ENOENT, "no such node")

    def _describe(self) -> dict[str, Any]:
        with open(self._description, encoding="utf-8") as file:
            given = json.load(file)
        described = {**KEYS, **given}
        wrong = [f"unknown key {key}" for key in sorted(set(given) - set(KEYS))]
        wrong += [f"kind {described['kind']}"] if described["kind"] not in KINDS else []
        wrong += [f"fault {described['fault']}"] if described["fault"] not in FAULTS else []
        wrong += [f"sanitize {method}" for method in described["sanitize"] if method not in METHODS]
        if wrong:
            err(f"{self._description}: {', '.join(wrong)}")
            raise Exit(BAD_DESCRIPTION)
        return described

    def __getitem__(self, key: str) -> Any:
        return self.description[key]

    @property
    def kind(self) -> str:
        return str(self["kind"])

    def namespaces(self) -> list[str]:
        """Names of the nodes of an NVMe drive's namespaces, by number."""
        names = self["namespaces"]
        if names is None:
            names = [name for name in os.listdir(self.folder) if re.fullmatch(re.escape(self.name) + r"n\d+", name)]
        return sorted(names, key=lambda name: int(name.rsplit("n", 1)[1]))

    def data_nodes(self) -> list[str]:
        return self.namespaces() if self.kind == "nvme" else [self.node]

    def size(self, node: str | None = None) -> int:
        try:
            return os.path.getsize(os.path.join(self.folder, node or self.node))
        except OSError:
            return 0

    # State

    def _load(self) -> dict[str, Any]:
        try:
            with open(self._state, encoding="utf-8") as file:
                return dict(json.load(file))
        except FileNotFoundError:
            return {}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The state, up to date, while no other tool touches the drive; kept on leaving, whatever happens inside."""
        with open(self._description, encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.state = self._load()
            before = json.dumps(self.state, sort_keys=True)
            if self.kind == "ata" and "security" not in self.state:
                self.state["security"] = self._new_security()
            self._settle()
            try:
                yield
            finally:
                if json.dumps(self.state, sort_keys=True) != before:
                    self._save()

    def _save(self) -> None:
        temporary = os.path.join(self.folder, f".{self.name}.state.tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(self.state, file, indent=1, sort_keys=True)
        os.replace(temporary, self._state)

    def _new_security(self) -> dict[str, Any]:
        password = self["locked_with"]
        return {
            "user": None if password is None else password_bytes(password).hex(),
            "master": None,
            "locked": password is not None,
            "frozen": False,
            "maximum": False,
            "attempts": 5,
            "revision": 0xFFFE,
        }

    # Erases

    def begin(self, what: str, method: str, nodes: list[str], *, waits: bool, pattern: bytes = b"\0", **notes: Any) -> None:
        """Starts an erase. `what` is sanitize, format or security; `waits` says that the tool returns only when it is over."""
        fault = self["fault"]
        if fault == "refuses":
            raise Refused
        if fault == "vanishes":
            self._vanish()
            raise Vanished
        if fault == "hangs" or (fault == "silent" and waits):
            raise Hangs
        now = time.time()
        self.state["operation"] = {
            "what": what,
            "method": method,
            "nodes": nodes,
            "pattern": pattern.hex(),
            "began": now,
            "seconds": self["seconds"],
            "ends": None if fault == "silent" else now + self["seconds"],
            "fault": fault,
            **notes,
        }
        self._settle()

    def operation(self) -> dict[str, Any] | None:
        """The erase that is under way."""
        found = self.state.get("operation")
        return found if isinstance(found, dict) else None

    def last(self, what: str) -> dict[str, Any] | None:
        """The latest finished erase of this sort; `failed` says how it ended."""
        found = self.state.get("last", {}).get(what)
        return found if isinstance(found, dict) else None

    def progress(self) -> int:
        """How far the erase is, in 65536ths."""
        operation = self.operation()
        if operation is None:
            return 65536
        seconds = operation["seconds"]
        part = (time.time() - operation["began"]) / seconds if seconds else 1.0
        return int(min(max(part, 0.0), 0.99) * 65536)

    def wait(self, what: str) -> bool:
        """Blocks until the erase is over, and says whether it succeeded. Not to be called while the drive is locked."""
        while True:
            with self.locked():
                operation = self.operation()
                if operation is None:
                    finished = self.last(what)
                    return finished is not None and not finished["failed"]
                ends = operation["ends"]
            time.sleep(0.05 if ends is None else max(0.0, min(ends - time.time(), 1.0)))

    def _settle(self) -> None:
        """Ends the erase whose time is over. The data changes here, and so when a tool next looks at the drive."""
        operation = self.operation()
        if operation is None or operation["ends"] is None or time.time() < operation["ends"]:
            return
        fault = operation["fault"]
        if fault not in ("fails", "lies") and operation["method"] != "none":
            for node in operation["nodes"]:
                self._erase(node, operation["method"], bytes.fromhex(operation["pattern"]), half=fault == "lies_half")
        operation["failed"] = fault == "fails"
        self.state.setdefault("last", {})[operation["what"]] = operation
        del self.state["operation"]
        if operation["what"] == "security" and not operation["failed"]:
            self.state["security"].update(user=None, locked=False, maximum=False)
        if operation["what"] == "sanitize":
            self.state["failure_mode"] = operation["failed"]

    def _erase(self, node: str, method: str, pattern: bytes, *, half: bool) -> None:
        path = os.path.join(self.folder, node)
        if not os.path.exists(path):
            return
        size = os.path.getsize(path)
        end = size // 2 if half else size
        random = method == "crypto" and not self["crypto_reads_zeros"]
        fill = pattern if method == "overwrite" else b"\0"
        unit = fill * max(1, CHUNK // len(fill))
        with open(path, "r+b") as file:
            done = 0
            while done < end:
                length = min(len(unit), end - done)
                file.write(os.urandom(length) if random else unit[:length])
                done += length

    def _vanish(self) -> None:
        """The nodes go away; what they held stays beside them under another name, so that a test can look at it."""
        self.state["vanished"] = True
        for node in {*self.data_nodes(), self.name}:
            path = os.path.join(self.folder, node)
            if os.path.exists(path):
                os.replace(path, path + ".vanished")


def power_cycle(path: str) -> None:
    """What a reset or a lost supply does to the security of an ATA drive: locked if it has a password, and not frozen."""
    drive = Drive(path)
    with drive.locked():
        security = drive.state["security"]
        security.update(locked=security["user"] is not None, frozen=False, attempts=5)


def password_bytes(text: str) -> bytes:
    return os.fsencode(text)[:32].ljust(32, b"\0")


# Command lines


def options(argv: list[str], table: dict[str, tuple[str, bool]]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Reads options as getopt_long does, but knows no abbreviations.

    `table` gives for each long name the short one (or an empty string) and whether it takes an argument.
    """
    by_short = {short: name for name, (short, _) in table.items() if short}
    found: list[tuple[str, str | None]] = []
    operands: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            operands += rest
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name not in table:
                raise BadOption(f"unrecognized option '--{name}'")
            if not table[name][1]:
                if equals:
                    raise BadOption(f"option '--{name}' doesn't allow an argument")
                found.append((name, None))
            elif equals:
                found.append((name, value))
            elif rest:
                found.append((name, rest.pop(0)))
            else:
                raise BadOption(f"option '--{name}' requires an argument")
        elif word.startswith("-") and word != "-":
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                if letter not in by_short:
                    raise BadOption(f"invalid option -- '{letter}'")
                name = by_short[letter]
                if not table[name][1]:
                    found.append((name, None))
                    continue
                if not letters and not rest:
                    raise BadOption(f"option requires an argument -- '{letter}'")
                found.append((name, letters or rest.pop(0)))
                letters = ""
        else:
            operands.append(word)
    return found, operands


# Runs


def log_folder(argv: list[str]) -> str | None:
    """The folder of the drive that a command line names."""
    for word in reversed(argv):
        for path in (os.path.realpath(word), os.path.abspath(word)):
            folder, name = os.path.split(path)
            match = NVME.match(name)
            if os.path.exists(os.path.join(folder, f"{match.group(1) if match else name}.drive.json")):
                return folder
    for word in reversed(argv):
        folder = os.path.dirname(os.path.realpath(word))
        if "/" in word and os.path.isdir(folder) and any(name.endswith(".drive.json") for name in os.listdir(folder)):
            return folder
    return None


def record(tool: str, argv: list[str], code: int | None) -> None:
    folder = log_folder(argv)
    if folder is None:
        return
    line = json.dumps({"tool": tool, "argv": argv, "exit": code}) + "\n"
    file = os.open(os.path.join(folder, "tools.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def run(tool: str, main: Callable[[list[str]], int]) -> None:
    """Runs a tool, records the run, and ends with its exit code."""
    argv = sys.argv[1:]

    def killed(number: int, _frame: Any) -> None:
        record(tool, argv, -number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, killed)
    signal.signal(signal.SIGINT, killed)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        code = main(argv)
    except Exit as end:
        code = end.code
    except Hangs:
        sys.stdout.flush()
        record(tool, argv, None)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        hang()
        code = 1
    sys.stdout.flush()
    record(tool, argv, code)
    sys.exit(code)


def hang() -> None:
    """An hour, or until the program that called the tool is gone, so that nothing is left behind."""
    parent, until = os.getppid(), time.monotonic() + 3600
    while time.monotonic() < until and os.getppid() == parent:
        time.sleep(0.2)
