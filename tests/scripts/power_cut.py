"""Cuts the power, on record: nothing that was acknowledged may be missing afterwards.

    power_cut.py IRONYARD [--points 1000] [--seed N] [--seconds 26] [--keep FOLDER] [--sync-each]
    power_cut.py --self-check [--points 400] [--seed N]

Needs the packages of tests/requirements.txt that are called grpc, and a C compiler.

1. A life. `ironyard up --simulate` runs with power_cut.c loaded, which appends each write, sync, creation and removal in the data folder to a log.
   Clients create, change and delete all that there is, and append what they were told to the same log, so that one order holds for both. Half
   way the process is killed and started again; at last it is stopped. Both times the log must explain the real files to the byte.
2. Cuts. For each of many places in the log, the folder is built as a power cut there may leave it. What a finished sync covers is there. Of the
   rest, each sector of 512 bytes holds what it held at some moment since: all, none and any mixture are possible. Names behave like a journal:
   those that were not synced may be missing, but a file that was synced has its name. A kernel also writes back by itself after a while; that is
   never counted on, so what is not synced may be lost however old it is.
3. Judgement. Each database is opened as after a start; it must be whole, and hold every row at least as new as it was ever shown, unless somebody
   had asked for its deletion; what was said to be gone must be gone. A claim that was shown with a server must hold it in the inventory, with
   the wipe owed; a server that owes nothing any more must have its certificate. The key that opens the credentials must be what it is at the end.

`--sync-each` is the control: it pretends that each write was synced at once, so whatever is found then is a mistake of this test, or of the order
in which the services tell each other. `--self-check` holds the test against SQLite itself, in modes of known durability.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import mmap
import os
import pathlib
import random
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time

HEAD = struct.Struct("<4sIHHIQQ")
OPEN, CLOSE, WRITE, TRUNCATE, ALLOCATE, SYNC_BEGIN, SYNC_END, RENAME, UNLINK, MAKE_FOLDER = range(1, 11)
NOTE = 100  # what a client knows, as JSON
CREATED, FOLDER = 1, 2
SECTOR = 512


# ---- the log ----


class Record:
    """One record: an effect on a file, or a client's note."""

    __slots__ = ("kind", "inode", "number", "names", "data")

    def __init__(self, kind, inode, number, names, data):
        self.kind, self.inode, self.number, self.names, self.data = kind, inode, number, names, data


def read_log(path, void=()):
    """All records in their order; `void` are the numbers of those whose effect never came."""
    with open(path, "rb") as log:
        raw, at, records = memoryview(mmap.mmap(log.fileno(), 0, access=mmap.ACCESS_READ)), 0, []
    while at < len(raw):
        magic, length, kind, names, _, inode, number = HEAD.unpack_from(raw, at)
        assert magic == b"PCUT" and at + length <= len(raw), f"the log is damaged at byte {at}"
        body = raw[at + HEAD.size : at + length]
        if len(records) in void:
            kind = CLOSE
        name = bytes(body[:names]).decode()
        records.append(Record(kind, inode, number, name, json.loads(bytes(body)) if kind == NOTE else body[names:]))
        at += length
    return records


