#!/usr/bin/env python3
"""A second opinion on wipe evidence.

Written from docs/wipes.md, proto/ironyard/claim/v1 and NIST SP 800-88 alone, without a look at the code that judges in production, so that the
two can disagree. It knows digests only: it cannot know marks, nor derive places from seeds.

    evidence.py FILE          judges {"certificate": {...}, "evidence": {...}, "earlier": [evidence, ...]} in protobuf-JSON ("-": standard input)
    evidence.py --self-check  judges good and spoiled documents of its own

Exit 0 and "ok": the certificate says passed, and the evidence bears that out. 1: it does not; one line per objection. 2: unusable input.
"""

import copy
import hashlib
import json
import random
import re
import sys

BLOCK = 512
EDGE = 8  # blocks at each end
LARGE = 2000  # blocks from which on the minimum numbers hold
LEAST_BEFORE = 200
LEAST_FRESH = 64
STRETCH = 32  # no more than 1/32 of the drive unread in one piece
FRESH_STRETCH = 8  # the same for places that were read after only: they must not huddle
SHARE = 5  # no more than 1/5 of the places in common with another wipe

PURGES = ("BlockErase", "CryptographicErase")
METHODS = PURGES + ("Overwrite",)
CATEGORIES = ("Clear", "Purge")


def digest_of(content):
    return hashlib.sha256(content).hexdigest()[:16]


BLANK = (digest_of(b"\x00" * BLOCK), digest_of(b"\xff" * BLOCK))
DIGEST = re.compile(r"[0-9a-f]{16}\Z")

# Every objection begins with one of these. The self-check spoils a document for each.
CODES = {
    "not-passed": "the certificate does not say passed",
    "no-drives": "the certificate names no drives",
    "drive-not-passed": "the certificate says passed, one of its drives does not",
    "serial-missing": "a drive without a serial number",
    "serial-twice": "two entries with one serial number",
    "other-wipe": "the evidence names another certificate",
    "drive-not-certified": "a drive in the evidence that the certificate does not name",
    "no-record": "a passing drive without places read before and after",
    "not-sampled": "a passing drive without SampledByAgent",
    "method-unknown": "a method that the certificate must not have",
    "category-unknown": "a category that the certificate must not have",
    "not-purge": "Purge by a method that does not purge",
    "below-minimum": "Clear where Purge was the least, and nothing was forgiven",
    "capacity": "a passing drive without a capacity",
    "few-before": "too few places read before",
    "edge": "the ends were not read",
    "outside": "places outside the capacity",
    "repeated": "places repeated",
    "unsorted": "places unsorted",
    "stretch": "a long stretch without a place",
    "not-read-again": "places read before but not after",
    "few-fresh": "too few places that were read after only",
    "fresh-huddled": "places that were read after only leave a long stretch out",
    "digest-malformed": "digests that are not 16 lower-case hexadecimal digits",
    "unchanged": "what stood there before is there again",
    "not-blank": "data after a method that leaves none",
    "counts": "counts that do not follow from the places",
    "seed-empty": "an empty seed",
    "seeds-equal": "both seeds are the same",
    "seed-reused": "a seed of an earlier wipe",
    "places-reused": "places of an earlier wipe",
}


class Unusable(Exception):
    """The input is no document of the expected form."""


# --- Reading protobuf-JSON: a field may be missing, null, camelCase or snake_case; int64 may be a string ---


def camel(name):
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def message(value, where):
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unusable(f"{where} is not an object")
    return value


def field(record, name, where):
    found = [record[key] for key in dict.fromkeys((name, camel(name))) if record.get(key) is not None]
    if len(found) == 2:
        raise Unusable(f"{where} has {name} in both spellings")
    return found[0] if found else None


def text(record, name, where):
    value = field(record, name, where)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unusable(f"{where}.{name} is not a string")
    return value


def flag(record, name, where):
    value = field(record, name, where)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise Unusable(f"{where}.{name} is not true or false")
    return value


def whole(record, name, where):
    value = field(record, name, where)
    if value is None:
        return 0
    if isinstance(value, str) and re.match(r"-?[0-9]{1,19}\Z", value, re.ASCII):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise Unusable(f"{where}.{name} is not a 64-bit integer")
    return value


def several(record, name, where):
    value = field(record, name, where)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unusable(f"{where}.{name} is not a list")
    return value


def strings(record, name, where):
    value = several(record, name, where)
    if not all(isinstance(item, str) for item in value):
        raise Unusable(f"{where}.{name} does not hold strings")
    return value


