"""How fast a node that was killed and started anew is noticed where only its peers dial."""

from __future__ import annotations

import trio

from meshsync.core.limits import LIMITS
from tests.stack.world import World, documents, events, level, simulate, until, write

NOTICED_SECONDS = 2.0


def test_killed_peer_is_back_as_soon_as_something_is_sent() -> None:
    """Otherwise what is written meanwhile waits until the old connection has been silent for half a minute."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        b = await world.start(2)
        await write(a, "before")
        await level(a, b)
        await trio.sleep(20)
        await world.kill(2)
        await trio.sleep(1)
        b = await world.start(2)
        await write(a, "after")
        with trio.fail_after(NOTICED_SECONDS):
            await until(b, "connected")
            await level(a, b)
        assert documents(b).keys() == {"before", "after"}
        await trio.sleep(100)
        assert len(events(b, "connected")) == 1
        assert not events(b, "disconnected", "peer_error")
        assert len(events(a, "connected")) == 2
        [gone] = events(a, "disconnected")
        assert "started anew" in gone.facts["reason"]

    simulate(scenario)


def test_killed_peer_is_back_with_the_next_keepalive_where_all_is_quiet() -> None:
    """Otherwise what the new process writes waits for half a minute."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        b = await world.start(2)
        await level(a, b)
        await trio.sleep(20)
        await world.kill(2)
        await trio.sleep(1)
        b = await world.start(2)
        await write(b, "after")
        with trio.fail_after(LIMITS.keepalive_seconds + NOTICED_SECONDS):
            await level(a, b)
            await until(b, "connected")
        assert documents(a).keys() == {"after"}

    simulate(scenario)


def test_killed_dialer_that_dials_no_longer_is_missed_at_once() -> None:
    """Otherwise the side that was dialled keeps a dead connection, and says that its peer is there."""

    async def scenario(world: World) -> None:
        await world.start(1, peers=[2])
        b = await world.start(2)
        await until(b, "connected")
        await trio.sleep(20)
        await world.kill(1)
        await world.start(1)
        await write(b, "n1")
        with trio.fail_after(NOTICED_SECONDS):
            await until(b, "disconnected")

    simulate(scenario)


def test_restart_of_both_ends_at_once_leaves_one_connection() -> None:
    """Otherwise resets for the old connections hit the new one."""

    async def scenario(world: World) -> None:
        for number, other in ((1, 2), (2, 1)):
            await world.start(number, peers=[other])
        await level(world.node(1), world.node(2))
        await trio.sleep(20)
        for _ in range(3):
            for number in (1, 2):
                await world.kill(number)
            a = await world.start(1, peers=[2])
            b = await world.start(2, peers=[1])
            await write(a, "n1")
            with trio.fail_after(NOTICED_SECONDS):
                await until(b, "connected")
                await level(a, b)
            await trio.sleep(20)
            for node in (a, b):
                assert len(events(node, "connected")) == 1
                assert not events(node, "disconnected", "peer_error")

    simulate(scenario)
