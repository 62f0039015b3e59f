"""With whom a collection counts as shared: not with peers that say nothing, nor with nodes that died."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.errors import LocalError
from meshsync.ids import CollectionId
from meshsync.node import Node
from tests.stack.stranger import NOTES, Stranger, stranger
from tests.stack.test_summaries import line
from tests.stack.world import World, faults, level, simulate, until, write


async def linked(node: Node, world: World, number: int) -> None:
    """Wait until a node serves a connection with a machine."""
    await node.sync.progressed.wait_until(lambda: world.id(number) in node.sync.links)


def test_a_peer_that_never_says_what_it_subscribes_to_is_waited_for_a_moment_and_once() -> None:
    """Otherwise whoever connects and says nothing keeps `wait synced` from returning, by redialling for ever."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        async with stranger(world) as one, trio.open_nursery() as nursery:
            nursery.start_soon(one.answer_pings)
            await linked(a, world, 9)
            assert not a.sync.is_synced(), "it may be about to say that it subscribes"
            with trio.fail_after(LIMITS.unsaid_seconds_max + 1):
                await a.sync.wait_synced()
            await trio.sleep(2 * LIMITS.answer_seconds_max)
            assert world.id(9) in a.sync.links
            assert a.sync.is_synced()
            assert faults(a) == []
            nursery.cancel_scope.cancel()
        await until(a, "disconnected")
        async with stranger(world):
            await linked(a, world, 9)
            assert a.sync.is_synced(), "it had its chance"
        await a.sync.progressed.wait_until(lambda: world.id(9) not in a.sync.links)
        c = await world.start(9, peers=[1])
        await write(c, "late")
        await level(a, b, c)
        await world.stop(9)
        await a.sync.progressed.wait_until(lambda: world.id(9) not in a.sync.links)
        async with stranger(world):
            await linked(a, world, 9)
            assert not a.sync.is_synced(), "it has spoken before"

    simulate(scenario)


def test_a_peer_that_is_dialled_and_never_answers_is_waited_for_a_moment() -> None:
    """Otherwise the stream that this node opened to it counts as a collection that both share."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2, 9])
        b = await world.start(2)
        async with world.endpoint(9) as endpoint, trio.open_nursery() as nursery:
            connection = await endpoint.accept()
            nursery.start_soon(Stranger(world, connection).answer_pings)
            await linked(a, world, 9)
            await write(b, "one")
            with trio.fail_after(LIMITS.unsaid_seconds_max + 1):
                await a.sync.wait_synced()
            assert world.id(9) in a.sync.links
            nursery.cancel_scope.cancel()

    simulate(scenario)


def test_the_dead_are_no_subscribers_long_before_they_are_forgotten() -> None:
    """Otherwise a collection stays crowded, and its links lazy, for hours after most of its nodes went."""

    async def scenario(world: World) -> None:
        nodes = await line(world, 6)
        await nodes[0].sync.summaries.changed.wait_until(lambda: nodes[0].sync.subscribers(NOTES) == 6)
        await trio.sleep(2 * LIMITS.summary_young_seconds)
        assert [node.sync.subscribers(NOTES) for node in nodes] == [6] * 6, "they are quiet, and there"
        for number in (4, 5, 6):
            await world.kill(number)
        await trio.sleep(2 * LIMITS.summary_young_seconds)
        assert len(nodes[0].sync.summaries.gossip.authors(NOTES)) == 6
        assert [node.sync.subscribers(NOTES) for node in nodes[:3]] == [3] * 3

    simulate(scenario)


def test_what_is_only_relayed_counts_where_it_is_named() -> None:
    """Otherwise a relay that is full never calls its own collections synced."""
    little = replace(LIMITS, relay_bytes_max=10_000)
    private = CollectionId.of_name("private")

    async def scenario(world: World) -> None:
        r = await world.start(2, relay=True, collections=["notes"], limits=little)
        a = await world.start(1, peers=[2], collections=["notes", "private"])
        for number in range(300):
            await write(a, f"p{number}", collection="private", text="x" * 1000)
        await until(r, "relay_full")
        with trio.fail_after(30):
            await r.sync.wait_synced()
        await r.sync.wait_synced(["notes"])
        assert not r.sync.is_synced([private.hex()])
        assert not r.sync.is_synced([private.hex()[:12]])
        with pytest.raises(LocalError, match="does not subscribe"):
            r.sync.is_synced(["private"])

    simulate(scenario)


def test_a_node_that_only_relays_is_synced_when_what_it_carries_is() -> None:
    """Otherwise `wait synced` on a relay waits for ever, or answers before anything has come."""

    async def scenario(world: World) -> None:
        r = await world.start(2, relay=True, collections=())
        assert not r.sync.is_synced()
        a = await world.start(1, peers=[2])
        await write(a, "one")
        with trio.fail_after(30):
            await r.sync.wait_synced()
            await r.sync.wait_synced([NOTES.hex()], [a.id])

    simulate(scenario)
