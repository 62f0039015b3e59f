"""Sort keys, spans and hints: what lets a query look at fewer documents must never hide one that matches."""

from __future__ import annotations

import itertools
import operator
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core import cbor
from meshsync.core.document import DocumentState, Stamp
from meshsync.core.entry import PATCH, PUT
from meshsync.core.limits import SORT_KEY_BYTES_MAX
from meshsync.core.matching import MISSING, getter
from meshsync.core.numberbytes import number_pattern
from meshsync.core.ordering import MISSING_KEY, Order, sort_key
from meshsync.core.query import Query
from meshsync.core.spans import Span, spans_of
from meshsync.errors import LocalError
from tests.queries import degrees, documents, longitudes, scalars, trees, values

IN_ORDER: list[Any] = [
    None,
    False,
    True,
    -1e300,
    -(2**63),
    -2.5,
    -2,
    -5e-324,
    0,
    5e-324,
    0.1,
    1,
    1.5,
    2**53,
    2**53 + 1,
    2**53 + 2,
    2**63 - 2,
    2**63 - 1,
    2.0**63,
    1.7e308,
    "",
    "\0",
    "a",
    "a\0",
    "aa",
    "b",
    "é",
    "\uffff",
    "\U0001f600",
    [1],
    {"a": 1},
    MISSING,
]


def test_values_of_all_kinds_have_one_order() -> None:
    """A listing by a field would depend on whether there is an index."""
    keys = [sort_key(value) for value in IN_ORDER]
    assert keys == sorted(set(keys))
    assert sort_key(1) == sort_key(1.0)
    assert sort_key(0) == sort_key(-0.0)
    assert sort_key([1]) == sort_key([])
    assert sort_key("x" * 1000) == sort_key("x" * SORT_KEY_BYTES_MAX)


numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
near_numbers = st.builds(lambda n, d: n + d, st.integers(2**53 - 3, 2**63 - 9), st.integers(-2, 2))


@given(numbers | near_numbers, numbers | near_numbers)
def test_keys_of_numbers_compare_as_the_numbers_do(a: float, b: float) -> None:
    """An integer of 64 bits is not always a float, and would be found under another."""
    assert (sort_key(a) < sort_key(b)) is (a < b)
    assert (sort_key(a) == sort_key(b)) is (a == b)


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_keys_of_strings_compare_as_the_strings_do(a: str, b: str) -> None:
    """Queries order strings by code point, and so must indexes."""
    if max(len(a.encode()), len(b.encode())) <= SORT_KEY_BYTES_MAX:
        assert (sort_key(a) < sort_key(b)) is (a < b)


PATHS = [("a",), ("b",), ("c", "d"), ("x y",), ("a", "lat"), ("a", "lon"), ("lat",), ("lon",)]


@given(trees, documents, st.sampled_from(PATHS))
def test_spans_hold_all_that_match(tree: Any, document: dict[str, Any], path: tuple[str, ...]) -> None:
    """An index would hide documents from a query."""
    query = Query.from_json(tree)
    spans = spans_of(query.condition, path)
    if spans is not None and query.matches(document):
        key = sort_key(getter(path)(document))
        assert any(span.low <= key < span.high for span in spans)
    if spans is not None:
        assert all(a.low < a.high for a in spans)
        assert all(a.high <= b.low for a, b in itertools.pairwise(spans))


@given(degrees, longitudes, st.floats(0, 2.1e7), degrees, longitudes, st.sampled_from(["lat", "lon"]))
def test_boxes_around_circles_hold_the_circles(
    lat: float, lon: float, radius: float, at_lat: float, at_lon: float, field: str
) -> None:
    """What lies on the edge, across the antimeridian or at a pole would be missing, only with an index."""
    query = Query.field("at").within_radius(lat=lat, lon=lon, radius_m=radius)
    spans = spans_of(query.condition, ("at", field))
    document = {"at": {"lat": at_lat, "lon": at_lon}}
    if spans is not None and query.matches(document):
        key = sort_key(document["at"][field])
        assert any(span.low <= key < span.high for span in spans)


@pytest.mark.parametrize(
    ("expression", "field", "count"),
    [
        ("a=1", "a", 1),
        ("a=1", "b", None),
        ("a!=1", "a", None),
        ("a=1 and b=2", "b", 1),
        ("a=1 or b=2", "b", None),
        ("a=1 or a=2 or a=2", "a", 2),
        ("a in [1,2,3]", "a", 3),
        ("a>1 and a<5", "a", 1),
        ("a>5 and a<1", "a", 0),
        ("a>1 and a<x", "a", 0),
        ("a~x", "a", 1),
        ("a?", "a", 1),
        ("not a?", "a", 1),
        ("not a=1", "a", None),
        ("not not a=1", "a", 1),
        ("a within_bounds(south=1,west=2,north=3,east=4)", "a.lat", 2),
        ("a within_bounds(south=1,west=170,north=3,east=-170)", "a.lon", 3),
        ("a within_bounds(south=1,west=2,north=90,east=4)", "a.lon", None),
        ("a within_radius(lat=89.9,lon=2,radius_m=30000)", "a.lon", None),
        ("a within_radius(lat=50,lon=179.99,radius_m=3000)", "a.lon", 3),
    ],
)
def test_conditions_that_an_index_can_serve_are_found(expression: str, field: str, count: int | None) -> None:
    """A query would look at all documents although there is an index."""
    spans = spans_of(Query.parse(expression).condition, tuple(field.split(".")))
    assert (None if spans is None else len(spans)) == count


def test_an_equality_is_one_key() -> None:
    """Its documents would be sorted although they are in order."""
    (span,) = spans_of(Query.parse("a=1").condition, ("a",)) or ()
    assert span.is_one_key
    assert not Span(b"\x05", b"\x06").is_one_key


