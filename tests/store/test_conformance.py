"""What every store does, whatever it is made of: branches, entries, documents."""

from __future__ import annotations

from contextlib import suppress

import pytest

from meshsync.core.bare import LET_GO, SUPERSEDED, mark_of, with_mark
from meshsync.errors import LocalError, StoreError
from meshsync.ids import CollectionId
from meshsync.store.base import Store
from meshsync.store.rows import ENTRY_BYTES, BranchRow, DocumentPayload, EntryHead, MergeRow
from tests.store.rows import AUTHOR, INCARNATION, LACKING, PLACES, document, entry, fill, places, scan_documents

# Collections


def test_collection_is_made_once(store: Store) -> None:
    """Otherwise two parts of a node would write to different tables of one name."""
    tables = store.collection(PLACES, "places")
    assert (tables.id, tables.name) == (PLACES, "places")
    assert store.collection(PLACES, "places") is tables
    assert store.collections() == [(PLACES, "places")]


def test_collection_without_a_name_gets_one_later_and_keeps_what_it_has(store: Store) -> None:
    """Otherwise what is carried for others is fetched a second time when the owner joins it."""
    tables = store.collection(PLACES, "")
    assert (tables.name, tables.is_named) == (PLACES.short, False)
    assert store.collections() == [(PLACES, "")]
    with store.transaction():
        tables.add_branch(AUTHOR, INCARNATION, None, 1)
        tables.insert_entries([entry(1)])
        with pytest.raises(LocalError):
            store.collection(PLACES, "places")
    assert store.collection(PLACES, "places") is tables
    assert (tables.name, tables.is_named) == ("places", True)
    assert store.collection(PLACES, "") is tables
    assert store.collections() == [(PLACES, "places")]
    assert tables.counts()[0] == 1


def test_size_follows_what_is_stored(store: Store) -> None:
    """Otherwise a quota is kept by nothing."""
    tables = fill(store, 3)
    size = sum(len(row.payload or b"") for row in tables.entries_from(1, 3)) + 3 * ENTRY_BYTES
    assert tables.size_bytes() == size
    with suppress(StoreError), store.transaction():
        tables.insert_entries([entry(4)])
        raise StoreError("the disk is full")
    assert tables.size_bytes() == size
    row = tables.entry(2)
    assert row is not None
    with store.transaction():
        tables.rewrite_entry(row._replace(payload=None, bare=b"bare"))
    assert tables.size_bytes() == size - len(row.payload or b"")
    with store.transaction():
        tables.recount()
    assert tables.size_bytes() == size - len(row.payload or b"")


def test_dropped_collection_is_gone_and_others_stay(store: Store) -> None:
    """Otherwise leaving a collection would keep its data, or take another's."""
    other = CollectionId.of_name("other")
    fill(store, 3)
    store.collection(other, "other")
    with store.transaction():
        for key in (f"a:{PLACES}", f"b:{PLACES}", f"a:{other}", "a", str(PLACES)):
            store.set_meta(key, b"kept")
    store.drop_collection(PLACES)
    assert store.collections() == [(other, "other")]
    assert places(store).counts() == (0, 0, 0)
    assert [store.meta(f"{what}:{PLACES}") for what in "ab"] == [None, None]
    assert [store.meta(key) for key in (f"a:{other}", "a", str(PLACES))] == [b"kept"] * 3


def test_dropped_collection_comes_back_under_a_new_incarnation(store: Store) -> None:
    """Otherwise its log would begin a second time with seq 1, and fork."""
    places(store)
    before = store.incarnation(PLACES)
    store.drop_collection(PLACES)
    places(store)
    assert store.incarnation(PLACES) != before


def test_dropping_an_unknown_collection_does_nothing(store: Store) -> None:
    """Otherwise a retry of a drop would fail."""
    store.drop_collection(PLACES)
    assert store.collections() == []


# Branches


def test_branches_are_numbered_from_one(store: Store) -> None:
    """Otherwise packed parents, which name branches by number, would name others."""
    tables = places(store)
    with store.transaction():
        assert tables.add_branch(AUTHOR, b"j" * 8, 1, 7) == 2
    assert tables.branches() == [
        BranchRow(1, AUTHOR, INCARNATION, None, 1, 0),
        BranchRow(2, AUTHOR, b"j" * 8, 1, 7, 0),
    ]


