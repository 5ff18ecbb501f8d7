"""Index of a Redfish tree: its resources by path and by type, and its links."""

import collections
import re

ROOT = "/redfish/v1"
MANAGERS = ROOT + "/Managers"
SETTINGS_NAMES = {"settings", "sd", "pending", "capabilities"}
# Properties that, taken alone, make an object a reference and not a resource.
REFERENCE_KEYS = {"ETag", "HttpMethods", "Links", "Description"}


# ---------------------------------------------------------------- small helpers

def normal(uri, keep_query=False):
    """Path of a link without host, fragment, doubled or trailing slashes."""
    if not isinstance(uri, str):
        return ""
    uri = re.sub(r"^https?://[^/]+", "", uri.strip()).split("#")[0]
    path, _, query = uri.partition("?")
    path = re.sub(r"/{2,}", "/", path).rstrip("/")
    return f"{path}?{query}" if query and keep_query else path


def type_of(body):
    """Unversioned resource type: the last part of @odata.type, else of @odata.context."""
    for key in ("@odata.type", "@odata.context"):
        text = body.get(key) if isinstance(body, dict) else None
        if isinstance(text, str) and "#" in text:
            return text.rsplit("#", 1)[1].rsplit(".", 1)[-1].split("/")[0]
    return None


def dig(body, *keys):
    """Nested property, or None wherever the path ends early."""
    for key in keys:
        body = body.get(key) if isinstance(body, dict) else None
    return body


def rows(value):
    """The objects of a list; an object counts as a list of one."""
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def targets(value):
    """Normalised link targets of a reference or of a list of references."""
    found = [normal(item["@odata.id"]) for item in rows(value) if isinstance(item.get("@odata.id"), str)]
    if isinstance(value, list):
        found += [normal(item) for item in value if isinstance(item, str) and item.startswith("/")]
    return [uri for uri in found if uri]


def links_of(body, with_strings=False, name="", top=True):
    """Yield (is_reference, property name, target) of every link inside a document."""
    if isinstance(body, list):
        for item in body:
            yield from links_of(item, with_strings, name, False)
    elif isinstance(body, dict):
        for key, value in body.items():
            if key == "@odata.id":
                if not top and isinstance(value, str):
                    yield True, name, value
            elif isinstance(value, str):
                if key.endswith("nextLink") or key == "@Redfish.ActionInfo" or (
                        with_strings and key in ("Uri", "DataSourceUri") and value.startswith("/redfish")):
                    yield key.endswith("nextLink"), key, value
            else:
                yield from links_of(value, with_strings, key, False)


def text(value):
    """Trimmed string, None for anything empty; numbers are kept as text."""
    if isinstance(value, bool) or value is None or isinstance(value, (dict, list)):
        return None
    return str(value).strip() or None


PLACEHOLDERS = {
    "to be filled by o.e.m.", "default string", "n/a", "na", "none", "null", "nil", "unknown", "not available",
    "not specified", "not present", "no dimm", "no asset tag", "system serial number", "chassis serial number",
    "01234567890123456789ab", "0123456789", "123456789", "1234567890", "cpldserialnumber", "unspecified", "empty",
}


def placeholder(value):
    """True when an identifier is no identifier: filler text or one repeated character."""
    value = text(value)
    if value is None:
        return False
    bare = re.sub(r"[^0-9a-z]", "", value.lower().removeprefix("0x"))
    return value.lower() in PLACEHOLDERS or len(set(bare)) <= 1


def ident(value):
    """An identifier as reported: value plus a flag when it is filler."""
    value = text(value)
    return {"value": value, "placeholder": True} if placeholder(value) else value


def usable(value):
    """Identifier fit for comparison, or None."""
    return None if placeholder(value) else text(value)


def squeeze(value):
    return re.sub(r"[^0-9a-z]", "", (text(value) or "").lower())


def pick(body, **names):
    """Selected properties under short names, without the empty ones."""
    found = {short: text(dig(body, *key) if isinstance(key, tuple) else dig(body, key)) for short, key in names.items()}
    return {short: value for short, value in found.items() if value is not None}


def plain(value):
    """A list whatever was reported, so that odd values cannot break a loop."""
    return value if isinstance(value, list) else []


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def state_of(body):
    return text(dig(body, "Status", "State"))


def absent(body):
    """True when the resource says that nothing is plugged in."""
    return (state_of(body) or "").lower() in ("absent", "unavailableoffline-absent")


# ---------------------------------------------------------------- index

class Resource:
    """One resource: recorded on its own, or embedded in another document only."""

    def __init__(self, uri, body, embedded=False):
        self.uri, self.body, self.embedded = uri, body, embedded
        self.type = type_of(body)

    def get(self, *keys):
        return dig(self.body, *keys)

    @property
    def id(self):
        return text(self.get("Id")) or self.uri.rsplit("/", 1)[-1]


