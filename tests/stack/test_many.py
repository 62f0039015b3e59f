"""What many whole nodes that are all linked with each other cost, and how fast they are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from meshsync.node import Node
from tests.stack.world import World, level, simulate, write

LINK_SECONDS = 0.01
"""What a datagram takes: `LinkProfile.latency_seconds`."""


async def start(world: World, count: int) -> list[Node]:
    """So many nodes, each linked with each, that have come to rest."""
    for number in range(1, count + 1):
        await world.start(number, peers=range(1, number))
    nodes = [world.node(number) for number in range(1, count + 1)]
    await write(nodes[0], "first")
    await level(*nodes)
    await trio.sleep(10)
    return nodes


async def some_writes(world: World, nodes: Sequence[Node], count: int) -> list[float]:
    """Entries by turns, one about every 50 ms; how long each took to be everywhere."""
    taken: list[float] = []

    async def see(node: Node, id: str) -> None:
        watcher = node.sync.watcher(node.sync.replica("notes"))
        await watcher.wait_until(lambda: node.collection("notes").get(id) is not None)

    async def one(writer: Node, id: str) -> None:
        began = trio.current_time()
        await write(writer, id, text="x" * 100)
        async with trio.open_nursery() as seeing:
            for node in nodes:
                seeing.start_soon(see, node, id)
        taken.append(trio.current_time() - began)

    async with trio.open_nursery() as writing:
        for number in range(count):
            writing.start_soon(one, nodes[number * 3 % len(nodes)], f"{trio.current_time()}")
            await trio.sleep(world.rng.uniform(0, 0.1))
    return taken


def payload_bytes(nodes: Sequence[Node], kind: str) -> int:
    return sum(node.status()["collections"][0]["payload_bytes"][kind] for node in nodes)


@pytest.mark.parametrize("count", [10, pytest.param(20, marks=pytest.mark.slow)])
def test_entries_take_a_short_way_and_come_once(count: int) -> None:
    """Otherwise what is written in a large mesh passes through node after node, or comes over every link."""

    async def scenario(world: World) -> None:
        nodes = await start(world, count)
        await some_writes(world, nodes, 40)
        received, new = payload_bytes(nodes, "received"), payload_bytes(nodes, "new")
        taken = await some_writes(world, nodes, 20)
        redundancy = (payload_bytes(nodes, "received") - received) / (payload_bytes(nodes, "new") - new)
        assert max(taken) <= 4.5 * LINK_SECONDS
        assert redundancy <= 1.2

    simulate(scenario)


IDLE_BYTES_A_MINUTE_MAX = 750
"""Of a link: 540 are QUIC's own keep-alive, and what is beyond has its bound."""


def test_a_mesh_comes_to_rest() -> None:
    """Otherwise many nodes talk of themselves for minutes after each write, over each of their links."""

    async def scenario(world: World) -> None:
        nodes = await start(world, 10)
        await some_writes(world, nodes, 10)
        await trio.sleep(60)
        before = bytes_sent(nodes)
        await trio.sleep(300)
        links = len(nodes) * (len(nodes) - 1) / 2
        assert (bytes_sent(nodes) - before) / links / 5 <= IDLE_BYTES_A_MINUTE_MAX

    simulate(scenario)


def bytes_sent(nodes: Sequence[Node]) -> int:
    return sum(peer["bytes_sent"] for node in nodes for peer in node.peers())
