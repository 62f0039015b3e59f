"""The session: transcripts of two of them, joined back to back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from meshsync.core.entry import PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.core.messages import Batch, Have
from meshsync.core.session_events import Check, Ready
from tests.authors import START_MS, Author, batch_of
from tests.duo import BOTH_SYNCED, IDLE, PULLING, PUSHING, SYNCED, Duo
from tests.replicas import apply, give, new_replica, pair, put, store_of

# Catching up


def test_an_empty_peer_gets_all_in_the_answer_to_its_first_message() -> None:
    """Otherwise a bootstrap takes more round trips than one."""
    a, b = pair(3)
    duo = Duo(a, b)
    assert duo.states == (IDLE, IDLE)
    duo.run()
    assert duo.transcript == ["a Open", "b Open", "a Batch", "b Have"]
    assert duo.states == BOTH_SYNCED
    assert a.root() == b.root()
    assert (duo.a.session.pushed, duo.b.session.pulled.entries) == (3, 3)
    assert (duo.b.session.missing, duo.a.session.unsent) == (0, 0)


def test_equal_peers_say_so_and_nothing_else() -> None:
    """Otherwise every reconnect costs something."""
    a, b = pair(3)
    Duo(a, b).run()
    again = Duo(a, b)
    again.run()
    assert again.transcript == ["a Open", "b Open"]
    assert again.states == BOTH_SYNCED


def test_both_sides_catch_up_at_once() -> None:
    """Otherwise two nodes that were apart exchange one way only."""
    a, b = pair(3, 2)
    Duo(a, b).run()
    put(a, "more")
    put(b, "more")
    put(b, "and more")
    duo = Duo(a, b)
    duo.run()
    assert duo.states == BOTH_SYNCED
    assert (duo.a.session.pushed, duo.b.session.pushed) == (1, 2)
    assert a.merger.read(a.tables.documents(["more"])["more"]).conflict
    assert duo.a.session.pulled.conflicts == duo.b.session.pulled.conflicts == 1


def test_what_came_from_a_peer_does_not_go_back_to_it() -> None:
    """Otherwise each entry crosses twice, and storms echo for ever."""
    a, b = pair(5)
    duo = Duo(a, b)
    duo.run()
    duo.write(duo.a, put(a, "live"))
    duo.run(1)
    assert duo.b.session.pushed == 0
    assert duo.transcript.count("b Batch") == 0


def test_an_entry_of_a_stranger_is_relayed_with_its_seal() -> None:
    """Otherwise what a node brought from elsewhere stays with its neighbours."""
    a, b = pair()
    author = Author(1)
    give(a, *[author.write([Operation(PUT, "x", {"n": number})]) for number in range(5)])
    give(a, *[author.write([Operation(PUT, "x", {"n": number})]) for number in range(5)])
    Duo(a, b).run()
    assert a.root() == b.root()
    c = new_replica(13)
    Duo(b, c).run()
    assert c.root() == a.root()


def test_batches_are_cut_where_a_seal_is_held() -> None:
    """Otherwise a node cannot pass on half of what it received in one batch, or claims to."""
    author, other = Author(1), Author(2)
    first, second = [author.write() for _ in range(7)], [other.write() for _ in range(7)]
    mixed = [entry for two in zip(first, second, strict=True) for entry in two]
    a, b = new_replica(11), new_replica(12)
    give(a, *mixed)
    limits = replace(LIMITS, batch_entries_soft=4)
    a.limits = b.limits = limits
    duo = Duo(a, b, limits)
    duo.run(1)
    assert duo.states == BOTH_SYNCED
    assert [len(message.hlcs) for message in duo.a.sent if isinstance(message, Batch)] == [14]


@pytest.mark.parametrize(
    ("bytes_per_second", "owner_allows", "longest"),
    [(math.inf, 131_072, 100), (12_000.0, 131_072, 13), (1.0, 131_072, 5), (math.inf, 2000, 3)],
)
def test_a_batch_takes_no_longer_than_a_path_holds(bytes_per_second: float, owner_allows: int, longest: int) -> None:
    """Otherwise a path that breaks off now and then carries a long batch again and again, and never to its end."""
    a, b = pair()
    for number in range(100):
        a.append([Operation(PUT, f"d{number}", {"text": "x" * 960})], START_MS)
    duo = Duo(a, b, replace(LIMITS, batch_bytes_soft=owner_allows), bytes_per_second=bytes_per_second)
    duo.run(5)
    assert duo.states == BOTH_SYNCED
    assert max(len(message.hlcs) for message in duo.a.sent if isinstance(message, Batch)) == longest


def test_the_bytes_for_what_is_missing_do_not_grow_with_what_is_there() -> None:
    """Otherwise a reconnect for ten documents costs as much as a bootstrap."""
    costs = []
    for shared in (50, 2000):
        a, b = pair(shared, shared)
        Duo(a, b).run(10)
        for number in range(10):
            put(a, f"new{number}", number)
        duo = Duo(a, b)
        duo.run()
        assert duo.states == BOTH_SYNCED
        costs.append(duo.bytes)
    payload = 10 * len(b"\x81\x83\x00\x64new0\xa1\x61n\x00")
    assert costs[1] - costs[0] < 30
    assert costs[1] < payload + 10 * 16 + 64 + 2 * 200 + 60


def test_many_writes_share_batches() -> None:
    """Otherwise a flood of small writes costs a signature and a message each."""
    a, b = pair()
    duo = Duo(a, b)
    duo.run()
    for number in range(1000):
        duo.write(duo.a, put(a, f"d{number}"))
        duo.handle(duo.a, Ready())
    assert duo.transcript.count("a Batch") == LIMITS.push_burst + 1, "one more, because a whole batch had gathered"
    assert duo.a.wake_at is not None
    duo.run(1)
    assert duo.transcript.count("a Batch") <= LIMITS.push_burst + 3
    assert duo.states == BOTH_SYNCED


@pytest.mark.parametrize("tips_max", [1, 7, 20])
def test_more_tips_than_fit_into_one_message_follow_behind(tips_max: int) -> None:
    """Otherwise a node with many logs is sent all of what did not fit at every connect."""
    limits = replace(LIMITS, open_tips_max=tips_max)
    a, b = pair()
    entries = [Author(number).write() for number in range(1, 21)]
    give(a, *entries)
    give(b, *entries)
    put(a, "new")
    duo = Duo(a, b, limits)
    duo.run()
    assert duo.states == BOTH_SYNCED
    assert duo.a.session.pushed == 1
    assert duo.b.session.pushed == 0


def test_hundreds_of_logs_with_a_little_new_in_some() -> None:
    """Otherwise what is read past to find what is lacking costs more than what is sent, or is sent too."""
    limits = replace(LIMITS, batch_entries_soft=8)
    a, b = pair()
    authors = [Author(number) for number in range(1, 301)]
    entries = [author.write() for author in authors]
    give(a, *entries)
    give(b, *entries)
    news = [author.write() for author in authors[::7]]
    give(a, *news)
    give(a, *[author.write() for author in authors[1::7]])
    a.limits = b.limits = limits
    duo = Duo(a, b, limits)
    duo.run(10)
    assert duo.states == BOTH_SYNCED
    assert duo.a.session.pushed == len(authors[::7]) + len(authors[1::7])


# Acknowledgements


def test_nothing_is_confirmed_before_the_disk_has_synced() -> None:
    """Otherwise a power cut loses what the other side no longer keeps for us."""
    a, b = pair(3)
    duo = Duo(a, b)
    duo.b.is_synced_at_once = False
    duo.run()
    assert duo.transcript == ["a Open", "b Open", "a Batch"]
    assert duo.a.state is PUSHING
    assert duo.b.state is SYNCED
    duo.sync(duo.b)
    duo.run()
    assert duo.b.sent[-1] == Have(4, b.root(), (), [])
    assert [duo.a.state] == [SYNCED]


def test_nothing_is_confirmed_behind_something_that_was_left_out() -> None:
    """Otherwise the peer takes for stored what is not here."""
    a, b = pair()
    late, good = Author(1), Author(2)
    apply(a, *batch_of([late.write(hlc=(START_MS + 3_600_000) << 16)]), now_ms=START_MS + 3_600_000)
    give(a, good.write())
    limits = replace(LIMITS, batch_entries_soft=1)
    a.limits = limits
    duo = Duo(a, b, limits)
    duo.run()
    assert duo.transcript == ["a Open", "b Open", "a Batch", "a Batch"]
    assert b.entry_count() == 1
    assert b.cursor_for(a.author) is None
    duo.b.wall_ms += 3_600_000
    duo.run(10)
    assert duo.states == BOTH_SYNCED
    assert b.cursor_for(a.author) == (a.epoch, 3)
    assert not duo.a.session.unconfirmed


def test_a_batch_that_is_not_stored_is_sent_again() -> None:
    """Otherwise a full disk leaves a gap for ever, or the node claims to be in sync with less than the peer has."""
    a, b = pair(3)
    duo = Duo(a, b)
    duo.run()
    store_of(b).broken = "disk full"
    duo.write(duo.a, put(a, "more"))
    duo.write(duo.a, put(a, "and more"))
    duo.run(5)
    assert duo.states == (PUSHING, PULLING)
    assert (duo.b.session.missing, duo.b.session.stall) == (2, "disk full")
    store_of(b).broken = ""
    duo.run(60)
    assert duo.states == BOTH_SYNCED
    assert a.root() == b.root()
    assert duo.b.session.stall is None


def test_a_batch_that_was_not_even_read_counts_as_missing() -> None:
    """Otherwise a node short of space says that it is in sync because it did not look."""
    a, b = pair(3)
    duo = Duo(a, b)
    duo.run()
    duo.write(duo.a, put(a, "more"))
    duo.ready(duo.a)
    batch = duo.a.sent[-1]
    assert isinstance(batch, Batch)
    duo.b.inbox.clear()
    effects = duo.b.session.not_stored(duo.now, "too little space", batch)
    assert [duo.b.state] == [PULLING]
    assert effects
    assert duo.b.session.missing == 1
    duo.run(60)
    assert duo.states == BOTH_SYNCED


# Clocks


def test_an_entry_ahead_of_the_clock_waits_and_comes_by_itself() -> None:
    """Otherwise one wrong clock keeps others' entries away, or its own for ever."""
    a, b = pair()
    late, good = Author(1), Author(2)
    ahead_ms = LIMITS.clock_ahead_ms_max + 60_000
    apply(a, *batch_of([late.write(hlc=(START_MS + ahead_ms) << 16)]), now_ms=START_MS + ahead_ms)
    give(a, good.write())
    duo = Duo(a, b)
    duo.run(1)
    assert duo.b.state is PULLING
    assert "ahead of ours" in (duo.b.session.stall or "")
    assert {tip.log for tip in b.tips()} == {good.log}
    before = duo.transcript.count("a Batch")
    duo.run(60)
    assert duo.transcript.count("a Batch") - before <= 6, "what has to wait is sent again and again"
    duo.b.wall_ms += 60_000
    duo.run(60)
    assert duo.states == BOTH_SYNCED
    assert duo.b.session.stall is None


