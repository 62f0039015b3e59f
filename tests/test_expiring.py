"""Documents that expire, as a program writes, reads and follows them."""

from __future__ import annotations

import random
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.entry import NEVER, PATCH, PUT, Operation
from meshsync.core.limits import EXPIRES_MS_MAX, LIMITS
from meshsync.core.policy import Policy, collection_id
from meshsync.core.query import Query
from meshsync.documents import Change
from meshsync.errors import LocalError
from meshsync.expiring import Expiring
from meshsync.moments import moment_text, time_of
from meshsync.past.conflicts import conflicts
from meshsync.past.facts import WriteInfo
from meshsync.store.memory import MemoryStore
from meshsync.store.past import Past
from meshsync.upkeep import Upkeep
from tests.authors import Author, Made
from tests.histories import LATER_MS, SOON_MS, in_any_order
from tests.replicas import give, new_replica
from tests.test_collection import NOW_MS, Notes
from tests.test_following import QUERIES, fold, histories_of_two, new_notes, stored

NOW = time_of(NOW_MS)
HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000


@pytest.fixture
def notes() -> Notes:
    return Notes(MemoryStore(random_bytes=random.Random(1).randbytes))


def pass_time(notes: Notes, by_ms: int) -> None:
    """Let the clock go on, or be set back, and do what the worker of a node does then."""
    notes.now_ms += by_ms
    while notes.replica.expiries.step(notes.now_ms):
        notes.watcher.notify()


# Writing and reading


@pytest.mark.parametrize("expires", [NOW + HOUR, HOUR, "1h", "60m", "2027-01-15T09:00:00Z", "2027-01-15T10:00+01:00"])
async def test_a_document_says_when_it_expires(notes: Notes, expires: Any) -> None:
    """Otherwise nobody can tell how long it will be there."""
    await notes.put("n1", {"n": 1}, expires=expires)
    document = notes.get("n1")
    assert document is not None
    assert document.expires == NOW + HOUR
    notes.now_ms += HOUR_MS - 1
    assert notes.get("n1") is not None
    notes.now_ms += 1
    assert notes.get("n1") is None, "it is not shown any more, even before the worker wakes"


@pytest.mark.parametrize(
    ("expires", "fault"),
    [
        (NOW, "is not to come, because here it is 2027-01-15T08:00:00.000Z"),
        ("2020-01-01T00:00Z", "is not to come"),
        (timedelta(0), "is not to come"),
        (-HOUR, "is not to come"),
        ("0s", "is not to come"),
        (datetime(2030, 1, 1), "names no time zone"),  # noqa: DTZ001
        ("2030-01-01", "names no time zone; write 2030-01-01T00:00:00Z, or its offset"),
        ("1796000000", "no time at which a document can expire"),
        ("30", "no time at which a document can expire"),
        (30, "30 is no time; give a datetime with its zone"),
        (datetime.max.replace(tzinfo=UTC), "is later than the year 6429"),
        (timedelta.max, "is later than the year"),
        ("soon", "no time at which a document can expire"),
        ("5 parsecs", "no time at which a document can expire"),
        ("9" * 15 + "d", "no time at which a document can expire"),
        ("", "no time at which a document can expire"),
    ],
)
async def test_a_time_that_cannot_be_meant_is_refused(notes: Notes, expires: Any, fault: str) -> None:
    """Otherwise a document is written that nobody ever sees, or one that stays against the will of its author."""
    for write in (notes.put, notes.patch):
        with pytest.raises(LocalError, match=f"expires: .*{fault}"):
            await write("n1", {}, expires=expires)
    async with notes.batch() as batch:
        with pytest.raises(LocalError, match=f"expires: .*{fault}"):
            batch.put("n1", {}, expires=expires)
    assert notes.replica.entry_count() == 0
    await notes.put("n1", {}, expires=time_of(EXPIRES_MS_MAX))


