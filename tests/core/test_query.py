from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given

from meshsync.core.limits import LIMITS
from meshsync.core.query import Query
from meshsync.errors import LocalError
from tests.queries import documents, trees, values

DOCUMENT: dict[str, Any] = {
    "team": "blue",
    "age": 30,
    "height": 1.5,
    "ok": True,
    "note": None,
    "tags": ["a", 1, True],
    "at": {"lat": 52.5, "lon": 13.4, "deep": {"er": 7}},
    "a.b": "dotted",
    "": "empty",
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("team=blue", True),
        ("team=red", False),
        ("team = blue ", True),
        ('team="blue"', True),
        ("team!=red", True),
        ("team!=blue", False),
        ("age=30", True),
        ("age=30.0", True),
        ('age="30"', False),
        ("age>29.5", True),
        ("age>=30", True),
        ("age>30", False),
        ("age<31", True),
        ("age<=29", False),
        ("age<zebra", False),
        ("team<c", True),
        ("team>1", False),
        ("ok=true", True),
        ("ok=1", False),
        ("ok!=1", True),
        ("ok<2", False),
        ("note=null", True),
        ("missing=null", False),
        ("missing!=null", True),
        ("missing!=anything", True),
        ("missing<1", False),
        ("missing?", False),
        ("note?", True),
        ("at.deep.er=7", True),
        ("at.deep.er.more=7", False),
        ("tags.0=a", False),
        ('tags=["a",1,true]', True),
        ('tags=["a",1.0,true]', True),
        ('tags=["a",true,1]', False),
        ('at.deep={"er":7}', True),
        ("team~bl", True),
        ("team~lu", False),
        ("age~3", False),
        ('team~"b"', True),
        ('"a.b"=dotted', True),
        ("a.b=dotted", False),
        ('""=empty', True),
    ],
)
def test_an_expression_selects_what_it_says(expression: str, expected: bool) -> None:
    """Otherwise people see the wrong documents and cannot know it."""
    assert Query.parse(expression).matches(DOCUMENT) is expected


def test_a_word_that_json_does_not_know_is_a_string() -> None:
    """Otherwise a postcode or serial number with a leading zero could not be typed."""
    assert Query.parse("zip=01067").matches({"zip": "01067"})
    assert Query.parse("name=NaN").matches({"name": "NaN"})
    assert Query.parse("version=1.2.3").matches({"version": "1.2.3"})


def test_several_expressions_are_all_required() -> None:
    """`--where` twice would widen instead of narrow."""
    query = Query.parse(["team=blue", "age>=18"])
    assert query.matches({"team": "blue", "age": 18})
    assert not query.matches({"team": "blue", "age": 17})
    assert not query.matches({"team": "red", "age": 18})


def test_no_expression_matches_everything() -> None:
    """`ls` without --where must list all."""
    assert Query.parse([]).matches({})
    assert Query.parse([]).is_everything
    assert not Query.parse("a=1").is_everything


def test_the_id_of_a_document_is_a_field() -> None:
    """`ls --where id~n1` is the first thing that people try."""
    query = Query.parse("id~n1")
    assert query.matches({"title": "x"}, id="n12")
    assert not query.matches({"title": "x"}, id="m1")
    assert query.matches({"id": "n1"})
    assert not Query.parse("at.id=n1").matches({"at": {}}, id="n1")


def test_what_python_would_read_otherwise_is_refused() -> None:
    """`a and b` would be b, and `not a` nothing at all: the wrong documents, without a word."""
    age = Query.field("age")
    for slip in (
        lambda: (age >= 18) and (age < 65),
        lambda: 18 <= age < 65,
        lambda: not (age >= 18),
        lambda: (age < 18) or (age > 65),
    ):
        with pytest.raises(LocalError, match="combine queries with"):
            slip()
    with pytest.raises(LocalError, match=r"one_of\(\['blue'\]\)"):
        Query.field("team").one_of("blue")


def test_queries_are_built_in_python() -> None:
    """The Python API of queries would differ from the expressions."""
    age, team = Query.field("age"), Query.field("team")
    assert ((age >= 18) & (team == "blue")).matches(DOCUMENT)
    assert ((age < 18) | (team != "red")).matches(DOCUMENT)
    assert not (~(age == 30)).matches(DOCUMENT)
    assert team.one_of(["red", "blue"]).matches(DOCUMENT)
    assert not Query.field("ok").one_of([1, 0]).matches(DOCUMENT)
    assert Query.field("note").one_of([None, []]).matches(DOCUMENT)
    assert Query.field("tags").one_of([["a", 1, True]]).matches(DOCUMENT)
    assert team.prefix("bl").matches(DOCUMENT)
    assert Query.field("at.deep").exists().matches(DOCUMENT)
    assert Query.parse("age>=18") == (age >= 18)
    assert hash(Query.parse("age>=18")) == hash(age >= 18)
    assert (age >= 18) & (team == "blue") & age.exists() == Query.parse("age>=18 and team=blue and age?")
    assert (age == 1) | (age == 2) | (age == 3) == Query.parse("age=1 or age=2 or age=3")
    assert (age == 1) != (age == True)  # noqa: E712 -- the query for true is meant


