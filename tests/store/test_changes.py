"""What is kept for the followers of a part, in every store."""

from __future__ import annotations

from contextlib import suppress

from meshsync.core.entry import PUT, Operation
from meshsync.core.query import Query
from meshsync.errors import StoreError
from meshsync.store.base import Store
from meshsync.store.changes import ChangeRow
from meshsync.store.part_changes import stays_of
from meshsync.store.replica import Replica
from tests.authors import COLLECTION, START_MS, Author
from tests.store.rows import places


def test_changes_of_a_part_are_read_by_number_and_kept_once_a_document(store: Store) -> None:
    """Otherwise a follower is told what is not so any more, or in an order that its cursor does not name."""
    changes = places(store).changes
    assert (changes.last(), changes.after(0, 9), changes.rows(["a"])) == (0, [], {})
    rows = [ChangeRow(id, number, 0, b"stays") for id, number in [("a", 1), ("z", 0), ("b", 2), ("c", 3), ("y", 0)]]
    with store.transaction():
        changes.put(rows)
        changes.put([rows[0]._replace(number=4, late=4, stays=b"more")])
    assert changes.last() == 4
    assert [(row.id, row.number) for row in changes.after(0, 9)] == [("b", 2), ("c", 3), ("a", 4)]
    assert [row.id for row in changes.after(2, 1)] == ["c"]
    assert changes.rows(["a", "z", "none"]) == {"a": ChangeRow("a", 4, 4, b"more"), "z": rows[1]}
    with suppress(StoreError), store.transaction():
        changes.put([ChangeRow("b", 5, 0, b"lost"), ChangeRow("z", 6, 0, b"lost"), ChangeRow("new", 7, 0, b"lost")])
        raise StoreError("the disk is full")
    assert [row.id for row in changes.after(0, 9)] == ["b", "c", "a"]
    assert changes.rows(["z", "new"]) == {"z": rows[1]}
    with suppress(StoreError), store.transaction():
        changes.clear()
        raise StoreError("the disk is full")
    assert [row.id for row in changes.after(0, 9)] == ["b", "c", "a"]
    with store.transaction():
        changes.clear()
    assert (changes.last(), changes.after(-1, 9), changes.rows(["a"])) == (0, [], {})


def test_steady_use_does_not_make_what_is_kept_grow(store: Store) -> None:
    """Otherwise a node with a part fills its disk with changes that nobody asks for any more."""
    notes = Replica(store, store.collection(COLLECTION, "notes"), Author(99).key)
    notes.choose(Query.parse("team=blue"))
    notes.part_changes.begin()
    for turn in range(60):
        team = "blue" if turn % 3 else "red"
        notes.append([Operation(PUT, f"d{number}", {"team": team, "n": turn}) for number in range(5)], START_MS)
        rows = notes.tables.changes.after(0, 1000)
        assert len(rows) == (5 if turn else 0)
        assert all(len(stays_of(row)) < 18 for row in rows)
    assert notes.part_changes.last() > 5 * 50
