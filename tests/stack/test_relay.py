"""Nodes that carry a collection for others: what one subscriber writes reaches the other through them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.core.messages import Carry, encode_message
from meshsync.errors import LocalError
from meshsync.ids import CollectionId
from meshsync.node import Node
from tests.stack.stranger import batch_with_a_bad_seal, stranger
from tests.stack.world import World, documents, events, level, simulate, until, write

NOTES = CollectionId.of_name("notes")
QUOTA = 200_000


def carried(node: Node) -> dict[str, Any]:
    """What status says of the only collection that a node carries."""
    [found] = [one for one in node.status()["collections"] if one["relayed"]]
    return dict(found)


def root(node: Node) -> str:
    """The root of the notes, as status tells it."""
    [found] = [one["root"] for one in node.status()["collections"] if one["id"] == NOTES.hex()]
    return str(found)


async def until_level(*nodes: Node) -> None:
    """Wait until the nodes, connected or not, hold the same of the notes, and a few seconds for status to say so."""
    with trio.fail_after(120):
        while True:
            held = {one["root"] for node in nodes for one in node.status()["collections"] if one["id"] == NOTES.hex()}
            counts = [sum(one["id"] == NOTES.hex() for one in node.status()["collections"]) for node in nodes]
            if len(held) == 1 and all(counts):
                return
            await trio.sleep(0.1)


def test_two_that_never_meet_share_a_collection_through_a_relay() -> None:
    """Otherwise subscribers without a direct path never get anything."""

    async def scenario(world: World) -> None:
        r = await world.start(2, relay=True, collections=())
        a = await world.start(1, peers=[2])
        b = await world.start(3, peers=[2])
        await write(a, *(f"a{number}" for number in range(100)))
        await until_level(a, r, b)
        assert documents(a) == documents(b)
        with trio.fail_after(1):
            await write(b, "live", text="forwarded at once")
            await a.sync.watch_cursors("notes")
        assert "live" in documents(a)
        await until_level(a, r, b)
        for node in (a, r, b):
            with trio.fail_after(5):
                await node.sync.wait_synced()
        assert {peer["id"] for peer in a.peers() + b.peers()} == {r.id.hex()}
        told = carried(r)
        assert (told["name"], told["relayed"], told["priority"]) == (NOTES.short, True, "low")
        assert told["entries"] == 101
        assert {peer["state"] for peer in told["peers"]} == {"synced"}
        assert r.collections() == []
        with pytest.raises(LocalError):
            r.collection("notes")
        assert r.status()["relay"] | {"bytes": 0} == {
            "enabled": True,
            "collections": 1,
            "bytes": 0,
            "bytes_max": LIMITS.relay_bytes_max,
            "turned_away": 0,
            "fault": None,
        }
        assert [event.facts["id"] for event in events(r, "relay_began")] == [NOTES.hex()]
        assert not events(a, "relay_began", "peer_error") + events(b, "peer_error") + events(r, "peer_error")

    simulate(scenario)


def test_subscribers_that_are_never_there_together_get_it_after_a_restart_of_the_relay() -> None:
    """Otherwise it forwards and does not store."""

    async def scenario(world: World) -> None:
        r = await world.start(2, relay=True, collections=())
        a = await world.start(1, peers=[2])
        await write(a, *(f"n{number}" for number in range(300)))
        await until_level(a, r)
        held = documents(a)
        await world.stop(1)
        await world.kill(2)
        r = await world.start(2, relay=True, collections=())
        assert carried(r)["entries"] == 300
        b = await world.start(3, peers=[2])
        await level_with(b, r)
        assert documents(b) == held

    simulate(scenario)


def costs(node: Node) -> dict[str, int]:
    """The bytes that went over the connection with each peer."""
    return {peer["id"]: peer["bytes_sent"] + peer["bytes_received"] for peer in node.peers()}


async def level_with(node: Node, other: Node) -> None:
    """Wait until one is synced with the other, and the other says so too."""
    await node.sync.wait_synced(["notes"], [other.id])
    await until_level(node, other)


def test_the_relay_may_be_the_one_that_dials() -> None:
    """Otherwise it depends on who dialled whether a stream is opened for what is carried."""

    async def scenario(world: World) -> None:
        a = await world.start(1, trusts=[2])
        b = await world.start(3, trusts=[2])
        await write(a, "n1")
        r = await world.start(2, relay=True, collections=(), peers=[1, 3])
        await until_level(a, r, b)
        assert documents(b) == documents(a)

    simulate(scenario)


@pytest.mark.parametrize("dials", ["outwards", "inwards", "along"])
def test_a_chain_of_relays_joins_its_ends(dials: str) -> None:
    """Otherwise one relay is as far as it goes."""

    async def scenario(world: World) -> None:
        dialled = {
            "outwards": {1: [], 2: [1, 3], 3: [4], 4: []},
            "inwards": {1: [2], 2: [], 3: [2], 4: [3]},
            "along": {1: [2], 2: [3], 3: [4], 4: []},
        }[dials]
        beside = {1: {2}, 2: {1, 3}, 3: {2, 4}, 4: {3}}
        a, r, s, b = [
            await world.start(
                number,
                peers=dialled[number],
                trusts=beside[number] - set(dialled[number]),
                relay=number in (2, 3),
                collections=["notes"] if number in (1, 4) else [],
            )
            for number in (1, 2, 3, 4)
        ]
        await write(a, "n1")
        await write(b, "n2")
        await until_level(a, r, s, b)
        assert set(documents(a)) == set(documents(b)) == {"n1", "n2"}

    simulate(scenario)


def test_without_the_key_nothing_is_carried_and_no_id_is_revealed() -> None:
    """Otherwise a node spends its disk for others without having been asked, or ids get to whoever listens."""

    async def scenario(world: World) -> None:
        r = await world.start(2, collections=())
        a = await world.start(1, peers=[2])
        b = await world.start(3, peers=[2])
        await write(a, "n1")
        await trio.sleep(600)
        assert r.store.collections() == []
        assert not documents(b)
        assert r.status()["relay"]["enabled"] is False
        assert not a.sync.is_synced()

    simulate(scenario)


def test_ids_go_only_to_relays_that_the_owner_knows() -> None:
    """Otherwise anyone that calls itself a relay can read everything, where trust is open."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write(a, "n1")
        r = await world.start(2, relay=True, collections=(), peers=[1])
        await trio.sleep(600)
        assert a.peers()[0]["state"] == "connected"
        assert r.store.collections() == []
        await a.accept_peer(r.id)
        await world.stop(2)
        r = await world.start(2, relay=True, collections=(), peers=[1])
        await until_level(a, r)

    simulate(scenario)


