"""Real processes, killed in the middle of a stream of commits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meshsync.store.headers import rebuilt_id
from meshsync.store.sqlite import SqliteStore
from tests.authors import START_MS
from tests.store.killing import ROOT, run_and_kill
from tests.store.rows import PLACES, places, scan_documents
from tests.store.sweeper import opened


def write_and_kill(path: Path, *, boot_id: str, lines: int) -> tuple[str, int]:
    """Let a process write, kill it after so many lines; returns its incarnation and its last known commit."""
    command = [sys.executable, "-m", "tests.store.writer", str(path), boot_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().split() for _ in range(lines)]
        process.kill()
        # What it wrote into the pipe before it died counts as well; its very last line may be cut off.
        said += [line.split() for line in process.stdout.read().rpartition("\n")[0].splitlines()]
    return said[0][1], max(int(number) for word, number in said[1:] if word in {"committed", "synced"})


@pytest.mark.parametrize("lines", [2, 50, 1500])
def test_killed_process_loses_nothing(tmp_path: Path, lines: int) -> None:
    """SIGKILL is how containers stop: what was committed is in the kernel's hands."""
    path = tmp_path / "store.db"
    _, committed = write_and_kill(path, boot_id="boot", lines=lines)
    store = SqliteStore.open(path, boot_id=b"boot")
    tables = places(store)
    entries, live, _ = tables.counts()
    assert entries >= committed
    assert live == entries
    assert list(store.verify()) == []
    store.close()


@pytest.mark.parametrize("lines", [1, 3, 40])
def test_process_killed_in_the_middle_of_a_sweep_goes_on_where_it_was(tmp_path: Path, lines: int) -> None:
    """What was dropped and what is known of it are one commit: else documents are lost, or payloads stay for ever."""
    path = tmp_path / "store.db"
    said = run_and_kill("tests.store.sweeper", path, lines)
    store = SqliteStore.open(path, boot_id=b"boot")
    replica = opened(store)
    dropped = replica.retaining.dropped.entries
    assert dropped >= int(said[-1][1])
    assert replica.tables.marked() == dropped
    replica.retaining.kept_elsewhere(replica.tables.next_arrival())
    while replica.retaining.step(START_MS):
        pass
    assert replica.tables.counts()[0] - replica.tables.marked() == 9
    assert sorted(row.id for row, _ in scan_documents(replica.tables)) == [f"d{number}" for number in range(9)]
    assert all(rebuilt_id(replica, row) == row.id for row in replica.scan_entries())
    assert list(store.verify()) == []
    store.close()


def test_killed_process_goes_on_in_its_log_until_the_machine_starts_anew(tmp_path: Path) -> None:
    """Each kill would cost a log otherwise; and after a power cut the log would fork."""
    path = tmp_path / "store.db"
    first, _ = write_and_kill(path, boot_id="boot", lines=20)
    second, _ = write_and_kill(path, boot_id="boot", lines=20)
    third, _ = write_and_kill(path, boot_id="next-boot", lines=20)
    assert first == second
    assert third != first
    store = SqliteStore.open(path, boot_id=b"next-boot")
    assert store.incarnation(PLACES).hex() == third
    store.close()


def test_process_may_be_killed_while_it_makes_its_store(tmp_path: Path) -> None:
    """Otherwise a device that loses power at its first start would never start again."""
    path = tmp_path / "store.db"
    for _ in range(3):
        command = [sys.executable, "-m", "tests.store.writer", str(path), "boot"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as process:
            # Its first trace on the disk is the lock; the store is made right after.
            while process.poll() is None and not list(tmp_path.iterdir()):
                pass
            process.kill()
        SqliteStore.open(path, boot_id=b"boot").close()
        for file in tmp_path.iterdir():
            file.unlink()
