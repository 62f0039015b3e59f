"""Documents that are outside of the part of a collection that a node holds: what it says, and what can be written."""

from __future__ import annotations

import random

import pytest

from meshsync.core.entry import DELETE, PATCH, PUT, Operation, encode_operations
from meshsync.core.query import Query
from meshsync.errors import MovedOnError, NotInPartError
from meshsync.store.memory import MemoryStore
from tests.authors import Author, batch_of
from tests.replicas import apply
from tests.test_collection import Notes

PAST = [Operation(PUT, "g", {"team": "green"}), Operation(PATCH, "g", {"n": 2})]
"""The fourth and the fifth write, by header only."""


@pytest.fixture
def notes() -> Notes:
    """A node that wants the blue team: b is blue, r was and is not, g never was, and x was deleted."""
    found = Notes(MemoryStore(random_bytes=random.Random(1).randbytes), 9)
    found.replica.choose(Query.parse("team=blue"))
    author = Author(1)
    entries = [
        author.write([Operation(PUT, "b", {"team": "blue"})]),
        author.write([Operation(PUT, "r", {"team": "blue", "n": 1})]),
        author.write([Operation(PATCH, "r", {"team": "red"})]),
        *(author.write([operation]) for operation in PAST),
        author.write([Operation(PUT, "x", {"team": "blue"})]),
        author.write([Operation(DELETE, "x")]),
    ]
    apply(found.replica, *batch_of(entries, bare=entries[3:5]))
    return found


def test_what_is_known_of_a_document_outside_is_told(notes: Notes) -> None:
    """Otherwise a node says of what it does not hold that it does not exist."""
    assert notes.outside("b") is None
    assert notes.outside("x") is None  # it is known to be deleted
    green, red, never = (notes.outside(id) for id in ("g", "r", "never"))
    assert green is not None
    assert red is not None
    assert never is not None
    assert (green.writes, green.unread, green.may_exist) == (2, 2, True)
    assert (red.writes, red.unread, red.may_exist) == (2, 0, True)
    assert (never.writes, never.may_exist, never.time) == (0, False, None)
    text = str(green)
    assert text.startswith(
        "this node holds the part of notes where team=blue, and 'g' is not in it: 2 writes to it are"
    )
    assert "2 by header only" in text
    assert f"by {Author(1).log.author.short}; ask a node that holds it" in text
    assert str(never).endswith("no write to it is known")


async def test_what_a_node_that_wants_all_still_lacks_is_not_taken_for_absent(notes: Notes) -> None:
    """Payloads may be with nobody who is connected: `if_absent` would write over what the headers tell of."""
    notes.replica.choose(None)
    green = notes.outside("g")
    assert green is not None
    assert (green.writes, green.unread, green.may_exist) == (2, 2, True)
    assert str(green).startswith("what 'g' in notes says has not all come: 2 writes to it are known, 2 by header only")
    assert [notes.outside(id) for id in ("b", "r", "x", "never")] == [None] * 4
    with pytest.raises(MovedOnError, match="nothing was written: what 'g' in notes says has not all come"):
        await notes.put("g", {"team": "blue"}, if_absent=True)
    with pytest.raises(NotInPartError, match="nothing was deleted"):
        await notes.delete("g")
    await notes.put("never", {}, if_absent=True)
    for log, seq in notes.replica.wanted_places(9):
        notes.replica.fill_payload(log, seq, encode_operations([PAST[seq - 4]]))
    assert notes.outside("g") is None
    assert await notes.delete("g") is not None


async def test_nothing_is_deleted_that_nobody_here_has_seen(notes: Notes) -> None:
    """Otherwise a program is told that there is no such document, and goes on to believe that it is gone."""
    for id in ("g", "r"):
        with pytest.raises(NotInPartError, match="nothing was deleted: this node holds the part of notes"):
            await notes.delete(id)
    assert await notes.delete("never") is None
    assert await notes.delete("x") is None
    before = notes.replica.entry_count()

    async def delete_both() -> None:
        async with notes.batch() as batch:
            batch.delete("b")
            batch.delete("g")

    with pytest.raises(NotInPartError):
        await delete_both()
    assert notes.replica.entry_count() == before
    assert await notes.delete("b") is not None


async def test_conditions_on_what_is_outside_fail_and_say_why(notes: Notes) -> None:
    """Otherwise `if_absent` writes over what others have, and `if_entry` says that it never was."""
    with pytest.raises(MovedOnError, match=r"nothing was written: .* 2 by header only"):
        await notes.put("g", {"team": "blue"}, if_absent=True)
    with pytest.raises(MovedOnError, match="holds the part of notes where team=blue"):
        await notes.patch("r", {"n": 2}, if_entry="0" * 8)
    with pytest.raises(MovedOnError, match="no write to it is known"):
        await notes.patch("never", {"n": 2}, if_entry="0" * 8)
    await notes.put("new", {"team": "blue"}, if_absent=True)
    await notes.put("x", {"team": "blue"}, if_absent=True)


async def test_what_is_outside_can_be_patched_unseen(notes: Notes) -> None:
    """Otherwise nobody could move a document into the part of another node, or report to one that it does not hold."""
    await notes.patch("g", {"seen": True})
    assert notes.get("g") is None
    await notes.patch("g", {"team": "blue"})
    assert notes.get("g") is None  # what it is besides has to come first
    assert "'g' enters it once all of it has come: 4 writes to it are known, 2 by header only" in str(
        notes.outside("g")
    )
    for log, seq in notes.replica.wanted_places(9):
        notes.replica.fill_payload(log, seq, encode_operations([PAST[seq - 4]]))
    found = notes.get("g")
    assert found is not None
    assert found.body == {"n": 2, "seen": True, "team": "blue"}
