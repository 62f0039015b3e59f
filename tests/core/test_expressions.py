"""Expressions: what people type means what JSON and Python say, and what is doubtful is refused with its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.query import Query
from meshsync.errors import LocalError
from tests.queries import documents, trees


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", "column 1: a field name is expected"),
        ("=1", "column 1: a field name is expected"),
        ("a", "column 2: one of = != < <= > >= ~ ? in within_radius within_bounds is expected, not the end"),
        ("a ! b", "column 3: one of"),
        ("a..b=1", "column 3: a field name is expected"),
        ("a=", 'column 3: a value is expected, not the end; an empty string is ""'),
        ("a==1", "column 3: a value that begins with = needs double quotes"),
        ("a=<1", "column 3: a value that begins with <"),
        ("a<>1", "column 3: a value that begins with >"),
        ("a? x", "column 4: and, or, or the end is expected, not 'x'"),
        ("a?x", "column 3: nothing may follow ?"),
        ("a=1 and", "column 8: a field name is expected"),
        ("a=1 && b=2", "column 5: and, or, or the end is expected, not '&& b=2'"),
        (
            "a=New York",
            "column 7: and, or, or the end is expected, not 'York'; a value with spaces needs double quotes",
        ),
        ("a=f(x)", "column 4: a value with ( needs double quotes"),
        ("a=x,y", "column 4: and, or, or the end is expected, not ',y'"),
        ("(a=1", "column 5: and, or, or ) is expected, not the end"),
        ("a=1)", "column 4: and, or, or the end is expected, not ')'"),
        ("()", "column 2: a field name is expected"),
        ("not", "column 4: a field name is expected"),
        ("a in [1", "column 8: , or ] is expected, not the end"),
        ("a in [1,]", "column 9: a value is expected, not ']'"),
        ("a in 1", "column 6: [ is expected, not '1'"),
        ("a in (1, 2)", "column 6: [ is expected, not '(1, 2)'"),
        ("a inside 1", "column 3: one of"),
        ("a='New York'", "column 3: a value that begins with ' needs double quotes"),
        ("id=7", 'column 4: an id is text: in double quotes "7" would be one'),
        ("id in [n1, 7]", "column 12: an id is text"),
        (".".join("a" * 17) + "=1", "column 33: no document is deeper than 16 levels"),
        ("and(a=1", "column 8: , or ) is expected, not the end"),
        ("at within_radius(lat=1, lon=2)", "column 4: within_radius lacks radius_m"),
        ("at within_radius(lat=1, lat=2)", "column 25: within_radius takes each of lat, lon, radius_m once"),
        ("within_radius(latitude=1)", "column 15: within_radius takes each of lat, lon, radius_m once"),
        ("within_radius(lat=1, field=at)", "column 22: within_radius takes each of lat, lon, radius_m once; a field"),
        ("at within_radius(lat=x)", "column 22: a number is expected for lat"),
        ("at within_radius(1, 2, 3)", "column 18: a name such as lat is expected, not '1, 2, 3)'"),
        ("at within_radius(lat=99, lon=2, radius_m=1)", "column 4: lat must be a number from -90 to 90, not 99"),
        ("tags[0]=1", "column 5: one of"),
        ("a=[1", "column 3: value: not JSON"),
        ("a=" + "[" * 5000, "column 3: value: nested deeper than 16 levels"),
        ("(" * 17 + "a=1" + ")" * 17, "column 17: nested deeper than 16 levels"),
        ("not " * 17 + "a=1", "nested deeper than 16 levels"),
        ("a~x y", "column 5: and, or, or the end is expected, not 'y'; a value with spaces needs double quotes"),
        ('a="x', "column 3: value: not JSON: unterminated string"),
        ('"a=1', "column 1: the quoted field name does not end"),
        ('a={"x":1,"x":2}', "x: this key stands twice"),
        ("a<true", "column 3: < orders numbers and strings, and true is neither"),
        ("a>[1]", "> orders numbers and strings"),
        ("a=9223372036854775808", "does not fit 64 bits"),
        ("a=1e999", "beyond what a 64-bit float can hold"),
    ],
)
def test_a_doubtful_expression_is_refused_with_its_place(expression: str, expected: str) -> None:
    """`name=New York` must not silently look for "New"."""
    with pytest.raises(LocalError) as caught:
        Query.parse(expression)
    assert expected in str(caught.value)


A, B, C = Query.field("a") == 1, Query.field("b") == 2, Query.field("c").exists()


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("a=1 and b=2", A & B),
        ("a=1 and b=2 or c?", (A & B) | C),
        ("a=1 or b=2 and c?", A | (B & C)),
        ("(a=1 or b=2) and c?", (A | B) & C),
        ("( a=1 )", A),
        ("not a=1 and b=2", ~A & B),
        ("not (a=1 and b=2)", ~(A & B)),
        ("not not a=1", ~~A),
        ("and()", Query()),
        ("or()", Query.from_json({"or": []})),
        ("and(a=1, b=2)", A & B),
        ('a in [x, 1, "y z", [2], null]', Query.field("a").one_of(["x", 1, "y z", [2], None])),
        ("a in[]", Query.field("a").one_of([])),
        ("in in [1]", Query.field("in").one_of([1])),
        ("not=1", Query.field("not") == 1),
        ("not = 1", Query.field("not") == 1),
        ("not not=1", ~(Query.field("not") == 1)),
        ('"and".b=1', Query.field("and.b") == 1),
        ("and=and and or=or", (Query.field("and") == "and") & (Query.field("or") == "or")),
        ("order=1 or android=2", (Query.field("order") == 1) | (Query.field("android") == 2)),
        ("zip~01", Query.field("zip").prefix("01")),
        ('name~"A B"', Query.field("name").prefix("A B")),
        ("url=https://x/?q=1&y", Query.field("url") == "https://x/?q=1&y"),
        (
            "at within_radius(lat=52.5, lon=-13, radius_m=5e3)",
            Query.field("at").within_radius(lat=52.5, lon=-13, radius_m=5000.0),
        ),
        (
            "at within_bounds( east=1, west=-1, south=-2, north=2 ) and a=1",
            Query.field("at").within_bounds(south=-2, west=-1, north=2, east=1) & A,
        ),
        ("within_radius(lat=1,lon=2,radius_m=3)", Query.within_radius(lat=1, lon=2, radius_m=3)),
        ("within_radius=1", Query.field("within_radius") == 1),
    ],
)
def test_an_expression_means_what_python_says(expression: str, same: Query) -> None:
    """What works at the command line would be another query in a program."""
    assert Query.parse(expression) == same
    assert Query.parse(str(same)) == same


def test_several_expressions_mean_what_and_means() -> None:
    """`--where` twice would be another query than the same with `and`."""
    assert Query.parse(["a=1 and b=2", "c?"]) == Query.parse("a=1 and b=2 and c?") == A & B & C
    assert Query.parse(["a=1", "b=2 or c?"]) == A & (B | C)


@given(trees, documents)
def test_the_three_forms_are_one_language(tree: Any, document: dict[str, Any]) -> None:
    """A query would select other documents after it was shown to a person and typed again."""
    query = Query.from_json(tree)
    typed = Query.parse(str(query))
    assert typed == query
    assert typed.to_json() == query.to_json()
    assert str(typed) == str(query)
    assert typed.matches(document) is query.matches(document)


@given(trees, trees, documents)
def test_python_combines_as_expressions_do(left: Any, right: Any, document: dict[str, Any]) -> None:
    """`a & b` would mean something else than `a and b`."""
    a, b = Query.from_json(left), Query.from_json(right)
    for combined, word in ((a & b, "and"), (a | b, "or")):
        assert Query.parse(f"({a}) {word} ({b})").matches(document) is combined.matches(document)
        assert Query.parse(str(combined)) == combined
    assert (a & b).matches(document) is (a.matches(document) and b.matches(document))
    assert (a | b).matches(document) is (a.matches(document) or b.matches(document))
    assert Query.parse(f"not ({a})") == ~a


@given(st.text() | st.text(st.sampled_from(' ()[],=<>~?!"\\.a1{}:-') | st.sampled_from([*"andornti_within_radius"])))
def test_any_text_is_a_query_or_a_local_error(text: str) -> None:
    """A typing mistake must never end in a traceback."""
    try:
        query = Query.parse(text)
    except LocalError:
        return
    assert Query.from_json(query.to_json()) == query
    assert Query.parse(str(query)) == query
