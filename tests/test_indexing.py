"""Orders, pages and indexes as a program uses them."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from meshsync import Index
from meshsync.core.query import Query
from meshsync.errors import LocalError
from meshsync.store.memory import MemoryStore
from tests.test_collection import Notes


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(random_bytes=random.Random(1).randbytes)


@pytest.fixture
async def notes(store: MemoryStore) -> Notes:
    notes = Notes(store)
    for number in range(700):
        await notes.put(f"n{number:03}", {"team": f"team{number % 7}", "rank": number % 5})
    return notes


async def test_pages_go_on_from_the_last_document(notes: Notes) -> None:
    """A program that pages would have to know how values are compared."""
    query = Query.field("team") == "team3"
    whole = [document.id for document in notes.documents(query, order="-rank")]
    assert len(whole) == 100
    found = list(notes.documents(query, order="-rank", limit=30))
    while page := list(notes.documents(query, order="-rank", limit=30, after=found[-1])):
        found += page
    assert [document.id for document in found] == whole
    assert [document.id for document in notes.documents(after="n697")] == ["n698", "n699"]
    assert [document.id for document in notes.documents(after=found[-1], limit=1)] == [f"n{int(whole[-1][1:]) + 1:03}"]
    with pytest.raises(LocalError, match="`after` is a document"):
        list(notes.documents(order="rank", after="n001"))


async def test_indexes_are_built_beside_everything_else(notes: Notes) -> None:
    """A declared index would serve only after a restart, or hold up all writes until it is built."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notes.indexing.run)
        assert await notes.add_index("team")
        assert not await notes.add_index('"team"')
        assert notes.indexes()[0].ready is False
        written = 0
        async with trio.open_nursery() as both:
            both.start_soon(notes.wait_indexed)
            while not notes.indexes()[0].ready:
                await notes.put(f"m{written}", {"team": "team3"})
                written += 1
        assert written >= 1
        assert notes.indexes() == [Index("team", ready=True, documents=700 + written)]
        listing = notes.select(Query.field("team") == "team3")
        assert len(list(listing)) == 100 + written
        assert listing.plan.served_by == "team"
        assert await notes.remove_index("team")
        assert not await notes.remove_index("team")
        assert notes.indexes() == []
        nursery.cancel_scope.cancel()


async def test_a_disk_that_fails_delays_an_index(
    notes: Notes, store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    """A full disk would end the node, or leave the index unbuilt until the next start."""
    assert autojump_clock.autojump_threshold == 0
    await notes.add_index("team")
    store.broken = "the disk is full"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notes.indexing.run)
        await trio.testing.wait_all_tasks_blocked()
        assert [str(failure) for failure in notes.failures] == ["the disk is full"]
        store.broken = ""
        await notes.wait_indexed()
        assert notes.indexes() == [Index("team", ready=True, documents=700)]
        nursery.cancel_scope.cancel()