async def test_a_patch_extends_shortens_or_ends_it(notes: Notes) -> None:
    """Otherwise a document that is still in use has to be written whole again to stay."""
    berlin = timezone(HOUR)
    await notes.put("n1", {"n": 1}, expires=HOUR)
    await notes.patch("n1", {"n": 2})
    assert notes.get("n1").expires == NOW + HOUR  # type: ignore[union-attr]
    await notes.patch("n1", {}, expires=(NOW + 2 * HOUR).astimezone(berlin))
    assert notes.get("n1").expires == NOW + 2 * HOUR  # type: ignore[union-attr]
    await notes.patch("n1", {}, expires="30m")
    assert notes.get("n1").expires == NOW + HOUR / 2  # type: ignore[union-attr]
    await notes.patch("n1", {"m": 1}, expires="never")
    document = notes.get("n1")
    assert document is not None
    assert (document.expires, document.body) == (None, {"n": 2, "m": 1})
    await notes.put("n1", {}, expires=HOUR)
    await notes.put("n1", {})
    assert notes.get("n1").expires is None  # type: ignore[union-attr]


async def test_nothing_comes_back_of_what_has_expired(notes: Notes) -> None:
    """A patch of a document that is not there makes one of what it sets, on all nodes alike."""
    for id in ("n1", "n2", "n3"):
        await notes.put(id, {"old": 1}, expires=HOUR)
    notes.now_ms += HOUR_MS
    assert await notes.delete("n1") is None
    await notes.put("n1", {"new": 1}, if_absent=True)
    await notes.patch("n2", {"new": 1, "old": None})
    async with notes.batch() as batch:
        batch.patch("n3", {"new": 1}, expires=HOUR)
        batch.patch("n4", {"new": 1})
    kinds = [[operation[0] for operation in entry["ops"]] for entry in _log(notes)]
    assert kinds == [["put"]] * 5 + [["put", "patch"]]
    pass_time(notes, 0)
    assert dict(notes.bodies()) == {id: {"new": 1} for id in ("n1", "n2", "n3", "n4")}
    assert [one.expires for one in notes.documents()] == [None, None, NOW + 2 * HOUR, None]


def _log(notes: Notes) -> list[dict[str, Any]]:
    from meshsync.inspection import log_entries

    return list(log_entries(notes.replica))


async def test_a_batch_joins_what_it_says_of_one_document(notes: Notes) -> None:
    """Otherwise the last operation of a batch forgets when the document expires."""
    async with notes.batch() as batch:
        batch.put("a", {"n": 1}, expires=HOUR)
        batch.patch("a", {"m": 1})
        batch.put("b", {}, expires=HOUR)
        batch.patch("b", {}, expires="never")
        batch.patch("c", {}, expires=HOUR)
        batch.patch("c", {"n": 1}, expires=2 * HOUR)
        batch.put("d", {}, expires=HOUR)
        batch.put("d", {})
    assert {one.id: one.expires for one in notes.documents()} == {
        "a": NOW + HOUR,
        "b": None,
        "c": NOW + 2 * HOUR,
        "d": None,
    }


async def test_the_past_is_as_of_its_time(notes: Notes) -> None:
    """Otherwise a document shows in the past at times when nobody saw it."""
    first = await notes.put("n1", {"n": 1}, expires=HOUR)
    notes.now_ms += HOUR_MS // 2
    second = await notes.patch("n1", {}, expires=HOUR)
    pass_time(notes, 3 * HOUR_MS)
    assert notes.get("n1") is None
    moments: dict[datetime | str, datetime | None] = {
        NOW: NOW + HOUR,
        NOW + HOUR / 2: NOW + 1.5 * HOUR,
        NOW + 1.4 * HOUR: NOW + 1.5 * HOUR,
        NOW + 1.5 * HOUR: None,
        first.hex(): NOW + HOUR,
        second.hex(): NOW + 1.5 * HOUR,
    }
    for at, expected in moments.items():
        snapshot = await notes.snapshot(at)
        past = await snapshot.get("n1")
        assert (None if past is None else past.expires) == expected
        assert len([one async for one in snapshot.documents()]) == (expected is not None)
    assert [(one.expires, one.visible) for one in notes.history("n1")] == [
        (NOW + HOUR, False),
        (NOW + 1.5 * HOUR, False),
    ]
    why = notes.why("n1")
    assert why is not None
    assert why.deleted is None
    assert why.expiry is not None
    assert (why.expiry.time, why.expiry.has_passed, why.expiry.write.entry) == (NOW + 1.5 * HOUR, True, second)
    assert isinstance(why.expiry.write, WriteInfo)
    assert await notes.restore("n1", NOW) is not None
    document = notes.get("n1")
    assert document is not None
    assert (document.body, document.expires) == ({"n": 1}, None), "it is wanted back, and its time has passed"
    await notes.put("n2", {}, expires=HOUR)
    at = time_of(notes.now_ms)
    await notes.put("n2", {"n": 2})
    assert await notes.restore("n2", at) is not None


