"""Meshes of every shape: what one node writes reaches all, over whatever path there is, and travels no further."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations, pairwise

import pytest
import trio

from meshsync.node import Node
from meshsync.transports.base import Address
from tests.stack.world import World, documents, events, level, simulate, write

Edge = tuple[int, int]

LINE = list(pairwise(range(1, 11)))
RING = [*pairwise(range(1, 7)), (6, 1)]
STAR = [(1, leaf) for leaf in range(2, 8)]
TREE = [(child // 2, child) for child in range(2, 9)]
PATIENCE_SECONDS = 120
"""Twice the longest pause between two dials."""
PAYLOAD_BYTES = 40_000
IDLE_SECONDS = 60
IDLE_BYTES_MAX = 4_000
"""What one link may carry while nobody writes, in `IDLE_SECONDS`, QUIC's own keep-alive included."""


async def build(world: World, edges: Iterable[Edge]) -> dict[int, Node]:
    """Start the nodes of a mesh in which only the ends of an edge can reach each other; the first end dials."""
    edges = [(first, second) if first < second else (second, first) for first, second in edges]
    numbers = sorted({number for edge in edges for number in edge})
    for pair in combinations(numbers, 2):
        if pair not in edges:
            world.cut(*pair)
    nodes = {}
    for number in numbers:
        nodes[number] = await world.start(number, peers=[second for first, second in edges if first == number])
    await whole(nodes, edges)
    return nodes


async def whole(nodes: dict[int, Node], edges: Iterable[Edge]) -> None:
    """Wait until the ends of every edge are connected and all nodes are level."""
    with trio.fail_after(PATIENCE_SECONDS):
        for first, second in edges:
            for one, other in ((first, second), (second, first)):
                node, peer = nodes[one], nodes[other].id
                await node.sync.progressed.wait_until(lambda node=node, peer=peer: peer in node.sync.links)  # type: ignore[misc]
        await level(*nodes.values())


class Meter:
    """Counts the bytes of every way between two machines."""

    def __init__(self, world: World) -> None:
        self.bytes: Counter[Edge] = Counter()
        self._numbers = {world.machine(number).host: number for number in range(1, 20)}
        world.net.tamper = self._count

    def _count(self, payload: bytes, source: Address, target: Address) -> bytes:
        self.bytes[self._numbers[source[0]], self._numbers[target[0]]] += len(payload)
        return payload


@pytest.mark.parametrize("edges", [LINE, RING, STAR, TREE], ids=["line", "ring", "star", "tree"])
def test_what_any_node_writes_reaches_all(edges: list[Edge]) -> None:
    """Otherwise entries stop at the neighbours of whoever wrote them, or where the shape has a circle or a hub."""

    async def scenario(world: World) -> None:
        nodes = await build(world, edges)
        # In the star the hub, number 1, writes nothing: it only passes on.
        writers = [number for number in nodes if edges is not STAR or number != 1]
        for turn in range(3):
            for number in writers:
                await write(nodes[number], f"{number}-{turn}")
            await trio.sleep(0.02)
        await whole(nodes, edges)
        for node in nodes.values():
            assert len(documents(node)) == 3 * len(writers)
            assert not events(node, "disconnected", "peer_error", "failed")

    simulate(scenario)


def test_news_crosses_a_line_in_about_the_time_that_its_links_take() -> None:
    """Otherwise each node on the way waits for something, and ten of them make a mesh slow."""

    async def scenario(world: World) -> None:
        nodes = await build(world, LINE)
        await trio.sleep(10)
        last = nodes[10].collection("notes")
        for id in ("there", "there again"):
            async with trio.open_nursery() as nursery:
                began = trio.current_time()
                changes = last.changes()
                nursery.start_soon(write, nodes[1], id)
                assert (await anext(changes)).id == id
                await changes.aclose()
                # Nine links of 10 ms; a timer on the way, be it a root check, would take longer than all of them.
                assert trio.current_time() - began < 9 * 0.020

    simulate(scenario)


