"""A disk that takes nothing more: all or nothing, said clearly, and over when there is space."""

# ruff: noqa: PT012 -- what fails is the transaction with all that is in it.

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshsync.core.limits import LIMITS
from meshsync.errors import StoreError
from meshsync.store.sqlite import SqliteStore
from meshsync.store.sqlite.database import run
from tests.store.rows import entry, fill, places


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with 100 entries."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    fill(store, 100)
    yield store
    store.close()


@contextmanager
def pages_at_most(store: SqliteStore, pages: int) -> Iterator[None]:
    """Let SQLite find the disk full when the file needs more pages."""
    run(store._database.connection, f"PRAGMA max_page_count = {pages}")
    yield
    run(store._database.connection, "PRAGMA max_page_count = 4294967294")


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Let write(2) fail beyond this length of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_takes_all_or_nothing(store: SqliteStore) -> None:
    """Otherwise a batch would be stored in part, and its cursor not, or the other way round."""
    tables = places(store)
    with pages_at_most(store, 1):
        with pytest.raises(StoreError, match="the disk is full"):
            fill(store, 1000)
        assert tables.counts() == (100, 100, 0)
        assert len(tables.entries_from(1, 9999)) == 100
    assert list(store.verify()) == []


def test_full_disk_is_over_when_there_is_space(store: SqliteStore) -> None:
    """Nobody should have to start a node again because a disk was full at night."""
    with pages_at_most(store, 1), pytest.raises(StoreError, match="the disk is full"):
        fill(store, 1000)
    assert fill(store, 1000).counts() == (1100, 1100, 0)
    assert list(store.verify()) == []


def test_swallowed_error_does_not_commit_the_rest(store: SqliteStore) -> None:
    """SQLite may end the transaction by itself; what follows must not be written as if nothing had happened."""
    tables = places(store)
    with pages_at_most(store, 1), pytest.raises(StoreError, match="the disk is full"), store.transaction():
        with pytest.raises(StoreError):
            tables.insert_entries([entry(n, payload=b"x" * 1000) for n in range(101, 1101)])
        with pytest.raises(StoreError):
            store.set_meta("key", b"value")
    assert store.meta("key") is None
    assert tables.counts() == (100, 100, 0)
    assert tables.next_arrival() == 101


def test_failing_write_is_undone_and_forgotten(store: SqliteStore) -> None:
    """The commit itself fails here, half-way through the write-ahead log."""
    tables = places(store)
    wal = store.path.with_name("store.db-wal")
    with files_at_most(wal.stat().st_size + 6000):
        with pytest.raises(StoreError, match="failed"):
            fill(store, 1000)
        assert tables.counts() == (100, 100, 0)
        assert tables.documents(["d000101"]) == {}
    assert fill(store, 1000).counts() == (1100, 1100, 0)
    assert list(store.verify()) == []


def test_failing_checkpoint_loses_nothing(tmp_path: Path) -> None:
    """The log holds all until it could be moved; status says why it grows."""
    limits = dataclasses.replace(LIMITS, wal_bytes_soft=16 * 4096, wal_bytes_max=64 * 4096)
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot", limits=limits)
    count = fill(store, 5000).counts()[0]
    assert store._checkpointer.idle.wait(60)
    # The log starts again at its head, so the file that it is moved into comes to the bound first.
    with files_at_most(store.path.stat().st_size):
        while store.trouble() == "":
            count = fill(store, 20).counts()[0]
            assert store._checkpointer.idle.wait(60)
        assert "cannot be moved into the file" in store.trouble()
    assert places(store).counts()[0] == count
    while store.trouble() != "":
        fill(store, 20)
        assert store._checkpointer.idle.wait(60)
    assert list(store.verify()) == []
    store.close()


def test_low_space_is_seen(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of others are refused first, so that the owner can still write, or delete."""
    now = time.monotonic() + 10.0
    free = LIMITS.free_bytes_min
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(store._files, "free_bytes", lambda: free)
    assert not store.low_space()
    free -= 1
    assert not store.low_space(), "it is looked at once a second"
    now += 1.0
    assert store.low_space()
    assert "16 MiB" in store.trouble()
    free += 1
    now += 1.0
    assert not store.low_space()
    assert store.trouble() == ""
