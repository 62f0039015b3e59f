"""What entries touch that lack their payloads is found at any time, though it is written late."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from meshsync.core.bare import LET_GO, with_mark
from meshsync.errors import StoreError
from meshsync.ids import CollectionId
from meshsync.store.rows import EntryRow, Touch
from meshsync.store.sqlite import SqliteStore, touches
from meshsync.store.sqlite.database import run
from meshsync.store.sqlite.late_touches import LateTouches
from meshsync.store.wholeness import touches_of
from tests.store.headers import FEW, check_all, header, headers_from, noted, store_headers, tag
from tests.store.killing import run_and_kill
from tests.store.rows import PLACES, entry, places

TAGS = [tag(number) for number in range(60)]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little wait, so that much is written in small tests."""
    monkeypatch.setattr(touches, "WAITING_MAX", FEW)


def written(store: SqliteStore) -> int:
    rows: list[tuple[int]] = run(store._database.connection, "SELECT count(*) FROM touches_1")
    return rows[0][0]


def left_by_kill(store: SqliteStore, directory: Path) -> Path:
    """What a process that is killed now leaves to the next one."""
    directory.mkdir()
    for file in store.path.parent.glob("store.db*"):
        if not file.name.endswith("lock"):
            shutil.copy(file, directory)
    return directory / "store.db"


@pytest.mark.parametrize("seed", range(8))
def test_no_more_waits_than_may_and_nothing_is_forgotten(seed: int) -> None:
    """Otherwise memory fills up while headers come in, or the past of a document has holes after a restart."""
    chance = random.Random(seed)
    late, waiting, arrival = LateTouches(), set[tuple[bytes, int, int]](), 0
    for _ in range(300):
        new: list[tuple[bytes, int, int]] = []
        for _ in range(chance.choice([1, 2, 30, 100])):
            arrival += chance.choice([0, 1, 1, 5]) if arrival else 1
            new.append((chance.choice(TAGS) if chance.randrange(2) else chance.randbytes(8), arrival << 16, arrival))
        new = list(dict.fromkeys(new))
        due = late.add(new)
        while late.count > FEW:
            due += late.next_slice()
        waiting = (waiting | set(new)) - set(due)
        assert len(waiting) == late.count
        assert {(one, *touch) for one, _, _ in waiting for touch in late.of(one)} == waiting
        assert late.first is None if not waiting else late.first <= min(one[2] for one in waiting)  # type: ignore[operator]
        # What is read once more after a kill is bounded, too: what came in about the time in which all slices go round.
        assert late.first is None or arrival - late.first < 3000


