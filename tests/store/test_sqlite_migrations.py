"""The way from one version of the schema to the next."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import apsw
import pytest

from meshsync.core.bare import LET_GO, with_mark
from meshsync.core.entry import PATCH, PUT, Operation
from meshsync.core.retention import LATEST
from meshsync.errors import StoreError
from meshsync.ids import CollectionId
from meshsync.store.keys import IndexRow, KeyRow
from meshsync.store.past import Past, Write
from meshsync.store.replica import Replica
from meshsync.store.rows import ENTRY_BYTES, Moment
from meshsync.store.sqlite import SqliteStore, migrations, opening
from meshsync.store.sqlite.database import run
from meshsync.store.wholeness import touches_of
from tests.authors import START_MS, Author
from tests.store.headers import header, noted, store_headers, tag
from tests.store.rows import LACKING, PLACES, document, entry, fill, places

VERSION_4 = Path(__file__).with_name("version-4.sql")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with 50 entries, closed."""
    path = tmp_path / "store.db"
    store = SqliteStore.open(path, boot_id=b"boot")
    fill(store, 50)
    store.incarnation(PLACES)
    store.close()
    return path


def set_version(path: Path, version: int) -> None:
    """Make a store claim a version."""
    connection = apsw.Connection(str(path))
    run(connection, f"PRAGMA user_version = {version}")
    connection.close()


WAY_BACK = {
    10: ("ALTER TABLE collections DROP COLUMN unwritten_from",),
    9: ("DROP INDEX entries_1_marked",),
    8: ("ALTER TABLE collections DROP COLUMN retained", "DROP TABLE gone_1", "DROP TABLE superseded_1"),
    7: ("DROP TABLE changes_1",),
    6: ("DROP INDEX documents_1_expiring", "ALTER TABLE documents_1 DROP COLUMN expires"),
    5: (
        "ALTER TABLE collections DROP COLUMN marked",
        "DROP INDEX entries_1_bare",
        "CREATE INDEX entries_1_bare ON entries_1 (arrival) WHERE bare IS NOT NULL",
    ),
    4: ("DROP TABLE indexes_1", "DROP TABLE keys_1"),
    3: ("DROP TABLE touches_1", "DROP INDEX documents_1_contested"),
    2: ("ALTER TABLE collections DROP COLUMN bytes",),
}
"""What takes back what each version brought."""


def bring_back_to(path: Path, version: int) -> None:
    """Make a store as this version made it."""
    connection = apsw.Connection(str(path))
    for number in range(migrations.SCHEMA_VERSION, version, -1):
        for statement in WAY_BACK[number]:
            run(connection, statement)
    connection.close()
    set_version(path, version)


def test_an_upgrade_under_a_node_that_runs_does_not_mix_two_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection that is joined meanwhile would get tables of the next version: the next start could not migrate."""
    path = tmp_path / "store.db"
    store = SqliteStore.open(path, boot_id=b"boot")
    monkeypatch.setattr(resources, "files", lambda _: tmp_path / "replaced")
    store.collection(CollectionId(bytes(32)), "joined later")
    store.close()
    SqliteStore.open(path, boot_id=b"boot").close()


@pytest.fixture
def version_0(path: Path) -> Path:
    """A store of an artificial version 0, in which peers had no name and the bytes of payloads were not counted."""
    bring_back_to(path, 1)
    connection = apsw.Connection(str(path))
    run(connection, "ALTER TABLE peers DROP COLUMN name")
    connection.close()
    set_version(path, 0)
    return path


def add_names(connection: apsw.Connection) -> None:
    """The step from version 0 to version 1."""
    run(connection, "ALTER TABLE peers ADD COLUMN name TEXT NOT NULL DEFAULT ''")


def migrate_with(monkeypatch: pytest.MonkeyPatch, steps: dict[int, migrations.Step]) -> None:
    """Let opening a store take these steps, and the real ones after them."""

    def migrate(connection: apsw.Connection, path: Path) -> None:
        migrations.migrate(connection, path, steps={**steps, **migrations.STEPS})

    monkeypatch.setattr(opening, "migrate", migrate)


def test_older_store_is_migrated(version_0: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an update of meshsync would cost the data."""
    migrate_with(monkeypatch, {0: add_names})
    store = SqliteStore.open(version_0, boot_id=b"boot")
    assert places(store).counts() == (50, 50, 0)
    assert store.peers() == []
    store.close()
    connection = apsw.Connection(str(version_0))
    assert migrations.version_of(connection) == migrations.SCHEMA_VERSION
    connection.close()


def test_payloads_of_an_older_store_are_counted(path: Path) -> None:
    """Otherwise what it carries for others seems to take no space, and the quota is exceeded."""
    store = SqliteStore.open(path, boot_id=b"boot")
    size = places(store).size_bytes()
    assert size > 50 * ENTRY_BYTES
    store.close()
    bring_back_to(path, 1)
    store = SqliteStore.open(path, boot_id=b"boot")
    assert places(store).size_bytes() == size
    store.close()


