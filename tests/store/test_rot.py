"""Bit rot: no reader of a store gets a row that is not what was written.

The files are changed by a connection of their own, or byte by byte, while nobody has them open; SQLite sees nothing
of either.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from meshsync.errors import DamagedError
from meshsync.store.base import CollectionTables
from meshsync.store.memory import MemoryStore
from meshsync.store.memory_tables import MemoryTables
from meshsync.store.rows import LOST_STATE, DocumentPayload, EntryRow
from meshsync.store.sqlite import SqliteStore
from tests.store.rows import PLACES, document, entry, places, scan_documents

PARENTS = struct.pack(">IQ", 1, 2)
SEAL = b"s" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store with six entries: 3 has parents and a seal, 5 is bare; each has a document, d6 a merged one."""
    path = tmp_path / "store.db"
    store = SqliteStore.open(path, boot_id=b"boot")
    tables = places(store)
    rows = [entry(n, payload=b"payload %d" % n) for n in range(1, 7)]
    rows[2] = rows[2]._replace(parents=PARENTS, seal=SEAL)
    rows[4] = rows[4]._replace(payload=None, bare=b"bare 5")
    with store.transaction():
        tables.insert_entries(rows)
        documents = [document(f"d{n}", n) for n in (1, 2, 3, 4)] + [document("d6", 6, state=b"state 6")]
        tables.put_documents(documents, 5)
    store.close()
    return path


def changed(path: Path, sql: str) -> tuple[SqliteStore, CollectionTables, list[DamagedError]]:
    """The store opened after a statement, and the damage that it tells of."""
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    assert connection.changes() == 1
    connection.close()
    return opened(path)


def opened(path: Path) -> tuple[SqliteStore, CollectionTables, list[DamagedError]]:
    """The store, its collection, and the damage that it tells of."""
    store = SqliteStore.open(path, boot_id=b"boot")
    tables = store.collection(PLACES, "places")
    found: list[DamagedError] = []
    tables.found_damage = found.append
    return store, tables, found


HEAD_DAMAGE = [
    "UPDATE entries_1 SET id = CAST(x'00' || substr(id, 2) AS BLOB) WHERE arrival = 3",
    "UPDATE entries_1 SET hlc = hlc + 1 WHERE arrival = 3",
    "UPDATE entries_1 SET hlc = hlc + (1 << 40) WHERE arrival = 3",
    "UPDATE entries_1 SET height = height + 64 WHERE arrival = 3",
    "UPDATE entries_1 SET parents = CAST(x'01' || substr(parents, 2) AS BLOB) WHERE arrival = 3",
    "UPDATE entries_1 SET parents = NULL WHERE arrival = 3",
    "UPDATE entries_1 SET seal = CAST(x'00' || substr(seal, 2) AS BLOB) WHERE arrival = 3",
    "UPDATE entries_1 SET head_crc = head_crc + 1, crc = crc + 1 WHERE arrival = 3",
]
BODY_DAMAGE = [
    "UPDATE entries_1 SET payload = CAST(x'00' || substr(payload, 2) AS BLOB) WHERE arrival = 3",
    "UPDATE entries_1 SET payload = x'' WHERE arrival = 3",
    "UPDATE entries_1 SET payload = NULL WHERE arrival = 3",
    "UPDATE entries_1 SET bare = x'00' WHERE arrival = 3",
    "UPDATE entries_1 SET crc = crc + 1 WHERE arrival = 3",
]
READERS: list[Callable[[CollectionTables], object]] = [
    lambda tables: tables.entry(3),
    lambda tables: tables.entries_of(1, 2, 9),
    lambda tables: tables.entries_from(3, 9),
]


@pytest.mark.parametrize("damage", HEAD_DAMAGE + BODY_DAMAGE)
def test_damaged_entry_is_not_read(path: Path, damage: str) -> None:
    """It would be shown to people, or sent to peers, who take this node for a liar."""
    store, tables, found = changed(path, damage)
    for read in READERS:
        with pytest.raises(DamagedError, match="verify --repair") as raised:
            read(tables)
        assert (raised.value.arrival, raised.value.has_head) == (3, damage in BODY_DAMAGE)
    assert [error.arrival for error in found] == [3, 3, 3]
    store.close()


@pytest.mark.parametrize("damage", HEAD_DAMAGE + BODY_DAMAGE)
def test_entries_around_a_damaged_one_are_read(path: Path, damage: str) -> None:
    """One bad sector must not take the rest with it."""
    store, tables, found = changed(path, damage)
    assert [row.arrival for row in tables.entries_from(1, 9)] == [1, 2]
    assert [row.arrival for row in tables.entries_of(1, 0, 9)] == [1, 2]
    assert [row.arrival for row in tables.entries_of(1, 3, 9)] == [4, 5, 6]
    assert [error.arrival for error in found] == [3, 3]
    store.close()


