"""All personalities by name."""

from __future__ import annotations

from dataclasses import fields, replace

from families_open import AMI, BLADE, HGX, OPENBMC
from families_servers import DELL, HPE, LENOVO, SUPERMICRO
from personality import STANDARD, Personality

PERSONALITIES = {p.name: p for p in (STANDARD, DELL, HPE, SUPERMICRO, LENOVO, OPENBMC, AMI, HGX, BLADE)}


def choose(name: str, overrides: dict) -> tuple[Personality, dict]:
    """The named personality with its fields overridden; returns the overrides it does not know as well."""
    known = {f.name for f in fields(Personality)}
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items() if key in known}
    return replace(PERSONALITIES[name], **own), {key: value for key, value in overrides.items() if key not in known}
