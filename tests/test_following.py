"""Following a collection, and what matches a query: exact wherever one begins, and however slowly one reads."""

from __future__ import annotations

import random
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core import cbor
from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.core.query import Query
from meshsync.documents import Change
from meshsync.following import Follower
from meshsync.store.memory import MemoryStore
from tests.authors import START_MS, Author, Made
from tests.histories import expiries, in_any_order, operation_of
from tests.meshoracle import Write, document_of
from tests.replicas import give
from tests.test_collection import Notes

BLUE = Query.parse("team=blue")
QUERIES = [None, Query.parse("a=1"), Query.parse("a!=1"), Query.parse("b?"), Query.parse("id=e")]

contents = st.tuples(
    st.sampled_from([PUT, PATCH, PATCH, DELETE]),
    st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(0, 2), max_size=2),
    expiries,
)


def new_notes(**limits: int) -> Notes:
    notes = Notes(MemoryStore(random_bytes=random.Random(1).randbytes))
    notes.replica.limits = replace(LIMITS, **limits)
    return notes


@st.composite
def histories_of_two(draw: st.DrawFn) -> list[Made]:
    """Entries of a few authors on the documents d and e, of which each may have seen some of the others."""
    authors = [Author(number) for number in range(1, 4)]
    entries: list[Made] = []
    for _ in range(draw(st.integers(1, 10))):
        author = draw(st.sampled_from(authors))
        others = [entry for entry in entries if entry.log != author.log]
        chosen = draw(st.lists(st.sampled_from(others), max_size=2, unique_by=lambda entry: entry.id)) if others else []
        stamp = max([START_MS << 16, *(entry.hlc for entry in [*chosen, *([author.last] if author.last else [])])])
        ids = draw(st.sampled_from(["d", "e", "de"]))
        operations = [replace(operation_of(*draw(contents)), id=id) for id in ids]
        entries.append(author.write(operations, chosen, hlc=stamp + draw(st.integers(1, 3))))
    return entries


def stored(notes: Notes, query: Query | None, since: str = "0") -> list[Change]:
    """The changes from a cursor on that are stored already."""
    found: list[Change] = []

    async def read() -> None:
        async with aclosing(Follower(notes.replica, notes.watcher, query, since).changes()) as changes:
            while True:
                found.append(await anext(changes))

    async def read_all() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(read_all)
    return found


def facts(changes: list[Change]) -> list[Any]:
    """All but the mark of conflicts, which is that of the moment of reading."""
    return [replace(change, conflict=False) for change in changes]


def model(entries: list[Made], query: Query | None) -> dict[str, Any]:
    """The documents that match, made of these entries the slow way."""
    writes: dict[str, list[Write]] = {}
    for entry in entries:
        for kind, id, *content in cbor.decode_trusted(entry.payload):
            stamp = (entry.hlc, bytes(entry.log.author), entry.id)
            writes.setdefault(id, []).append((stamp, kind, content[0] if content else None))
    documents = {id: document_of(of_one) for id, of_one in writes.items()}
    return {
        id: body for id, body in documents.items() if body is not None and (query is None or query.matches(body, id))
    }


def fold(view: dict[str, Any], change: Change) -> None:
    if change.document is None:
        view.pop(change.id, None)
    else:
        view[change.id] = change.document


@given(histories_of_two(), st.data(), st.sampled_from([1, 4096]))
def test_whoever_applies_the_changes_holds_what_matches(entries: list[Made], data: st.DataObject, known: int) -> None:
    """The one thing that a live query is for, in every order of arrival, and also while little can be remembered."""
    query = data.draw(st.sampled_from(QUERIES))
    order = in_any_order(entries, data)
    notes = new_notes(follower_documents_max=known)
    live: list[Change] = []
    view: dict[str, Any] = {}
    for number, entry in enumerate(order, 1):
        give(notes.replica, entry)
        for change in stored(notes, query, live[-1].cursor if live else "0"):
            was = change.id in view
            fold(view, change)
            assert change.kind != "removed" or was, "removed from where it never was"
            assert query is None or change.document is not None or was, "a deletion that does not concern the query"
            live.append(change)
        assert view == model(order[:number], query)
    # A reader that was away all the time, one that stopped anywhere, and one that forgets are told the same.
    assert facts(stored(notes, query)) == facts(live)
    for number in range(len(live)):
        assert facts(stored(notes, query, live[number].cursor)) == facts(live[number + 1 :])