def test_the_past_of_documents_of_an_older_store_is_found(tmp_path: Path) -> None:
    """Otherwise whatever was written before the update has no history, and `verify` would not bring it back either."""
    path = tmp_path / "store.db"
    store = SqliteStore.open(path, boot_id=b"boot")
    replica = replica_of(store)
    for number in range(600):
        replica.append(
            [Operation(PUT, f"d{number % 7}", {"n": number}), Operation(PATCH, "p", {"n": number})], START_MS
        )
    replica.append([Operation(PUT, "once", {})], START_MS)
    before = pasts(replica)
    assert [len(found) for found in before.values()] == [86] * 5 + [85] * 2 + [1, 600]
    store.close()
    bring_back_to(path, 2)
    store = SqliteStore.open(path, boot_id=b"boot")
    replica = replica_of(store)
    assert pasts(replica) == before
    assert list(store.verify()) == []
    with store.transaction():
        store._database.write("DELETE FROM touches_1")
    store.rebuild_indexes()
    assert pasts(replica) == before
    store.close()


def test_an_older_store_takes_indexes(path: Path) -> None:
    """Otherwise only new nodes could declare any."""
    bring_back_to(path, 3)
    store = SqliteStore.open(path, boot_id=b"boot")
    replica = replica_of(store)
    replica.append([Operation(PUT, "x", {"n": 1})], START_MS)
    with store.transaction():
        replica.tables.keys.set_row(IndexRow(1, "n", "ready", ""))
        replica.tables.keys.put([(1, "x", b"key")])
    store.close()
    store = SqliteStore.open(path, boot_id=b"boot")
    assert places(store).keys.rows() == [IndexRow(1, "n", "ready", "")]
    assert places(store).keys.by_id(1, "", 9) == [KeyRow(b"key", "x")]
    assert list(store.verify()) == []
    store.close()


def test_an_older_store_takes_marks(path: Path) -> None:
    """Otherwise a node that was updated asks its peers for ever for payloads that it let go."""
    bring_back_to(path, 4)
    store = SqliteStore.open(path, boot_id=b"boot")
    tables = places(store)
    with store.transaction():
        tables.insert_entries([entry(51, payload=None), entry(52, payload=None)])
        tables.rewrite_entry(entry(51, payload=None)._replace(bare=with_mark(LACKING, LET_GO)))
    assert [row.arrival for row in tables.bare_entries(9)] == [52]
    store.close()
    store = SqliteStore.open(path, boot_id=b"boot")
    assert (places(store).counts()[2], places(store).marked()) == (1, 1)
    assert list(store.verify()) == []
    store.close()


def test_an_older_store_finds_its_marks(path: Path) -> None:
    """Otherwise a node that was updated cannot ask for the past that it lacks."""
    store = SqliteStore.open(path, boot_id=b"boot")
    with store.transaction():
        places(store).rewrite_entry(entry(7, payload=None)._replace(bare=with_mark(LACKING, LET_GO)))
    store.close()
    bring_back_to(path, 8)
    store = SqliteStore.open(path, boot_id=b"boot")
    assert [row.arrival for row in places(store).marked_entries(1, 9)] == [7]
    store.close()


def test_headers_of_an_older_store_are_found_with_new_ones(path: Path) -> None:
    """Otherwise a document that begins to match after an update comes without what was written to it before."""
    store = SqliteStore.open(path, boot_id=b"boot")
    with store.transaction():
        places(store).insert_entries([header(51, tag(1)), header(52, tag(2))])
        places(store).touches.add(touches_of([header(51, tag(1)), header(52, tag(2))]))
    store.close()
    bring_back_to(path, 9)
    store = SqliteStore.open(path, boot_id=b"boot")
    store_headers(store, [header(53, tag(1)), header(54, tag(3))])
    for _ in range(2):
        assert [[one.arrival for one in noted(places(store), tag(n))] for n in (1, 2, 3)] == [[51, 53], [52], [54]]
        assert list(store.verify()) == []
        store.close()
        store = SqliteStore.open(path, boot_id=b"boot")
    store.close()


def test_documents_of_an_older_store_may_expire(path: Path) -> None:
    """Otherwise a node that was updated takes its old documents for damaged, or keeps all for ever."""
    bring_back_to(path, 5)
    store = SqliteStore.open(path, boot_id=b"boot")
    tables = places(store)
    assert [row.id for row in tables.document_rows("", 50)] == [f"d{n:06}" for n in range(1, 51)]
    assert tables.damaged_documents(b"", 99) == ([], None)
    with store.transaction():
        tables.put_documents([document("d000007", 7, expires_ms=1000)], 0)
    assert tables.expiring(Moment(0, ""), Moment(2000, ""), 9) == [Moment(1000, "d000007")]
    assert list(store.verify()) == []
    store.close()


