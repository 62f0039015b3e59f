"""The power goes at any instant, and the disk kept of the unsynced writes what it liked.

This is the proof of the argument in `meshsync.store.sqlite.syncer`: what was promised is there, what is there is a
beginning of what was written, and the file is sound.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshsync.core.limits import LIMITS
from meshsync.store.sqlite import SqliteStore, files, touches
from tests.store.disk import Committed, Disk, Promised, Synced, Write
from tests.store.headers import FEW, check_all, headers_from, store_headers
from tests.store.rows import PLACES, document, entry, places

# So small that the log starts again dozens of times.
LIMITS_SMALL = dataclasses.replace(LIMITS, wal_bytes_soft=16 * 4096, wal_bytes_max=32 * 4096)
NAMES = ("store.db", "store.db-wal")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk with a new store on it."""
    (tmp_path / "node").mkdir()
    store = SqliteStore.open(tmp_path / "node" / NAMES[0], boot_id=b"boot")
    places(store)
    store.close()
    disk = Disk(tmp_path / "node", NAMES)
    disk.install()
    monkeypatch.setattr(files, "sync_descriptor", disk.sync)
    yield disk
    disk.remove()


async def write(disk: Disk, path: Path, chance: random.Random, transactions: int) -> None:
    """Transactions of all sizes; now and then someone waits until they are safe."""
    store = SqliteStore.open(path, boot_id=b"boot", limits=LIMITS_SMALL)
    tables = places(store)
    store.incarnation(PLACES)
    for _ in range(transactions):
        with store.transaction():
            start = tables.next_arrival()
            count = chance.choice([1, 1, 1, 2, 5, 40])
            rows = [
                entry(n, payload=chance.randbytes(chance.choice([10, 200, 6000]))) for n in range(start, start + count)
            ]
            tables.insert_entries(rows)
            # Written at random places of the tree, so that pages change in the middle of the file.
            tables.put_documents([document(f"{n * 7919 % 10007:05}", n) for n in range(start, start + count)], count)
        disk.events.append(Committed(tables.next_arrival() - 1))
        if chance.random() < 0.3:
            await store.synced()
            disk.events.append(Promised(tables.next_arrival() - 1))
        if chance.random() < 0.3:
            # Give the checkpoints a chance to come to an end, so that the log starts again.
            assert store._checkpointer.idle.wait(60)
    store.close()
    disk.events.append(Promised(tables.next_arrival() - 1))


def check(directory: Path, left: dict[str, bytes], promised: int) -> int:
    """Open what a cut left; returns how many entries are there."""
    for name, content in left.items():
        (directory / name).write_bytes(content)
    store = SqliteStore.open(directory / NAMES[0], boot_id=b"next boot")
    tables = places(store)
    entries, live, _ = tables.counts()
    assert list(store.verify()) == []
    assert entries >= promised
    assert live == entries
    assert [row.seq for row in tables.entries_from(1, entries + 1)] == list(range(1, entries + 1))
    store.close()
    return entries


@pytest.mark.parametrize("cuts", [60, pytest.param(1000, marks=pytest.mark.slow)])
async def test_promised_entries_survive_any_cut(disk: Disk, tmp_path: Path, cuts: int) -> None:
    """Otherwise a node would tell its user, and its peers, that something is stored that is not."""
    path = tmp_path / "node" / NAMES[0]
    await write(disk, path, random.Random(1), transactions=250)
    disk.remove()
    chance = random.Random(2)
    lost = 0
    for number in range(cuts):
        at = chance.randrange(1, len(disk.events))
        directory = tmp_path / f"cut{number}"
        directory.mkdir()
        entries = check(directory, disk.cut(at, chance), disk.entries(Promised, at))
        lost += entries < disk.entries(Committed, at)
        for file in directory.iterdir():
            file.unlink()
    # The test would prove nothing if every cut left everything, or if the log had never started again.
    restarts = sum(event == (NAMES[1], 0, event[2]) for event in disk.events if isinstance(event, Write))
    assert lost > cuts // 10
    assert restarts > 10
    assert sum(isinstance(event, Synced) and event.file == NAMES[0] for event in disk.events) > 10


async def test_clean_end_survives_any_later_cut(disk: Disk, tmp_path: Path) -> None:
    """The mark of the writer is gone only when everything it wrote is safe."""
    path = tmp_path / "node" / NAMES[0]
    await write(disk, path, random.Random(3), transactions=30)
    disk.remove()
    directory = tmp_path / "cut"
    directory.mkdir()
    at = len(disk.events)
    left = disk.cut(at, random.Random(4))
    # Closing removes the log; the removal itself may be lost, and then the log is there as it was.
    promised = disk.entries(Promised, at)
    assert check(directory, left, promised) == promised


def test_what_waits_to_be_written_survives_any_cut(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What headers touch is written after them, and from where on has to fit the headers that the disk kept."""
    monkeypatch.setattr(touches, "WAITING_MAX", FEW)
    chance = random.Random(5)
    store = SqliteStore.open(tmp_path / "node" / NAMES[0], boot_id=b"boot", limits=LIMITS_SMALL)
    for _ in range(80):
        store_headers(store, headers_from(places(store).next_arrival(), chance.choice([1, 5, 30])))
        if chance.random() < 0.2:
            store._syncer.sync_now()
    store.close()
    disk.remove()
    counts = set()
    for number in range(30):
        directory = tmp_path / f"cut{number}"
        directory.mkdir()
        for name, content in disk.cut(chance.randrange(1, len(disk.events)), chance).items():
            (directory / name).write_bytes(content)
        store = SqliteStore.open(directory / NAMES[0], boot_id=b"next boot")
        counts.add(places(store).counts()[0])
        check_all(places(store))
        assert list(store.verify()) == []
        store.close()
    assert len(counts) > 10