@given(trees, documents)
def test_hints_never_deny_what_matches(tree: Any, document: dict[str, Any]) -> None:
    """A document would be passed over without being decoded."""
    query = Query.from_json(tree)
    if query.hint is None or not query.matches(document, "the id"):
        return
    state = DocumentState()
    state.apply(PUT, document, Stamp(1, b"author", b"entry"))
    assert query.hint(cbor.encode([[PUT, "the id", document]]))
    assert query.hint(state.encode())


@pytest.mark.parametrize(
    ("expression", "has_hint"),
    [
        ("team=blue", True),
        ("age=30", True),
        ("team~bl", True),
        ("team in [a,b]", True),
        ("a=x or b=y", True),
        ("a=x or b!=y", False),
        ("a!=x", False),
        ("not a=x", False),
        ("id=x", False),
        ("id=x and b=y", True),
        ("and()", False),
        ("at within_radius(lat=1,lon=1,radius_m=1)", False),
        ("a>5 and b=x", True),
        ("a<-1.5", True),
        ("a in [1,2]", False),
    ],
)
def test_hints_are_given_where_bytes_can_tell(expression: str, has_hint: bool) -> None:
    """Every document would be decoded."""
    assert (Query.parse(expression).hint is not None) is has_hint


@given(st.text(alphabet="z.*+?[](){}|^$\\\n ä", min_size=1), st.sampled_from(["=", "prefix", "in"]))
def test_hints_take_texts_as_they_are(text: str, op: str) -> None:
    """What means something in a pattern would be looked for as another text, and the document be passed over."""
    query = Query.from_json({"field": "a", op: [text, "b" * 9] if op == "in" else text})
    assert query.hint is not None
    assert query.hint(cbor.encode([[PUT, "the id", {"a": text}]]))
    assert not query.hint(cbor.encode([[PUT, "id", {"a": "d" * len(text)}]]))


@given(st.lists(scalars | values))
def test_any_values_can_be_sorted(items: list[Any]) -> None:
    """A listing by a field that holds all sorts of things would end in a traceback."""
    assert all(sort_key(item) < MISSING_KEY for item in items)


def test_orders_are_read_as_they_are_typed() -> None:
    """`--order -age` would look for a field of that name."""
    assert Order.parse("a.b") == Order(("a", "b"))
    assert Order.parse("-a") == Order(("a",), descending=True)
    assert str(Order.parse('-"x y".z')) == '-"x y".z'
    for text, expected in (("", "column 1"), ("a b", "column 2"), ("a..b", "column 3"), ("-", "column 1")):
        with pytest.raises(LocalError, match=expected):
            Order.parse(text)


edges = st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1])
integers = st.integers(-(2**63), 2**63 - 1) | st.builds(
    lambda edge, sign, step: max(-(2**63), min(sign * edge + step, 2**63 - 1)),
    edges,
    st.sampled_from([1, -1]),
    st.integers(-2, 2),
)
COMPARE = {"=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def integer_bytes(number: int, width: int) -> bytes:
    """CBOR of an integer in at least this many bytes beside the first."""
    major, size = (0, number) if number >= 0 else (0x20, -1 - number)
    if width == 0 and size < 24:
        return bytes((major + size,))
    index = next(index for index in range(4) if 2**index >= width and size < 256 ** (2**index))
    return bytes((major + 24 + index,)) + size.to_bytes(2**index, "big")


@given(integers, integers | numbers, st.sampled_from(sorted(COMPARE)), st.sampled_from([0, 1, 2, 4, 8]))
def test_numbers_are_compared_by_their_bytes(number: int, bound: float, op: str, width: int) -> None:
    """A document would be passed over because a peer wrote its number in more bytes, or most be decoded in vain."""
    pattern = re.compile(number_pattern((op, bound)), re.DOTALL)
    assert (pattern.match(integer_bytes(number, width)) is not None) is COMPARE[op](number, bound)
    assert pattern.match(cbor.encode(1.5)) is not None
    assert pattern.match(cbor.encode("text")) is None


@given(integers, integers | numbers, integers | numbers, st.sampled_from([("<", ">"), ("<=", ">="), (">", "=")]))
def test_two_bounds_of_one_field_are_looked_for_at_once(
    number: int, bound: float, other: float, ops: tuple[str, str]
) -> None:
    """Otherwise a range costs two looks at each document, and lets through what is within neither bound of it."""
    query = Query.from_json({"and": [{"field": "between", ops[0]: bound}, {"field": "between", ops[1]: other}]})
    assert query.hint is not None
    is_within = COMPARE[ops[0]](number, bound) and COMPARE[ops[1]](number, other)
    assert bool(query.hint(cbor.encode([[PUT, "id", {"between": number}]]))) is is_within


@given(st.sampled_from(sorted(COMPARE)), numbers | near_numbers, numbers | near_numbers | edges)
def test_hints_never_deny_a_number_that_matches(op: str, bound: float, number: float) -> None:
    """A document would be passed over, by its size alone or behind the stamp of a merged field."""
    query = Query.from_json({"field": "a.b", op: bound})
    document = {"x": 1, "a": {"b": number}}
    assert query.hint is not None
    flat = Query.from_json({"field": "b", op: bound})
    assert flat.hint is not None
    if query.matches(document):
        assert query.hint(cbor.encode([[PUT, "the id", document]]))
        state = DocumentState()
        for count in range(30):
            state.apply(PATCH, {f"f{count}": count}, Stamp(count, b"author", b"entry"))
        state.apply(PATCH, {"b": number, "a": {"b": number}}, Stamp(99, b"author", b"entry"))
        assert query.hint(state.encode())
        assert flat.hint(state.encode())
