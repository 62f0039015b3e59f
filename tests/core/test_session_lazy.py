"""Lazy links: announcements in the place of entries, and PRUNE and GRAFT that cross."""

from __future__ import annotations

from itertools import product

import pytest

from meshsync.core.entry import PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.core.messages import FLAG_LAZY, Batch, Graft, Have, Open, Prune
from meshsync.core.session_events import Check, MakeEager, MakeLazy, Start
from tests.authors import Author
from tests.duo import BOTH_SYNCED, PULLING, Duo
from tests.replicas import give, pair, put


def lazy_duo(count: int = 0, mirror: int = 0) -> Duo:
    """Two sides that are level, on a lazy link."""
    duo = Duo(*pair(count, mirror))
    duo.run()
    duo.handle(duo.a, MakeLazy())
    duo.run()
    assert duo.a.session.is_lazy
    assert duo.b.session.is_lazy
    duo.transcript.clear()
    return duo


def test_a_lazy_link_announces_and_does_not_push() -> None:
    """Otherwise PRUNE changes nothing, and entries come as often as there are links."""
    duo = lazy_duo(3)
    duo.write(duo.a, put(duo.a.replica, "news"))
    duo.run(20)
    assert duo.transcript == ["a Have"]
    announcement = duo.a.sent[-1]
    assert isinstance(announcement, Have)
    assert [seq for _, seq, _ in announcement.tips] == [4]
    assert duo.b.session.missing == 1
    assert duo.b.state is PULLING


def test_graft_brings_what_was_announced() -> None:
    """Otherwise what the tree lost is never asked for."""
    duo = lazy_duo(3)
    duo.write(duo.a, put(duo.a.replica, "news"))
    duo.run(1)
    duo.handle(duo.b, MakeEager())
    duo.run()
    assert duo.transcript == ["a Have", "b Graft", "a Batch", "b Have"]
    assert duo.states == BOTH_SYNCED


def test_many_changes_share_one_announcement() -> None:
    """Otherwise a lazy link carries a message for every entry."""
    duo = lazy_duo(3)
    for number in range(50):
        duo.write(duo.a, put(duo.a.replica, f"d{number}"))
        duo.ready(duo.a)
    duo.run(5)
    assert duo.transcript == ["a Have"]


def test_what_came_by_another_link_is_neither_sent_nor_announced_as_news() -> None:
    """Otherwise both ends of a lazy link tell each other what both have, and push it once the link is eager."""
    duo = lazy_duo()
    entry = Author(1).write()
    for side in (duo.a, duo.b):
        duo.write(side, give(side.replica, entry))
    duo.run(LIMITS.announce_seconds)
    duo.handle(duo.b, MakeEager())
    duo.run(5)
    assert duo.states == BOTH_SYNCED
    assert not any(isinstance(message, Batch) for message in duo.a.sent + duo.b.sent)


def test_an_end_that_catches_up_by_another_link_is_known_to() -> None:
    """Otherwise a node waits for `synced` with a peer that has everything."""
    duo = lazy_duo()
    entries = [(author := Author(1)).write() for _ in range(1)] + [author.write() for _ in range(4)]
    duo.write(duo.a, give(duo.a.replica, *entries))
    duo.run(LIMITS.announce_seconds)
    assert duo.b.session.missing == 5
    for entry in entries:
        duo.write(duo.b, give(duo.b.replica, entry))
    duo.run(LIMITS.confirm_seconds)
    assert duo.states == BOTH_SYNCED
    assert duo.a.session.unsent == 0
    assert duo.b.session.unsent == 0


def test_a_session_may_begin_lazy() -> None:
    """Otherwise everyone sends everything to a node that has just come."""
    a, b = pair(100)
    duo = Duo(a, b, start=False)
    duo.handle(duo.b, Start(lazy=True))
    duo.handle(duo.a, Start())
    duo.run(10)
    opening = duo.b.sent[0]
    assert isinstance(opening, Open)
    assert opening.flags & FLAG_LAZY
    assert duo.transcript == ["b Open", "a Open"]
    assert duo.b.session.missing == 100
    duo.handle(duo.b, MakeEager())
    duo.run()
    assert duo.states == BOTH_SYNCED


Deed = MakeLazy | MakeEager
DEEDS: tuple[Deed | None, ...] = (None, MakeLazy(), MakeEager())


