"""Ends and beginnings: incarnations, backups, `verify`."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest

from meshsync.errors import StoreError
from meshsync.ids import CollectionId
from meshsync.store.sqlite import SqliteStore
from meshsync.store.sqlite.database import run
from tests.store.rows import PLACES, document, entry, fill, places


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is to be."""
    return tmp_path / "store.db"


def opened(path: Path, boot_id: bytes | None = b"boot") -> SqliteStore:
    """The store at `path`, with the collection `places`."""
    store = SqliteStore.open(path, boot_id=boot_id)
    places(store)
    return store


def killed(store: SqliteStore, to: Path) -> Path:
    """The files of a store as a kill -9 at this moment would leave them.

    (Reading them here drops SQLite's locks on them, which does not matter as long as no other process comes.)
    """
    to.mkdir()
    for name in ("store.db", "store.db-wal"):
        shutil.copy(store.path.with_name(name), to)
    return to / "store.db"


# Incarnations (store.md section 1)


def test_clean_end_continues_the_log(path: Path) -> None:
    """Otherwise each start would cost a log, and the tips would grow for ever."""
    store = opened(path)
    first = store.incarnation(PLACES)
    store.close()
    store = opened(path, b"other boot")
    assert store.incarnation(PLACES) == first
    store.close()


@pytest.mark.parametrize(
    ("boot_id", "later_boot_id", "continues"),
    [(b"boot", b"boot", True), (b"boot", b"other", False), (b"boot", None, False), (None, None, False)],
)
def test_kill_continues_the_log_under_the_same_boot_only(
    path: Path, tmp_path: Path, boot_id: bytes | None, later_boot_id: bytes | None, continues: bool
) -> None:
    """SIGKILL is how containers stop; but after a power cut peers may hold entries of the log that are lost here."""
    store = opened(path, boot_id)
    first = store.incarnation(PLACES)
    again = opened(killed(store, tmp_path / "killed"), later_boot_id)
    assert (again.incarnation(PLACES) == first) == continues
    again.close()
    store.close()


def test_process_that_only_read_leaves_no_mark(path: Path, tmp_path: Path) -> None:
    """Otherwise a node that writes nothing would get a new incarnation after each power cut."""
    store = opened(path)
    first = store.incarnation(PLACES)
    store.close()
    reader = opened(path)
    crashed = opened(killed(reader, tmp_path / "killed"), b"other boot")
    assert crashed.incarnation(PLACES) == first
    crashed.close()
    reader.close()


def test_new_incarnation_is_marked_again(path: Path, tmp_path: Path) -> None:
    """Otherwise the second power cut would fork the log that the first one began."""
    store = opened(path)
    store.incarnation(PLACES)
    second = opened(killed(store, tmp_path / "one"), b"second boot")
    incarnation = second.incarnation(PLACES)
    third = opened(killed(second, tmp_path / "two"), b"third boot")
    assert third.incarnation(PLACES) != incarnation
    for open_store in (store, second, third):
        open_store.close()


def test_renewed_incarnation_stays(path: Path) -> None:
    """Otherwise the next start would go back into the log that peers hold more of."""
    store = opened(path)
    store.incarnation(PLACES)
    renewed = store.renew_incarnation(PLACES)
    store.close()
    store = opened(path)
    assert store.incarnation(PLACES) == renewed
    store.close()


# Backups


def test_backup_is_another_store(path: Path, tmp_path: Path) -> None:
    """A restored backup that went on in the log of its original would fork it."""
    store = opened(path)
    fill(store, 100)
    incarnation = store.incarnation(PLACES)
    target = tmp_path / "backup.db"
    store.backup(target)
    fill(store, 1)
    restored = opened(target)
    assert places(restored).counts() == (100, 100, 0)
    assert restored.epoch != store.epoch
    assert restored.incarnation(PLACES) != incarnation
    epoch, incarnation = restored.epoch, restored.incarnation(PLACES)
    restored.close()
    restored = opened(target)
    assert (restored.epoch, restored.incarnation(PLACES)) == (epoch, incarnation)
    restored.close()
    store.close()


def test_backup_of_a_cleanly_closed_log_is_another_store(path: Path, tmp_path: Path) -> None:
    """The mark of a clean end must not be taken for one: the original goes on after the backup."""
    store = opened(path)
    incarnation = store.incarnation(PLACES)
    store.close()
    store = opened(path)
    store.backup(tmp_path / "backup.db")
    restored = opened(tmp_path / "backup.db")
    assert restored.incarnation(PLACES) != incarnation
    restored.close()
    store.close()


def test_backup_in_the_place_of_a_killed_store_is_refused(path: Path, tmp_path: Path) -> None:
    """The log of the killed store would be applied to the backup."""
    store = opened(path)
    fill(store, 10)
    store.backup(tmp_path / "backup.db")
    fill(store, 10)
    place = killed(store, tmp_path / "killed")
    shutil.copy(tmp_path / "backup.db", place)
    with pytest.raises(StoreError, match=r"is a backup, and beside it is the write-ahead log store\.db-wal"):
        opened(place)
    place.with_name("store.db-wal").unlink()
    restored = opened(place)
    assert places(restored).counts() == (10, 10, 0)
    restored.close()
    store.close()