class Notes:
    """Appends what a client knows to the log, one record a call."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, **note):
        body = json.dumps(note).encode()
        record = HEAD.pack(b"PCUT", HEAD.size + len(body), NOTE, 0, 0, 0, 0) + body
        assert os.write(self.fd, record) == len(record)


# ---- the disk ----


class File:
    """What is durable of a file, and the changes since, in order: (number of the record, WRITE, offset, data); for TRUNCATE and ALLOCATE the size
    stands for the offset."""

    def __init__(self):
        self.durable = bytearray()
        self.pending = []

    def sync(self, before):
        for kept, change in enumerate(self.pending):
            if change[0] >= before:
                del self.pending[:kept]
                return
            apply(self.durable, *change[1:])
        self.pending.clear()


def apply(content, kind, at, data):
    if kind == WRITE:
        extend(content, at + len(data))
        content[at : at + len(data)] = data
    elif kind == TRUNCATE and at < len(content):
        del content[at:]
    else:
        extend(content, at)


def extend(content, size):
    if len(content) < size:
        content.extend(bytes(size - len(content)))


class Disk:
    """The folder, record by record: what is durable of it, and what is not yet."""

    def __init__(self):
        self.files = {}  # by inode, as of now
        self.folders = {}  # inode to name
        self.names = {}  # as of now
        self.durable_names = {}
        self.pending_names = []  # (number of the record, names that it touches, file or None)
        self.syncs = {}

    def take(self, number, record):
        kind, inode = record.kind, record.inode
        if kind in (WRITE, TRUNCATE, ALLOCATE):
            self.files[inode].pending.append((number, kind, record.number, record.data))
        elif kind == OPEN and record.number & FOLDER:
            self.folders[inode] = record.names
        elif kind == OPEN and (record.number & CREATED or inode not in self.files):
            self.files[inode] = self.names[record.names] = File()
            self.pending_names.append((number, (record.names,), self.files[inode]))
        elif kind == RENAME:
            old, new = record.names.split("\0")
            self.names[new] = self.names.pop(old)
            self.pending_names.append((number, (new, old), self.names[new]))
        elif kind == UNLINK:
            self.names.pop(record.names)
            self.pending_names.append((number, (record.names,), None))
        elif kind == SYNC_BEGIN:
            self.syncs[record.number] = (number, self.files.get(inode), self.folders.get(inode))
        elif kind == SYNC_END:
            before, file, folder = self.syncs.pop(record.number)
            if folder is not None:
                self.settle_names(self.durable_names, lambda op: op[0] < before and any(os.path.dirname(name) == folder for name in op[1]))
            else:
                file.sync(before)
                self.settle_names(self.durable_names, lambda op: op[0] < before and op[2] is file)

    def settle_names(self, names, wanted):
        """Makes changes of names durable in `names`: those that are wanted, and the earlier ones that they build on."""
        touched, kept, left = set(), [], []
        for op in reversed(self.pending_names):
            if wanted(op) or touched.intersection(op[1]):
                touched.update(op[1])
                kept.append(op)
            else:
                left.append(op)
        for _, touches, file in reversed(kept):
            for name in touches:
                names.pop(name, None)
            if file is not None:
                names[touches[0]] = file
        if names is self.durable_names:
            self.pending_names = left[::-1]

    def unsynced(self):
        """Whether a database has writes that are not durable."""
        return any(file.pending for name, file in self.names.items() if ".db" in name)

    def whole(self):
        """Everything, synced or not: what the running system sees."""
        return {name: content(file, "all", None) for name, file in self.names.items()}

    def after_cut(self, dice):
        """What a power cut may leave: content by name."""
        ways = ("none", "all", "writes", "sectors", "prefix")
        way, each = dice.choice(ways), dice.random() < 0.4
        names = dict(self.durable_names)
        share = {"none": 0, "all": 1}.get(way, dice.choice((0.1, 0.5, 0.9)))
        self.settle_names(names, lambda op: dice.random() < share)
        last = max((file.pending[-1][0] for file in names.values() if file.pending), default=0)
        first = min((file.pending[0][0] for file in names.values() if file.pending), default=0)
        moment = dice.randint(first, last)
        return {name: content(names[name], dice.choice(ways) if each else way, dice, moment) for name in sorted(names)}


def content(file, way, dice, moment=0):
    """What may be in a file. A sector holds what it held at one moment: if it has a change, it has the changes before that one too."""
    result = bytearray(file.durable)
    if way == "none" or not file.pending:
        return bytes(result)
    if way == "all":
        for change in file.pending:
            apply(result, *change[1:])
        return bytes(result)
    share = dice.choice((0.05, 0.3, 0.7, 0.97))
    # Changes of size happen in their order. After one that is lost, nothing was written where the file did not reach any more.
    limit, limits = None, []
    for number, kind, at, _ in file.pending:
        if kind != WRITE and (limit is not None or (number > moment if way == "prefix" else dice.random() >= share)):
            limit = at if limit is None else min(at, limit)
        limits.append(limit)
    touched, kept = set(), []
    for (number, kind, at, data), limit in zip(reversed(file.pending), reversed(limits)):
        if kind != WRITE:
            if limit is None:
                kept.append((kind, at, data))
            continue
        end = at + len(data)
        sectors = range(at // SECTOR, (end + SECTOR - 1) // SECTOR)
        if limit is not None:
            sectors = range(sectors.start, min(sectors.stop, limit // SECTOR))
        if way == "prefix" and number != moment:
            chosen = sectors if number < moment else ()
        elif way == "writes":
            chosen = sectors if dice.random() < share else ()
        else:
            chosen = [sector for sector in sectors if dice.random() < share]
        touched.update(chosen)
        for sector in sectors:
            if sector in touched:
                start, stop = max(at, sector * SECTOR), min(end, (sector + 1) * SECTOR)
                kept.append((WRITE, start, data[start - at : stop - at]))
    for change in reversed(kept):
        apply(result, *change)
    if way == "sectors" and limit is None and dice.random() < 0.25:  # the size may be ahead of the data
        extend(result, max((at + len(data or b"") for _, kind, at, data in file.pending if kind == WRITE), default=0))
    return bytes(result)


def explain_folder(log, folder, void):
    """Holds the log against the real files: whatever the recorder did not see shows here. Adds to `void` the last effect if it never came."""
    real = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }

    def differing():
        disk = Disk()
        for number, record in enumerate(read_log(log, void)):
            disk.take(number, record)
        recorded = disk.whole()
        return [name for name in sorted(real.keys() | recorded.keys()) if real.get(name, b"") != recorded.get(name, b"")]

    different = differing()
    if different:  # a kill between the last record and its effect
        records = read_log(log)
        void.add(max(number for number, record in enumerate(records) if record.kind in (WRITE, TRUNCATE, RENAME, UNLINK)))
        different = differing()
    assert not different, f"the recorder did not see everything that happened to {', '.join(different)}"
    return len(real)


# ---- what was promised, and what is there ----

# Kind to its database, table and the column that tells that it is done. Rows without uid and version are known by their names.
KINDS = {
    "server": ("inventory.db", "server", None),
    "history": ("inventory.db", "server_history", None),
    "claim": ("claim.db", "server_claim", None),
    "certificate": ("claim.db", "certificate", None),
    "cleanup": ("claim.db", "cleanup_run", "done"),
    "bmc": ("bmc_gateway.db", "bmc", None),
    "credential": ("bmc_gateway.db", "credential", None),
    "operation": ("bmc_gateway.db", "operation", "done"),
    "endpoint": ("discovery.db", "endpoint", None),
    "maintenance": ("maintenance.db", "server_maintenance", None),
    "sample": ("sample.db", "sample", None),  # of the self-check
}
BY_NAME = ("history", "certificate", "cleanup", "credential", "operation")
KEY_FILE = "gateway.key"


class Promises:
    """What clients had been told before the cut, and what they had asked for."""

    def __init__(self):
        self.rows = {}  # (kind, uid) to [name, version, done]
        self.leaving = set()
        self.gone = set()
        self.holds = {}  # uid of a claim or maintenance to (kind, its name, server)

    def take(self, note):
        key = (note.get("kind"), note.get("uid"))
        if note["note"] == "row":
            row = self.rows.setdefault(key, [note["name"], 0, False])
            row[1] = max(row[1], note["version"])
            row[2] |= note.get("done", False)
            if note.get("holds"):
                self.holds[note["uid"]] = (note["kind"], note["name"], note["holds"])
        elif note["note"] == "intent":
            self.leaving.add(key)
        elif note["note"] == "gone":
            self.gone.add(key)


def read_database(path):
    """(what is wrong with the file or None, kind to rows by uid). A row is (name, version, done, more)."""
    name, found = os.path.basename(path), {}
    try:
        db = sqlite3.connect(path, isolation_level=None)
        try:
            (first,) = db.execute("pragma integrity_check(1)").fetchone()
            if first != "ok":
                return f"{name} is damaged: {first}", found
            db.execute("pragma synchronous = off")
            tables = {table for (table,) in db.execute("select name from sqlite_master where type = 'table'")}
            for kind, (database, table, done) in KINDS.items():
                if database != name or table not in tables:
                    continue
                if kind == "history":
                    rows = db.execute("select server_id, server_id, count(*), '', '' from server_history group by 1")
                else:
                    uid = f"{table}_id" if kind in BY_NAME else "uid"
                    more = "body" if kind in ("server", "certificate") else "''"
                    rows = db.execute(f"select {uid}, {table}_id, version, {done or repr('')}, {more} from {table}")
                found[kind] = {uid: (name_, version, done == "true", json.loads(body) if body else None) for uid, name_, version, done, body in rows}
        finally:
            db.close()
    except sqlite3.Error as error:
        return f"{name} cannot be read: {error}", found
    return None, found


def judge(promises, found, wrong, key, last_key):
    """All that is missing: (what kind of loss, in words)."""
    said = [("a database is damaged", what) for what in wrong if what]

    def say(loss, words):
        said.append((loss, words))

    for (kind, uid), (name, version, done) in promises.rows.items():
        row = found.get(kind, {}).get(uid)
        if (kind, uid) in promises.gone:
            continue
        if row is None:
            if (kind, uid) not in promises.leaving:
                say("a row is missing", f"{kind} {name} ({uid}) was shown at version {version} and is missing")
        elif row[0] != name or row[1] < version:
            say("a row is older than shown", f"{kind} {name} ({uid}) was shown at version {version} and is {row[0]} at version {row[1]}")
        elif done and not row[2]:
            say("a row is older than shown", f"{kind} {name} was shown done and is not")
    for kind, uid in promises.gone:
        if uid in found.get(kind, {}):
            say("a deletion is undone", f"{kind} {found[kind][uid][0]} ({uid}) was said to be gone and is back")
    servers = {name: body["facts"] for name, _, _, body in found.get("server", {}).values()}
    certified = {body["claim"]["uid"] for _, _, _, body in found.get("certificate", {}).values() if body["passed"]}
    for uid, (kind, name, server) in promises.holds.items():
        if server not in servers:
            continue  # said above
        facts, released = servers[server], (kind, uid) in promises.leaving
        holder, owes = facts[kind] or {}, facts["debt"] is not None
        if not released and holder.get("uid") != uid:
            say("a server forgot its holder", f"{kind} {name} was shown to have server {server}, whose record names {holder.get('name', 'nobody')}")
        if kind == "claim" and not released and not owes:
            say("a server forgot its debt", f"claim {name} was shown bound to server {server}, which owes no wipe")
        if kind == "claim" and released and not owes and uid not in certified:
            say("a proof is missing", f"server {server} owes nothing after claim {name}, and there is no certificate")
    if any(kind == "credential" for kind, _ in promises.rows) and last_key is not None and key != last_key:
        state = "is missing" if key is None else f"has other content ({len(key)} bytes)"
        say("the key is lost", f"a credential was acknowledged, and {KEY_FILE}, which opens it, {state}")
    return said


# ---- cuts ----


def choose_points(records, count, dice):
    """Where to cut: after a client was told something, right after an effect, anywhere."""
    told = [number + 1 for number, record in enumerate(records) if record.kind == NOTE and record.data["note"] in ("row", "gone")]
    effects = [number + 1 for number, record in enumerate(records) if record.kind in (WRITE, TRUNCATE, UNLINK, SYNC_BEGIN)]
    first = told[0] if told else 0
    points = []
    for _ in range(count):
        way = dice.random()
        points.append(dice.choice(told) if way < 0.6 else dice.choice(effects) if way < 0.85 else dice.randint(0, len(records)))
    assert first, "nobody was told anything"
    return sorted(points)


Cut = collections.namedtuple("Cut", "point after_answer unsynced answered_unsynced rows files said")


def make_cuts(log, void, points, seed, last_key):
    """Cuts at each of the points, which are sorted; what is found at each."""
    records, disk, promises, cuts, at = read_log(log, void), Disk(), Promises(), [], 0
    known = collections.OrderedDict()  # content to what was read from it
    shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="power-cut-", dir=shared_memory) as folder:
        for order, point in enumerate(points):
            while at < point:
                if records[at].kind == NOTE:
                    promises.take(records[at].data)
                else:
                    disk.take(at, records[at])
                at += 1
            image = disk.after_cut(random.Random(f"{seed}/{point}/{order}"))
            found, wrong = {}, []
            for name in image:
                if not name.endswith(".db"):
                    continue
                parts = {part: data for part, data in image.items() if part.startswith(name)}
                digest = hashlib.blake2b(repr(sorted((part, hashlib.blake2b(data).digest()) for part, data in parts.items())).encode()).digest()
                if digest not in known:
                    for part, data in parts.items():
                        pathlib.Path(folder, part).write_bytes(data)
                    known[digest] = read_database(os.path.join(folder, name))
                    for left in pathlib.Path(folder).iterdir():
                        left.unlink()
                    if len(known) > 200:
                        known.popitem(last=False)
                problem, rows = known[digest]
                wrong.append(problem)
                found.update(rows)
            said = judge(promises, found, wrong, image.get(KEY_FILE), last_key)
            answered = point > 0 and records[point - 1].kind == NOTE and records[point - 1].data["note"] in ("row", "gone")
            unsynced = disk.unsynced()
            cuts.append(Cut(point, answered, unsynced, answered and unsynced, len(promises.rows), len(image), said))
    return cuts


def cut_everywhere(log, void, count, seed, last_key):
    """Cuts on all processors."""
    records = read_log(log, void)
    points = choose_points(records, count, random.Random(seed))
    workers = max(1, min(os.cpu_count() or 1, 4))
    shares = [points[share::workers] for share in range(workers)]
    # Fresh processes: those that spoke gRPC must not fork.
    import multiprocessing

    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        done = pool.map(make_cuts, [log] * workers, [void] * workers, shares, range(seed, seed + workers), [last_key] * workers)
        cuts = sorted(cut for share in done for cut in share)
    return records, cuts


def report(records, cuts, want_unsynced):
    """Says what was measured; whether that is enough to mean anything."""
    notes = collections.Counter(record.data["note"] for record in records if record.kind == NOTE)
    answers = sum(1 for record in records if record.kind == NOTE and record.data.get("changed"))
    effects = collections.Counter(record.kind for record in records)
    after, unsynced = sum(cut.after_answer for cut in cuts), sum(cut.unsynced for cut in cuts)
    both = sum(cut.answered_unsynced for cut in cuts)
    print(
        f"log: {effects[WRITE]} writes, {effects[SYNC_END]} syncs, {effects[TRUNCATE]} changes of size, {effects[UNLINK]} removals; "
        f"{answers} calls acknowledged, {notes['row']} states shown, {notes['gone']} deletions acknowledged, {notes['intent']} asked for"
    )
    print(
        f"cuts: {len(cuts)}, {after} right after an answer, {unsynced} with unsynced writes, {both} both; "
        f"at most {max(cut.rows for cut in cuts)} rows known"
    )
    enough = after * 3 >= len(cuts) and (not want_unsynced or (unsynced * 10 >= len(cuts)))
    if not enough:
        print("FAILED: too few cuts at places that matter")
    return enough, answers


def say_lost(cuts, show=2):
    """How many cuts lost something; by kind of loss, how many had it, and the first ones in words."""
    by_loss = {}
    for cut in cuts:
        for loss, words in cut.said:
            by_loss.setdefault(loss, {}).setdefault(cut.point, words)
    for loss, points in by_loss.items():
        print(f"  {loss}: at {len(points)} places in the log")
        for point, words in list(points.items())[:show]:
            print(f"    after record {point}: {words}")
    return sum(1 for cut in cuts if cut.said)


# ---- a life ----

SHORT = 60  # seconds that any one state may take


class Client:
    """Calls every service by what reflection tells of it."""

    def __init__(self, address):
        import grpc
        from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
        from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

        self.grpc, self.json, self.messages = grpc, json_format, message_factory
        self.channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(self.channel).result(timeout=SHORT)
        stub, self.pool, files, added = reflection_pb2_grpc.ServerReflectionStub(self.channel), descriptor_pool.DescriptorPool(), {}, set()

        def ask(**request):
            (reply,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=SHORT)
            for raw in reply.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(raw)
                files.setdefault(file.name, file)
            return reply

        def add(name):
            if name not in added:
                added.add(name)
                if name not in files:
                    ask(file_by_filename=name)
                for dependency in files[name].dependency:
                    add(dependency)
                self.pool.Add(files[name])

        for service in ask(list_services="").list_services_response.service:
            ask(file_containing_symbol=service.name)
        for name in list(files):
            add(name)

    def method(self, path):
        service, name = path.rsplit("/", 1)
        method = self.pool.FindServiceByName(f"ironyard.{service}").methods_by_name[name]
        ask, answer = (self.messages.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        return ask, kind(f"/ironyard.{service}/{name}", ask.SerializeToString, answer.FromString)

    def call(self, path, **body):
        ask, invoke = self.method(path)
        return self.json.MessageToDict(invoke(self.json.ParseDict(body, ask()), timeout=SHORT))

    def stream(self, path):
        ask, invoke = self.method(path)
        return invoke(ask())


class Stopped(Exception):
    """The life is over."""


# Kind to its service, the noun in its methods, and the field of it in requests and answers.
RESOURCES = {
    "server": ("inventory.v1.ServerService", "Server", "server", "servers"),
    "claim": ("claim.v1.ServerClaimService", "ServerClaim", "serverClaim", "serverClaims"),
    "bmc": ("bmc.v1.BmcService", "Bmc", "bmc", "bmcs"),
    "endpoint": ("discovery.v1.EndpointService", "Endpoint", "endpoint", "endpoints"),
    "maintenance": ("maintenance.v1.ServerMaintenanceService", "ServerMaintenance", "serverMaintenance", "serverMaintenances"),
}


class Life:
    """Clients that use everything at once, and note what they are told."""

    def __init__(self, client, notes, seed, part):
        self.client, self.notes, self.part = client, notes, part
        self.ending, self.failed, self.threads, self.streams = threading.Event(), [], [], []
        self.dice, self.rounds = random.Random(f"{seed}/{part}"), collections.Counter()

    # -- calls, each of which leaves its notes

    def see(self, kind, row, changed=False):
        if kind in RESOURCES:
            head = row["metadata"]
            note = {"name": head["name"], "uid": head["uid"], "version": int(head["etag"].split("-")[0])}
            if kind == "claim" and row.get("phase") == "CLAIM_PHASE_BOUND":
                note["holds"] = row["boundServer"]["name"]
            if kind == "maintenance" and row.get("phase") == "MAINTENANCE_PHASE_IN_MAINTENANCE":
                note["holds"] = row["spec"]["serverRef"]["name"]
        else:
            note = {"name": row["name"], "uid": row["name"], "version": int(row.get("version", 0)), "done": row.get("done", False)}
        self.notes.write(note="row", kind=kind, changed=changed, **note)
        return row

    def call(self, path, **body):
        if self.ending.is_set():
            raise Stopped
        return self.client.call(path, **body)

    def get(self, kind, name):
        service, noun, _, _ = RESOURCES[kind]
        return self.see(kind, self.call(f"{service}/Get{noun}", name=name))

    def list(self, kind):
        service, noun, _, plural = RESOURCES[kind]
        return [self.see(kind, row) for row in self.call(f"{service}/List{noun}s", pageSize=1000).get(plural, [])]

    def create(self, kind, name, spec, **metadata):
        service, noun, field, _ = RESOURCES[kind]
        return self.see(kind, self.call(f"{service}/Create{noun}", **{field: {"metadata": {"name": name, **metadata}, "spec": spec}}), True)

    def label(self, kind, row, **labels):
        service, noun, field, _ = RESOURCES[kind]
        body = {field: {"metadata": {"name": row["metadata"]["name"], "labels": labels}, "spec": row["spec"]}, "updateMask": "metadata.labels"}
        return self.see(kind, self.call(f"{service}/Update{noun}", **body), True)

    def delete(self, kind, row):
        """Asks for the deletion, and waits until the row is gone."""
        service, noun, _, _ = RESOURCES[kind]
        name, uid = row["metadata"]["name"], row["metadata"]["uid"]
        self.notes.write(note="intent", kind=kind, uid=uid)
        answer = self.call(f"{service}/Delete{noun}", name=name)
        if kind in ("claim", "maintenance"):
            if answer.get("metadata", {}).get("etag"):
                self.see(kind, answer, True)
            self.until(f"{kind} {name} is gone", lambda: self.absent(kind, name))
        self.notes.write(note="gone", kind=kind, uid=uid, changed=True)

    def absent(self, kind, name):
        try:
            self.get(kind, name)
        except self.client.grpc.RpcError as error:
            if error.code() == self.client.grpc.StatusCode.NOT_FOUND:
                return True
            raise
        return False

    def until(self, what, holds):
        deadline, pause = time.monotonic() + SHORT, 0.02
        while not (answer := holds()):
            assert time.monotonic() < deadline, f"not within {SHORT} s: {what}"
            if self.ending.wait(pause):
                raise Stopped
            pause = min(pause * 1.3, 0.25)
        return answer

    def available(self, name):
        def holds():
            row = self.get("server", name)
            assert row.get("state") != "SERVER_STATE_ERROR", f"server {name} is in Error: {row.get('failure')}"
            return row.get("state") == "SERVER_STATE_AVAILABLE"

        self.until(f"server {name} is Available", holds)

    # -- what the clients do

    def tidy(self, count):
        """Waits for the fleet, and gives back what an earlier process left. Names the servers to use: those that were not being wiped, since the
        simulated machines' agents ended with that process, and such wipes wait long for them."""
        rows = self.until(f"{count} servers", lambda: rows if len(rows := self.list("server")) >= count else None)
        servers = [row["metadata"]["name"] for row in rows if row["state"] != "SERVER_STATE_CLEANUP"]
        for kind in ("claim", "maintenance"):
            for row in self.list(kind):
                self.delete(kind, row)
        for server in servers:
            self.available(server)
        assert len(servers) >= 2, f"only {servers} can be used"
        return servers

    def tenant(self, server):
        """Claims a server, uses it, gives it back, over and over."""
        self.rounds["claims"] += 1
        name = f"claim-{self.part}-{server}-{self.rounds['claims']}"
        claim = self.create("claim", name, {"serverRef": {"name": server}, "power": "POWER_STATE_ON"})
        self.until(f"claim {name} is Bound", lambda: self.get("claim", name).get("phase") == "CLAIM_PHASE_BOUND")
        self.get("server", server)
        for turn in range(self.dice.randint(0, 4)):
            self.label("claim", claim, turn=str(turn))
        self.delete("claim", claim)
        self.available(server)
        for field, kind, method in (("certificates", "certificate", "ListCertificates"), ("cleanupRuns", "cleanup", "ListCleanupRuns")):
            for row in self.call(f"claim.v1.SanitizationService/{method}", server=server).get(field, []):
                self.see(kind, row)
        entries = self.call("inventory.v1.ServerService/ListServerHistory", name=server)["entries"]
        self.see("history", {"name": server, "version": len(entries)})
        self.rounds["wiped"] += 1
        self.ending.wait(self.dice.random() * 0.3)

    def mechanic(self, server):
        """Holds a server in maintenance, and switches it on and off meanwhile."""
        self.rounds["maintenances"] += 1
        name = f"maintenance-{self.part}-{self.rounds['maintenances']}"
        row = self.create("maintenance", name, {"serverRef": {"name": server}, "reason": "power cuts"})
        self.until(f"{name} has begun", lambda: self.get("maintenance", name).get("phase") == "MAINTENANCE_PHASE_IN_MAINTENANCE")
        self.label("maintenance", row, turn="1")
        for action in ("POWER_ACTION_ON", "POWER_ACTION_FORCE_OFF"):
            system = {"bmc": self.get("server", server)["spec"]["bmcRef"]["name"]}
            operation = self.see("operation", self.call("bmc.v1.SystemService/SetPower", system=system, action=action), True)
            self.see("operation", self.call("bmc.v1.OperationService/WaitOperation", name=operation["name"]))
        self.delete("maintenance", row)
        self.available(server)
        self.ending.wait(self.dice.random() * 0.3)

    def clerk(self, servers):
        """Writes the small things: labels, credentials, endpoints, BMCs that wait for an address."""
        self.rounds["papers"] += 1
        number = self.rounds["papers"]
        name = f"paper-{self.part}-{number}"
        server = self.get("server", self.dice.choice(servers))
        self.label("server", server, turn=str(number), fleet="simulated")
        self.label("bmc", self.get("bmc", server["spec"]["bmcRef"]["name"]), turn=str(number), fleet="simulated")
        credentials = "bmc.v1.CredentialService"
        for password in ("first", "second"):
            self.see("credential", self.call(f"{credentials}/SetCredential", name=name, username="admin", password=password), True)
        mac = f"02:00:{self.part:02x}:00:{number >> 8 & 255:02x}:{number & 255:02x}"
        endpoint = self.create("endpoint", name, {"macAddress": mac, "ip": f"127.90.{number >> 8 & 255}.{number & 255}"})
        self.label("endpoint", endpoint, turn="1")
        bmc = self.create("bmc", name, {"macAddress": mac.replace("02:00", "02:01"), "credential": name, "protocol": "Redfish"})
        for row in self.call(f"{credentials}/ListCredentials").get("credentials", []):
            self.see("credential", row)
        if self.dice.random() < 0.7:
            self.delete("bmc", bmc)
            self.delete("endpoint", endpoint)
            self.notes.write(note="intent", kind="credential", uid=name)
            self.call(f"{credentials}/DeleteCredential", name=name)
            self.notes.write(note="gone", kind="credential", uid=name, changed=True)
        self.ending.wait(self.dice.random() * 0.3)

    def reader(self):
        """Reads everything now and then."""
        for kind in RESOURCES:
            self.list(kind)
        for row in self.call("bmc.v1.OperationService/ListOperations").get("operations", []):
            self.see("operation", row)
        self.ending.wait(0.4)

    def watch(self, kind):
        """Notes what a watch shows."""
        service, noun, field, _ = RESOURCES[kind]
        stream = self.client.stream(f"{service}/Watch{noun}s")
        self.streams.append(stream)
        for message in stream:
            change = self.client.json.MessageToDict(message)
            if change["type"] in ("CHANGE_TYPE_ADDED", "CHANGE_TYPE_MODIFIED"):
                self.see(kind, change[field])
            elif change["type"] == "CHANGE_TYPE_DELETED":
                self.notes.write(note="gone", kind=kind, uid=change[field]["metadata"]["uid"])
            if self.ending.is_set():
                return

    # -- all of them together

    def start(self, work, *arguments, until=None):
        """Does some work over and over, in a thread; `until` is an event that ends it after a round."""

        def run():
            try:
                while not self.ending.is_set():
                    work(*arguments)
                    if until and until.is_set():
                        break
            except Stopped:
                pass
            except Exception as error:  # noqa: BLE001: whatever it is, the life tells it
                if not self.ending.is_set():
                    self.failed.append(f"{work.__name__}{arguments}: {error!r}")
                    self.ending.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread

    def live(self, count, seconds):
        """Starts the clients, lets them work, and returns while they still do, but for those of two servers, which are left Available."""
        leave = threading.Event()
        for kind in RESOURCES:
            self.start(self.watch, kind, until=self.ending)
        servers = self.tidy(count)
        for server in servers[1:-1]:
            self.start(self.tenant, server)
        leaving = [self.start(self.tenant, servers[0], until=leave), self.start(self.mechanic, servers[-1], until=leave)]
        self.start(self.clerk, servers)
        self.start(self.reader)
        wanted = time.monotonic() + seconds
        # A slow disk gets more time, until there is something to judge.
        while time.monotonic() < wanted or (self.rounds["wiped"] < 3 and time.monotonic() < wanted + SHORT):
            if self.ending.wait(0.1):
                break
        leave.set()
        for thread in leaving:
            thread.join(timeout=SHORT)
        assert not self.failed, self.failed

    def end(self):
        """Waits for the clients, once the process is gone."""
        for stream in self.streams:
            stream.cancel()
        for thread in self.threads:
            thread.join(timeout=SHORT)
            assert not thread.is_alive(), "a client does not end"
        self.client.channel.close()
        assert not self.failed, self.failed


