"""The replica: its invariants, what a failure leaves behind, documents, ancestry, and what a peer lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.anchor import PARENT, Place
from meshsync.core.batch import put_in_columns
from meshsync.core.document import DocumentState
from meshsync.core.entry import PATCH, PUT, Operation
from meshsync.core.limits import LIMITS, PAYLOAD_BYTES_MAX
from meshsync.core.messages import Batch
from meshsync.errors import LocalError, StoreError
from meshsync.ids import EntryId
from meshsync.store.merge import FRONTIER_MAX
from meshsync.store.replica import Replica
from meshsync.store.rows import MergeRow
from tests.authors import START_MS, Author, Made, batch_of
from tests.histories import ancestors, histories, writes_of
from tests.meshoracle import document_of
from tests.replicas import apply, give, held, new_replica, put, store_of


def reopened(replica: Replica) -> Replica:
    """The same store, read as a new process reads it."""
    store = store_of(replica).kill()
    return Replica(store, store.collection(replica.id, replica.name), replica.key, replica.limits)


def summary(replica: Replica) -> object:
    heads, tips = set(replica.heads()), set(replica.tips())
    return heads, tips, replica.root(), replica.latest, replica.tables.counts(), set(replica.forks()), held(replica)


def body(replica: Replica, id: str) -> object:
    return replica.merger.read(replica.tables.documents([id])[id]).body


def is_conflict(replica: Replica, id: str) -> bool:
    return replica.tables.documents([id])[id].conflict


# Restarts and failures


def test_a_restart_changes_nothing() -> None:
    """Otherwise a node that restarts holds something else than it says, and writes where it must not."""
    replica = new_replica()
    a, b = Author(1), Author(2)
    a1, a2 = a.write(), a.write()
    other = a.write([Operation(PUT, "other", {})], after=a1)
    give(replica, a1, a2, b.write(parents=[a1]), other)
    put(replica, "own")
    again = reopened(replica)
    assert summary(again) == summary(replica)
    put(again, "own")
    assert len([tip for tip in again.tips() if tip.log.author == again.author]) == 1


def test_a_write_that_the_disk_refuses_leaves_nothing() -> None:
    """Otherwise what is in memory says more than the disk holds, and the next entry builds on nothing."""
    replica = new_replica()
    put(replica, "d0")
    before = summary(replica)
    store_of(replica).broken = "disk full"
    with pytest.raises(StoreError):
        put(replica, "d1")
    assert summary(replica) == before
    store_of(replica).broken = ""
    put(replica, "d1")
    assert summary(reopened(replica)) == summary(replica)


def test_a_first_write_that_the_disk_refuses_opens_no_log() -> None:
    """Otherwise a log without entries is counted, and told to peers."""
    replica = new_replica()
    store = store_of(replica)
    store.incarnation(replica.id)
    store.broken = "disk full"
    with pytest.raises(StoreError):
        put(replica, "d1")
    assert (replica.branches, replica.by_log, replica.tables.branches()) == ({}, {}, [])


def test_a_batch_that_the_disk_refuses_leaves_nothing() -> None:
    """Otherwise half a batch is held, or a cursor stands behind what was not stored."""
    replica = new_replica()
    a, b = Author(1), Author(2)
    give(replica, a.write())
    before = summary(replica)
    store_of(replica).broken = "disk full"
    batch, logs = batch_of([a.write(), b.write()], cursor=9)
    with pytest.raises(StoreError):
        replica.receive(batch, logs, b.log.author, b"epoch678", START_MS)
    assert summary(replica) == before
    assert replica.cursor_for(b.log.author) is None
    store_of(replica).broken = ""
    replica.receive(batch, logs, b.log.author, b"epoch678", START_MS)
    assert replica.cursor_for(b.log.author) == (b"epoch678", 9)


@pytest.mark.parametrize("superseded", [False, True])
def test_a_batch_is_stored_with_what_it_says_of_earlier_entries_or_not_at_all(superseded: bool) -> None:
    """Otherwise entries are stored of which nobody is told, because the disk failed between them and the rest."""
    replica, author = new_replica(), Author(1)
    first = author.write()
    apply(replica, *batch_of([first], bare=[first]))
    fork = [author.write([Operation(PUT, "d", {"n": n})], after=first) for n in range(2)]
    give(replica, fork[0])
    batch, logs = batch_of([first, fork[1]], superseded=[first] if superseded else [])
    before = summary(replica)
    store_of(replica).commits_left = 0
    with pytest.raises(StoreError):
        apply(replica, batch, logs)
    assert summary(replica) == before
    store_of(replica).commits_left = 1
    applied = apply(replica, batch, logs)
    assert (applied.count, applied.filled, applied.forked) == (1, [1], [author.log])
    assert replica.complete


def test_a_batch_with_a_hole_moves_no_cursor() -> None:
    """Otherwise the rest is never asked for again."""
    replica = new_replica()
    a, b = Author(1), Author(2)
    a.write()
    batch, logs = batch_of([a.write(), b.write()], cursor=9)
    applied = replica.receive(batch, logs, b.log.author, b"epoch678", START_MS)
    assert applied.count == 1
    assert replica.cursor_for(b.log.author) is None


# The node's own log


def test_a_restored_copy_writes_to_a_new_log_once_it_meets_its_later_entries() -> None:
    """Otherwise it signs twice at one place."""
    replica = new_replica()
    put(replica, "d0")
    copy = store_of(replica).copy()
    put(replica, "d1")
    restored = Replica(copy, copy.collection(replica.id, replica.name), replica.key)
    copy_from(replica, restored)
    put(restored, "d2")
    assert len(restored.by_log) == 2
    assert not restored.forks()
    # A clean restart must not forget it.
    copy.close()
    store = copy.reopened()
    again = Replica(store, store.collection(replica.id, replica.name), replica.key)
    put(again, "d3")
    assert len(again.by_log) == 2


def copy_from(source: Replica, target: Replica) -> None:
    """Give everything of one replica to another, as a peer would."""
    parcel = source.parcel({}, source.numbers())
    assert parcel is not None
    logs = {branch.log: number for number, branch in enumerate(source.branches.values())}
    columns = put_in_columns(source, parcel.rows, logs.__getitem__, explicit=True)
    batch = Batch(0, tuple(logs), *columns, sorted(parcel.seals.items()), 1, None)
    applied = target.apply(batch, list(logs), None, START_MS)
    assert not applied.skipped


def test_later_own_entries_are_not_stored_before_the_new_log_is_sure() -> None:
    """Otherwise a crash in between leaves a node that goes on in the log of which others hold more."""
    replica = new_replica()
    put(replica, "d0")
    copy = store_of(replica).copy()
    put(replica, "d1")
    restored = Replica(copy, copy.collection(replica.id, replica.name), replica.key)
    before = summary(restored)
    copy.broken = "disk full"
    with pytest.raises(StoreError):
        copy_from(replica, restored)
    copy.broken = ""
    assert summary(restored) == before


def test_own_entries_that_were_lost_come_back_without_a_new_log() -> None:
    """Otherwise each power cut costs two logs."""
    replica = new_replica()
    store = store_of(replica)
    put(replica, "d0")
    store.sync_now()
    put(replica, "d1")
    peer = new_replica(12)
    copy_from(replica, peer)
    crashed = store.crash()
    again = Replica(crashed, crashed.collection(replica.id, replica.name), replica.key)
    assert again.entry_count() == 1
    put(again, "d2")
    logs = len(again.by_log)
    copy_from(peer, again)
    put(again, "d3")
    assert len(again.by_log) == logs == 2


def test_a_clock_out_of_range_writes_nothing() -> None:
    """Otherwise a machine with an absurd clock signs an entry that nobody can hold."""
    replica = new_replica()
    before = summary(replica)
    with pytest.raises(LocalError, match="clock"):
        replica.append([Operation(PUT, "a", {})], 2**60)
    assert summary(replica) == before


# Documents


@given(histories(), st.data())
def test_documents_and_conflicts_are_those_of_the_history(entries: list[Made], data: st.DataObject) -> None:
    """Otherwise a conflict is hidden, or shown for ever, or the document is another one than the writers meant."""
    replica = new_replica()
    position = 0
    while position < len(entries):
        count = data.draw(st.integers(1, len(entries) - position))
        give(replica, *entries[position : position + count])
        position += count
    writes = writes_of(entries)
    assert body(replica, "d") == document_of(writes)
    above = ancestors(entries)
    unseen = [entry for entry in entries if not any(entry.id in above[other.id] for other in entries)]
    assert is_conflict(replica, "d") == (len(unseen) > 1)
    assert replica.tables.counts()[1] == (document_of(writes) is not None)


@given(histories(), st.permutations(range(12)))
def test_payloads_that_come_late_change_nothing(entries: list[Made], order: list[int]) -> None:
    """Otherwise a document depends on when its payloads arrived."""
    whole, late = new_replica(), new_replica()
    give(whole, *entries)
    apply(late, *batch_of(entries, bare=entries))
    for number in order:
        if number < len(entries):
            late.fill_payload(entries[number].log, entries[number].seq, entries[number].payload)
    assert late.complete
    assert body(late, "d") == body(whole, "d")
    assert is_conflict(late, "d") == is_conflict(whole, "d")
    assert late.tables.counts() == whole.tables.counts()


def test_an_early_ancestor_is_found_where_the_latest_edge_leads_to_it() -> None:
    """Two who answer each other make an edge an entry: reading all of them to a write of long ago takes seconds."""
    replica, a, b = new_replica(), Author(1), Author(2)
    first = last = a.write([Operation(PUT, "d", {})])
    entries = [first]
    for number in range(400):
        last = (b, a)[number % 2].write([Operation(PUT, f"n{number}", {})], [last])
        entries.append(last)
    give(replica, *entries)
    places = [Place(row.branch, row.seq, row.hlc) for row in replica.scan_entries()]
    read: list[int] = []
    tables = replica.tables
    merges_before = tables.merges_before

    def counting(branch: int, seq: int, limit: int) -> list[MergeRow]:
        read.append(seq)
        return merges_before(branch, seq, limit)

    tables.merges_before = counting  # type: ignore[method-assign]
    assert replica.ancestry.unseen(places[-1], places[:2]) == []
    assert len(read) <= 2
    assert replica.ancestry.unseen(places[1], places[2:4]) == places[2:4]


@given(histories(), st.data())
def test_ancestry_is_that_of_the_graph(entries: list[Made], data: st.DataObject) -> None:
    """Otherwise conflicts are judged wrongly."""
    replica = new_replica()
    fork = data.draw(st.sampled_from(entries))
    extra = fork.author.write([Operation(PUT, "d", {"n": 9})], after=fork, hlc=fork.hlc + 100)
    everything = entries if extra.prev != fork.id or extra.id in {e.id for e in entries} else [*entries, extra]
    give(replica, *everything)
    places = {}
    for row in replica.scan_entries():
        places[row.id] = Place(row.branch, row.seq, row.hlc)
    above = ancestors(everything)
    for entry in everything:
        olds = [places[other.id] for other in everything if other is not entry]
        unseen = set(replica.ancestry.unseen(places[entry.id], olds))
        assert unseen == {
            places[other.id] for other in everything if other is not entry and other.id not in above[entry.id]
        }


def test_a_document_that_thousands_wrote_at_once_stays_cheap() -> None:
    """Otherwise each further write costs as much as there are writers, and their number squared in all."""
    replica = new_replica()
    count = 4 * FRONTIER_MAX
    entries = [
        Author(number).write([Operation(PATCH, "hot", {f"f{number % 7}": number})], hlc=(START_MS << 16) + number)
        for number in range(1, count + 1)
    ]
    for start in range(0, count, FRONTIER_MAX):
        give(replica, *entries[start : start + FRONTIER_MAX])
    row = replica.tables.documents(["hot"])["hot"]
    assert row.state is not None
    assert len(DocumentState.decode(row.state).frontier) == FRONTIER_MAX
    assert body(replica, "hot") == {f"f{number % 7}": number for number in range(count - 6, count + 1)}
    assert is_conflict(replica, "hot")
    last = Author(count + 1).write([Operation(PUT, "hot", {"n": 1})], entries[-16:], hlc=(START_MS << 16) + count + 1)
    give(replica, last)
    assert body(replica, "hot") == {"n": 1}


# What a peer lacks


def parcel_sizes(replica: Replica, floor: Callable[[int], int] = lambda cursor: cursor) -> list[int]:
    known: dict[int, int] = {}
    sizes, cursor = [], 0
    while parcel := replica.parcel(known, replica.numbers(), floor(cursor)):
        for row in parcel.rows:
            assert row.seq == known.get(row.branch, 0) + 1
            for branch, seq in PARENT.iter_unpack(row.parents or b""):
                assert known.get(branch, 0) >= seq
            known[row.branch] = row.seq
        assert all(replica.branches[row.branch].tip.seq >= row.seq for row in parcel.rows)
        sizes.append(len(parcel.rows))
        cursor = parcel.cursor
    assert known == {number: branch.tip.seq for number, branch in replica.branches.items()}
    return sizes


@pytest.mark.parametrize("logs", [1, 3, 16, 17, 40])
@pytest.mark.parametrize("know_floor", [False, True])
def test_parcels_bring_all_in_order(logs: int, know_floor: bool) -> None:
    """Otherwise a peer gets an entry before what it builds upon, or never."""
    replica = new_replica()
    replica.limits = replace(LIMITS, batch_entries_soft=10)
    authors = [Author(number) for number in range(1, logs + 1)]
    last: Made | None = None
    for _ in range(7):
        part = []
        for author in authors:
            parents = [last] if last is not None and last.log != author.log else []
            last = author.write(parents=parents)
            part.append(last)
        give(replica, *part)
    sizes = parcel_sizes(replica, (lambda cursor: cursor) if know_floor else (lambda _: 0))
    assert sum(sizes) == 7 * logs
    assert max(sizes) <= max(10, 2 * logs)


def test_parcels_of_large_payloads_are_small() -> None:
    """Otherwise hundreds of the largest payloads are read to send one, and a frame grows past its bound."""
    replica = new_replica()
    for number in range(6):
        replica.append([Operation(PUT, f"d{number}", {"x": "y" * (PAYLOAD_BYTES_MAX - 100)})], START_MS)
    assert parcel_sizes(replica) == [1] * 6


def test_nothing_is_lacking_of_what_is_known() -> None:
    """Otherwise a peer is sent what it has."""
    replica = new_replica()
    put(replica, "d")
    (number,) = replica.numbers()
    assert replica.parcel({number: 1}, {number}) is None
    assert replica.parcel({}, set()) is None
    assert replica.unsent({}, {number}) == 1
    assert replica.unsent({number: 1}, {number}) == 0


def test_what_is_known_of_a_peers_store_ends_with_its_epoch() -> None:
    """Otherwise a peer whose disk was put back is taken to have what it lost."""
    replica, peer = new_replica(), new_replica(12)
    batch, logs = batch_of([Author(1).write()], cursor=2)
    replica.confirmed(peer.author, b"first  1", 7)
    replica.receive(batch, logs, peer.author, b"first  1", START_MS)
    row = replica.tables.cursor(peer.author)
    assert row is not None
    assert row.next_confirm == 7
    replica.receive(batch, logs, peer.author, b"second 2", START_MS)
    row = replica.tables.cursor(peer.author)
    assert row is not None
    assert row.next_confirm == 1


def test_an_id_is_an_entry_id() -> None:
    """Otherwise callers cannot show what they wrote."""
    replica = new_replica()
    applied, id = replica.append([Operation(PUT, "d", {})], START_MS)
    assert type(id) is EntryId
    assert applied.tips == {1: 1}
