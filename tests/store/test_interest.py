"""The part of a collection that a node wants, over every store."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from meshsync.core.entry import DELETE, PATCH, PUT, Operation, document_tag
from meshsync.core.limits import LIMITS
from meshsync.core.query import Query
from meshsync.store.base import Store
from meshsync.store.listing import Listing
from meshsync.store.memory_tables import MemoryTables
from meshsync.store.part_changes import is_shown
from meshsync.store.replica import Replica
from meshsync.store.rows import EntryRow
from tests.authors import COLLECTION, START_MS, Author, Made, batch_of
from tests.replicas import apply, new_replica
from tests.store.rows import scan_documents

BLUE = Query.parse("team=blue")


def opened(store: Store) -> Replica:
    replica = Replica(store, store.collection(COLLECTION, "notes"), Author(9).key)
    replica.choose(BLUE)
    return replica


def test_what_is_lacking_of_the_part_is_known_again_after_a_restart(store: Store) -> None:
    """Otherwise a document that stopped matching while the process was down is shown for ever."""
    author = Author(1)
    blue = author.write([Operation(PUT, "d", {"team": "blue"})])
    red = author.write([Operation(PATCH, "d", {"team": "red"})])
    other = author.write([Operation(PUT, "e", {"team": "red"})])
    before = opened(store)
    apply(before, *batch_of([blue]))
    apply(before, *batch_of([red, other], bare=[red, other]))
    replica = opened(store)
    assert replica.interest is not None
    assert "d" in replica.interest
    assert replica.wanted_places(9) == [(author.log, 2)]
    applied = replica.fill_payload(author.log, 2, red.payload)
    assert applied is not None
    assert applied.filled == [2]
    assert "d" not in replica.interest
    assert replica.is_satisfied
    assert not replica.complete


def test_the_index_made_anew_names_what_lacks_its_payload(store: Store) -> None:
    """Otherwise after a repair the past of a document that begins to match is not asked for."""
    author = Author(1)
    first = author.write([Operation(PUT, "d", {"n": 1})])
    second = author.write([Operation(PATCH, "d", {"team": "blue"})])
    apply(opened(store), *batch_of([first], bare=[first]))
    store.rebuild_indexes()
    replica = opened(store)
    apply(replica, *batch_of([second]))
    assert replica.wanted_places(9) == [(author.log, 1)]
    assert list(store.verify()) == []


@pytest.mark.parametrize("is_followed", [False, True])
@pytest.mark.parametrize("blue", ["first", "last"])
def test_a_long_past_is_looked_through_once_and_not_with_each_payload_of_it(
    blue: str, is_followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a document that was written ten thousand times keeps a node from all else for minutes."""
    looks = 0

    def entry(tables: MemoryTables, arrival: int) -> EntryRow | None:
        nonlocal looks
        looks += 1
        return read(tables, arrival)

    read, count = MemoryTables.entry, 200
    monkeypatch.setattr(MemoryTables, "entry", entry)
    author, replica = Author(1), new_replica()
    replica.choose(BLUE)
    interest = replica.interest
    assert interest is not None
    if is_followed:
        replica.part_changes.begin()
    writes = [author.write([Operation(PATCH, "d", {"n": number})]) for number in range(count)]
    turn = author.write([Operation(PATCH, "d", {"team": "blue"})])
    for start in range(0, count, 50):
        apply(replica, *batch_of(writes[start : start + 50], bare=writes[start : start + 50]))
    apply(replica, *batch_of([turn], bare=[turn] if blue == "last" else []))
    if blue == "last":
        interest.named([document_tag(replica.id, "d")])
    looks = 0
    while not replica.is_satisfied:
        assert "d" not in interest
        for log, seq in replica.wanted_places(50):
            assert replica.fill_payload(log, seq, [*writes, turn][seq - 1].payload) is not None
    assert "d" in interest
    assert looks < 12 * count


