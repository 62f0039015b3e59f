"""Who is let in: closed, by mesh key, open; accepted, forgotten, banned."""

from __future__ import annotations

import pytest
import trio

from meshsync.addresses import HostPort
from meshsync.errors import LocalError
from meshsync.status import is_healthy
from tests.stack.world import PORT, World, documents, events, level, simulate, until, write

KEY, OTHER_KEY = bytes(range(32)), bytes(32)


def test_a_stranger_is_pending_until_it_is_accepted() -> None:
    """Otherwise closed trust is no trust, or accepting somebody takes minutes to show."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trust="closed")
        b = await world.start(2, trust="closed", peers=[1])
        await write(a, "secret")
        knock = await until(a, "pending")
        assert knock.facts == {"peer": b.id.hex(), "name": "node 2", "address": "10.0.0.2", "via": "knock"}
        await trio.sleep(7200)
        assert [(peer["id"], peer["address"]) for peer in a.pending()] == [(b.id.hex(), world.machine(2).address)]
        assert a.trust.knocks[b.id].times < 500
        assert a.status()["pending"] == 1
        assert a.peers() == []
        [waiting] = b.peers()
        assert waiting["state"] == "pending"
        assert f"meshsync peers accept {b.id}" in waiting["last_error"]
        assert documents(b) == {}
        assert len(events(b, "dial_failed")) == 1
        began = trio.current_time()
        await a.accept_peer(b.id)
        await level(a, b)
        assert trio.current_time() - began < 3
        assert documents(b) == documents(a)
        assert a.pending() == []
        await world.stop(1)
        a = await world.start(1, trust="closed")
        await level(a, b)

    simulate(scenario)


def test_an_accepted_peer_that_cannot_be_reached_comes_when_it_knocks_again() -> None:
    """Otherwise a node behind a router that lets nothing in is accepted in vain."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trust="closed")
        b = await world.start(2, trust="closed", peers=[1])
        await until(a, "pending")
        a.trust.knocks[b.id].place = HostPort("10.9.9.9", PORT)
        await a.accept_peer(b.id)
        began = trio.current_time()
        await level(a, b)
        assert trio.current_time() - began < 3
        assert a.peers()[0]["address"] == world.machine(2).address

    simulate(scenario)


def test_strangers_cannot_fill_the_pending_list() -> None:
    """Otherwise whoever makes keys fills the memory of every node."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trust="closed")
        for number in range(2, 5):
            await world.start(number, trust="closed", peers=[1])
        await until(a, "pending", 3)
        limits = a.trust._limits
        object.__setattr__(a.trust, "_limits", type(limits)(pending_peers_max=3))
        await world.start(5, trust="closed", peers=[1])
        await trio.sleep(60)
        assert len(a.pending()) == 3
        assert a.peering.peers == {}

    simulate(scenario)


@pytest.mark.parametrize(("theirs", "is_welcome"), [(KEY, True), (OTHER_KEY, False), (None, False)])
def test_who_holds_the_mesh_key_is_welcome(theirs: bytes | None, is_welcome: bool) -> None:
    """Otherwise the mesh key keeps out its own, or lets in others."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trust="mesh-key", mesh_key=KEY)
        b = await world.start(2, trust="closed", peers=[1], mesh_key=theirs)
        await write(a, "n1")
        await trio.sleep(30)
        assert (documents(b) == documents(a)) is is_welcome
        assert bool(a.pending()) is not is_welcome

    simulate(scenario)


def test_a_named_peer_needs_no_mesh_key() -> None:
    """Otherwise a peer under `peers:` is kept out."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trust="mesh-key", mesh_key=KEY, trusts=[2])
        b = await world.start(2, trust="closed", peers=[1])
        await level(a, b)

    simulate(scenario)


def test_a_banned_peer_is_disconnected_and_stays_out() -> None:
    """Otherwise a ban ends with the connection, or with the process."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        b = await world.start(2, peers=[1])
        await level(a, b)
        await a.ban_peer(b.id)
        await until(b, "disconnected")
        await write(a, "after the ban")
        await trio.sleep(300)
        assert "after the ban" not in documents(b)
        assert not a.sync.links
        assert a.peers()[0]["state"] == "down"
        assert "BANNED" in b.peers()[0]["last_error"]
        assert is_healthy(a)
        await world.stop(1)
        a = await world.start(1, peers=[2])
        await trio.sleep(300)
        assert not a.sync.links
        await a.accept_peer(b.id)
        await level(a, b)
        assert "after the ban" in documents(b)

    simulate(scenario)


def test_an_accepted_peer_that_was_banned_is_dialled_again() -> None:
    """Otherwise a static peer stays away until the next start although its owner let it in again."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trust="closed", peers=[2])
        b = await world.start(2, trust="closed", trusts=[1])
        await level(a, b)
        await a.ban_peer(b.id)
        await trio.sleep(100)
        await a.accept_peer(b.id)
        await level(a, b)

    simulate(scenario)


def test_a_forgotten_peer_has_to_knock_again() -> None:
    """Otherwise forgetting does nothing, or lasts for ever."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trust="closed")
        b = await world.start(2, trust="closed", peers=[1])
        await until(a, "pending")
        await a.accept_peer(b.id)
        await level(a, b)
        await a.forget_peer(b.id)
        assert a.peers() == []
        await until(a, "pending", 2)
        with pytest.raises(LocalError, match="nothing is known"):
            await a.forget_peer(world.id(9))
        await a.accept_peer(b.id)
        await level(a, b)

    simulate(scenario)


def test_a_peer_connected_by_hand_is_forgotten_too() -> None:
    """Otherwise `connect` trusts an endpoint that `forget` cannot take back."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trust="closed")
        b = await world.start(2, trust="closed", trusts=[1])
        await a.connect(b.id, [world.machine(2).address])
        await level(a, b)
        await a.forget_peer(b.id)
        await trio.sleep(100)
        assert not a.trust.is_known(b.id)
        assert a.peers() == []

    simulate(scenario)


def test_a_peer_may_be_named_by_a_prefix_of_its_id() -> None:
    """Otherwise people have to type 64 digits."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        id = world.id(2)
        assert a.resolve_peer(id.hex()[:8].upper()) == id
        assert a.resolve_peer(world.id(9).hex()) == world.id(9)
        for text in (id.hex()[:7], "zz" * 8, world.id(9).hex()[:10]):
            with pytest.raises(LocalError):
                a.resolve_peer(text)

    simulate(scenario)