def test_covered_seq_is_kept(store: Store) -> None:
    """Otherwise the heads, and so the parents of the next entry, would be wrong after a start."""
    tables = places(store)
    with store.transaction():
        tables.set_covered([(1, 5)])
    assert tables.branches()[0].covered_seq == 5


# Entries


def test_entries_are_found_by_arrival_and_by_seq(store: Store) -> None:
    """Everything above stands on these look-ups."""
    tables = places(store)
    rows = [entry(n) for n in range(1, 6)]
    with store.transaction():
        tables.insert_entries(rows)
    assert tables.entry(3) == rows[2]
    assert tables.entry(6) is None
    assert tables.entry_at(1, 3) == EntryHead(3, rows[2].id, rows[2].hlc, rows[2].height)
    assert tables.entry_at(1, 6) is None
    assert tables.entry_at(2, 1) is None
    assert tables.entries_from(2, 2) == rows[1:3]
    assert tables.entries_from(6, 2) == []
    assert tables.entries_of(1, 2, 2) == rows[2:4]
    assert tables.entries_of(2, 0, 2) == []
    assert tables.tip(1) == (5, EntryHead(5, rows[4].id, rows[4].hlc, rows[4].height))
    assert tables.next_arrival() == 6


def test_branch_without_entries_has_no_tip(store: Store) -> None:
    """Otherwise an empty log would be announced to peers."""
    assert places(store).tip(1) is None


def test_entries_of_a_forked_branch_begin_where_it_forked(store: Store) -> None:
    """Otherwise the second branch of a fork could not be read."""
    tables = fill(store, 3)
    with store.transaction():
        branch = tables.add_branch(AUTHOR, INCARNATION, 1, 3)
        tables.insert_entries([entry(4, branch, 3), entry(5, branch, 4)])
    assert [row.seq for row in tables.entries_of(branch, 0, 10)] == [3, 4]
    assert [row.seq for row in tables.entries_of(branch, 3, 10)] == [4]
    tip = tables.tip(branch)
    assert tip is not None
    assert tip[0] == 4


def test_arrivals_have_no_gap(store: Store) -> None:
    """A cursor counts arrivals: a gap would be waited for, or entries skipped."""
    tables = fill(store, 2)
    with pytest.raises(LocalError, match="arrival"), store.transaction():
        tables.insert_entries([entry(4)])
    with pytest.raises(LocalError, match="arrival"), store.transaction():
        tables.insert_entries([entry(3), entry(5)])
    assert tables.counts() == (2, 2, 0)


def test_seq_is_taken_once(store: Store) -> None:
    """Two entries with one seq in one branch would be a fork that nobody noticed."""
    tables = fill(store, 2)
    with pytest.raises(StoreError), store.transaction():
        tables.insert_entries([entry(3, 1, 2)])
    assert tables.next_arrival() == 3


def test_merges_are_walked_backwards(store: Store) -> None:
    """Otherwise the search for what an entry knew of would start at the wrong end."""
    tables = places(store)
    with store.transaction():
        tables.insert_entries([entry(n, parents=b"p%d" % n if n % 2 else None) for n in range(1, 8)])
    assert tables.merges_before(1, 6, 2) == [MergeRow(5, 5 << 16, b"p5"), MergeRow(3, 3 << 16, b"p3")]
    assert tables.merges_before(1, 7, 1) == [MergeRow(7, 7 << 16, b"p7")]
    assert tables.merges_before(1, 0, 9) == []
    assert tables.merges_before(2, 9, 9) == []


def test_seal_can_come_later(store: Store) -> None:
    """Own entries are sealed when they are first sent."""
    tables = fill(store, 2)
    with store.transaction():
        tables.rewrite_entry(entry(2)._replace(seal=b"s" * 64))
    assert [row.seal for row in tables.entries_from(1, 9)] == [None, b"s" * 64]