class Tree:
    """All resources of one service, indexed by path and by type."""

    def __init__(self, documents, broken=()):
        self.odd, self.errors, self.partial_errors, self.untyped = [], [], [], []
        self.not_json = sorted(broken)
        self.pages, self.by_path, self.lower = [], {}, {}
        self.documents, self.recorded = {}, len(documents) + len(broken)
        for key in sorted(documents):
            self._add(key, documents[key])
        self._merge_pages()
        embedded = {}
        for uri in sorted(self.by_path):
            self._embedded(self.by_path[uri].body, embedded, True)
        for uri in sorted(embedded):
            self.by_path[uri] = Resource(uri, embedded[uri], True)
            self.lower.setdefault(uri.lower(), uri)
        self.settings = self._settings()
        self.types = collections.defaultdict(list)
        for uri in sorted(self.by_path):
            resource = self.by_path[uri]
            if resource.type and not self.is_settings(uri):
                self.types[resource.type].append(resource)

    def _add(self, key, body):
        path = normal(key)
        if not isinstance(body, (dict, list)):
            self.not_json.append(path)
            return
        if "?" in key:
            self.pages.append((path, key, body))
            return
        body = body if isinstance(body, dict) else {"Members": body}
        if "error" in body and not type_of(body):
            self.errors.append(path)
        elif "error" in body:
            self.partial_errors.append(path)
        elif not type_of(body) and path != "/redfish":
            self.untyped.append(path)
        twin = self.lower.get(path.lower())
        if twin:
            other = self.by_path[twin]
            if other.type == type_of(body):
                self.note("path recorded in two spellings", f"{twin} and {path}")
                return
        self.documents[path] = body
        self.by_path[path] = Resource(path, body)
        self.lower.setdefault(path.lower(), path)

    def _merge_pages(self):
        for path, key, body in sorted(self.pages, key=lambda page: page[1]):
            base = self.find(path)
            if base is None:
                self.documents[path] = body
                self.by_path[path] = Resource(path, body)
                self.lower.setdefault(path.lower(), path)
            elif isinstance(base.body.get("Members"), list):
                known = set(targets(base.body["Members"]))
                extra = [item for item in rows(body.get("Members")) if normal(item.get("@odata.id")) not in known]
                if not extra:
                    self.note("further page repeats members of the first", key)
                base.body = dict(base.body, Members=base.body["Members"] + extra)

    def _embedded(self, body, found, top):
        if isinstance(body, list):
            for item in body:
                self._embedded(item, found, False)
        elif isinstance(body, dict):
            uri = body.get("@odata.id")
            typed = not top and isinstance(body.get("@odata.type"), str) and type_of(body)
            if typed and isinstance(uri, str) and "#" not in uri:
                own = {key for key in body if not key.startswith("@")} - REFERENCE_KEYS
                if len(own) > 1 and self.find(uri) is None:
                    found.setdefault(normal(uri), body)
            for value in body.values():
                if isinstance(value, (dict, list)):
                    self._embedded(value, found, False)

    def _settings(self):
        marked = set()
        for uri, resource in self.by_path.items():
            marked.update(uri.lower() for uri in targets(resource.get("@Redfish.Settings", "SettingsObject")))
            parent, _, last = uri.rpartition("/")
            above = self.find(parent)
            if last.lower() in SETTINGS_NAMES and above is not None and resource.type and (
                    above.type in (resource.type, f"{resource.type}Collection")):
                marked.add(uri.lower())
        return marked

    def is_settings(self, uri):
        """True for a settings or capabilities object, which describes but is no thing of its own."""
        parts = uri.lower().split("/")
        return any("/".join(parts[:size]) in self.settings for size in range(4, len(parts) + 1))

    def note(self, what, where):
        entry = {"what": what, "where": where}
        if entry not in self.odd:
            self.odd.append(entry)

    def find(self, uri):
        """Resource at a path; the spelling of upper and lower case does not matter."""
        path = normal(uri)
        return self.by_path.get(path) or self.by_path.get(self.lower.get(path.lower(), ""))

    def same(self, uri):
        """The recorded spelling of a path."""
        found = self.find(uri)
        return found.uri if found else normal(uri)

    def all(self, *names):
        return [resource for name in names for resource in self.types.get(name, [])]

    def linked(self, value):
        """Recorded spellings of the targets of a reference list."""
        return [self.same(uri) for uri in targets(value)]

    def home(self, uri, kinds):
        """Longest resource of the given types that the path lies at or below."""
        parts = uri.split("/")
        for size in range(len(parts), 3, -1):
            found = self.find("/".join(parts[:size]))
            if found is not None and found.type in kinds and not self.is_settings(found.uri):
                return found
        return None

    def link_report(self):
        """Links counted, with those that lead nowhere, to an error, or only to an inline copy."""
        total, dangling, to_error, inline, fragments = 0, {}, set(), set(), set()
        doubled = set()
        for source in sorted(self.documents):
            for is_reference, name, target in links_of(self.documents[source]):
                if not target.startswith("/redfish") or "/JsonSchemas" in target or "$metadata" in target:
                    if is_reference and not target.startswith("/redfish"):
                        self.note("link that is no service path", f"{source}: {name} = {target[:80]!r}")
                    continue
                total += 1
                if "//" in target:
                    doubled.add(target)
                path = normal(target)
                if path.startswith("/redfish/v1") or path == "/redfish":
                    found = self.find(path)
                    if found is None:
                        dangling.setdefault(path, source)
                    elif found.uri in self.errors:
                        to_error.add(found.uri)
                    elif found.embedded:
                        inline.add(found.uri)
                    if found is not None and "#/" in target and not self._points(found.body, target.split("#", 1)[1]):
                        fragments.add(target)
        for target in sorted(doubled):
            self.note("link with an empty path segment", target)
        groups = collections.Counter("/".join(path.split("/")[3:5]) or path for path in dangling)
        return {
            "links": total, "dangling": len(dangling), "dangling_by_group": dict(sorted(groups.items())),
            "dangling_targets": [{"target": path, "first_from": dangling[path]} for path in sorted(dangling)],
            "to_error_documents": sorted(to_error), "only_embedded": len(inline),
            "dangling_fragments": sorted(fragments),
        }

    @staticmethod
    def _points(body, pointer):
        for part in [piece for piece in pointer.split("/") if piece]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(body, dict) and part in body:
                body = body[part]
            elif isinstance(body, list) and part.isdigit() and int(part) < len(body):
                body = body[int(part)]
            else:
                return False
        return True