# Comparing roots


def test_idle_links_compare_roots() -> None:
    """Otherwise a lost message keeps two nodes apart until they reconnect."""
    a, b = pair(1)
    duo = Duo(a, b)
    duo.run()
    put(a, "nobody told the session")
    for _ in range(2):  # the first comparison may fall into a transfer, so it takes two that find no progress
        duo.handle(duo.a, Check())
        duo.handle(duo.b, Check())
        duo.run(1)
    assert a.root() == b.root()
    assert duo.states == BOTH_SYNCED
    assert "b Open" in duo.transcript[2:]


def test_comparing_roots_while_entries_come_does_not_begin_anew() -> None:
    """Otherwise a long transfer starts over every thirty seconds."""
    limits = replace(LIMITS, batch_entries_soft=4)
    a, b = pair(400)
    a.limits = b.limits = limits
    duo = Duo(a, b, limits)
    duo.receive(duo.a)
    duo.receive(duo.b)
    while duo.states != BOTH_SYNCED:
        duo.handle(duo.a, Ready())
        duo.handle(duo.a, Check())
        duo.handle(duo.b, Check())
        while duo.a.inbox or duo.b.inbox:
            for side in (duo.a, duo.b):
                if side.inbox:
                    duo.receive(side)
        duo.now += 30
    assert duo.transcript.count("b Open") <= 2
    assert duo.a.session.pushed <= 404
