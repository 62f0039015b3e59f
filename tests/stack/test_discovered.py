"""Peers that were found and not named: who dials, whom of many, and what becomes of records that lead nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from meshsync.addresses import HostPort
from meshsync.core.limits import LIMITS
from meshsync.discovery.base import Sighting
from meshsync.ids import EndpointId
from meshsync.node import Node
from tests.stack.sightings import Sightings, acquainted
from tests.stack.world import PORT, World, documents, events, level, simulate, until, write


def dead(number: int) -> tuple[EndpointId, str]:
    """An endpoint that does not exist, and where it is said to be."""
    return EndpointId((number + 9).to_bytes(2, "big") * 16), f"10.9.{number // 256}.{number % 256}"


def test_the_lower_id_dials_at_once_and_the_higher_one_waits() -> None:
    """Otherwise both dial at once and every meeting begins with a collision."""

    async def scenario(world: World) -> None:
        sights = [Sightings(world) for _ in range(2)]
        a = await world.start(1, discoveries=[sights[0]])
        b = await world.start(2, discoveries=[sights[1]])
        sights[0].see(2)
        sights[1].see(1)
        began = trio.current_time()
        await until(a, "connected")
        assert trio.current_time() - began < 0.2
        await level(a, b)
        assert (a.peers()[0]["origin"], b.peers()[0]["origin"]) == ("dialed", "accepted")
        assert a.peers()[0]["via"] == "mdns"
        await trio.sleep(60)
        for node in (a, b):
            assert len(events(node, "connected")) == 1
            assert not events(node, "dial_failed", "disconnected")

    simulate(scenario)


@pytest.mark.parametrize("why", ["the lower one sees nobody", "the lower one cannot begin"])
def test_the_higher_id_dials_where_the_lower_one_does_not(why: str) -> None:
    """Otherwise a firewall that lets nothing in, or a lost announcement, parts two nodes for ever."""

    async def scenario(world: World) -> None:
        sights = [Sightings(world) for _ in range(2)]
        a = await world.start(1, discoveries=[sights[0]])
        b = await world.start(2, discoveries=[sights[1]])
        if why == "the lower one cannot begin":
            sights[0].see(2, "10.0.7.7")  # where nothing gets through
        sights[1].see(1)
        began = trio.current_time()
        await until(b, "connected")
        assert 1.0 <= trio.current_time() - began < 4.0
        await level(a, b)
        assert b.peers()[0]["origin"] == "dialed"

    simulate(scenario)


def test_a_firewall_that_lets_one_side_begin_is_no_obstacle() -> None:
    """Otherwise the rule of who dials decides whether two nodes meet, and not the network."""

    async def scenario(world: World) -> None:
        sights = [Sightings(world) for _ in range(2)]
        a = await world.start(1, discoveries=[sights[0]])
        b = await world.start(2, discoveries=[sights[1]])
        opened: set[str] = set()

        def firewall(payload: bytes, source: tuple[str, int], target: tuple[str, int]) -> bytes | None:
            if source[0] == world.machine(2).host:
                opened.add(target[0])  # who was written to from within may answer
            return payload if target[0] != world.machine(2).host or source[0] in opened else None

        world.net.tamper = firewall
        sights[0].see(2)
        sights[1].see(1)
        await write(a, "n1")
        await level(a, b)
        assert documents(b) == documents(a)
        for node in (a, b):
            assert len(events(node, "connected")) == 1

    simulate(scenario)


def test_all_of_a_few_and_some_of_many_are_connected_and_all_hold_together() -> None:
    """Otherwise a LAN of thirty nodes has hundreds of connections, or falls apart."""

    async def scenario(world: World) -> None:
        numbers = range(1, 15)
        nodes: list[Node] = []
        for number in numbers:
            seen = Sightings(world)
            for other in numbers:
                if other != number:
                    seen.see(other)
            nodes.append(await world.start(number, discoveries=[seen]))
        await write(nodes[7], "n1")
        await trio.sleep(60)
        assert all(documents(node) == documents(nodes[7]) for node in nodes)
        links = sum(len(node.sync.links) for node in nodes) / 2
        assert 14 <= links <= 14 * 8
        assert all(len(node.sync.links) >= 4 for node in nodes)
        assert {peer["state"] for node in nodes for peer in node.peers()} <= {"connected", "waiting"}
        assert all(len(events(node, "disconnected")) == 0 for node in nodes)

    simulate(scenario)


def test_dead_records_take_no_place_from_the_living() -> None:
    """Otherwise stale or forged records keep a node from everybody who is there."""

    async def scenario(world: World) -> None:
        seen = Sightings(world)
        a = await world.start(1, discoveries=[seen])
        for number in range(40):
            id, host = dead(number)
            seen.say(Sighting(id, (HostPort(host, PORT),), "mdns", ""))
        for number in (2, 3):
            await world.start(number)
            seen.see(number)
        await until(a, "connected", 2)
        assert trio.current_time() < 120
        assert len({peer["id"] for peer in a.peers() if peer["state"] == "connected"}) == 2

    simulate(scenario)


def test_a_record_that_leads_nowhere_is_tried_less_and_less_often() -> None:
    """Otherwise a few hundred forged records make every node on the network shout for ever."""

    async def scenario(world: World) -> None:
        seen = Sightings(world)
        a = await world.start(1, discoveries=[seen])
        id, host = dead(7)
        seen.say(Sighting(id, (HostPort(host, PORT),), "mdns", ""))
        await trio.sleep(3600)
        failed = events(a, "dial_failed")
        assert 12 <= len(failed) <= 40
        assert max(event.facts["retry_s"] for event in failed) > LIMITS.aside_last_seconds / 2
        [peer] = a.peers()
        assert peer["state"] in ("waiting", "dialing")
        seen.say(Sighting(id, (), "mdns", ""))
        await trio.sleep(10)
        assert a.peers()[0]["state"] == "down"
        before = len(events(a, "dial_failed"))
        await trio.sleep(3600)
        assert len(events(a, "dial_failed")) == before

    simulate(scenario)


def test_few_discovered_dials_are_under_way_at_one_time() -> None:
    """Otherwise whoever forges records makes this node flood others with handshakes."""

    async def scenario(world: World) -> None:
        seen = Sightings(world)
        a = await world.start(1, discoveries=[seen])
        for number in range(300):
            id, host = dead(number)
            seen.say(Sighting(id, tuple(HostPort(host, port) for port in range(1, 40)), "mdns", ""))
        most = 0
        for _ in range(400):
            await trio.sleep(0.25)
            dialled = [peer for peer in a.peering.peers.values() if peer.dialing is not None]
            most = max(most, len(dialled))
            assert all(len(peer.addresses) <= LIMITS.discovered_addresses_max for peer in dialled)
        assert most == LIMITS.discovered_dials_max
        assert len(a.peering.peers) <= LIMITS.discovered_peers_max
        b = await world.start(2)
        seen.see(2)
        await until(a, "connected")
        await level(a, b)

    simulate(scenario)


@pytest.mark.parametrize("others", [0, 100])
def test_who_is_dialled_by_hand_waits_for_no_turn(others: int) -> None:
    """Otherwise a command of the owner waits behind forged records, of others or of the same peer."""

    async def scenario(world: World) -> None:
        seen = Sightings(world)
        a = await world.start(1, discoveries=[seen])
        for number in range(others):
            id, host = dead(number)
            seen.say(Sighting(id, (HostPort(host, PORT),), "mdns", ""))
        seen.see(2, "10.9.9.99")
        await trio.sleep(1)
        b = await world.start(2)
        began = trio.current_time()
        assert await a.connect(b.id, [world.machine(2).address]) is True
        assert trio.current_time() - began < 0.2

    simulate(scenario)


def test_a_way_of_finding_peers_that_fails_is_begun_anew() -> None:
    """Otherwise a fault in one library ends the node, or makes it blind."""

    async def scenario(world: World) -> None:
        seen = Sightings(world)
        original, failures = seen.sightings, 2

        @asynccontextmanager
        async def failing() -> AsyncIterator[AsyncIterator[Sighting]]:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise OSError("no such interface")
            async with original() as sightings:
                yield sightings

        seen.sightings = failing  # type: ignore[method-assign]
        a = await world.start(1, discoveries=[seen])
        b = await world.start(2)
        seen.see(2)
        await level(a, b)
        assert [event.facts["part"] for event in events(a, "failed")] == ["discovery"] * 2

    simulate(scenario)


def test_a_static_peer_waits_for_no_discovered_one() -> None:
    """Otherwise forged records delay the peers that the owner named."""

    async def scenario(world: World) -> None:
        seen = Sightings(world)
        for number in range(100):
            id, host = dead(number)
            seen.say(Sighting(id, (HostPort(host, PORT),), "mdns", ""))
        b = await world.start(2)
        a = await world.start(1, peers=[2], discoveries=[seen])
        await until(a, "connected")
        assert trio.current_time() < 1
        await level(a, b)

    simulate(scenario)


def test_an_introduction_that_leads_nowhere_is_given_up_until_it_comes_anew() -> None:
    """Otherwise every node dials for ever whoever was once a member of the mesh."""

    async def scenario(world: World) -> None:
        told = Sightings(world, "mesh")
        a = await world.start(1, discoveries=[told])
        world.machine(2)
        told.see(2)
        await trio.sleep(1800)
        assert len(events(a, "dial_failed")) == LIMITS.introduction_tries_max
        assert a.peers()[0]["state"] == "down"
        b = await world.start(2)
        await trio.sleep(600)
        assert not a.sync.links
        told.see(2)
        await until(a, "connected")
        await level(a, b)

    simulate(scenario)


def test_introductions_are_dialled_beyond_the_choice() -> None:
    """Otherwise a node that sees many peers cannot be led to the one that it needs."""

    async def scenario(world: World) -> None:
        seen, told = Sightings(world), Sightings(world, "mesh")
        limits = replace(LIMITS, discovered_wanted_max=4)
        a = await world.start(1, discoveries=[seen, told], limits=limits)
        for number in range(2, 9):
            await world.start(number)
            seen.see(number)
        await trio.sleep(30)
        unlinked = [number for number in range(2, 9) if world.id(number) not in a.sync.links]
        assert unlinked
        for number in unlinked:
            told.see(number)
        await trio.sleep(30)
        assert len(a.sync.links) == 7

    simulate(scenario)


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_discovered_peer_is_found_at_its_new_address(is_connected: bool) -> None:
    """Otherwise a machine that gets another address is lost although it says where it is."""

    async def scenario(world: World) -> None:
        a, _, seen = await acquainted(world)
        await world.stop(2)
        if not is_connected:
            await trio.sleep(3600)
        world.move(2, "10.0.7.7")
        b = await world.start(2)
        seen.see(2)
        began = trio.current_time()
        await until(a, "connected", 2)
        assert trio.current_time() - began < 8
        await level(a, b)
        assert a.peers()[0]["address"] == "10.0.7.7:4000"

    simulate(scenario)


def test_an_address_that_changes_while_connected_disturbs_nothing_and_counts_afterwards() -> None:
    """Otherwise news of an address costs the connection, or is forgotten when it is needed."""

    async def scenario(world: World) -> None:
        a, _, seen = await acquainted(world)
        seen.see(2, "10.0.7.7")
        await trio.sleep(600)
        assert len(events(a, "connected")) == 1
        assert not events(a, "disconnected")
        await world.stop(2)
        world.move(2, "10.0.7.7")
        b = await world.start(2)
        await until(a, "connected", 2)
        await level(a, b)

    simulate(scenario)


def test_a_peer_that_is_named_and_found_is_dialled_wherever_it_is() -> None:
    """Otherwise the address in the configuration hides the one at which the peer is."""

    async def scenario(world: World) -> None:
        seen = Sightings(world)
        b = await world.start(2)
        a = await world.start(1, peers=[f"{b.id}@10.9.9.9:{PORT}"], discoveries=[seen])
        await trio.sleep(5)
        seen.see(2)
        await until(a, "connected")
        [peer] = a.peers()
        assert (peer["via"], peer["address"]) == ("static", world.machine(2).address)

    simulate(scenario)


def test_who_was_disconnected_by_the_owner_is_not_dialled_because_it_is_seen() -> None:
    """Otherwise a peer comes back a moment after its owner sent it away."""

    async def scenario(world: World) -> None:
        a, b, seen = await acquainted(world)
        a.peering.disconnect(b.id)
        seen.see(2)
        a.peering.network_changed()
        await trio.sleep(600)
        assert not a.sync.links
        assert await a.connect(b.id, [world.machine(2).address]) is True

    simulate(scenario)
