"""Nodes that let their past go: whole nodes, with the worker that does it."""

from __future__ import annotations

import pytest
import trio

from meshsync.core.retention import ALL, LATEST, Retention
from meshsync.errors import LocalError
from meshsync.store.memory_tables import MemoryTables
from tests.stack.world import World, documents, events, level, simulate, until, write

LATEST_NOTES = {"name": "notes", "retain": "latest"}


def payloads(world: World, number: int) -> int:
    """How many payloads a node has."""
    return sum(row.payload is not None for row in world.node(number).sync.replica("notes").scan_entries())


async def wait_dropped(world: World, number: int, left: int) -> None:
    """Wait until a node has so many payloads left."""
    for _ in range(100):
        if payloads(world, number) == left:
            return
        await trio.sleep(1)
    raise AssertionError(f"{payloads(world, number)} payloads are left")


def test_a_node_lets_go_what_its_peer_has_and_both_stay_equal() -> None:
    """Otherwise a small node fills up, or is out of sync for ever because it does not have everything."""

    async def scenario(world: World) -> None:
        small = await world.start(1, collections=[LATEST_NOTES])
        for number in range(20):
            await write(small, "d", n=number)
        await trio.sleep(60)
        assert payloads(world, 1) == 20
        assert small.status()["collections"][0]["let_go"] == {"payloads": 0, "bytes": 0, "waiting": 19}
        whole = await world.start(2, peers=[1])
        await level(small, whole)
        await wait_dropped(world, 1, 1)
        told = await until(small, "payloads_dropped")
        assert (told.facts["collection"], told.facts["entries"]) == ("notes", 19)
        let_go = small.status()["collections"][0]["let_go"]
        assert let_go == {"payloads": 19, "bytes": told.facts["bytes"], "waiting": 0}
        assert payloads(world, 2) == 20
        await write(whole, "d", n=99)
        await level(small, whole)
        assert documents(small) == documents(whole)
        assert len(small.collection("notes")) == 1
        # Who knows only this node gets the documents, and is in sync with it, though their past is nowhere to be had.
        await world.stop(2)
        third = await world.start(3, peers=[1])
        await level(small, third)
        assert documents(third) == documents(small)

    simulate(scenario)


def test_what_is_kept_is_remembered_and_can_be_changed() -> None:
    """Otherwise a restart drops what the owner wanted to keep, or keeps what is to go."""

    async def scenario(world: World) -> None:
        node = await world.start(1, collections=[])
        await node.join("notes", retain="30d")
        assert node.status()["collections"][0]["retain"] == "30d"
        with pytest.raises(LocalError, match="does not say what to keep"):
            await node.join("notes", retain="30")
        await node.join("notes")
        await world.kill(1)
        node = await world.start(1, collections=[])
        assert node.status()["collections"][0]["retain"] == "30d"
        await node.join("notes", retain="all")
        await world.kill(1)
        node = await world.start(1, collections=[])
        assert node.status()["collections"][0]["retain"] == "all"

    simulate(scenario)


def test_of_several_handles_all_is_kept_that_any_keeps() -> None:
    """Otherwise one program on a node takes from another one the past that it reads."""

    async def scenario(world: World) -> None:
        node = await world.start(1, collections=[])
        retaining = None
        async with node.sync.subscribe("notes", retain="10 entries") as first:
            retaining = node.sync.replica("notes").retaining
            assert retaining.retention == Retention(0, 10)
            async with node.sync.subscribe("notes", retain=Retention.parse("1d")):
                assert retaining.retention == Retention(86400, 10)
                async with node.sync.subscribe("notes"):
                    assert retaining.retention == ALL
            first.keep(LATEST)
            assert retaining.retention == LATEST

    simulate(scenario)


@pytest.mark.parametrize("other", ["latest", "all"])
def test_what_stands_for_a_payload_is_restored_though_the_payload_is_gone(other: str) -> None:
    """Otherwise one flipped bit in what was let go can never be mended, because nobody has what it stands for."""

    async def scenario(world: World) -> None:
        small = await world.start(1, collections=[LATEST_NOTES])
        peer = await world.start(2, peers=[1], collections=[{"name": "notes", "retain": other}])
        for number in range(6):
            await write(small, "d", n=number)
        await level(small, peer)
        await wait_dropped(world, 1, 1)
        if other == "latest":
            await wait_dropped(world, 2, 1)
        tables = small.sync.replica("notes").tables
        assert isinstance(tables, MemoryTables)
        tables.rot_entry(3, bare=b"\x84rot")
        assert [one.kind async for one in small.verify()] == ["fault"]
        assert "remains" not in [one.kind async for one in small.verify(repair=True)]
        await level(small, peer)
        await wait_dropped(world, 1, 1)
        assert [one async for one in small.verify()] == []
        assert documents(small) == documents(peer)

    simulate(scenario)


def test_a_sweep_that_a_power_cut_ends_goes_on() -> None:
    """Otherwise what was dropped and what was not are two stories, and documents are lost or payloads stay."""

    async def scenario(world: World) -> None:
        whole = await world.start(2)
        small = await world.start(1, peers=[2], collections=["notes"])
        for number in range(300):
            await write(whole, "d", f"other{number}", n=number)
        await level(small, whole)
        await world.kill(1)
        for _ in range(3):
            small = await world.start(1, peers=[2], collections=[LATEST_NOTES])
            retaining = small.sync.replica("notes").retaining
            assert retaining.step(0)
            await world.kill(1, power_cut=True)
        small = await world.start(1, peers=[2], collections=[LATEST_NOTES])
        await level(small, whole)
        await wait_dropped(world, 1, 301)
        assert documents(small) == documents(whole)
        assert not events(small, "damaged", "failed")
        assert [finding async for finding in small.verify()] == []

    simulate(scenario)
