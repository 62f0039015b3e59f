"""A past of which a part was let go: what is told of it is right, or it is said that it is not known."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.hlc import to_datetime
from meshsync.core.ordering import Order
from meshsync.core.policy import Policy, collection_id
from meshsync.core.query import Query
from meshsync.core.retention import Retention
from meshsync.documents import Change
from meshsync.errors import LetGoError
from meshsync.following import Follower
from meshsync.moments import moment_text
from meshsync.notifier import Notifier
from meshsync.past.history import history
from meshsync.past.listing import list_past
from meshsync.past.origins import why
from meshsync.past.snapshots import PastDocument, take_snapshot
from meshsync.store.listing import After
from meshsync.store.past import Past
from meshsync.store.replica import Replica
from tests.authors import START_MS, Author, batch_of
from tests.histories import histories, in_any_order
from tests.replicas import apply, give, new_replica

COLLECTIONS = {policy: collection_id("notes", policy) for policy in Policy}


def let_go(replica: Replica, entries: int) -> None:
    """Keep so many of the last entries, and what the documents need."""
    replica.retaining.keep(Retention(0, entries))
    while replica.retaining.step(START_MS):
        pass


def at(past: Past, when: datetime | str) -> dict[str, Any]:
    """All documents as they were."""
    found: list[dict[str, Any]] = []

    async def take() -> None:
        snapshot = await take_snapshot(past, when, None)
        found.append({one.id: one.body async for one in snapshot.documents()})

    trio.run(take)
    return found[0]


def told(replica: Replica, query: Query | None = None, since: str = "0") -> list[Change]:
    """What a reader is told of what is stored."""
    changes: list[Change] = []

    async def follow() -> None:
        with trio.move_on_after(1):
            async with aclosing(Follower(replica, Notifier(), query, since).changes()) as following:
                async for change in following:
                    changes.append(change)  # noqa: PERF401

    trio.run(follow, clock=trio.testing.MockClock(autojump_threshold=0))
    return changes


@settings(max_examples=40)
@given(st.sampled_from(Policy), st.data())
def test_what_was_is_told_rightly_or_not_at_all(policy: Policy, data: st.DataObject) -> None:
    """Otherwise an owner restores, or decides by, a document that never was."""
    entries = in_any_order(data.draw(histories(COLLECTIONS[policy])), data)
    whole, frugal = new_replica(1, COLLECTIONS[policy]), new_replica(2, COLLECTIONS[policy])
    for replica in (whole, frugal):
        give(replica, *entries)
    let_go(frugal, data.draw(st.integers(0, 6)))
    for entry in entries:
        for when in (to_datetime(entry.hlc), entry.id.hex()):
            try:
                found = at(Past(frugal), when)
            except LetGoError:
                assert frugal.tables.marked()
            else:
                assert found == at(Past(whole), when)
    last = max(entry.hlc for entry in entries)
    assert at(Past(frugal), to_datetime(last)) == at(Past(whole), to_datetime(last))


@pytest.mark.parametrize("policy", Policy)
def test_a_past_is_known_behind_a_write_that_had_seen_all_that_was_let_go(policy: Policy) -> None:
    """Otherwise nothing of a document's past is shown any more as soon as one of its payloads was let go."""
    a, b = Author(1, COLLECTIONS[policy]), Author(2, COLLECTIONS[policy])
    first = a.write([Operation(PUT, "d", {"n": 1}), Operation(PUT, "e", {"n": 1})])
    other = b.write([Operation(PATCH, "d", {"n": 2})])
    both = a.write([Operation(PUT, "d", {"n": 3})], [other])
    more = a.write([Operation(PATCH, "d", {"m": 4})])
    alone = b.write([Operation(PUT, "e", {"n": 5})], [both])
    last = a.write([Operation(PUT, "d", {"n": 6}), Operation(PUT, "e", {"n": 6})], [alone])
    replica = new_replica(9, COLLECTIONS[policy])
    give(replica, first, other, both, more, alone, last)
    let_go(replica, 4)
    assert replica.tables.marked() == 2
    past = Past(replica)
    assert at(past, last.id.hex()) == {"d": {"n": 6}, "e": {"n": 6}}
    for entry in (more, alone):
        assert document_at(past, entry.id.hex(), "d") == ({"n": 3, "m": 4} if entry is more else {"n": 3})
    with pytest.raises(LetGoError):
        document_at(past, other.id.hex(), "d")
    with pytest.raises(LetGoError):
        document_at(past, more.id.hex(), "e")