def build_recorder(folder):
    library, source = os.path.join(folder, "power_cut.so"), pathlib.Path(__file__).with_suffix(".c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-pthread", "-Wall", "-Wextra", "-o", library, str(source)], check=True)
    return library


def recorded_environment(library, folder, log, sync_each=False):
    environment = {**os.environ, "LD_PRELOAD": library, "POWER_CUT_DIR": folder, "POWER_CUT_LOG": log}
    environment.pop("POWER_CUT_SYNC_EACH", None)
    if sync_each:
        environment["POWER_CUT_SYNC_EACH"] = "1"
    return environment


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_life(program, work, seconds, seed, sync_each):
    """Two processes after each other over one folder. Returns the log, the records without effect, and the key at the end."""
    servers, log, data, void = 5, os.path.join(work, "log"), os.path.join(work, "data"), set()
    os.mkdir(data)
    library, notes = build_recorder(work), Notes(log)
    for part, ends_by in enumerate((signal.SIGKILL, signal.SIGTERM)):
        port = free_port()
        out, err = os.path.join(work, f"out-{part}"), os.path.join(work, f"err-{part}")
        with open(out, "wb") as out_file, open(err, "wb") as err_file:
            process = subprocess.Popen(
                [program, "up", "--simulate", str(servers), "--port", str(port), "--data", data],
                stdin=subprocess.DEVNULL, stdout=out_file, stderr=err_file, env=recorded_environment(library, data, log, sync_each),
            )
        try:
            deadline = time.monotonic() + SHORT
            while "ready" not in pathlib.Path(out).read_text():
                assert process.poll() is None, f"it does not start: {pathlib.Path(err).read_text()[-2000:]}"
                assert time.monotonic() < deadline, "it does not get ready"
                time.sleep(0.05)
            life = Life(Client(f"127.0.0.1:{port}"), notes, seed, part)
            try:
                life.live(servers, seconds / 2)
                assert process.poll() is None, "it ended by itself"
            except AssertionError:
                print(f"exit status {process.poll()}; its last words: {pathlib.Path(err).read_text()[-2000:]}")
                raise
            finally:
                life.ending.set()
                process.send_signal(ends_by)
                try:
                    process.wait(timeout=SHORT)
                except subprocess.TimeoutExpired:
                    print(f"it did not stop within {SHORT} s of signal {ends_by.name}; killed")
            life.end()
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        files = explain_folder(log, data, void)
        print(f"life {part + 1}, ended by {ends_by.name}: {life.rounds['wiped']} servers wiped; the log explains all {files} files to the byte")
    key = pathlib.Path(data, KEY_FILE)
    return log, void, key.read_bytes() if key.exists() else None


