"""Who is connected with whom: dialling, finding back, and one connection with each peer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsync.addresses import HostPort
from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode, TransportLost
from tests.simnet import LinkProfile
from tests.stack.world import PORT, World, documents, events, level, simulate, until, write

BAD = LinkProfile(latency_seconds=0.04, jitter_seconds=0.03, loss=0.08, duplication=0.05)


def test_a_peer_that_is_down_at_boot_is_found_an_hour_later() -> None:
    """Otherwise the order in which a fleet is switched on decides who ever meets."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        await trio.sleep(3600)
        [down] = a.peers()
        assert down["state"] in ("waiting", "dialing")
        assert down["last_error"]
        b = await world.start(2)
        began = trio.current_time()
        await until(a, "connected")
        assert trio.current_time() - began <= a.limits.backoff_last_seconds + 1
        await level(a, b)

    simulate(scenario)


def test_the_pauses_grow_are_capped_and_differ_from_node_to_node() -> None:
    """Otherwise a dead peer is dialled in a loop, or a fleet dials in step."""

    async def scenario(world: World) -> None:
        nodes = [await world.start(number, peers=["ab" * 32 + "@10.9.9.9:4000"]) for number in (1, 2)]
        await trio.sleep(3600)
        pauses = [[event.facts["retry_s"] for event in events(node, "dial_failed")] for node in nodes]
        for each in pauses:
            assert 60 <= len(each) <= 720
            assert max(each) > 30
            assert max(each) <= 60
            assert max(each[:3]) <= 2
            assert len({round(pause, 1) for pause in each}) > len(each) / 2
        assert pauses[0] != pauses[1]

    simulate(scenario)


def test_a_lost_peer_is_dialled_again_soon_and_a_restarted_one_too() -> None:
    """Otherwise a short outage costs as much as a long one."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        b = await world.start(2)
        await level(a, b)
        await trio.sleep(60)
        await world.stop(2)
        await until(a, "disconnected")
        b = await world.start(2)
        began = trio.current_time()
        await until(a, "connected", 2)
        assert trio.current_time() - began < 10
        await level(a, b)

    simulate(scenario)


def test_a_node_that_stops_tells_its_peers() -> None:
    """Otherwise they count it as connected until they have heard nothing for half a minute."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        began = trio.current_time()
        await world.stop(2)
        gone = await until(a, "disconnected")
        assert trio.current_time() - began < 1
        assert "SHUTDOWN" in gone.facts["reason"]
        assert a.peers()[0]["last_error"] is None

    simulate(scenario)


def test_a_killed_peer_that_comes_back_is_taken_at_once() -> None:
    """Otherwise a node that was killed has to wait until its peers notice, which takes half a minute."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        await world.kill(2)
        b = await world.start(2, peers=[1])
        began = trio.current_time()
        await level(a, b)
        assert trio.current_time() - began < 5
        assert [event.type for event in events(a, "connected", "disconnected")] == [
            "connected",
            "disconnected",
            "connected",
        ]
        assert not events(a, "peer_error")

    simulate(scenario)


def test_a_peer_that_moved_is_found_at_its_new_address() -> None:
    """Otherwise a laptop that changes networks has to be configured anew."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        await world.stop(2)
        world.move(2, "10.0.7.7")
        b = await world.start(2, peers=[1])
        await write(b, "moved")
        await level(a, b)
        assert a.peers()[0]["address"] == "10.0.7.7:4000"
        assert "moved" in documents(a)

    simulate(scenario)


def test_a_new_port_in_front_of_a_peer_costs_nothing() -> None:
    """Otherwise each time a router forgets its mapping the connection is lost."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        world.net.rebind(world.machine(2).host, PORT, 5555)
        await write(b, "from another port")
        await level(a, b)
        await write(a, "and back")
        await level(a, b)
        assert a.peers()[0]["address"] == f"{world.machine(2).host}:5555"
        for node in (a, b):
            assert not events(node, "disconnected")

    simulate(scenario)


@pytest.mark.parametrize("is_lower", [True, False])
def test_a_peer_that_moves_while_it_runs_is_connected_again_soon(is_lower: bool) -> None:
    """Otherwise it depends on the ids: where the one that stays began the connection, it refuses every other one.

    A server that has another address is lost to its clients (RFC 9000 section 9).
    """

    async def scenario(world: World) -> None:
        low, high = sorted((1, 2), key=world.id)
        b = await world.start(high)
        a = await world.start(low, peers=[high])
        await level(a, b)
        b.peering.add(a.id, [HostPort(world.machine(low).host, PORT)], "static")
        await trio.sleep(20)
        moving, number = (a, low) if is_lower else (b, high)
        world.net.rebind(world.machine(number).host, PORT, 5555)
        moving.peering.network_changed()
        await write(moving, "moved")
        with trio.fail_after(15):
            await level(a, b)
        assert not events(a, "peer_error") + events(b, "peer_error")

    simulate(scenario)


class Names(trio.abc.HostnameResolver):
    """A name service whose answers a test changes."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, *kind: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        found = self.records.get(host.decode() if isinstance(host, bytes) else host, [])
        if not found:
            raise OSError(-2, "Name or service not known")
        return [(2, kind[1], kind[2], "", (address, port)) for address in found]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def test_a_name_is_resolved_at_every_dial_and_all_of_its_records_are_tried() -> None:
    """Otherwise a stale or dead record keeps a peer away for good."""

    async def scenario(world: World) -> None:
        names = Names()
        trio.socket.set_custom_hostname_resolver(names)
        a = await world.start(1, peers=[f"{world.id(2)}@relay.example:{PORT}"])
        b = await world.start(2)
        failed = await until(a, "dial_failed", 2)
        assert "relay.example cannot be resolved: Name or service not known" in failed.facts["reason"]
        names.records["relay.example"] = ["10.9.9.9", world.machine(2).host]
        await level(a, b)
        assert names.asked >= 3

    simulate(scenario)