def read_places(record, name, where):
    places = []
    for index, item in enumerate(several(record, name, where)):
        here = f"{where}.{name}[{index}]"
        item = message(item, here)
        places.append((whole(item, "block", here), text(item, "digest", here)))
    return places


def read_evidence(value, where):
    record = message(value, where)
    drives = []
    for index, item in enumerate(several(record, "drives", where)):
        here = f"{where}.drives[{index}]"
        item = message(item, here)
        drives.append(
            {
                "serial": text(item, "serial_number", here),
                "before": read_places(item, "before", here),
                "after": read_places(item, "after", here),
            }
        )
    return {
        "certificate": text(record, "certificate", where),
        "seed": text(record, "seed", where),
        "fresh_seed": text(record, "fresh_seed", where),
        "drives": drives,
    }


def read_certificate(value):
    where = "certificate"
    record = message(value, where)
    drives = []
    for index, item in enumerate(several(record, "drives", where)):
        here = f"{where}.drives[{index}]"
        item = message(item, here)
        drives.append(
            {
                "serial": text(item, "serial_number", here),
                "capacity": whole(item, "capacity_bytes", here),
                "category": text(item, "category", here),
                "method": text(item, "method", here),
                "passed": flag(item, "passed", here),
                "evidence": strings(item, "evidence", here),
                "places_read": whole(item, "places_read", here),
                "places_blank": whole(item, "places_blank", here),
                "places_changed": whole(item, "places_changed", here),
            }
        )
    return {
        "name": text(record, "name", where),
        "passed": flag(record, "passed", where),
        "minimum": text(record, "minimum", where),
        "forgiven": strings(record, "forgiven", where),
        "drives": drives,
    }


# --- Judging ---


def some(blocks):
    """A few of them for people to look at."""
    blocks = sorted(blocks)
    return f"{len(blocks)}: " + ", ".join(str(block) for block in blocks[:4]) + (", ..." if len(blocks) > 4 else "")


def longest_stretch(blocks, capacity):
    """Longest run of blocks that are not among `blocks`, and where it begins."""
    longest, begin, last = 0, 0, -1
    for block in sorted(blocks) + [capacity]:
        if block - last - 1 > longest:
            longest, begin = block - last - 1, last + 1
        last = block
    return longest, begin


def edges_of(capacity):
    return set(range(min(EDGE, capacity))) | set(range(max(0, capacity - EDGE), capacity))


def judge_drive(drive, record, minimum, forgiven):
    """Objections to one drive that is said to have passed, as (code, what is wrong)."""
    found = []

    def object_(code, detail):
        found.append((code, detail))

    if "SampledByAgent" not in drive["evidence"]:
        object_("not-sampled", "passed without SampledByAgent")
    if drive["method"] not in METHODS:
        object_("method-unknown", f"method {drive['method']!r}")
    if drive["category"] not in CATEGORIES:
        object_("category-unknown", f"category {drive['category']!r}")
    if drive["category"] == "Purge" and drive["method"] not in PURGES:
        object_("not-purge", f"{drive['method']!r} does not purge")
    if minimum == "Purge" and drive["category"] == "Clear" and not forgiven:
        object_("below-minimum", "cleared where Purge was the least")

    before = record["before"] if record else []
    after = record["after"] if record else []
    if not before or not after:
        object_("no-record", f"passed with {len(before)} places read before and {len(after)} after")
        return found

    capacity = drive["capacity"] // BLOCK
    if capacity <= 0:
        object_("capacity", f"passed with a capacity of {drive['capacity']} bytes")
        return found

    inside = {}
    for when, places in (("before", before), ("after", after)):
        blocks = [block for block, _ in places]
        distinct = set(blocks)
        outside = {block for block in distinct if not 0 <= block < capacity}
        if outside:
            object_("outside", f"read {when} outside its {capacity} blocks, {some(outside)}")
        if len(distinct) != len(blocks):
            object_("repeated", f"read {when} more than once, {some(block for block in distinct if blocks.count(block) > 1)}")
        if any(right < left for left, right in zip(blocks, blocks[1:])):
            object_("unsorted", f"places read {when} are not in order")
        malformed = {block for block, digest in places if not DIGEST.match(digest)}
        if malformed:
            object_("digest-malformed", f"read {when} with no proper digest, {some(malformed)}")
        inside[when] = distinct - outside
        unread = edges_of(capacity) - distinct
        if unread:
            object_("edge", f"blocks at its ends not read {when}, {some(unread)}")
        length, begin = longest_stretch(inside[when], capacity)
        if length * STRETCH > capacity:
            object_("stretch", f"{length} of {capacity} blocks from {begin} on without a place read {when}")

    if capacity >= LARGE and len(inside["before"]) < LEAST_BEFORE:
        object_("few-before", f"{len(inside['before'])} places read before, not {LEAST_BEFORE}")

    lost = inside["before"] - inside["after"]
    if lost:
        object_("not-read-again", f"read before but not after, {some(lost)}")

    # A drive that was read before as a whole has no places left to be read after only.
    fresh = inside["after"] - inside["before"]
    least = LEAST_FRESH if capacity >= LARGE else min(1, capacity - len(inside["before"]))
    if len(fresh) < least:
        object_("few-fresh", f"{len(fresh)} places read after only, not {least}")
    elif capacity >= LARGE:
        length, begin = longest_stretch(fresh, capacity)
        if length * FRESH_STRETCH > capacity:
            object_("fresh-huddled", f"{length} of {capacity} blocks from {begin} on without a place read after only")

    stood = {}
    for block, digest in before:
        stood.setdefault(block, set()).add(digest)
    data = [(block, digest) for block, digest in after if digest not in BLANK]
    same = {block for block, digest in data if digest in stood.get(block, ())}
    if same:
        object_("unchanged", f"hold what stood there before, {some(same)}")
    if data and drive["method"] != "CryptographicErase":
        object_("not-blank", f"hold data after {drive['method']!r}, {some({block for block, _ in data})}")

    follows = {
        "places_read": len(after),
        "places_blank": len(after) - len(data),
        # What a place held that was read after only nobody knows: it cannot be said to have changed.
        "places_changed": sum(1 for block, digest in data if block in stood and digest not in stood[block]),
    }
    for name, number in follows.items():
        if drive[name] != number:
            object_("counts", f"{name} is {drive[name]}, its places give {number}")
    return found