def test_an_older_store_lets_its_past_go(tmp_path: Path) -> None:
    """Otherwise only new nodes could."""
    path = tmp_path / "store.db"
    store = SqliteStore.open(path, boot_id=b"boot")
    replica_of(store).append([Operation(PUT, "x", {"n": 0})], START_MS)
    store.close()
    bring_back_to(path, 7)
    store = SqliteStore.open(path, boot_id=b"boot")
    replica = replica_of(store)
    for number in range(1, 3):
        replica.append([Operation(PUT, "x", {"n": number})], START_MS)
    replica.retaining.keep(LATEST)
    replica.retaining.kept_elsewhere(99)
    while replica.retaining.step(START_MS):
        pass
    assert replica.retaining.dropped.entries == 2
    store.close()
    store = SqliteStore.open(path, boot_id=b"boot")
    assert replica_of(store).retaining.retention == LATEST
    assert places(store).marked() == 2
    assert list(store.verify()) == []
    store.close()


def replica_of(store: SqliteStore) -> Replica:
    return Replica(store, store.collection(PLACES, "places"), Author(1).key)


def pasts(replica: Replica) -> dict[str, list[Write]]:
    """What was ever written, by document."""
    past = Past(replica)
    return {row.id: list(past.writes(row)) for row in past.rows()}


def shape(path: Path) -> dict[str, set[object]]:
    """What each table has for columns, in whatever order, and each index."""
    connection = apsw.Connection(str(path))
    made = run(connection, "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    columns = 'SELECT name, type, "notnull", pk FROM pragma_table_xinfo(?)'
    found: dict[str, set[object]] = {
        name: set(connection.execute(columns, (name,))) if kind == "table" else {sql} for kind, name, sql in made
    }
    connection.close()
    return found


def test_a_store_of_version_4_is_what_it_was_and_shaped_as_a_new_one(tmp_path: Path) -> None:
    """Otherwise an owner who updates loses something, or has a file that the next step was never tried with."""
    path, new = tmp_path / "store.db", tmp_path / "new.db"
    connection = apsw.Connection(str(path))
    connection.execute(VERSION_4.read_text(encoding="utf-8"))
    connection.close()
    store = SqliteStore.open(path, boot_id=b"boot")
    roots, bodies = {}, {}
    for id, name in store.collections():
        replica = Replica(store, store.collection(id, name), Author(1).key)
        assert (replica.entry_count(), replica.document_count(), replica.tables.marked()) == (8, 2, 0)
        assert [row.arrival for row in replica.tables.bare_entries(9)] == [8]
        assert {id: len(found) for id, found in pasts(replica).items()} == {"a": 3, "b": 3, "gone": 2}
        assert [row.id for row in replica.tables.document_rows("", 9, contested=True)] == ["a", "b"]
        roots[name] = replica.root().hex()[:8]
        bodies[name] = {row.id: replica.merger.body(row, None) for row in Past(replica).rows()}
    b = {"n": 1, "m": 2, "k": True}
    assert bodies == {
        "places": {"a": {"n": 2}, "b": b, "gone": None},
        "notes": {"a": {"n": {"$conflict": [2, 9]}}, "b": b, "gone": None},
    }
    assert roots == {"places": "360d6997", "notes": "5cb203d4"}
    assert list(store.verify()) == []
    store.close()
    store = SqliteStore.open(new, boot_id=b"boot")
    for name in ("places", "notes"):
        store.collection(CollectionId.of_name(name), name)
    store.close()
    assert shape(path) == shape(new)


def test_copy_of_the_older_store_stays(version_0: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise there would be no way back to the older meshsync.  It counts as a backup, because the log went on."""
    migrate_with(monkeypatch, {0: add_names})
    SqliteStore.open(version_0, boot_id=b"boot").close()
    copy = apsw.Connection(str(version_0.with_name("store.db-v0")))
    assert migrations.version_of(copy) == 0
    assert run(copy, "SELECT count(*) FROM entries_1") == [(50,)]
    assert run(copy, "SELECT backup FROM store") == [(1,)]
    copy.close()


def test_failed_step_leaves_the_older_store(version_0: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a bug in a step, or a full disk, would leave a store of no version at all."""

    def fail(connection: apsw.Connection) -> None:
        add_names(connection)
        run(connection, "SELECT * FROM nowhere")

    migrate_with(monkeypatch, {0: fail})
    with pytest.raises(StoreError, match="nowhere"):
        SqliteStore.open(version_0, boot_id=b"boot")
    migrate_with(monkeypatch, {0: add_names})
    store = SqliteStore.open(version_0, boot_id=b"boot")
    assert store.peers() == []
    store.close()


def test_newer_store_is_refused(path: Path) -> None:
    """A newer version may mean its tables otherwise; both versions are named, so that one knows which to install."""
    known = migrations.SCHEMA_VERSION
    set_version(path, known + 1)
    with pytest.raises(StoreError, match=rf"version {known + 1}, and this meshsync knows versions up to {known}\b"):
        SqliteStore.open(path, boot_id=b"boot")


def test_version_that_nothing_leads_from_is_refused(path: Path) -> None:
    """Otherwise its tables would be taken for the present ones."""
    set_version(path, 0)
    with pytest.raises(StoreError, match="nothing leads from 0 to 1"):
        SqliteStore.open(path, boot_id=b"boot")


def test_there_is_a_step_from_every_version() -> None:
    """A version that is raised without its step would lock every owner out."""
    assert sorted(migrations.STEPS) == list(range(1, migrations.SCHEMA_VERSION))