@pytest.mark.parametrize("damage", HEAD_DAMAGE)
def test_damaged_head_is_nothing_to_build_upon(path: Path, damage: str) -> None:
    """An entry rebuilt on a wrong id or time gets another id, and its author's seal seems forged."""
    store, tables, _ = changed(path, damage)
    with pytest.raises(DamagedError):
        tables.entry_at(1, 3)
    if "parents = NULL" not in damage:
        with pytest.raises(DamagedError):
            tables.merges_before(1, 9, 9)
    store.close()


@pytest.mark.parametrize("damage", BODY_DAMAGE)
def test_head_of_an_entry_with_a_damaged_payload_can_be_built_upon(path: Path, damage: str) -> None:
    """Otherwise one damaged payload would stop its log, and not only be missing."""
    store, tables, found = changed(path, damage)
    head = tables.entry_at(1, 3)
    assert head is not None
    assert head.id == entry(3).id
    assert [row.seq for row in tables.merges_before(1, 9, 9)] == [3]
    assert found == []
    store.close()


def test_damaged_tip_is_told(path: Path) -> None:
    """The tips are what a node says that it holds."""
    store, tables, _ = changed(path, "UPDATE entries_1 SET hlc = hlc + 1 WHERE arrival = 6")
    with pytest.raises(DamagedError):
        tables.tip(1)
    store.close()


def test_damaged_description_of_an_absent_payload_is_not_read(path: Path) -> None:
    """A peer would be asked for what is not wanted, and its answer taken for a lie."""
    store, tables, _ = changed(
        path, "UPDATE entries_1 SET bare = CAST(x'00' || substr(bare, 2) AS BLOB) WHERE arrival = 5"
    )
    assert tables.bare_entries(9) == []
    with pytest.raises(DamagedError):
        tables.entry(5)
    store.close()


@pytest.mark.parametrize(
    ("damage", "has_head", "has_body"),
    [(damage, False, True) for damage in HEAD_DAMAGE[:-1]] + [(damage, True, False) for damage in BODY_DAMAGE],
)
def test_inspection_says_which_part_is_damaged(path: Path, damage: str, has_head: bool, has_body: bool) -> None:
    """A payload is asked for by the head, and a head is made anew around its payload."""
    store, tables, found = changed(path, damage)
    inspected = tables.inspect_entries(1, 9)
    assert [(one.has_head, one.has_body) for one in inspected[:3]] == [(True, True), (True, True), (has_head, has_body)]
    assert all(one.has_head and one.has_body for one in inspected[3:])
    assert found == []
    store.close()


def test_rewritten_entry_is_sound_again(path: Path) -> None:
    """This is what a repair ends with."""
    store, tables, _ = changed(path, "UPDATE entries_1 SET id = x'00', payload = x'00' WHERE arrival = 3")
    row = entry(3, parents=PARENTS, payload=b"payload 3", seal=SEAL)
    with store.transaction():
        tables.rewrite_entry(row)
    assert tables.entry(3) == row
    assert tables.counts() == (6, 5, 1)
    store.close()


def test_blob_that_became_text_does_not_hide_the_others(path: Path) -> None:
    """The lowest bit of a value's type tells text from blobs, and text that is no UTF-8 cannot be read at all."""
    data = bytearray(path.read_bytes())
    id = entry(3).id
    at = data.index(id)
    header = data.rindex(bytes((2 * 32 + 12,)), 0, at)  # the type of a blob of 32 bytes
    data[header] += 1
    path.write_bytes(data)
    store, tables, _ = opened(path)
    assert [row.arrival for row in tables.entries_from(1, 9)] in ([1, 2], [1, 2, 3, 4, 5, 6])
    assert [row.id for row in tables.entries_from(4, 9)] == [entry(n).id for n in (4, 5, 6)]
    assert tables.tip(1) is not None
    damaged = tables.inspect_entries(3, 1)[0]
    assert (damaged.row.id, damaged.has_head, damaged.has_body) == (id, False, True)
    with store.transaction():
        tables.rewrite_entry(damaged.row)
    assert tables.inspect_entries(3, 1)[0].has_head
    assert list(store.verify()) == []
    store.close()