@pytest.mark.parametrize("deeds", list(product(DEEDS, repeat=4)), ids=str)
def test_prune_and_graft_cross_in_every_combination(deeds: tuple[Deed | None, ...]) -> None:
    """Otherwise the ends differ on what the link is, and each waits for the other."""
    duo = lazy_duo(2, 2)
    sides = (duo.a, duo.b, duo.a, duo.b)

    def write() -> None:
        for side in (duo.a, duo.b):
            duo.write(side, put(side.replica, f"by {side.name}"))
            duo.ready(side)

    write()
    for side, deed in zip(sides, deeds, strict=True):  # nothing is delivered in between
        if deed is not None:
            duo.handle(side, deed)
        write()
    duo.run(5)
    write()
    duo.run(5)
    for side in (duo.a, duo.b):
        # Whoever lacks something after a while asks, however it sees the link.
        other = duo.other(side)
        if side.session.is_ahead:
            assert other.session.is_lazy, "an eager end did not push"
            duo.handle(side, MakeEager())
            duo.run(5)
        assert not side.session.is_ahead
    assert duo.states == BOTH_SYNCED


def test_continuous_writes_on_a_lazy_link_never_begin_anew() -> None:
    """Otherwise each comparison of roots, which differ for a moment nearly always, costs an OPEN with all tips."""
    duo = lazy_duo(3)
    author = Author(1)
    for number in range(600):
        # The same entry comes to both by other links, to one a little later.
        entry = author.write()
        duo.write(duo.a, give(duo.a.replica, entry))
        if number % 10 == 0:
            duo.handle(duo.a, Check())
            duo.handle(duo.b, Check())
        duo.run(0.05)
        duo.write(duo.b, give(duo.b.replica, entry))
        duo.run(0.05)
    duo.run(60)
    assert not any("Open" in line or "Batch" in line for line in duo.transcript)
    assert duo.states == BOTH_SYNCED


def test_a_difference_that_nobody_told_of_is_found_by_comparing_roots() -> None:
    """Otherwise two nodes on a lazy link stay apart once something was lost."""
    duo = lazy_duo(3)
    put(duo.a.replica, "nobody told the session")
    duo.run(60)
    for _ in range(2):
        duo.handle(duo.a, Check())
        duo.run(60)
    assert "b Open" in duo.transcript
    assert duo.b.session.missing == 1
    duo.handle(duo.b, MakeEager())
    duo.run()
    assert duo.states == BOTH_SYNCED


def test_only_the_side_that_is_asked_answers_a_comparison() -> None:
    """Otherwise two ends that differ answer each other for ever, or the one that dialled never learns of it."""
    duo = Duo(*pair(3), start=False)
    duo.handle(duo.a, Start())
    duo.handle(duo.b, Start(answers_checks=True))
    duo.run()
    duo.transcript.clear()
    duo.handle(duo.a, Check())
    duo.run()
    assert duo.transcript == ["a Have"], "they are equal, and both know it"
    put(duo.b.replica, "nobody told the session")
    duo.handle(duo.a, Check())
    duo.receive(duo.b)
    assert duo.transcript[1:] == ["a Have", "b Have"]
    duo.receive(duo.a)
    assert duo.transcript[1:] == ["a Have", "b Have"]


def test_a_fork_is_fetched_over_a_lazy_link() -> None:
    """Otherwise a branch that a lazy link announces, no longer than ours, does not count as lacking and never comes."""
    one, two = Author(1), Author(1)
    duo = lazy_duo()
    duo.write(duo.a, give(duo.a.replica, one.write(), one.write()))
    other = [two.write([Operation(PUT, "other", {})]), two.write()]
    duo.write(duo.b, give(duo.b.replica, *other))
    duo.run(1)
    for side in (duo.a, duo.b):
        if side.session.suspects_fork:
            duo.handle(side, MakeEager())
    duo.run(10)
    assert duo.a.replica.root() == duo.b.replica.root()
    assert duo.a.replica.has_forks()


def test_prune_before_open_is_the_peers_fault() -> None:
    """Otherwise a message of a session that has not begun changes its state."""
    from meshsync.errors import PeerError

    duo = Duo(*pair(1), start=False)
    for message in (Prune(), Graft()):
        duo.send(duo.a, message)
        with pytest.raises(PeerError, match="before OPEN"):
            duo.receive(duo.b)
