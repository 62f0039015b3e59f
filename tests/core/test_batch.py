"""Reading batches: what is rebuilt, and what is left out for now and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.entry import PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.core.rebuild import Skip
from meshsync.errors import PeerError
from tests.authors import START_MS, Author, Made, batch_of
from tests.replicas import apply, give, held, new_replica, two_logs

AHEAD_MS = LIMITS.clock_ahead_ms_max


@pytest.mark.parametrize("explicit", [False, True])
def test_entries_are_rebuilt_as_they_were_made(explicit: bool) -> None:
    """Otherwise ids differ from those of the author, and no seal fits."""
    entries, _, _ = two_logs()
    replica = new_replica()
    applied = apply(replica, *batch_of(entries, explicit=explicit))
    assert applied.count == 6
    assert [row.id for row in replica.scan_entries()] == [entry.id for entry in entries]
    assert [row.height for row in replica.scan_entries()] == [entry.height for entry in entries]
    assert [row.hlc for row in replica.scan_entries()] == [entry.hlc for entry in entries]
    assert applied.seals_checked == 2


def test_a_batch_twice_is_a_batch_once() -> None:
    """Otherwise a repeated batch stores entries twice, or is held against the peer."""
    entries, _, _ = two_logs()
    replica = new_replica()
    give(replica, *entries)
    again = give(replica, *entries)
    assert again.count == 0
    assert again.seals_checked == 0
    assert set(again.reached.values()) == {4, 2}


@given(st.integers(1, 5), st.integers(0, 5))
def test_batches_may_overlap(cut: int, back: int) -> None:
    """Otherwise a resync that goes back a little fails."""
    entries, _, _ = two_logs()
    replica = new_replica()
    give(replica, *entries[:cut])
    give(replica, *entries[max(0, cut - back) :])
    assert held(replica) == {entry.id for entry in entries}


def test_a_gap_is_left_out_and_nothing_of_its_log_is_stored() -> None:
    """Otherwise a log has a hole, and tips no longer say what is held."""
    a = Author(1)
    a1, a2, a3 = a.write(), a.write(), a.write()
    replica = new_replica()
    applied = apply(replica, *batch_of([a2, a3]))
    assert applied.skipped == {a.log: Skip.GAP}
    give(replica, a1)
    assert apply(replica, *batch_of([a3])).skipped == {a.log: Skip.GAP}
    assert held(replica) == {a1.id}


def test_what_depends_on_a_log_left_out_is_left_out_too() -> None:
    """Otherwise an entry is stored without its parent."""
    a, b, c = Author(1), Author(2), Author(3)
    a1, a2 = a.write(), a.write()
    b1 = b.write(parents=[a2])
    c1 = c.write(parents=[b1])
    d1 = Author(4).write()
    replica = new_replica()
    applied = apply(replica, *batch_of([a2, b1, c1, d1]))
    assert applied.skipped == {a.log: Skip.GAP, b.log: Skip.PARENT, c.log: Skip.PARENT}
    assert held(replica) == {d1.id}
    give(replica, a1, a2, b1, c1)
    assert len(held(replica)) == 5


def test_a_log_left_out_leaves_no_trace() -> None:
    """Otherwise a peer makes this node remember logs without a single valid signature."""
    replica = new_replica()
    late = [Author(number).write(hlc=(START_MS + AHEAD_MS + 1) << 16) for number in range(1, 50)]
    applied = apply(replica, *batch_of(late))
    assert set(applied.skipped.values()) == {Skip.CLOCK}
    assert replica.tables.branches() == []
    assert replica.branches == {}
    assert replica.by_log == {}


def test_branches_after_one_that_was_left_out_have_the_right_numbers() -> None:
    """Otherwise entries are stored on the branch of another log."""
    late = Author(1).write(hlc=(START_MS + AHEAD_MS + 1) << 16)
    a, b = Author(2), Author(3)
    a1 = a.write()
    b1 = b.write(parents=[a1])
    replica = new_replica()
    assert apply(replica, *batch_of([late, a1, b1])).skipped == {late.log: Skip.CLOCK}
    assert {tip.log: tip.id for tip in replica.tips()} == {a.log: a1.id, b.log: b1.id}
    assert [replica.parent_ids(row.parents) for row in replica.scan_entries()] == [[], [a1.id]]
    assert len(replica.tables.branches()) == 2


@pytest.mark.parametrize("ms", [0, 1])
def test_the_bound_on_clocks_is_ten_minutes(ms: int) -> None:
    """Otherwise a unit is wrong, and stamps from next year are taken or those of a minute ago are not."""
    assert AHEAD_MS == 10 * 60 * 1000
    replica = new_replica()
    ahead = START_MS + AHEAD_MS + ms
    entry = Author(1).write(hlc=ahead << 16 | 0xFFFF)
    applied = apply(replica, *batch_of([entry]))
    assert applied.skipped == ({entry.log: Skip.CLOCK} if ms else {})
    assert apply(replica, *batch_of([entry]), now_ms=START_MS + ms).count == ms


def test_entries_before_one_that_is_ahead_come_with_the_next_batch() -> None:
    """Otherwise a log whose end is ahead of the clock is lost altogether."""
    a = Author(1)
    a1 = a.write()
    a2 = a.write(hlc=(START_MS + AHEAD_MS + 1) << 16)
    replica = new_replica()
    assert apply(replica, *batch_of([a1, a2])).skipped == {a.log: Skip.CLOCK}
    give(replica, a1)
    assert apply(replica, *batch_of([a2]), now_ms=START_MS + 1).count == 1


# Forks


def fork() -> tuple[Author, list[Made]]:
    """A log with three branches: 1, 2, 3a, 4a; 3b; and 2c, 3c."""
    a = Author(1)
    one = a.write([Operation(PUT, "x", {"n": 1})])
    two = a.write([Operation(PUT, "x", {"n": 2})])
    three_a = a.write([Operation(PUT, "x", {"n": 3})])
    four_a = a.write([Operation(PUT, "x", {"n": 4})])
    three_b = a.write([Operation(PUT, "x", {"n": 5})], after=two)
    two_c = a.write([Operation(PUT, "x", {"n": 6})], after=one)
    three_c = a.write([Operation(PUT, "x", {"n": 7})])
    return a, [one, two, three_a, four_a, three_b, two_c, three_c]


@given(st.permutations(range(3)), st.booleans())
def test_all_branches_are_kept_in_any_order(order: list[int], at_once: bool) -> None:
    """Otherwise what a node holds of a forked log depends on whom it met first, and nodes never get level."""
    a, (one, two, three_a, four_a, three_b, two_c, three_c) = fork()
    parts = [[one, two, three_a, four_a], [one, two, three_b], [one, two_c, three_c]]
    replica, level = new_replica(), new_replica(98)
    give(level, one, two, three_a, four_a, three_b, two_c, three_c)
    chosen = [parts[number] for number in order]
    if at_once:
        seen: dict[bytes, Made] = {}
        for part in chosen:
            seen |= {entry.id: entry for entry in part}
        give(replica, *seen.values())
    else:
        for part in chosen:
            give(replica, *part)
    assert replica.root() == level.root()
    assert {tip.id for tip in replica.tips()} == {four_a.id, three_b.id, three_c.id}
    assert replica.forks() == [a.log]


def test_first_entries_can_fork() -> None:
    """Otherwise a key that begins the same log twice keeps nodes apart."""
    a = Author(1)
    first = a.write([Operation(PUT, "x", {"n": 1})])
    a.last = None
    second = a.write([Operation(PUT, "x", {"n": 2})])
    replica = new_replica()
    give(replica, first)
    applied = give(replica, second)
    assert applied.forked == [a.log]
    assert len(replica.tips()) == 2


def test_a_place_that_means_another_entry_here_is_no_lie() -> None:
    """Otherwise a node that holds another branch throws out an honest peer that has yet to learn of the fork."""
    _, (one, two, three_a, _, three_b, _, _) = fork()
    b1 = Author(2).write(parents=[three_b])
    replica = new_replica()
    give(replica, one, two, three_a)
    batch, logs = batch_of([b1], explicit=False)
    assert apply(replica, batch, logs).skipped == {b1.log: Skip.FORK}
    assert apply(replica, *batch_of([b1])).skipped == {b1.log: Skip.PARENT}
    give(replica, three_b, b1)
    batch, logs = batch_of([Author(3).write(parents=[three_b])], explicit=False)
    assert set(apply(replica, batch, logs).skipped.values()) == {Skip.FORK}


def test_a_branch_that_is_not_here_is_told_from_a_gap() -> None:
    """Otherwise the peer is not asked for the fork."""
    a, (one, two, three_a, _, three_b, _, _) = fork()
    a.last = three_b
    four_b = a.write()
    replica = new_replica()
    give(replica, one, two, three_a)
    assert apply(replica, *batch_of([four_b])).skipped == {a.log: Skip.FORK}


def test_branches_of_one_log_are_bounded() -> None:
    """Otherwise one key fills the memory of every node with branches."""
    a = Author(1)
    one = a.write()
    most = LIMITS.branches_per_author_max
    replica = new_replica()
    give(replica, one)
    for number in range(most):
        give(replica, a.write([Operation(PUT, "x", {"n": number})], after=one))
    extra = a.write([Operation(PUT, "x", {"n": -1})], after=one)
    assert apply(replica, *batch_of([extra])).skipped == {a.log: Skip.QUOTA}
    assert len(replica.branches) == most


# Headers that come alone


def test_a_header_alone_counts_as_held_and_its_payload_can_follow() -> None:
    """Otherwise the root depends on which payloads a node has, or a payload that was left out stays away for ever."""
    entries, _, _ = two_logs()
    whole, partial = new_replica(), new_replica(98)
    give(whole, *entries)
    apply(partial, *batch_of(entries, bare=entries[2:5]))
    assert partial.root() == whole.root()
    assert not partial.complete
    assert len(partial.wanted_places(10)) == 3
    for entry in entries[2:5][::-1]:
        assert partial.fill_payload(entry.log, entry.seq, entry.payload) is not None
    assert partial.wanted_places(10) == []
    for id in "xyz":
        rows = [one.tables.documents([id])[id] for one in (whole, partial)]
        assert rows[0].conflict == rows[1].conflict
        assert whole.merger.read(rows[0]).body == partial.merger.read(rows[1]).body
    assert whole.tables.counts() == partial.tables.counts()


def test_a_payload_that_is_not_the_entrys_is_refused() -> None:
    """Otherwise a peer that was asked for a payload chooses what a document says."""
    entries, _, _ = two_logs()
    replica = new_replica()
    apply(replica, *batch_of(entries, bare=entries))
    for payload in (entries[1].payload, b"\x80", b"", entries[0].payload + b"\x00"):
        with pytest.raises(PeerError):
            replica.fill_payload(entries[0].log, 1, payload)
    assert replica.fill_payload(Author(5).log, 1, entries[0].payload) is None
    assert len(replica.wanted_places(10)) == 6


def test_a_batch_of_the_greatest_size_needs_two_signatures() -> None:
    """Otherwise a batch within all bounds keeps a node busy for long: a signature costs more than all else."""
    a, b = Author(1), Author(2)
    entries = [a.write([Operation(PUT, "x", {})]), b.write([Operation(PUT, "x", {})])]
    while len(entries) < LIMITS.batch_entries_max:
        author, other = (a, b) if len(entries) % 2 else (b, a)
        assert other.last is not None
        entries.append(author.write([Operation(PUT, "x", {})], [other.last]))
    batch, logs = batch_of(entries)
    applied = apply(new_replica(), batch, logs)
    assert applied.count == LIMITS.batch_entries_max
    assert applied.seals_checked == 2