BERLIN, POTSDAM, HAMBURG = (52.5200, 13.4050), (52.3906, 13.0645), (53.5511, 9.9937)


@pytest.mark.parametrize(
    "make",
    [
        lambda lat, lon: {"at": {"lat": lat, "lon": lon}},
        lambda lat, lon: {"at": {"latitude": lat, "longitude": lon}},
        lambda lat, lon: {"at": {"type": "Point", "coordinates": [lon, lat]}},
    ],
)
def test_places_are_found_by_distance_in_each_notation(make: Any) -> None:
    """Berlin to Potsdam is 27 km and to Hamburg 255 km."""
    near = Query.field("at").within_radius(lat=BERLIN[0], lon=BERLIN[1], radius_m=30_000)
    assert near.matches(make(*BERLIN))
    assert near.matches(make(*POTSDAM))
    assert not near.matches(make(*HAMBURG))
    assert not Query.field("at").within_radius(lat=BERLIN[0], lon=BERLIN[1], radius_m=254_000).matches(make(*HAMBURG))
    assert Query.field("at").within_radius(lat=BERLIN[0], lon=BERLIN[1], radius_m=256_000).matches(make(*HAMBURG))


def test_distance_reaches_across_the_date_line_and_the_poles() -> None:
    """A difference of degrees would put Fiji half a world away from Fiji."""
    fiji = Query.field("at").within_radius(lat=-17.0, lon=179.9, radius_m=50_000)
    assert fiji.matches({"at": {"lat": -17.0, "lon": -179.9}})
    pole = Query.field("at").within_radius(lat=89.9, lon=0, radius_m=30_000)
    assert pole.matches({"at": {"lat": 89.9, "lon": 180}})
    everywhere = Query.field("at").within_radius(lat=0, lon=0, radius_m=1e9)
    assert everywhere.matches({"at": {"lat": 0, "lon": 180}})


def test_bounds_hold_and_reach_across_the_date_line() -> None:
    """A box over the Pacific would match the rest of the world."""
    europe = Query.field("at").within_bounds(south=35, west=-10, north=70, east=40)
    assert europe.matches({"at": {"lat": BERLIN[0], "lon": BERLIN[1]}})
    assert not europe.matches({"at": {"lat": 34.9, "lon": 0}})
    pacific = Query.field("at").within_bounds(south=-60, west=160, north=60, east=-120)
    assert pacific.matches({"at": {"lat": 0, "lon": 170}})
    assert pacific.matches({"at": {"lat": 0, "lon": -170}})
    assert not pacific.matches({"at": {"lat": 0, "lon": 0}})


def test_the_antimeridian_and_the_poles_are_one_place_each() -> None:
    """A buoy at longitude 180 would be in or out depending on the sign that its maker chose."""
    west = Query.field("at").within_bounds(south=-10, west=170, north=10, east=180)
    east = Query.field("at").within_bounds(south=-10, west=-180, north=10, east=-170)
    for lon in (180, -180, 180.0):
        assert west.matches({"at": {"lat": 0, "lon": lon}})
        assert east.matches({"at": {"lat": 0, "lon": lon}})
    assert not west.matches({"at": {"lat": 0, "lon": -179.9}})
    arctic = Query.field("at").within_bounds(south=80, west=0, north=90, east=10)
    assert arctic.matches({"at": {"lat": 90, "lon": -123}})
    assert not arctic.matches({"at": {"lat": 89.9, "lon": -123}})
    antarctic = Query.field("at").within_bounds(south=-90, west=0, north=-80, east=10)
    assert antarctic.matches({"at": {"lat": -90.0, "lon": 77}})


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, 2],
        {"lat": 1},
        {"lat": True, "lon": True},
        {"lat": "1", "lon": "2"},
        {"lat": 91, "lon": 0},
        {"type": "Point", "coordinates": [1]},
        {"type": "Point", "coordinates": {"0": 1}},
        {"type": "Polygon"},
        {"lat": 1, "lon": 1, "latitude": 2, "longitude": 2},
        {"lat": 1, "longitude": 1},
        {"type": "Point", "coordinates": [1, 1], "lat": None},
    ],
)
def test_what_is_no_place_is_nowhere(value: Any) -> None:
    """A document of another shape would end the whole listing."""
    assert not Query.field("at").within_radius(lat=0, lon=0, radius_m=1e9).matches({"at": value})
    assert not Query.field("at").within_bounds(south=-90, west=-180, north=90, east=180).matches({"at": value})