def judge(document):
    """Every objection to a document, as (code, what is wrong). Pure; raises Unusable."""
    if not isinstance(document, dict):
        raise Unusable("the document is not an object")
    for name in ("certificate", "evidence"):
        if not isinstance(document.get(name), dict):
            raise Unusable(f"the document has no {name}")
    certificate = read_certificate(document["certificate"])
    evidence = read_evidence(document["evidence"], "evidence")
    earlier = [read_evidence(item, f"earlier[{index}]") for index, item in enumerate(several(document, "earlier", "document"))]
    found = []

    if not certificate["passed"]:
        found.append(("not-passed", "the certificate does not say passed"))
    if not certificate["drives"]:
        found.append(("no-drives", "the certificate names no drives: nothing is known to be wiped"))
    if evidence["certificate"] != certificate["name"]:
        found.append(("other-wipe", f"certificate {certificate['name']!r}, evidence of {evidence['certificate']!r}"))

    # Seeds.
    seeds = {"seed": evidence["seed"].strip().lower(), "fresh_seed": evidence["fresh_seed"].strip().lower()}
    for name, seed in seeds.items():
        if not seed:
            found.append(("seed-empty", f"{name} is empty"))
    if seeds["seed"] and seeds["seed"] == seeds["fresh_seed"]:
        found.append(("seeds-equal", "seed and fresh_seed are the same"))
    for index, other in enumerate(earlier):
        known = {other["seed"].strip().lower(), other["fresh_seed"].strip().lower()}
        for name, seed in seeds.items():
            if seed and seed in known:
                found.append(("seed-reused", f"{name} is one of earlier[{index}] {other['certificate']!r}"))

    # Which record belongs to which drive.
    records = {}
    for record in evidence["drives"]:
        if record["serial"] in records:
            found.append(("serial-twice", f"drive {record['serial']!r} is in the evidence more than once"))
        records.setdefault(record["serial"], record)
    named = set()
    for drive in certificate["drives"]:
        if drive["serial"] in named:
            found.append(("serial-twice", f"drive {drive['serial']!r} is on the certificate more than once"))
        named.add(drive["serial"])
    for serial in records:
        if serial not in named:
            found.append(("drive-not-certified", f"drive {serial!r} is in the evidence, not on the certificate"))

    for drive in certificate["drives"]:
        serial = drive["serial"]
        if not drive["passed"]:
            if certificate["passed"]:
                found.append(("drive-not-passed", f"drive {serial!r} has not passed"))
            continue
        if not serial:
            found.append(("serial-missing", "a drive without a serial number has passed"))
        record = records.get(serial)
        for code, detail in judge_drive(drive, record, certificate["minimum"], certificate["forgiven"]):
            found.append((code, f"drive {serial!r}: {detail}"))

        # Places may not be foreseeable from an earlier wipe. A small drive has too few for that.
        capacity = drive["capacity"] // BLOCK
        if record is None or capacity < LARGE:
            continue
        edges = edges_of(capacity)
        places = {block for block, _ in record["before"]} - edges
        for index, other in enumerate(earlier):
            shared = {block for item in other["drives"] if item["serial"] == serial for block, _ in item["before"]} & places
            if len(shared) * SHARE > len(places):
                detail = f"{len(shared)} of {len(places)} places read before are those of earlier[{index}] {other['certificate']!r}"
                found.append(("places-reused", f"drive {serial!r}: {detail}"))
    return found


