"""Which links are eager: every decision, and at random."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.limits import LIMITS
from meshsync.core.session_events import Arrived, Offered
from meshsync.core.spreading import Spreading, Turn
from meshsync.ids import LogId
from tests.authors import Author

LOG = Author(1).log
RTT = 0.05
BULK = LIMITS.bulk_entries


@dataclass(eq=False)
class Peer:
    """A session as the machine sees it."""

    name: str
    is_lazy: bool = False
    is_opened: bool = True
    suspects_fork: bool = False
    missing: int = 0

    @property
    def is_ahead(self) -> bool:
        return self.missing > 0

    def lacking(self) -> Mapping[LogId, int]:
        return {LOG: self.missing}

    def lacks(self, places: Mapping[LogId, int]) -> int:
        # What is told of is numbered from the end, so that what is missing says how much of it is.
        return min(self.missing, sum(places.values()))


@dataclass
class Links:
    """The machine, its peers, and what was decided: "prune x", "graft x"."""

    subscribers: int = 20
    now: float = 100.0
    peers: dict[str, Peer] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = Spreading(lambda: self.subscribers, LIMITS, random.Random(1))

    def join(self, name: str, *, is_opened: bool = True, missing: int = 0) -> Peer:
        peer = self.peers[name] = Peer(name, is_opened=is_opened, missing=missing)
        peer.is_lazy = self.machine.join(peer, lambda: RTT)
        return peer

    def carry_out(self, turns: list[Turn]) -> None:
        for turn in turns:
            assert isinstance(turn.partner, Peer)
            turn.partner.is_lazy = turn.lazy
            turn.partner.suspects_fork = False
            self.said.append(f"{'prune' if turn.lazy else 'graft'} {turn.partner.name}")

    def look(self, seconds: float = 0.0) -> list[str]:
        """What is decided within some time."""
        end = self.now + seconds
        self.carry_out(self.machine.look(self.now))
        while (at := min((self.machine.wake_at(peer) for peer in self.peers.values()), default=end + 1)) <= end:
            assert at > self.now, "it would spin"
            self.now = at
            self.carry_out(self.machine.look(self.now))
        self.now = end
        return self.take()

    def arrived(self, peer: Peer, new: int, repeated: int, places: Mapping[LogId, int] | None = None) -> list[str]:
        self.carry_out(self.machine.arrived(peer, Arrived(new, repeated, places or {}, {}), self.now))
        return self.take()

    def offered(self, peer: Peer, missing: int) -> list[str]:
        """A lazy link tells of an entry that is not here."""
        peer.missing = missing
        self.carry_out(self.machine.offered(peer, Offered(LOG, missing, 0.0), self.now))
        return self.take()

    def leave(self, peer: Peer) -> list[str]:
        del self.peers[peer.name]
        self.carry_out(self.machine.leave(peer, self.now))
        return self.take()

    def take(self) -> list[str]:
        said, self.said = self.said, []
        return said


def test_the_second_link_over_which_an_entry_comes_turns_lazy() -> None:
    """Otherwise each entry comes as often as there are links."""
    links = Links()
    a, b = links.join("a"), links.join("b")
    assert links.arrived(a, 1, 0) == []
    assert links.arrived(b, 0, 1) == ["prune b"]
    assert links.arrived(a, 0, 1) == [], "the only link that is left"


def test_among_few_all_links_stay_eager() -> None:
    """Otherwise a small mesh is slower than it could be."""
    links = Links(subscribers=LIMITS.eager_subscribers_max)
    a, b = links.join("a"), links.join("b")
    assert links.arrived(a, 1, 0) == []
    assert links.arrived(b, 0, 1) == []


def test_among_few_a_great_deal_still_comes_from_one_only() -> None:
    """Otherwise a partition that heals brings everything once for each link."""
    links = Links(subscribers=3)
    a, b = links.join("a"), links.join("b")
    assert links.arrived(a, BULK, 0) == []
    assert links.arrived(b, 0, BULK) == ["prune b"]
    assert links.look(LIMITS.bulk_rest_seconds / 2) == []
    assert links.look(LIMITS.bulk_rest_seconds) == ["graft b"]


def test_a_peer_that_goes_on_pushing_is_told_again() -> None:
    """Otherwise a PRUNE that crossed a GRAFT leaves the peer pushing what comes by another link, for ever."""
    links = Links()
    a, b = links.join("a"), links.join("b")
    links.arrived(a, 1, 0)
    links.arrived(b, 0, 1)
    assert links.arrived(b, 0, 1) == [], "it may not know yet"
    links.now += 1
    assert links.arrived(b, 0, 1) == ["prune b"]


def test_what_was_announced_and_does_not_come_is_asked_for() -> None:
    """Otherwise what the tree lost is not there until the next comparison of roots."""
    links = Links()
    a, b, c = links.join("a"), links.join("b"), links.join("c")
    for peer in (b, c):
        links.arrived(peer, 0, 1)
    links.take()
    b.missing = c.missing = 1
    assert links.look(LIMITS.graft_seconds_min * 0.9) == []
    while not (first := links.look(0.01)):
        pass
    assert first in (["graft b"], ["graft c"]), "one at a time"
    # Who does not answer is passed over.
    assert {*first, *links.look(3)} >= {"graft b", "graft c"}
    assert not a.is_lazy


def test_what_comes_in_time_is_not_asked_for() -> None:
    """Otherwise each announcement brings the entry a second time."""
    links = Links()
    links.join("a")
    b = links.join("b")
    links.arrived(b, 0, 1)
    links.take()
    for _ in range(100):  # writes go on: the peer is always ahead by the last one
        b.missing = 1
        assert links.look(0.1) == []
        b.missing = 0
        assert links.look(0.1) == []


def test_among_busy_machines_what_is_announced_may_be_late() -> None:
    """Otherwise each asks for what is on its way, gets it twice, and all are even busier with that."""
    links = Links()
    a, b = links.join("a"), links.join("b")
    links.arrived(b, 0, 1)
    links.take()
    late = LIMITS.graft_late_seconds_max / 2
    for turn in range(5):
        assert links.offered(b, 1) == []
        asked = links.look(late if turn == 0 else 0.8 * late)
        assert (asked == ["graft b"]) is (turn == 0), "once was too soon"
        b.missing = 0
        links.arrived(a, 1, 0, {LOG: 1})
        if asked:
            links.now += LIMITS.grafted_seconds_min
            assert links.arrived(b, 0, 1) == ["prune b"]
    # Long after that nothing is late any more, and what does not come is asked for soon.
    links.look(20 * LIMITS.late_fades_seconds)
    assert links.offered(b, 1) == []
    assert links.look(4 * LIMITS.graft_seconds_min) == ["graft b"]


def test_asking_in_vain_grows_rare() -> None:
    """Otherwise an entry that cannot come, because of a clock or a full disk, has everyone asked all the time."""
    links = Links()
    links.join("a")
    b = links.join("b", missing=1)
    asked = links.look(600)
    assert 5 <= len(asked) <= 60
    b.missing = 0
    assert links.look(600) == []


def test_losing_the_last_eager_link_grafts_another() -> None:
    """Otherwise a node hears of everything late, until someone announces it."""
    links = Links()
    a, b = links.join("a"), links.join("b")
    links.arrived(b, 0, 1)
    assert links.leave(a) == ["graft b"]


def test_the_last_eager_link_is_not_grafted_to_who_has_just_pruned_it() -> None:
    """Otherwise two nodes graft and prune the same link as fast as the network carries it."""
    links = Links()
    a = links.join("a")
    a.is_lazy = True
    times = []
    for _ in range(6):
        began = links.now
        while "graft a" not in links.look(0.5):
            pass
        times.append(links.now - began)
        a.is_lazy = True
    assert times[0] <= 2
    assert times[-1] >= LIMITS.pruned_seconds_max / 2
    b = links.join("b")
    b.is_lazy = True
    links.look()
    assert links.leave(a) == []


def test_a_bootstrap_has_one_provider() -> None:
    """Otherwise a node that joins is sent everything by all of its peers at once."""
    links = Links(subscribers=3)
    a, b, c = (links.join(name, is_opened=False) for name in "abc")
    assert [peer.is_lazy for peer in (a, b, c)] == [False, True, True]
    for peer, missing in ((a, 1000), (b, 1000), (c, 1500)):
        peer.is_opened, peer.missing = True, missing
        links.look()
    assert [peer.is_lazy for peer in (a, b, c)] == [False, True, True]
    # It has no more: the next one that is ahead.
    a.missing, b.missing, c.missing = 0, 0, 500
    assert links.arrived(a, 500, 0) == ["graft c"]
    c.missing = 0
    assert links.arrived(c, 500, 0) == []
    assert links.look(2) == ["graft b"], "the bulk is over, and there are few"


def test_who_has_nothing_is_no_provider() -> None:
    """Otherwise a node waits for a peer that has as little as itself."""
    links = Links()
    a, b = links.join("a", is_opened=False), links.join("b", is_opened=False)
    a.is_opened = True
    b.is_opened, b.missing = True, 1000
    assert links.look() == ["graft b"]


@pytest.mark.parametrize("how", ["stalls", "goes", "is pruned"])
def test_a_provider_that_fails_is_replaced(how: str) -> None:
    """Otherwise a bootstrap hangs on one bad peer though others have everything."""
    links = Links()
    a, b = links.join("a", missing=1000), links.join("b", missing=900)
    links.look()
    assert (a.is_lazy, b.is_lazy) == (False, True)
    if how == "stalls":
        assert links.look(LIMITS.bulk_seconds_max - 0.1) == []
        assert "graft b" in links.look(0.2)
    elif how == "goes":
        assert links.leave(a) == ["graft b"]
    else:
        a.is_lazy = True
        assert "graft a" in links.look() or not b.is_lazy


def test_a_slow_provider_is_not_replaced() -> None:
    """Otherwise a narrow link carries the same from two peers at once."""
    links = Links()
    a, b = links.join("a", missing=1000), links.join("b", missing=1000)
    links.look()
    for _ in range(20):
        a.missing -= 10
        b.missing -= 10
        assert links.look(LIMITS.bulk_seconds_max * 0.9) == []


def test_a_fork_that_was_announced_is_fetched() -> None:
    """Otherwise a branch no longer than ours does not count as lacking, and never comes."""
    links = Links()
    links.join("a")
    b = links.join("b")
    links.arrived(b, 0, 1)
    links.take()
    b.suspects_fork = True
    assert links.look() == ["graft b"]


def test_few_are_few_with_a_margin() -> None:
    """Otherwise one node that comes and goes turns all links each time."""
    links = Links(subscribers=LIMITS.eager_subscribers_max + 1)
    links.join("a")
    b = links.join("b")
    assert links.arrived(b, 0, 1) == ["prune b"]
    links.subscribers -= 1
    assert links.look(60) == []
    links.now += 2
    assert links.look() == []
    links.subscribers -= 3
    links.now += 2
    assert links.look() == ["graft b"]


events = st.lists(
    st.tuples(
        st.sampled_from("join leave open new repeated ahead level prune graft wait fork".split()),
        st.integers(0, 7),
        st.sampled_from([1, BULK, 1000]),
    ),
    max_size=60,
)


@given(events, st.sampled_from([2, 8, 9, 20]))
def test_whatever_happens_news_can_come(run: list[tuple[str, int, int]], subscribers: int) -> None:
    """Otherwise some order of events leaves a node without an eager link, or has it decide without end."""
    links = Links(subscribers)
    for deed, number, amount in run:
        name = f"p{number}"
        peer = links.peers.get(name)
        if deed == "join" and peer is None:
            links.join(name, is_opened=False)
        elif peer is None:
            continue
        elif deed == "leave":
            links.leave(peer)
        elif deed == "open":
            peer.is_opened = True
        elif deed in ("new", "repeated"):
            peer.missing = max(0, peer.missing - amount)
            links.arrived(peer, *((amount, 0) if deed == "new" else (0, amount)))
        elif deed in ("ahead", "level"):
            peer.missing = amount if deed == "ahead" else 0
        elif deed in ("prune", "graft"):
            peer.is_lazy = deed == "prune"
        elif deed == "fork":
            peer.suspects_fork = peer.is_opened
        links.look(amount / 100 if deed == "wait" else 0)
        assert len(links.said) < 200
    for peer in links.peers.values():
        peer.is_opened = True
        peer.missing = 0
    decided = links.look(60)
    assert len(decided) < 100
    if links.peers:
        assert any(not peer.is_lazy for peer in links.peers.values())
    assert links.look(600) == [], "it comes to rest"
