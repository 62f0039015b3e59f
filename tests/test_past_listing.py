"""Listing documents as they were, in an order: as they are listed now, when nothing was written since."""

from __future__ import annotations

import random
from contextlib import aclosing
from itertools import product

import pytest

from meshsync.core.entry import PUT, Operation
from meshsync.core.matching import MISSING
from meshsync.core.ordering import Order
from meshsync.core.query import Query
from meshsync.errors import LocalError
from meshsync.past import listing
from meshsync.past.listing import list_past
from meshsync.past.snapshots import Snapshot
from meshsync.store.listing import After
from meshsync.store.memory import MemoryStore
from tests.authors import START_MS
from tests.test_collection import Notes

VALUES = (None, True, 3, 3, 2.5, "a", "b", [1], {"x": 1}, MISSING)


def filled() -> Notes:
    """Documents with all kinds of values, some of them alike."""
    rng = random.Random(5)
    notes = Notes(MemoryStore(random_bytes=rng.randbytes))
    for number in range(60):
        value = rng.choice(VALUES)
        body = {"team": rng.choice(("blue", "red"))} | ({} if value is MISSING else {"v": value})
        notes.replica.append([Operation(PUT, f"d{number:02}", body)], START_MS + number)
    return notes


async def ids(snapshot: Snapshot, query: Query, order: str | None, after: After | None, limit: int | None) -> list[str]:
    """What is listed."""
    by = None if order is None else Order.parse(order)
    async with aclosing(list_past(snapshot, query, order=by, after=after, limit=limit)) as found:
        return [one.id async for one in found]


async def test_the_past_is_sorted_as_the_present_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a page of the past does not follow the one before, or names other documents than `ls` did."""
    monkeypatch.setattr(listing, "_KEPT", 4)
    notes = filled()
    entry = list(notes.replica.scan_entries())[-1].id.hex()
    notes.replica.append([Operation(PUT, "d00", {"v": 99}), Operation(PUT, "e", {"v": 3})], START_MS + 1000)
    then = filled()
    snapshot = await notes.snapshot(entry)
    for where, order, limit in product(((), "team=blue"), (None, "v", "-v", "id", "-id", "team"), (None, 0, 7)):
        query = Query.parse(where)
        expected = [one.id for one in then.documents(query, order=order, limit=limit)]
        assert await ids(snapshot, query, order, None, limit) == expected
        for document in then.documents(query, order=order, limit=3):
            value = document.body.get("v", MISSING) if order in ("v", "-v") else document.body["team"]
            behind = [one.id for one in then.documents(query, order=order, after=document, limit=limit)]
            assert await ids(snapshot, query, order, After(document.id, value), limit) == behind


async def test_only_what_was_in_the_part_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a node shows of the past what it happens to hold, some of it without its whole past."""
    notes = filled()
    entry = list(notes.replica.scan_entries())[-1].id.hex()
    notes.replica.append([Operation(PUT, "d00", {"team": "green"})], START_MS + 1000)
    blue = [one.id for one in filled().documents(Query.parse("team=blue"))]
    notes.replica.choose(Query.parse("team=blue"))
    snapshot = await notes.snapshot(entry)
    assert await ids(snapshot, Query(), None, None, None) == blue
    assert await snapshot.get("d00") is not None
    monkeypatch.setattr(listing, "_KEPT", 1)
    async with aclosing(list_past(snapshot, Query(), order=Order.parse("v"), sorted_max=5)) as found:
        with pytest.raises(LocalError, match="too many to sort"):
            await anext(found)