def objections(document):
    """One line per objection; none: the certificate says passed, and its evidence bears that out. Pure; raises Unusable."""
    return [f"{code}: {detail}" for code, detail in judge(document)]


def parse(source):
    def once(pairs):
        record = dict(pairs)
        if len(record) != len(pairs):
            raise Unusable("a key is given more than once")
        return record

    def refuse(value):
        raise Unusable(f"{value} is no JSON")

    try:
        return json.loads(source, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"no JSON: {error}") from error


def run(path, out, err):
    try:
        if path == "-":
            source = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                source = file.read()
        found = objections(parse(source))
    except (OSError, Unusable) as error:
        print(f"unusable: {error}", file=err)
        return 2
    for line in found or ["ok"]:
        print(line, file=out)
    return 1 if found else 0


# --- Self-check ---


def place(block, digest):
    return {"block": str(block), "digest": digest}


def spread(rng, capacity, number, taken):
    """`number` places, one in each of as many equal parts of the drive, none of them taken."""
    chosen = set()
    for part in range(number):
        begin, end = part * capacity // number, (part + 1) * capacity // number
        free = [block for block in (range(begin, end) if end - begin < 64 else rng.sample(range(begin, end), 64)) if block not in taken]
        if free:
            chosen.add(rng.choice(free))
    return chosen


def count(drive, record):
    """Writes the counts that follow from the places; its own way of counting, so that it can differ from the judge's."""
    first = {item["block"]: item["digest"] for item in record["before"]}
    blank = changed = 0
    for item in record["after"]:
        if item["digest"] in BLANK:
            blank += 1
        elif item["block"] in first and first[item["block"]] != item["digest"]:
            changed += 1
    drive["placesRead"], drive["placesBlank"], drive["placesChanged"] = str(len(record["after"])), str(blank), str(changed)


def make_drive(rng, serial, method, blocks, number=256, fresh=128, evidence=("ReportedByBMC", "SampledByAgent")):
    ends = edges_of(blocks)
    before = ends | (spread(rng, blocks, number, ends) if blocks > number else set(range(blocks)))
    after = before | spread(rng, blocks, fresh, before)

    def digest(blank_of_100):
        return BLANK[rng.randrange(2)] if rng.randrange(100) < blank_of_100 else digest_of(rng.randbytes(16))

    record = {
        "serialNumber": serial,
        "before": [place(block, digest(40)) for block in sorted(before)],
        "after": [place(block, digest(5 if method == "CryptographicErase" else 100)) for block in sorted(after)],
    }
    drive = {
        "serialNumber": serial,
        "model": "Good Model",
        "capacityBytes": str(blocks * BLOCK),
        "category": "Purge" if method in PURGES else "Clear",
        "method": method,
        "tool": "Redfish SecureErase",
        "passed": True,
        "evidence": list(evidence),
    }
    count(drive, record)
    return drive, record


def make(seed, *drives, minimum="Purge"):
    """A good document; drives as (serial, method, blocks[, places before, places after only])."""
    rng = random.Random(seed)
    made = [make_drive(rng, *drive) for drive in drives]
    return {
        "certificate": {
            "name": f"wipe-{seed}",
            "server": {"name": "server-1"},
            "passed": True,
            "minimum": minimum,
            "drives": [drive for drive, _ in made],
        },
        "evidence": {
            "certificate": f"wipe-{seed}",
            "server": "server-1",
            "seed": rng.randbytes(16).hex(),
            "freshSeed": rng.randbytes(16).hex(),
            "drives": [record for _, record in made],
        },
        "earlier": [],
    }


def snake(value):
    if isinstance(value, dict):
        return {re.sub("([A-Z])", lambda match: "_" + match[1].lower(), key): snake(item) for key, item in value.items()}
    if isinstance(value, list):
        return [snake(item) for item in value]
    return value


