"""What a connection costs on which nothing happens, and what twelve nodes cost on which much does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import trio

from meshsync.core.limits import LIMITS, Limits
from tests.stack.world import World, level, simulate, write

QUIET = replace(LIMITS, root_check_seconds=math.inf, ping_seconds=math.inf, first_ping_seconds=math.inf)
"""QUIC's own keep-alive, and nothing else."""
IDLE_BYTES_A_MINUTE_MAX = 200


def idle_bytes(limits: Limits, other_collection: str) -> float:
    """What both ends of an idle connection send in a minute, in datagrams, on average over an hour."""
    cost = math.nan

    async def scenario(world: World) -> None:
        a = await world.start(1, limits=limits)
        b = await world.start(2, peers=[1], collections=[other_collection], limits=limits)
        await write(a, "something")
        if other_collection == "notes":
            await level(a, b)
        await trio.sleep(60)
        before = sum(peer["bytes_sent"] for node in (a, b) for peer in node.peers())
        await trio.sleep(3600)
        nonlocal cost
        cost = (sum(peer["bytes_sent"] for node in (a, b) for peer in node.peers()) - before) / 60

    simulate(scenario)
    return cost


@pytest.mark.parametrize("other_collection", ["notes", "others"])
def test_an_idle_connection_costs_next_to_nothing(other_collection: str) -> None:
    """Otherwise a fleet on metered links pays for connections on which nothing happens."""
    keep_alive = idle_bytes(QUIET, "others")  # with no collection shared there are no summaries either
    cost = idle_bytes(LIMITS, other_collection) - keep_alive
    assert cost <= IDLE_BYTES_A_MINUTE_MAX, f"{cost:.0f} beyond {keep_alive:.0f}"


def test_twelve_nodes_receive_each_entry_about_once() -> None:
    """Otherwise what the simulator promises is not what nodes do."""

    async def scenario(world: World) -> None:
        numbers = range(1, 13)
        for number in numbers:
            await world.start(number, peers=range(1, number))
        nodes = [world.node(number) for number in numbers]
        await write(nodes[0], "first")
        await level(*nodes)
        await trio.sleep(10)

        async def some(count: int) -> None:
            for number in range(count):
                await write(nodes[number % 3 * 4], f"n{number}", text="x" * 100)
                await trio.sleep(world.rng.uniform(0, 0.1))

        await some(40)
        before = [node.status()["collections"][0]["payload_bytes"] for node in nodes]
        await some(40)
        await level(*nodes)
        after = [node.status()["collections"][0]["payload_bytes"] for node in nodes]
        received, new = (
            sum(a[key] - b[key] for a, b in zip(after, before, strict=True)) for key in ("received", "new")
        )
        assert new > 0
        assert received / new <= 1.2
        assert any(peer["lazy"] for node in nodes for peer in node.status()["collections"][0]["peers"])
        assert nodes[0].status()["collections"][0]["redundancy"] is not None

    simulate(scenario)
