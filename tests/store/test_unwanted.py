"""Dropping payloads that are not wanted, over every store."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from meshsync.core import cbor
from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.core.query import Query
from meshsync.store.applied import Dropped
from meshsync.store.base import Store
from meshsync.store.husks import is_husk, was_deleted
from meshsync.store.past import Past
from meshsync.store.replica import Replica
from tests.authors import COLLECTION, START_MS, Author, Made, batch_of
from tests.meshoracle import Write, document_of
from tests.replicas import apply, give
from tests.store.rows import scan_documents

BLUE = Query.parse("team=blue")


def opened(store: Store, query: Query | None = BLUE) -> Replica:
    replica = Replica(store, store.collection(COLLECTION, "notes"), Author(9).key)
    replica.choose(query)
    return replica


def drop(replica: Replica) -> Dropped:
    """All that may go now."""
    before = replica.unwanted.dropped
    now = 0.0
    while (due := replica.unwanted.due(now)) is not None:
        now = max(due, now)
        replica.unwanted.step(now)
    after = replica.unwanted.dropped
    return after - before


def look(replica: Replica, times: int) -> None:
    """All that may go once what was noted has rested, `times` after the start."""
    now = times * 2 * LIMITS.unwanted_seconds
    replica.unwanted.due(now)
    replica.unwanted.step(now + LIMITS.unwanted_seconds)


def waits(replica: Replica) -> bool:
    return replica.unwanted.is_waiting


def payloads(replica: Replica) -> set[int]:
    """The entries that have theirs."""
    return {row.arrival for row in replica.scan_entries() if row.payload is not None}


def shown(replica: Replica) -> dict[str, object]:
    """The part, as it stands in the store."""
    rows = scan_documents(replica.tables)
    bodies = {row.id: replica.merger.body(row, payload) for row, payload in rows}
    return {id: body for id, body in bodies.items() if replica.interest is None or id in replica.interest}


def test_what_was_never_wanted_goes_once_somebody_else_has_it(store: Store) -> None:
    """Otherwise any peer fills the disk of a node that wants next to nothing."""
    author, replica = Author(1), opened(store)
    blue = author.write([Operation(PUT, "b", {"team": "blue"})])
    red = [author.write([Operation(PUT, f"r{number}", {"team": "red"})]) for number in range(40)]
    give(replica, blue, *red)
    assert drop(replica) == Dropped()
    assert waits(replica)
    replica.unwanted.kept_elsewhere(21)
    assert drop(replica).entries == 19
    replica.unwanted.kept_elsewhere(42)
    assert drop(replica).entries == 21
    assert not waits(replica)
    assert payloads(replica) == {1}
    assert replica.tables.counts() == (41, 1, 40)
    assert replica.is_satisfied
    assert shown(replica) == {"b": {"team": "blue"}}
    assert {id for id, row in replica.tables.documents(["b", "r1", "r2"]).items() if is_husk(row.state)} == {"r1", "r2"}
    assert list(store.verify()) == []
    past = Past(replica)
    assert past.row("r1") is None
    assert [header.is_lacking for header in past.headers("r1")] == [True]


def test_what_was_dropped_comes_back_with_its_past(store: Store) -> None:
    """Otherwise a document that left the part and returns is shown without what was written before."""
    author, replica = Author(1), opened(store)
    made = [
        author.write([Operation(PUT, "d", {"team": "blue", "n": 1})]),
        author.write([Operation(PATCH, "d", {"team": "red"})]),
    ]
    give(replica, *made)
    replica.unwanted.kept_elsewhere(3)
    assert drop(replica).entries == 2
    back = author.write([Operation(PATCH, "d", {"team": "blue"})])
    give(replica, back)
    assert sorted(replica.wanted_places(9)) == [(author.log, 1), (author.log, 2)]
    for number, entry in enumerate(made, 1):
        assert replica.fill_payload(author.log, number, entry.payload) is not None
    assert shown(replica) == {"d": {"team": "blue", "n": 1}}
    assert replica.is_satisfied
    assert drop(replica) == Dropped()


def test_what_this_node_wrote_stays_with_all_that_the_document_is_made_of(store: Store) -> None:
    """Otherwise the only copy of what was written here goes, or it is asked for again with each write."""
    author, replica = Author(1), opened(store)
    give(replica, author.write([Operation(PUT, "d", {"team": "red"})]))
    replica.append([Operation(PATCH, "d", {"n": 1})], START_MS)
    replica.append([Operation(PUT, "e", {"team": "red"})], START_MS)
    replica.unwanted.kept_elsewhere(99)
    assert drop(replica) == Dropped()
    assert payloads(replica) == {1, 2, 3}


def test_of_an_entry_that_is_wanted_no_other_entries_are_kept_with_it(store: Store) -> None:
    """Otherwise one entry that touches a wanted document as well keeps all of another one for ever."""
    author, replica = Author(1), opened(store)
    made = [
        author.write([Operation(PUT, "junk", {"n": 1}), Operation(PUT, "b", {"team": "blue"})]),
        author.write([Operation(PATCH, "junk", {"n": 2})]),
        author.write([Operation(PATCH, "junk", {"m": 3})]),
    ]
    give(replica, *made)
    replica.unwanted.kept_elsewhere(4)
    assert drop(replica).entries == 2
    assert payloads(replica) == {1}
    row = replica.tables.documents(["junk"])["junk"]
    assert replica.merger.body(row, None) == {"n": 1}
    replica.choose(Query.parse("n?"))
    assert sorted(replica.wanted_places(9)) == [(author.log, 2), (author.log, 3)]


def test_another_query_lets_go_what_the_last_one_brought(store: Store) -> None:
    """Otherwise whoever moves its window keeps all that it ever looked at."""
    author, replica = Author(1), opened(store)
    give(replica, *(author.write([Operation(PUT, f"b{number}", {"team": "blue"})]) for number in range(5)))
    give(replica, author.write([Operation(PUT, "r", {"team": "red"})]))
    replica.unwanted.kept_elsewhere(6)
    replica.choose(Query.parse("team=red"))
    assert drop(replica).entries == 5
    assert shown(replica) == {"r": {"team": "red"}}
    replica.choose(None)
    assert len(replica.wanted_places(9)) == 5
    assert drop(replica) == Dropped()


def test_what_is_not_wanted_rests_for_a_while(store: Store) -> None:
    """Otherwise a document that wanders in and out comes over the link each time, and nodes fetch in turns for ever."""
    author, replica = Author(1), opened(store)
    give(replica, author.write([Operation(PUT, "d", {"team": "red"})]))
    replica.unwanted.kept_elsewhere(2)
    assert replica.unwanted.due(100.0) == 100.0 + LIMITS.unwanted_seconds
    assert replica.unwanted.step(159.0) == Dropped()
    give(replica, author.write([Operation(PATCH, "d", {"team": "blue"})]))
    assert replica.unwanted.step(161.0) == Dropped()
    assert shown(replica) == {"d": {"team": "blue"}}


def test_what_is_on_its_way_keeps_what_came_with_it(store: Store) -> None:
    """Otherwise documents that entries tie together are fetched and dropped by turns, each bringing up the others."""
    author, replica = Author(1), opened(store)
    both = author.write([Operation(PUT, "a", {"n": 1}), Operation(PUT, "b", {"n": 1})])
    rest = [author.write([Operation(PATCH, "b", {"n": number})]) for number in (2, 3)]
    apply(replica, *batch_of([both, *rest], bare=rest))
    replica.unwanted.kept_elsewhere(4)
    look(replica, 1)
    assert payloads(replica) == {1}
    assert replica.fill_payload(author.log, 2, rest[0].payload) is not None
    look(replica, 2)
    assert payloads(replica) == {1, 2}
    assert replica.fill_payload(author.log, 3, rest[1].payload) is not None
    look(replica, 3)
    assert payloads(replica) == set()


def test_what_nobody_sends_keeps_nothing(store: Store) -> None:
    """Otherwise a peer that keeps one payload back has all that it sends besides stay for ever."""
    author, replica = Author(1), opened(store)
    both = author.write([Operation(PUT, "a", {"n": 1}), Operation(PUT, "b", {"n": 1})])
    rest = author.write([Operation(PATCH, "b", {"n": 2})])
    apply(replica, *batch_of([both, rest], bare=[rest]))
    replica.unwanted.kept_elsewhere(3)
    assert drop(replica).entries == 1
    assert payloads(replica) == set()


def test_whole_nodes_drop_nothing(store: Store) -> None:
    """Otherwise nobody has what everybody takes to be there."""
    author, replica = Author(1), opened(store, None)
    give(replica, author.write([Operation(PUT, "d", {"team": "red"})]))
    replica.unwanted.kept_elsewhere(2)
    replica.unwanted.note("d")
    assert replica.unwanted.due(0.0) is None
    assert replica.unwanted.step(9e9) == Dropped()
    assert replica.complete


def test_a_document_that_was_deleted_says_so_after_it_was_dropped(store: Store) -> None:
    """Otherwise a reader that comes back is told that it left the part, and takes it to be somewhere."""
    author, replica = Author(1), opened(store)
    give(replica, author.write([Operation(PUT, "d", {"team": "blue"}), Operation(PUT, "e", {"team": "blue"})]))
    give(replica, author.write([Operation(DELETE, "d"), Operation(PATCH, "e", {"team": "red"})]))
    replica.unwanted.kept_elsewhere(3)
    assert drop(replica).entries == 2
    rows = replica.tables.documents(["d", "e"])
    assert [is_husk(row.state) for row in rows.values()] == [True, True]
    assert (was_deleted(rows["d"]), was_deleted(rows["e"])) == (True, False)


@pytest.mark.parametrize("seed", range(12))
def test_documents_are_what_the_payloads_that_are_left_make_them(store: Store, seed: int) -> None:
    """Otherwise a document that is wanted later is another one here than elsewhere."""
    rng = random.Random(seed)
    replica = Replica(
        store, store.collection(COLLECTION, "notes"), Author(9).key, replace(LIMITS, part_slice_documents=3)
    )
    authors = [Author(number) for number in range(1, 4)]
    made: list[Made] = []
    for number in range(60):
        choice = rng.randrange(12)
        if choice < 8:
            ids = rng.sample("abcdefgh", rng.choice((1, 1, 1, 2)))
            kinds = [rng.choice((PUT, PATCH, PATCH, DELETE)) for _ in ids]
            fields = {"team": rng.choice(("blue", "red")), "n": rng.randrange(9)}
            operations = [
                Operation(kind, id, None if kind == DELETE else fields) for kind, id in zip(kinds, ids, strict=True)
            ]
            author = rng.choice(authors)
            others = [entry for entry in made if entry.log != author.log]
            made.append(author.write(operations, rng.sample(others, min(len(others), rng.randrange(2)))))
            give(replica, made[-1])
        elif choice < 9:
            replica.append([Operation(PATCH, rng.choice("abcdefgh"), {"own": 1})], START_MS)
        elif choice < 10:
            replica.choose(Query.parse(rng.choice(("team=blue", "team=red", "n>4"))))
        elif choice < 11:
            replica.unwanted.kept_elsewhere(replica.tables.next_arrival() - rng.randrange(3))
        elif replica.interest is not None:
            replica.interest.step()
            replica.unwanted.step(1000.0 * number)
        check_documents(replica)
    while replica.interest is not None and not replica.is_settled:
        replica.interest.step()
    replica.unwanted.kept_elsewhere(replica.tables.next_arrival())
    drop(replica)
    check_documents(replica)
    replica.choose(None)
    by_id = {entry.id: entry for entry in made}
    for row in list(replica.scan_entries()):
        if row.payload is None:
            assert replica.fill_payload(replica.branches[row.branch].log, row.seq, by_id[row.id].payload) is not None
    assert replica.complete
    check_documents(replica)
    assert list(store.verify()) == []


def check_documents(replica: Replica) -> None:
    writes: dict[str, list[Write]] = {}
    for row in replica.scan_entries():
        author = bytes(replica.branches[row.branch].log.author)
        for kind, id, *rest in cbor.decode_trusted(row.payload) if row.payload is not None else ():
            writes.setdefault(id, []).append(((row.hlc, author, row.id), kind, rest[0] if rest else None))
    expected = {id: body for id, found in writes.items() if (body := document_of(found)) is not None}
    rows = scan_documents(replica.tables)
    assert {row.id: replica.merger.body(row, payload) for row, payload in rows} == expected
    assert replica.tables.counts()[1] == len(expected)