def as_sent(value):
    """Leaves out what has its default value, as protobuf-JSON does, and writes integers as numbers."""
    if isinstance(value, dict):
        sent = {}
        for key, item in value.items():
            item = as_sent(item)
            if key in ("block", "capacityBytes", "placesRead", "placesBlank", "placesChanged"):
                item = int(item)
            if item not in (0, "", False, []):
                sent[key] = item
        return sent
    if isinstance(value, list):
        return [as_sent(item) for item in value]
    return value


TERABYTE = 2 * 10**9  # blocks
CE = ("S-CE", "CryptographicErase", TERABYTE)
BE = ("S-BE", "BlockErase", 7_814_037_168)
OW = ("S-OW", "Overwrite", 1_000_000)


def good_documents():
    yield "cryptographic erase", make(1, CE)
    yield "block erase", make(2, BE)
    yield "overwrite", make(3, OW, minimum="Clear")
    yield "three drives", make(4, CE, BE, OW, minimum="Clear")
    yield "small drive, read as a whole", make(5, ("S", "Overwrite", 40), minimum="Clear")
    yield "tiny drive, both ends are one", make(6, ("S", "Overwrite", 5), minimum="Clear")
    yield "drive just below the numbers", make(7, ("S", "BlockErase", 1999, 100, 20))
    yield "drive just of the numbers", make(8, ("S", "BlockErase", 2000))
    yield "fewest places", make(9, ("S", "BlockErase", TERABYTE, 184, 64))
    yield "snake case", snake(make(10, CE, BE))
    yield "defaults left out, numbers", as_sent(make(11, CE, BE))
    document = make(12, CE, BE)
    document["earlier"] = [make(13, CE, BE)["evidence"], make(14, CE, BE)["evidence"]]
    yield "earlier wipes", document
    document = make(15, CE)
    del document["earlier"]
    yield "earlier left out", document
    document = make(16, OW)
    document["certificate"]["forgiven"] = ["minimum: admin, today, no purge known"]
    yield "minimum forgiven", document
    # A fifth is the most that may be shared: 51 of 256 is below, 52 above.
    document = make(17, BE)
    document["earlier"] = [earlier_with(document, 51)]
    yield "a fifth shared", document
    # The longest stretch that is allowed: 1/32 of 32,000 blocks.
    document = make(18, ("S", "BlockErase", 32_000))
    open_stretch(document, 1000)
    yield "a stretch of 1/32", document