def document_at(past: Past, when: str, id: str) -> Any:
    """One document as it was."""

    async def take() -> Any:
        document = await (await take_snapshot(past, when, None)).get(id)
        return None if document is None else document.body

    return trio.run(take)


@given(st.sampled_from(Policy), st.data())
def test_what_is_told_of_origins_and_writes_is_true(policy: Policy, data: st.DataObject) -> None:
    """Otherwise a value is said to have overridden one that it never met, or a change to be what it was not."""
    entries = in_any_order(data.draw(histories(COLLECTIONS[policy])), data)
    whole, frugal = new_replica(1, COLLECTIONS[policy]), new_replica(2, COLLECTIONS[policy])
    for replica in (whole, frugal):
        give(replica, *entries)
    let_go(frugal, data.draw(st.integers(0, 6)))
    all_writes = {one.write.entry: one for one in history(Past(whole), "d", diff=True)}
    writes = list(history(Past(frugal), "d", diff=True))
    assert [one.write.time for one in writes] == sorted(one.write.time for one in writes)
    assert sum(one.gone == "let_go" for one in writes) == (frugal.tables.marked() > 0)
    for one in writes:
        known = all_writes[one.write.entry]
        if one.gone is None:
            assert (one.body, one.visible) == (known.body, known.visible)
            assert one.changes in (None, known.changes)
    if not frugal.tables.marked():
        assert writes == list(all_writes.values())
    all_of, found = why(Past(whole), "d"), why(Past(frugal), "d")
    assert all_of is not None
    assert found is not None
    assert found.deleted == all_of.deleted
    origins = {one.field: one for one in all_of.fields}
    for field in found.fields:
        known_field = origins[field.field]
        assert (field.said, field.beside) == (known_field.said, known_field.beside)
        assert field.overrode == known_field.overrode[: len(field.overrode)]
        assert found.let_go_until is not None or field == known_field


@given(st.sampled_from(Policy), st.data())
def test_a_reader_ends_with_the_documents_as_they_are(policy: Policy, data: st.DataObject) -> None:
    """Otherwise whoever follows a node that lets its past go holds other documents for ever."""
    entries = in_any_order(data.draw(histories(COLLECTIONS[policy])), data)
    replica = new_replica(1, COLLECTIONS[policy])
    half = data.draw(st.integers(0, len(entries)))
    give(replica, *entries[:half])
    query = data.draw(st.sampled_from([None, Query.parse("a=1"), Query.parse("b?")]))
    view: dict[str, Any] = {}
    if data.draw(st.booleans()):
        let_go(replica, data.draw(st.integers(0, 4)))
    since = "0"
    for change in told(replica, query):
        since = change.cursor
        view = {} if change.document is None else {change.id: change.document}
    give(replica, *entries[half:])
    let_go(replica, data.draw(st.integers(0, 4)))
    for change in told(replica, query, since):
        view = {} if change.document is None else {change.id: change.document}
    row = replica.tables.documents(["d"])["d"]
    body = replica.merger.body(row, None)
    assert view == ({"d": body} if body is not None and (query is None or query.matches(body, "d")) else {})


