"""What of the entries goes out whole to a peer that wants a part, over every store."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest

from meshsync.core import cbor
from meshsync.core.bare import description
from meshsync.core.entry import PUT, Operation, document_tags, touched_documents
from meshsync.core.limits import LIMITS
from meshsync.core.policy import Policy, collection_id
from meshsync.core.query import Query
from meshsync.core.retention import Retention
from meshsync.store.base import Store
from meshsync.store.headers import rebuilt_id
from meshsync.store.matches import Matches
from meshsync.store.replica import Replica
from tests.authors import START_MS, Author
from tests.choosy import QUERIES, random_operations
from tests.store.rows import scan_documents

BLUE = Query.parse("team=blue")


def new(store: Store, policy: Policy = Policy.LATEST) -> Replica:
    return Replica(store, store.collection(collection_id("notes", policy), "notes"), Author(9).key)


def matching(replica: Replica, query: Query) -> set[str]:
    bodies = {row.id: replica.merger.body(row, None) for row, _ in scan_documents(replica.tables)}
    return {id for id, body in bodies.items() if body is not None and query.matches(body, id)}


@pytest.mark.parametrize("policy", [Policy.LATEST, Policy.GREATEST])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("indexed", "written_once"), [(False, 0), (False, 200), (True, 0)])
def test_payloads_go_along_for_documents_that_match_now(
    store: Store, policy: Policy, seed: int, *, indexed: bool, written_once: int
) -> None:
    """A look at the bytes of an entry says nothing of what its documents have become since then, be they few."""
    rng = random.Random(seed)
    replica = new(store, policy)
    if written_once:
        bodies: list[dict[str, str]] = [{"team": rng.choice(("blue", "red"))} for _ in range(written_once)]
        replica.append([Operation(PUT, f"once{number}", body) for number, body in enumerate(bodies)], START_MS)
    for _ in range(120):
        replica.append(random_operations(rng, START_MS), START_MS)
    if written_once:
        replica.retaining.kept_elsewhere(replica.tables.next_arrival())
        replica.retaining.keep(Retention(0, 60))
        while replica.retaining.step(START_MS):
            pass
        assert replica.tables.marked()
    while replica.expiries.step(START_MS + 100_000):
        pass
    for field in ("team", "n") if indexed else ():
        replica.indexes.add(field)
    while not replica.indexes.step():
        pass
    rows = [row for row in replica.tables.entries_from(1, 1000) if row.payload is not None]
    for text in QUERIES:
        query = Query.parse(text.split(" "))
        now = matching(replica, query)
        first = rng.randrange(len(rows))
        some = rows[first : first + rng.choice((1, 20, 120))]
        for row, chosen in zip(some, replica.selection.part(query, some), strict=True):
            assert row.payload is not None
            ids = [operation[1] for operation in cbor.decode_trusted(row.payload)]
            assert touched_documents(row.payload) == ids
            if now & set(ids):
                assert chosen == row, (text, ids)
            else:
                assert chosen._replace(bare=None) == row._replace(payload=None), (text, ids)
                assert description(chosen.bare) == (
                    cbor.sha256(row.payload),
                    len(row.payload),
                    document_tags(replica.id, ids),
                )
            assert rebuilt_id(replica, chosen) == row.id


def test_a_batch_of_headers_is_long_and_reads_only_so_much(store: Store) -> None:
    """A commit for each few headers takes longer than they do; and large payloads that stay away must not be read and
    hashed all in one go, while everybody else waits.
    """
    replica = new(store)
    for number in range(600):
        replica.append([Operation(PUT, f"small{number}", {"team": "red"})], START_MS)
    for number in range(200):
        replica.append([Operation(PUT, f"large{number}", {"team": "red", "text": "x" * 100_000})], START_MS)
    replica.append([Operation(PUT, "wanted", {"team": "blue"})], START_MS)

    choose = partial(replica.selection.part, BLUE)
    known: dict[int, int] = {}
    counts = []
    while parcel := replica.parcel(known, replica.numbers(), 0, 64 * 1024, choose):
        known[1] = parcel.rows[-1].seq
        counts.append(len(parcel.rows))
    assert parcel is None
    assert sum(counts) == 801
    assert counts[0] > LIMITS.batch_entries_soft
    assert len(counts) > 5

    replica.limits = replace(LIMITS, batch_headers_soft=50)
    first = replica.parcel({}, replica.numbers(), 0, 64 * 1024, choose)
    assert first is not None
    assert len(first.rows) == 50


def test_an_index_tells_all_that_matches_until_a_document_changes(store: Store) -> None:
    """With an index, a peer that wants little is not to cost a look at each document; and what the index said must not
    keep a payload back that it wants by now.
    """
    replica = new(store)
    matches = Matches(replica)
    for number in range(300):
        replica.append([Operation(PUT, f"d{number}", {"team": "blue" if number % 5 else "red", "n": number})], START_MS)
    assert matches.ids(BLUE, 1000) is None, "there is no index"
    assert replica.indexes.add("team")
    while not replica.indexes.step():
        pass

    def known(query: Query, count: int) -> set[str] | None:
        """What is told after so many pages."""
        return [matches.ids(query, 100) for _ in range(count)][-1]

    red = Query.parse("team=red")
    assert [matches.ids(red, 1) for _ in range(9)] == [None] * 9, "not worth it for single entries"
    assert known(red, 5) == matching(replica, red)
    replica.append([Operation(PUT, "d1", {"team": "red"})], START_MS)
    assert matches.ids(red, 100) is None
    assert known(red, 5) == matching(replica, red)
    assert "d1" in matching(replica, red)
    assert matches.ids(BLUE, 100) is None, "another query"
    low = Query.parse(["team=red", "n<50"])
    assert known(low, 5) == matching(replica, low) < matching(replica, red)

    assert matches.ids(red, 100) is None
    assert replica.indexes.remove("team")
    assert known(red, 5) is None, "the index names nothing any more"
