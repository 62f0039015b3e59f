"""The syncing thread and the checkpoints: who is answered when, and what happens when the disk fails."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
import trio
import trio.testing

from meshsync.core.limits import LIMITS
from meshsync.errors import StoreError
from meshsync.store.sqlite import SqliteStore, files
from meshsync.store.sqlite.database import run
from tests.store import disk as simulation
from tests.store.rows import PLACES, fill, places

SMALL_WAL = dataclasses.replace(LIMITS, wal_bytes_soft=128 * 1024, wal_bytes_max=256 * 1024)
"""A WAL that some thousand rows fill, and empty tables do not: no checkpoint is under way before a test writes."""


class Disk:
    """Stands in for fdatasync: counts, holds and fails."""

    def __init__(self) -> None:
        self.syncs = 0
        self.error: OSError | None = None
        self.go = threading.Event()
        self.go.set()

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        assert self.go.wait(60)
        if self.error is not None:
            raise self.error
        os.fdatasync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk under the store."""
    disk = Disk()
    monkeypatch.setattr(files, "sync_descriptor", disk.sync)
    return disk


@pytest.fixture
def store(tmp_path: Path, disk: Disk) -> Iterator[SqliteStore]:
    """A store on that disk."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot", limits=SMALL_WAL)
    places(store)
    yield store
    disk.go.set()
    try:
        store.close()
    except StoreError:
        assert disk.error is not None


async def wait_until(condition: Callable[[], bool]) -> None:
    """Let other tasks and threads run until it is so."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 -- the syncing thread is no task that could set an event
            await trio.sleep(0.001)


# Group commit


async def test_nothing_to_sync_needs_no_sync(store: SqliteStore, disk: Disk) -> None:
    """Otherwise each read that wants to be sure would cost milliseconds."""
    fill(store, 1)
    await store.synced()
    syncs = disk.syncs
    await store.synced()
    assert disk.syncs == syncs


async def test_what_was_committed_before_the_store_was_opened_is_synced_too(store: SqliteStore, disk: Disk) -> None:
    """A process that was killed leaves commits that nothing has synced: the next one would take them for durable."""
    store.close()
    reopened = SqliteStore.open(store.path, boot_id=b"boot")
    before = disk.syncs
    await reopened.synced()
    assert disk.syncs == before + 1
    reopened.close()