def test_entries_beyond_the_quota_are_held_back_until_it_is_raised() -> None:
    """Otherwise others fill the disk, or what they wrote in the meantime is lost."""
    little = replace(LIMITS, relay_bytes_max=QUOTA)

    async def scenario(world: World) -> None:
        r = await world.start(2, relay=True, collections=(), limits=little)
        a = await world.start(1, peers=[2])
        b = await world.start(3, peers=[2])
        c = await world.start(4, peers=[1, 2])
        for number in range(500):
            await write(a, f"n{number}", text="x" * 1000)
        await trio.sleep(60)
        assert len(documents(c)) == 500
        [full] = events(r, "relay_full")
        assert "limits.relay_bytes" in full.facts["reason"]
        assert QUOTA <= carried(r)["bytes"] < QUOTA + LIMITS.batch_bytes_soft + 5000
        [session] = [one for one in a.status()["collections"][0]["peers"] if one["id"] == r.id.hex()]
        assert (session["state"], session["stall"]) == (
            "pushing",
            "the peer takes no more: what it may carry for others is full",
        )
        assert session["unsent"] == 500 - carried(r)["entries"]
        assert "limits.relay_bytes" in r.status()["relay"]["fault"]
        [stalled] = [one for one in carried(r)["peers"] if one["id"] == a.id.hex()]
        assert stalled["state"] == "pulling"
        assert "limits.relay_bytes" in stalled["stall"]
        assert not a.sync.is_synced()
        assert not r.sync.is_synced()
        assert b.sync.is_synced()
        before = costs(r)
        await trio.sleep(3000)
        spent = {peer: cost - before[peer] for peer, cost in costs(r).items()}
        assert max(spent.values()) < 1.5 * spent[b.id.hex()], "a session does not rest"
        await world.stop(2)
        r = await world.start(2, relay=True, collections=())
        await until_level(a, r, b, c)
        assert len(documents(b)) == 500
        await a.sync.wait_synced(["notes"], [r.id])  # which it has to dial first
        for node in (a, r, b, c):
            await node.sync.wait_synced()
        assert r.status()["relay"]["fault"] is None
        assert [one["stall"] for one in a.status()["collections"][0]["peers"]] == [None, None]

    simulate(scenario)


def test_what_was_carried_is_listed_when_the_node_relays_no_longer_and_can_be_left() -> None:
    """Otherwise it takes room for ever, and nobody sees what to leave."""

    async def scenario(world: World) -> None:
        r = await world.start(2, relay=True, collections=())
        a = await world.start(1, peers=[2])
        await write(a, "one", "two")
        await until_level(a, r)
        await world.stop(2)
        r = await world.start(2, collections=["own"])
        await until(a, "connected", 2)
        found = carried(r)
        assert (found["id"], found["idle"], found["entries"], found["peers"]) == (NOTES.hex(), True, 2, [])
        assert [one["idle"] for one in r.status()["collections"]] == [False, True]
        assert r.status()["relay"]["bytes"] > 0
        await r.leave(NOTES.hex()[:8])
        assert [one["name"] for one in r.status()["collections"]] == ["own"]
        assert r.status()["relay"]["bytes"] == 0

    simulate(scenario)


