"""Random queries and documents, drawn so that they often meet."""

from __future__ import annotations

from hypothesis import strategies as st

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=2), inner, max_size=3)
    ),
    max_leaves=5,
)
names = st.sampled_from(["a", "b", "c.d", '"x y"', "not", "and.or", "within_radius", '"f(x)"'])
degrees = st.floats(-90, 90)
longitudes = st.floats(-180, 180)
leaves = st.one_of(
    st.builds(lambda name, op, value: {"field": name, op: value}, names, st.sampled_from(["=", "!="]), values),
    st.builds(
        lambda name, op, value: {"field": name, op: value},
        names,
        st.sampled_from(["<", "<=", ">", ">="]),
        st.integers(-5, 5) | st.text("ab", max_size=2),
    ),
    st.builds(lambda name, value: {"field": name, "in": value}, names, st.lists(values, max_size=3)),
    st.builds(lambda name: {"field": name, "exists": True}, names),
    st.builds(lambda name, value: {"field": name, "prefix": value}, names, st.text("ab", max_size=2)),
    st.builds(
        lambda name, lat, lon: {"field": name, "within_radius": {"lat": lat, "lon": lon, "radius_m": 1e6}},
        names,
        degrees,
        degrees,
    ),
    st.builds(
        lambda south, west, height, east: {
            "within_bounds": {"south": south, "west": west, "north": min(90.0, south + height), "east": east}
        },
        degrees,
        longitudes,
        st.floats(0, 90),
        longitudes,
    ),
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.builds(lambda parts: {"and": parts}, st.lists(inner, max_size=3))
        | st.builds(lambda parts: {"or": parts}, st.lists(inner, max_size=3))
        | st.builds(lambda part: {"not": part}, inner)
    ),
    max_leaves=8,
)
places = st.fixed_dictionaries({"lat": degrees, "lon": longitudes})
documents = st.dictionaries(
    st.sampled_from(["a", "b", "c", "x y", "lat", "lon"]), values | places | st.builds(lambda v: {"d": v}, values)
)
