"""Which payloads the documents are made of: without the others they stay what they are, whatever comes later."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.bare import LET_GO, mark_of
from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.policy import Policy, collection_id
from meshsync.store.contributing import contributing
from meshsync.store.headers import rebuilt_id
from meshsync.store.healing import DocumentRebuild
from meshsync.store.replica import Replica
from meshsync.store.rows import LOST_STATE, EntryRow
from tests.authors import START_MS, Author, Made, batch_of
from tests.duo import Duo
from tests.histories import histories, in_any_order
from tests.replicas import apply, give, new_replica, put

COLLECTIONS = {policy: collection_id("notes", policy) for policy in Policy}


def rows_of(replica: Replica) -> list[EntryRow]:
    return list(replica.scan_entries())


def superseded(replica: Replica) -> list[EntryRow]:
    """The entries whose payloads are here and not needed."""
    rows = rows_of(replica)
    kept = contributing(replica, rows)
    return [row for row in rows if row.payload is not None and row.arrival not in kept]


def let_go_all(replica: Replica) -> int:
    with replica.store.transaction():
        return replica.payloads.let_go(superseded(replica))


def summary(replica: Replica) -> object:
    """What one can see of the document."""
    row = replica.tables.documents(["d"]).get("d")
    if row is None:
        return None
    state = replica.merger.state(row)
    # A damaged row, and one that was made anew, may hold the same things in another order.
    return row.live, row.expires_ms, row.conflict, state.visible(), sorted(state.stamps()), sorted(state.frontier)


@given(st.sampled_from(Policy), st.data())
def test_documents_stay_what_they_are_when_superseded_payloads_go(policy: Policy, data: st.DataObject) -> None:
    """Otherwise nodes that let their past go show other documents than those that keep it, for ever."""
    entries = in_any_order(data.draw(histories(COLLECTIONS[policy])), data)
    whole, frugal = new_replica(1, COLLECTIONS[policy]), new_replica(2, COLLECTIONS[policy])
    for entry in entries:
        give(whole, entry)
        give(frugal, entry)
        if data.draw(st.booleans()):
            let_go_all(frugal)
        assert summary(frugal) == summary(whole)
    assert frugal.complete
    assert frugal.tables.marked() == sum(row.payload is None for row in rows_of(frugal))


@given(st.sampled_from(Policy), st.data())
def test_what_is_superseded_once_is_superseded_for_ever(policy: Policy, data: st.DataObject) -> None:
    """Otherwise a payload that was dropped, or left out for a peer, may be needed after all."""
    replica = new_replica(1, COLLECTIONS[policy])
    before: set[int] = set()
    for entry in in_any_order(data.draw(histories(COLLECTIONS[policy])), data):
        give(replica, entry)
        now = {row.arrival for row in superseded(replica)}
        assert before <= now
        before = now


@given(st.sampled_from(Policy), st.data())
def test_contributing_payloads_are_enough_in_any_order(policy: Policy, data: st.DataObject) -> None:
    """Otherwise a node that was sent only what contributes, or whose documents are made anew, has other documents."""
    entries = in_any_order(data.draw(histories(COLLECTIONS[policy])), data)
    whole, other = new_replica(1, COLLECTIONS[policy]), new_replica(2, COLLECTIONS[policy])
    give(whole, *entries)
    dropped = {row.id for row in superseded(whole)}
    apply(other, *batch_of(entries, bare=[entry for entry in entries if entry.id in dropped]))
    assert summary(other) == summary(whole)
    let_go_all(whole)
    rebuild = DocumentRebuild(whole, [b"d"])
    while not rebuild.step():
        pass
    assert summary(whole) == summary(other)


@given(st.sampled_from(Policy), st.data())
def test_superseded_payloads_that_come_back_change_nothing(policy: Policy, data: st.DataObject) -> None:
    """A repair brings them back, and so does a node that keeps the past and is asked for it."""
    entries = data.draw(histories(COLLECTIONS[policy]))
    replica = new_replica(1, COLLECTIONS[policy])
    give(replica, *entries)
    before = summary(replica)
    let_go_all(replica)
    for entry in entries:
        applied = replica.fill_payload(entry.log, entry.seq, entry.payload)
        assert applied is None or applied.filled
    assert summary(replica) == before
    assert replica.tables.marked() == 0
    assert all(row.payload is not None for row in rows_of(replica))


def chain() -> list[Made]:
    """A document that was put, patched twice, and of which one field was removed; and another one beside it."""
    author = Author(1)
    return [
        author.write([Operation(PUT, "d", {"a": 1, "b": 1})], hlc=(START_MS << 16) + 1),
        author.write([Operation(PATCH, "d", {"a": 2}), Operation(PUT, "e", {})], hlc=(START_MS << 16) + 2),
        author.write([Operation(PATCH, "d", {"a": None})], hlc=(START_MS << 16) + 3),
        author.write([Operation(PUT, "e", {"n": 1})], hlc=(START_MS << 16) + 4),
    ]


def test_each_part_of_a_document_counts() -> None:
    """The put that cleared it holds the other field, and a removal keeps an earlier value from coming back."""
    replica = new_replica()
    give(replica, *chain())
    assert contributing(replica, rows_of(replica)) == {1, 3, 4}
    author = Author(1)
    give(replica, *(entries := chain()), author.write([Operation(DELETE, "d")], after=entries[-1]))
    assert contributing(replica, rows_of(replica)) == {4, 5}


def test_an_entry_counts_while_one_of_its_documents_does() -> None:
    """Dropping it for the sake of one document would take the other's content."""
    author, replica = Author(1), new_replica()
    give(replica, author.write([Operation(PUT, "d", {}), Operation(PUT, "e", {})]))
    give(replica, author.write([Operation(PUT, "d", {"n": 1})]))
    assert superseded(replica) == []
    give(replica, author.write([Operation(DELETE, "e")]))
    assert [row.arrival for row in superseded(replica)] == [1]


