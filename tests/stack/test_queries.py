"""Whole nodes that subscribe to a part of a collection."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.core.query import Query
from meshsync.errors import LocalError
from meshsync.node import Node
from tests.stack.world import World, documents, level, simulate, write

BLUE = {"name": "notes", "where": ["team=blue"]}
RED = {"name": "notes", "where": ["team=red"]}


def ids(node: Node) -> set[str]:
    return set(documents(node))


async def patch(node: Node, id: str, **fields: Any) -> None:
    await node.collection("notes").patch(id, fields)


async def shown(node: Node, *wanted: str) -> None:
    """Wait until a node shows just these documents."""
    watcher = node.sync.watcher(node.sync.replica("notes"))
    with trio.fail_after(120):
        await watcher.wait_until(lambda: ids(node) == set(wanted))


def test_each_node_shows_its_part_and_nothing_else_crosses(frames: list[bytes]) -> None:
    """Otherwise a subscription by query costs as much as the whole, or shows what nobody asked for."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        for number in range(300):
            await write(a, f"g{number}", team="green", note="secret")
        await write(a, "b1", "b2", team="blue")
        await write(a, "r1", team="red")
        b = await world.start(2, peers=[1], collections=[BLUE])
        c = await world.start(3, peers=[1], collections=[RED])
        await level(a, b, c)
        assert (ids(b), ids(c)) == ({"b1", "b2"}, {"r1"})
        await write(a, "b3", team="blue")
        await write(a, "g300", team="green", note="secret")
        await patch(c, "r1", team="blue")  # from one part to the other
        await level(a, b, c)
        assert (ids(b), ids(c)) == ({"b1", "b2", "b3", "r1"}, set())
        assert documents(b)["r1"] == {"by": "node 1", "team": "blue"}
        assert len(ids(a)) == 305
        assert not any(b"secret" in frame for frame in frames)
        status = b.status()["collections"][0]
        assert (status["documents"], status["query"]) == (4, {"field": "team", "=": "blue"})
        assert len(b.collection("notes")) == 4
        assert b.collection("notes").get("g1") is None

    simulate(scenario)


def test_a_query_that_changes_takes_effect_on_the_connection_as_it_is(frames: list[bytes]) -> None:
    """Otherwise whoever moves has to reconnect to see what is around it now."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        for number in range(20):
            await write(a, f"p{number}", at={"lat": float(number), "lon": 10.0})
        b = await world.start(2, peers=[1], collections=[])
        place = Query.field("at")
        near = place.within_radius(lat=0.0, lon=10.0, radius_m=120_000)
        async with b.sync.subscribe("notes", near) as subscription:
            await subscription.wait_synced()
            assert ids(b) == {"p0", "p1"}
            subscription.choose(place.within_radius(lat=10.0, lon=10.0, radius_m=120_000))
            assert not b.sync.is_synced()
            await subscription.wait_synced()
            assert ids(b) == {"p9", "p10", "p11"}
            async with b.sync.subscribe("notes", near):  # two handles want what either of them wants
                await subscription.wait_synced()
                assert ids(b) == {"p0", "p1", "p9", "p10", "p11"}
            assert ids(b) == {"p9", "p10", "p11"}
        assert b.sync.stats().links == 1
        assert not any(b"p19" in frame for frame in frames)

    simulate(scenario)


def test_a_part_outlives_a_restart_and_a_power_cut() -> None:
    """Otherwise what a node had of its part, or had yet to learn of it, is lost with the process."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1], collections=[])
        await b.join("notes", Query.parse("team=blue"))
        await write(a, "b1", "b2", team="blue")
        await write(a, "r1", team="red")
        await level(a, b)
        await world.stop(2)
        await patch(a, "b1", team="red")
        await patch(a, "r1", team="blue")
        b = await world.start(2, peers=[1], collections=[])
        await level(a, b)
        assert ids(b) == {"b2", "r1"}
        await world.kill(2, power_cut=True)
        await patch(a, "b2", team="red")
        b = await world.start(2, peers=[1], collections=[])
        await level(a, b)
        assert ids(b) == {"r1"}
        assert documents(b)["r1"] == {"by": "node 1", "team": "blue"}

    simulate(scenario)


