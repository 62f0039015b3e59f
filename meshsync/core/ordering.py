"""The order of values, across all kinds, as bytes: what indexes are sorted by, and listings with an order.

    null < false < true < numbers < strings < arrays < objects < (the field is not there)

Numbers are ordered by value, whole or not; strings by code point, as far as their first 256 bytes of UTF-8.  Arrays
are all alike, and so are objects.  What is alike is ordered by the document's id.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from meshsync.core.conditions import Path, format_path, scan_path
from meshsync.core.limits import SORT_KEY_BYTES_MAX
from meshsync.core.matching import MISSING
from meshsync.errors import LocalError

NULL_KEY, FALSE_KEY, TRUE_KEY = b"\x01", b"\x02", b"\x03"
NUMBERS, STRINGS, ARRAYS, OBJECTS = b"\x04", b"\x05", b"\x06", b"\x07"
"""The first byte of the keys of each kind; those of a kind end before the next one's."""
MISSING_KEY = b"\x08"

_FLOAT = struct.Struct(">d")
_SIGN = 1 << 63
_REST = 1 << 15


def sort_key(value: Any) -> bytes:
    """The key of a value, or of MISSING: keys sort as their values do, and equal values have equal keys."""
    kind = type(value)
    if kind is str:
        text: bytes = value.encode()
        return STRINGS + text[:SORT_KEY_BYTES_MAX]
    if kind is bool:
        return TRUE_KEY if value else FALSE_KEY
    if kind is int or kind is float:
        return _number_key(value)
    if value is None:
        return NULL_KEY
    if value is MISSING:
        return MISSING_KEY
    return ARRAYS if kind is list else OBJECTS


def rank(key: bytes, id: str, *, descending: bool) -> tuple[bool, bytes, str]:
    """What documents are sorted by, with the greatest first where it is descending: by key, and then by id; those
    without the field come last either way.
    """
    return (key == MISSING_KEY) is not descending, key, id


def _number_key(value: float) -> bytes:
    # The nearest float, and then how far the number lies from it: an integer of 64 bits is not always a float.
    # Rounding keeps the order, and what is left is at most 512.  IEEE 754 floats sort as integers once negative ones
    # are turned around.
    near = float(value) or 0.0  # not -0.0
    bits = int.from_bytes(_FLOAT.pack(near), "big")
    bits = bits ^ _SIGN if bits < _SIGN else ~bits & (2 * _SIGN - 1)
    rest = int(value) - int(near) if type(value) is int else 0
    return NUMBERS + bits.to_bytes(8, "big") + (_REST + rest).to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class Order:
    """How a listing is sorted: by a field, then by id; the documents without the field come last either way."""

    path: Path
    descending: bool = False

    @classmethod
    def parse(cls, text: str) -> Order:
        """Read FIELD, or -FIELD for descending.  LocalError: no path of a field."""
        path = parse_path(text.removeprefix("-"), "order")
        return cls(path, text.startswith("-"))

    def __str__(self) -> str:
        return ("-" if self.descending else "") + format_path(self.path)


def parse_path(text: str, what: str) -> Path:
    """Read a dotted path.  LocalError: names `what` it is of and the column."""
    try:
        path, end = scan_path(text)
    except LocalError as error:
        raise LocalError(f"{what} {text!r:.200}: {error}") from None
    if end != len(text):
        raise LocalError(f"{what} {text!r:.200}: column {end + 1}: quote a name with this character")
    return path


def check_indexed(field: str) -> Path:
    """Read the field of an index.  LocalError: it is no path, or needs no index."""
    path = parse_path(field, "index")
    if path == ("id",):
        raise LocalError("documents are found by their id without an index")
    return path
