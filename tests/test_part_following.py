"""Following a part of a collection: across restarts, other queries, payloads that come late, and disks that refuse."""

from __future__ import annotations

import random
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from meshsync.core import cbor
from meshsync.core.entry import DELETE, NEVER, PATCH, PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.core.query import Query
from meshsync.errors import StoreError
from meshsync.ids import LogId
from meshsync.store.contributing import contributing
from meshsync.store.memory import MemoryStore
from meshsync.store.part_changes import is_shown
from tests.authors import START_MS, Author, Made, batch_of
from tests.readers import Reader
from tests.replicas import apply
from tests.test_collection import Notes

BLUE = Query.parse("team=blue")
PARTS = [None, BLUE, Query.parse("team=red"), Query.parse("n>3"), Query.parse("id=d1")]
WISHES = [None, Query.parse("n>2"), Query.parse("n<=5"), Query.parse("team=blue")]


def shown(notes: Notes, wish: Query | None = None) -> dict[str, dict[str, Any]]:
    """What a node shows of what matches."""
    return dict(notes.bodies(wish))


class Model:
    """A node with a part of a collection, its peers, and readers, under random events drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.store = MemoryStore(random_bytes=random.Random(seed).randbytes)
        self.limits = replace(
            LIMITS,
            follower_documents_max=rng.choice((1, 4, 4096)),
            follower_page_documents=rng.choice((1, 3, 32)),
            follower_step_documents=rng.choice((1, 3, 256)),
            follower_writes_max=rng.choice((2, 512)),
            expiring_slice_documents=(1, 256)[seed % 2],
        )
        self.authors = [Author(number) for number in range(1, 4)]
        self.made: dict[tuple[LogId, int], Made] = {}
        self.part = rng.choice(PARTS)
        self.bare_rate = rng.choice((0.0, 0.5))
        self.expires = rng.choice((False, True))
        self.now_ms = START_MS
        self.open()
        self.readers = [Reader(rng.choice(WISHES)) for _ in range(3)]
        self.events = {
            self.deliver: 10,
            self.write: 3,
            self.fill: 4,
            self.read: 8,
            self.choose: rng.choice((0, 1, 3)),
            self.restart: rng.choice((0, 1, 3)),
            self.break_disk: rng.choice((0, 1)),
            self.let_go: rng.choice((0, 0, 2)),
            self.pass_time: 3,
        }

    def open(self) -> None:
        """A process starts."""
        self.notes = Notes(self.store, 9)
        self.notes.replica.limits = self.limits
        self.notes.replica.choose(self.part)

    def operations(self) -> list[Operation]:
        ids = self.rng.sample([f"d{number}" for number in range(6)], self.rng.choice((1, 1, 2)))
        return [self.operation(id) for id in ids]

    def operation(self, id: str) -> Operation:
        kind = self.rng.choice((PUT, PATCH, PATCH, DELETE))
        if kind == DELETE:
            return Operation(DELETE, id)
        fields = {"team": self.rng.choice(("blue", "red")), "n": self.rng.randrange(8)}
        body = {name: fields[name] for name in self.rng.sample(sorted(fields), 2 - (kind == PATCH))}
        expires_ms = self.now_ms + self.rng.randrange(1, 200_000)
        return Operation(kind, id, body, self.rng.choice((None, None, NEVER, expires_ms)) if self.expires else None)

    def deliver(self) -> None:
        """A peer sends entries, some of them without payload."""
        entries, bare = [], []
        for _ in range(self.rng.choice((1, 1, 4))):
            author = self.rng.choice(self.authors)
            others = [one.last for one in self.authors if one is not author and one.last is not None]
            made = author.write(self.operations(), self.rng.sample(others, self.rng.randrange(len(others) + 1)))
            self.made[made.log, made.seq] = made
            entries.append(made)
            if self.part is not None and self.rng.random() < self.bare_rate:
                bare.append(made)
        apply(self.notes.replica, *batch_of(entries, bare=bare))

    def write(self) -> None:
        replica = self.notes.replica
        replica.append(replica.expiries.as_meant(self.operations(), self.now_ms), self.now_ms)

    def pass_time(self) -> None:
        """Time goes on, or the clock is set back, and documents expire or come back."""
        self.now_ms += self.rng.choice((1, 10_000, 100_000, -200_000))
        while self.notes.replica.expiries.step(self.now_ms):
            if self.rng.random() < 0.3:
                self.read()

    def fill(self, most: int = 2) -> None:
        """A payload comes that is wanted."""
        for log, seq in self.notes.replica.wanted_places(most):
            self.notes.replica.fill_payload(log, seq, self.made[log, seq].payload)

    def read(self) -> None:
        self.rng.choice(self.readers).read(self.notes.replica, self.rng.choice((None, None, 1, 3)))

    def choose(self) -> None:
        self.part = self.rng.choice(PARTS)
        self.notes.replica.choose(self.part)

    def restart(self) -> None:
        """The process is killed; the next one may be configured otherwise."""
        self.store = self.store.kill()
        self.part = self.rng.choice((self.part, self.part, *PARTS))
        self.open()

    def let_go(self) -> None:
        """Some of the payloads that later ones supersede are dropped."""
        replica = self.notes.replica
        rows = [row for row in replica.scan_entries() if row.payload is not None]
        kept = contributing(replica, rows)
        goes = [row for row in rows if row.arrival not in kept and self.rng.random() < 0.7]
        with replica.store.transaction():
            replica.payloads.let_go(goes)

    def break_disk(self) -> None:
        """The disk refuses one change."""
        self.store.broken = "disk full"
        with suppress(StoreError):
            self.write()
        with suppress(StoreError):
            self.notes.replica.choose(self.rng.choice(PARTS))
        self.store.broken = ""
        self.notes.replica.choose(self.part)

    def check(self, reader: Reader) -> None:
        """Who was told all has what the node shows."""
        reader.read(self.notes.replica)
        assert reader.has == shown(self.notes, reader.wish)

    def check_agreement(self) -> None:
        """What followers are told of is what is shown, whole or not."""
        replica = self.notes.replica
        interest, changes = replica.interest, replica.part_changes
        if interest is None or not interest.is_settled or not changes.is_kept:
            return
        while not changes.step():
            pass
        for id, body in self.notes.bodies():
            assert changes.shows(id, body, changes.row(id))
        for row in replica.tables.document_rows("", 99):
            noted = changes.row(row.id)
            assert noted is None or is_shown(noted) == (row.id in interest)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            (event,) = self.rng.choices(list(self.events), list(self.events.values()))
            event()
            if self.rng.random() < 0.3:
                self.check_agreement()
            if self.rng.random() < 0.2 and self.notes.replica.is_satisfied:
                self.check(self.rng.choice(self.readers))
        while self.notes.replica.wanted_places(1):
            self.fill(99)
        for reader in self.readers:
            self.check(reader)
            # It is not known of all documents whether the reader was told that they left.
            assert [one for one in reader.read(self.notes.replica) if one.document is not None] == []


@pytest.mark.parametrize("seed", range(20))
def test_whoever_was_told_all_has_what_the_node_shows(seed: int) -> None:
    """Otherwise a reader that was away keeps what left the part, or misses what came into it."""
    Model(seed).run(60)


def part_of_many(documents: int, step: int) -> Notes:
    """A node with a part of a collection, that looks at few documents at a time."""
    notes = Notes(MemoryStore(random_bytes=random.Random(1).randbytes), 9)
    notes.replica.limits = replace(LIMITS, follower_step_documents=step)
    operations = [Operation(PUT, f"d{number:04}", {"n": number, "even": not number % 2}) for number in range(documents)]
    for start in range(0, documents, 250):
        notes.write_soon(operations[start : start + 250])
    choose(notes, "n<10")
    return notes


def choose(notes: Notes, query: str) -> None:
    notes.replica.choose(Query.parse(query))
    while notes.replica.interest is not None and not notes.replica.interest.step():
        pass
    notes.watcher.notify()


async def test_a_reader_is_told_while_documents_are_looked_at_for_another_part() -> None:
    """Otherwise nothing is told for seconds whenever a part of a large collection becomes another one."""
    notes = part_of_many(1000, 10)
    async with aclosing(notes.changes()) as changes:
        choose(notes, "n<990")
        notes.write_soon([Operation(PATCH, "d0001", {"new": True})])
        async for change in changes:
            if change.id == "d0001":
                break
        assert not notes.replica.part_changes.is_settled
        told = {change.id} | {(await anext(changes)).id for _ in range(980)}
        assert told == {"d0001"} | {f"d{number:04}" for number in range(10, 990)}


async def test_a_part_that_never_rests_is_told_all_the_same() -> None:
    """Who follows what is near something that moves would never hear of the documents with the last ids."""
    notes = part_of_many(1000, 100)
    seen: set[str] = set()

    async def read() -> None:
        async with aclosing(notes.changes()) as changes:
            async for change in changes:
                seen.add(change.id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        for turn in range(60):
            choose(notes, f"n<10 or n>=990 and n!={turn}")
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert seen >= {f"d{number:04}" for number in range(990, 1000)}


def test_documents_of_one_entry_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a collection that was loaded in large entries takes so many times as long for each other part."""
    notes = part_of_many(500, 250)
    notes.cursor()
    choose(notes, "n<20")
    sizes: list[int] = []
    decode = cbor.decode_trusted

    def noting(data: bytes) -> Any:
        sizes.append(len(data))
        return decode(data)

    monkeypatch.setattr(cbor, "decode_trusted", noting)
    while not notes.replica.part_changes.step():
        pass
    assert len([size for size in sizes if size > 1000]) <= 4


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_told_twice_to_who_reads_all(seed: int) -> None:
    """Otherwise a reader is told that documents left that it never had, at every restart."""
    model = Model(seed)
    model.bare_rate = 0.0
    model.limits = LIMITS
    model.restart()
    for _ in range(40):
        model.rng.choice((model.deliver, model.write, model.choose, model.restart, model.pass_time))()
        for reader in model.readers:
            had = dict(reader.has)
            for change in reader.read(model.notes.replica):
                # In a whole collection each operation is told, also those that change nothing.
                assert change.document is not None or change.id in had or not change.cursor.startswith("part-")
            assert reader.has == shown(model.notes, reader.wish)


@pytest.mark.parametrize("seed", range(8))
def test_whoever_reads_where_the_past_was_let_go_has_what_is_there(seed: int) -> None:
    """Otherwise a reader waits for ever for a payload that nobody keeps, or is shown what it was without it."""
    model = Model(seed)
    model.part, model.bare_rate = None, 0.0
    model.open()
    for _ in range(60):
        model.rng.choice((model.deliver, model.write, model.read, model.let_go))()
    for reader in model.readers:
        model.check(reader)
        assert not reader.cursor.startswith("part-")
