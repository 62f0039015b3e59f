"""Nodes that share some collections and not others: what "synced" asks of whom."""

from __future__ import annotations

import pytest
import trio

from meshsync.core.priority import Priority
from tests.stack.world import World, faults, simulate, write


def test_a_collection_that_a_peer_does_not_share_holds_up_no_other() -> None:
    """Otherwise `wait synced` never returns in a fleet whose nodes subscribe to different things."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=["both", "only-a"])
        b = await world.start(2, peers=[1], collections=["both", "only-b"])
        await write(a, "n1", collection="both")
        for node in (a, b):
            await node.sync.wait_synced(["both"])
            assert faults(node) == []
            assert not node.sync.is_synced(), "nobody has the other collection, so it is in sync with nobody"
            shown = {one["name"]: [peer["state"] for peer in one["peers"]] for one in node.status()["collections"]}
            assert sorted(shown.values()) == [[], ["synced"]]

    simulate(scenario)


@pytest.mark.parametrize("joiner", [1, 2])
def test_a_collection_joined_later_counts_from_then_on(joiner: int) -> None:
    """Otherwise a node calls itself synced although a peer has what it lacks."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=["both"])
        b = await world.start(2, peers=[1], collections=["both"])
        await a.sync.wait_synced()
        early, late = (b, a) if joiner == 1 else (a, b)
        await early.join("more", priority=Priority.HIGH)
        await write(early, "m1", collection="more")
        await trio.sleep(5)
        assert not early.sync.is_synced(["more"])
        assert faults(early) == []
        await late.join("more")
        await late.sync.wait_synced(["more"])
        assert late.collection("more").get("m1") is not None
        await early.sync.wait_synced()
        await late.leave("more")
        await early.sync.progressed.wait_until(lambda: not early.sync.is_synced(["more"]))
        await early.sync.progressed.wait_until(lambda: not faults(early))

    simulate(scenario)
