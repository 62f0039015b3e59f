"""What every store does, whatever it is made of: cursors, transactions, small things."""

# ruff: noqa: PT012 -- what fails is the transaction with all that is in it.

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshsync.errors import LocalError, StoreError
from meshsync.store.base import Store
from meshsync.store.rows import CursorRow, PeerRow
from tests.store.rows import AUTHOR, PLACES, document, entry, fill, places, scan_documents


class Oops(Exception):
    """What a test raises inside a transaction."""


# Cursors


def test_cursor_moves_with_the_batch_or_not_at_all(store: Store) -> None:
    """A cursor saved apart from its batch skips entries, or asks for them again."""
    tables = fill(store, 1)
    with store.transaction():
        tables.set_cursor(b"peer", CursorRow(b"epoch...", 2, 1))
    with pytest.raises(Oops), store.transaction():
        tables.insert_entries([entry(2)])
        tables.set_cursor(b"peer", CursorRow(b"epoch...", 3, 2))
        tables.set_cursor(b"else", CursorRow(b"epoch...", 3, 2))
        raise Oops
    assert tables.cursor(b"peer") == CursorRow(b"epoch...", 2, 1)
    assert tables.cursor(b"else") is None
    assert tables.next_arrival() == 2


# Transactions


def test_failed_transaction_leaves_nothing(store: Store) -> None:
    """Otherwise half a batch would be stored, and a document would differ from its entries."""
    tables = fill(store, 3)
    with store.transaction():
        tables.insert_entries([entry(4, payload=None)])
    before = (tables.branches(), tables.entries_from(1, 99), tables.documents(["d000001", "x"]), tables.counts())
    with pytest.raises(Oops), store.transaction():
        branch = tables.add_branch(AUTHOR, b"j" * 8, None, 1)
        tables.insert_entries([entry(5), entry(6, branch, 1, payload=None, parents=b"p")])
        tables.set_covered([(1, 3)])
        tables.rewrite_entry(entry(1)._replace(seal=b"s" * 64))
        tables.rewrite_entry(entry(4)._replace(payload=b"here", bare=None))
        tables.put_documents([document("x", 5), document("d000001", 5, live=False), document("x", 6)], 0)
        store.set_meta("key", b"value")
        store.put_peer(PeerRow(b"p" * 32, "pending", "", "", 0.0))
        raise Oops
    after = (tables.branches(), tables.entries_from(1, 99), tables.documents(["d000001", "x"]), tables.counts())
    assert after == before
    assert [found.row.id for found in scan_documents(tables)] == ["d000001", "d000002", "d000003"]
    assert tables.merges_before(1, 99, 9) == []
    assert tables.bare_entries(9) == [entry(4, payload=None)]
    assert store.meta("key") is None
    assert store.peers() == []


def test_store_works_after_a_failed_transaction(store: Store) -> None:
    """Otherwise one bad batch would stop a node."""
    tables = fill(store, 1)
    with pytest.raises(StoreError), store.transaction():
        tables.insert_entries([entry(2, 1, 1)])
    fill(store, 1)
    assert tables.counts() == (2, 2, 0)


def test_transactions_do_not_nest(store: Store) -> None:
    """Otherwise the inner one would commit half of the outer one."""
    tables = places(store)
    with pytest.raises(LocalError, match="nest"), store.transaction():
        tables.insert_entries([entry(1)])
        with store.transaction():
            pass
    assert tables.next_arrival() == 1


def test_tables_are_written_in_transactions_only(store: Store) -> None:
    """Otherwise a cursor would be stored without its batch, because someone forgot."""
    tables = fill(store, 1)
    writes: list[Callable[[], None]] = [
        lambda: tables.insert_entries([entry(2)]),
        lambda: tables.put_documents([document("a", 1)], 1),
        lambda: tables.set_cursor(b"peer", CursorRow(b"epoch...", 1, 1)),
        lambda: tables.set_covered([(1, 1)]),
        lambda: tables.rewrite_entry(entry(1)),
    ]
    for write in writes:
        with pytest.raises(LocalError, match="transaction"):
            write()
    assert tables.counts() == (1, 1, 0)


# Small things


def test_meta_is_kept_and_forgotten(store: Store) -> None:
    """Subscriptions and settings live there."""
    assert store.meta("key") is None
    store.set_meta("key", b"value")
    store.set_meta("key", b"other")
    assert store.meta("key") == b"other"
    store.set_meta("key", None)
    store.set_meta("key", None)
    assert store.meta("key") is None


def test_peers_are_kept_and_forgotten(store: Store) -> None:
    """Otherwise trust would have to be given again after each start."""
    first = PeerRow(b"a" * 32, "accepted", "ada", "192.0.2.1:4433", 1.5)
    second = PeerRow(b"b" * 32, "pending", "", "", 2.0)
    store.put_peer(second)
    store.put_peer(first._replace(trust="pending"))
    store.put_peer(first)
    assert store.peers() == [first, second]
    assert store.forget_peer(first.id)
    assert not store.forget_peer(first.id)
    assert store.peers() == [second]


def test_incarnation_stays_while_a_process_runs(store: Store) -> None:
    """Otherwise each write would begin a log."""
    places(store)
    first = store.incarnation(PLACES)
    assert len(first) == 8
    assert store.incarnation(PLACES) == first
    renewed = store.renew_incarnation(PLACES)
    assert renewed != first
    assert store.incarnation(PLACES) == renewed


def test_incarnation_is_taken_outside_transactions(store: Store) -> None:
    """Inside one the mark could be rolled back after the log was begun."""
    places(store)
    with pytest.raises(LocalError, match="transaction"), store.transaction():
        store.incarnation(PLACES)


async def test_synced_returns(store: Store) -> None:
    """With and without something to sync; otherwise a put with full durability would hang."""
    await store.synced()
    fill(store, 10)
    await store.synced()
    await store.synced()


def test_sound_store_has_no_faults(store: Store) -> None:
    """Otherwise `verify` would cry wolf."""
    fill(store, 100)
    assert list(store.verify()) == []


def test_size_grows(store: Store) -> None:
    """Otherwise `status` would show nothing of use."""
    before = store.size_bytes()
    fill(store, 500)
    assert store.size_bytes() > before


def test_closed_store_refuses(store: Store) -> None:
    """Otherwise a late task would write behind the clean end."""
    tables = places(store)
    store.close()
    store.close()
    with pytest.raises(LocalError, match="closed"), store.transaction():
        tables.insert_entries([entry(1)])
