"""How a store in memory dies, which is what the simulators use it for."""

from __future__ import annotations

import random

import pytest

from meshsync.errors import LocalError, StoreError
from meshsync.store.memory import MemoryStore
from tests.store.rows import PLACES, document, entry, fill, places, scan_documents


@pytest.fixture
def store() -> MemoryStore:
    """A new store with a seeded source of bytes."""
    return MemoryStore(random_bytes=random.Random(1).randbytes)


def test_crash_goes_back_to_the_last_sync(store: MemoryStore) -> None:
    """Otherwise the simulator would find no bug of durability."""
    fill(store, 3)
    store.sync_now()
    tables = fill(store, 2)
    with store.transaction():
        tables.rewrite_entry(entry(1)._replace(seal=b"s" * 64))
        tables.put_documents([document("d000001", 5, live=False)], -1)
    store.set_meta("key", b"value")
    after = places(store.crash())
    assert after.counts() == (3, 3, 0)
    assert after.entries_from(1, 9) == [entry(1), entry(2), entry(3)]
    assert [found.row for found in scan_documents(after)] == [document(f"d{n:06}", n) for n in (1, 2, 3)]


def test_crash_can_lose_a_collection(store: MemoryStore) -> None:
    """A collection that was made a moment ago is as young as its entries."""
    fill(store, 1)
    assert store.crash().collections() == []


def test_kill_loses_nothing_that_was_committed(store: MemoryStore) -> None:
    """The kernel keeps what a killed process wrote."""
    fill(store, 3)
    assert places(store.kill()).counts() == (3, 3, 0)


def test_crash_after_a_kill_loses_what_no_one_synced(store: MemoryStore) -> None:
    """The start of another process makes nothing durable."""
    fill(store, 1)
    store.sync_now()
    fill(store, 1)
    killed = store.kill()
    fill(killed, 1)
    assert places(killed.crash()).counts() == (1, 1, 0)


def test_dead_store_refuses(store: MemoryStore) -> None:
    """Otherwise a simulated process would go on writing after its death."""
    store.kill()
    with pytest.raises(LocalError, match="closed"):
        places(store)


def test_incarnations(store: MemoryStore) -> None:
    """A killed or ended process goes on in its log, a crashed machine begins another: else logs fork."""
    places(store)
    first = store.incarnation(PLACES)
    killed = store.kill()
    assert killed.incarnation(PLACES) == first
    killed.close()
    ended = killed.reopened()
    assert ended.incarnation(PLACES) == first
    crashed = ended.crash()
    assert crashed.incarnation(PLACES) != first


def test_unknown_boot_begins_another_log() -> None:
    """Where there is no boot id, a kill may have been a power cut."""
    unknown = MemoryStore(random_bytes=random.Random(1).randbytes, boot_id=None)
    places(unknown)
    first = unknown.incarnation(PLACES)
    assert unknown.kill().incarnation(PLACES) != first


def test_copy_shares_nothing_that_changes(store: MemoryStore) -> None:
    """Otherwise a snapshot would follow its original."""
    fill(store, 2)
    copy = store.copy()
    fill(store, 1)
    fill(copy, 5)
    assert places(store).counts() == (3, 3, 0)
    assert places(copy).counts() == (7, 7, 0)
    assert places(copy.crash()).counts() == (2, 2, 0)


def test_backup_is_another_store(store: MemoryStore) -> None:
    """Otherwise the restored backup would fork the log of the original."""
    fill(store, 2)
    first = store.incarnation(PLACES)
    backup = store.backup()
    assert backup.epoch != store.epoch
    assert backup.incarnation(PLACES) != first
    assert places(backup).counts() == (2, 2, 0)


def test_broken_disk_takes_nothing(store: MemoryStore) -> None:
    """Otherwise the layers above could not be tested against a full disk."""
    fill(store, 1)
    store.broken = "the disk is full"
    with pytest.raises(StoreError, match="full"):
        fill(store, 1)
    with pytest.raises(StoreError, match="full"):
        store.set_meta("key", b"value")
    store.broken = ""
    assert fill(store, 1).counts() == (2, 2, 0)
    assert store.meta("key") is None


def test_same_seed_same_bytes() -> None:
    """Otherwise a failing run of the simulator could not be replayed."""
    first, second = (MemoryStore(random_bytes=random.Random(7).randbytes) for _ in range(2))
    places(first)
    places(second)
    assert (first.epoch, first.incarnation(PLACES)) == (second.epoch, second.incarnation(PLACES))