class Walk:
    """A replica that wants one part after the other, and a reader of what is told about it."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self.rng = rng
        limits = replace(LIMITS, part_slice_documents=rng.choice((1, 2, 5)))
        self.replica = Replica(store, store.collection(COLLECTION, "notes"), Author(9).key, limits)
        self.told: set[str] | None = None
        """What the reader takes to be in the part; None: it has yet to begin."""
        self.number = 0

    def step(self) -> None:
        """A write, another wish, an index more or less, or a little of the work."""
        rng, replica = self.rng, self.replica
        choice = rng.randrange(10)
        if choice < 4:
            kind = rng.choice((PUT, PUT, PATCH, DELETE))
            body = None if kind == DELETE else {"team": rng.choice("abc"), "n": rng.randrange(4)}
            replica.append([Operation(kind, f"d{rng.randrange(30)}", body)], START_MS)
        elif choice < 6:
            replica.choose(Query.parse(rng.choice(("team=a", "team=b", "n>1", "team=a and n=2", "id>d2"))))
        elif choice < 7:
            (replica.indexes.add if rng.randrange(2) else replica.indexes.remove)(rng.choice(("team", "n")))
            while not replica.indexes.step():
                pass
        elif replica.interest is not None:
            replica.interest.step()

    def check(self) -> None:
        """What is shown is right at any time, and the reader knows of every change once all was looked at."""
        replica, interest = self.replica, self.replica.interest
        if interest is None:
            return
        shown = {
            row.id
            for row, payload in scan_documents(replica.tables)
            if interest.query.matches(replica.merger.body(row, payload) or {}, row.id)
        }
        id = f"d{self.rng.randrange(30)}"
        assert (id in interest) is (id in shown)
        assert {selected.document.row.id for selected in Listing(replica, Query())} == shown
        if interest.is_settled:
            assert set(interest) == shown
        changes = replica.part_changes
        if self.told is None:
            changes.begin()
            self.told, self.number = shown, changes.last()
        if self.rng.randrange(2):
            while not changes.step():
                pass
            for row in changes.after(self.number, 99):
                self.number = row.number
                (self.told.add if is_shown(row) else self.told.discard)(row.id)
            assert self.told == shown


@pytest.mark.parametrize("seed", range(20))
def test_what_is_shown_is_right_while_documents_are_looked_through(store: Store, seed: int) -> None:
    """Otherwise a large collection shows too little, or what is not wanted any more, for as long as that takes."""
    walk = Walk(store, random.Random(seed))
    for _ in range(150):
        walk.step()
        walk.check()
    while not walk.replica.is_settled:
        assert walk.replica.interest is not None
        walk.replica.interest.step()
        walk.check()


def test_nothing_is_satisfied_before_all_documents_were_looked_at(store: Store) -> None:
    """Otherwise a node says that it is in sync, and then finds that payloads are lacking."""
    author = Author(1)
    entries = [author.write([Operation(PUT, f"d{number}", {"team": "red"})]) for number in range(9)]
    blue = author.write([Operation(PUT, "e", {"team": "blue"})])
    later = author.write([Operation(PATCH, "e", {"n": 1})])
    limits = replace(LIMITS, part_slice_documents=2)
    replica = Replica(store, store.collection(COLLECTION, "notes"), Author(9).key, limits)
    apply(replica, *batch_of([*entries, blue, later], bare=[later]))
    replica.choose(BLUE)
    assert replica.interest is not None
    assert not replica.is_satisfied
    assert replica.shortage is not None
    assert "looked through" in replica.shortage
    assert "e" in replica.interest
    while not replica.interest.step():
        assert not replica.is_satisfied
    assert replica.wanted_places(9) == [(author.log, 11)]
    assert replica.fill_payload(author.log, 11, later.payload) is not None
    assert replica.is_satisfied


def test_an_index_leads_to_the_part(store: Store) -> None:
    """Otherwise opening a small part of a large collection reads all of it."""
    author = Author(1)
    limits = replace(LIMITS, part_slice_documents=4)
    replica = Replica(store, store.collection(COLLECTION, "notes"), Author(9).key, limits)
    entries = [author.write([Operation(PUT, f"d{number:03}", {"team": "red"})]) for number in range(200)]
    apply(replica, *batch_of([*entries, author.write([Operation(PUT, "e", {"team": "blue"})])]))
    replica.indexes.add("team")
    while not replica.indexes.step():
        pass
    replica.choose(BLUE)
    assert replica.interest is not None
    assert replica.is_settled
    assert set(replica.interest) == {"e"}


def whole_at(store: Store) -> tuple[Replica, Author, list[Made]]:
    """A part in which a patch makes a document match of which two writes are lacking."""
    author = Author(1)
    first = author.write([Operation(PUT, "d", {"n": 1})])
    second = author.write([Operation(PATCH, "d", {"m": 2})])
    third = author.write([Operation(PATCH, "d", {"team": "blue"})])
    replica = opened(store)
    apply(replica, *batch_of([first, second, third], bare=[first, second]))
    return replica, author, [first, second, third]


def listed(replica: Replica) -> dict[str, dict[str, Any]]:
    return {one.document.row.id: one.body for one in Listing(replica, Query())}


@pytest.mark.parametrize("is_followed", [False, True])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_document_enters_the_view_whole(store: Store, order: tuple[int, int], *, is_followed: bool) -> None:
    """Otherwise a document that begins to match is shown with fields missing until its past has come."""
    if is_followed:
        opened(store).part_changes.begin()
    replica, author, entries = whole_at(store)
    assert replica.interest is not None
    for number in order:
        assert "d" not in replica.interest
        assert len(replica.interest) == replica.document_count() == 0
        assert list(replica.interest) == []
        assert listed(replica) == {}
        assert replica.part_changes.last() == 0
        assert not replica.is_satisfied
        replica = opened(store)
        assert replica.interest is not None
        assert listed(replica) == {}
        assert replica.fill_payload(author.log, number + 1, entries[number].payload) is not None
    assert listed(replica) == {"d": {"n": 1, "m": 2, "team": "blue"}}
    assert replica.interest is not None
    assert set(replica.interest) == {"d"}
    assert len(replica.interest) == 1
    assert [row.id for row in replica.part_changes.after(0, 9)] == ["d"] * is_followed


def test_what_is_held_back_when_somebody_begins_to_follow_is_told_once_it_is_whole(store: Store) -> None:
    """Otherwise whoever follows is not told of it, as if it had been shown from the beginning."""
    replica, author, entries = whole_at(store)
    replica.part_changes.begin()
    replica.fill_payload(author.log, 1, entries[0].payload)
    assert replica.part_changes.after(0, 9) == []
    replica.fill_payload(author.log, 2, entries[1].payload)
    assert [(row.id, is_shown(row)) for row in replica.part_changes.after(0, 9)] == [("d", True)]


@pytest.mark.parametrize("is_followed", [False, True])
def test_what_is_superseded_is_not_waited_for(store: Store, *, is_followed: bool) -> None:
    """Otherwise a document that is here whole is never shown, as nobody sends what it does not need."""
    if is_followed:
        opened(store).part_changes.begin()
    replica, author, entries = whole_at(store)
    replica.fill_payload(author.log, 1, entries[0].payload)
    assert listed(replica) == {}
    assert replica.superseded.told(author.log, 2, entries[1].id) is not None
    assert listed(replica) == {"d": {"n": 1, "team": "blue"}}
    assert [(row.id, is_shown(row)) for row in replica.part_changes.after(0, 9)] == [("d", True)] * is_followed


@pytest.mark.parametrize("is_followed", [False, True])
def test_what_is_shown_stays_as_it_stands_until_a_payload_comes(store: Store, *, is_followed: bool) -> None:
    """Otherwise a document vanishes whenever somebody writes to it, and for good where the payload is lost."""
    author, other = Author(1), Author(2)
    first = author.write([Operation(PUT, "d", {"team": "blue"})])
    second = author.write([Operation(PATCH, "d", {"m": 2})])
    third = other.write([Operation(PATCH, "d", {"n": 1})], [second])
    replica = opened(store)
    if is_followed:
        replica.part_changes.begin()
    apply(replica, *batch_of([first]))
    apply(replica, *batch_of([second], bare=[second]))
    assert listed(replica) == {"d": {"team": "blue"}}
    replica = opened(store)
    assert listed(replica) == {"d": {"team": "blue"}}
    apply(replica, *batch_of([third]))
    assert listed(replica) == {"d": {"n": 1, "team": "blue"}}
    replica.choose(Query.parse("n=1"))
    assert listed(replica) == {"d": {"n": 1, "team": "blue"}}
    assert all(is_shown(row) for row in replica.part_changes.after(0, 9))


def test_a_put_needs_nothing_of_what_was_before(store: Store) -> None:
    """Otherwise what this node writes is not shown to who wrote it until somebody sends the past."""
    author = Author(1)
    first = author.write([Operation(PUT, "d", {"n": 1})])
    replica = opened(store)
    apply(replica, *batch_of([first], bare=[first]))
    replica.append([Operation(PUT, "d", {"team": "blue"})], START_MS)
    assert listed(replica) == {"d": {"team": "blue"}}
    replica.append([Operation(PATCH, "d", {"n": 2})], START_MS)
    replica.choose(Query.parse("n=2"))
    assert listed(replica) == {"d": {"n": 2, "team": "blue"}}