def test_a_place_may_be_the_document_itself() -> None:
    """Rows of a gazetteer carry latitude and longitude beside the name."""
    query = Query.from_json({"within_radius": {"lat": 42.5, "lon": 1.5, "radius_m": 5000}})
    assert query.matches({"name": "Andorra", "latitude": 42.51, "longitude": 1.52})
    assert query.to_json() == {"within_radius": {"lat": 42.5, "lon": 1.5, "radius_m": 5000}}
    assert query == Query.within_radius(lat=42.5, lon=1.5, radius_m=5000)
    assert Query.within_bounds(south=42, west=1, north=43, east=2).matches({"latitude": 42.51, "longitude": 1.52})


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ([], "query: a JSON object is expected, not list"),
        ({}, "query: exactly one of and, or, not"),
        ({"field": "a", "=": 1, "<": 2}, "not ['=', '<']"),
        ({"field": "a", "between": 1}, "query.between: no such test"),
        ({"and": {}}, "query.and: an array is expected, not dict"),
        ({"and": [{"or": [{"field": 1, "=": 1}]}]}, "query.and[0].or[0].=: field: a dotted path is expected"),
        ({"not": {"not": 1}}, "query.not.not: a JSON object is expected, not int"),
        ({"field": "a", "not": {}}, "query.not: takes no field"),
        ({"=": 1}, "a field name is expected"),
        ({"field": "a b", "=": 1}, "column 2: quote a name"),
        ({"field": "a", "in": 1}, "an array is expected"),
        ({"field": "a", "prefix": 1}, "query.prefix: a string is expected"),
        ({"field": "a", "exists": 1}, "true or false is expected"),
        ({"field": "a", "=": math.nan}, "nan is no JSON number"),
        ({"field": "a", "=": b""}, "bytes is nothing that JSON can say"),
        ({"field": "a", "=": 2**63}, "integers must fit 64 bits"),
        ({"field": "a", "=": "\ud800"}, "half a surrogate pair"),
        ({"field": "a", "within_radius": {"lat": 1}}, "an object with exactly lat, lon, radius_m"),
        ({"field": "a", "within_radius": {"lat": 91, "lon": 0, "radius_m": 1}}, "lat must be a number from -90 to 90"),
        ({"field": "a", "within_radius": {"lat": 1, "lon": 0, "radius_m": math.inf}}, "radius_m must be finite"),
        ({"field": "a", "within_radius": {"lat": 1, "lon": 0, "radius_m": True}}, "radius_m must be a number"),
        (
            {"field": "a", "within_bounds": {"south": 2, "west": 0, "north": 1, "east": 0}},
            "south (2) must not be greater than north (1)",
        ),
    ],
)
def test_a_malformed_tree_is_refused_with_its_place(tree: Any, expected: str) -> None:
    """A peer's query could raise something else than the one error that is caught."""
    with pytest.raises(LocalError) as caught:
        Query.from_json(tree)
    assert expected in str(caught.value)


def test_depth_and_size_are_bounded() -> None:
    """A query of a few kilobytes could exhaust the stack or hold up the event loop."""
    leaf = {"field": "a", "=": 1}
    deepest: dict[str, Any] = leaf
    for _ in range(LIMITS.query_depth_max - 1):
        deepest = {"not": deepest}
    Query.from_json(deepest)
    with pytest.raises(LocalError, match="nested deeper than 16"):
        Query.from_json({"not": deepest})
    with pytest.raises(LocalError, match="nested deeper than 16"):
        ~Query.from_json(deepest)
    Query.from_json({"or": [leaf] * (LIMITS.query_terms_max - 1)})
    with pytest.raises(LocalError, match="more than 256 conditions"):
        Query.from_json({"or": [leaf] * LIMITS.query_terms_max})
    with pytest.raises(LocalError, match="too large"):
        Query.field("a").one_of(["x" * 1000] * 20)
    with pytest.raises(LocalError, match="too long"):
        Query.parse("a=" + "x" * 20_000)


@given(trees, documents)
def test_a_query_survives_json_and_its_opposite_is_the_rest(tree: Any, document: dict[str, Any]) -> None:
    """A query that a peer reads back must select the same; what it leaves out must be what `not` takes."""
    query = Query.from_json(tree)
    again = Query.from_json(json.loads(json.dumps(query.to_json())))
    assert query == again
    assert query.matches(document) is again.matches(document)
    assert (~query).matches(document) is not query.matches(document)


@given(values, values)
def test_kinds_do_not_mix(left: Any, right: Any) -> None:
    """To Python True == 1 and [True] == [1]; to a query they differ, at every depth."""

    def kinds(value: Any) -> Any:
        if isinstance(value, bool) or value is None:
            return repr(value)
        if isinstance(value, int | float):
            return value
        if isinstance(value, str):
            return "s" + value
        if isinstance(value, list):
            return tuple(map(kinds, value))
        return frozenset((key, kinds(item)) for key, item in value.items())

    assert (Query.field("a") == left).matches({"a": right}) is (kinds(left) == kinds(right))
    assert Query.field("a").one_of([left]).matches({"a": right}) is (kinds(left) == kinds(right))
