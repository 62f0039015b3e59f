"""The conditions that queries are made of, as data: each checks what it is made from, and no more.

`meshsync.core.query` states what they mean and `meshsync.core.matching` carries it out.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from meshsync.core import cbor
from meshsync.core.limits import BODY_DEPTH_MAX
from meshsync.errors import LocalError

Path = tuple[str, ...]

ORDERINGS = ("<", "<=", ">", ">=")
COMPARISONS = ("=", "!=", *ORDERINGS)

_BARE_NAME = re.compile(r'[^\s=!<>~?."(){},\[\]]+')


@dataclass(frozen=True)
class And:
    """All parts match; without parts, everything does."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    """At least one part matches; without parts, nothing does."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """The part does not match."""

    part: Condition


@dataclass(frozen=True)
class Compare:
    """`field op value`."""

    path: Path
    op: str
    value: Any

    def __post_init__(self) -> None:
        _check_value(self.value)
        if self.op in ORDERINGS and (isinstance(self.value, bool) or not isinstance(self.value, int | float | str)):
            raise LocalError(f"{self.op} orders numbers and strings, and {json.dumps(self.value)} is neither")


@dataclass(frozen=True)
class In:
    """The field equals one of the values."""

    path: Path
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        _check_value(list(self.values))


@dataclass(frozen=True)
class Prefix:
    """The field is a string that begins with `text`."""

    path: Path
    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise LocalError(f"a prefix is a string, not {self.text!r}")


@dataclass(frozen=True)
class Exists:
    """The field is there, whatever it holds."""

    path: Path


@dataclass(frozen=True)
class WithinRadius:
    """The field is a place at most `radius_m` metres away, along the sphere."""

    WORD: ClassVar = "within_radius"
    KEYS: ClassVar = ("lat", "lon", "radius_m")

    path: Path
    lat: float
    lon: float
    radius_m: float

    def __post_init__(self) -> None:
        _check_number("lat", self.lat, -90, 90)
        _check_number("lon", self.lon, -180, 180)
        _check_number("radius_m", self.radius_m, 0, math.inf)


@dataclass(frozen=True)
class WithinBounds:
    """The field is a place between two parallels and two meridians."""

    WORD: ClassVar = "within_bounds"
    KEYS: ClassVar = ("south", "west", "north", "east")

    path: Path
    south: float
    west: float
    north: float
    east: float

    def __post_init__(self) -> None:
        for key in ("south", "north"):
            _check_number(key, getattr(self, key), -90, 90)
        for key in ("west", "east"):
            _check_number(key, getattr(self, key), -180, 180)
        if self.south > self.north:
            raise LocalError(f"south ({self.south}) must not be greater than north ({self.north})")


OnField = Compare | In | Prefix | Exists | WithinRadius | WithinBounds
Condition = And | Or | Not | OnField


def parts_of(condition: Condition) -> tuple[Condition, ...]:
    """The conditions that one is made of."""
    if isinstance(condition, And | Or):
        return condition.parts
    return (condition.part,) if isinstance(condition, Not) else ()


def reads(condition: Condition, path: Path) -> bool:
    """Whether matching looks at `path`."""
    if isinstance(condition, And | Or | Not):
        return any(reads(part, path) for part in parts_of(condition))
    return condition.path == path


def format_path(path: Path) -> str:
    """Write a path as it is typed: `a.b`, with quotes around a name that needs them."""
    return ".".join(name if _BARE_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in path)


def scan_path(text: str, position: int = 0) -> tuple[Path, int]:
    """Read a path from `text`; returns it and where it ends.  LocalError: names the column where none is."""
    path: list[str] = []
    while True:
        if text[position : position + 1] == '"':
            try:
                name, position = json.JSONDecoder().raw_decode(text, position)
            except json.JSONDecodeError as error:
                raise LocalError(f"column {error.colno}: the quoted field name does not end") from None
        else:
            found = _BARE_NAME.match(text, position)
            if found is None:
                raise LocalError(f"column {position + 1}: a field name is expected")
            name, position = found.group(), found.end()
        path.append(name)
        if len(path) > BODY_DEPTH_MAX:
            raise LocalError(f"column {position}: no document is deeper than {BODY_DEPTH_MAX} levels")
        if text[position : position + 1] != ".":
            return tuple(path), position
        position += 1


def _check_value(value: Any) -> None:
    """LocalError unless `value` is what a document can hold."""
    try:
        cbor.check_body({"value": value})
    except cbor.Malformed as error:
        raise LocalError(str(error)) from None


def _check_number(name: str, value: Any, least: float, greatest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= greatest:
        bounds = f"of at least {least:g}" if greatest == math.inf else f"from {least:g} to {greatest:g}"
        raise LocalError(f"{name} must be a number {bounds}, not {value!r}")
    if not math.isfinite(value):
        raise LocalError(f"{name} must be finite")
