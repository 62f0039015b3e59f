"""Stores of a size that shows what grows with it, and what must not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from meshsync.store.rows import EntryRow
from meshsync.store.sqlite import SqliteStore, database
from tests.store.rows import document, places


def fill(path: Path, count: int) -> None:
    """A store with as many entries, each of another document."""
    store = SqliteStore.open(path, boot_id=b"boot")
    tables = places(store)
    for start in range(1, count + 1, 512):
        arrivals = range(start, min(start + 512, count + 1))
        with store.transaction():
            tables.insert_entries([
                EntryRow(n, 1, n, n.to_bytes(32), n << 16, n, None, b"x" * 150, None, None) for n in arrivals
            ])  # fmt: skip
            tables.put_documents([document(f"{n * 7919 % 10**7:07}", n) for n in arrivals], len(arrivals))
    store.close()


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_opening_reads_little(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million entries open in a moment: what is read does not grow with them."""
    path = tmp_path / "store.db"
    fill(path, count)
    opened: list[apsw.Connection] = []
    connect = database.connect

    def remember(path: Path, flags: int = apsw.SQLITE_OPEN_READWRITE) -> apsw.Connection:
        opened.append(connect(path, flags))
        return opened[-1]

    monkeypatch.setattr("meshsync.store.sqlite.opening.connect", remember)
    store = SqliteStore.open(path, boot_id=b"boot")
    assert places(store).counts() == (count, count, 0)
    tip = places(store).tip(1)
    assert tip is not None
    assert tip[0] == count
    pages_read, _ = opened[0].status(apsw.SQLITE_DBSTATUS_CACHE_MISS)
    assert pages_read < 50
    store.close()


@pytest.mark.slow
def test_opening_after_a_kill_reads_the_log_only(tmp_path: Path) -> None:
    """The check after an unclean end must not read a large file from end to end."""
    path = tmp_path / "store.db"
    fill(path, 200_000)
    code = (
        "import os, sys\nfrom meshsync.store.sqlite import SqliteStore\nfrom tests.store.rows import places\n"
        "store = SqliteStore.open(sys.argv[1], boot_id=b'boot')\nplaces(store)\nstore.set_meta('key', b'value')\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code, path], cwd=Path(__file__).parents[2], check=False, timeout=60)
    assert path.with_name("store.db-wal").stat().st_size > 0
    before = read_bytes()
    store = SqliteStore.open(path, boot_id=b"boot")
    assert read_bytes() - before < path.stat().st_size // 10
    assert store.meta("key") == b"value"
    store.close()


def read_bytes() -> int:
    """How much this process has read by read(2) and its like."""
    if not Path("/proc/self/io").exists():
        pytest.skip("the kernel does not tell how much was read")
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])
