"""Writes on conditions, and several operations as one entry."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.limits import OPERATIONS_MAX, PAYLOAD_BYTES_MAX
from meshsync.errors import LocalError, MovedOnError, RefusedError, StoreError
from meshsync.ids import EntryId
from meshsync.store.memory import MemoryStore
from meshsync.writes import Batch
from tests.authors import Author
from tests.histories import histories, in_any_order
from tests.replicas import give
from tests.test_collection import Notes


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(random_bytes=random.Random(1).randbytes)


@pytest.fixture
def notes(store: MemoryStore) -> Notes:
    return Notes(store)


def revision(notes: Notes, id: str) -> str:
    document = notes.get(id)
    assert document is not None
    return str(document.revision)


# Conditions


async def test_a_write_on_condition_happens_only_to_what_was_read(notes: Notes) -> None:
    """Otherwise two programs on one node overwrite each other's counter."""
    first = await notes.put("n1", {"n": 1})
    second = await notes.patch("n1", {"n": 2}, if_entry=first)
    with pytest.raises(MovedOnError, match=second.short):
        await notes.put("n1", {"n": 9}, if_entry=first)
    with pytest.raises(MovedOnError, match=second.short):
        await notes.patch("n1", {"n": 9}, if_entry=str(first)[:8])
    with pytest.raises(MovedOnError, match=second.short):
        await notes.delete("n1", if_entry=first)
    with pytest.raises(MovedOnError, match=second.short):
        await notes.put("n1", {"n": 9}, if_absent=True)
    assert dict(notes.bodies()) == {"n1": {"n": 2}}
    assert notes.replica.entry_count() == 2
    assert await notes.delete("n1", if_entry=str(second)[:8].upper()) is not None


async def test_what_was_deleted_is_absent(notes: Notes) -> None:
    """Otherwise a name is taken for ever, or a deletion passes for the document that was read."""
    await notes.put("n1", {}, if_absent=True)
    deletion = await notes.delete("n1")
    with pytest.raises(MovedOnError, match="does not exist"):
        await notes.put("n1", {}, if_entry=deletion)
    with pytest.raises(MovedOnError, match="does not exist"):
        await notes.delete("n1", if_entry=deletion)
    await notes.put("n1", {"n": 2}, if_absent=True)
    assert dict(notes.bodies()) == {"n1": {"n": 2}}


@pytest.mark.parametrize("entry", ["", "abc", "0123456", "x" * 64, "0" * 65])
async def test_a_condition_that_is_no_entry_is_refused(notes: Notes, entry: str) -> None:
    """An empty text would be the beginning of every id: a script's unset variable would hold for all documents."""
    await notes.put("n1", {})
    with pytest.raises(LocalError, match="is no entry"):
        await notes.put("n1", {"n": 2}, if_entry=entry)
    with pytest.raises(LocalError, match="one of the two"):
        await notes.put("n1", {}, if_entry="0" * 8, if_absent=True)


async def test_an_earlier_write_that_arrives_later_moves_the_document_on(notes: Notes) -> None:
    """Otherwise what came in from a peer between reading and writing is overwritten unseen."""
    here, elsewhere = Author(1), Author(2)
    early = elsewhere.write([Operation(PATCH, "d", {"b": 1})], hlc=1_800_000_000_001 << 16)
    late = here.write([Operation(PUT, "d", {"a": 1})], hlc=1_800_000_000_002 << 16)
    replica = notes.replica
    give(replica, late)
    before = revision(notes, "d")
    give(replica, early)
    document = notes.get("d")
    assert document is not None
    assert (str(document.entry), document.conflict) == (before, True), "the later write still counts"
    assert document.revision == early.id
    with pytest.raises(MovedOnError):
        await notes.patch("d", {"a": 2}, if_entry=before)
    await notes.patch("d", {"a": 2}, if_entry=EntryId(early.id))


@given(histories(), st.data())
async def test_whatever_changes_a_document_gives_it_another_revision(entries: list[Any], data: st.DataObject) -> None:
    """Otherwise a condition holds although the document is another one, in some order of arrival."""
    notes = Notes(MemoryStore(random_bytes=random.Random(1).randbytes))
    seen: dict[str, dict[str, Any]] = {}
    for entry in in_any_order(entries, data):
        give(notes.replica, entry)
        document = notes.get("d")
        if document is not None:
            assert seen.setdefault(str(document.revision), document.body) == document.body


# Batches


async def write_batch(notes: Notes, fill: Callable[[Batch], None]) -> None:
    async with notes.batch() as batch:
        fill(batch)


async def test_a_batch_is_one_entry(notes: Notes) -> None:
    """Otherwise others see, and keep, half of it."""
    await notes.put("gone", {})
    async with notes.batch() as batch:
        batch.put("a", {"id": "a", "n": 1})
        batch.patch("b", {"n": 2})
        batch.delete("gone")
        assert dict(notes.bodies()) == {"gone": {}}, "nothing is written before the end"
    assert dict(notes.bodies()) == {"a": {"n": 1}, "b": {"n": 2}}
    assert notes.replica.entry_count() == 2
    assert (batch.entry, len(batch)) == (notes.replica.heads()[0].id, 3)