def test_ironyard(options):
    begun = time.monotonic()
    work = options.keep or tempfile.mkdtemp(prefix="power-cut-")
    os.makedirs(work, exist_ok=True)
    work = os.path.realpath(work)
    try:
        try:
            log, void, key = run_life(os.path.abspath(options.program), work, options.seconds, options.seed, options.sync_each)
        except AssertionError as problem:
            print(f"the life ended too early, so nothing was judged: {problem}")
            return 2
        lived = time.monotonic()
        records, cuts = cut_everywhere(log, void, options.points, options.seed, key)
        enough, answers = report(records, cuts, not options.sync_each)
        if answers < 200:
            print(f"FAILED: only {answers} calls were acknowledged")
            enough = False
        lost = say_lost(cuts)
        took = f"{lived - begun:.0f} s of life, {time.monotonic() - lived:.0f} s of cuts, seed {options.seed}"
        if lost:
            print(f"FAILED: {lost} of {len(cuts)} power cuts lost what had been acknowledged ({took})")
        elif enough:
            print(f"{len(cuts)} power cuts, nothing that was acknowledged is missing ({took})")
        return 0 if enough and not lost else 1
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)


# ---- the test of the test ----

# How SQLite was set, and whether it then keeps what it acknowledged. With a rollback journal, FULL does not sync the folder after the journal is
# removed, so that the last commit may be taken back; EXTRA does (https://www.sqlite.org/pragma.html#pragma_synchronous).
MODES = [("wal", "full", True), ("wal", "normal", False), ("wal", "off", False), ("delete", "extra", True), ("delete", "full", False)]


