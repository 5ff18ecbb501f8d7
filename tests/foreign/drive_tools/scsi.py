"""What the three SCSI tools share: the sg3_utils exit codes, how they take numbers, and how a drive answers while it erases."""

from __future__ import annotations

import errno
import os
import re
import time

from drive import Drive, Exit, err, out

SYNTAX_ERROR = 1
NOT_READY = 2
MEDIUM_HARD = 3
ILLEGAL_REQUEST = 5
INVALID_OPCODE = 9
CONTRADICT = 31
OS_ERROR = 50
MALFORMED = 97

MEANINGS = {
    NOT_READY: "Device not ready",
    MEDIUM_HARD: "Medium or hardware error",
    ILLEGAL_REQUEST: "Illegal request",
    INVALID_OPCODE: "Illegal request, Invalid opcode",
}
SENSES = {
    "sanitize in progress": ("Not Ready", "Logical unit not ready, sanitize in progress", NOT_READY),
    "format in progress": ("Not Ready", "Logical unit not ready, format in progress", NOT_READY),
    "sanitize failed": ("Medium Error", "Sanitize command failed", MEDIUM_HARD),
    "format failed": ("Medium Error", "Format command failed", MEDIUM_HARD),
    "opcode": ("Illegal Request", "Invalid command operation code", INVALID_OPCODE),
    "cdb": ("Illegal Request", "Invalid field in cdb", ILLEGAL_REQUEST),
}
SANITIZE_ACTIONS = {"overwrite": 0x01, "block": 0x02, "crypto": 0x03}
EXIT_FAILURE_MODE = 0x1F


class Sense(Exception):
    """The drive ends the command with CHECK CONDITION."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.key, self.additional, self.code = SENSES[name]

    def show(self, command: str) -> None:
        err(f"{command}:\nFixed format, current; Sense key: {self.key}\nAdditional sense: {self.additional}")


def number(text: str) -> int:
    """A number as sg3_utils reads it: decimal, hex after 0x or before h, with a multiplier; -1 if it is none."""
    match = re.fullmatch(r"(?:0[xX]([0-9a-fA-F]+)|([0-9a-fA-F]+)[hH]|(\d+)([kKmM]?))", text)
    if not match:
        return -1
    before, after, decimal, unit = match.groups()
    if before or after:
        return int(before or after, 16)
    return int(decimal) * {"": 1, "k": 1 << 10, "m": 1 << 20}[unit.lower()]


def open_drive(path: str, message: str | None = None) -> Drive:
    try:
        return Drive(path)
    except OSError as failure:
        code = failure.errno or errno.EIO
        if message:
            err(f"{message}: {path}: {os.strerror(code)}")
        raise os_error(code) from None


def os_error(code: int) -> Exit:
    """An error of the system has its number after 50."""
    return Exit(OS_ERROR + code)


def inquiry(drive: Drive) -> None:
    """The lines that show which drive it is."""
    if drive.kind == "nvme":
        err("inquiry: pass-through os error: Inappropriate ioctl for device")
        raise os_error(errno.ENOTTY)
    vendor = "ATA" if drive.kind == "ata" else "FOREIGN"
    out(f"    {vendor:<8}  {drive['model'][:16]:<16}  {drive['firmware'][:4]:<4}   peripheral_type: disk [0x0]")
    out(f"      Unit serial number: {drive['serial']}")


def ready(drive: Drive) -> None:
    """Most commands end with an error while an erase is under way, and after a sanitize that failed."""
    operation = drive.operation()
    if operation is not None:
        raise Sense("sanitize in progress" if operation["what"] == "sanitize" else "format in progress")
    if drive.state.get("failure_mode"):
        raise Sense("sanitize failed")


def poll(drive: Drive, show: str) -> None:
    """Looks at the drive until there is no progress any more; like the real tools it does not see how it ended."""
    while True:
        with drive.locked():
            if drive.operation() is None:
                return
            part = drive.progress()
        out(show.format(whole=part * 100 // 65536, hundredth=part * 100 % 65536 // 656))
        time.sleep(0.1)


def countdown(command: str, path: str) -> None:
    """The real tools give 15 seconds to think again; the fakes only say so."""
    for seconds in (15, 10, 5):
        out(f"\nA {command} will commence in {seconds} seconds\n    ALL data on {path} will be DESTROYED")
        out("        Press control-C to abort")
