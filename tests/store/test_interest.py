"""The part of a collection that a node wants, over every store."""

from __future__ import annotations

from meshsync.core.entry import PATCH, PUT, Operation
from meshsync.core.query import Query
from meshsync.store.base import Store
from meshsync.store.replica import Replica
from tests.authors import COLLECTION, Author, batch_of
from tests.replicas import apply

BLUE = Query.parse("team=blue")


def opened(store: Store) -> Replica:
    replica = Replica(store, store.collection(COLLECTION, "notes"), Author(9).key)
    replica.choose(BLUE)
    return replica


def test_what_is_lacking_of_the_part_is_known_again_after_a_restart(store: Store) -> None:
    """Otherwise a document that stopped matching while the process was down is shown for ever."""
    author = Author(1)
    blue = author.write([Operation(PUT, "d", {"team": "blue"})])
    red = author.write([Operation(PATCH, "d", {"team": "red"})])
    other = author.write([Operation(PUT, "e", {"team": "red"})])
    apply(opened(store), *batch_of([blue, red, other], bare=[red, other]))
    replica = opened(store)
    assert replica.interest is not None
    assert "d" in replica.interest
    assert replica.wanted_places(9) == [(author.log, 2)]
    applied = replica.fill_payload(author.log, 2, red.payload)
    assert applied is not None
    assert applied.filled == [2]
    assert "d" not in replica.interest
    assert replica.is_satisfied
    assert not replica.complete


def test_the_index_made_anew_names_what_lacks_its_payload(store: Store) -> None:
    """Otherwise after a repair the past of a document that begins to match is not asked for."""
    author = Author(1)
    first = author.write([Operation(PUT, "d", {"n": 1})])
    second = author.write([Operation(PATCH, "d", {"team": "blue"})])
    apply(opened(store), *batch_of([first], bare=[first]))
    store.rebuild_indexes()
    replica = opened(store)
    apply(replica, *batch_of([second]))
    assert replica.wanted_places(9) == [(author.log, 1)]
    assert list(store.verify()) == []
