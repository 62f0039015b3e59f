"""Ring 1: meshes of replicas and sessions in a simulator, driven by seeds and by Hypothesis."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.limits import LIMITS
from meshsync.store.memory import MemoryStore
from tests.meshoracle import Oracles
from tests.simmesh import Node, SimMesh

# Small, so that few entries already take many batches.
SMALL = replace(LIMITS, batch_entries_soft=4, batch_bytes_soft=600, push_burst=2)


def random_operation(rng: random.Random) -> Operation:
    id = f"doc{rng.randrange(8)}"
    kind = rng.choice((PUT, PATCH, PATCH, DELETE))
    if kind == DELETE:
        return Operation(DELETE, id)
    names = rng.sample("abcd", rng.randrange(4))
    return Operation(kind, id, {name: rng.choice((None, rng.randrange(100), "x" * 50)) for name in names})


def random_operations(rng: random.Random) -> list[Operation]:
    operations = {one.id: one for one in (random_operation(rng) for _ in range(rng.choice((1, 1, 1, 3))))}
    return list(operations.values())


class Storm:
    """Random events on a mesh, all drawn from its seed, each seed with a taste of its own."""

    def __init__(self, seed: int) -> None:
        self.mesh = SimMesh(seed, 0, SMALL)
        self.rng = rng = self.mesh.rng
        self.mesh.latency_seconds = rng.choice((0.001, 0.02, 0.02, 0.4))
        for _ in range(rng.randrange(2, 6)):
            self.mesh.add_node()
        self.oracles = Oracles(self.mesh)
        self.backups: list[tuple[Node, MemoryStore]] = []
        self.weights = {
            self.write: 12,
            self.connect: 7,
            self.cut: rng.choice((0, 2, 6)),
            self.kill: 1,
            self.crash: rng.choice((0, 1, 3)),
            self.turn_clock: 1,
            self.fill_disk: rng.choice((0, 0, 2)),
            self.restart: 1,
            self.fork: rng.choice((0, 0, 2, 5)),
            self.wait: 6,
        }

    def step(self) -> None:
        """One event, and a moment."""
        (action,) = self.rng.choices(list(self.weights), list(self.weights.values()))
        action(self.rng.choice(self.mesh.nodes))
        self.mesh.run(self.rng.choice((0.0, 0.005, 0.02)))

    def write(self, node: Node) -> None:
        for _ in range(self.rng.choice((1, 1, 2, 10))):
            node.write(random_operations(self.rng), durable=self.rng.random() < 0.3)

    def connect(self, node: Node) -> None:
        other = self.rng.choice(self.mesh.nodes)
        if other is not node:
            self.mesh.link(node, other)

    def cut(self, _: Node) -> None:
        if self.mesh.links:
            self.mesh.cut(self.rng.choice(self.mesh.links))

    def kill(self, node: Node) -> None:
        self.mesh.kill(node)

    def crash(self, node: Node) -> None:
        self.mesh.crash(node)

    def turn_clock(self, node: Node) -> None:
        node.skew_ms = self.rng.choice((0, 500, -5_000, 599_000, 3_600_000, -(10**13)))

    def fill_disk(self, node: Node) -> None:
        node.store.broken = "" if node.store.broken else "disk full"

    def restart(self, node: Node) -> None:
        self.mesh.restart(node)

    def wait(self, _: Node) -> None:
        self.mesh.run(self.rng.choice((0.01, 0.05, 0.3, 1.0, 60.0)))

    def fork(self, node: Node) -> None:
        """One of the ways in which a key comes to sign twice."""
        choice = self.rng.randrange(4)
        if choice == 0 and len(self.mesh.nodes) < 7:
            self.mesh.add_node(like=node)
        elif choice == 1:
            self.mesh.crash(node, same_boot=True)
        elif choice == 2:
            self.backups.append((node, node.store.copy()))
        elif self.backups:
            owner, backup = self.rng.choice(self.backups)
            owner.acknowledged.clear()
            if self.rng.random() < 0.5:
                self.mesh.restore(owner, backup.copy())
            else:
                self.mesh.replace_disk(owner, backup.copy())

    def heal(self) -> None:
        """Everything works again, clocks are right, and the nodes are connected: all must become level."""
        mesh, rng = self.mesh, self.rng
        mesh.wall_ms += 3_600_000  # what was written by a clock that was ahead is in the past now
        for node in mesh.nodes:
            node.store.broken = ""
            node.skew_ms = 0
        order = mesh.nodes.copy()
        rng.shuffle(order)
        for a, b in pairwise(order):
            mesh.link(a, b)
        began = mesh.now
        assert mesh.run(600.0, mesh.is_level), [
            (end, end.session.state, end.session.stall) for link in mesh.links for end in link.ends
        ]
        mesh.stats["seconds to heal"] += int(mesh.now - began)


def run_storm(seed: int, steps: int = 60) -> Counter[str]:
    storm = Storm(seed)
    for _ in range(steps):
        storm.step()
        storm.oracles.check()
    storm.heal()
    storm.oracles.check()
    storm.oracles.check_seals()
    storm.oracles.check_nothing_lost()
    return storm.mesh.stats


@pytest.mark.parametrize("seed", range(12))
def test_a_storm_of_events_ends_with_equal_nodes(seed: int) -> None:
    """Otherwise some order of writes, cuts, crashes, forks and full disks leaves nodes apart, or loses entries."""
    run_storm(seed)
