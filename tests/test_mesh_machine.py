"""Ring 1: Hypothesis looks for the shortest run of events after which something does not hold."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.store.memory import MemoryStore
from tests.meshoracle import Oracles
from tests.simmesh import SimMesh
from tests.simnode import Link, Node
from tests.storm import SKEWS_MS, SMALL, heal

places = st.integers(0, 1000)
bodies = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 3), max_size=3)
documents = st.sampled_from(["d1", "d2", "d3"])
operations = st.one_of(
    st.builds(Operation, st.sampled_from([PUT, PATCH]), documents, bodies),
    st.builds(Operation, st.just(DELETE), documents),
)
entries = st.lists(operations, min_size=1, max_size=3, unique_by=lambda operation: operation.id)


class MeshMachine(RuleBasedStateMachine):
    """Nodes, links, and everything that may befall them."""

    def __init__(self) -> None:
        super().__init__()
        self.mesh = SimMesh(0, 3, SMALL)
        self.oracles = Oracles(self.mesh)
        self.backups: list[tuple[Node, MemoryStore]] = []

    @initialize(seed=st.integers(0, 2**32), latency=st.sampled_from([0.001, 0.02, 0.4]))
    def begin(self, seed: int, latency: float) -> None:
        self.mesh.rng.seed(seed)
        self.mesh.latency_seconds = latency

    def node(self, at: int) -> Node:
        return self.mesh.nodes[at % len(self.mesh.nodes)]

    def link_at(self, at: int) -> Link:
        return self.mesh.links[at % len(self.mesh.links)]

    @rule(at=places, entry=entries, durable=st.booleans())
    def write(self, at: int, entry: list[Operation], *, durable: bool) -> None:
        self.node(at).write(entry, durable=durable)

    @rule(at=places, count=st.integers(2, 20))
    def write_many(self, at: int, count: int) -> None:
        for number in range(count):
            self.node(at).write([Operation(PUT, f"d{number % 5}", {"n": number})])

    @rule(a=places, b=places)
    def connect(self, a: int, b: int) -> None:
        if self.node(a) is not self.node(b):
            self.mesh.link(self.node(a), self.node(b))

    @precondition(lambda self: self.mesh.links)
    @rule(at=places)
    def cut(self, at: int) -> None:
        self.mesh.cut(self.link_at(at))

    @precondition(lambda self: self.mesh.links)
    @rule(at=places, way=st.integers(0, 1))
    def deliver_one(self, at: int, way: int) -> None:
        self.link_at(at).ends[way].deliver_one()

    @precondition(lambda self: self.mesh.links)
    @rule(at=places, way=st.integers(0, 1))
    def compare_roots(self, at: int, way: int) -> None:
        self.link_at(at).ends[way].check()

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 1.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.mesh.run(seconds)

    @rule(at=places, same_boot=st.booleans())
    def crash(self, at: int, *, same_boot: bool) -> None:
        self.mesh.crash(self.node(at), same_boot=same_boot)

    @rule(at=places)
    def kill(self, at: int) -> None:
        self.mesh.kill(self.node(at))

    @rule(at=places)
    def restart(self, at: int) -> None:
        self.mesh.restart(self.node(at))

    @rule(at=places, skew_ms=st.sampled_from(SKEWS_MS))
    def turn_clock(self, at: int, skew_ms: int) -> None:
        self.node(at).skew_ms = skew_ms

    @rule(at=places)
    def fill_or_clear_disk(self, at: int) -> None:
        node = self.node(at)
        node.store.broken = "" if node.store.broken else "disk full"

    @precondition(lambda self: len(self.mesh.nodes) < 6)
    @rule(at=places)
    def clone(self, at: int) -> None:
        self.mesh.add_node(like=self.node(at))

    @rule(at=places)
    def back_up(self, at: int) -> None:
        self.backups.append((self.node(at), self.node(at).store.copy()))

    @precondition(lambda self: self.backups)
    @rule(at=places, knowing=st.booleans())
    def restore(self, at: int, *, knowing: bool) -> None:
        node, backup = self.backups[at % len(self.backups)]
        put_back = self.mesh.restore if knowing else self.mesh.replace_disk
        put_back(node, backup.copy())

    @invariant()
    def everything_holds(self) -> None:
        self.oracles.check()

    def teardown(self) -> None:
        """At the end everything heals."""
        heal(self.mesh, random.Random(0))
        self.oracles.check()
        self.oracles.check_seals()
        self.oracles.check_nothing_lost()


TestMeshMachine = MeshMachine.TestCase
TestMeshMachine.settings = settings(stateful_step_count=40)