class Walk:
    """A store, and what should be found in it."""

    def __init__(self, path: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.path = path
        self.lives = 0
        self.store = SqliteStore.open(path / "store.db", boot_id=b"boot")
        places(self.store)
        self.headers: dict[int, EntryRow] = {}
        """Those that lack their payloads, by arrival."""

    def batch(self) -> list[EntryRow]:
        chance, first = self.chance, places(self.store).next_arrival()
        numbers = range(first, first + chance.choice([1, 3, 30, 60]))
        return [header(n, *chance.sample(TAGS, chance.choice([1, 1, 1, 2]))) for n in numbers]

    def step(self) -> None:
        """One thing of all that happens to a store."""
        chance, store = self.chance, self.store
        choice = chance.randrange(12)
        if choice < 5:
            rows = self.batch()
            store_headers(store, rows)
            self.headers.update((row.arrival, row) for row in rows)
        elif choice == 5:
            with suppress(StoreError), store.transaction():
                rows = self.batch()
                places(store).insert_entries(rows)
                places(store).touches.add_lacking(touches_of(rows))
                self.drop(chance.sample(sorted(self.headers.values()), min(len(self.headers), 3)))
                raise StoreError("the disk is full")
        elif choice == 6:
            gone = chance.sample(sorted(self.headers.values()), min(len(self.headers), 5))
            with store.transaction():
                self.drop(gone)
            for row in gone:
                del self.headers[row.arrival]
        elif choice == 7:
            with store.transaction():
                places(store).insert_entries([entry(places(store).next_arrival())])
        elif choice == 8:
            store.rebuild_indexes()
        elif choice == 9:
            store.close()
            self.store = SqliteStore.open(store.path, boot_id=b"boot")
        elif choice == 10:
            self.kill()

    def drop(self, rows: list[EntryRow]) -> None:
        places(self.store).touches.let_go(touches_of(rows))
        for row in rows:
            places(self.store).rewrite_entry(row._replace(bare=with_mark(row.bare or b"", LET_GO)))

    def kill(self) -> None:
        """Go on with what a process that is killed now leaves to the next one."""
        self.lives += 1
        path = left_by_kill(self.store, self.path / str(self.lives))
        self.store.close()
        self.store = SqliteStore.open(path, boot_id=b"boot")

    def check(self) -> None:
        tables = places(self.store)
        expected: dict[bytes, list[Touch]] = {one: [] for one in TAGS}
        for one, hlc, arrival in touches_of(self.headers.values()):
            expected[one].append(Touch(hlc, arrival))
        limit = self.chance.choice([2, 500])
        assert {one: noted(tables, one, limit=limit) for one in TAGS} == expected
        assert {one: noted(tables, one, limit=limit, reverse=True)[::-1] for one in TAGS} == expected


@pytest.mark.parametrize("seed", range(4))
def test_what_waits_is_found_whatever_happens(tmp_path: Path, seed: int) -> None:
    """Otherwise a document that begins to match comes without its past, and nobody asks for that."""
    walk = Walk(tmp_path, seed)
    for _ in range(60):
        walk.step()
        walk.check()
    assert list(walk.store.verify()) == []
    walk.store.close()


def test_headers_are_written_with_others_of_their_slice(tmp_path: Path) -> None:
    """Otherwise each batch of headers dirties most pages of the index."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    store_headers(store, [header(n, tag(n)) for n in range(1, FEW + 1)])
    assert written(store) == 0
    store_headers(store, [header(FEW + 1, tag(FEW + 1))])
    assert 0 < written(store) < FEW
    tags = [one for (one,) in run(store._database.connection, "SELECT tag FROM touches_1")]
    assert max(tags) < min(tag(n) for n in range(1, FEW + 2) if tag(n) not in tags)
    store.close()


@pytest.mark.parametrize("lines", [1, 4, 60])
def test_killed_process_leaves_nothing_unfound(tmp_path: Path, lines: int) -> None:
    """SIGKILL is how containers stop, and what was to be written is gone with the process."""
    path = tmp_path / "store.db"
    said = run_and_kill("tests.store.headers", path, lines)
    store = SqliteStore.open(path, boot_id=b"boot")
    assert places(store).counts()[0] >= int(said[-1][1])
    check_all(places(store))
    assert list(store.verify()) == []
    store.close()


def test_full_disk_leaves_what_waits_as_it_was(tmp_path: Path) -> None:
    """Otherwise a batch that was not stored is asked for as if it had been, or one that was is forgotten."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    tables = store_headers(store, headers_from(1, 30))
    run(store._database.connection, "PRAGMA max_page_count = 1")
    for _ in range(2):
        with pytest.raises(StoreError, match="the disk is full"):
            store_headers(store, headers_from(31, 1000))
        check_all(tables)
        assert noted(tables, tag(31)) == []
    run(store._database.connection, "PRAGMA max_page_count = 4294967294")
    store_headers(store, headers_from(31, 1000))
    check_all(tables)
    store.close()


def test_no_more_waits_in_many_collections_than_in_one(tmp_path: Path) -> None:
    """Otherwise each part that a node wants takes some megabytes, long after the last of its headers came."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    ids = [CollectionId.of_name(str(number)) for number in range(5)]
    chance = random.Random(7)
    counts = [0] * len(ids)

    def check() -> None:
        for number, id in enumerate(ids):
            for arrival in range(1, counts[number] + 1):
                assert noted(store.collection(id, ""), tag(arrival)) == [Touch(arrival << 16, arrival)]

    for _ in range(40):
        number = chance.randrange(5)
        tables = store.collection(ids[number], "")
        rows = [header(n, tag(n)) for n in range(counts[number] + 1, counts[number] + chance.choice([2, 10, 30]))]
        with store.transaction():
            tables.insert_entries(rows)
            tables.touches.add_lacking(touches_of(rows))
        counts[number] += len(rows)
        assert sum(one.waiting for one in store._all_touches) <= FEW
    check()
    store.drop_collection(ids.pop(0))
    counts.pop(0)
    # Of those to which nothing comes any more nothing waits, and nothing has to be read again.
    for _ in range(20):
        rows = [header(n, tag(n)) for n in range(counts[0] + 1, counts[0] + 31)]
        tables = store.collection(ids[0], "")
        with store.transaction():
            tables.insert_entries(rows)
            tables.touches.add_lacking(touches_of(rows))
        counts[0] += len(rows)
    assert [store.collection(id, "").touches.unwritten_from for id in ids[1:]] == [None] * 3
    check()
    store.close()
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    check()
    store.close()


def test_damaged_header_does_not_hide_others_that_wait(tmp_path: Path) -> None:
    """Otherwise one flipped bit keeps a node from starting, or from finding the past of any document."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    store_headers(store, [header(n, tag(n)) for n in range(1, 31)])
    path = left_by_kill(store, tmp_path / "killed")
    store.close()
    connection = apsw.Connection(str(path))
    run(connection, "UPDATE entries_1 SET bare = CAST(x'83ff' || substr(bare, 3) AS BLOB) WHERE arrival = 7")
    connection.close()
    store = SqliteStore.open(path, boot_id=b"boot")
    lacking = [n for n in range(1, 31) if not noted(places(store), tag(n))]
    assert lacking == [7]
    store.close()


def test_backup_finds_what_waits(tmp_path: Path) -> None:
    """Otherwise a restored node has documents without their past."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    store_headers(store, headers_from(1, 100))
    assert written(store) < 100
    store.backup(tmp_path / "copy.db")
    store.close()
    store = SqliteStore.open(tmp_path / "copy.db", boot_id=b"boot")
    check_all(places(store))
    store.close()


@pytest.mark.parametrize("is_full", [False, True])
def test_clean_end_leaves_nothing_to_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """Otherwise each start of a node holds up its first writes; but a full disk must not keep it from ending."""
    monkeypatch.setattr(touches, "WAITING_MAX", 1000)
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    store_headers(store, headers_from(1, 600))
    before = written(store)
    assert before < 600
    if is_full:
        run(store._database.connection, "PRAGMA max_page_count = 1")
    store.close()
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    assert written(store) == (before if is_full else 600)
    assert store._tables[PLACES].touches.unwritten_from == (1 if is_full else None)
    check_all(places(store))
    store.close()
