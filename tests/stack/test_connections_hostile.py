"""Peers that are slow, silent or malicious, and faults of our own: nobody else may notice."""

from __future__ import annotations

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.errors import TransportLost
from meshsync.peering.arrivals import Arrivals
from meshsync.transports.base import Connection
from meshsync.transports.quic.endpoint import QuicEndpoint
from tests.stack.world import PORT, World, documents, events, level, simulate, until, write


def test_a_peer_that_accepts_and_never_speaks_is_given_up_and_tried_again() -> None:
    """Otherwise a hung process is counted as connected for ever, and never found again once it was restarted."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2, 3])
        c = await world.start(3)
        async with world.endpoint(2):
            failed = await until(a, "dial_failed", 1)
            assert "did not answer a ping" in failed.facts["reason"]
            assert trio.current_time() < LIMITS.answer_seconds_max + LIMITS.first_ping_seconds * 2
            assert not [event for event in events(a, "connected") if event.facts["peer"] == world.id(2).hex()]
            await level(a, c)
        b = await world.start(2)
        await level(a, b, c)

    simulate(scenario)


def test_a_peer_that_falls_silent_is_given_up_and_dialled_again() -> None:
    """Otherwise a process that hangs is told as connected for as long as its machine answers."""

    async def scenario(world: World) -> None:
        b = await world.start(2)
        a = await world.start(1, peers=[2])
        await level(a, b)
        b.sync.links[a.id].control._channel.receive = trio.sleep_forever  # type: ignore[method-assign]
        gone = await until(a, "disconnected")
        assert "did not answer a ping" in gone.facts["reason"]
        assert trio.current_time() < 2 * LIMITS.ping_seconds + LIMITS.answer_seconds_max
        await until(a, "connected", 2)
        await level(a, b)

    simulate(scenario)


def test_one_slow_handshake_holds_up_no_other() -> None:
    """Otherwise whoever begins a handshake and does not end it keeps everybody else out."""

    async def scenario(world: World) -> None:
        b = await world.start(2)
        a = await world.start(1, peers=[2])
        slow = world.machine(3).host

        def stall(payload: bytes, source: tuple[str, int], _: tuple[str, int]) -> bytes | None:
            # The first flight of the slow one arrives; what would end its handshake does not.
            is_first = len(payload) >= 1200 and payload[0] & 0xF0 == 0xC0
            return payload if source[0] != slow or is_first else None

        world.net.tamper = stall
        async with trio.open_nursery() as nursery, world.endpoint(3) as endpoint:
            for _ in range(8):
                nursery.start_soon(_dial, endpoint, world.machine(1).address)
            await trio.sleep(0.2)
            assert a.peering._dialer is not None
            [transport] = a.peering._dialer._transports
            assert isinstance(transport, QuicEndpoint)
            assert transport._doorman.half_open > 0
            began = trio.current_time()
            c = await world.start(4, peers=[1])
            await level(a, b, c)
            assert trio.current_time() - began < 1
            nursery.cancel_scope.cancel()

    simulate(scenario)


async def _dial(endpoint: QuicEndpoint, address: str) -> None:
    await endpoint.dial((address.partition(":")[0], PORT), None)


def test_one_slow_peer_holds_up_no_other_dial() -> None:
    """Otherwise a list of peers is only as quick as its slowest one."""

    async def scenario(world: World) -> None:
        dead = [f"{world.id(number)}@10.9.9.{number}:{PORT}" for number in range(5, 15)]
        b = await world.start(2)
        a = await world.start(1, peers=[*dead, 2])
        await until(a, "connected")
        assert trio.current_time() < 0.5
        await level(a, b)

    simulate(scenario)


def test_the_accept_loop_survives_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one transient fault makes a node deaf for the rest of its life."""
    failures = 3
    original = Arrivals._register

    async def failing(self: Arrivals, connection: Connection, came: float) -> bool:
        nonlocal failures
        if connection.origin.value == "accepted" and failures:
            failures -= 1
            raise OSError("out of something, for a moment")
        return await original(self, connection, came)

    monkeypatch.setattr(Arrivals, "_register", failing)

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        c = await world.start(3, peers=[1])
        await level(a, b, c)
        assert failures == 0

    simulate(scenario)


def test_idle_connections_live_for_hours_and_are_opened_again_after_a_loss() -> None:
    """Otherwise a quiet pair falls asleep and never hears of the next write."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        await trio.sleep(2 * 3600)
        for node in (a, b):
            assert len(events(node, "connected")) == 1
            assert not events(node, "disconnected")
        await write(a, "after two hours")
        await level(a, b)
        world.cut(1, 2)
        await until(a, "disconnected")
        await trio.sleep(3600)
        world.net.heal()
        began = trio.current_time()
        await until(b, "connected", 2)
        assert trio.current_time() - began <= LIMITS.backoff_last_seconds + LIMITS.handshake_seconds_max
        await write(b, "after the loss")
        await level(a, b)
        assert len(documents(a)) == 2

    simulate(scenario)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_tree_in_which_only_the_children_list_their_parent(is_reversed: bool) -> None:
    """Otherwise a rule such as "the lower id dials" cuts off each child whose id is the higher one."""

    async def scenario(world: World) -> None:
        # 1 is the root, 2 and 3 its children, 4 to 7 theirs; reversed, every parent has the higher id.
        def name(number: int) -> int:
            return 8 - number if is_reversed else number

        for number in range(1, 8):
            parents = [name(number // 2)] if number > 1 else []
            children = [name(child) for child in (2 * number, 2 * number + 1) if child <= 7]
            await world.start(name(number), peers=parents, trusts=children, trust="closed")
        await write(world.node(name(7)), "from a leaf")
        await write(world.node(name(1)), "from the root")
        nodes = [world.node(number) for number in range(1, 8)]
        await trio.sleep(5)
        await level(*nodes)
        assert all(len(documents(node)) == 2 for node in nodes)

    simulate(scenario)


def test_a_hostile_peer_cannot_kill_a_good_connection_of_others() -> None:
    """Otherwise one that dials again and again under its own name ends the connections of everybody else."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        async with world.endpoint(9) as endpoint, trio.open_nursery() as nursery:
            nursery.start_soon(_hammer, endpoint, (world.machine(1).host, PORT))
            await until(a, "peer_error")
            for number in range(5):
                await write(b, f"n{number}")
                await trio.sleep(0.5)
            await level(b)
            assert documents(a) == documents(b)
            nursery.cancel_scope.cancel()
        for node in (a, b):
            other = {a: b, b: a}[node].id.hex()
            assert len([event for event in events(node, "connected") if event.facts["peer"] == other]) == 1
            assert not [event for event in events(node, "disconnected") if event.facts["peer"] == other]

    simulate(scenario)


async def _hammer(endpoint: QuicEndpoint, address: tuple[str, int]) -> None:
    while True:
        try:
            await endpoint.dial(address, None)
        except TransportLost:
            pass  # it is told to stay away, and does not
        await trio.sleep(0.1)
