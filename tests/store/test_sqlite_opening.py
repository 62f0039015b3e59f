"""From a path to a store: what is made, what is refused, and in what words."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from meshsync.errors import StoreError
from meshsync.store.sqlite import SqliteStore
from tests.store.rows import fill, places


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is to be."""
    return tmp_path / "store.db"


def opened(path: Path) -> SqliteStore:
    """The store at `path`."""
    return SqliteStore.open(path, boot_id=b"boot")


def filled(path: Path, count: int = 200) -> None:
    """A cleanly closed store at `path`."""
    store = opened(path)
    fill(store, count)
    store.close()


def refused(path: Path) -> str:
    """What opening says."""
    with pytest.raises(StoreError) as caught:
        opened(path)
    return str(caught.value)


def test_what_was_stored_is_there_again(path: Path) -> None:
    """That is what it is for."""
    store = opened(path)
    before = fill(store, 300).entries_from(1, 999)
    epoch = store.epoch
    store.close()
    store = opened(path)
    assert store.epoch == epoch
    assert places(store).counts() == (300, 300, 0)
    assert places(store).entries_from(1, 999) == before
    store.close()


def test_closed_store_is_one_file(path: Path) -> None:
    """So that moving it is moving one file (the lock is empty)."""
    filled(path)
    left = {name.name: name.stat().st_size for name in path.parent.iterdir()}
    assert left.keys() == {"store.db", "store.db-lock"}
    assert left["store.db-lock"] == 0


def test_only_the_owner_can_read_it(path: Path) -> None:
    """Documents are nobody else's business."""
    store = opened(path)
    fill(store, 1)
    modes = {stat.S_IMODE(name.stat().st_mode) for name in path.parent.iterdir()}
    store.close()
    assert modes == {0o600}


def test_link_leads_to_the_same_store(path: Path, tmp_path: Path) -> None:
    """The log is beside the file itself, and so must the lock be."""
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    store = opened(path)
    fill(store, 10)
    assert "open in another process" in refused(link)
    store.close()
    store = opened(link)
    assert fill(store, 10).counts() == (20, 20, 0)
    store.close()
    assert list(link.parent.iterdir()) == [link]


def test_second_opener_is_refused(path: Path) -> None:
    """Counts are kept in memory: two processes would overwrite each other's."""
    store = opened(path)
    assert "open in another process" in refused(path)
    store.close()
    opened(path).close()


def test_failed_open_releases_everything(path: Path) -> None:
    """Otherwise the next try would say that the store is in use."""
    path.write_bytes(b"x" * 4096)
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(3):
        assert "no SQLite database" in refused(path)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_missing_directory(tmp_path: Path) -> None:
    """The message names the path, so that a slip in the configuration is seen."""
    assert "nowhere/store.db" in refused(tmp_path / "nowhere" / "store.db")


def test_directory(path: Path) -> None:
    """A data directory given as the file is a common slip."""
    path.mkdir()
    assert "is a directory" in refused(path)


def test_empty_file(path: Path) -> None:
    """Stores appear whole, so an empty one was lost; opening it as new would hide that."""
    path.touch()
    message = refused(path)
    assert "is damaged (it is empty)" in message
    assert "move the file away" in message


@pytest.mark.parametrize("length", [1, 99, 511])
def test_stump(path: Path, length: int) -> None:
    """A copy that was broken off."""
    filled(path)
    os.truncate(path, length)
    assert "is damaged" in refused(path)


def test_truncated_file(path: Path) -> None:
    """A copy that was broken off later."""
    filled(path)
    os.truncate(path, path.stat().st_size // 2)
    assert "is damaged" in refused(path)


def test_no_database(path: Path) -> None:
    """Someone's notes are not to be overwritten."""
    path.write_text("my notes\n" * 1000)
    assert "no SQLite database" in refused(path)
    assert path.read_text().startswith("my notes")


def test_database_of_another_program(path: Path) -> None:
    """Nor someone's browser history."""
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE visits (url TEXT)")
    database.commit()
    database.close()
    assert "another program" in refused(path)


def test_scrambled_schema(path: Path) -> None:
    """Bit rot on the first page must not look like an empty store."""
    filled(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(3000))
    assert "is damaged" in refused(path)


def test_missing_table(path: Path) -> None:
    """Half a store is none."""
    filled(path)
    connection = apsw.Connection(str(path))
    connection.execute("DROP TABLE cursors_1")
    connection.close()
    assert "cursors_1 is missing" in refused(path)


def test_scrambled_page_after_a_crash_of_a_small_store(path: Path, tmp_path: Path) -> None:
    """After an unclean end a small store is checked whole, before anyone is served from it."""
    crashed = tmp_path / "crashed.db"
    store = opened(path)
    fill(store, 2000)
    (tmp_path / "crashed.db-wal").write_bytes((tmp_path / "store.db-wal").read_bytes())
    store.close()
    crashed.write_bytes(path.read_bytes())
    # Only pages that the write-ahead log does not replace are looked at, so the log has to be of later.
    os.truncate(tmp_path / "crashed.db-wal", 32)
    size = crashed.stat().st_size
    with crashed.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))
    assert "is damaged" in refused(crashed)


def test_log_without_its_file(path: Path) -> None:
    """A new file beside an old log would take the log's pages."""
    filled(path)
    path.unlink()
    path.with_name("store.db-wal").write_bytes(b"x" * 5000)
    assert "is missing, but its write-ahead log" in refused(path)


def test_creation_that_was_broken_off(path: Path) -> None:
    """Otherwise a crash at the very first start would stay for ever."""
    path.with_name("store.db-new").write_bytes(b"half")
    path.with_name("store.db-new-wal").write_bytes(b"half")
    opened(path).close()


def test_old_library(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite before 3.51.3 can corrupt a store that two connections use."""
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    assert "3.51.3" in refused(path)


@pytest.mark.skipif(os.geteuid() != 0 or not sys.platform.startswith("linux"), reason="mounts a file system")
def test_read_only_mount(path: Path) -> None:
    """An SD card that went bad comes back read-only."""
    filled(path)
    # In a mount namespace of its own, which ends with the process.
    script = (
        'mount -t tmpfs -o size=1m none "$1" 2>/dev/null || exit 77; '
        'cp "$3" "$1"/ && mount -o remount,ro "$1" || exit 77; '
        'exec "$2" -c "$4" "$1"/store.db'
    )
    code = (
        "import sys\nfrom meshsync.errors import StoreError\nfrom meshsync.store.sqlite import SqliteStore\n"
        "try:\n    SqliteStore.open(sys.argv[1], boot_id=None)\nexcept StoreError as error:\n    print(error)\n"
    )
    mount = path.parent / "mount"
    mount.mkdir()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", mount, sys.executable, path, code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    if done.returncode in {1, 77} and not done.stdout:
        pytest.skip("mounting is not permitted here")
    assert "Read-only file system" in done.stdout
