"""A large mesh whose nodes and links come and go for an hour of virtual time, all drawn from one seed.

Writes go on all the while.  What may befall a node: it is stopped, killed, loses its power, stays away for a while.
What may befall links: they are made and cut, whole islands part, and one way of a link falls silent.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import pairwise

from meshsync.core.limits import LIMITS
from meshsync.core.session_events import SessionState
from tests.meshoracle import Oracle
from tests.simmesh import SimMesh
from tests.simnode import End, Node
from tests.storm import random_operations

NODES = 50
HOUR_SECONDS = 3600.0
HEAL_SECONDS_MAX = 180.0
QUIET_SECONDS = 90.0
"""After all is level: long enough for every link to compare roots."""
CHECK_SECONDS = 1.0
CLAIM_SECONDS_MAX = 2.0
"""News of a write may be so long under way; a session that says synced for longer than that is wrong."""
NEVER = 1000
RASH = 0.1
"""How often whoever has just written ends in the same moment."""
SKEWS_MS = (0, 0, 500, -5_000, 60_000)

# Small, so that what a node missed while it was away takes several batches.
SMALL = replace(LIMITS, batch_entries_soft=16, batch_bytes_soft=2000, push_burst=4)


class Churn:
    """Each seed has a taste of its own: how dense the mesh is, how fast, what breaks, and how often."""

    def __init__(self, seed: int, nodes: int = NODES) -> None:
        self.mesh = SimMesh(seed, 0, SMALL)
        self.rng = rng = self.mesh.rng
        self._gauge()
        self.mesh.latency_seconds = rng.choice((0.002, 0.02, 0.1))
        for _ in range(nodes):
            self.mesh.add_node().skew_ms = rng.choice(SKEWS_MS)
        self.links_wanted = int(nodes * rng.choice((0.8, 1.5, 2.0)))
        self.away_seconds = rng.choice((20.0, 120.0, 600.0))
        self.gap_seconds = rng.choice((5.0, 8.0, 12.0))
        self.write_gap_seconds = rng.choice((40.0, 60.0, 90.0))
        self.writers: set[int] = set()
        self.gambled: set[bytes] = set()
        """Entries that a node had not synced when its power went: these may be lost."""
        self._island = [0] * nodes
        self._differs: dict[End, tuple[float, bytes, bytes]] = {}
        """Ends that say synced while the roots differ: since when, and both roots."""
        self._actions: dict[Callable[[Node], None], float] = {
            self._connect: 10,
            self._cut: rng.choice((1, 4, 8)),
            self._go: rng.choice((1, 2, 4)),
            self._bounce: rng.choice((0, 1, 2)),
            self._part: rng.choice((0, 0.2, 0.5)),
            self._silence: rng.choice((0, 1, 3)),
            self._differ: rng.choice((0, 0, 1)),
        }

    def _gauge(self) -> None:
        """From how many nodes on there is a crowd, in which links turn lazy: always, never, as configured."""
        crowd, bulk = self.rng.choice((0, NEVER, LIMITS.eager_subscribers_max)), self.rng.choice((4, 64))
        self.mesh.limits = replace(SMALL, eager_subscribers_max=crowd, bulk_entries=bulk)

    # What happens

    def run(self, seconds: float = HOUR_SECONDS) -> None:
        """Let things happen, and check in between."""
        end = self.mesh.now + seconds
        self._write_on(end)
        actions, weights = list(self._actions), list(self._actions.values())
        while self.mesh.now < end:
            node = self.rng.choice(self.mesh.nodes)
            (action,) = self.rng.choices(actions, weights)
            action(node)
            next_event = self.mesh.now + self.rng.expovariate(1 / self.gap_seconds)
            while self.mesh.now < next_event:
                self.mesh.run(min(CHECK_SECONDS, next_event - self.mesh.now))
                self.check_claims()
        self._island = [0] * len(self.mesh.nodes)
        self._part(self.mesh.nodes[0])
        for node in self.rng.sample(self.mesh.nodes, 10):
            self._write(node)

    def _write_on(self, end: float) -> None:
        """Somebody writes, once or often in a moment; and so on to the end."""
        self._write(self.rng.choice(self.mesh.nodes))
        pause = self.rng.expovariate(1 / self.write_gap_seconds)
        if self.mesh.now + pause < end:
            self.mesh.after(pause, lambda: self._write_on(end))

    def _write(self, node: Node) -> None:
        if node.running:
            self.writers.add(node.number)
            for _ in range(self.rng.choice((1, 1, 2, 8))):
                node.write(random_operations(self.rng), durable=self.rng.random() < 0.3)
            if self.rng.random() < RASH:
                self._bounce(node)

    def _connect(self, node: Node) -> None:
        """More links where there are too few."""
        while len(self.mesh.links) < self.links_wanted:
            others = [other for other in self._running() if other is not node and self._can_reach(node, other)]
            if node.running and others:
                self.mesh.link(node, self.rng.choice(others))
            if self.rng.random() < 0.1:
                return
            node = self.rng.choice(self.mesh.nodes)

    def _cut(self, _: Node) -> None:
        for link in self.rng.sample(self.mesh.links, min(3, len(self.mesh.links))):
            self.mesh.cut(link)

    def _go(self, node: Node) -> None:
        """A node ends, in one way or another, and comes back later."""
        if node.running:
            end = self.rng.choice((self.mesh.restart, self.mesh.kill, self._lose_power))
            end(node)
            node.running = False
            self.mesh.stats["absences"] += 1
            self.mesh.after(self.rng.expovariate(1 / self.away_seconds), lambda: self._come_back(node))

    def _come_back(self, node: Node) -> None:
        """It finds a peer at once, as a node that knows addresses does."""
        node.running = True
        others = [other for other in self._running() if other is not node and self._can_reach(node, other)]
        for other in self.rng.sample(others, min(2, len(others))):
            self.mesh.link(node, other)

    def _bounce(self, node: Node) -> None:
        """A node ends and is back at once."""
        if node.running:
            end = self.rng.choice((self.mesh.restart, self.mesh.kill, self._lose_power))
            end(node)
            self._come_back(node)

    def _lose_power(self, node: Node) -> None:
        self.gambled |= {row.id for row in node.replica.scan_entries(node.durable_next)}
        self.mesh.crash(node)

    def _part(self, _: Node) -> None:
        """The mesh falls into islands, or comes together again."""
        count = 1 if any(self._island) else self.rng.randrange(2, 5)
        self._island = [self.rng.randrange(count) for _ in self._island]
        self.mesh.stats["partitions"] += count > 1
        for link in list(self.mesh.links):
            if not self._can_reach(*(end.node for end in link.ends)):
                self.mesh.cut(link)

    def _silence(self, _: Node) -> None:
        """One way of a link falls silent: for a while, or until the end that hears nothing gives the link up."""
        if self.mesh.links:
            link = self.rng.choice(self.mesh.links)
            seconds = self.rng.uniform(1.0, 2 * self.mesh.limits.idle_seconds_max)
            self.rng.choice(link.ends).deaf_until = self.mesh.now + seconds
            self.mesh.stats["silences"] += 1
            if seconds > self.mesh.limits.idle_seconds_max:
                self.mesh.after(self.mesh.limits.idle_seconds_max, lambda: self.mesh.cut(link))

    def _differ(self, _: Node) -> None:
        """Who starts from now on sees another crowd than those that run, because they know of other nodes."""
        self._gauge()
        self.mesh.stats["changes of mind"] += 1

    def _running(self) -> list[Node]:
        return [node for node in self.mesh.nodes if node.running]

    def _can_reach(self, a: Node, b: Node) -> bool:
        return self._island[a.number] == self._island[b.number]

    # The end

    def heal(self) -> None:
        """Everything works again and the mesh is connected, in one shape or another: all must become level."""
        mesh, rng = self.mesh, self.rng
        self._island = [0] * len(mesh.nodes)
        for node in mesh.nodes:
            node.running = True
            node.skew_ms = 0
        for link in mesh.links:
            for end in link.ends:
                end.deaf_until = 0.0
        order = mesh.nodes.copy()
        rng.shuffle(order)
        join = rng.choice((_in_a_line, _as_a_star, _as_a_tree))
        join(self, order)
        began = mesh.now
        while not mesh.is_level():
            assert mesh.now < began + HEAL_SECONDS_MAX, self._apart()
            mesh.run(1.0)
        mesh.stats["seconds to heal"] += int(mesh.now - began)

    def _apart(self) -> object:
        roots = Counter(node.replica.root()[:4].hex() for node in self.mesh.nodes)
        ends = [
            (end, end.session.state.name, end.session.missing, end.session.unsent, end.session.stall)
            for link in self.mesh.links
            for end in link.ends
            if end.session.state is not SessionState.SYNCED
        ]
        return roots, ends

    # What must hold

    def check_claims(self) -> None:
        """Who says synced is right, but for the time that news takes."""
        now, differs = self.mesh.now, self._differs
        self._differs = {}
        patience = CLAIM_SECONDS_MAX + 4 * self.mesh.latency_seconds
        for link in self.mesh.links:
            one, other = (end.node.replica.root() for end in link.ends)
            if one == other:
                continue
            for end in link.ends:
                if end.session.state is not SessionState.SYNCED:
                    continue
                assert end.peer_root == end.node.replica.root(), f"{end} says synced, and was told another root"
                if end.deaf_until <= now:
                    since, *before = differs.get(end, (now, one, other))
                    since = since if before == [one, other] else now
                    assert now - since <= patience, f"{end} has said synced for {now - since:.1f} s, and is not"
                    self._differs[end] = (since, one, other)

    def check_outcome(self) -> None:
        """All hold the same, nothing that was promised is lost, and nobody has more to say."""
        mesh = self.mesh
        held = [{row.id for row in node.replica.scan_entries()} for node in mesh.nodes]
        assert all(ids == held[0] for ids in held)
        for node in mesh.nodes:
            assert node.acknowledged <= held[0], f"what {node} acknowledged is lost"
        assert mesh.written - held[0] <= self.gambled, "entries are lost that no power cut took"
        assert held[0] <= mesh.written
        for node in self.rng.sample(mesh.nodes, 2):
            Oracle(node).check({}, {})
        batches = mesh.stats["Batch"]
        mesh.run(QUIET_SECONDS)
        assert mesh.is_level()
        assert mesh.stats["Batch"] == batches, "entries travel though all have them"


def _in_a_line(churn: Churn, order: Sequence[Node]) -> None:
    for link in list(churn.mesh.links):
        churn.mesh.cut(link)
    for a, b in pairwise(order):
        churn.mesh.link(a, b)


def _as_a_star(churn: Churn, order: Sequence[Node]) -> None:
    for other in order[1:]:
        churn.mesh.link(order[0], other)


def _as_a_tree(churn: Churn, order: Sequence[Node]) -> None:
    for number, node in enumerate(order[1:], 1):
        churn.mesh.link(order[churn.rng.randrange(number)], node)


def run_churn(seed: int) -> Counter[str]:
    """A whole hour, and what came of it.  Every failure says how to see it again."""
    try:
        churn = Churn(seed)
        churn.run()
        churn.heal()
        churn.check_outcome()
    except BaseException as error:
        error.add_note(f"seed {seed}; replay: python -c 'from tests.churn import run_churn; run_churn({seed})'")
        raise
    return churn.mesh.stats + Counter({"writers": len(churn.writers), "entries": len(churn.mesh.written)})


def run_many(seeds: Sequence[int]) -> Counter[str]:
    """Many hours at once, one process a processor."""
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(run_churn, seeds), Counter())
