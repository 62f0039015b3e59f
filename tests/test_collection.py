"""A collection as a program uses it, over a store in memory."""

from __future__ import annotations

import random
from contextlib import aclosing
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.collection import Collection
from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.core.query import Query
from meshsync.documents import Change
from meshsync.errors import LocalError, MeshsyncError, StoreError
from meshsync.events import EventLog
from meshsync.ids import CollectionId
from meshsync.indexing import Indexing
from meshsync.notifier import Notifier
from meshsync.store.base import Store
from meshsync.store.memory import MemoryStore
from meshsync.store.replica import Applied, Replica
from meshsync.upkeep import Upkeep

NOW_MS = 1_800_000_000_000


class Notes(Collection):
    """A collection of one node, and what it told."""

    def __init__(self, store: Store, number: int = 1, *, wait_durable: bool = True) -> None:
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        id = CollectionId.of_name("notes")
        self.replica = Replica(store, store.collection(id, "notes"), key)
        self.watcher = Notifier()
        self.failures: list[StoreError] = []
        self.now_ms = NOW_MS
        self.indexing = Indexing(
            Upkeep(lambda: [self.replica], self.failures.append, LIMITS), EventLog(LIMITS, lambda: 0.0)
        )
        super().__init__(
            self.replica,
            self._told,
            self.failures.append,
            self.watcher,
            lambda: self.now_ms,
            wait_durable=wait_durable,
            indexes_changed=self.indexing.changed,
        )

    def _told(self, replica: Replica, applied: Applied) -> None:
        assert replica is self.replica
        assert applied.tips
        self.watcher.notify()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(random_bytes=random.Random(1).randbytes)


@pytest.fixture
def notes(store: MemoryStore) -> Notes:
    return Notes(store)


async def take(collection: Collection, count: int, since: str | None = "0", query: Query | None = None) -> list[Change]:
    """The next changes from a cursor on."""
    found: list[Change] = []
    async with aclosing(collection.changes(query, since)) as changes:
        while len(found) < count:
            found.append(await anext(changes))
    return found


async def test_documents_are_written_patched_and_deleted(notes: Notes) -> None:
    """The least that a collection does."""
    entry = await notes.put("n1", {"id": "n1", "title": "hello", "n": 1})
    document = notes.get("n1")
    assert document is not None
    assert (document.id, document.body, document.entry) == ("n1", {"title": "hello", "n": 1}, entry)
    assert document.author == notes.replica.author
    assert document.time.timestamp() == NOW_MS / 1000
    assert not document.conflict
    await notes.patch("n1", {"n": None, "m": 2})
    assert dict(notes.bodies()) == {"n1": {"title": "hello", "m": 2}}
    assert len(notes) == 1
    assert await notes.delete("n1") is not None
    assert await notes.delete("n1") is None
    assert notes.get("n1") is None
    assert list(notes.documents()) == []


async def test_a_batch_is_one_entry_or_nothing(notes: Notes) -> None:
    """Otherwise half a batch is seen, or sent."""
    await notes.write([Operation(PUT, "a", {"n": 1}), Operation(PATCH, "b", {"n": 2})])
    assert dict(notes.bodies()) == {"a": {"n": 1}, "b": {"n": 2}}
    assert notes.replica.entry_count() == 1
    with pytest.raises(MeshsyncError):
        await notes.write([Operation(PUT, "c", {}), Operation(PUT, "", {})])
    assert notes.get("c") is None


@pytest.mark.parametrize("body", [["n"], "n", None, {"id": "other"}, {"x": float("nan")}, {"x": 2**70}])
async def test_what_is_no_document_is_refused(notes: Notes, body: object) -> None:
    """Otherwise a slip is stored on every node for ever."""
    with pytest.raises(LocalError):
        await notes.put("n1", body)  # type: ignore[arg-type]
    assert len(notes) == 0


async def test_listings_choose_by_query(notes: Notes) -> None:
    """Otherwise `--where` does nothing."""
    for number in range(700):
        await notes.put(f"n{number:03}", {"n": number})
    query = Query.parse("n>=690")
    assert [document.id for document in notes.documents(query)] == [f"n{number}" for number in range(690, 700)]
    assert [id for id, _ in notes.bodies(query)] == [f"n{number}" for number in range(690, 700)]


async def test_changes_continue_within_an_entry(notes: Notes) -> None:
    """Otherwise a cursor in the middle of a batch repeats or skips the rest of it."""
    await notes.write([Operation(PUT, id, {}) for id in "abc"])
    await notes.write([Operation(DELETE, "b"), Operation(PUT, "d", {})])
    everything = await take(notes, 5)
    assert [change.id for change in everything] == ["a", "b", "c", "b", "d"]
    assert [change.kind for change in everything] == ["put", "put", "put", "delete", "put"]
    assert everything[1].document == {}, "the document as it stood then"
    for number, change in enumerate(everything[:-1]):
        assert await take(notes, 4 - number, change.cursor) == everything[number + 1 :]
    assert everything[-1].cursor == notes.cursor()