async def test_synced_is_a_checkpoint(store: SqliteStore) -> None:
    """Otherwise a loop of puts would starve the others."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.synced()
    assert scope.cancelled_caught


async def test_many_waiters_share_a_sync(store: SqliteStore, disk: Disk) -> None:
    """That is what group commit means: the first sync answers one, the second all the others."""
    disk.go.clear()
    before = disk.syncs
    answered = []

    async def put(number: int) -> None:
        fill(store, 1)
        await store.synced()
        answered.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, 0)
        await wait_until(lambda: disk.syncs == before + 1)
        for number in range(1, 64):
            nursery.start_soon(put, number)
        await wait_until(lambda: places(store).counts()[0] == 64)
        assert answered == []
        disk.go.set()
    assert sorted(answered) == list(range(64))
    assert disk.syncs == before + 2


async def test_commit_during_a_sync_waits_for_the_next(store: SqliteStore, disk: Disk) -> None:
    """The sync that is under way may have begun before the commit was written."""
    fill(store, 1)
    disk.go.clear()
    before = disk.syncs
    answered = trio.Event()

    async def wait() -> None:
        await store.synced()
        answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.synced)
        await wait_until(lambda: disk.syncs == before + 1)
        fill(store, 1)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        disk.go.set()
        await answered.wait()
        assert disk.syncs == before + 2


async def test_cancelling_stops_the_waiting_only(store: SqliteStore, disk: Disk) -> None:
    """A put that is given up is stored all the same, and those who wait with it are answered."""
    disk.go.clear()
    fill(store, 1)
    scope = trio.CancelScope()

    async def give_up() -> None:
        with scope:
            await store.synced()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        nursery.start_soon(store.synced)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        disk.go.set()
    assert scope.cancelled_caught


def test_loop_that_ended_during_a_sync_holds_up_no_other(store: SqliteStore, disk: Disk) -> None:
    """Otherwise the next loop, in a notebook or a test, would wait for an answer that went to the last one."""
    disk.go.clear()
    fill(store, 1)

    async def give_up() -> None:
        with trio.move_on_after(0.01):
            await store.synced()

    async def go_on() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.synced)
                await trio.testing.wait_all_tasks_blocked()
                disk.go.set()

    trio.run(give_up)
    trio.run(go_on)


async def test_close_answers_who_waits(store: SqliteStore) -> None:
    """Otherwise stopping a node would leave a put without an answer."""
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            fill(store, 1)
            nursery.start_soon(store.synced)
            await trio.testing.wait_all_tasks_blocked()
        store.close()


def test_threads_end_with_the_store(tmp_path: Path) -> None:
    """Otherwise each store of a test run would leave two behind."""
    # Of its own: that of the others may have begun a checkpoint already, when its tables were made.
    before = threading.active_count()
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot", limits=SMALL_WAL)

    async def use() -> None:
        fill(store, 2000)
        await store.synced()

    trio.run(use)
    assert threading.active_count() == before + 2
    store.close()
    assert threading.active_count() == before


# Checkpoints


async def test_log_starts_again(store: SqliteStore) -> None:
    """Otherwise it would grow with all that was ever written."""
    wal = store.path.with_name("store.db-wal")
    for _ in range(60):
        fill(store, 200)
        await trio.lowlevel.checkpoint()
    assert wal.stat().st_size < 4 * SMALL_WAL.wal_bytes_max
    assert store.path.stat().st_size > 60 * 200 * 50
    assert store.trouble() == ""


async def test_reader_holds_up_no_writer(store: SqliteStore) -> None:
    """A backup reads for minutes; the log grows meanwhile, and starts again after it."""
    wal = store.path.with_name("store.db-wal")
    fill(store, 10)
    reader = apsw.Connection(str(store.path), flags=apsw.SQLITE_OPEN_READONLY)
    run(reader, "BEGIN")
    assert run(reader, "SELECT count(*) FROM entries_1") == [(10,)]
    for _ in range(60):
        fill(store, 200)
    assert run(reader, "SELECT count(*) FROM entries_1") == [(10,)]
    reader.close()
    grown = wal.stat().st_size
    assert grown > 2 * SMALL_WAL.wal_bytes_max
    for _ in range(60):
        fill(store, 200)
        await trio.lowlevel.checkpoint()
    assert wal.stat().st_size <= grown
    assert store.trouble() == ""


# A disk that fails


async def test_failed_sync_is_told_to_all_and_stays(store: SqliteStore, disk: Disk) -> None:
    """The kernel reports a lost write once; the next sync would succeed and mean nothing."""
    fill(store, 1)
    disk.error = OSError(errno.EIO, "Input/output error")
    told = []

    async def put() -> None:
        with pytest.raises(StoreError, match="Input/output error"):
            await store.synced()
        told.append(1)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(put)
    assert len(told) == 8
    disk.error = None
    with pytest.raises(StoreError, match="Input/output error"):
        await store.synced()
    with pytest.raises(StoreError, match="Input/output error"):
        fill(store, 1)
    with pytest.raises(StoreError, match="Input/output error"):
        store.set_meta("key", b"value")
    assert "Input/output error" in store.trouble()
    assert places(store).counts() == (1, 1, 0)
    disk.error = OSError(errno.EIO, "Input/output error")


async def test_log_is_not_continued_after_a_failed_sync(store: SqliteStore, disk: Disk) -> None:
    """Peers may hold what this disk lost; the boot id says nothing about that."""
    first = store.incarnation(PLACES)
    fill(store, 1)
    disk.error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(StoreError):
        await store.synced()
    with pytest.raises(StoreError):
        store.close()
    assert store.path.with_name("store.db-wal").stat().st_size > 0, "its checksums are needed"
    disk.error = None
    again = SqliteStore.open(store.path, boot_id=b"boot")
    second, life = again.incarnation(PLACES), again.life
    assert second != first
    assert life != store.life, "readers may have been told of what was lost"
    again.close()
    again = SqliteStore.open(store.path, boot_id=b"boot")
    assert (again.incarnation(PLACES), again.life) == (second, life)
    again.close()
    disk.error = OSError(errno.EIO, "Input/output error")


def test_incarnation_is_not_given_without_its_mark(store: SqliteStore, disk: Disk) -> None:
    """Without a durable mark a crash could not be told from a clean end."""
    disk.error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(StoreError):
        store.incarnation(PLACES)


def test_incarnation_is_marked_before_it_is_given(store: SqliteStore, disk: Disk) -> None:
    """The first entry leaves right after."""
    before = disk.syncs
    store.incarnation(PLACES)
    assert disk.syncs == before + 1
    store.incarnation(PLACES)
    assert disk.syncs == before + 1


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[simulation.Disk]:
    """A disk under SQLite itself; gone in the end, or every later test of this process would write to it."""
    disk = simulation.Disk(tmp_path, ("store.db", "store.db-wal"))
    disk.install()
    yield disk
    disk.remove()


@pytest.mark.parametrize("by_thread", [True, False])
def test_failed_sync_of_a_checkpoint_counts_as_well(
    tmp_path: Path, simulated: simulation.Disk, by_thread: bool
) -> None:
    """SQLite syncs by itself when it moves the log and when the log starts again, and the kernel tells only once."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot", limits=SMALL_WAL)
    tables = places(store)
    first = store.incarnation(PLACES)
    if by_thread:
        simulated.fails = True
        fill(store, 2000)
        assert store._checkpointer.idle.wait(60)
    else:
        fill(store, 2000)
        assert store._checkpointer.idle.wait(60)
        simulated.fails = True
        with pytest.raises(StoreError):
            fill(store, 1)
    assert tables.counts() == (2000, 2000, 0)
    assert "did not keep" in store.trouble()
    with pytest.raises(StoreError, match="did not keep"):
        store.set_meta("key", b"value")
    with pytest.raises(StoreError, match="did not keep"):
        store.close()
    simulated.remove()
    again = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    assert places(again).counts() == (2000, 2000, 0)
    assert again.incarnation(PLACES) != first
    assert list(again.verify()) == []
    again.close()
