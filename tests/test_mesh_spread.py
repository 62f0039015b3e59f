"""Ring 1: among many, each entry comes once, whatever becomes of nodes and links."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshsync.core.entry import PUT, Operation
from meshsync.core.session_events import MakeEager, MakeLazy
from tests.meshoracle import Oracles
from tests.simmesh import SimMesh
from tests.simnode import Node

Shape = Callable[[SimMesh], None]


def full(mesh: SimMesh) -> None:
    for number, node in enumerate(mesh.nodes):
        for other in mesh.nodes[:number]:
            mesh.link(node, other)


def at_random(mesh: SimMesh) -> None:
    """A ring, so that all are connected, and as many links besides."""
    for number, node in enumerate(mesh.nodes):
        mesh.link(node, mesh.nodes[number - 1])
        other = mesh.rng.choice(mesh.nodes)
        if other is not node:
            mesh.link(node, other)


def received(mesh: SimMesh) -> tuple[int, int]:
    """Payload bytes that came, and those that were new."""
    sums = [end.session.pulled for link in mesh.links for end in link.ends]
    return sum(one.payload_bytes for one in sums), sum(one.payload_bytes_new for one in sums)


class Measure:
    """How often payloads came since this was made."""

    def __init__(self, mesh: SimMesh) -> None:
        self._mesh = mesh
        self._before = received(mesh)

    @property
    def redundancy(self) -> float:
        total, new = (now - before for now, before in zip(received(self._mesh), self._before, strict=True))
        return total / new


def write(mesh: SimMesh, writers: list[Node], count: int, seconds: float = 0.05) -> None:
    """Entries of several writers, each a moment after the other."""
    for number in range(count):
        node = writers[number % len(writers)]
        node.write([Operation(PUT, f"d{number % 50}", {"n": number, "text": "x" * 100})])
        mesh.run(mesh.rng.uniform(0, 2 * seconds))


def settle(mesh: SimMesh, seconds: float = 90.0) -> None:
    assert mesh.run(seconds, mesh.is_level), [
        (end, end.session.state, end.session.stall, end.session.is_lazy)
        for link in mesh.links
        for end in link.ends
        if end.session.state != "synced"
    ]
    oracles = Oracles(mesh)
    oracles.check()
    oracles.check_seals()


@pytest.mark.parametrize("shape", [full, at_random])
@pytest.mark.parametrize("seed", range(1))
def test_each_entry_comes_about_once(shape: Shape, seed: int) -> None:
    """Otherwise every entry crosses every link, and twenty nodes cost twenty times what they need."""
    mesh = SimMesh(seed, 20)
    shape(mesh)
    mesh.run(5)
    writers = mesh.nodes[::4]
    write(mesh, writers, 60)
    measure = Measure(mesh)
    resyncs = mesh.stats["resyncs"]
    write(mesh, writers, 60)
    assert measure.redundancy <= 1.2
    assert mesh.stats["resyncs"] == resyncs
    settle(mesh)


def test_nodes_that_share_a_busy_machine_get_each_entry_about_once() -> None:
    """Otherwise each asks for what is on its way, gets it twice, and all are busy with that."""
    mesh = SimMesh(2, 20)
    full(mesh)
    mesh.run(5)
    mesh.handling_seconds = 0.002
    writers = mesh.nodes[:4]
    write(mesh, writers, 60, 0.25)
    measure = Measure(mesh)
    write(mesh, writers, 60, 0.25)
    assert measure.redundancy <= 1.2
    mesh.handling_seconds = 0
    settle(mesh)


def test_a_tree_that_loses_nodes_and_links_mends_itself() -> None:
    """Otherwise half of the mesh hears nothing until roots are compared, half a minute later."""
    mesh = SimMesh(5, 14)
    full(mesh)
    mesh.run(5)
    write(mesh, mesh.nodes[:3], 40)
    for _ in range(3):
        dead = mesh.rng.choice(mesh.nodes[3:])
        for end in list(dead.ends):
            mesh.cut(end.link)
        mesh.nodes.remove(dead)
        eager = [link for link in mesh.links if not link.ends[0].session.is_lazy]
        mesh.cut(mesh.rng.choice(eager))
        resyncs = mesh.stats["resyncs"]
        write(mesh, mesh.nodes[:3], 10)
        settle(mesh, 8)
        assert mesh.stats["resyncs"] == resyncs


def seconds_to_all(mesh: SimMesh, node: Node) -> float:
    """How long an entry that is written now takes to be everywhere."""
    began = mesh.now
    id = node.write([Operation(PUT, "d", {"at": began})])
    assert id is not None
    assert mesh.run(10, lambda: len({one.replica.root() for one in mesh.nodes}) == 1)
    return mesh.now - began


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_that_is_one_long_line_becomes_short(seed: int) -> None:
    """Otherwise an entry passes through ten nodes though all are linked with each other."""
    mesh = SimMesh(seed, 12)
    full(mesh)
    mesh.run(5)
    for link in mesh.links:
        a, b = link.ends
        is_next = abs(a.node.number - b.node.number) == 1
        a.handle(MakeEager() if is_next else MakeLazy())
    mesh.run(1)
    assert seconds_to_all(mesh, mesh.nodes[0]) > 8 * mesh.latency_seconds
    write(mesh, mesh.nodes[::4], 60)
    mesh.run(5)
    taken = []
    for node in mesh.nodes:
        taken.append(seconds_to_all(mesh, node))
        mesh.run(2)
    assert max(taken) <= 6 * mesh.latency_seconds
    measure = Measure(mesh)
    write(mesh, mesh.nodes[::4], 40)
    assert measure.redundancy <= 1.2
    settle(mesh)


@pytest.mark.parametrize("holders", [1, 3])
def test_many_that_join_at_once_get_everything_about_once(holders: int) -> None:
    """Otherwise a node that joins is sent everything by each of those that have it."""
    mesh = SimMesh(6, 20)
    first = mesh.nodes[0]
    for number in range(1500):
        first.write([Operation(PUT, f"d{number}", {"n": number, "text": "x" * 100})])
    for node in mesh.nodes[1:holders]:
        mesh.link(first, node)
    mesh.run(10)
    measure = Measure(mesh)
    full(mesh)
    settle(mesh, 60)
    assert measure.redundancy <= 1.3