async def test_changes_begin_at_the_call(notes: Notes) -> None:
    """Otherwise what is written between `changes()` and the first `anext` is lost."""
    await notes.put("before", {})
    async with aclosing(notes.changes()) as changes:
        await notes.put("after", {})
        assert (await anext(changes)).id == "after"


async def test_changes_choose_by_query_and_tell_deletions(notes: Notes) -> None:
    """Otherwise a follower of a query keeps what was deleted."""
    await notes.put("blue", {"team": "blue"})
    await notes.put("red", {"team": "red"})
    await notes.put("gone", {"team": "blue"})
    await notes.delete("gone")
    found = await take(notes, 3, query=Query.parse("team=blue"))
    assert [(change.id, change.kind, change.document) for change in found] == [
        ("blue", "put", {"team": "blue"}),
        ("gone", "put", {"team": "blue"}),
        ("gone", "delete", None),
    ]


async def test_a_waiting_follower_wakes_for_each_write(notes: Notes, autojump_clock: object) -> None:
    """Otherwise a write that falls between looking and waiting is told with the next one only."""
    del autojump_clock
    seen: list[str] = []

    async def follow() -> None:
        async with aclosing(notes.changes()) as changes:
            while True:
                seen.append((await anext(changes)).id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.sleep(1)
        for number in range(50):
            await notes.put(f"n{number}", {})
            if number % 7 == 0:
                await trio.sleep(0.01)
        await trio.sleep(1)
        assert seen == [f"n{number}" for number in range(50)]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "cursor",
    ["", "1", "x-1", "{epoch}", "{epoch}-", "{epoch}-x", "{epoch}-1²", "{epoch}-99999", "{epoch}-" + "9" * 5000],
)
async def test_a_cursor_that_is_none_of_this_store_is_refused(notes: Notes, cursor: str) -> None:
    """Otherwise a reader of another store's cursor skips or repeats in silence."""
    await notes.put("n1", {})
    with pytest.raises(LocalError, match="begin anew"):
        notes.changes(since=cursor.format(epoch=notes.replica.epoch.hex()))


async def test_cancelling_a_write_stops_the_waiting_only(notes: Notes) -> None:
    """Otherwise a caller that gives up cannot know whether it wrote."""
    with trio.move_on_after(0) as scope:
        scope.cancel()
        await notes.put("n1", {})
    assert notes.get("n1") is not None


async def test_a_disk_that_takes_nothing_is_told(notes: Notes, store: MemoryStore) -> None:
    """Otherwise the status says that all is well while writes fail."""
    store.broken = "no space left on device"
    with pytest.raises(StoreError, match="no space"):
        await notes.put("n1", {})
    assert [str(error) for error in notes.failures] == ["no space left on device"]
    assert notes.get("n1") is None
    store.broken = ""
    await notes.put("n1", {})


async def test_the_text_of_a_query_will_do_and_nothing_else_will(notes: Notes) -> None:
    """Otherwise the most natural call ends in an error of Python's about something else."""
    await notes.put("a", {"n": 1})
    await notes.put("b", {"n": 2})
    assert [document.id for document in notes.documents("n=1")] == ["a"]
    assert dict(notes.bodies("n=2")) == {"b": {"n": 2}}
    async with aclosing(notes.changes("n=2", since="0")) as changes:
        assert (await anext(changes)).id == "b"
    with pytest.raises(LocalError, match="column 2"):
        list(notes.documents("n"))
    wrong: Any
    for wrong in (3, ["n=1"], {"n": 1}, True):
        for read in (lambda it: list(notes.documents(it)), lambda it: list(notes.bodies(it)), notes.changes):
            with pytest.raises(LocalError, match="is no query; give an expression such as 'team=blue'"):
                read(wrong)
    with pytest.raises(LocalError, match="0 is no cursor"):
        notes.changes(since=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("id", [3, None, b"a", "\ud800"])
async def test_what_can_be_no_id_is_refused(notes: Notes, id: Any) -> None:
    """Otherwise a slip ends in an error of the database's, or b"a" is taken for a document that does not exist."""
    snapshot = await notes.snapshot("2100-01-01T00:00Z")
    for read in (notes.get, notes.why, notes.was_written, notes.expired_at, lambda it: list(notes.history(it))):
        with pytest.raises(LocalError, match="is no id of a document"):
            read(id)
    for act in (notes.delete, snapshot.get):
        with pytest.raises(LocalError, match="is no id of a document"):
            await act(id)
    with pytest.raises(LocalError, match="'3' is no entry"):
        await notes.put("a", {}, if_entry=3)  # type: ignore[arg-type]
