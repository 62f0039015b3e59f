"""Queries: which documents somebody wants.  One language in three forms that mean the same, and matching.

A query is a tree of conditions on fields.  People type expressions (meshsync/core/expressions.py), programs send JSON
or write Python; here `team` stands for `Query.field("team")` and so on:

    team=blue                {"field": "team", "=": "blue"}              team == "blue"     and so != < <= > >=
    team in [blue, red]      {"field": "team", "in": ["blue", "red"]}    team.one_of(["blue", "red"])
    name~Ad                  {"field": "name", "prefix": "Ad"}           name.prefix("Ad")
    note?                    {"field": "note", "exists": true}           note.exists()
    at within_radius(lat=52.5, lon=13.4, radius_m=5000)                  at.within_radius(lat=52.5, ...)
                             {"field": "at", "within_radius": {"lat": 52.5, "lon": 13.4, "radius_m": 5000}}
    at within_bounds(south=52, west=13, north=53, east=14)               at.within_bounds(south=52, ...)
                             {"field": "at", "within_bounds": {"south": 52, "west": 13, "north": 53, "east": 14}}
    a=1 and b=2 or not (c=3 or d?)    {"and": [...]}  {"or": [...]}  {"not": {...}}    (a == 1) & (b == 2) | ~(...)

Rules of matching, the same on every node:

- Values compare with their own kind only.  Kinds are null, booleans, numbers (1 and 1.0 are equal), strings, arrays,
  objects.  `<` and its like order numbers, and strings by code point; a value of another kind does not match.
- `!=` is exactly `not =`, so a field that is missing, or of another kind, matches it.  A missing field matches no
  other comparison.  So a query and its `not` part every collection in two, and no document falls in between.
- `null` is a value: `note=null` matches a field that holds null and not one that is missing.
- A path goes through objects by name, never into arrays.  `id` at the top is the document's id.
- A place is {"lat", "lon"}, {"latitude", "longitude"} or a GeoJSON Point, but not several of them, at the field;
  without a field, at the document itself.  Bounds with west > east reach across the 180th meridian; a pole lies on
  every meridian.

Conditions are compiled to closures once, because a node matches every document that it sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from meshsync.core.conditions import (
    COMPARISONS,
    And,
    Compare,
    Condition,
    Exists,
    In,
    Not,
    OnField,
    Or,
    Path,
    Prefix,
    WithinBounds,
    WithinRadius,
    format_path,
    parts_of,
    reads,
    scan_path,
)
from meshsync.core.expressions import parse_expression
from meshsync.core.hints import Hint, compile_hint
from meshsync.core.limits import LIMITS
from meshsync.core.matching import compile_condition
from meshsync.core.phrasing import phrase
from meshsync.core.strictjson import encode_json
from meshsync.errors import LocalError

_TESTS = (*COMPARISONS, "in", "prefix", "exists", "within_radius", "within_bounds")


class Query:
    """A condition on documents.  Immutable; two queries are equal when their JSON is."""

    __slots__ = ("_match", "_reads_id", "_text", "condition", "hint")

    condition: Condition
    hint: Hint | None
    """Tells by the stored bytes of a document that it does not match; None where nothing can be told."""

    def __init__(self, condition: Condition | None = None) -> None:
        """Compile a condition; without one, every document matches.  LocalError: too deep or too large."""
        self.condition = And(()) if condition is None else condition
        _check_size(self.condition)
        try:
            self._text = encode_json(self.to_json())
            size = len(self._text.encode())
        except UnicodeEncodeError:
            raise LocalError("the query holds half a surrogate pair, which is not text") from None
        if size > LIMITS.query_text_bytes_max:
            raise LocalError(f"the query is too large: {size} bytes, at most {LIMITS.query_text_bytes_max}")
        self._match = compile_condition(self.condition)
        self.hint = compile_hint(self.condition)
        self._reads_id = reads(self.condition, ("id",))

    @classmethod
    def parse(cls, expressions: str | Sequence[str] = ()) -> Self:
        """Read one expression, or several that are all required.  LocalError: names the column."""
        if isinstance(expressions, str):
            return cls(parse_expression(expressions))
        return cls(_joined(And, map(parse_expression, expressions)))

    @staticmethod
    def of(query: Query | str | None) -> Query:
        """A query as callers give it: as such, or as an expression; None: everything.  LocalError: none of them."""
        if query is None or isinstance(query, Query):
            return Query() if query is None else query
        if not isinstance(query, str):
            raise LocalError(f"{query!r:.80} is no query; give an expression such as 'team=blue', or a meshsync.Query")
        return Query.parse(query)

    @classmethod
    def from_json(cls, tree: Any) -> Self:
        """Read the JSON form, which may come from a peer.  LocalError: names the place in the tree."""
        return cls(_read_condition(tree, "query", LIMITS.query_depth_max))

    @staticmethod
    def field(path: str) -> Field:
        """A field by its dotted path, to compare with: `Query.field("age") >= 18`."""
        return Field(_read_path(path))

    @classmethod
    def within_radius(cls, *, lat: float, lon: float, radius_m: float) -> Self:
        """The document itself is a place at most `radius_m` metres from (`lat`, `lon`), in degrees."""
        return cls(WithinRadius((), lat, lon, radius_m))

    @classmethod
    def within_bounds(cls, *, south: float, west: float, north: float, east: float) -> Self:
        """The document itself is a place inside of bounds, in degrees."""
        return cls(WithinBounds((), south, west, north, east))

    def to_json(self) -> dict[str, Any]:
        """The query as JSON; `from_json` reads it."""
        return _write_condition(self.condition)

    def matches(self, document: Mapping[str, Any], id: str | None = None) -> bool:
        """Whether a document matches.  `id` is its id where the body does not hold it."""
        if self._reads_id and id is not None:
            document = {**document, "id": id}
        return self._match(document)

    @property
    def is_everything(self) -> bool:
        """Whether every document matches without a look at it."""
        return self.condition == And(())

    def __and__(self, other: Query) -> Query:
        return Query(_joined(And, (self.condition, other.condition)))

    def __or__(self, other: Query) -> Query:
        return Query(_joined(Or, (self.condition, other.condition)))

    def __invert__(self) -> Query:
        return Query(Not(self.condition))

    def __bool__(self) -> bool:
        """LocalError always: Python's own words would drop one side of `a and b`, and of `1 < field < 5`."""
        raise LocalError("a query is neither true nor false: combine queries with & | ~ in place of and, or, not")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Query) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        """The query as an expression; `parse` reads it."""
        return phrase(self.condition)

    def __repr__(self) -> str:
        return f"Query.parse({str(self)!r})"


