"""Which summaries are kept, and which each link still gets."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace

import pytest

from meshsync.core.gossip import Gossip, Taken
from meshsync.core.limits import LIMITS
from meshsync.core.summary import SignedSummary
from meshsync.ids import CollectionId, EndpointId
from tests.authors import COLLECTION
from tests.summaries import id_of, summary

OTHER = CollectionId.of_name("other")
NEAR, FAR = id_of(2), id_of(3)


def gossip_with(*peers: EndpointId) -> Gossip:
    gossip = Gossip(id_of(1), LIMITS)
    for peer in peers:
        gossip.connect(peer, b"first", 0)
        gossip.share(peer, COLLECTION)
    return gossip


def sent(gossip: Gossip, peer: EndpointId, now: float = 0) -> list[tuple[str, int]]:
    """What goes to a peer now, by name and version."""
    found = []
    while gossip.next_digest(peer, now) is not None:
        pass
    while (fact := gossip.next_for(peer, now)) is not None:
        found.append((fact.signed.summary.name, fact.signed.summary.version))
    return found


def test_what_one_peer_says_goes_to_the_others_once() -> None:
    """Otherwise two nodes tell each other the same for ever, or a third never hears it."""
    gossip = gossip_with(NEAR, FAR)
    assert gossip.take(NEAR, summary(2), 0, 0) is Taken.NEWS
    assert sent(gossip, NEAR) == []
    assert sent(gossip, FAR) == [("node 2", 1)]
    assert sent(gossip, FAR) == []
    assert gossip.take(FAR, summary(2), 0, 1) is Taken.KNOWN
    assert sent(gossip, NEAR, 1) == sent(gossip, FAR, 1) == []
    assert gossip.ready_at(FAR, 1) == math.inf


def test_only_the_newest_of_an_author_waits() -> None:
    """Otherwise a slow link carries what is outdated, and a fast author fills the memory."""
    gossip = gossip_with(NEAR, FAR)
    for version in (1, 3, 2):
        gossip.take(NEAR, summary(2, version), 0, 0)
    assert sent(gossip, FAR) == [("node 2", 3)]
    assert sent(gossip, NEAR) == [], "it has said the newer one itself"


def test_who_is_behind_gets_what_it_lacks() -> None:
    """Otherwise a node that missed the newest one keeps an old one until its author speaks again."""
    gossip = gossip_with(NEAR)
    gossip.take(NEAR, summary(4, 5), 0, 0)
    gossip.connect(FAR, b"", 0)
    gossip.share(FAR, COLLECTION)
    assert sent(gossip, FAR) == [("node 4", 5)]
    assert gossip.take(FAR, summary(4, 2), 0, 0) is Taken.KNOWN
    assert sent(gossip, FAR) == [], "the newer one is under way to it"


def test_of_two_with_one_version_all_nodes_keep_the_same() -> None:
    """Otherwise a clone splits the mesh into those who believe the one and those who believe the other."""
    one, two = summary(4, 7, name="one"), summary(4, 7, name="two")
    kept = set()
    for order in ((one, two), (two, one)):
        gossip = gossip_with(NEAR)
        for signed in order:
            gossip.take(NEAR, signed, 0, 0)
        fact = gossip.fact(COLLECTION, id_of(4))
        assert fact is not None
        kept.add(fact.signed.summary.name)
    assert len(kept) == 1


def test_a_node_that_forgot_what_it_said_goes_above_it() -> None:
    """Otherwise nobody believes a device whose clock was lost."""
    gossip = gossip_with(NEAR)
    gossip.issue(summary(1, 1000), 0)
    assert gossip.take(NEAR, summary(1, 900), 0, 0) is Taken.KNOWN
    assert gossip.own_version(COLLECTION) == 1000
    assert gossip.take(NEAR, summary(1, 5000), 0, 0) is Taken.OWN
    assert gossip.own_version(COLLECTION) == 5000
    one, two = sorted((summary(1, 1000), summary(1, 1000, name="a twin")), key=lambda signed: signed.order)
    gossip = gossip_with(NEAR)
    gossip.issue(one, 0)
    assert gossip.take(NEAR, two, 0, 0) is Taken.OWN
    assert gossip.take(NEAR, summary(1, 5000), 0, 0) is Taken.OWN
    gossip.issue(summary(1, 5001), 0)
    assert sent(gossip, NEAR) == [("node 1", 5001)]


def test_a_node_hears_of_its_own_forgotten_word_from_whoever_knows_it() -> None:
    """Otherwise it speaks below its earlier version, is ignored, and never learns why."""
    gossip = gossip_with(FAR)
    gossip.take(FAR, summary(2, 5000), 0, 0)
    gossip.connect(NEAR, b"", 0)
    gossip.share(NEAR, COLLECTION)
    assert sent(gossip, NEAR) == [], "what it said itself it is not told"
    assert gossip.take(NEAR, summary(2, 10), 0, 0) is Taken.KNOWN
    assert sent(gossip, NEAR) == [("node 2", 5000)]


def test_a_link_that_comes_back_costs_the_difference() -> None:
    """Otherwise a radio link that flaps carries the whole mesh again and again."""
    gossip = gossip_with(NEAR, FAR)
    for number in range(4, 9):
        gossip.take(FAR, summary(number), 0, 0)
    assert len(sent(gossip, NEAR)) == 5
    gossip.disconnect(NEAR, 100)
    gossip.take(FAR, summary(4, 2), 0, 110)
    gossip.connect(NEAR, b"first", 120)
    gossip.share(NEAR, COLLECTION)
    assert sent(gossip, NEAR, 120) == [("node 4", 2)]
    gossip.disconnect(NEAR, 130)
    gossip.connect(NEAR, b"first", 130)
    gossip.share(NEAR, COLLECTION)
    assert sent(gossip, NEAR, 130) == [("node 4", 2)], "it may not have arrived"
    gossip.connect(NEAR, b"second", 300)
    gossip.share(NEAR, COLLECTION)
    assert len(sent(gossip, NEAR, 300)) == 5, "another process remembers nothing"


def test_only_who_shares_a_collection_hears_of_it() -> None:
    """Otherwise summaries tell strangers what exists."""
    gossip = gossip_with(NEAR)
    gossip.connect(FAR, b"", 0)
    gossip.share(FAR, OTHER)
    gossip.take(NEAR, summary(2), 0, 0)
    assert sent(gossip, FAR) == []
    gossip.share(FAR, COLLECTION)
    assert sent(gossip, FAR) == [("node 2", 1)]
    gossip.unshare(FAR, COLLECTION)
    gossip.take(NEAR, summary(2, 2), 0, 0)
    assert sent(gossip, FAR) == []
    gossip.share(FAR, COLLECTION)
    assert sent(gossip, FAR) == [("node 2", 2)]


def test_over_a_lazy_link_little_goes_and_the_rest_when_it_is_eager() -> None:
    """Otherwise a full mesh carries each summary over every link; or nothing follows when the tree breaks."""
    gossip, pause = gossip_with(NEAR, FAR), LIMITS.summary_lazy_seconds
    gossip.set_lazy(FAR, COLLECTION, 0, lazy=True)
    for version in (1, 2):
        for number in (2, 4, 5, 6):
            gossip.take(NEAR, summary(number, version), 0, 0)
    assert sent(gossip, FAR, pause - 1) == []
    assert gossip.ready_at(FAR, pause - 1) == pause
    assert gossip.take(FAR, summary(2, 2), 0, pause - 1) is Taken.KNOWN, "it heard it by the tree"
    assert sent(gossip, FAR, pause) == [], "first the two compare what they know"
    pause += LIMITS.summary_answer_seconds
    assert gossip.ready_at(FAR, pause - 1) == pause
    assert sent(gossip, FAR, pause) == [("node 4", 2)]
    later = pause + LIMITS.summary_lazy_seconds
    assert gossip.ready_at(FAR, pause) == later
    gossip.set_lazy(FAR, COLLECTION, pause, lazy=True)
    assert gossip.ready_at(FAR, pause) == later
    gossip.set_lazy(FAR, COLLECTION, pause, lazy=False)
    assert sent(gossip, FAR, pause) == [("node 5", 2), ("node 6", 2)]


def test_what_is_lazy_does_not_hold_up_what_is_eager() -> None:
    """Otherwise one crowded collection silences the others on the same link."""
    gossip = gossip_with(NEAR, FAR)
    for peer in (NEAR, FAR):
        gossip.share(peer, OTHER)
    gossip.set_lazy(FAR, COLLECTION, 0, lazy=True)
    gossip.take(NEAR, summary(2), 0, 0)
    gossip.take(NEAR, summary(4, collection=OTHER), 0, 0)
    assert sent(gossip, FAR) == [("node 4", 1)]


def test_collections_take_turns() -> None:
    """Otherwise a large collection keeps a small one from being heard of."""
    gossip = gossip_with(NEAR, FAR)
    for peer in (NEAR, FAR):
        gossip.share(peer, OTHER)
    for number in range(4, 7):
        gossip.take(NEAR, summary(number), 0, 0)
    gossip.take(NEAR, summary(9, collection=OTHER), 0, 0)
    assert ("node 9", 1) in sent(gossip, FAR)[:2]


def test_a_link_has_a_budget() -> None:
    """Otherwise a thousand nodes that all write fill a slow link with what they say of themselves."""
    gossip = gossip_with(NEAR, FAR)
    for number in range(4, 204):
        gossip.take(NEAR, summary(number), 0, 0)
    first = len(sent(gossip, FAR))
    assert sum(summary(number).size for number in range(4, 3 + first)) < LIMITS.summary_burst_bytes
    assert sum(summary(number).size for number in range(4, 4 + first)) >= LIMITS.summary_burst_bytes
    later = gossip.ready_at(FAR, 0)
    assert 0 < later < 1
    assert gossip.next_for(FAR, later / 2) is None
    assert gossip.next_for(FAR, later) is not None
    total, now = first + 1, later
    while (now := gossip.ready_at(FAR, now)) < math.inf:
        total += len(sent(gossip, FAR, now))
    assert total == 200


def test_what_is_not_said_again_is_forgotten() -> None:
    """Otherwise a node that is gone for good is drawn for ever."""
    gossip = gossip_with(NEAR, FAR)
    gossip.issue(summary(1, lasts_s=10), 0)
    gossip.take(NEAR, summary(2, lasts_s=100), 40, 50)
    assert gossip.expire(50) == 110
    assert gossip.expire(109) == 110
    assert gossip.expire(110) == math.inf
    assert gossip.authors(COLLECTION) == {id_of(1)}, "what one says of oneself stays"
    assert sent(gossip, FAR, 110) == [("node 1", 1)]
    assert gossip.take(NEAR, summary(2, lasts_s=100), 101, 110) is Taken.KNOWN, "too old when it came"
    assert gossip.authors(COLLECTION) == {id_of(1)}


def test_a_flood_of_invented_authors_displaces_only_its_like() -> None:
    """Otherwise one peer with many keys makes a node forget its whole mesh."""
    limits = replace(LIMITS, summary_authors_max=10)
    gossip = Gossip(id_of(1), limits)
    for peer in (NEAR, FAR):
        gossip.connect(peer, b"", 0)
        gossip.share(peer, COLLECTION)
    honest = {id_of(number) for number in (2, 3, 4, 5)}
    for number in (2, 4, 5):
        gossip.take(NEAR, summary(number), 0, 0)
    for number in range(100, 200):
        gossip.take(FAR, summary(number), 0, number)
    gossip.take(FAR, summary(3), 0, 200)
    assert len(gossip.authors(COLLECTION)) == 10
    assert honest <= gossip.authors(COLLECTION)


def test_a_collection_that_was_left_is_forgotten() -> None:
    """Otherwise a node goes on telling of what it has no part in."""
    gossip = gossip_with(NEAR, FAR)
    gossip.take(NEAR, summary(2), 0, 0)
    gossip.forget(COLLECTION)
    assert gossip.facts(COLLECTION) == []
    assert gossip.collections() == set()
    assert sent(gossip, FAR) == []


def test_only_a_few_of_the_absent_are_remembered() -> None:
    """Otherwise everyone who ever came by takes memory for ever."""
    gossip = Gossip(id_of(1), replace(LIMITS, summary_absent_peers_max=3))
    for number in range(2, 12):
        gossip.connect(id_of(number), b"", 0)
        gossip.disconnect(id_of(number), 1)
    assert len(gossip._neighbours) == 3


# A small mesh


@dataclass
class Mesh:
    """Gossips and the links between them; frames arrive in the order of sending, each after a while."""

    size: int
    rng: random.Random
    now: float = 0.0
    nodes: list[Gossip] = field(default_factory=list)
    links: set[frozenset[int]] = field(default_factory=set)
    carried: int = 0
    carried_bytes: int = 0

    def __post_init__(self) -> None:
        self.nodes = [Gossip(id_of(number + 1)) for number in range(self.size)]

    def connect(self, a: int, b: int) -> None:
        self.links.add(frozenset((a, b)))
        for here, there in ((a, b), (b, a)):
            self.nodes[here].connect(id_of(there + 1), b"", self.now)
            self.nodes[here].share(id_of(there + 1), COLLECTION)

    def cut(self, a: int, b: int) -> None:
        self.links.discard(frozenset((a, b)))
        for here, there in ((a, b), (b, a)):
            self.nodes[here].disconnect(id_of(there + 1), self.now)

    def say(self, number: int, version: int) -> None:
        self.nodes[number].issue(summary(number + 1, version), self.now)

    def run(self, seconds: float) -> None:
        """Carry whatever is to be carried, a round of all links every tenth of a second."""
        end = self.now + seconds
        while self.now < end:
            frames: list[tuple[int, int, SignedSummary, float]] = []
            for link in sorted(self.links, key=sorted):
                a, b = sorted(link)
                for here, there in ((a, b), (b, a)):
                    while (fact := self.nodes[here].next_for(id_of(there + 1), self.now)) is not None:
                        frames.append((here, there, fact.signed, fact.age(self.now)))
            self.rng.shuffle(frames)
            for here, there, signed, age in frames:
                if frozenset((here, there)) in self.links:
                    self.nodes[there].take(id_of(here + 1), signed, age, self.now)
                    self.carried += 1
                    self.carried_bytes += signed.size
            self.now += 0.1

    def versions(self, number: int) -> dict[str, int]:
        return {fact.signed.summary.name: fact.signed.summary.version for fact in self.nodes[number].facts(COLLECTION)}


@pytest.mark.parametrize(("size", "degree"), [(20, 2), (50, 3), (20, 19)])
def test_everyone_learns_everyones_newest_at_a_bounded_cost(size: int, degree: int) -> None:
    """Otherwise the graph shows half a mesh, or showing it costs more than the documents."""
    seed = 7 * size + degree
    print("seed", seed)
    mesh = Mesh(size, random.Random(seed))
    for number in range(size):
        for step in range(1, degree // 2 + 2):
            mesh.connect(number, (number + step) % size)
    for number in range(size):
        mesh.say(number, 1)
    mesh.run(30)
    everything = {f"node {number + 1}": 1 for number in range(size)}
    assert [mesh.versions(number) for number in range(size)] == [everything] * size
    assert mesh.carried <= 2 * len(mesh.links) * size
    before = mesh.carried
    mesh.run(60)
    assert mesh.carried == before, "at rest nothing is sent"
    mesh.say(0, 2)
    mesh.run(5)
    assert mesh.carried - before <= 2 * len(mesh.links)
    assert all(mesh.versions(number)["node 1"] == 2 for number in range(size))


@pytest.mark.parametrize("seed", range(12))
def test_links_that_come_and_go_lose_nothing(seed: int) -> None:
    """Otherwise an old fact stays somewhere until its author speaks again, which may be never."""
    print("seed", seed)
    rng = random.Random(seed)
    mesh = Mesh(20, rng)
    for number in range(20):
        mesh.connect(number, (number + 1) % 20)
    version = dict.fromkeys(range(20), 0)
    for _ in range(200):
        number = rng.randrange(20)
        match rng.randrange(4):
            case 0:
                version[number] += 1
                mesh.say(number, version[number])
            case 1:
                mesh.cut(number, (number + rng.randrange(1, 20)) % 20)
            case 2:
                mesh.connect(number, (number + rng.randrange(1, 20)) % 20)
            case _:
                mesh.run(rng.uniform(0, 2))
    for number in range(20):
        mesh.say(number, version[number] + 1)
        mesh.connect(number, (number + 1) % 20)
    mesh.run(60)
    everything = {f"node {number + 1}": version[number] + 1 for number in range(20)}
    assert [mesh.versions(number) for number in range(20)] == [everything] * 20