async def test_an_exception_inside_of_a_batch_writes_nothing(notes: Notes) -> None:
    """All or nothing: whoever raises has not finished."""

    def fail(batch: Batch) -> None:
        batch.put("a", {})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_batch(notes, fail)
    with trio.move_on_after(0) as scope:
        async with notes.batch() as batch:
            batch.put("a", {})
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert notes.replica.entry_count() == 0
    with pytest.raises(LocalError, match="the batch is over"):
        batch.put("c", {})


async def test_a_batch_with_nothing_in_it_writes_nothing(notes: Notes) -> None:
    """An empty entry is refused by everybody, and deleting what is not there is no change."""
    async with notes.batch() as batch:
        batch.delete("nothing")
    assert batch.entry is None
    assert notes.replica.entry_count() == 0


async def test_one_condition_that_does_not_hold_keeps_the_whole_batch_out(notes: Notes) -> None:
    """A transfer between two accounts must not happen on one side only."""
    one, other = await notes.put("one", {"n": 10}), await notes.put("other", {"n": 0})
    await notes.patch("other", {"n": 1})

    def transfer(batch: Batch) -> None:
        batch.patch("one", {"n": 5}, if_entry=one)
        batch.patch("other", {"n": 5}, if_entry=other)

    with pytest.raises(MovedOnError, match="other"):
        await write_batch(notes, transfer)
    assert dict(notes.bodies()) == {"one": {"n": 10}, "other": {"n": 1}}
    async with notes.batch() as batch:
        batch.patch("one", {"n": 5}, if_entry=one)
        batch.patch("other", {"n": 6}, if_entry=revision(notes, "other"))
        batch.put("receipt", {}, if_absent=True)
    assert dict(notes.bodies()) == {"one": {"n": 5}, "other": {"n": 6}, "receipt": {}}
    async with notes.batch() as batch:
        batch.patch("one", {"n": 5}, if_entry=revision(notes, "one"))
        with pytest.raises(LocalError, match="different things"):
            batch.patch("one", {"n": 5}, if_absent=True)
        batch.delete("one")


async def test_what_is_too_much_for_an_entry_is_refused_where_it_is_said(notes: Notes) -> None:
    """Otherwise the end of the block fails, and nobody knows by which document."""
    async with notes.batch() as batch:
        for number in range(OPERATIONS_MAX):
            batch.put(f"n{number}", {})
        with pytest.raises(RefusedError, match="at most 256 documents"):
            batch.put("one more", {})
        batch.patch("n0", {"n": 1})
    assert len(notes) == OPERATIONS_MAX
    async with notes.batch() as batch:
        batch.put("large", {"text": "x" * (PAYLOAD_BYTES_MAX - 1000)})
        with pytest.raises(RefusedError, match="'next': with it the batch has more than 262144 bytes"):
            batch.put("next", {"text": "x" * 1000})
        for bad in ({"n": float("nan")}, {"id": "other"}, ["n"]):
            with pytest.raises(LocalError, match="next"):
                batch.put("next", bad)  # type: ignore[arg-type]
        assert len(batch) == 1
    assert notes.get("large") is not None


async def test_a_batch_keeps_what_it_was_given(notes: Notes) -> None:
    """A caller goes on to use its dict, and the batch is written later."""
    body: dict[str, Any] = {"list": [1]}
    async with notes.batch() as batch:
        batch.put("a", body)
        body["list"].append(2)
    assert dict(notes.bodies()) == {"a": {"list": [1]}}


async def test_a_disk_that_takes_nothing_takes_nothing_of_a_batch(notes: Notes, store: MemoryStore) -> None:
    """Otherwise half of it is there after the failure."""
    store.broken = "no space left on device"
    with pytest.raises(StoreError):
        await write_batch(notes, lambda batch: batch.put("a", {}))
    store.broken = ""
    assert len(notes) == 0


bodies = st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(0, 2))
calls = st.lists(st.tuples(st.sampled_from([PUT, PATCH, DELETE]), st.sampled_from("de"), bodies), max_size=8)


@given(calls, calls)
async def test_a_batch_does_what_its_operations_do_one_after_another(
    before: list[tuple[int, str, dict[str, Any]]], inside: list[tuple[int, str, dict[str, Any]]]
) -> None:
    """An entry names a document once, so several operations on one are joined; they must not mean something else."""
    one_by_one, batched = (Notes(MemoryStore(random_bytes=random.Random(1).randbytes)) for _ in range(2))

    async def write(notes: Notes, kind: int, id: str, body: dict[str, Any]) -> None:
        if kind == PUT:
            await notes.put(id, body)
        elif kind == PATCH:
            await notes.patch(id, body)
        else:
            await notes.delete(id)

    for call in before:
        await write(one_by_one, *call)
        await write(batched, *call)
    for call in inside:
        await write(one_by_one, *call)
    async with batched.batch() as batch:
        for call in inside:
            add(batch, *call)
    assert dict(batched.bodies()) == dict(one_by_one.bodies())


def add(batch: Batch, kind: int, id: str, body: dict[str, Any]) -> None:
    if kind == PUT:
        batch.put(id, body)
    elif kind == PATCH:
        batch.patch(id, body)
    else:
        batch.delete(id)