def test_byte_flipped_in_the_file_is_noticed(path: Path) -> None:
    """SQLite has no checksums of its own."""
    data = path.read_bytes()
    assert data.count(b"payload 3") == 1
    path.write_bytes(data.replace(b"payload 3", b"payLoad 3"))
    store, tables, _ = opened(path)
    assert list(store.verify()) == []
    with pytest.raises(DamagedError, match="the payload of entry 3"):
        tables.entry(3)
    store.close()


DOCUMENT_DAMAGE = [
    "UPDATE documents_1 SET state = CAST(x'00' || substr(state, 2) AS BLOB) WHERE id = 'd6'",
    "UPDATE documents_1 SET state = NULL WHERE id = 'd6'",
    "UPDATE documents_1 SET arrival = 5 WHERE id = 'd6'",
    "UPDATE documents_1 SET op = 1 WHERE id = 'd6'",
    "UPDATE documents_1 SET conflict = 0 WHERE id = 'd6'",
    "UPDATE documents_1 SET expires = 1000 WHERE id = 'd6'",
    "UPDATE documents_1 SET expires = 0 WHERE id = 'd6'",
    "UPDATE documents_1 SET crc = crc + 1 WHERE id = 'd6'",
]


@pytest.mark.parametrize("damage", DOCUMENT_DAMAGE)
def test_damaged_document_is_lost_and_never_shown(path: Path, damage: str) -> None:
    """What nobody ever wrote would be shown, and merged into what is written next."""
    store, tables, found = changed(path, damage)
    assert tables.documents(["d6", "d1"])["d6"].state == LOST_STATE
    assert tables.documents(["d1"]) == {"d1": document("d1", 1)}
    scanned = list(scan_documents(tables))
    assert [one.row.id for one in scanned] == ["d1", "d2", "d3", "d4", "d6"]
    assert scanned[-1].row.state == LOST_STATE
    assert {error.document for error in found} == {"d6"}
    assert tables.damaged_documents(b"", 9) == ([b"d6"], None)
    store.close()


@pytest.mark.parametrize("damage", DOCUMENT_DAMAGE)
def test_damaged_document_is_not_left_out_by_a_hint(path: Path, damage: str) -> None:
    """Nobody would be told of it: the hint has looked at what may be another document's."""
    store, tables, found = changed(path, damage)
    page = tables.document_page(None, 9, hint=lambda _: False)
    assert [(one.row.id, one.row.state) for one in page.documents] == [("d6", LOST_STATE)]
    assert page.looked_at == 5
    assert {error.document for error in found} == {"d6"}
    store.close()


@pytest.mark.parametrize("damage", DOCUMENT_DAMAGE)
def test_damaged_document_is_not_left_out_by_payloads_at_hand(path: Path, damage: str) -> None:
    """A peer would not get what it wants: the payload at hand may not be what the document is."""
    store, tables, found = changed(path, damage)
    at_hand = {n: b"payload %d" % n for n in (1, 2, 3, 4, 6)}
    documents = tables.document_payloads(["d1", "d2", "d6"], lambda _: False, at_hand)
    assert [(one.row.id, one.row.state) for one in documents] == [("d6", LOST_STATE)]
    assert {error.document for error in found} == {"d6"}
    store.close()


def test_document_under_the_id_of_another_is_not_left_out_by_a_hint(path: Path) -> None:
    """Looked up by its id, it would be taken for the other one, which is sound and does not match."""
    data = path.read_bytes()
    assert data.count(b"d3\x03") == 1
    path.write_bytes(data.replace(b"d3\x03", b"d2\x03"))
    store, tables, found = opened(path)
    page = tables.document_page(None, 9, hint=lambda _: False)
    assert [(one.row.id, one.row.state) for one in page.documents] == [("d2", LOST_STATE)]
    assert [error.document for error in found] == ["d2"]
    store.close()


def test_hint_leaves_the_same_however_many_pass(path: Path) -> None:
    """Pages that pass little are read in another way than those that pass much."""
    for passing in (list[bytes](), [b"payload 3"], [b"payload 1", b"payload 2", b"state 6"], [b"state 6"], []):
        store, tables, _ = opened(path)
        for reverse in (False, True):
            ids: list[str] = []
            after = None
            while True:
                page = tables.document_page(after, 2, reverse=reverse, hint=passing.__contains__)
                ids += [one.row.id for one in page.documents]
                after = page.last
                if after is None:
                    break
            assert ids == sorted([f"d{stored[-1:].decode()}" for stored in passing], reverse=reverse)
        store.close()