def test_nothing_is_synced_while_documents_are_looked_through() -> None:
    """Otherwise a node holds up all others while it reads a large collection, or takes a part of it for the whole."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write(a, *(f"b{number}" for number in range(100)), team="blue")
        await write(a, *(f"r{number}" for number in range(100)), team="red")
        b = await world.start(2, peers=[1], collections=[], limits=replace(LIMITS, part_slice_documents=1))
        subscription = b.sync.subscribe("notes")
        subscription.open()
        await level(a, b)
        subscription.choose(Query.parse("team=blue"))
        status = b.status()["collections"][0]
        assert not status["settled"]
        assert [peer["state"] for peer in status["peers"]] == ["pulling"]
        assert "looked through" in status["peers"][0]["stall"]
        assert not b.sync.is_synced()
        assert len(ids(b)) == 100
        assert b.collection("notes").get("r1") is None
        await b.sync.force_sync()
        assert b.sync.is_synced()
        status = b.status()["collections"][0]
        assert (status["settled"], status["documents"]) == (True, 100)

    simulate(scenario)


def test_what_is_not_wanted_any_more_is_dropped_and_told() -> None:
    """Otherwise whoever moves its window keeps all that it ever looked at, until its disk is full."""

    async def scenario(world: World) -> None:
        limits = replace(LIMITS, unwanted_seconds=1.0, receipt_seconds=1.0)
        a = await world.start(1)
        await write(a, *(f"b{number}" for number in range(20)), team="blue")
        await write(a, "r", team="red")
        b = await world.start(2, peers=[1], collections=[], limits=limits)
        await b.join("notes", Query.parse("team=blue"))
        await write(b, "own", team="blue")
        await level(a, b)
        events, cursor = b.events.next, b.collection("notes").cursor()
        await b.join("notes", Query.parse("team=red"))
        await level(a, b)
        assert ids(b) == {"r"}
        dropped = 0
        with trio.fail_after(60):
            async with aclosing(b.events.follow(events)) as follow:
                async for event in follow:
                    if event.type == "payloads_dropped":
                        dropped += event.facts["entries"]
                    if dropped == 20:
                        break
        unwanted = b.status()["collections"][0]["unwanted"]
        assert (unwanted["payloads"], unwanted["documents_waiting"]) == (20, 0)
        async with aclosing(b.collection("notes").changes(since=cursor)) as changes:
            told = [await anext(changes) for _ in range(22)]
        assert {(change.id, change.kind) for change in told} == {
            ("r", "put"),
            ("own", "removed"),
            *((f"b{number}", "removed") for number in range(20)),
        }
        await b.join("notes", Query.parse("team=blue"))
        await level(a, b)
        assert ids(b) == {"own", *(f"b{number}" for number in range(20))}
        assert len(ids(a)) == 22

    simulate(scenario)


def test_it_is_known_whether_somebody_saw_all_that_a_part_is_made_of() -> None:
    """Otherwise who meets others that have parts, too, takes what it shows for all that there is."""

    async def scenario(world: World) -> None:
        whole = await world.start(1)
        await write(whole, "d", team="blue")
        red = await world.start(2, peers=[1], collections=[RED])
        await level(whole, red)
        blue = await world.start(3, peers=[2], collections=[BLUE])
        await level(red, blue)
        assert ids(blue) == set()  # red has the header alone, and cannot know
        assert [node.status()["collections"][0]["certain"] for node in (whole, red, blue)] == [True, True, False]
        assert blue.sync.is_synced()
        await blue.connect(whole.id, [world.machine(1).address])
        await level(whole, red, blue)
        assert ids(blue) == {"d"}
        assert blue.status()["collections"][0]["certain"]

    simulate(scenario)


def test_a_reader_of_a_part_begins_with_all_of_it() -> None:
    """Otherwise whoever follows a large part from its beginning right after a start misses most of it."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write(a, *(f"b{number}" for number in range(100)), team="blue")
        b = await world.start(2, peers=[1], collections=[BLUE])
        await level(a, b)
        await world.stop(2)
        b = await world.start(2, peers=[1], collections=[BLUE], limits=replace(LIMITS, part_slice_documents=1))
        assert not b.status()["collections"][0]["settled"]
        async with aclosing(b.collection("notes").changes(since="0")) as changes:
            told = {(await anext(changes)).id for _ in range(100)}
        assert told == ids(b)

    simulate(scenario)


