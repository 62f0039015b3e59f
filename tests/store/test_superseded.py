"""Payloads that a peer calls superseded, and asking for them all the same."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.entry import DELETE, PATCH, PUT, Operation, document_tag
from meshsync.core.history import History
from meshsync.core.policy import Policy, collection_id
from meshsync.core.query import Query
from meshsync.core.retention import Retention
from meshsync.store.base import Store
from meshsync.store.contributing import contributing
from meshsync.store.replica import Replica
from tests.authors import COLLECTION, Author, batch_of
from tests.histories import histories, in_any_order
from tests.replicas import apply, give, new_replica

COLLECTIONS = {policy: collection_id("notes", policy) for policy in Policy}


def opened(store: Store) -> Replica:
    return Replica(store, store.collection(COLLECTION, "notes"), Author(9).key)


def summary(replica: Replica) -> object:
    """What one can see of the document."""
    row = replica.tables.documents(["d"]).get("d")
    if row is None:
        return None
    state = replica.merger.state(row)
    return row.live, row.conflict, state.visible(), sorted(state.stamps()), sorted(state.frontier)


@given(st.sampled_from(Policy), st.data())
def test_what_contributes_is_enough_in_whatever_order_it_comes(policy: Policy, data: st.DataObject) -> None:
    """Otherwise what a document is hangs on which peer sent which payload first, and a deleted one may come back."""
    entries = in_any_order(data.draw(histories(COLLECTIONS[policy])), data)
    whole, device = new_replica(1, COLLECTIONS[policy]), new_replica(2, COLLECTIONS[policy])
    give(whole, *entries)
    rows = list(whole.scan_entries())
    needed = contributing(whole, rows)
    apply(device, *batch_of(entries, bare=entries))
    for entry in data.draw(st.permutations(entries)):
        row = next(row for row in rows if row.id == entry.id)
        if row.arrival in needed or data.draw(st.booleans()):
            assert device.fill_payload(entry.log, entry.seq, entry.payload) is not None
        else:
            applied = device.superseded.told(entry.log, entry.seq, entry.id[:8])
            assert applied is not None
            assert applied.filled
    assert summary(device) == summary(whole)
    assert device.complete
    assert device.superseded.count == sum(row.payload is None for row in device.scan_entries())


def test_only_what_lacks_here_is_marked(store: Store) -> None:
    """Otherwise a peer takes payloads from this node, or marks what it never heard of."""
    author, replica = Author(1), opened(store)
    first, second = author.write([Operation(PUT, "d", {"n": 1})]), author.write([Operation(PATCH, "d", {"n": 2})])
    apply(replica, *batch_of([first, second], bare=[second]))
    assert replica.superseded.told(author.log, 1, first.id[:8]) is None
    assert replica.superseded.told(author.log, 2, first.id[:8]) is None
    assert replica.superseded.told(author.log, 3, second.id[:8]) is None
    assert replica.superseded.told(Author(5).log, 2, second.id[:8]) is None
    assert replica.wanted_places(9) == [(author.log, 2)]
    applied = replica.superseded.told(author.log, 2, second.id[:8])
    assert applied is not None
    assert applied.filled == [2]
    assert (replica.complete, replica.superseded.count, replica.wanted_places(9)) == (True, 1, [])
    assert list(store.verify()) == []


def test_a_mark_ends_the_wish_of_a_part(store: Store) -> None:
    """Otherwise a node that wants a part waits for ever for what no document needs."""
    author, replica = Author(1), opened(store)
    replica.choose(Query.parse("team=blue"))
    first = author.write([Operation(PUT, "d", {"n": 1})])
    second = author.write([Operation(PUT, "d", {"team": "blue"})])
    apply(replica, *batch_of([first, second], bare=[first]))
    assert replica.wanted_places(9) == [(author.log, 1)]
    assert not replica.is_satisfied
    replica.superseded.told(author.log, 1, first.id[:8])
    assert replica.wanted_places(9) == []
    assert replica.is_satisfied


def test_a_mark_comes_with_a_header_that_is_here_already(store: Store) -> None:
    """Otherwise it is asked for what the sender of the header just said that nobody needs."""
    author, replica = Author(1), opened(store)
    first, second = author.write([Operation(PUT, "d", {"n": 1})]), author.write([Operation(DELETE, "d")])
    apply(replica, *batch_of([first], bare=[first]))
    applied = apply(replica, *batch_of([first, second], superseded=[first]))
    assert (applied.count, applied.filled) == (1, [1])
    assert (replica.complete, replica.superseded.count) == (True, 1)


def test_who_wants_the_past_and_of_what(store: Store) -> None:
    """Otherwise a node fetches what it lets go itself, or what its query does not want, or asks for nothing."""
    author, replica = Author(1), opened(store)
    entries = [author.write([Operation(PUT, id, {"team": "blue"})]) for id in ("d", "e", "d", "e")]
    apply(replica, *batch_of(entries, superseded=entries[:2]))
    log = author.log
    assert replica.superseded.places_from(1, 9) == ([(log, 1), (log, 2)], 3)
    assert replica.superseded.places_from(3, 9) == ([], 5)
    assert replica.superseded.places_from(1, 1) == ([(log, 1)], 2)
    assert replica.superseded.places_from(1, 9, end=2) == ([(log, 1)], 2)
    assert replica.superseded.places_of([1, 3]) == [(log, 1)]
    assert replica.superseded.places_from(1, 9, tags=entries[1].bare[2])[0] == [(log, 2)]
    wanted = [replica.superseded.is_wanted]
    replica.choose(None, History.LATEST)
    wanted.append(replica.superseded.is_wanted)
    replica.choose(None, History.FULL)
    replica.retaining.keep(Retention.parse("30d"))
    wanted.append(replica.superseded.is_wanted)
    assert wanted == [True, False, False]
    replica.retaining.keep(Retention.parse("all"))
    replica.choose(Query.parse("id=e"))
    assert replica.superseded.places_from(1, 9) == ([(log, 2)], 3)


def test_once_all_came_back_nothing_is_remembered_as_gone(store: Store) -> None:
    """Otherwise a past that is here again is refused for ever; and a rollback must bring back what was remembered."""
    author, replica = Author(1), opened(store)
    entries = [author.write([Operation(PUT, "d", {"n": n})]) for n in range(3)]
    apply(replica, *batch_of(entries, superseded=entries[:2]))
    touches, tag = replica.tables.touches, document_tag(replica.id, "d")
    gone = touches.gone(tag)
    assert gone is not None
    with suppress(KeyError), store.transaction():
        touches.forget_gone()
        raise KeyError
    assert touches.gone(tag) == gone
    found = []
    for entry in entries[:2]:
        replica.payloads.fill(author.log, entry.seq, entry.payload)
        found.append(touches.gone(tag))
    assert found == [gone, None]