def test_backup_replaces_nothing(path: Path, tmp_path: Path) -> None:
    """The file that is there may be the only good one."""
    store = opened(path)
    target = tmp_path / "backup.db"
    target.write_text("precious")
    with pytest.raises(StoreError, match="exists already"):
        store.backup(target)
    assert target.read_text() == "precious"
    store.close()


def test_failed_backup_leaves_nothing(path: Path, tmp_path: Path) -> None:
    """Half a backup would be taken for one."""
    store = opened(path)
    with pytest.raises(StoreError, match="cannot write the copy"):
        store.backup(tmp_path / "nowhere" / "backup.db")
    store.close()


# Collections


def test_number_of_a_dropped_collection_is_not_given_again(path: Path) -> None:
    """A handle that someone still holds would write into another collection."""
    store = opened(path)
    stale = places(store)
    store.drop_collection(PLACES)
    other = store.collection(CollectionId.of_name("other"), "other")
    with store.transaction():
        other.add_branch(b"a" * 32, b"i" * 8, None, 1)
    with pytest.raises(StoreError, match="no such table"), store.transaction():
        stale.insert_entries([entry(1)])
    assert other.counts() == (0, 0, 0)
    store.close()


# Verify


def faults_after(path: Path, *damage: str) -> list[str]:
    """What `verify` says of a store with ten entries after these statements."""
    store = opened(path)
    fill(store, 10)
    store.close()
    connection = apsw.Connection(str(path))
    for sql in damage:
        run(connection, sql)
    connection.close()
    store = SqliteStore.open(path, boot_id=b"boot")
    faults = list(store.verify())
    store.close()
    return faults


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("DELETE FROM entries_1 WHERE arrival = 4", "1 of 10 entries are missing"),
        ("DELETE FROM entries_1 WHERE arrival = 4", "branch 1 has gaps"),
        ("DELETE FROM entries_1 WHERE arrival = 4", "document 'd000004' points at an entry that is not there"),
        ("UPDATE branches_1 SET number = 2", "entry 10 belongs to a branch that is not there"),
        ("DELETE FROM documents_1 WHERE id = 'd000004'", "9 documents are live, 10 were counted"),
        ("UPDATE entries_1 SET payload = NULL WHERE arrival = 2", "entry 2 has both a payload and"),
        ("UPDATE entries_1 SET bare = x'00' WHERE arrival = 2", "1 entries lack their payloads and 0 have marks"),
    ],
)
def test_verify_finds(path: Path, damage: str, fault: str) -> None:
    """Each of these would show up later as something else."""
    assert any(fault in line for line in faults_after(path, damage))


def test_verify_finds_scrambled_pages(path: Path) -> None:
    """Bit rot has to be found before it spreads into backups."""
    store = opened(path)
    fill(store, 5000)
    store.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    store = opened(path)
    assert any("page" in line or "malformed" in line for line in store.verify())
    store.close()


def test_verify_reads_beside_the_writer(path: Path) -> None:
    """It takes minutes on a large store, and the node goes on meanwhile."""
    store = opened(path)
    tables = fill(store, 10)
    lines = store.verify()
    for _ in range(20):
        with store.transaction():
            arrival = tables.next_arrival()
            tables.insert_entries([entry(arrival)])
            tables.put_documents([document(f"d{arrival:06}", arrival)], 1)
    assert list(lines) == []
    store.close()


# Lives: where numbers that were given out may be given out again


@pytest.mark.parametrize(
    ("boot_id", "later_boot_id", "continues"),
    [(b"boot", b"boot", True), (b"boot", b"other", False), (b"boot", None, False), (None, None, False)],
)
def test_life_goes_on_under_the_same_boot_only(
    path: Path, tmp_path: Path, boot_id: bytes | None, later_boot_id: bytes | None, continues: bool
) -> None:
    """Otherwise a power cut goes unnoticed, or every restart of the process would age the cursors of readers."""
    store = opened(path, boot_id)
    again = opened(killed(store, tmp_path / "killed"), later_boot_id)
    assert (again.life == store.life) is continues
    again.close()
    store.close()


def test_life_ends_with_what_makes_numbers_anew(path: Path, tmp_path: Path) -> None:
    """A dropped collection counts from 1 again, and a backup goes on elsewhere."""
    store = opened(path)
    store.backup(tmp_path / "backup.db")
    restored = opened(tmp_path / "backup.db")
    assert restored.life == restored.epoch != store.life
    restored.close()
    before = store.life
    store.drop_collection(PLACES)
    dropped = store.life
    assert dropped != before
    store.close()
    store = opened(path)
    assert store.life == dropped
    store.close()
