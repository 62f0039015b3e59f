"""Random events on a simulated mesh, all drawn from one seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.store.memory import MemoryStore
from tests.meshoracle import Oracles
from tests.simmesh import SimMesh
from tests.simnode import Node

# Small, so that few entries already take many batches.
SMALL = replace(LIMITS, batch_entries_soft=4, batch_bytes_soft=600, push_burst=2, part_indexed_entries=1)
HEAL_SECONDS_MAX = 90.0
"""The longest wait is that of a resync after a full disk, and a comparison of roots."""
SKEWS_MS = (0, 500, -5_000, 599_000, 3_600_000, -(10**13))


def random_operations(rng: random.Random) -> list[Operation]:
    """One entry's worth: mostly one operation, on few documents and fields, so that they clash."""
    operations = {one.id: one for one in (_random_operation(rng) for _ in range(rng.choice((1, 1, 1, 3))))}
    return list(operations.values())


def _random_operation(rng: random.Random) -> Operation:
    id = f"doc{rng.randrange(8)}"
    kind = rng.choice((PUT, PATCH, PATCH, DELETE))
    if kind == DELETE:
        return Operation(DELETE, id)
    names = rng.sample("abcd", rng.randrange(4))
    return Operation(kind, id, {name: rng.choice((None, rng.randrange(100), "x" * 50)) for name in names})


def heal(mesh: SimMesh, rng: random.Random) -> None:
    """Everything works again, clocks are right, and the nodes are connected in a line: all must become level."""
    mesh.wall_ms += 3_600_000  # what was written by a clock that was ahead is in the past now
    for node in mesh.nodes:
        node.mend_disk()
        node.skew_ms = 0
    order = mesh.nodes.copy()
    rng.shuffle(order)
    for a, b in pairwise(order):
        mesh.link(a, b)
    began = mesh.now
    assert mesh.run(HEAL_SECONDS_MAX, mesh.is_level), [
        (end, end.session.state, end.session.stall) for link in mesh.links for end in link.ends
    ]
    mesh.stats["seconds to heal"] += int(mesh.now - began)


class Storm:
    """Each seed has a taste of its own: how fast the links are, what breaks, and how often."""

    def __init__(self, seed: int) -> None:
        self.mesh = SimMesh(seed, 0, SMALL)
        self.rng = rng = self.mesh.rng
        # From how many nodes on links turn lazy, and from how many entries on one node provides.
        self.mesh.limits = replace(
            SMALL, eager_subscribers_max=rng.choice((0, 0, 2, 8)), bulk_entries=rng.choice((4, 64, 64))
        )
        self.mesh.latency_seconds = rng.choice((0.001, 0.02, 0.02, 0.4))
        for _ in range(rng.randrange(2, 6)):
            self.mesh.add_node()
        self.oracles = Oracles(self.mesh)
        self._backups: list[tuple[Node, MemoryStore]] = []
        self._weights = {
            self._write: 12,
            self._connect: 7,
            self._cut: rng.choice((0, 2, 6)),
            self._kill: 1,
            self._crash: rng.choice((0, 1, 3)),
            self._turn_clock: 1,
            self._fill_disk: rng.choice((0, 0, 2)),
            self._wear_disk: rng.choice((0, 0, 0, 3)),
            self._restart: 1,
            self._fork: rng.choice((0, 2, 5, 8)),
            self._wait: 6,
        }

    def step(self) -> None:
        """One event, and a moment."""
        (action,) = self.rng.choices(list(self._weights), list(self._weights.values()))
        action(self.rng.choice(self.mesh.nodes))
        self.mesh.run(self.rng.choice((0.0, 0.005, 0.02)))

    def _write(self, node: Node) -> None:
        for _ in range(self.rng.choice((1, 1, 2, 10))):
            node.write(random_operations(self.rng), durable=self.rng.random() < 0.3)

    def _connect(self, node: Node) -> None:
        other = self.rng.choice(self.mesh.nodes)
        if other is not node:
            self.mesh.link(node, other)

    def _cut(self, _: Node) -> None:
        if self.mesh.links:
            self.mesh.cut(self.rng.choice(self.mesh.links))

    def _kill(self, node: Node) -> None:
        self.mesh.kill(node)

    def _crash(self, node: Node) -> None:
        self.mesh.crash(node)

    def _turn_clock(self, node: Node) -> None:
        node.skew_ms = self.rng.choice(SKEWS_MS)

    def _fill_disk(self, node: Node) -> None:
        node.store.broken = "" if node.store.broken else "disk full"

    def _wear_disk(self, node: Node) -> None:
        node.store.fail_rate = self.rng.choice((0.0, 0.05, 0.3))

    def _restart(self, node: Node) -> None:
        self.mesh.restart(node)

    def _wait(self, _: Node) -> None:
        self.mesh.run(self.rng.choice((0.01, 0.05, 0.3, 1.0, 60.0)))

    def _fork(self, node: Node) -> None:
        """One of the ways in which a key comes to sign twice."""
        choice = self.rng.randrange(4)
        if choice == 0 and len(self.mesh.nodes) < 7:
            self.mesh.add_node(like=node)
        elif choice == 1:
            self.mesh.crash(node, same_boot=True)
        elif choice == 2:
            self._backups.append((node, node.store.copy()))
        elif self._backups:
            owner, backup = self.rng.choice(self._backups)
            replace_disk = self.rng.choice((self.mesh.restore, self.mesh.replace_disk))
            replace_disk(owner, backup.copy())


def run_storm(seed: int, steps: int = 60) -> Counter[str]:
    """A whole storm: after every event everything must hold, and at the end all nodes must be equal."""
    storm = Storm(seed)
    for _ in range(steps):
        storm.step()
        storm.oracles.check()
    heal(storm.mesh, storm.rng)
    storm.oracles.check()
    storm.oracles.check_seals()
    storm.oracles.check_nothing_lost()
    return storm.mesh.stats
