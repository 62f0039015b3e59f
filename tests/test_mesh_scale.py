"""Ring 1: shapes of meshes, and sizes of logs: long, wide, and forked many times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, pairwise

import pytest

from meshsync.core.entry import PATCH, PUT, Operation
from meshsync.core.limits import LIMITS, PARENTS_MAX
from meshsync.core.messages import Batch
from meshsync.store.replica import Replica
from tests.authors import START_MS, Author, Made, batch_of
from tests.duo import BOTH_SYNCED, Duo
from tests.meshoracle import Oracles
from tests.replicas import new_replica
from tests.simmesh import SimMesh

Shape = Callable[[SimMesh], None]


def line(mesh: SimMesh) -> None:
    for a, b in pairwise(mesh.nodes):
        mesh.link(a, b)


def ring(mesh: SimMesh) -> None:
    line(mesh)
    mesh.link(mesh.nodes[-1], mesh.nodes[0])


def star(mesh: SimMesh) -> None:
    for leaf in mesh.nodes[1:]:
        mesh.link(mesh.nodes[0], leaf)


def tree(mesh: SimMesh) -> None:
    for number, node in enumerate(mesh.nodes[1:], 1):
        mesh.link(mesh.nodes[(number - 1) // 2], node)


def full(mesh: SimMesh) -> None:
    for number, node in enumerate(mesh.nodes):
        for other in mesh.nodes[:number]:
            mesh.link(node, other)


def pushed(mesh: SimMesh) -> int:
    return sum(end.session.pushed for link in mesh.links for end in link.ends)


def settle(mesh: SimMesh, seconds: float = 20.0) -> None:
    assert mesh.run(seconds, mesh.is_level), [
        (end, end.session.state, end.session.stall) for link in mesh.links for end in link.ends
    ]
    oracles = Oracles(mesh)
    oracles.check()
    oracles.check_seals()


@pytest.mark.parametrize("shape", [line, star, tree])
def test_each_entry_crosses_each_link_of_a_tree_once(shape: Shape) -> None:
    """Otherwise entries echo, or what came from elsewhere is not passed on."""
    mesh = SimMesh(1, 7)
    shape(mesh)
    for number in range(70):
        mesh.nodes[number % 7].write([Operation(PUT, f"d{number % 10}", {"n": number})])
        mesh.run(mesh.rng.choice((0.0, 0.001, 0.05)))
    settle(mesh)
    assert pushed(mesh) == 70 * 6


@pytest.mark.parametrize("shape", [ring, full])
def test_meshes_with_circles_settle(shape: Shape) -> None:
    """Otherwise entries that arrive by two ways are held against a peer, or travel for ever."""
    mesh = SimMesh(2, 6)
    shape(mesh)
    for number in range(60):
        mesh.nodes[number % 6].write([Operation(PATCH, f"d{number % 10}", {f"f{number % 3}": number})])
        mesh.run(mesh.rng.choice((0.0, 0.001, 0.05)))
    settle(mesh)
    assert pushed(mesh) <= 60 * 2 * len(mesh.links)


@pytest.mark.parametrize("shape", [line, ring, star, tree, full])
def test_a_node_without_anything_gets_all_through_any_neighbour(shape: Shape) -> None:
    """Otherwise a relay cannot pass on what others signed, because it cut the batch where it has no seal."""
    mesh = SimMesh(3, 5, replace(LIMITS, batch_entries_soft=8))
    for number in range(100):
        mesh.nodes[number % 4].write([Operation(PUT, f"d{number}", {"n": number})])
    shape(mesh)
    settle(mesh)
    newcomer = mesh.add_node()
    mesh.link(newcomer, mesh.nodes[4])
    settle(mesh)


def test_hundreds_of_logs() -> None:
    """Otherwise a fleet whose devices lose power often, and begin a new log each time, slows down and stops."""
    mesh = SimMesh(4, 4)
    for number in range(240):
        node = mesh.nodes[number % 4]
        mesh.crash(node)
        line(mesh)
        node.write([Operation(PUT, f"d{number % 50}", {"n": number})], durable=True)
        mesh.run(0.2)
    settle(mesh)
    assert len(mesh.nodes[0].replica.tips()) == 240


def test_more_heads_than_an_entry_may_name() -> None:
    """Otherwise an entry has more parents than is valid, or heads are never covered."""
    count = 2 * PARENTS_MAX + 5
    mesh = SimMesh(5, count)
    for number, node in enumerate(mesh.nodes):
        node.write([Operation(PUT, "same", {"n": number})])
    star(mesh)
    settle(mesh)
    hub = mesh.nodes[0]
    assert len(hub.replica.heads()) == count
    for left in (count - PARENTS_MAX, count - 2 * PARENTS_MAX, 1):
        hub.write([Operation(PUT, "other", {})])
        assert len(hub.replica.heads()) == left
    assert hub.replica.tables.documents(["same"])["same"].conflict
    hub.write([Operation(PUT, "same", {"n": -1})])
    settle(mesh)
    assert not mesh.nodes[1].replica.tables.documents(["same"])["same"].conflict


@pytest.mark.parametrize("shape", [line, ring, star])
def test_a_log_in_many_branches(shape: Shape) -> None:
    """Otherwise a cloned card that was copied often keeps the mesh apart."""
    mesh = SimMesh(6, 1)
    original = mesh.nodes[0]
    for number in range(5):
        original.write([Operation(PUT, "d", {"n": number})])
    clones = [original, *(mesh.add_node(like=original) for _ in range(4))]
    mesh.add_node(), mesh.add_node()
    for step in range(3):
        for number, clone in enumerate(clones):
            clone.write([Operation(PATCH, "d", {f"clone{number}": step})])
    shape(mesh)
    settle(mesh)
    assert len(mesh.nodes[-1].replica.by_log[original.replica.tips()[0].log]) == 5
    original.write([Operation(PUT, "d", {"n": "all seen"})])
    settle(mesh)
    assert mesh.nodes[-1].replica.tables.documents(["d"])["d"].conflict is False


# Sizes


def batches(entries: Iterator[Made], size: int) -> Iterator[Batch]:
    while part := list(islice(entries, size)):
        yield batch_of(part)[0]


def fill(replica: Replica, entries: Iterator[Made], size: int = LIMITS.batch_entries_max) -> None:
    for batch in batches(entries, size):
        applied = replica.apply(batch, batch.logs, None, START_MS)
        assert not applied.skipped


def deep(count: int) -> Iterator[Made]:
    """A chain through two logs, each entry the parent of the next."""
    one, two = Author(1), Author(2)
    for number in range(count // 2):
        first = one.write([Operation(PUT, f"d{number % 1000}", {})], [two.last] if two.last is not None else [])
        yield first
        yield two.write([Operation(PUT, f"e{number % 1000}", {})], [first])


def wide(count: int) -> Iterator[Made]:
    """As many logs, none of which knows of another."""
    for number in range(1, count + 1):
        yield Author(number).write([Operation(PUT, f"d{number % 1000}", {"n": number})])


def sync(source: Replica) -> Duo:
    target = new_replica(12)
    duo = Duo(source, target)
    duo.run(10)
    assert duo.states == BOTH_SYNCED
    assert target.root() == source.root()
    assert target.tables.counts() == source.tables.counts()
    return duo


def check_deep(count: int) -> None:
    source = new_replica(11)
    fill(source, deep(count))
    assert max(head.height for head in source.heads()) == count
    duo = sync(source)
    source.append([Operation(PATCH, "d0", {"seen": True})], START_MS)
    assert not source.tables.documents(["d0"])["d0"].conflict
    again = Duo(source, duo.b.replica)
    again.run(1)
    assert again.states == BOTH_SYNCED
    assert again.bytes < 2000


def check_wide(count: int) -> None:
    source = new_replica(11)
    fill(source, wide(count), LIMITS.batch_entries_soft)
    duo = sync(source)
    for number in range(20):
        source.append([Operation(PUT, f"new{number}", {})], START_MS)
    again = Duo(source, duo.b.replica)
    again.run(1)
    assert again.states == BOTH_SYNCED
    assert again.a.session.pushed == 20
    assert again.b.session.pushed == 0


def test_a_chain_a_hundred_thousand_deep() -> None:
    """Otherwise something recurses along the chain, or walks it again for each entry."""
    check_deep(100_000)


def test_two_thousand_logs_that_do_not_know_of_each_other() -> None:
    """Otherwise some cost grows with the square of the number of logs."""
    check_wide(2_500)


@pytest.mark.slow
def test_a_chain_a_million_deep() -> None:
    """Otherwise what holds for a hundred thousand ends there."""
    check_deep(1_000_000)


@pytest.mark.slow
def test_a_hundred_thousand_logs_that_do_not_know_of_each_other() -> None:
    """Otherwise a bound on messages, or a cost that grows with the square, ends a large mesh."""
    check_wide(100_000)