def earlier_with(document, number):
    """Evidence of another wipe that shares `number` places, and the ends, with that of `document`."""
    other = make(99, *((drive["serialNumber"], drive["method"], int(drive["capacityBytes"]) // BLOCK) for drive in document["certificate"]["drives"]))["evidence"]
    mine = document["evidence"]["drives"][0]["before"]
    theirs = other["drives"][0]["before"]
    known = {item["block"] for item in mine}
    inner = [item for item in theirs if item["block"] not in known]
    ends = [item for item in theirs if item["block"] in known]
    other["drives"][0]["before"] = sorted(ends + inner[number:] + mine[EDGE : EDGE + number], key=lambda item: int(item["block"]))
    return other


def open_stretch(document, length, when=("before", "after")):
    """Removes the places of a stretch of exactly `length` blocks, and puts places at both sides of it."""
    record = document["evidence"]["drives"][0]
    begin = 10_000
    for name in when:
        kept = {item["block"]: item for item in record[name] if not begin <= int(item["block"]) < begin + length}
        for block in (begin - 1, begin + length):
            kept.setdefault(str(block), place(block, BLANK[0]))
        record[name] = sorted(kept.values(), key=lambda item: int(item["block"]))
    count(document["certificate"]["drives"][0], record)


def spoiled_documents():
    """(name, codes that must be found and no others, document)."""

    def spoil(name, codes, change, document):
        document = copy.deepcopy(document)
        certificate, evidence = document["certificate"], document["evidence"]
        change(document, certificate, evidence, certificate["drives"][0], evidence["drives"][0])
        return name, set(codes.split()), document

    def recounted(change):
        def both(document, certificate, evidence, drive, record):
            change(record)
            count(drive, record)

        return both

    def setting(key, value, of):
        def change(document, certificate, evidence, drive, record):
            {"certificate": certificate, "evidence": evidence, "drive": drive, "record": record}[of][key] = value

        return change

    def without(record, blocks, *when):
        for name in when:
            record[name] = [item for item in record[name] if int(item["block"]) not in blocks]

    ce, be, ow = make(21, CE, BE), make(22, BE), make(23, OW, minimum="Clear")
    last = BE[2] - 1

    def inner(record):
        return [item for item in record["before"] if EDGE <= int(item["block"]) < BE[2] - EDGE]

    def fresh(record):
        known = {item["block"] for item in record["before"]}
        return [item for item in record["after"] if item["block"] not in known]

    yield spoil("not passed", "not-passed", setting("passed", False, "certificate"), ce)
    yield spoil("passed left out", "not-passed", lambda d, c, e, v, r: c.pop("passed"), ce)
    yield spoil("a drive not passed", "drive-not-passed", setting("passed", False, "drive"), ce)
    yield spoil("no drives", "no-drives", lambda d, c, e, v, r: (c.update(drives=[]), e.update(drives=[])), ce)
    yield spoil("evidence of another wipe", "other-wipe", setting("certificate", "wipe-of-others", "evidence"), ce)
    yield spoil("no record", "no-record", lambda d, c, e, v, r: e["drives"].pop(0), ce)
    yield spoil("no evidence at all", "no-record seed-empty other-wipe", lambda d, c, e, v, r: e.clear(), be)
    yield spoil("nothing read after", "no-record", setting("after", [], "record"), be)
    yield spoil("nothing read before", "no-record", setting("before", [], "record"), be)
    yield spoil("not sampled", "not-sampled", setting("evidence", ["ReportedByBMC"], "drive"), ce)
    yield spoil("drive not certified", "drive-not-certified", lambda d, c, e, v, r: c["drives"].pop(0), ce)
    yield spoil("serial of another case", "drive-not-certified no-record", setting("serialNumber", "s-be", "record"), be)
    yield spoil("no serial", "serial-missing", lambda d, c, e, v, r: (v.pop("serialNumber"), r.pop("serialNumber")), be)
    yield spoil("record twice", "serial-twice", lambda d, c, e, v, r: e["drives"].append(copy.deepcopy(r)), be)
    yield spoil("drive twice", "serial-twice", lambda d, c, e, v, r: c["drives"].append(copy.deepcopy(v)), be)
    yield spoil("no capacity", "capacity", setting("capacityBytes", "0", "drive"), be)
    yield spoil("unknown method", "method-unknown not-purge", setting("method", "Format", "drive"), be)
    yield spoil("unknown category", "category-unknown", setting("category", "Destroy", "drive"), be)
    yield spoil("overwrite as purge", "not-purge", setting("category", "Purge", "drive"), ow)
    yield spoil("clear below purge", "below-minimum", setting("minimum", "Purge", "certificate"), ow)
    yield "199 places", {"few-before"}, make(24, ("S", "BlockErase", TERABYTE, 183, 64))
    yield "few places on 2,000 blocks", {"few-before"}, make(25, ("S", "BlockErase", 2000, 100, 64))
    yield "63 places after only", {"few-fresh"}, make(26, ("S", "BlockErase", TERABYTE, 184, 63))

    def drop_fresh(record):
        gone = {int(item["block"]) for item in fresh(record)}
        without(record, gone, "after")

    yield spoil("none after only", "few-fresh", recounted(drop_fresh), be)
    yield spoil("none after only, small drive", "few-fresh", recounted(drop_fresh), make(27, ("S", "BlockErase", 1999, 100, 20)))

    def huddle(record):
        without(record, {int(item["block"]) for item in fresh(record) if int(item["block"]) < BE[2] // 7}, "after")

    yield spoil("after only huddled", "fresh-huddled", recounted(huddle), be)
    yield spoil("first block not read", "edge", recounted(lambda r: without(r, {0}, "before", "after")), be)
    yield spoil("eighth block not read", "edge", recounted(lambda r: without(r, {7}, "before", "after")), be)
    yield spoil("last block not read", "edge", recounted(lambda r: without(r, {last}, "before", "after")), be)
    yield spoil("eighth last not read before", "edge", recounted(lambda r: without(r, {last - 7}, "before")), be)
    yield spoil("block at the capacity", "outside", recounted(lambda r: r["after"].append(place(last + 1, BLANK[0]))), be)
    yield spoil("block below 0", "outside", recounted(lambda r: r["before"].insert(0, place(-1, BLANK[0]))), be)
    yield spoil("capacity overstated", "edge", setting("capacityBytes", str((BE[2] + 1) * BLOCK), "drive"), be)
    yield spoil("capacity understated", "edge outside", setting("capacityBytes", str((BE[2] - 1) * BLOCK), "drive"), be)
    yield spoil("repeated after", "repeated", recounted(lambda r: r["after"].insert(100, dict(r["after"][100]))), be)
    yield spoil("repeated before", "repeated", recounted(lambda r: r["before"].insert(0, dict(r["before"][0]))), be)
    yield spoil("unsorted before", "unsorted", lambda d, c, e, v, r: r["before"].reverse(), be)
    yield spoil("unsorted as text", "unsorted", lambda d, c, e, v, r: r["after"].sort(key=lambda item: item["block"]), be)

    wide = make(28, ("S", "BlockErase", 32_000))
    yield spoil("stretch not read", "stretch", lambda d, c, e, v, r: open_stretch(d, 1001), wide)
    yield spoil("stretch not read before", "stretch not-read-again", lambda d, c, e, v, r: open_stretch(d, 1001, ["before"]), wide)

    def front_only(record):
        gone = {int(item["block"]) for item in record["after"] if BE[2] // 2 < int(item["block"]) < BE[2] - EDGE}
        without(record, gone, "after")

    yield spoil("second half not read after", "stretch not-read-again few-fresh", recounted(front_only), make(22, BE + (256, 100)))
    yield spoil("one not read again", "not-read-again", recounted(lambda r: without(r, {int(inner(r)[77]["block"])}, "after")), be)

    def same(record):
        found = {item["block"]: item for item in record["after"]}
        for item in inner(record):
            if item["digest"] not in BLANK:
                found[item["block"]]["digest"] = item["digest"]
                return

    yield spoil("one unchanged, cryptographic", "unchanged", recounted(same), ce)
    yield spoil("one unchanged, block erase", "unchanged not-blank", recounted(same), be)
    yield spoil("unchanged as a whole", "unchanged", recounted(lambda r: [i.update(digest=b["digest"]) for i in r["after"] for b in r["before"] if i["block"] == b["block"]]), ce)
    yield spoil("other data after overwrite", "not-blank", recounted(lambda r: r["after"][50].update(digest="0123456789abcdef")), ow)
    yield spoil("data at a place read after only", "not-blank", recounted(lambda r: fresh(r)[3].update(digest="0123456789abcdef")), be)
    yield spoil("cryptographic called block erase", "not-blank", setting("method", "BlockErase", "drive"), make(21, CE))
    yield spoil("blank of 4,096 bytes", "not-blank", recounted(lambda r: r["after"][50].update(digest=digest_of(bytes(4096)))), be)
    yield spoil("no digest before", "digest-malformed", lambda d, c, e, v, r: inner(r)[5].pop("digest"), be)
    yield spoil("long digest before", "digest-malformed", lambda d, c, e, v, r: inner(r)[5].update(digest=hashlib.sha256().hexdigest()), be)
    yield spoil("upper-case digest after", "digest-malformed not-blank", recounted(lambda r: r["after"][5].update(digest="ABCDEF0123456789")), be)
    yield spoil("read miscounted", "counts", setting("placesRead", "256", "drive"), be)
    yield spoil("blank miscounted", "counts", setting("placesBlank", "0", "drive"), be)
    yield spoil("changed miscounted", "counts", setting("placesChanged", "1", "drive"), be)
    yield spoil("counts left out", "counts", lambda d, c, e, v, r: [v.pop(key) for key in ("placesRead", "placesBlank", "placesChanged")], ce)
    yield spoil("seed left out", "seed-empty", lambda d, c, e, v, r: e.pop("seed"), ce)
    yield spoil("fresh seed empty", "seed-empty", setting("freshSeed", " ", "evidence"), ce)
    yield spoil("seeds equal", "seeds-equal", lambda d, c, e, v, r: e.update(freshSeed=e["seed"]), ce)

    def reuse(mine, theirs):
        def change(document, certificate, evidence, drive, record):
            document["earlier"] = [make(31, CE, BE)["evidence"], make(32, CE, BE)["evidence"]]
            document["earlier"][1][theirs] = evidence[mine]

        return change

    yield spoil("seed of an earlier wipe", "seed-reused", reuse("seed", "seed"), ce)
    yield spoil("fresh seed of an earlier wipe", "seed-reused", reuse("freshSeed", "freshSeed"), ce)
    yield spoil("fresh seed foretold", "seed-reused", reuse("freshSeed", "seed"), ce)
    yield spoil("more than a fifth shared", "places-reused", lambda d, c, e, v, r: d.update(earlier=[earlier_with(d, 52)]), be)
    yield spoil("evidence of an earlier wipe", "seed-reused places-reused", lambda d, c, e, v, r: d.update(earlier=[copy.deepcopy(e)]), ce)
    for name, codes, document in (
        spoil("second drive unchanged", "not-blank", lambda d, c, e, v, r: None, make(41, CE, BE)),
    ):
        document["evidence"]["drives"][1]["after"][9]["digest"] = "0123456789abcdef"
        count(document["certificate"]["drives"][1], document["evidence"]["drives"][1])
        yield name, codes, document
        yield name + ", snake case", codes, snake(document)
        yield name + ", as sent", codes, as_sent(document)


def unusable_documents():
    def text_of(change):
        document = make(51, BE)
        change(document, document["evidence"]["drives"][0])
        return json.dumps(document)

    yield "empty", ""
    yield "no JSON", "{"
    yield "a list", "[]"
    yield "no certificate", '{"evidence": {}}'
    yield "no evidence", '{"certificate": {}}'
    yield "evidence null", '{"certificate": {}, "evidence": null}'
    yield "a key twice", '{"certificate": {"passed": false, "passed": true}, "evidence": {}}'
    yield "passed as text", '{"certificate": {"passed": "true"}, "evidence": {}}'
    yield "not a number", text_of(lambda d, r: r["after"][0].update(block=float("nan")))
    yield "block as a word", text_of(lambda d, r: r["after"][0].update(block="zero"))
    yield "block of a half", text_of(lambda d, r: r["after"][0].update(block=0.5))
    yield "block as true", text_of(lambda d, r: r["after"][0].update(block=True))
    yield "block beyond int64", text_of(lambda d, r: r["after"][0].update(block=2**63))
    yield "digest as a number", text_of(lambda d, r: r["after"][0].update(digest=1))
    yield "both spellings", text_of(lambda d, r: r.update(serial_number="S"))
    yield "places as an object", text_of(lambda d, r: r.update(before={}))
    yield "earlier as an object", text_of(lambda d, r: d.update(earlier={}))


def self_check():
    import io
    import os
    import tempfile

    faults, exercised, numbers = [], set(), {"good": 0, "spoiled": 0, "unusable": 0}
    # Known beforehand: sha256sum of a block of zeros.
    if BLANK[0] != "076a27c79e5ace2a":
        faults.append(f"digest of zeros is {BLANK[0]}")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "document.json")

        def command(source):
            with open(path, "w", encoding="utf-8") as file:
                file.write(source)
            out, err = io.StringIO(), io.StringIO()
            return run(path, out, err), out.getvalue(), err.getvalue()

        for name, document in good_documents():
            numbers["good"] += 1
            code, out, err = command(json.dumps(document))
            if (code, out, err) != (0, "ok\n", ""):
                faults.append(f"good document '{name}': exit {code}: {out}{err}")
        for name, wanted, document in spoiled_documents():
            numbers["spoiled"] += 1
            kept = copy.deepcopy(document)
            found = judge(document)
            codes = {code for code, _ in found}
            exercised |= codes
            if codes != wanted:
                faults.append(f"spoiled document '{name}': found {sorted(codes)}, not {sorted(wanted)}: {found}")
            if document != kept:
                faults.append(f"spoiled document '{name}' was changed by judging it")
            code, out, err = command(json.dumps(document))
            if code != 1 or err or len(out.splitlines()) != len(found):
                faults.append(f"spoiled document '{name}': exit {code}: {out}{err}")
        for name, source in unusable_documents():
            numbers["unusable"] += 1
            code, out, err = command(source)
            if code != 2 or out or not err:
                faults.append(f"unusable document '{name}': exit {code}: {out}{err}")
    out, err = io.StringIO(), io.StringIO()
    if run("/nonexistent/document.json", out, err) != 2:
        faults.append("a missing file is not unusable")
    for code in sorted(set(CODES) - exercised):
        faults.append(f"no spoiled document for {code}")
    for code in sorted(exercised - set(CODES)):
        faults.append(f"{code} is not listed")
    for fault in faults:
        print(fault)
    print(f"{numbers['good']} good, {numbers['spoiled']} spoiled, {numbers['unusable']} unusable documents, {len(CODES)} objections: " + ("failed" if faults else "ok"))
    return 1 if faults else 0


def main(arguments):
    if arguments == ["--self-check"]:
        return self_check()
    if len(arguments) != 1 or (arguments[0].startswith("-") and arguments[0] != "-"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    return run(arguments[0], sys.stdout, sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