def test_payload_can_come_later(store: Store) -> None:
    """A collection that was read by query is read whole later on."""
    tables = places(store)
    with store.transaction():
        tables.insert_entries([entry(1), entry(2, payload=None), entry(3, payload=None)])
    assert tables.counts() == (3, 0, 2)
    assert [row.arrival for row in tables.bare_entries(9)] == [2, 3]
    assert [row.arrival for row in tables.bare_entries(1)] == [2]
    with store.transaction():
        tables.rewrite_entry(entry(2)._replace(payload=b"here", bare=None))
    row = tables.entry(2)
    assert row is not None
    assert (row.payload, row.bare) == (b"here", None)
    assert tables.counts() == (3, 0, 1)
    assert [row.arrival for row in tables.bare_entries(9)] == [3]


def test_payload_that_comes_twice_counts_once(store: Store) -> None:
    """Otherwise the number of missing payloads would go below nothing."""
    tables = places(store)
    with store.transaction():
        tables.insert_entries([entry(1, payload=None)])
        for _ in range(2):
            tables.rewrite_entry(entry(1)._replace(payload=b"here", bare=None))
    assert tables.counts() == (1, 0, 0)


def test_a_payload_with_a_mark_is_not_lacking(store: Store) -> None:
    """Otherwise a node asks its peers for ever for what it let go, or never says that it has everything."""
    tables = places(store)
    marked = [entry(n, payload=None)._replace(bare=with_mark(LACKING, SUPERSEDED)) for n in (2, 3)]
    with store.transaction():
        tables.insert_entries([entry(1), *marked, entry(4, payload=None), entry(5)])
    assert (tables.counts(), tables.marked()) == ((5, 0, 1), 2)
    assert [row.arrival for row in tables.bare_entries(9)] == [4]
    size = tables.size_bytes()
    with store.transaction():
        tables.rewrite_entry(entry(1, payload=None)._replace(bare=with_mark(LACKING, LET_GO)))
        tables.rewrite_entry(entry(3))
        tables.rewrite_entry(entry(4, payload=None)._replace(bare=with_mark(LACKING, LET_GO)))
        tables.rewrite_entry(entry(5, payload=None))
    assert (tables.counts(), tables.marked()) == ((5, 0, 1), 3)
    assert [row.arrival for row in tables.bare_entries(9)] == [5]
    assert [row.arrival for row in tables.marked_entries(2, 9)] == [2, 4]
    assert [row.arrival for row in tables.marked_entries(1, 2)] == [1, 2]
    assert tables.size_bytes() == size - len(b"payload")
    with suppress(RuntimeError), store.transaction():
        tables.rewrite_entry(entry(2))
        tables.rewrite_entry(entry(5))
        raise RuntimeError
    assert (tables.counts(), tables.marked()) == ((5, 0, 1), 3)
    store.rebuild_indexes()
    assert (tables.counts(), tables.marked()) == ((5, 0, 1), 3)
    assert [mark_of(row.bare) for row in tables.entries_from(1, 9) if row.bare] == [LET_GO, SUPERSEDED, LET_GO, None]
    assert list(store.verify()) == []


def test_greatest_hlc_fits(store: Store) -> None:
    """SQLite's integers end at 2**63 - 1; a clock in the year 4000 is far from there."""
    tables = places(store)
    row = entry(1)._replace(hlc=2**63 - 1)
    with store.transaction():
        tables.insert_entries([row])
    assert tables.entry(1) == row


# Documents


def test_documents_are_found_by_id(store: Store) -> None:
    """Every batch that arrives looks up the documents that it touches."""
    tables = places(store)
    rows = [document("a", 1), document("b", 2, live=False), document("ü", 3, state=b"merged")]
    with store.transaction():
        tables.put_documents(rows, 2)
    assert tables.documents(["ü", "a", "none", "b", "a"]) == {row.id: row for row in rows}
    assert tables.documents([]) == {}
    found = tables.documents(["b"])["b"]
    assert (found.live, found.conflict) == (False, False)
    assert type(found.live) is bool


def test_documents_are_replaced(store: Store) -> None:
    """Otherwise a document could be written once."""
    tables = places(store)
    with store.transaction():
        tables.put_documents([document("a", 1, state=b"old"), document("b", 1)], 2)
        tables.put_documents([document("a", 2, live=False)], -1)
    assert tables.documents(["a"]) == {"a": document("a", 2, live=False)}
    assert tables.counts() == (0, 1, 0)