def write_samples(journal, synchronous, path, log, seed):
    """Runs in a process of its own, recorded: commits rows, and notes each one after its commit."""
    dice, notes, alive = random.Random(seed), Notes(log), {}
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"pragma journal_mode = {journal}")
    db.execute(f"pragma synchronous = {synchronous}")
    db.execute("pragma wal_autocheckpoint = 40")
    db.execute("create table sample (sample_id text primary key, uid text not null unique, version bigint not null, body text not null)")
    for number in range(300):
        body = "x" * dice.randint(1, 9000)
        if alive and dice.random() < 0.2:
            uid = dice.choice(sorted(alive))
            del alive[uid]
            notes.write(note="intent", kind="sample", uid=uid)
            db.execute("delete from sample where uid = ?", (uid,))
            notes.write(note="gone", kind="sample", uid=uid, changed=True)
            continue
        if alive and dice.random() < 0.5:
            uid = dice.choice(sorted(alive))
            alive[uid] += 1
            db.execute("update sample set version = ?, body = ? where uid = ?", (alive[uid], body, uid))
        else:
            uid = f"u{number}"
            alive[uid] = 1
            db.execute("insert into sample values (?, ?, 1, ?)", (f"n-{uid}", uid, body))
        notes.write(note="row", kind="sample", name=f"n-{uid}", uid=uid, version=alive[uid], changed=True)
    os._exit(0)  # as if killed: the database is not closed