@pytest.mark.parametrize("policy", [Policy.LATEST, Policy.MANUAL])
def test_what_authors_said_of_an_expiry_unseen_is_shown(policy: Policy) -> None:
    """Otherwise a document goes, or stays, against the will of somebody who wrote it, and nobody hears of it."""
    collection = collection_id("notes", policy)
    a, b, c = Author(1, collection), Author(2, collection), Author(3, collection)
    first = a.write([Operation(PUT, "d", {"n": 1}, SOON_MS)])
    ends = [b.write([Operation(PATCH, "d", {}, NEVER)], [first], hlc=first.hlc + 1)]
    ends.append(c.write([Operation(PATCH, "d", {}, LATER_MS)], [first], hlc=first.hlc + 2))
    replica = new_replica(collection=collection)
    give(replica, first, *ends)
    (conflict,) = conflicts(Past(replica))
    assert (conflict.fields, conflict.expires is None) == ([], False)
    assert conflict.expires is not None
    assert conflict.expires.winner is not None
    shown = [conflict.expires.winner, *conflict.expires.losers]
    stay, go = (None, bytes(b.log.author)), (moment_text(time_of(LATER_MS)), bytes(c.log.author))
    expected = [go, stay] if policy is Policy.LATEST else [stay, go]
    assert [(one.value, bytes(one.write.author)) for one in shown] == expected
    assert replica.tables.documents(["d"])["d"].expires_ms == (LATER_MS if policy is Policy.LATEST else None)
    give(replica, a.write([Operation(PATCH, "d", {}, SOON_MS)], ends))
    assert list(conflicts(Past(replica))) == []
    replica = new_replica(collection=collection)
    give(replica, first, *ends, Author(4, collection).write([Operation(PATCH, "d", {"n": 2})], [ends[0]]))
    (conflict,) = conflicts(Past(replica))
    assert conflict.expires is not None


# Following


@given(histories_of_two(), st.data(), st.sampled_from([1, 4096]))
def test_whoever_applies_the_changes_holds_what_is_shown(entries: list[Made], data: st.DataObject, known: int) -> None:
    """In every order of arrival, whenever documents expire between, also where a clock is set back, and from every
    cursor: without loss, and without a removal of what was removed.
    """
    query = data.draw(st.sampled_from(QUERIES))
    notes = new_notes(follower_documents_max=known)
    live: list[Change] = []
    views: list[dict[str, Any]] = []
    view: dict[str, Any] = {}

    def read() -> None:
        for change in stored(notes, query, live[-1].cursor if live else "0"):
            was = change.id in view
            fold(view, change)
            assert change.kind != "removed" or was, "removed from where it never was"
            live.append(change)
            views.append(dict(view))

    def shown() -> dict[str, Any]:
        bodies = dict(notes.bodies())
        return {id: body for id, body in bodies.items() if query is None or query.matches(body, id)}

    times = st.sampled_from([0, SOON_MS, SOON_MS + 1, LATER_MS, LATER_MS + HOUR_MS])
    for entry in in_any_order(entries, data):
        give(notes.replica, entry)
        if data.draw(st.booleans()):
            read()
        while notes.replica.expiries.step(data.draw(times)):
            pass
        if data.draw(st.booleans()):
            read()
            assert view == shown()
    read()
    assert view == shown()
    for number, change in enumerate(live):
        again = dict(views[number])
        for later in stored(notes, query, change.cursor):
            was = later.id in again
            fold(again, later)
            assert later.kind != "removed" or was, "removed a second time"
        assert again == view