def test_what_came_from_one_peer_is_passed_on_although_that_peer_is_gone() -> None:
    """Otherwise a node keeps to itself what a visitor left there."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await write(a, "left here")
        await level(a, b)
        await world.stop(1)
        c = await world.start(3, peers=[2])
        await level(b, c)
        assert set(documents(c)) == {"left here"}
        d = await world.start(4, peers=[3])
        await level(c, d)
        assert set(documents(d)) == {"left here"}
        assert [log.author for log in d.sync.cursors("notes")] == [world.id(1)]

    simulate(scenario)


def test_an_island_that_has_another_bridge_each_time() -> None:
    """Otherwise what an island wrote is known only on the side of the bridge that it had then."""

    async def scenario(world: World) -> None:
        bridges = [(1, 3), (2, 4)]
        nodes = await build(world, [(1, 2), (3, 4), *bridges])
        for turn in range(4):
            for bridge in bridges:
                world.cut(*bridge)
            await trio.sleep(60)
            for number, node in nodes.items():
                await write(node, f"{number}-{turn}")
            await trio.sleep(1)
            assert documents(nodes[1]) == documents(nodes[2]) != documents(nodes[3]) == documents(nodes[4])
            bridge, other = bridges[turn % 2], bridges[(turn + 1) % 2]
            world.join(*bridge)
            await whole(nodes, [bridge])
            assert nodes[other[1]].id not in nodes[other[0]].sync.links
            assert {len(documents(node)) for node in nodes.values()} == {4 * (turn + 1)}

    simulate(scenario)


def test_two_parts_that_both_write_come_together() -> None:
    """Otherwise one part's writes win, or documents that both changed differ for ever."""

    async def scenario(world: World) -> None:
        edges = [*RING, (1, 4), (2, 5)]
        nodes = await build(world, edges)
        await write(nodes[1], "shared")
        await whole(nodes, edges)
        across = [edge for edge in edges if (edge[0] in (1, 2, 3)) != (edge[1] in (1, 2, 3))]
        for edge in across:
            world.cut(*edge)
        await trio.sleep(120)
        for number, node in nodes.items():
            await write(node, "shared", f"of {number}", n=number)
        await trio.sleep(5)
        parts = [documents(node) for node in nodes.values()]
        assert parts[0] == parts[1] == parts[2] != parts[3] == parts[4] == parts[5]
        for edge in across:
            world.join(*edge)
        await whole(nodes, edges)
        for node in nodes.values():
            assert documents(node) == documents(nodes[1])
            assert set(documents(node)) == {"shared", *(f"of {number}" for number in nodes)}
            document = node.collection("notes").get("shared")
            assert document is not None
            assert document.conflict

    simulate(scenario)


@pytest.mark.parametrize("edges", [LINE[:5], STAR, TREE], ids=["line", "star", "tree"])
def test_in_a_tree_nothing_echoes(edges: list[Edge]) -> None:
    """Otherwise entries go back to where they came from, or travel on when all have them."""

    async def scenario(world: World) -> None:
        nodes = await build(world, edges)
        await trio.sleep(10)
        meter = Meter(world)
        writer = max(nodes)
        await write(nodes[writer], "large", text="x" * PAYLOAD_BYTES)
        await whole(nodes, edges)
        for first, second in edges:
            ways = sorted(meter.bytes[way] for way in ((first, second), (second, first)))
            assert PAYLOAD_BYTES < ways[1] < 1.2 * PAYLOAD_BYTES, "it crosses each link once"
            assert ways[0] < 0.1 * PAYLOAD_BYTES, "and nothing but acknowledgements goes back"
        meter.bytes.clear()
        await trio.sleep(IDLE_SECONDS)
        for first, second in edges:
            assert meter.bytes[first, second] + meter.bytes[second, first] < IDLE_BYTES_MAX

    simulate(scenario)


def test_in_a_ring_an_entry_crosses_each_link_once_each_way_at_most() -> None:
    """Otherwise an entry that arrives by two ways goes round, or is sent on a second time."""

    async def scenario(world: World) -> None:
        nodes = await build(world, RING)
        await trio.sleep(10)
        meter = Meter(world)
        await write(nodes[1], "large", text="x" * PAYLOAD_BYTES)
        await whole(nodes, RING)
        await trio.sleep(5)
        assert max(meter.bytes.values()) < 1.2 * PAYLOAD_BYTES
        # Five nodes lack it, and on the link where both halves of the ring meet it may go both ways.
        assert sum(meter.bytes.values()) < 7 * 1.2 * PAYLOAD_BYTES
        meter.bytes.clear()
        await trio.sleep(IDLE_SECONDS)
        assert max(meter.bytes.values()) < IDLE_BYTES_MAX

    simulate(scenario)
