"""Documents that expire: the same everywhere from the entries alone, and shown as long as it is time."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.entry import DELETE, NEVER, PATCH, PUT, Operation
from meshsync.core.policy import Policy, collection_id
from meshsync.core.query import Query
from meshsync.errors import StoreError
from meshsync.store.base import Store
from meshsync.store.healing import DocumentRebuild
from meshsync.store.listing import Listing
from meshsync.store.replica import Replica
from meshsync.store.rows import Moment
from tests.authors import COLLECTION, START_MS, Author, batch_of
from tests.histories import LATER_MS, SOON_MS, histories, in_any_order
from tests.replicas import apply, give, new_replica
from tests.store.rows import document, fill, scan_documents

HOUR_MS = START_MS + 3_600_000


def follow(replica: Replica, now_ms: int) -> None:
    """Let the rows follow the time to this moment."""
    while replica.expiries.step(now_ms):
        pass


def shown(replica: Replica) -> dict[str, Any]:
    """The documents that are shown, as listings read them; they are as many as are counted."""
    found = {one.row.id: replica.merger.body(*one) for one in scan_documents(replica.tables)}
    assert replica.tables.counts()[1] == len(found)
    return found


def write(replica: Replica, kind: int, id: str, expires_ms: int | None = None, now_ms: int = START_MS) -> None:
    replica.append([Operation(kind, id, None if kind == DELETE else {"kind": "note"}, expires_ms)], now_ms)


@pytest.fixture
def notes(store: Store) -> Replica:
    return Replica(store, store.collection(COLLECTION, "notes"), Author(99).key)


@given(st.sampled_from(Policy), st.data())
def test_what_is_shown_follows_from_the_entries_and_the_time_alone(policy: Policy, data: st.DataObject) -> None:
    """Whether a document expires before or after its extension arrives, and whatever clocks said then, two nodes with
    the same entries would show different documents at the same time.
    """
    entries = data.draw(histories(collection_id("notes", policy)))
    bare = [entry for entry in entries if data.draw(st.booleans())]
    times = st.sampled_from([START_MS, SOON_MS - 1, SOON_MS, LATER_MS - 1, LATER_MS, LATER_MS + 100_000])
    found = []
    for order in (in_any_order(entries, data), in_any_order(entries, data)):
        replica = new_replica(collection=collection_id("notes", policy))
        for entry in order:
            apply(replica, *batch_of([entry], bare=[entry] if entry in bare else []))
            follow(replica, data.draw(times))
        for entry in data.draw(st.permutations(bare)):
            assert replica.fill_payload(entry.log, entry.seq, entry.payload) is not None
            follow(replica, data.draw(times))
        row = replica.tables.documents(["d"])["d"]
        exists = replica.merger.state(row).visible() is not None
        for now_ms in (LATER_MS + 100_000, START_MS, SOON_MS, LATER_MS):
            before = replica.expiries.passed_ms
            follow(replica, now_ms)
            # A clock that is set back by a little does not make documents come and go.
            at = before if before - 60_000 <= now_ms <= before else now_ms
            assert bool(shown(replica)) == (exists and (row.expires_ms is None or at < row.expires_ms))
        found.append((exists, row.expires_ms, replica.merger.state(row).visible()))
    assert found[0] == found[1]


def test_documents_go_when_it_is_time(notes: Replica) -> None:
    """Otherwise an expired document is listed, counted, found by an index and matched for ever."""
    notes.indexes.add("kind")
    while not notes.indexes.is_settled:
        notes.indexes.step()
    notes.choose(Query.parse("kind=note"))
    for number in range(600):
        write(notes, PUT, f"d{number:03}", HOUR_MS + number)
    write(notes, PUT, "for ever")
    follow(notes, HOUR_MS - 1)
    assert len(shown(notes)) == notes.document_count() == 601
    follow(notes, HOUR_MS + 298)
    assert [*shown(notes)] == [f"d{number:03}" for number in range(299, 600)] + ["for ever"]
    assert notes.document_count() == 302
    row = notes.indexes.declared()[0]
    assert notes.tables.keys.count(row.number, b"", b"\xff", 9999) == 302
    assert notes.indexes.check(row.number, "") == ([], "d554")
    follow(notes, HOUR_MS + 599)
    assert [*shown(notes)] == ["for ever"]
    assert list(notes.store.verify()) == []
    follow(notes, HOUR_MS + 599 - 59_999)
    assert [*shown(notes)] == ["for ever"]
    follow(notes, START_MS)
    assert len(shown(notes)) == notes.document_count() == 601
    assert notes.tables.keys.count(row.number, b"", b"\xff", 9999) == 601


@pytest.mark.parametrize("is_opened", [True, False])
@pytest.mark.parametrize("part", [None, Query.parse("kind=note")])
def test_what_is_due_is_not_shown_before_its_turn_comes(notes: Replica, part: Query | None, is_opened: bool) -> None:
    """Many documents go in slices: one that waits for its turn is neither listed, nor counted, nor sent for a query."""
    for number in range(600):
        write(notes, PUT, f"d{number:03}", SOON_MS + number)
    write(notes, PUT, "later", LATER_MS)
    replica = notes
    if is_opened:
        replica = Replica(notes.store, notes.tables, notes.key)
        assert replica.expiries.step(SOON_MS + 598)
    replica.choose(part)
    while replica.interest is not None and not replica.interest.step():
        pass
    assert replica.expiries.step(SOON_MS + 598)
    write(replica, PATCH, "d550", LATER_MS)
    write(replica, PUT, "d560", SOON_MS)
    is_left = True
    while is_left:
        assert [one.document.row.id for one in Listing(replica, Query())] == ["d550", "d599", "later"]
        assert replica.document_count() == 3
        named, _ = replica.selection.next_matching(Query.parse("kind=note"), None, 1000)
        assert len(named) == 3
        is_left = replica.expiries.step(SOON_MS + 598)
    assert len(shown(replica)) == 3
    assert list(replica.store.verify()) == []


def test_what_becomes_due_meanwhile_goes_with_the_rest(notes: Replica) -> None:
    """Otherwise it is shown for as long as it takes to let many others go."""
    for number in range(600):
        write(notes, PUT, f"d{number:03}", SOON_MS)
    write(notes, PUT, "next", SOON_MS + 5)
    assert notes.expiries.step(SOON_MS)
    assert notes.document_count() == 1
    assert notes.expiries.step(SOON_MS + 5)
    assert notes.document_count() == 0
    assert notes.expiries.is_past(SOON_MS + 5)
    follow(notes, SOON_MS + 5)
    assert shown(notes) == {}


def test_an_extension_brings_a_document_back(notes: Replica) -> None:
    """It was written before the document expired, and comes when it has: whoever wrote it, sees the document."""
    author = Author(1)
    first = author.write([Operation(PUT, "d", {"a": 1}, SOON_MS)])
    extension = author.write([Operation(PATCH, "d", {}, LATER_MS)])
    forever = author.write([Operation(PATCH, "d", {}, NEVER)])
    give(notes, first)
    follow(notes, SOON_MS)
    assert shown(notes) == {}
    give(notes, extension)
    assert shown(notes) == {"d": {"a": 1}}
    follow(notes, LATER_MS)
    assert shown(notes) == {}
    give(notes, forever)
    assert shown(notes) == {"d": {"a": 1}}
    follow(notes, LATER_MS * 2)
    assert shown(notes) == {"d": {"a": 1}}


def test_the_time_of_an_entry_counts_where_the_clock_is_behind(notes: Replica) -> None:
    """Otherwise a node whose clock stands still shows for ever what all others have forgotten."""
    write(notes, PUT, "d", SOON_MS)
    follow(notes, START_MS)
    give(notes, Author(1).write([Operation(PUT, "other", {})], hlc=SOON_MS << 16))
    follow(notes, START_MS)
    assert [*shown(notes)] == ["other"]
    assert notes.expiries.has_expired(SOON_MS, 0)


def test_the_moment_outlives_the_process(notes: Replica) -> None:
    """Otherwise what expired before a restart is shown after it, or stays hidden when the clock was wrong."""
    write(notes, PUT, "d", SOON_MS)
    write(notes, PUT, "e", LATER_MS)
    follow(notes, SOON_MS)
    again = Replica(notes.store, notes.tables, notes.key)
    assert (again.expiries.passed_ms, again.expiries.next_ms) == (SOON_MS, LATER_MS)
    follow(again, START_MS)
    assert [*shown(again)] == ["e"]
    follow(again, LATER_MS + 60_000)
    assert [*shown(again)] == []
    third = Replica(notes.store, notes.tables, notes.key)
    follow(third, START_MS)
    assert [*shown(third)] == ["d", "e"]


def test_what_comes_first_is_told(notes: Replica) -> None:
    """Otherwise whoever waits for the next document to expire sleeps too long."""
    told: list[int | None] = []
    notes.expiries.comes_earlier = lambda: told.append(notes.expiries.next_ms)
    for expires_ms in (LATER_MS, LATER_MS + 1, SOON_MS, None, SOON_MS):
        write(notes, PUT, f"{expires_ms}", expires_ms)
    assert told == [LATER_MS, SOON_MS]
    give(notes, Author(1).write([Operation(PUT, "other", {})], hlc=(SOON_MS << 16) - 1))
    assert told == [LATER_MS, SOON_MS]
    give(notes, Author(2).write([Operation(PUT, "other", {})], hlc=SOON_MS << 16))
    assert told == [LATER_MS, SOON_MS, SOON_MS]


def test_a_document_that_comes_late_was_never_shown(notes: Replica) -> None:
    """Otherwise it flickers up at every node that it reaches after its time."""
    write(notes, PUT, "d", SOON_MS)
    follow(notes, SOON_MS + 10)
    give(notes, Author(1).write([Operation(PUT, "late", {}, SOON_MS + 5), Operation(PUT, "later", {}, SOON_MS + 11)]))
    assert [*shown(notes)] == ["later"]


def test_documents_made_anew_expire_as_before(notes: Replica) -> None:
    """Otherwise a repair shows what has expired, or what expires is never found."""
    write(notes, PUT, "d", SOON_MS)
    write(notes, PATCH, "d", LATER_MS)
    write(notes, PUT, "e", SOON_MS)
    follow(notes, SOON_MS)
    rows = notes.tables.documents(["d", "e"])
    rebuild = DocumentRebuild(notes, [b"d", b"e"])
    while not rebuild.step():
        pass
    assert notes.tables.documents(["d", "e"]) == rows
    assert [*shown(notes)] == ["d"]


def test_a_disk_that_fails_delays_it(notes: Replica) -> None:
    """Otherwise what expired while the disk was full is shown until the next restart."""
    write(notes, PUT, "d", SOON_MS)
    real = notes.store.transaction

    def fails() -> Any:
        raise StoreError("the disk is full")

    notes.store.transaction = fails  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        follow(notes, SOON_MS)
    notes.store.transaction = real  # type: ignore[method-assign]
    follow(notes, SOON_MS)
    assert shown(notes) == {}


def test_every_store_finds_what_expires_next(store: Store) -> None:
    """Otherwise finding it takes a look at every document."""
    tables = fill(store, 9)

    def ids(start: Moment, end: Moment, limit: int = 9, *, reverse: bool = False) -> str:
        return "".join(moment.id for moment in tables.expiring(start, end, limit, reverse=reverse))

    times = {"a": 5, "b": 3, "c": 3, "d": 7, "e": None}
    with store.transaction():
        tables.put_documents([document(id, 1, expires_ms=ms) for id, ms in times.items()], 5)
    assert ids(Moment(0, ""), Moment(99, "")) == "bcad"
    assert ids(Moment(3, "c"), Moment(7, "d")) == "ca"
    assert ids(Moment(3, ""), Moment(7, ""), 2) == "bc"
    assert ids(Moment(3, ""), Moment(7, ""), 2, reverse=True) == "ac"
    assert tables.documents(["a", "e"]) == {id: document(id, 1, expires_ms=times[id]) for id in "ae"}
    with suppress(StoreError), store.transaction():
        tables.put_documents([document("a", 1, expires_ms=1), document("b", 1)], 0)
        raise StoreError("the disk is full")
    assert ids(Moment(0, ""), Moment(99, "")) == "bcad"
    with store.transaction():
        tables.put_documents([document("a", 1, expires_ms=1), document("b", 1)], 0)
        tables.forget_documents([b"c"])
    assert tables.expiring(Moment(0, ""), Moment(99, ""), 9) == [Moment(1, "a"), Moment(7, "d")]
    assert tables.damaged_documents(b"", 99) == ([], None)
