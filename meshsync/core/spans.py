"""Spans: in which parts of the index of a field all documents are that match a condition.

Never too few: whoever reads an index evaluates the condition on what it finds, so a span may hold more than match.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from meshsync.core.conditions import (
    And,
    Compare,
    Condition,
    Exists,
    In,
    Not,
    Or,
    Path,
    Prefix,
    WithinBounds,
    WithinRadius,
)
from meshsync.core.limits import SORT_KEY_BYTES_MAX
from meshsync.core.matching import EARTH_RADIUS_M
from meshsync.core.ordering import ARRAYS, MISSING_KEY, NUMBERS, STRINGS, sort_key

LATITUDES, LONGITUDES = ("lat", "latitude"), ("lon", "longitude")
_SLACK_DEGREES = 1e-7
"""A centimetre: what is rounded in computing a distance must not decide what is looked at."""


class Span(NamedTuple):
    """The keys from `low` on, up to but not with `high`."""

    low: bytes
    high: bytes

    @property
    def is_one_key(self) -> bool:
        """Whether all in it have the same key, and so are ordered by id."""
        return self.high == self.low + b"\0"


EVERYTHING = Span(b"", b"\xff")
_MISSING = Span(MISSING_KEY, MISSING_KEY + b"\0")

Spans = tuple[Span, ...]
"""By key, without overlaps."""


def spans_of(condition: Condition, path: Path) -> Spans | None:
    """Where in the index of the field at `path` the matches are; None where they may be anywhere."""
    match condition:
        case And(parts):
            found = [spans for part in parts if (spans := spans_of(part, path)) is not None]
            if not found:
                return None
            result, *others = found
            for other in others:
                result = _intersection(result, other)
            return result
        case Or(parts):
            united: list[Span] = []
            for part in parts:
                spans = spans_of(part, path)
                if spans is None:
                    return None
                united += spans
            return _union(united)
        case Not(Exists(where)) if where == path:
            return (_MISSING,)
        case Not(Not(part)):
            return spans_of(part, path)
        case Not():
            return None
        case WithinRadius() | WithinBounds():
            return _place_spans(condition, path)
        case _:
            return _test_spans(condition) if condition.path == path else None


def _test_spans(condition: Compare | In | Prefix | Exists) -> Spans | None:
    match condition:
        case Compare(_, "=", value):
            return (_equal(value),)
        case Compare(_, "!=", _):
            return None
        case Compare(_, op, value):
            first, last = (STRINGS, ARRAYS) if isinstance(value, str) else (NUMBERS, STRINGS)
            key = sort_key(value)
            # The bound itself is looked at for < and > as well: a long string shares its key with others.
            return (Span(first, key + b"\0") if op in ("<", "<=") else Span(key, last),)
        case In(_, values):
            return _union([_equal(value) for value in values])
        case Prefix(_, text):
            low = STRINGS + text.encode()[:SORT_KEY_BYTES_MAX]
            # UTF-8 has no byte above 0xf4, so every string with this prefix sorts before this.
            return (Span(low, low + b"\xff"),)
        case Exists():
            return (Span(b"", MISSING_KEY),)


def _equal(value: Any) -> Span:
    key = sort_key(value)
    return Span(key, key + b"\0")


def _union(spans: list[Span]) -> Spans:
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.low <= result[-1].high:
            result[-1] = Span(result[-1].low, max(result[-1].high, span.high))
        else:
            result.append(span)
    return tuple(result)


def _intersection(left: Spans, right: Spans) -> Spans:
    pairs = ((max(a.low, b.low), min(a.high, b.high)) for a in left for b in right)
    return tuple(Span(low, high) for low, high in sorted(pairs) if low < high)


# Places


def _place_spans(condition: WithinRadius | WithinBounds, path: Path) -> Spans | None:
    if path[:-1] != condition.path:
        return None
    box = _box_of(condition) if isinstance(condition, WithinRadius) else condition
    if path[-1] in LATITUDES:
        ranges = [(box.south, box.north)]
    elif path[-1] in LONGITUDES and box.south > -90 and box.north < 90:
        ranges = _longitudes(box.west, box.east)
    else:
        return None  # all meridians meet at a pole
    # A place that is written in another way has no such field.
    return _union([_MISSING, *(Span(sort_key(low), sort_key(high) + b"\0") for low, high in ranges)])


def _longitudes(west: float, east: float) -> list[tuple[float, float]]:
    ranges = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    # 180 and -180 are one meridian.
    if any(high == 180 for _, high in ranges):
        ranges.append((-180.0, -180.0))
    if any(low == -180 for low, _ in ranges):
        ranges.append((180.0, 180.0))
    return ranges


def _box_of(circle: WithinRadius) -> WithinBounds:
    """The bounds of a circle on the sphere.

    Its easternmost point lies on the meridian that touches it, asin(sin(radius) / cos(latitude)) away (the right
    spherical triangle of pole, centre and that point).
    """
    angle = circle.radius_m / EARTH_RADIUS_M
    degrees = math.degrees(min(angle, math.pi)) + _SLACK_DEGREES
    south, north = circle.lat - degrees, circle.lat + degrees
    if south <= -90 or north >= 90:
        return WithinBounds(circle.path, max(south, -90), -180, min(north, 90), 180)
    across = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(circle.lat)))))
    across += _SLACK_DEGREES / math.cos(math.radians(circle.lat))
    if across >= 180:
        return WithinBounds(circle.path, south, -180, north, 180)
    west, east = circle.lon - across, circle.lon + across
    return WithinBounds(circle.path, south, west + 360 * (west < -180), north, east - 360 * (east > 180))
