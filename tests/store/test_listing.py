"""Listings against the plain reading of what they mean, on every store, with and without indexes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.limits import Limits
from meshsync.core.matching import MISSING, getter
from meshsync.core.ordering import MISSING_KEY, Order, sort_key
from meshsync.core.policy import UNDECIDED, Policy, collection_id
from meshsync.core.query import Query
from meshsync.errors import LocalError
from meshsync.store.base import Store
from meshsync.store.listing import After, Listing
from meshsync.store.memory import MemoryStore
from meshsync.store.replica import Replica
from tests.authors import COLLECTION, START_MS, Author
from tests.queries import documents, trees
from tests.replicas import give, new_replica, two_logs
from tests.store.rows import scan_documents

FIELDS = ["a", "c.d", "a.lat", "lon"]
TEAMS = ("red", "green", "blue")


def replica_of(store: Store, **limits: int) -> Replica:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    return Replica(store, store.collection(COLLECTION, "notes"), key, Limits(**limits))


def write(replica: Replica, *operations: Operation) -> None:
    replica.append(operations, START_MS)


def settle(replica: Replica) -> int:
    steps = 1
    while not replica.indexes.step():
        steps += 1
    return steps


def plain(
    bodies: dict[str, dict[str, Any]], query: Query, order: str | None, after: str | None, limit: int | None
) -> list[str]:
    """What a listing is to give."""
    by = Order(("id",)) if order is None else Order.parse(order)

    def rank(id: str) -> tuple[bool, bytes, str]:
        key = sort_key(id if by.path == ("id",) else getter(by.path)(bodies[id]))
        return (key == MISSING_KEY) is not by.descending, key, id

    ids = sorted((id for id, body in bodies.items() if query.matches(body, id)), key=rank, reverse=by.descending)
    if after is not None:
        ids = [id for id in ids if (rank(id) < rank(after) if by.descending else rank(id) > rank(after))]
    return ids[:limit]


def selected(
    replica: Replica,
    bodies: dict[str, dict[str, Any]],
    query: Query,
    order: str | None,
    after: str | None,
    limit: int | None,
) -> list[str]:
    by = None if order is None else Order.parse(order)
    behind = None
    if after is not None:
        behind = After(after, MISSING if by is None else getter(by.path)(bodies[after]))
    listing = Listing(replica, query, order=by, after=behind, limit=limit)
    found = list(listing)
    assert all(one.body == bodies[one.document.row.id] for one in found)
    assert listing.matched == len(found)
    return [one.document.row.id for one in found]


ids = st.sampled_from(["a", "b", "é", "x y", "a" * 300, "a" * 300 + "b", "\U0010ffff", "1"])
orders = st.none() | st.sampled_from(["a", "-a", "c.d", "-c.d", "a.lat", "-lon", "id", "-id", "b"])
id_trees = st.sampled_from(
    [
        {"field": "id", "=": "a"},
        {"field": "id", "prefix": "a" * 257},
        {"field": "id", ">": "a"},
        {"field": "id", "<=": "a" * 300},
        {"field": "id", "in": ["a", "b", 1, "a" * 300]},
        {"field": "id", "exists": True},
        {"not": {"field": "id", "exists": True}},
        {"field": "id", "=": 1},
    ]
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(ids, documents, max_size=8),
    trees | id_trees | st.builds(lambda a, b: {"and": [a, b]}, trees, id_trees),
    orders,
    st.booleans(),
    st.none() | st.integers(0, 3),
    st.lists(st.sampled_from(FIELDS), unique=True),
)
def test_a_listing_gives_what_the_query_means(
    bodies: dict[str, dict[str, Any]],
    tree: Any,
    order: str | None,
    is_paged: bool,
    limit: int | None,
    fields: list[str],
) -> None:
    """What an index serves, or a hint leaves out, would be another answer than looking at every document."""
    bodies = {id: {name: value for name, value in body.items() if name != "id"} for id, body in bodies.items()}
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    replica = replica_of(store)
    for field in fields:
        replica.indexes.add(field)
    for id, body in bodies.items():
        write(replica, Operation(PUT, id, body))
    settle(replica)
    query = Query.from_json(tree)
    whole = plain(bodies, query, order, None, None)
    after = whole[len(whole) // 2] if is_paged and whole else None
    assert selected(replica, bodies, query, order, after, limit) == plain(bodies, query, order, after, limit)


@pytest.fixture
def notes(store: Store) -> Replica:
    """1,500 documents of all sorts, some deleted, some patched."""
    replica = replica_of(store)
    rng = random.Random(7)
    for start in range(0, 1500, 150):
        write(replica, *(Operation(PUT, f"d{n:04}", make(rng, n)) for n in range(start, start + 150)))
    write(replica, *(Operation(DELETE, f"d{n:04}") for n in range(0, 1500, 97)))
    write(replica, *(Operation(PATCH, f"d{n:04}", {"team": "violet", "n": None}) for n in range(5, 1500, 101)))
    return replica


def make(rng: random.Random, n: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "team": rng.choice(TEAMS) + str(n % 50),
        "n": rng.choice([n, n / 7, str(n), None, n % 2 == 0]),
    }
    body["at"] = {"lat": rng.uniform(-90, 90), "lon": rng.uniform(-180, 180)}
    if n % 10 == 0:
        body["at"] = {"type": "Point", "coordinates": [body["at"]["lon"], body["at"]["lat"]]}
    return body


def bodies_of(replica: Replica) -> dict[str, dict[str, Any]]:
    return {
        one.row.id: body
        for one in scan_documents(replica.tables)
        if (body := replica.merger.body(one.row, one.payload)) is not None
    }


QUERIES = [
    "team=blue7",
    "team=violet",
    "team~re",
    "team in [red1, blue2, nobody]",
    "n>100 and n<200",
    "n=null",
    "not n?",
    "n>5 and team~green1",
    "team!=red1",
    "at within_radius(lat=10, lon=179, radius_m=900000)",
    "at within_bounds(south=-10, west=170, north=20, east=-160)",
    "at within_bounds(south=80, west=0, north=90, east=10)",
    "id~d01",
    "id in [d0001, d0002, d0000]",
    "and()",
    "or()",
]


def test_large_listings_with_and_without_indexes_are_the_same(notes: Replica) -> None:
    """Pages, sorts that keep only the first, and the choice between indexes would show in the answers."""
    bodies = bodies_of(notes)
    assert len(bodies) == len(notes.tables.document_page(None, 9999).documents)
    for is_indexed in (False, True):
        if is_indexed:
            for field in ("team", "n", "at.lat", "at.lon"):
                assert notes.indexes.add(field)
            settle(notes)
        for expression in QUERIES:
            query = Query.parse(expression)
            for order, after, limit in [
                (None, None, None),
                (None, "d0500", 7),
                ("-id", "d1400", 7),
                ("n", None, 5),
                ("-n", "d1001", 5),
                ("team", "d1001", None),
                ("-team", None, 700),
                ("at.lat", "d0010", 3),
            ]:
                found = selected(notes, bodies, query, order, after, limit)
                assert found == plain(bodies, query, order, after, limit), (expression, order, after, limit, is_indexed)


@pytest.mark.parametrize(
    ("expression", "order", "limit", "served", "way"),
    [
        ("team=blue7", None, None, "team", "keys"),
        ("team=blue7 and n>5", None, None, "team", "keys"),
        ("team~b", None, None, None, "scan"),
        ("n>100 and n<120", None, None, "n", "keys"),
        ("at within_radius(lat=10, lon=10, radius_m=50000)", None, None, "at.lat", "keys"),
        ("and()", "n", 5, "n", "ordered"),
        ("and()", "-n", None, "n", "ordered"),
        ("team=blue7", "n", None, "team", "keys"),
        ("team~b", "n", 3, "n", "ordered"),
        ("other=1", None, None, None, "scan"),
        ("id=d0001", None, None, "id", "ids"),
        ("id~d00", None, None, "id", "scan"),
        ("team=nobody", "other", 3, "team", "keys"),
        ("and()", "other", 3, None, "scan"),
    ],
)
def test_the_index_with_the_fewest_documents_serves(
    notes: Replica, expression: str, order: str | None, limit: int | None, served: str | None, way: str
) -> None:
    """Queries would look at documents that an index rules out, or look up one by one what is faster read in a row."""
    for field in ("team", "n", "at.lat"):
        notes.indexes.add(field)
    settle(notes)
    by = None if order is None else Order.parse(order)
    listing = Listing(notes, Query.parse(expression), order=by, limit=limit)
    assert (listing.plan.served_by, listing.plan.way) == (served, way)
    list(listing)
    if served == "team":
        assert listing.documents_read <= 60
    assert listing.documents_read <= notes.document_count()


def test_an_index_is_built_in_steps_while_documents_are_written(notes: Replica) -> None:
    """A write during the building would be missing, or be there as it was before."""
    assert notes.indexes.add("team")
    assert not notes.indexes.add("team")
    assert not notes.indexes.step()
    write(notes, Operation(PUT, "a first", {"team": "blue7"}))
    write(notes, Operation(PATCH, "d0001", {"team": "blue7"}), Operation(DELETE, "d0003"))
    write(notes, Operation(PUT, "z last", {"team": "blue7"}), Operation(DELETE, "d1499"))
    query = Query.parse("team=blue7")
    assert Listing(notes, query).plan.served_by is None
    assert settle(notes) >= 5
    assert Listing(notes, query).plan.served_by == "team"
    bodies = bodies_of(notes)
    assert selected(notes, bodies, query, None, None, None) == plain(bodies, query, None, None, None)
    assert faults(notes) == []


def faults(replica: Replica) -> list[str]:
    found: list[str] = []
    for row, _ in replica.indexes.ready():
        after: str | None = ""
        while after is not None:
            wrong, after = replica.indexes.check(row.number, after)
            found += wrong
    return found


def test_an_index_follows_every_merge(store: Store) -> None:
    """Documents from peers, in any order and with conflicts, would be found under what they held before."""
    made, *_ = two_logs()
    for seed in range(20):
        replica = new_replica()
        replica.indexes.add("n")
        settle(replica)
        rng = random.Random(seed)
        for entry in made:
            give(replica, entry)
            if rng.random() < 0.5:
                write(replica, Operation(rng.choice([PUT, PATCH]), rng.choice("xyz"), {"n": rng.randrange(9)}))
            if rng.random() < 0.2:
                write(replica, Operation(DELETE, rng.choice("xyz")))
            assert faults(replica) == [], seed
    assert store.collections() == []


def test_a_dropped_index_goes_in_steps_and_may_come_back(notes: Replica) -> None:
    """The keys of one that was given up would serve under its new number."""
    notes.indexes.add("team")
    settle(notes)
    assert notes.indexes.remove("team")
    assert not notes.indexes.remove("team")
    assert notes.indexes.declared() == []
    assert notes.indexes.add("team")
    settle(notes)
    assert [row.path for row in notes.indexes.rows] == ["team"]
    assert faults(notes) == []
    assert sum(notes.tables.keys.count(number, b"", b"\xff", 9999) for number in range(5)) == len(bodies_of(notes))


def test_a_wrong_key_is_found_and_mended(notes: Replica) -> None:
    """A query would miss documents for ever, and nothing would say so."""
    notes.indexes.add("team")
    settle(notes)
    with notes.store.transaction():
        notes.tables.keys.put([(1, "d0001", b"\x05nonsense"), (1, "d0001x", b"\x05nobody")])
        notes.tables.keys.forget([b"d1400"])
    assert faults(notes) == [f"the index of team is wrong about document '{id}'" for id in ("d0001", "d0001x", "d1400")]
    notes.indexes.rebuild()
    settle(notes)
    assert faults(notes) == []


def test_indexes_that_make_no_sense_are_refused(notes: Replica) -> None:
    """Every index costs every write; a misspelt path would be built and serve nothing."""
    for field, expected in (("", "column 1"), ("a b", "column 2"), ("id", "without an index")):
        with pytest.raises(LocalError, match=expected):
            notes.indexes.add(field)
    for number in range(16):
        notes.indexes.add(f"f{number}")
    with pytest.raises(LocalError, match="16 indexes, which is as many as may be"):
        notes.indexes.add("one.more")
    assert not notes.indexes.add('"f1"')


def test_too_many_to_sort_are_refused_with_what_helps(store: Store) -> None:
    """A listing would take all memory."""
    replica = replica_of(store, sorted_documents_max=100)
    for start in range(0, 1400, 100):
        write(replica, *(Operation(PUT, f"d{n}", {"n": n}) for n in range(start, start + 100)))
    with pytest.raises(LocalError, match="meshsync index add notes FIELD"):
        list(Listing(replica, Query(), order=Order(("n",))))
    assert len(list(Listing(replica, Query(), order=Order(("n",)), limit=100))) == 100
    replica.indexes.add("n")
    settle(replica)
    assert len(list(Listing(replica, Query(), order=Order(("n",))))) == 1400


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("is_indexed", [False, True])
def test_conflicts_are_found_by_what_they_show(policy: Policy, is_indexed: bool) -> None:
    """What is stored of a contested document is not what it shows: it would be passed over unseen."""
    collection = collection_id("notes", policy)
    replica = new_replica(collection=collection)
    if is_indexed:
        for field in ("n", f"n.{UNDECIDED}"):
            replica.indexes.add(field)
        settle(replica)
    one, other = Author(1, collection), Author(2, collection)
    give(replica, one.write([Operation(PATCH, "x", {"n": 3})]), other.write([Operation(PATCH, "x", {"n": 400})]))
    bodies = bodies_of(replica)
    for expression in ("n=3", "n=400", "n>3", "n<400", "n?", f"n.{UNDECIDED}?", f"not n.{UNDECIDED}?", "n=[3,400]"):
        query = Query.parse(expression)
        found = selected(replica, bodies, query, None, None, None)
        assert found == (["x"] if query.matches(bodies["x"]) else []), expression
    assert Query.parse(f"n.{UNDECIDED}?").matches(bodies["x"]) is (policy is Policy.MANUAL)
    assert faults(replica) == []