async def test_a_document_wanders_in_and_out(autojump_clock: object) -> None:
    """Otherwise a map goes on to show what is not there any more."""
    del autojump_clock
    notes = new_notes()
    await notes.put("n1", {"team": "red"})
    async with aclosing(notes.changes(BLUE)) as changes:
        await notes.patch("n1", {"team": "blue"})
        await notes.patch("n1", {"n": 1})
        await notes.put("n1", {"team": "red"})
        await notes.patch("n1", {"n": 2})
        await notes.delete("n1")
        await notes.put("n2", {"team": "blue"})
        await notes.delete("n2")
        found = [await anext(changes) for _ in range(5)]
        with trio.move_on_after(1) as scope:
            await anext(changes)
        assert scope.cancelled_caught
    assert [(one.kind, one.id, one.document) for one in found] == [
        ("patch", "n1", {"team": "blue"}),
        ("patch", "n1", {"team": "blue", "n": 1}),
        ("removed", "n1", None),
        ("put", "n2", {"team": "blue"}),
        ("delete", "n2", None),
    ]


async def test_what_matched_before_a_reader_came_is_told_when_it_goes() -> None:
    """A program lists, then follows: what it listed must leave as well."""
    notes = new_notes()
    for id in ("n1", "n2"):
        await notes.put(id, {"team": "blue"})
        await notes.patch(id, {"n": 1})
    async with aclosing(notes.changes(BLUE)) as changes:
        await notes.patch("n1", {"team": "red"})
        await notes.delete("n2")
        found = [await anext(changes) for _ in range(2)]
    assert [(one.kind, one.id) for one in found] == [("removed", "n1"), ("delete", "n2")]


async def test_a_reader_cannot_change_what_others_are_told() -> None:
    """What is remembered of a document must not be what was handed out."""
    notes = new_notes()
    await notes.put("n1", {"list": [1]})
    for n in range(3):
        await notes.patch("n1", {"n": n})
    async with aclosing(notes.changes(since="0")) as changes:
        for _ in range(4):
            document = (await anext(changes)).document
            assert document is not None
            assert document["list"] == [1]
            document["list"].append(2)


async def test_a_slow_reader_takes_bounded_memory() -> None:
    """It reads from the store; otherwise one that sleeps, or has everything change before it, fills the memory."""
    notes = new_notes(follower_documents_max=50, follower_bytes_max=4000)
    follower = Follower(notes.replica, notes.watcher, Query.parse("n!=0"), notes.cursor())
    async with aclosing(follower.changes()) as changes:
        for n in range(3):
            for number in range(300):
                await notes.patch(f"n{number:03}", {"n": n})
        view: dict[str, Any] = {}
        for _ in range(600):
            fold(view, await anext(changes))
            assert len(follower._known) <= 50
            assert follower._known_bytes == sum(
                len(id) + len(known.state or b"") for id, known in follower._known.items()
            )
            assert follower._known_bytes <= 4000
    assert view == {f"n{number:03}": {"n": 2} for number in range(300)}


@pytest.mark.parametrize("size", [1, 100_000])
async def test_pages_are_as_long_as_what_they_hold_allows(size: int) -> None:
    """A page of 256 entries of the greatest size is 64 MiB, for each reader."""
    notes = new_notes()
    for n in range(40):
        await notes.write([Operation(PUT, f"n{n}", {"text": "x" * size})])
    pages: list[int] = []
    read = notes.replica.tables.entries_from

    def entries_from(arrival: int, limit: int) -> list[Any]:
        pages.append(limit)
        return read(arrival, limit)

    notes.replica.tables.entries_from = entries_from  # type: ignore[method-assign]
    async with aclosing(notes.changes(since="0")) as changes:
        found = [(await anext(changes)).id for _ in range(40)]
    assert found == [f"n{n}" for n in range(40)]
    assert pages[-1] == (2 if size > 1 else 32)