@pytest.mark.parametrize("serial_type", [b"\x0e", b"\x0f"])
def test_document_that_points_at_no_number_is_lost(path: Path, serial_type: bytes) -> None:
    """A scan would end with an error in the middle, and show nothing of what is sound."""
    data = path.read_bytes()
    at = data.index(b"d3\x03")
    start = data.rindex(b"\x11\x01\x08\x09\x08", 0, at)  # the types of id, arrival, op, live and conflict
    assert at - start < 9
    path.write_bytes(data[: start + 1] + serial_type + data[start + 2 :])
    store, tables, found = opened(path)
    for hint, count in ((operator.not_, 1), (bool, 5)):
        page = tables.document_page(None, 9, hint=hint)
        assert ("d3", LOST_STATE) in [(one.row.id, one.row.state) for one in page.documents]
        assert len(page.documents) == count
    assert {error.document for error in found} == {"d3"}
    store.close()


def test_documents_behind_payloads_at_hand_are_looked_at(path: Path) -> None:
    """What an entry says is not what its document became since; and what was at hand says nothing of others."""
    store, tables, _ = opened(path)
    at_hand = {1: b"earlier 2", 3: b"payload 3", 6: b"earlier 6"}
    for passing in (list[bytes](), [b"payload 2"], [b"payload 3", b"state 6"], [b"state 6"], [b"earlier 6"]):
        found = tables.document_payloads(["d2", "d3", "d6", "d7"], passing.__contains__, at_hand)
        assert [one.payload or one.row.state for one in found] == [one for one in passing if one[:7] != b"earlier"]
    store.close()


def test_deleted_document_that_is_damaged_is_found(path: Path) -> None:
    """It may not be deleted at all."""
    store, tables, _ = changed(path, "UPDATE documents_1 SET live = 0 WHERE id = 'd6'")
    assert tables.documents(["d6"])["d6"].live
    assert tables.damaged_documents(b"d1", 4) == ([b"d6"], b"d6")
    assert tables.damaged_documents(b"d6", 4) == ([], None)
    store.close()


def test_scan_gives_no_damaged_payload(path: Path) -> None:
    """Listings take the payload from there."""
    store, tables, _ = changed(path, BODY_DAMAGE[0])
    scanned = {one.row.id: one for one in scan_documents(tables)}
    assert scanned["d3"] == DocumentPayload(document("d3", 3), None)
    assert scanned["d2"].payload == b"payload 2"
    store.close()


def test_document_under_a_damaged_id_can_be_forgotten(path: Path) -> None:
    """A row whose id is not even text would stay for ever."""
    store, tables, _ = changed(path, "UPDATE documents_1 SET id = CAST(x'ff36' AS TEXT) WHERE id = 'd6'")
    assert tables.damaged_documents(b"", 9) == ([b"\xff6"], None)
    with store.transaction():
        tables.forget_documents([b"\xff6"])
        tables.recount()
    assert tables.damaged_documents(b"", 9) == ([], None)
    assert tables.counts() == (6, 4, 1)
    store.close()


def test_damaged_list_of_logs_is_refused(path: Path) -> None:
    """Entries of one author would be announced as another's."""
    store, tables, _ = changed(path, "UPDATE branches_1 SET author = CAST(x'00' || substr(author, 2) AS BLOB)")
    with pytest.raises(DamagedError, match="move its store away"):
        tables.branches()
    store.close()


def test_memory_rots_like_the_disk() -> None:
    """The simulator meets damage in memory; it must look the same."""
    store = MemoryStore(random_bytes=bytes)
    tables = places(store)
    assert isinstance(tables, MemoryTables)
    rows: list[EntryRow] = [entry(n, payload=b"payload %d" % n) for n in range(1, 5)]
    with store.transaction():
        tables.insert_entries(rows)
        tables.put_documents([document("d2", 2), document("d3", 3)], 2)
    tables.rot_entry(2, payload=b"other")
    tables.rot_entry(4, id=bytes(32))
    tables.rot_document("d3")
    assert [row.arrival for row in tables.entries_from(1, 9)] == [1]
    assert [row.arrival for row in tables.entries_from(3, 9)] == [3]
    assert [(one.has_head, one.has_body) for one in tables.inspect_entries(2, 9)] == [
        (True, False),
        (True, True),
        (False, True),
    ]
    with pytest.raises(DamagedError):
        tables.tip(1)
    assert [(one.row.id, one.row.state, one.payload) for one in scan_documents(tables)] == [
        ("d2", None, None),
        ("d3", LOST_STATE, None),
    ]
    with store.transaction():
        tables.rewrite_entry(rows[1])
    assert [row.arrival for row in tables.entries_from(1, 9)] == [1, 2, 3]
    store.close()