def test_a_reader_does_not_wait_for_what_was_let_go() -> None:
    """Otherwise `watch --since 0` on such a node stands still for ever."""
    replica, author = new_replica(), Author(1)
    give(replica, *(author.write([Operation(PUT, "d", {"n": n})]) for n in range(5)))
    let_go(replica, 0)
    assert [(one.id, one.document) for one in told(replica)] == [("d", {"n": 4})]


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("where", [None, "n>=0"])
def test_a_reader_that_pauses_within_an_entry_goes_on_behind_what_was_let_go(policy: Policy, where: str | None) -> None:
    """Otherwise a slow reader ends with an error of its own when the past goes while it pauses, or misses the end."""
    replica, author, view = new_replica(9, COLLECTIONS[policy]), Author(1, COLLECTIONS[policy]), dict[str, Any]()

    def write(kind: int, n: int) -> None:
        give(replica, author.write([Operation(kind, id, {"n": n}) for id in "abc"]))
        let_go(replica, 0)

    async def read() -> None:
        query = None if where is None else Query.parse(where)
        async with aclosing(Follower(replica, Notifier(), query, "0").changes()) as following:
            with trio.move_on_after(1):
                async for change in following:
                    view[change.id] = change.document
                    if not later:
                        continue
                    write(*later.pop())

    later = [(PUT, 4), (PATCH, 3), (PUT, 2)]
    write(PUT, 1)
    trio.run(read, clock=trio.testing.MockClock(autojump_threshold=0))
    assert not later
    assert view == {id: {"n": 4} for id in "abc"}


def test_a_listing_of_the_past_misses_what_is_let_go_while_it_is_read() -> None:
    """Otherwise `dump --at` ends with an error of its own where somebody writes meanwhile."""
    replica, author, found = new_replica(), Author(1), list[str]()
    give(replica, *(author.write([Operation(PUT, id, {"n": 1})]) for id in "abcd"))

    async def read() -> None:
        snapshot = await take_snapshot(Past(replica), to_datetime(replica.latest))
        async with aclosing(snapshot.documents()) as documents:
            async for one in documents:
                found.append(one.id)
                if one.id == "b":
                    give(replica, *(author.write([Operation(PUT, id, {"n": 2})], hlc=later + n) for n, id in numbered))
                    let_go(replica, 0)

    later, numbered = START_MS + 1000 << 16, list(enumerate("acd"))
    with pytest.raises(LetGoError) as missed:
        trio.run(read)
    assert (found, missed.value.missing) == (["a", "b"], 2)


def test_a_question_about_what_was_let_go_is_answered_with_that() -> None:
    """Whoever asks learns until when, and where else to ask."""
    replica, author = new_replica(), Author(1)
    entries = [
        author.write([Operation(kind, "d", None if kind == DELETE else {"n": n})], hlc=(START_MS + 1000 * n) << 16)
        for n, kind in enumerate((PUT, PATCH, PATCH, PUT, PATCH))
    ]
    give(replica, *entries)
    let_go(replica, 0)
    past = Past(replica)
    until = to_datetime(entries[2].hlc)
    with pytest.raises(LetGoError, match=rf"document 'd' until {moment_text(until)} .* a node that retains all"):
        at(past, until)
    assert at(past, to_datetime(entries[3].hlc)) == {"d": {"n": 3}}
    assert at(past, to_datetime(entries[4].hlc)) == {"d": {"n": 4}}
    first, second, third = history(past, "d", diff=True)
    assert (first.gone, first.write.time, first.write.kind) == ("let_go", until, "let go")
    assert (second.changes, third.changes is not None) == (None, True)


def overwritten() -> tuple[Replica, datetime]:
    """Documents a to f, of which b, d and e were overwritten and their past let go, and a time before that."""
    replica, author = new_replica(), Author(1)
    times = {id: START_MS + 1000 * n for n, id in enumerate("abcdef")}
    give(replica, *(author.write([Operation(PUT, id, {"n": 9})], hlc=ms << 16) for id, ms in times.items()))
    for n, id in enumerate("deb"):
        hlc = (START_MS + 10_000 + n) << 16
        give(replica, author.write([Operation(PUT, id, {"n": n})], hlc=hlc))
    let_go(replica, 0)
    return replica, to_datetime((START_MS + 9000) << 16)


