"""Matching: compiles a condition to one function from a document to yes or no.

`meshsync.core.query` states the rules.  The functions get documents as decoded, so the kind of a value is its
exact Python type; to Python itself True equals 1, which is why types are looked at all over here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

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

EARTH_RADIUS_M = 6_371_008.8
"""The mean radius (IUGG).  A sphere is right to half a percent, which is what a query by distance needs."""

Document = Mapping[str, Any]
Match = Callable[[Document], bool]

MISSING: Final = object()
"""The value of a field that is not there."""
_NUMBER = (int, float)
_POLES = (90, -90)
_ANTIMERIDIAN = (180, -180)


def compile_condition(condition: Condition) -> Match:
    """The function that says whether a document matches."""
    match condition:
        case And(parts):
            return _all([compile_condition(part) for part in parts])
        case Or(parts):
            return _any([compile_condition(part) for part in parts])
        case Not(part):
            inner = compile_condition(part)
            return lambda document: not inner(document)
        case Compare(path, "=", value):
            return _equals(path, value)
        case Compare(path, "!=", value):
            equals = _equals(path, value)
            return lambda document: not equals(document)
        case Compare(path, op, value):
            return _ordered(path, op, value)
        case In(path, values):
            return _one_of(path, values)
        case Prefix(path, text):
            return _prefix(path, text)
        case Exists(path):
            get = getter(path)
            return lambda document: get(document) is not MISSING
        case WithinRadius():
            return _within_radius(condition)
        case WithinBounds():
            return _within_bounds(condition)


def _all(matches: list[Match]) -> Match:
    if len(matches) == 2:
        first, second = matches
        return lambda document: first(document) and second(document)
    return lambda document: all(match(document) for match in matches)


def _any(matches: list[Match]) -> Match:
    if len(matches) == 2:
        first, second = matches
        return lambda document: first(document) or second(document)
    return lambda document: any(match(document) for match in matches)


def getter(path: Path) -> Callable[[Document], Any]:
    """A function that finds the value at a path, or MISSING; the empty path is the document."""
    if not path:
        return lambda document: document
    first, *rest = path
    if not rest:
        return lambda document: document.get(first, MISSING)

    def get(document: Document) -> Any:
        value = document.get(first, MISSING)
        for name in rest:
            if type(value) is not dict:
                return MISSING
            value = value.get(name, MISSING)
        return value

    return get


def _equals(path: Path, wanted: Any) -> Match:
    get = getter(path)
    if type(wanted) is str:
        return lambda document: bool(get(document) == wanted)  # a string equals nothing but a string
    if wanted is None or type(wanted) is bool:
        return lambda document: get(document) is wanted
    return lambda document: _same(get(document), wanted)


def _same(value: Any, wanted: Any) -> bool:
    """Whether two values are of one kind and equal, at every depth."""
    if type(value) is bool or type(wanted) is bool:
        return value is wanted
    if type(wanted) is list:
        return type(value) is list and len(value) == len(wanted) and all(map(_same, value, wanted))
    if type(wanted) is dict:
        return type(value) is dict and value.keys() == wanted.keys() and all(_same(value[k], wanted[k]) for k in wanted)
    return bool(value == wanted)


def _ordered(path: Path, op: str, bound: Any) -> Match:
    get = getter(path)
    kinds = (str,) if type(bound) is str else _NUMBER
    match op:
        case "<":
            return lambda document: type(value := get(document)) in kinds and value < bound
        case "<=":
            return lambda document: type(value := get(document)) in kinds and value <= bound
        case ">":
            return lambda document: type(value := get(document)) in kinds and value > bound
        case _:
            return lambda document: type(value := get(document)) in kinds and value >= bound


def _one_of(path: Path, values: tuple[Any, ...]) -> Match:
    get = getter(path)
    strings = frozenset(value for value in values if type(value) is str)
    numbers = frozenset(value for value in values if type(value) in _NUMBER)
    others = [_equals(path, value) for value in values if type(value) is not str and type(value) not in _NUMBER]

    def match(document: Document) -> bool:
        value = get(document)
        kind = type(value)
        if kind is str:
            return value in strings
        if kind in _NUMBER:
            return value in numbers
        return any(equals(document) for equals in others)

    return match


def _prefix(path: Path, text: str) -> Match:
    get = getter(path)

    def match(document: Document) -> bool:
        value = get(document)
        return type(value) is str and value.startswith(text)

    return match


def _within_radius(condition: WithinRadius) -> Match:
    # The haversine formula is well-conditioned for small distances, where the law of cosines is not (R. W. Sinnott,
    # "Virtues of the Haversine", Sky and Telescope 68, 1984, page 159).
    get = getter(condition.path)
    lat, lon = math.radians(condition.lat), math.radians(condition.lon)
    cos_lat = math.cos(lat)
    # The haversine grows with the angle, so it is compared as it is, and no arcsine is needed.
    haversine_max = math.sin(min(condition.radius_m / EARTH_RADIUS_M, math.pi) / 2) ** 2

    def match(document: Document) -> bool:
        place = _place(get(document))
        if place is None:
            return False
        other = math.radians(place[0])
        north_south = math.sin((other - lat) / 2) ** 2
        east_west = math.sin((math.radians(place[1]) - lon) / 2) ** 2
        return north_south + cos_lat * math.cos(other) * east_west <= haversine_max

    return match


def _within_bounds(condition: WithinBounds) -> Match:
    get = getter(condition.path)
    south, west, north, east = condition.south, condition.west, condition.north, condition.east

    def inside(lon: float) -> bool:
        return west <= lon <= east if west <= east else lon >= west or lon <= east

    def match(document: Document) -> bool:
        place = _place(get(document))
        if place is None or not south <= place[0] <= north:
            return False
        lat, lon = place
        if lat in _POLES:
            return True
        if lon in _ANTIMERIDIAN:
            return inside(180) or inside(-180)
        return inside(lon)

    return match


def _place(value: Any) -> tuple[float, float] | None:
    """(latitude, longitude) of a value that is a place on earth, None of any other."""
    if not isinstance(value, Mapping):
        return None
    is_short, is_long = "lat" in value or "lon" in value, "latitude" in value or "longitude" in value
    if is_short and is_long:
        return None  # two places, or none
    lat: Any = None
    lon: Any = None
    if is_short:
        lat, lon = value.get("lat"), value.get("lon")
    elif is_long:
        lat, lon = value.get("latitude"), value.get("longitude")
    elif value.get("type") == "Point":
        # GeoJSON (RFC 7946 section 3.1.1) puts longitude first.
        coordinates = value.get("coordinates")
        if type(coordinates) is list and len(coordinates) >= 2:
            lon, lat = coordinates[:2]
    if type(lat) in _NUMBER and type(lon) in _NUMBER and -90 <= lat <= 90 and -180 <= lon <= 180:
        return lat, lon
    return None
