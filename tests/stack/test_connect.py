"""Connecting and disconnecting as the owner asks for it, and what the caller is told."""

from __future__ import annotations

import pytest
import trio

from meshsync.errors import CloseCode, LocalError, PeerError, RefusedError, TransportLost
from meshsync.ids import EndpointId
from meshsync.node import Node
from meshsync.transports.base import Address, Admit, Connection
from meshsync.transports.quic.endpoint import QuicEndpoint
from tests.stack.world import PORT, World, level, simulate


def test_connect_to_peer_answers_true_false_or_raises() -> None:
    """Otherwise a caller cannot tell what became of the call."""

    async def scenario(world: World) -> None:
        a, b = await world.start(1), await world.start(2)
        there = [world.machine(2).address]
        assert await a.sync.connect_to_peer(b.id.hex(), there) is True
        assert await a.sync.connect_to_peer(b.id.hex(), there) is True
        c = await world.start(3)
        with pytest.raises(PeerError) as wrong:
            await a.sync.connect_to_peer(c.id.hex(), there)
        assert wrong.value.code is CloseCode.IDENTITY
        with pytest.raises(TransportLost):
            await a.sync.connect_to_peer(world.id(9).hex(), ["10.9.9.9:4000"])
        with pytest.raises(LocalError):
            await a.sync.connect_to_peer("xyz", there)
        with pytest.raises(LocalError):
            await a.sync.connect_to_peer(world.id(8).hex(), [])
        with pytest.raises(RefusedError, match="this node itself"):
            await a.sync.connect_to_peer(a.id.hex(), there)
        assert a.id not in a.peering.peers
        await a.ban_peer(c.id)
        with pytest.raises(RefusedError, match="banned"):
            await a.sync.connect_to_peer(c.id.hex(), there)

    simulate(scenario)


def test_connect_to_peer_answers_false_where_the_peer_connects_first() -> None:
    """Otherwise the side that gives way reports a failure."""

    async def scenario(world: World) -> None:
        a, b = await world.start(1), await world.start(2)
        answers: dict[str, bool] = {}

        async def connect(node: Node, number: int) -> None:
            machine = world.machine(number)
            answers[node.name] = await node.sync.connect_to_peer(machine.id.hex(), [machine.address])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, a, 2)
            await trio.sleep(0.02)
            nursery.start_soon(connect, b, 1)
        assert answers == {"node 1": True, "node 2": False}
        await level(a, b)

    simulate(scenario)


def test_a_failed_connect_is_tried_again_by_itself() -> None:
    """Otherwise `connect` has to be called until it works."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        with pytest.raises(TransportLost):
            await a.sync.connect_to_peer(world.id(2).hex(), [world.machine(2).address])
        b = await world.start(2)
        await level(a, b)

    simulate(scenario)


def test_a_cancelled_connect_goes_on_dialling() -> None:
    """Otherwise a caller's patience decides whether two nodes meet."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        with trio.move_on_after(0.5) as scope:
            await a.sync.connect_to_peer(world.id(2).hex(), [world.machine(2).address])
        assert scope.cancelled_caught
        b = await world.start(2)
        await level(a, b)

    simulate(scenario)


@pytest.mark.parametrize("moment", [0.0, 0.004, 0.011, 0.021, 0.031, 0.041, 0.1, 3.0])
def test_disconnecting_ends_the_redial_first(moment: float) -> None:
    """Otherwise a peer comes back a moment after its owner sent it away."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2], trust="closed")
        b = await world.start(2, trusts=[1], trust="closed")
        await trio.sleep(moment)
        a.peering.disconnect(b.id)
        await trio.sleep(300)
        assert a.peers()[0]["state"] == "down"
        assert b.peers() == [] or b.peers()[0]["state"] == "down"
        assert not a.sync.links
        assert not b.sync.links

    simulate(scenario)


def test_disconnecting_in_the_moment_in_which_a_dial_succeeds() -> None:
    """Otherwise a connection that came too late to be stopped stays, against what the owner said."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2)
        assert a.peering._dialer is not None
        [transport] = a.peering._dialer._transports

        async def dial_and_part(address: Address, expect: EndpointId | None, admit: Admit | None = None) -> Connection:
            connection = await QuicEndpoint.dial(transport, address, expect, admit)  # type: ignore[arg-type]
            a.peering.disconnect(b.id)
            return connection

        transport.dial = dial_and_part  # type: ignore[method-assign]
        assert await a.sync.connect_to_peer(b.id.hex(), [world.machine(2).address]) is False
        await trio.sleep(60)
        assert a.peers()[0]["state"] == "down"
        assert not a.sync.links
        assert not b.sync.links

    simulate(scenario)


def test_who_is_refused_at_once_is_told_so() -> None:
    """A refusal that came before the dialer had taken the connection passed for "the peer connects to us"."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        async with world.endpoint(2) as dialer, world.endpoint(3) as acceptor:
            connection = await dialer.dial((world.machine(3).host, PORT), world.id(3))
            (await acceptor.accept()).close(CloseCode.BUSY)
            await connection.wait_closed()
            assert a.peering._arrivals is not None
            with pytest.raises(TransportLost) as refused:
                await a.peering._arrivals.dialed(connection)
            assert refused.value.code is CloseCode.BUSY

    simulate(scenario)