def test_scan_is_in_the_order_of_bytes(store: Store) -> None:
    """The same listing on every node, whatever its locale; and the same as a cursor into it assumes."""
    tables = places(store)
    ids = ["", "A", "Z", "a", "aa", "b", "~", "é", "中", "\uffff", "😀", "nul\0nul"]
    with store.transaction():
        tables.insert_entries([entry(1)])
        tables.put_documents([document(id, 1) for id in ids], len(ids))
    expected = sorted(ids, key=str.encode)

    def scanned(after: str | None = None, *, reverse: bool = False) -> list[str]:
        return [found.row.id for found in scan_documents(tables, after, reverse=reverse)]

    at = expected.index("b")
    assert scanned() == expected
    assert scanned(reverse=True) == expected[::-1]
    assert scanned("b") == expected[at + 1 :]
    assert scanned("b", reverse=True) == expected[:at][::-1]
    assert scanned("no such id") == [id for id in expected if id > "no such id"]


def test_scan_brings_what_a_listing_needs(store: Store) -> None:
    """The payload where the row has no state, the state where it has one, and nothing of what was deleted."""
    tables = places(store)
    rows = [document("a", 1), document("b", 2, live=False), document("c", 2, state=b"merged")]
    with store.transaction():
        tables.insert_entries([entry(1, payload=b"one"), entry(2, payload=b"two")])
        tables.put_documents(rows, 2)
    assert list(scan_documents(tables)) == [DocumentPayload(rows[0], b"one"), DocumentPayload(rows[2], None)]


def test_scan_brings_documents_whose_payload_stayed_away(store: Store) -> None:
    """Otherwise a listing would be shorter than the count says."""
    tables = places(store)
    with store.transaction():
        tables.insert_entries([entry(1, payload=None)])
        tables.put_documents([document("a", 1)], 1)
    assert list(scan_documents(tables)) == [DocumentPayload(document("a", 1), None)]


@pytest.mark.parametrize("reverse", [False, True])
def test_others_write_while_a_scan_is_under_way(store: Store, reverse: bool) -> None:
    """Otherwise a listing of a large collection would hold up the node, or end in an error."""
    tables = fill(store, 1000)
    seen = []
    for found in scan_documents(tables, reverse=reverse):
        seen.append(found.row.id)
        if len(seen) % 100 == 0:
            with store.transaction():
                arrival = tables.next_arrival()
                tables.insert_entries([entry(arrival)])
                tables.put_documents([document(f"new{arrival}", arrival), document(seen[-1], 1, live=False)], 0)
    assert len(set(seen)) == len(seen)
    expected = [f"d{n:06}" for n in range(1, 1001)]
    assert [id for id in seen if id.startswith("d")] == (expected[::-1] if reverse else expected)
    assert tables.counts()[:2] == (len(seen) // 100 + 1000, 1000)


def test_rows_of_documents_come_in_pages_with_the_deleted_ones(store: Store) -> None:
    """Otherwise what was deleted has no past, and a conflict about a deletion is shown nowhere."""
    tables = fill(store, 3)
    with store.transaction():
        tables.put_documents([document("d000002", 2, live=False, state=b"s"), document("é", 3, state=b"s")], 0)
    rows = tables.document_rows("", 9)
    assert [row.id for row in rows] == ["d000001", "d000002", "d000003", "é"]
    assert [row.id for row in tables.document_rows("d000001", 2)] == ["d000002", "d000003"]
    assert tables.document_rows("", 9, contested=True) == [rows[1], rows[3]]
    assert tables.document_rows("d000002", 9, contested=True) == [rows[3]]
    assert tables.document_rows("é", 9) == []


def test_entries_are_found_by_the_beginning_of_their_ids(store: Store) -> None:
    """Otherwise nobody can say at which entry to look."""
    tables = fill(store, 20)
    ids = {row.arrival: row.id for row in tables.entries_from(1, 20)}
    first, last = bytes(32), b"\xff" * 32
    assert tables.entries_named(first, last, 5, 3) == [5, 6, 7]
    assert tables.entries_named(first, last, 19, 9) == [19, 20]
    assert tables.entries_named(ids[7], ids[7], 1, 20) == [7]
    assert tables.entries_named(ids[7], ids[7], 8, 20) == []
    middle = b"\x80" + bytes(31)
    assert tables.entries_named(middle, last, 1, 20) == [arrival for arrival, id in ids.items() if id >= middle]
