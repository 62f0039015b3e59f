"""What is kept for the followers of a part, in every store."""

from __future__ import annotations

from contextlib import suppress

from meshsync.errors import StoreError
from meshsync.store.base import Store
from meshsync.store.changes import ChangeRow
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