def test_the_losing_side_of_a_conflict_counts_until_someone_has_seen_it() -> None:
    """Otherwise a conflict that is shown cannot be read."""
    a, b, replica = Author(1), Author(2), new_replica()
    late = a.write([Operation(PUT, "d", {"n": 1})])
    give(replica, b.write([Operation(PUT, "d", {"n": 2})], hlc=(START_MS << 16) + 9), late)
    assert superseded(replica) == []
    give(replica, b.write([Operation(PUT, "d", {"n": 3})], [late]))
    assert [row.arrival for row in superseded(replica)] == [1, 2]


def test_a_delete_counts_and_holds_against_what_comes_later() -> None:
    """Otherwise an old write that arrives after the payloads were dropped brings a deleted document back."""
    a, b, replica = Author(1), Author(2), new_replica()
    first = a.write([Operation(PUT, "d", {"n": 1})])
    old = b.write([Operation(PUT, "d", {"n": 2})], [first], hlc=first.hlc + 1)
    gone = a.write([Operation(DELETE, "d")], [old], hlc=first.hlc + 5)
    give(replica, first, old, gone)
    assert let_go_all(replica) == len(first.payload) + len(old.payload)
    give(replica, Author(3).write([Operation(PATCH, "d", {"n": 3})], [first], hlc=first.hlc + 2))
    assert replica.tables.counts()[1] == 0
    assert superseded(replica) == []
    assert [row.live for row in replica.tables.documents(["d"]).values()] == [False]


def test_the_payloads_of_a_document_that_is_lost_are_kept() -> None:
    """Nobody knows which of them it is made of, and a repair will need them."""
    replica = new_replica()
    for number in range(3):
        put(replica, "d", number)
    row = replica.tables.documents(["d"])["d"]
    with replica.store.transaction():
        replica.tables.put_documents([row._replace(state=LOST_STATE)], 0)
    assert superseded(replica) == []
    with replica.store.transaction():
        replica.tables.forget_documents([b"d"])
    assert superseded(replica) == []


def test_what_was_let_go_stays_so_though_a_peer_sends_it_unasked() -> None:
    """Batches overlap: otherwise each reconnection brings back a part of what was dropped."""
    replica, entries = new_replica(), chain()
    give(replica, *entries)
    let_go_all(replica)
    lacking = Author(2).write([Operation(PUT, "x", {})])
    apply(replica, *batch_of([lacking], bare=[lacking]))
    give(replica, *entries)
    row = replica.tables.entry(2)
    assert row is not None
    assert (row.payload, mark_of(row.bare or b"")) == (None, LET_GO)
    assert rebuilt_id(replica, row) == row.id
    assert replica.wanted_places(9) == [(lacking.log, 1)]


@pytest.mark.parametrize("policy", Policy)
def test_a_header_with_a_mark_goes_out_as_any_other(policy: Policy) -> None:
    """Otherwise nobody can get the log of one who let payloads go."""
    source, target = new_replica(1, COLLECTIONS[policy]), new_replica(2, COLLECTIONS[policy])
    for number in range(3):
        put(source, "d", number)
    let_go_all(source)
    Duo(source, target).run(1)
    assert target.root() == source.root()
    assert summary(target) == summary(source)
    assert [row.payload is None for row in rows_of(target)] == [True, True, False]