def test_leaving_what_is_carried_removes_it_and_makes_room() -> None:
    """Otherwise the owner cannot get rid of what others put there."""
    little = replace(LIMITS, relay_bytes_max=QUOTA)

    async def scenario(world: World) -> None:
        r = await world.start(2, relay=True, collections=(), limits=little)
        a = await world.start(1, peers=[2], collections=["bulk"])
        for number in range(300):
            await write(a, f"n{number}", text="x" * 1000, collection="bulk")
        await trio.sleep(60)
        b = await world.start(3, peers=[2])
        await write(b, "n1")
        await trio.sleep(60)
        assert {one["name"]: one["entries"] for one in r.status()["collections"]}[NOTES.short] == 0
        bulk = CollectionId.of_name("bulk")
        await r.leave(bulk.hex()[:12])
        await until_level(b, r)
        assert r.store.collections() == [(NOTES, "")]
        assert events(r, "relay_has_room")
        [ended] = events(r, "relay_ended")
        assert ended.facts["id"] == bulk.hex()
        await trio.sleep(600)
        await world.stop(2)
        r = await world.start(2, relay=True, collections=(), limits=little)
        await trio.sleep(600)
        assert r.store.collections() == [(NOTES, "")]

    simulate(scenario)


def test_the_owner_joins_what_was_carried_and_it_is_there() -> None:
    """Otherwise everything is downloaded a second time."""

    async def scenario(world: World) -> None:
        r = await world.start(2, relay=True, collections=())
        a = await world.start(1, peers=[2])
        await write(a, *(f"n{number}" for number in range(200)))
        await until_level(a, r)
        await world.stop(1)
        pulled = r.sync.stats().pulled
        await r.join("notes")
        assert len(documents(r)) == 200
        await write(r, "own")
        a = await world.start(1, peers=[2])
        await level(a, r)
        assert r.sync.stats().pulled == pulled
        [told] = r.status()["collections"]
        assert (told["name"], told["relayed"]) == ("notes", False)
        assert r.status()["relay"]["collections"] == 0
        await r.leave("notes")
        b = await world.start(3, peers=[2])
        await until_level(a, r, b)
        assert carried(r)["name"] == "notes"
        await r.leave("notes")
        assert r.store.collections() == [(NOTES, "notes")]
        assert not r.status()["collections"]

    simulate(scenario)


def test_a_peer_that_asks_for_thousands_gets_its_share_and_no_more() -> None:
    """Otherwise one peer fills the disk with empty tables, or leaves no room for the others."""

    async def scenario(world: World) -> None:
        r = await world.start(1, relay=True, collections=())
        a = await world.start(2, peers=[1])
        await write(a, "n1")
        async with stranger(world) as one, trio.open_nursery() as nursery:
            nursery.start_soon(one.answer_pings)
            most = LIMITS.carry_collections_max
            for turn in range(40):
                ids = [CollectionId(bytes([turn, number]) * 16) for number in range(most)]
                await one.connection.control.send(encode_message(Carry(tuple((id, 0) for id in ids))))
                await trio.sleep(0.5)
            await trio.sleep(30)
            assert len(r.store.collections()) == 1 + LIMITS.relayed_per_peer_max
            told = r.status()["relay"]
            assert told["turned_away"] == most - LIMITS.relayed_per_peer_max
            assert "meshsync collections leave" in told["fault"]
            assert len(events(r, "relay_full")) == 1
            b = await world.start(3, peers=[1])
            await until_level(a, r, b)
            nursery.cancel_scope.cancel()
        await trio.sleep(90)
        assert r.store.collections() == [(NOTES, "")]
        assert r.status()["relay"]["fault"] is None
        assert r.sync.is_synced()

    simulate(scenario)


def test_entries_that_a_relay_is_sent_are_checked_like_all_others() -> None:
    """Otherwise whoever asks a relay to carry can have it spread what nobody signed."""

    async def scenario(world: World) -> None:
        r = await world.start(1, relay=True, collections=())
        a = await world.start(2, peers=[1])
        await write(a, "n1")
        await until_level(a, r)
        async with stranger(world) as one:
            await batch_with_a_bad_seal(one)
            await until(r, "peer_error")
        assert carried(r)["entries"] == 1

    simulate(scenario)


def test_what_nobody_asks_for_any_more_is_dropped() -> None:
    """Otherwise the disk fills with what is of no use to anyone."""
    short = replace(LIMITS, relay_keep_seconds=7200.0)

    async def scenario(world: World) -> None:
        r = await world.start(2, relay=True, collections=(), limits=short, peers=[3])
        s = await world.start(3, relay=True, collections=(), limits=short, trusts=[2])
        a = await world.start(1, peers=[2])
        await write(a, "n1")
        await until_level(a, r, s)
        await trio.sleep(4 * 7200)
        assert carried(r)["entries"] == carried(s)["entries"] == 1
        await world.stop(1)
        await trio.sleep(5400)
        assert carried(r)["entries"] == carried(s)["entries"] == 1
        await trio.sleep(2 * 7200)
        # Each asks the other, and it ends all the same.
        assert r.store.collections() == s.store.collections() == []
        assert events(r, "relay_ended")[-1].facts["reason"] == "nobody asked for it for a long time"

    simulate(scenario)