async def test_a_reader_is_told_when_documents_expire(notes: Notes) -> None:
    """Otherwise a map goes on to show what all others have forgotten."""
    for number in range(200):
        await notes.put(f"n{number:03}", {"n": number}, expires=HOUR + timedelta(milliseconds=number // 100))
    async with aclosing(notes.changes(Query.parse("n<150"))) as changes:
        pass_time(notes, HOUR_MS)
        found = [await anext(changes) for _ in range(100)]
        assert [(one.kind, one.id, one.document) for one in found] == [
            ("removed", f"n{number:03}", None) for number in range(100)
        ]
        assert {one.time for one in found} == {NOW + HOUR}
        pass_time(notes, HOUR_MS)
        assert (await anext(changes)).id == "n100"
    # From the middle of those that expired together, as after a restart.
    again = [one async for one in _until(notes, found[70].cursor, "n149")]
    assert [one.id for one in again] == [f"n{number:03}" for number in range(71, 150)]
    pass_time(notes, -2 * HOUR_MS)
    back = [one async for one in _until(notes, again[-1].cursor, "n000")]
    assert [(one.kind, one.id) for one in back] == [("put", f"n{number:03}") for number in reversed(range(150))]
    await notes.put("last", {"n": 0})
    assert [one.id async for one in _until(notes, back[-1].cursor, "last")] == ["last"]


async def test_many_that_expired_go_beside_other_work(notes: Notes, autojump_clock: trio.testing.MockClock) -> None:
    """Otherwise a node that was off for a while stands still, for seconds, when it opens a large collection."""
    del autojump_clock
    for part in "abcd":
        async with notes.batch() as batch:
            for number in range(250):
                batch.put(f"{part}{number}", {}, expires=HOUR)
    await notes.put("stays", {})
    notes.now_ms += HOUR_MS
    upkeep = Upkeep(lambda: [notes.replica], notes.failures.append, LIMITS)
    turned: list[int] = []
    expiring = Expiring(upkeep, lambda: notes.now_ms, lambda replica: turned.append(replica.tables.counts()[1]))
    expiring.begin(notes.replica)
    assert notes.replica.tables.counts()[1] > 500
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expiring.run)
        while notes.replica.tables.counts()[1] > 1:
            assert [*notes.documents()] == [notes.get("stays")]
            assert len(notes) == notes.held == 1
            seen.append(notes.replica.tables.counts()[1])
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len(turned) == 3
    assert len(set(seen)) > 1, "nobody else had a turn in between"


async def test_what_expired_before_a_reader_is_not_removed_again(notes: Notes) -> None:
    """Otherwise whoever counts what is there by the changes comes out too low."""
    async with aclosing(notes.changes(Query.parse("n=1"))) as changes:
        for id in ("n1", "n2", "n3"):
            await notes.put(id, {"n": 1}, expires=HOUR)
            assert (await anext(changes)).kind == "put"
        pass_time(notes, HOUR_MS)
        assert [(await anext(changes)).kind for _ in range(3)] == ["removed"] * 3
        pass_time(notes, -HOUR_MS)
        assert [(await anext(changes)).kind for _ in range(3)] == ["put"] * 3
        await notes.put("n1", {"n": 2})
        assert (await anext(changes)).kind == "removed"
        pass_time(notes, HOUR_MS)
        assert [(await anext(changes)).kind for _ in range(2)] == ["removed"] * 2
        await notes.put("n2", {"n": 2})
        await notes.patch("n3", {"n": 2})
        await notes.put("n4", {"n": 1})
        assert (await anext(changes)).id == "n4"


async def _until(notes: Notes, since: str, id: str) -> Any:
    async with aclosing(notes.changes(Query.parse("n<150"), since)) as changes:
        async for change in changes:
            yield change
            if change.id == id:
                return