def test_a_dead_record_of_a_name_costs_half_a_second_once() -> None:
    """Otherwise a name with one dead record costs five seconds at every try, or keeps the peer away."""

    async def scenario(world: World) -> None:
        names = Names()
        trio.socket.set_custom_hostname_resolver(names)
        names.records["relay.example"] = ["10.9.9.9", world.machine(2).host, "10.9.9.8"]
        b = await world.start(2)
        a = await world.start(1, peers=[f"{world.id(2)}@relay.example:{PORT}"])
        await until(a, "connected")
        assert 0.5 <= trio.current_time() < 0.7
        assert not events(a, "dial_failed")
        await level(a, b)
        await trio.sleep(60)
        a.sync.links[b.id].connection.close(CloseCode.TIMEOUT)
        began = trio.current_time()
        await until(a, "connected", 2)
        assert trio.current_time() - began < LIMITS.backoff_first_seconds + 0.2, "the one that worked is tried first"

    simulate(scenario)


@pytest.mark.parametrize("seed", range(10))
def test_a_peer_with_two_good_addresses_sees_one_connection(seed: int) -> None:
    """Otherwise the tries of one dial overtake each other, and the later one ends the connection in use."""

    async def scenario(world: World) -> None:
        b = await world.start(2, trust="closed", trusts=[1])
        machine = world.machine(2)
        assert machine.socket is not None
        world.net._sockets["10.0.7.7", PORT] = machine.socket
        a = await world.start(1, trust="closed")
        assert await a.connect(b.id, [machine.address, f"10.0.7.7:{PORT}"]) is True
        await write(a, "n1")
        await level(a, b)
        await trio.sleep(60)
        for node in (a, b):
            assert [event.type for event in events(node, "connected", "disconnected", "peer_error", "pending")] == [
                "connected"
            ]
            assert node.peers()[0]["state"] == "connected"

    # A round trip takes about as long as a try has before the next one begins beside it.
    simulate(scenario, seed=seed, profile=LinkProfile(latency_seconds=0.2, jitter_seconds=0.15))


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), is_bad=st.booleans())
def test_both_dial_at_once_and_one_connection_survives(seed: int, is_bad: bool) -> None:
    """Otherwise each side keeps another connection, or none, and they never sync."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        await trio.sleep(world.rng.choice([0, 0, 0.01, 0.05, 0.2]))
        b = await world.start(2, peers=[1])
        await write(a, "of a")
        await write(b, "of b")
        await level(a, b)
        await trio.sleep(5)
        await write(a, "later")
        await level(a, b)
        assert documents(a) == documents(b)
        assert len(documents(a)) == 3
        for node, other in ((a, b), (b, a)):
            [peer] = node.peers()
            assert (peer["state"], peer["id"]) == ("connected", other.id.hex())
            assert len(events(node, "connected")) == 1
            assert not events(node, "disconnected", "peer_error", "failed")
            if not is_bad:
                told = events(node, "connected")[0].facts["origin"]
                assert told == peer["origin"], "connected was said of a connection that did not survive"
        ends = [node.sync.links[other.id].connection for node, other in ((a, b), (b, a))]
        assert ends[0].nonces == ends[1].nonces

    simulate(scenario, seed=seed, profile=BAD if is_bad else None)


def test_only_the_node_with_the_higher_id_knows_the_other() -> None:
    """Otherwise a rule such as "the lower id dials" leaves such a pair apart for ever."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trust="closed", trusts=[2])
        b = await world.start(2, trust="closed", peers=[1])
        await write(a, "n1")
        await level(a, b)
        assert a.peers()[0]["origin"] == "accepted"

    simulate(scenario)


def test_a_connection_that_loses_the_tie_break_costs_no_event_and_no_entry() -> None:
    """Otherwise an application sees its peer go and come although it never went."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await until(a, "connected")
        await write(a, *(f"n{number}" for number in range(300)))
        assert b.peers()[0]["origin"] == "dialed"
        a.peering.add(b.id, [HostPort(world.machine(2).host, PORT)], "manual")
        assert a.peers()[0]["origin"] == "accepted"
        await level(a, b)
        assert len(events(a, "connected")) == len(events(b, "connected")) == 1
        assert len(documents(b)) == 300

    simulate(scenario)


def test_a_peer_that_dials_again_and_again_is_slowed_down() -> None:
    """Otherwise an authenticated peer keeps a node busy with handshakes and new sessions."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        c = await world.start(3, peers=[1])
        transport = b.peering._dialer._transports[0]  # type: ignore[union-attr]
        while not events(a, "peer_error"):
            with suppress(TransportLost):
                await transport.dial((world.machine(1).host, PORT), a.id)
        assert events(a, "peer_error")[0].facts["code"] == "LIMIT"
        assert trio.current_time() < 120
        await write(a, "n1")
        await level(a, c)

    simulate(scenario)


def test_nodes_that_come_and_go_do_not_fill_the_memory() -> None:
    """Otherwise under open trust strangers with ever new keys fill it, a page each."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trusts=[5], limits=replace(LIMITS, peers_max=4))
        for number in range(3, 15):
            b = await world.start(number, peers=[1])
            await level(a, b)
            await world.stop(number)
        assert len(a.peering.peers) <= 4
        assert world.id(14) in a.peering.peers

    simulate(scenario)