async def collected(documents: AsyncGenerator[PastDocument, None]) -> tuple[str, LetGoError | None]:
    """The ids of some documents as they were, and the error in the end."""
    ids = ""
    try:
        async with aclosing(documents):
            async for one in documents:
                ids += one.id
    except LetGoError as error:
        return ids, error
    return ids, None


async def test_what_is_known_of_the_past_is_told_before_what_is_not() -> None:
    """One document that was overwritten would keep all others of a backup from its owner."""
    replica, when = overwritten()
    snapshot = await take_snapshot(Past(replica), when)
    until = moment_text(to_datetime((START_MS + 4000) << 16))
    found, error = await collected(snapshot.documents())
    assert found == "acf"
    assert str(error).startswith(
        f"3 documents are missing: not all that was written to document 'b' and 2 more until {until} is kept here; "
    )


@pytest.mark.parametrize(
    ("order", "after", "limit", "told_ids", "missing"),
    [
        (None, None, None, "acf", 3),
        (None, None, 1, "a", 0),
        (None, None, 2, "ac", 1),
        (None, "b", None, "cf", 2),
        (None, "e", None, "f", 0),
        (None, None, 0, "", 0),
        ("-id", None, None, "fca", 3),
        ("n", None, 1, "a", 3),
    ],
)
async def test_a_page_of_the_past_says_how_many_may_be_missing_in_it(
    order: str | None, after: str | None, limit: int | None, told_ids: str, missing: int
) -> None:
    """Otherwise a page leaves out documents without a word, or complains of those that belong to another."""
    replica, when = overwritten()
    snapshot, behind = await take_snapshot(Past(replica), when), None if after is None else After(after)
    by = None if order is None else Order.parse(order)
    found, error = await collected(list_past(snapshot, Query(), order=by, after=behind, limit=limit))
    assert (found, error.missing if error else 0) == (told_ids, missing)


def test_what_never_came_is_not_said_to_have_been_let_go() -> None:
    """Otherwise an owner looks for what dropped it here, though nothing ever was here."""
    replica, author = new_replica(), Author(1)
    entries = [author.write([Operation(PUT, "d", {"n": n})], hlc=(START_MS + 1000 * n) << 16) for n in range(4)]
    apply(replica, *batch_of(entries[:3], superseded=entries[:2]))
    past, until = Past(replica), to_datetime(entries[1].hlc)
    first, second = history(past, "d", diff=True)
    assert (first.gone, first.write.kind) == ("not_fetched", "not fetched")
    assert (first.write.time, second.gone, second.changes) == (until, None, None)
    found = why(past, "d")
    assert found is not None
    assert (found.let_go_until, found.not_fetched_until) == (None, until)
    give(replica, entries[3])
    let_go(replica, 0)
    first, second = history(past, "d")
    assert (first.gone, first.write.kind) == ("let_go", "let go")
    found = why(past, "d")
    assert found is not None
    assert (found.let_go_until, found.not_fetched_until) == (to_datetime(entries[2].hlc), None)


def test_what_came_back_is_not_missing_any_more() -> None:
    """Otherwise one document that is let go later makes the node say so of all whose past was ever elsewhere."""
    replica, author = new_replica(), Author(1)
    entries = [author.write([Operation(PUT, "d", {"n": n})], hlc=(START_MS + 1000 * n) << 16) for n in range(3)]
    apply(replica, *batch_of(entries, superseded=entries[:2]))
    for entry in entries[:2]:
        assert replica.payloads.fill(author.log, entry.seq, entry.payload) is not None
    later = [author.write([Operation(PUT, "e", {"n": n})], hlc=(START_MS + 9000 + n) << 16) for n in range(2)]
    apply(replica, *batch_of(later, superseded=later[:1]))
    assert replica.tables.marked() == 1
    assert [one.write.kind for one in history(Past(replica), "d")] == ["put"] * 3
    assert [one.write.kind for one in history(Past(replica), "e")] == ["not fetched", "put"]
    found = why(Past(replica), "d")
    assert found is not None
    assert (found.let_go_until, found.not_fetched_until) == (None, None)
