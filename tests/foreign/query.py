"""Query parameters of GET: only, $expand, $select, $filter, $top and $skip, as far as the service claims them."""

from __future__ import annotations

import re
from typing import Any

from protocol import Refusal
from tree import Tree

KNOWN = {"only", "excerpt", "$expand", "$select", "$filter", "$top", "$skip"}
KEPT_BY_SELECT = {"@odata.id", "@odata.type", "@odata.context", "@odata.etag"}


def answer(tree: Tree, path: str, resource: dict, query: dict[str, str], page_size: int) -> dict:
    """The body for a GET of a resource with the given query."""
    claims = tree.p.protocol_features or {}
    _check(claims, query)
    if "only" in query and "Members" in resource:
        if len(resource["Members"]) != 1:
            return resource
        path = resource["Members"][0]["@odata.id"]
        resource = tree.get(path) or resource
    if "Members" in resource:
        resource = _members(tree, path, resource, query, page_size)
    elif {"$top", "$skip", "$filter"} & set(query):
        raise Refusal(400, "QueryNotSupportedOnResource")
    if "$expand" in query:
        kind, levels = _parse_expand(query["$expand"], claims)
        resource = expand(tree, resource, kind, levels)
    if "$select" in query:
        resource = select(resource, [part.strip() for part in query["$select"].split(",")])
    return resource


def _check(claims: dict, query: dict[str, str]) -> None:
    supported = {
        "only": claims.get("OnlyMemberQuery"),
        "excerpt": claims.get("ExcerptQuery"),
        "$select": claims.get("SelectQuery"),
        "$filter": claims.get("FilterQuery"),
        "$top": True,
        "$skip": True,
        "$expand": any(claims.get("ExpandQuery", {}).get(k) for k in ("ExpandAll", "Links", "NoLinks")),
    }
    for name in query:
        if name.startswith("$") and not supported.get(name):
            raise Refusal(501, "QueryNotSupported")
        if name in KNOWN and not supported.get(name):
            raise Refusal(400, "QueryNotSupported")


def _members(tree: Tree, path: str, resource: dict, query: dict[str, str], page_size: int) -> dict:
    members = list(resource["Members"])
    if "$filter" in query:
        members = _filter(tree, members, query["$filter"])
    skip, top = _number(query, "$skip", 0), _number(query, "$top", None)
    result = {**resource, "Members@odata.count": len(members)}
    size = min(x for x in (page_size or None, top, len(members)) if x is not None)
    window = members[skip : skip + size]
    more = page_size and skip + size < len(members) and (top is None or top > size)
    if more:
        parameters = f"$skip={skip + size}" + (f"&$top={top - size}" if top is not None else "")
        result["Members@odata.nextLink"] = f"{path}?{parameters}"
        if tree.p.page_lists_everything and not skip:
            window = members
    result["Members"] = window
    return result


def _number(query: dict[str, str], name: str, default: int | None) -> int | None:
    if name not in query:
        return default
    if not query[name].isdigit():
        raise Refusal(400, "QueryParameterValueFormatError", query[name], name)
    return int(query[name])


def _filter(tree: Tree, members: list[dict], text: str) -> list[dict]:
    """Comparisons joined by `and`: enough for logs by time and severity."""
    tests = []
    for part in re.split(r"\s+and\s+", text.strip()):
        match = re.fullmatch(r"([\w/]+)\s+(eq|ne|gt|ge|lt|le)\s+'?([^']*)'?", part.strip("() "))
        if not match:
            raise Refusal(400, "QueryParameterValueFormatError", text, "$filter")
        tests.append(match.groups())
    operators = {
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "gt": lambda a, b: a > b,
        "ge": lambda a, b: a >= b,
        "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b,
    }

    def passes(member: dict) -> bool:
        full = member if len(member) > 1 else tree.get(member["@odata.id"]) or {}
        for name, operator, wanted in tests:
            value: Any = full
            for step in name.split("/"):
                value = value.get(step) if isinstance(value, dict) else None
            if value is None or not operators[operator](str(value), wanted.replace("Z", "+00:00")):
                return False
        return True

    return [m for m in members if passes(m)]


def _parse_expand(text: str, claims: dict) -> tuple[str, int]:
    match = re.fullmatch(r"([.*~])(?:\(\$levels=(\d+)\))?", text)
    if not match:
        raise Refusal(400, "QueryParameterValueFormatError", text, "$expand")
    kind, levels, offered = match[1], int(match[2] or 1), claims["ExpandQuery"]
    if not offered.get({".": "NoLinks", "~": "Links", "*": "ExpandAll"}[kind]) or (
        match[2] and not offered.get("Levels")
    ):
        raise Refusal(501, "QueryNotSupported")
    if levels > offered.get("MaxLevels", 1) or levels < 1:
        raise Refusal(400, "QueryParameterValueFormatError", text, "$expand")
    return kind, levels


def expand(tree: Tree, value: Any, kind: str, levels: int, in_links: bool = False, top: bool = True) -> Any:
    """Put the referenced resources in place of the references."""
    if isinstance(value, list):
        return [expand(tree, item, kind, levels, in_links, False) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"@odata.id"} and not top:
        wanted = {".": not in_links, "~": in_links, "*": True}[kind]
        target = tree.get(value["@odata.id"]) if wanted and levels > 0 else None
        return expand(tree, target, kind, levels - 1, False, True) if target else value
    return {key: expand(tree, item, kind, levels, in_links or key == "Links", False) for key, item in value.items()}


def select(resource: dict, names: list[str]) -> dict:
    """Keep the selected properties and what identifies the resource."""
    if "Members" in resource:
        return {**resource, "Members": [select(m, names) if len(m) > 1 else m for m in resource["Members"]]}
    result = {key: value for key, value in resource.items() if key in KEPT_BY_SELECT}
    for name in names:
        source, target, steps = resource, result, name.split("/")
        for step in steps[:-1]:
            source = source.get(step, {}) if isinstance(source, dict) else {}
            target = target.setdefault(step, {})
        if isinstance(source, dict) and steps[-1] in source:
            target[steps[-1]] = source[steps[-1]]
            target.update({k: v for k, v in source.items() if k.startswith(steps[-1] + "@")})
    return result
