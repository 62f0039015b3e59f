"""Whole nodes that subscribe to the latest of a collection, and what of its past crosses their links."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any

import trio

from meshsync.core.history import History
from meshsync.core.limits import LIMITS
from meshsync.core.query import Query
from meshsync.node import Node
from tests.stack.world import World, documents, level, simulate, write

LATEST = {"name": "notes", "history": "latest"}


def of_status(node: Node, *keys: str) -> tuple[Any, ...]:
    (collection,) = node.status()["collections"]
    return tuple(collection[key] for key in keys)


async def write_often(node: Node, *ids: str, times: int = 30) -> None:
    for number in range(times):
        await write(node, *ids, n=number, note="overwritten" if number < times - 1 else "present")


def test_what_was_overwritten_never_crosses(frames: list[bytes]) -> None:
    """Otherwise whoever wants to know how things stand pays for how they ever stood."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write_often(a, "d", "e")
        await write(a, "gone", note="overwritten")
        await a.collection("notes").delete("gone")
        b = await world.start(2, peers=[1], collections=[LATEST])
        await level(a, b)
        assert documents(b) == documents(a)
        assert set(documents(b)) == {"d", "e"}
        assert not any(b"overwritten" in frame for frame in frames)
        assert of_status(b, "history", "superseded", "entries") == ("latest", 59, 62)
        c = await world.start(3, peers=[2])  # wants the whole history, of which this peer has nothing
        await level(b, c)
        assert documents(c) == documents(a)
        assert of_status(c, "history", "superseded") == ("full", 59)
        await c.connect(a.id, [world.machine(1).address])
        await level(a, b, c)
        with trio.fail_after(60):
            await c.sync.progressed.wait_until(lambda: of_status(c, "superseded") == (0,))
        assert any(b"overwritten" in frame for frame in frames)

    simulate(scenario)


def test_the_history_changes_on_the_connection_as_it_is() -> None:
    """Otherwise whoever needs the past of a collection after all has to leave it first."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write_often(a, "d")
        b = await world.start(2, peers=[1], collections=[])
        async with b.sync.subscribe("notes", history="latest") as subscription:
            await subscription.wait_synced()
            assert of_status(b, "superseded") == (29,)
            async with b.sync.subscribe("notes", history=History.FULL) as other:  # who wants more counts
                await other.wait_synced()
                assert of_status(b, "history", "superseded") == ("full", 0)
            assert of_status(b, "history") == ("latest",)
            subscription.choose(Query.parse("n>100"), history="full")
            await subscription.wait_synced()
            assert of_status(b, "history", "documents") == ("full", 0)
        assert b.sync.stats().links == 1

    simulate(scenario)


def test_the_history_outlives_a_restart_and_a_power_cut() -> None:
    """Otherwise the first start after an upgrade fetches all that nobody asked for."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1], collections=[])
        await b.join("notes", history="latest")
        await write_often(a, "d")
        await level(a, b)
        await world.stop(2)
        await write_often(a, "d")
        b = await world.start(2, peers=[1], collections=[])
        await level(a, b)
        assert documents(b) == documents(a)
        assert of_status(b, "history")[0] == "latest"
        before = of_status(b, "superseded")[0]
        await world.kill(2, power_cut=True)
        await write_often(a, "d")
        b = await world.start(2, peers=[1], collections=[])
        await level(a, b)
        assert documents(b) == documents(a)
        assert of_status(b, "superseded")[0] >= before + 29
        await b.join("notes", history="full")
        await level(a, b)
        assert of_status(b, "history", "superseded") == ("full", 0)

    simulate(scenario)


def test_who_keeps_nothing_of_the_past_does_not_fetch_it(frames: list[bytes]) -> None:
    """Otherwise a node brings over the network what it then drops."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write_often(a, "d")
        b = await world.start(2, peers=[1], collections=[{"name": "notes", "retain": "latest"}])
        await level(a, b)
        assert of_status(b, "history", "superseded") == ("latest", 29)
        assert not any(b"overwritten" in frame for frame in frames)

    simulate(scenario)


def test_conflicts_stay_to_be_seen_and_deletes_deleted() -> None:
    """Otherwise a node that fetches less decides a conflict that nobody decided, or brings back what is gone."""

    async def scenario(world: World) -> None:
        manual = {"name": "notes", "conflicts": "manual"}
        a = await world.start(1, collections=[manual])
        b = await world.start(2, collections=[manual])
        for node in (a, b):
            for number in range(5):
                await write(node, "d", n=number, by=str(node.id.hex()[:4]))
                await write(node, "gone", n=number)
        await b.connect(a.id, [world.machine(1).address])
        await level(a, b)
        await a.collection("notes").delete("gone")
        await level(a, b)
        c = await world.start(3, peers=[1, 2], collections=[{**manual, "history": "latest"}])
        await level(a, b, c)
        assert documents(c) == documents(a)
        assert "gone" not in documents(c)
        conflicts = [list(node.collection("notes").conflicts()) for node in (a, c)]
        assert conflicts[0] == conflicts[1]
        assert [one.id for one in conflicts[1]] == ["d"]

    simulate(scenario)


def test_what_enters_a_part_later_brings_its_past() -> None:
    """Otherwise the history of a document waits, where it is wanted, until the peer that has it connects again."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write_often(a, "d", "e", "f")
        b = await world.start(2, peers=[1], collections=[LATEST])
        await level(a, b)
        limits = replace(LIMITS, part_slice_documents=1)
        part = {"name": "notes", "where": ["team=blue"]}
        c = await world.start(3, peers=[2], collections=[part], limits=limits)
        await level(b, c)
        await c.connect(a.id, [world.machine(1).address])
        await level(a, b, c)
        assert of_status(c, "documents", "superseded") == (0, 87)
        await a.collection("notes").patch("d", {"team": "blue"})
        await level(a, b, c)
        assert of_status(c, "documents", "superseded") == (1, 58)
        await a.collection("notes").patch("e", {"team": "green"})
        await level(a, b, c)
        await c.join("notes", Query.field("n") == 29)
        await level(a, b, c)
        assert of_status(c, "documents", "superseded") == (3, 0)

    simulate(scenario)


def test_the_latest_of_a_part_is_shown_as_soon_as_it_is_sure(frames: list[bytes]) -> None:
    """Otherwise who is told that something is superseded waits for a comparison of roots to show what it is made of."""

    async def scenario(world: World) -> None:
        limits = replace(LIMITS, root_check_seconds=36_000.0)
        a = await world.start(1, limits=limits)
        b = await world.start(2, peers=[1], collections=[{**LATEST, "where": ["team=blue"]}], limits=limits)
        notes = a.collection("notes")
        await write(a, "d", team="red")
        for n in range(5):
            await notes.patch("d", {"n": n, "note": "overwritten" if n < 4 else "present"})
        await level(a, b)
        assert documents(b) == {}
        cursor = b.collection("notes").cursor()
        await notes.patch("d", {"team": "blue"})
        await level(a, b)
        assert documents(b) == documents(a)
        assert not any(b"overwritten" in frame for frame in frames)
        async with aclosing(b.collection("notes").changes(since=cursor)) as changes:
            change = await anext(changes)
        assert (change.kind, change.document) == ("put", documents(b)["d"])

    simulate(scenario)
