"""Cursors of readers who were told of what a power cut took from their node."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.entry import PUT, Operation
from meshsync.core.query import Query
from meshsync.errors import CursorLostError
from meshsync.following import cursor_now, follow
from meshsync.ids import CollectionId
from meshsync.notifier import Notifier
from meshsync.store.base import Store
from meshsync.store.memory import MemoryStore
from meshsync.store.replica import Replica
from meshsync.store.sqlite import SqliteStore
from tests.authors import START_MS, Author
from tests.readers import Reader
from tests.replicas import give, put
from tests.store.rows import scan_documents
from tests.test_collection import Notes

PARTS = pytest.mark.parametrize("part", [None, Query.parse("n>=0")], ids=["whole", "part"])


def opened(store: Store, part: Query | None) -> Replica:
    """A process starts."""
    replica = Notes(store).replica
    replica.choose(part)
    return replica


def shown_in(replica: Replica) -> set[str]:
    """What a listing shows."""
    return {document.row.id for document in scan_documents(replica.tables)}


@PARTS
def test_numbers_that_were_lost_and_given_out_again_are_no_cursors(part: Query | None) -> None:
    """Otherwise a reader never hears of the change that took the number of one that it was told of, and lost."""
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    replica, reader = opened(store, part), Reader(None)
    put(replica, "kept")
    reader.read(replica)
    store.sync_now()
    put(replica, "lost")
    reader.read(replica)
    replica = opened(store.crash(), part)
    put(replica, "other")
    put(replica, "another")
    with pytest.raises(CursorLostError, match=r"lost in part, in a power cut.*begin anew"):
        follow(replica, Notifier(), None, reader.cursor)
    reader.read(replica)
    reader.read(replica)
    assert reader.has.keys() == {"kept", "other", "another"}


@PARTS
def test_readers_of_what_is_left_go_on(part: Query | None) -> None:
    """Otherwise every reader would have to fetch all there is after every power cut."""
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    replica, reader = opened(store, part), Reader(None)
    for number in range(5):
        put(replica, f"kept{number}")
        reader.read(replica)
        store.sync_now()
        put(replica, "lost")
        replica = opened(store := store.crash(), part)
    put(replica, "last")
    assert [change.id for change in reader.read(replica)] == ["last"]
    assert reader.has.keys() == shown_in(replica)


def test_an_entry_that_came_again_behind_another_is_no_proof() -> None:
    """Otherwise a reader whose last entry stands where it stood misses the one that came before it this time."""
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    replica, reader = opened(store, None), Reader(None)
    lost, other, again = (Author(number).write([Operation(PUT, f"d{number}", {})]) for number in range(1, 4))
    give(replica, lost)
    give(replica, again)
    reader.read(replica)
    replica = opened(store.crash(), None)
    give(replica, other)
    give(replica, again)
    reader.read(replica)
    reader.read(replica)
    assert reader.has.keys() == shown_in(replica) == {"d2", "d3"}


def test_a_cursor_inside_of_a_lost_entry_is_refused() -> None:
    """Otherwise the first operations of the entry that comes in its place are never told."""
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    replica, reader = opened(store, None), Reader(None)
    replica.append([Operation(PUT, "a", {}), Operation(PUT, "b", {})], START_MS)
    reader.read(replica, 1)
    replica = opened(store.crash(), None)
    replica.append([Operation(PUT, "c", {}), Operation(PUT, "d", {})], START_MS)
    with pytest.raises(CursorLostError, match="lost in part"):
        follow(replica, Notifier(), None, reader.cursor)


def test_a_part_that_is_kept_anew_is_another_one() -> None:
    """Nothing is numbered before the first change: so a cursor from before it says only since when changes are kept."""
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    replica = opened(store, Query.parse("n<5"))
    put(replica, "low", 1)
    put(replica, "high", 9)
    store.sync_now()
    cursor = cursor_now(replica)
    replica = opened(store.crash(), Query.parse("n>=5"))
    cursor_now(replica)
    with pytest.raises(CursorLostError, match="lost in part"):
        follow(replica, Notifier(), None, cursor)


@PARTS
def test_a_life_that_began_on_a_full_disk_is_known_with_its_first_entry(part: Query | None) -> None:
    """Otherwise a process that goes on when there is room again takes the numbers of before the power cut for good."""
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    replica, reader, early = opened(store, part), Reader(None), Reader(None)
    put(replica, "kept")
    early.read(replica)
    store.sync_now()
    put(replica, "lost")
    reader.read(replica)
    store = store.crash()
    store.broken = "disk full"
    replica = opened(store, part)
    between = cursor_now(replica)
    store.broken = ""
    put(replica, "other")
    put(replica, "another")
    replica = opened(store.kill(), part)
    with pytest.raises(CursorLostError, match="lost in part"):
        follow(replica, Notifier(), None, reader.cursor)
    follow(replica, Notifier(), None, between)
    early.read(replica)
    assert early.has.keys() == {"kept", "other", "another"}


@PARTS
def test_a_collection_that_was_dropped_is_another_one(part: Query | None) -> None:
    """It counts from 1 again, and soon as far as before."""
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    replica, reader = opened(store, part), Reader(None)
    put(replica, "dropped")
    reader.read(replica)
    store.drop_collection(replica.id)
    replica = opened(store, part)
    for number in range(3):
        put(replica, f"new{number}")
    with pytest.raises(CursorLostError, match="begin anew"):
        follow(replica, Notifier(), None, reader.cursor)


@PARTS
def test_a_cursor_of_another_collection_leads_nowhere(part: Query | None) -> None:
    """Each collection counts by itself: a reader with the wrong cursor would go on from anywhere, and miss the rest."""
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    notes = opened(store, part)
    id = CollectionId.of_name("todo")
    todo = Replica(store, store.collection(id, "todo"), Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
    todo.choose(part)
    for number in range(3):
        put(notes, f"n{number}")
        put(todo, f"t{number}")
    follow(todo, Notifier(), None, cursor_now(todo))
    with pytest.raises(CursorLostError, match="it is another's"):
        follow(todo, Notifier(), None, cursor_now(notes))


def test_so_many_boots_ago_a_cursor_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise what is kept grows with every boot; and one that is too old must not be taken for a later one."""
    monkeypatch.setattr("meshsync.store.lives.CURSOR_LIVES_MAX", 3)
    store = MemoryStore(random_bytes=random.Random(1).randbytes)
    replica = opened(store, None)
    put(replica, "kept")
    store.sync_now()
    cursor = cursor_now(replica)
    for _ in range(2):
        replica = opened(store := store.crash(), None)
        store.sync_now()
        follow(replica, Notifier(), None, cursor)
    replica = opened(store.crash(), None)
    with pytest.raises(CursorLostError, match="no cursor of this collection in this store"):
        follow(replica, Notifier(), None, cursor)


@PARTS
def test_a_store_on_disk_knows_of_its_power_cuts(part: Query | None, tmp_path: Path) -> None:
    """What the store in memory knows by itself is on a real disk what its files and the boot id say."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"first")
    replica, reader, early = opened(store, part), Reader(None), Reader(None)
    put(replica, "kept")
    early.read(replica)
    for number, boot_id in enumerate((b"second", b"third")):
        left = tmp_path / str(number)
        left.mkdir()
        for name in ("store.db", "store.db-wal"):
            shutil.copy(store.path.with_name(name), left)  # what a power cut will leave
        put(replica, "lost")
        reader.read(replica)
        store.close()
        store = SqliteStore.open(left / "store.db", boot_id=boot_id)
        replica = opened(store, part)
        put(replica, f"other{number}")
        put(replica, f"another{number}")
        with pytest.raises(CursorLostError, match="lost in part"):
            follow(replica, Notifier(), None, reader.cursor)
        reader.begin()
    early.read(replica)
    assert early.has.keys() == shown_in(replica) == {"kept", "other0", "another0", "other1", "another1"}
    store.close()
