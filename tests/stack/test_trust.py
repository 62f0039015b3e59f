"""Who is let in: closed, by mesh key, open; accepted, forgotten, banned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from meshsync.addresses import HostPort
from meshsync.core.limits import LIMITS
from meshsync.errors import LocalError, TransportLost
from tests.stack.sightings import Sightings, acquainted
from tests.stack.world import PORT, World, documents, events, faults, level, simulate, until, write

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


@pytest.mark.parametrize("accepted", [1, 2])
def test_an_accepted_peer_is_dialled_where_it_was_after_a_restart(accepted: int) -> None:
    """Otherwise the two never meet again when the one that knocked has lost the other's address."""

    async def scenario(world: World) -> None:
        other = 3 - accepted
        a = await world.start(accepted, trust="closed")
        b = await world.start(other, trust="closed", peers=[accepted])
        await until(a, "pending")
        await a.accept_peer(b.id)
        await level(a, b)
        await world.stop(other)
        world.move(other, "10.0.0.77")
        b = await world.start(other, trust="closed", peers=[accepted])
        await level(a, b)
        await world.stop(accepted)
        await world.stop(other)
        a = await world.start(accepted, trust="closed")
        await trio.sleep(3600)
        [peer] = a.peers()
        assert (peer["id"], peer["via"], peer["state"]) == (b.id.hex(), "accepted", "waiting")
        assert faults(a) == [], "nobody said that it has to be there"
        b = await world.start(other, trust="closed", trusts=[accepted])
        with trio.fail_after(LIMITS.aside_last_seconds + 10):
            await level(a, b)
        await a.forget_peer(b.id)
        await world.stop(accepted)
        a = await world.start(accepted, trust="closed")
        assert a.peers() == []

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
        told = f"{a.id.short} has banned this node; only its owner can let it in again: `meshsync peers accept {b.id}`"
        assert told in b.peers()[0]["last_error"]
        assert told in events(b, "disconnected")[0].facts["reason"]
        with pytest.raises(TransportLost, match="only its owner can let it in again"):
            await b.connect(a.id, [])
        assert "has banned" not in (a.peers()[0]["last_error"] or "")
        assert faults(a) == []
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


@pytest.mark.parametrize("via", ["mdns", "dns"])
def test_a_stranger_that_is_seen_is_listed_and_dialled_once_it_is_accepted(via: str) -> None:
    """Otherwise closed trust dials strangers, or their owner has to copy ids of nodes that are in plain sight."""

    async def scenario(world: World) -> None:
        seen = Sightings(world, via)
        b = await world.start(2, trust="closed", trusts=[1])
        a = await world.start(1, trust="closed", discoveries=[seen])
        if via == "dns":
            seen.records("10.0.0.2")
        else:
            seen.see(2, name="node 2")
        told = await until(a, "pending")
        assert told.facts["via"] == via
        await trio.sleep(3600)
        [waiting] = a.pending()
        assert (waiting["id"], waiting["via"], waiting["address"], waiting["origin"], waiting["name"]) == (
            b.id.hex(),
            via,
            world.machine(2).address,
            None,
            "node 2",
        )
        assert a.peers() == []
        assert not events(b, "connected", "pending")
        assert len(events(a, "pending")) == 1
        await a.accept_peer(b.id)
        began = trio.current_time()
        await until(a, "connected")
        assert trio.current_time() - began < 0.5
        await level(a, b)
        assert (a.pending(), a.peers()[0]["via"]) == ([], via)
        await world.stop(2)
        await trio.sleep(60)
        b = await world.start(2, trust="closed", trusts=[1])
        await until(a, "connected", 2)

    simulate(scenario)


def test_a_stranger_that_is_seen_no_more_is_listed_no_more() -> None:
    """Otherwise the list fills with what was once there, and nobody else finds room in it."""

    async def scenario(world: World) -> None:
        seen = Sightings(world)
        a = await world.start(1, trust="closed", discoveries=[seen], limits=replace(LIMITS, pending_peers_max=2))
        for number in (3, 4, 5):
            seen.see(number)
        await trio.sleep(1)
        assert {peer["id"] for peer in a.pending()} == {world.id(3).hex(), world.id(4).hex()}
        seen.gone(3)
        await trio.sleep(1)
        assert [peer["id"] for peer in a.pending()] == [world.id(4).hex()]
        seen.see(5)
        await world.start(2, trust="closed", peers=[1])
        await until(a, "pending", 4)
        assert world.id(2).hex() in {peer["id"] for peer in a.pending()}, "who proved a key comes before who is seen"
        assert len(a.pending()) == 2

    simulate(scenario)


def test_one_that_is_seen_and_lacks_the_mesh_key_is_a_stranger() -> None:
    """Otherwise two meshes on one LAN dial each other for ever, or mix."""

    async def scenario(world: World) -> None:
        seen = Sightings(world)
        a = await world.start(1, trust="mesh-key", mesh_key=KEY, discoveries=[seen])
        b = await world.start(2, trust="mesh-key", mesh_key=OTHER_KEY)
        c = await world.start(3, trust="mesh-key", mesh_key=KEY)
        for number in (2, 3):
            seen.see(number)
        await level(a, c)
        await until(a, "pending")
        for _ in range(3):
            await trio.sleep(600)
            seen.see(2)
        assert [(peer["id"], peer["via"]) for peer in a.pending()] == [(b.id.hex(), "mdns")]
        assert len(events(a, "pending")) == 1
        assert not events(a, "dial_failed")
        assert list(a.sync.links) == [c.id]
        assert not events(b, "connected")
        await a.accept_peer(b.id)
        await b.accept_peer(a.id)
        await level(a, b, c)

    simulate(scenario)


def test_a_static_peer_that_was_banned_before_the_start_is_dialled_once_it_is_accepted() -> None:
    """Otherwise it stays away until the next start although its owner let it in again."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trust="closed", peers=[2])
        await a.ban_peer(world.id(2))
        await world.stop(1)
        a = await world.start(1, trust="closed", peers=[2])
        b = await world.start(2, trust="closed", trusts=[1])
        await trio.sleep(100)
        assert not a.sync.links
        await a.accept_peer(b.id)
        await level(a, b)

    simulate(scenario)


def test_a_banned_endpoint_that_is_seen_is_left_alone() -> None:
    """Otherwise a ban ends where the peer says where it is."""

    async def scenario(world: World) -> None:
        a, b, seen = await acquainted(world)
        await a.ban_peer(b.id)
        seen.see(2, "10.0.0.2", "10.0.7.7")
        await trio.sleep(600)
        assert not a.sync.links
        assert a.pending() == []

    simulate(scenario)