class Field:
    """A field in the making of a query; comparing it gives the Query."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    __hash__ = None  # type: ignore[assignment]  # its == makes a query, so it cannot be a key

    def __eq__(self, value: object) -> Query:  # type: ignore[override]
        return Query(Compare(self.path, "=", value))

    def __ne__(self, value: object) -> Query:  # type: ignore[override]
        return Query(Compare(self.path, "!=", value))

    def __lt__(self, value: float | str) -> Query:
        return Query(Compare(self.path, "<", value))

    def __le__(self, value: float | str) -> Query:
        return Query(Compare(self.path, "<=", value))

    def __gt__(self, value: float | str) -> Query:
        return Query(Compare(self.path, ">", value))

    def __ge__(self, value: float | str) -> Query:
        return Query(Compare(self.path, ">=", value))

    def one_of(self, values: Sequence[Any]) -> Query:
        """The field equals one of `values`.  LocalError: they are one text, which is a sequence of its characters."""
        if isinstance(values, str):
            raise LocalError(f"one_of takes several values: one_of([{values!r:.80}])")
        return Query(In(self.path, tuple(values)))

    def prefix(self, text: str) -> Query:
        """The field is a string that begins with `text`."""
        return Query(Prefix(self.path, text))

    def exists(self) -> Query:
        """The field is there, whatever it holds."""
        return Query(Exists(self.path))

    def within_radius(self, *, lat: float, lon: float, radius_m: float) -> Query:
        """The field is a place at most `radius_m` metres from (`lat`, `lon`), in degrees."""
        return Query(WithinRadius(self.path, lat, lon, radius_m))

    def within_bounds(self, *, south: float, west: float, north: float, east: float) -> Query:
        """The field is a place inside of bounds, in degrees."""
        return Query(WithinBounds(self.path, south, west, north, east))


def _joined(kind: type[And | Or], conditions: Iterable[Condition]) -> Condition:
    """Several conditions as one, and not deeper than they have to be: chains of & would soon be too deep."""
    parts: list[Condition] = []
    for condition in conditions:
        parts += condition.parts if isinstance(condition, kind) else (condition,)
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


def _check_size(condition: Condition) -> None:
    """LocalError when the tree is deeper or larger than a node accepts.  Without recursion: depth is the question."""
    level: tuple[Condition, ...] = (condition,)
    terms = 0
    for _ in range(LIMITS.query_depth_max):
        terms += len(level)
        if terms > LIMITS.query_terms_max:
            raise LocalError(f"the query has more than {LIMITS.query_terms_max} conditions")
        level = tuple(part for above in level for part in parts_of(above))
        if not level:
            return
    raise LocalError(f"the query is nested deeper than {LIMITS.query_depth_max} levels")


def _write_condition(condition: Condition) -> dict[str, Any]:
    match condition:
        case And(parts):
            return {"and": [_write_condition(part) for part in parts]}
        case Or(parts):
            return {"or": [_write_condition(part) for part in parts]}
        case Not(part):
            return {"not": _write_condition(part)}
        case _:
            field = {"field": format_path(condition.path)} if condition.path else {}
            return field | _write_test(condition)


def _write_test(condition: OnField) -> dict[str, Any]:
    match condition:
        case Compare(_, op, value):
            return {op: value}
        case In(_, values):
            return {"in": list(values)}
        case Prefix(_, text):
            return {"prefix": text}
        case Exists():
            return {"exists": True}
        case WithinRadius():
            return {"within_radius": {key: getattr(condition, key) for key in condition.KEYS}}
        case WithinBounds():
            return {"within_bounds": {key: getattr(condition, key) for key in condition.KEYS}}


def _read_condition(tree: Any, place: str, depth: int) -> Condition:
    if depth == 0:
        raise LocalError(f"the query is nested deeper than {LIMITS.query_depth_max} levels")
    if not isinstance(tree, dict):
        raise LocalError(f"{place}: a JSON object is expected, not {type(tree).__name__}")
    keys = [key for key in tree if key != "field"]
    if len(keys) != 1:
        raise LocalError(f"{place}: exactly one of and, or, not, {', '.join(_TESTS)} is expected, not {keys}")
    (key,) = keys
    inner = f"{place}.{key}"
    if key in ("and", "or", "not") and "field" in tree:
        raise LocalError(f"{inner}: takes no field")
    if key == "not":
        return Not(_read_condition(tree[key], inner, depth - 1))
    if key in ("and", "or"):
        parts = _read_list(tree[key], inner)
        if len(parts) > LIMITS.query_terms_max:
            raise LocalError(f"{inner}: more than {LIMITS.query_terms_max} conditions")
        conditions = tuple(_read_condition(part, f"{inner}[{at}]", depth - 1) for at, part in enumerate(parts))
        return And(conditions) if key == "and" else Or(conditions)
    try:
        return _read_test(tree.get("field", ""), key, tree[key])
    except LocalError as error:
        raise LocalError(f"{inner}: {error}") from None


def _read_test(field: Any, key: str, value: Any) -> Condition:
    if key in ("within_radius", "within_bounds"):
        path = () if field == "" else _read_path(field)
        kind = WithinRadius if key == "within_radius" else WithinBounds
        if not isinstance(value, dict) or set(value) != set(kind.KEYS):
            raise LocalError(f"an object with exactly {', '.join(kind.KEYS)} is expected")
        return kind(path, *(value[name] for name in kind.KEYS))
    path = _read_path(field)
    if key in COMPARISONS:
        return Compare(path, key, value)
    if key == "in":
        return In(path, tuple(_read_list(value, "values")))
    if key == "prefix":
        if not isinstance(value, str):
            raise LocalError(f"a string is expected, not {value!r}")
        return Prefix(path, value)
    if key == "exists":
        if not isinstance(value, bool):
            raise LocalError(f"true or false is expected, not {value!r}")
        return Exists(path) if value else Not(Exists(path))
    raise LocalError(f"no such test; there are {', '.join(_TESTS)}")


def _read_list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise LocalError(f"{place}: an array is expected, not {type(value).__name__}")
    return value


def _read_path(text: Any) -> Path:
    if not isinstance(text, str):
        raise LocalError(f"field: a dotted path is expected, not {text!r}")
    try:
        path, end = scan_path(text)
    except LocalError as error:
        raise LocalError(f"field {text!r}: {error}") from None
    if end != len(text):
        raise LocalError(f"field {text!r}: column {end + 1}: quote a name with this character")
    return path