def test_payloads_that_nobody_connected_has_are_a_stall_with_a_name() -> None:
    """Otherwise a node behind a partial one says that it is in sync, or waits and nobody knows for what."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1], collections=[BLUE])
        await write(a, "b1", team="blue")
        await write(a, "r1", team="red")
        await level(a, b)
        c = await world.start(3, peers=[2])
        await shown(c, "b1")
        changes = c.collection("notes").changes(since="0")
        assert (await anext(changes)).id == "b1"
        await trio.sleep(5)
        assert not c.sync.is_synced()
        assert "payloads are lacking" in str(c.sync.state("notes", b.id).stall)
        await c.connect(a.id, [world.machine(1).address])
        await level(a, b, c)
        assert ids(c) == {"b1", "r1"}
        assert (await anext(changes)).id == "r1"  # told late, and told
        await changes.aclose()

    simulate(scenario)


def test_nobody_sees_a_document_enter_without_its_past() -> None:
    """Otherwise a link that is cut at the wrong moment leaves a document with fields missing in the view for days."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write(a, "d", team="red", n=1)
        c = await world.start(3, peers=[1], collections=[{"name": "notes", "where": ["team=green"]}])
        await level(a, c)
        await world.stop(1)
        b = await world.start(2, peers=[3], collections=[BLUE])
        changes = b.collection("notes").changes(since="0")
        await patch(c, "d", team="blue")  # unseen
        replica = b.sync.replica("notes")
        with trio.fail_after(120):
            await b.sync.watcher(replica).wait_until(lambda: replica.tables.documents(["d"]) != {})
        for _ in range(2):
            assert (ids(b), len(b.collection("notes")), b.collection("notes").get("d")) == (set(), 0, None)
            assert not b.sync.is_synced()
            await world.stop(2)
            b = await world.start(2, peers=[3], collections=[BLUE])
            changes = b.collection("notes").changes(since="0")
        a = await world.start(1)
        await b.connect(a.id, [world.machine(1).address])
        change = await anext(changes)
        assert (change.kind, change.document) == ("put", documents(b)["d"])
        assert documents(b)["d"] == {"by": "node 1", "n": 1, "team": "blue"}
        await changes.aclose()

    simulate(scenario)


def test_what_enters_and_leaves_a_part_is_told() -> None:
    """Otherwise whoever follows a part keeps what left it, and misses what came with payloads that were late."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1], collections=[])
        await write(a, "d", team="red", n=1)
        await write(a, "e", team="red")
        async with b.sync.subscribe("notes", Query.parse("team=blue")) as subscription:
            await subscription.wait_synced()
            notes = b.collection("notes")
            told: list[tuple[str, str, Any]] = []
            start = notes.cursor()
            changes = notes.changes(since=start)

            async def follow(count: int) -> list[tuple[str, str, Any]]:
                told.clear()
                for _ in range(count):
                    change = await anext(changes)
                    told.append((change.id, change.kind, (change.document or {}).get("n")))
                return told

            await patch(a, "d", team="blue")
            await level(a, b)
            assert await follow(1) == [("d", "put", 1)]  # with its whole past
            await patch(a, "d", team="green")
            await level(a, b)
            assert await follow(1) == [("d", "removed", None)]
            subscription.choose(Query.parse("team=red"))
            await subscription.wait_synced()
            assert await follow(1) == [("e", "put", None)]
            await a.collection("notes").delete("e")
            await level(a, b)
            assert await follow(1) == [("e", "delete", None)]
            await changes.aclose()
            await write(a, "f", team="red")
            await level(a, b)
            again = notes.changes(since="0")
            assert (await anext(again)).id == "f"
            await again.aclose()
            with pytest.raises(LocalError, match="begin anew"):
                notes.changes(since="part-00000000-1")

    simulate(scenario)


def test_a_payload_that_is_wanted_late_comes_from_one_peer(frames: list[bytes]) -> None:
    """Otherwise each of them comes from every peer that has it."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        c = await world.start(3, peers=[1])
        b = await world.start(2, peers=[1, 3], collections=[BLUE])
        await write(a, "d", team="blue")
        await level(a, b, c)
        await patch(a, "d", team="red", note="leaving")
        await level(a, b, c)
        assert ids(b) == set()
        await trio.sleep(60)
        assert sum(b"leaving" in frame for frame in frames) == 2  # to the other whole one, and to the part

    simulate(scenario)


def test_who_relays_a_collection_for_others_has_all_of_it() -> None:
    """Otherwise a partial subscription of the relay itself keeps payloads from those that it relays for."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=["notes"])
        relay = await world.start(2, peers=[1], collections=[], relay=True)
        b = await world.start(3, peers=[2], collections=[BLUE])
        await write(a, "b1", team="blue")
        await write(a, "r1", team="red")
        await shown(b, "b1")
        async with relay.sync.subscribe("notes", Query.parse("team=red")) as subscription:
            await subscription.wait_synced()
            assert ids(relay) == {"b1", "r1"}  # for the sake of those for whom it is carried
        await level(a, b)
        assert ids(b) == {"b1"}

    simulate(scenario)
