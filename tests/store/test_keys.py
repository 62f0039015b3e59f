"""The keys of declared indexes, in every store."""

from __future__ import annotations

import contextlib

from meshsync.errors import StoreError
from meshsync.store.base import CollectionTables, Store
from meshsync.store.keys import IndexRow, KeyRow
from tests.store.rows import PLACES, document, places

TEAM = IndexRow(1, "team", "ready", "")
EVERYTHING = (b"", b"\xff")


def filled(store: Store) -> CollectionTables:
    """Five documents under three keys, in two indexes."""
    tables = places(store)
    with store.transaction():
        tables.keys.set_row(TEAM)
        tables.keys.set_row(IndexRow(2, "age", "building", "c"))
        tables.keys.put(
            [(1, "a", b"x"), (1, "b", b"y"), (1, "é", b"x"), (1, "c", b"z"), (1, "d", b"y"), (2, "a", b"1")]
        )
    return tables


def test_indexes_are_kept_by_number(store: Store) -> None:
    """A restart would lose them, or go on building at the wrong document."""
    keys = filled(store).keys
    assert keys.rows() == [TEAM, IndexRow(2, "age", "building", "c")]
    with store.transaction():
        keys.set_row(IndexRow(2, "age", "ready", ""))
        keys.remove_row(1)
    assert keys.rows() == [IndexRow(2, "age", "ready", "")]


def test_pages_are_in_the_order_of_keys_and_ids(store: Store) -> None:
    """A listing would jump back and forth between its pages."""
    keys = filled(store).keys
    ordered = [KeyRow(b"x", "a"), KeyRow(b"x", "é"), KeyRow(b"y", "b"), KeyRow(b"y", "d"), KeyRow(b"z", "c")]
    for size in (1, 2, 5, 9):
        for reverse in (False, True):
            found: list[KeyRow] = []
            while page := keys.page(1, *EVERYTHING, found[-1] if found else None, size, reverse=reverse):
                assert len(page) <= size
                found += page
            assert found == (ordered[::-1] if reverse else ordered)
    assert keys.page(1, b"y", b"z", None, 9) == ordered[2:4]
    assert keys.page(1, b"y", b"z", None, 9, reverse=True) == ordered[2:4][::-1]
    assert keys.page(1, b"x", b"z", KeyRow(b"x", "é"), 9) == ordered[2:4]
    assert keys.page(1, b"x", b"z", KeyRow(b"y", "b"), 9, reverse=True) == ordered[:2][::-1]
    assert keys.page(1, b"y", b"y\0", KeyRow(b"y", "bb"), 9) == ordered[3:4]
    assert keys.page(3, *EVERYTHING, None, 9) == []


def test_keys_are_counted_no_further_than_asked(store: Store) -> None:
    """To plan a query would take as long as to run it."""
    keys = filled(store).keys
    assert [keys.count(1, *EVERYTHING, limit) for limit in (0, 2, 99)] == [0, 2, 5]
    assert keys.count(1, b"y", b"y\0", 99) == 2
    assert keys.count(1, b"zz", b"\xff", 99) == 0


def test_a_document_has_one_key_in_an_index(store: Store) -> None:
    """It would be listed under what it held before."""
    tables = filled(store)
    with store.transaction():
        tables.keys.put([(1, "a", b"z"), (1, "b", b"y")])
    assert tables.keys.by_id(1, "", 9) == [
        KeyRow(b"z", "a"),
        KeyRow(b"y", "b"),
        KeyRow(b"z", "c"),
        KeyRow(b"y", "d"),
        KeyRow(b"x", "é"),
    ]
    assert tables.keys.by_id(1, "b", 2) == [KeyRow(b"z", "c"), KeyRow(b"y", "d")]


def test_forgotten_documents_are_in_no_index(store: Store) -> None:
    """A deleted document would be found, and a document that is made anew be there twice."""
    tables = filled(store)
    with store.transaction():
        tables.keys.forget([b"a", "é".encode(), b"unknown"])
        tables.put_documents([document("b", 1)], 1)
        tables.forget_documents([b"b"])
    assert [row.id for row in tables.keys.by_id(1, "", 9)] == ["c", "d"]
    assert tables.keys.by_id(2, "", 9) == []


def test_an_index_is_cleared_in_steps(store: Store) -> None:
    """To drop the index of a million documents would hold up everything else."""
    keys = filled(store).keys
    done = []
    for _ in range(3):
        with store.transaction():
            done.append(keys.clear(1, 2))
    assert done == [False, False, True]
    assert keys.count(1, *EVERYTHING, 9) == 0
    assert keys.count(2, *EVERYTHING, 9) == 1


def test_a_transaction_that_fails_changes_no_index(store: Store) -> None:
    """Documents and indexes would come apart."""
    keys = filled(store).keys
    rows, by_id = keys.rows(), keys.by_id(1, "", 9)
    with contextlib.suppress(StoreError), store.transaction():
        keys.put([(1, "a", b"q"), (1, "new", b"q")])
        keys.forget([b"b"])
        keys.clear(2, 9)
        keys.remove_row(2)
        keys.set_row(TEAM._replace(state="dropping"))
        raise StoreError("the disk is full")
    assert keys.rows() == rows
    assert keys.by_id(1, "", 9) == by_id
    assert keys.page(1, *EVERYTHING, None, 9) == sorted(by_id)
    assert keys.count(2, *EVERYTHING, 9) == 1


def test_indexes_go_with_their_collection(store: Store) -> None:
    """A collection that is joined anew would begin with the keys of documents that it does not have."""
    filled(store)
    store.drop_collection(PLACES)
    assert places(store).keys.rows() == []
    assert places(store).keys.by_id(1, "", 9) == []