def self_check(options):
    failed = 0
    for journal, synchronous, keeps in MODES:
        with tempfile.TemporaryDirectory(prefix="power-cut-") as work:
            work = os.path.realpath(work)
            log, data, void = os.path.join(work, "log"), os.path.join(work, "data"), set()
            os.mkdir(data)
            command = [sys.executable, __file__, "--write-samples", journal, synchronous, os.path.join(data, "sample.db"), log, str(options.seed)]
            subprocess.run(command, check=True, timeout=SHORT, env=recorded_environment(build_recorder(work), data, log))
            explain_folder(log, data, void)
            print(f"SQLite, journal_mode={journal} synchronous={synchronous}:")
            records, cuts = cut_everywhere(log, void, options.points, options.seed, None)
            enough, _ = report(records, cuts, want_unsynced=True)
            lost = say_lost(cuts, show=2 if keeps else 1)
            as_known = (lost == 0) == keeps
            failed += not (enough and as_known)
            print(f"  {lost} of {len(cuts)} cuts lost something: {'as' if as_known else 'NOT as'} is known of this mode")
    print(f"{len(MODES) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    if sys.argv[1:2] == ["--write-samples"]:
        journal, synchronous, path, log, seed = sys.argv[2:]
        return write_samples(journal, synchronous, path, log, seed)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("program", nargs="?", help="the ironyard to test")
    parser.add_argument("--points", type=int, default=1000, help="how many power cuts")
    seed = random.SystemRandom().randrange(1 << 31)
    parser.add_argument("--seed", type=int, default=seed, help="chooses the cuts; the log differs each time all the same")
    parser.add_argument("--seconds", type=float, default=26, help="how long the clients work")
    parser.add_argument("--keep", help="an empty folder for the log and the files, kept")
    parser.add_argument("--sync-each", action="store_true", help="the control: pretend that each write was synced at once")
    parser.add_argument("--self-check", action="store_true", help="test this test against SQLite")
    options = parser.parse_args()
    if options.self_check:
        return self_check(options)
    if not options.program:
        parser.error("which ironyard?")
    return test_ironyard(options)


if __name__ == "__main__":
    sys.exit(main())
