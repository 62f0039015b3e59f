"""The past of a document: every write, in the order that decides what it shows, whatever way it came."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.document import DocumentState
from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.errors import DamagedError, StoreError
from meshsync.store.drafts import State
from meshsync.store.past import Past, Write
from meshsync.store.replica import Replica
from meshsync.store.rows import LOST_STATE
from meshsync.store.sqlite import SqliteStore
from tests.authors import START_MS, Author, Made, batch_of
from tests.histories import histories, in_any_order, writes_of
from tests.meshoracle import document_of
from tests.replicas import apply, give, new_replica, store_of


def writes(replica: Replica, id: str = "d", *, reverse: bool = False) -> list[Write]:
    past = Past(replica)
    row = past.row(id)
    return [] if row is None else list(past.writes(row, reverse=reverse))


def simple(found: list[Write]) -> list[object]:
    return [(tuple(write.stamp), write.kind, write.body) for write in found]


@given(histories(), st.data())
def test_the_past_is_every_write_and_replays_to_the_present(entries: list[Made], data: st.DataObject) -> None:
    """Otherwise a write is hidden from who looks for it, or the order told is not the one that decided."""
    replica = new_replica()
    order = in_any_order(entries, data)
    while order:
        count = data.draw(st.integers(1, len(order)))
        give(replica, *order[:count])
        del order[:count]
    found = writes(replica)
    expected = sorted(writes_of(entries), key=lambda write: write[0])
    assert simple(found) == expected
    assert simple(writes(replica, reverse=True)) == expected[::-1]
    past = Past(replica)
    state = past.new_state()
    for write in found:
        past.apply(state, write)
    assert state.visible() == document_of(writes_of(entries))
    row = replica.tables.documents(["d"])["d"]
    assert _content(state) == _content(replica.merger.state(row))


def _content(state: State) -> object:
    assert isinstance(state, DocumentState)
    return state.clear, state.exists, state.fields


@given(histories(), st.permutations(range(12)))
def test_writes_whose_payloads_come_late_are_in_the_past(entries: list[Made], order: list[int]) -> None:
    """Otherwise a write that was fetched afterwards, by a query or a repair, has no history."""
    replica = new_replica()
    apply(replica, *batch_of(entries, bare=entries))
    filled = []
    for number in order:
        if number < len(entries):
            filled.append(entries[number])
            replica.fill_payload(entries[number].log, entries[number].seq, entries[number].payload)
            assert simple(writes(replica)) == sorted(writes_of(filled), key=lambda write: write[0])


def test_both_stores_remember_the_same(tmp_path: Path) -> None:
    """Otherwise what the simulator shows is not what runs."""
    rng = random.Random(7)
    done = [(rng.choice("xyz"), rng.choice([PUT, PUT, PATCH, DELETE])) for _ in range(400)]
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    memory = new_replica()
    disk = Replica(store, store.collection(memory.id, "notes"), memory.key)
    for number, (id, kind) in enumerate(done):
        for replica in (memory, disk):
            replica.append([Operation(kind, id, None if kind == DELETE else {"n": number})], START_MS + number)
    for id in "xyz":
        expected = [
            (kind, None if kind == DELETE else {"n": number}) for number, (one, kind) in enumerate(done) if one == id
        ]
        for replica in (memory, disk):
            assert [(write.kind, write.body) for write in writes(replica, id)] == expected
            assert [(write.kind, write.body) for write in writes(replica, id, reverse=True)] == expected[::-1]
    assert list(store.verify()) == []
    store.close()


def test_a_write_that_the_disk_refuses_leaves_nothing_in_the_past() -> None:
    """Otherwise a history names an entry that is not there, and then another one of the same number."""
    replica = new_replica()
    for _ in range(2):
        replica.append([Operation(PUT, "d", {})], START_MS)
    before = writes(replica)
    store_of(replica).broken = "disk full"
    with pytest.raises(StoreError):
        replica.append([Operation(PATCH, "d", {})], START_MS)
    store_of(replica).broken = ""
    assert writes(replica) == before
    replica.append([Operation(PATCH, "d", {})], START_MS)
    assert len(writes(replica)) == 3


def test_documents_that_share_a_tag_keep_their_pasts_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a collision of eight bytes shows the writes to one document as those to another."""
    monkeypatch.setattr("meshsync.store.merge.document_tag", lambda *_: b"8 bytes!")
    monkeypatch.setattr("meshsync.store.past.document_tag", lambda *_: b"8 bytes!")
    replica = new_replica()
    for number in range(6):
        replica.append([Operation(PUT, "xy"[number % 2], {"n": number})], START_MS)
    assert [write.body for write in writes(replica, "x")] == [{"n": 0}, {"n": 2}, {"n": 4}]
    assert [write.body for write in writes(replica, "y")] == [{"n": 1}, {"n": 3}, {"n": 5}]


def test_a_lost_document_has_no_past_to_show() -> None:
    """Otherwise a part of it is shown as if it were all."""
    replica = new_replica()
    replica.append([Operation(PATCH, "d", {})], START_MS)
    row = replica.tables.documents(["d"])["d"]
    with replica.store.transaction():
        replica.tables.put_documents([row._replace(state=LOST_STATE)], 0)
    with pytest.raises(DamagedError):
        writes(replica)


def test_a_long_past_takes_no_memory(tmp_path: Path) -> None:
    """Otherwise one who looks at a busy document ends the node."""
    store = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot")
    key = Author(1).key
    replica = Replica(store, store.collection(new_replica().id, "notes"), key)
    with_text = {"text": "x" * 5000}
    for number in range(2000):
        replica.append([Operation(PATCH, "d", {**with_text, "n": number})], START_MS)
    past = Past(replica)
    row = past.row("d")
    assert row is not None
    tracemalloc.start()
    try:
        assert sum(1 for _ in past.writes(row)) == 2000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    store.close()
