"""Bit rot in a running mesh: told, never sent, and repaired from the peers."""

from __future__ import annotations

import random
from contextlib import aclosing
from typing import Any

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.errors import DamagedError
from meshsync.node import Node
from meshsync.store.memory_tables import MemoryTables
from tests.stack.world import World, documents, events, level, simulate, until, write
from tests.store.rows import scan_documents

IDS = [f"d{number}" for number in range(1, 8)]


def tables_of(node: Node) -> MemoryTables:
    """The tables of a node's collection, with the knobs that let them rot."""
    tables = node.sync.replica("notes").tables
    assert isinstance(tables, MemoryTables)
    return tables


async def findings(node: Node, *, repair: bool = False) -> list[tuple[str, str]]:
    """What `verify` says."""
    async with aclosing(node.verify(repair=repair)) as found:
        return [(finding.kind, finding.text) async for finding in found]


async def two(world: World) -> tuple[Node, Node]:
    """Two nodes that share seven documents, each an entry of the first."""
    a = await world.start(1)
    b = await world.start(2, peers=[1])
    await write(a, *IDS)
    await level(a, b)
    return a, b


def is_healthy(node: Node) -> bool:
    """Whether the status of a node tells of no damage."""
    return node.status()["store"]["fault"] is None


@pytest.mark.parametrize(
    ("rot", "fault"),
    [
        ({"payload": b"rot"}, "its payload is damaged"),
        ({"id": bytes(32)}, "it is damaged"),
        ({"hlc": 7}, "it is damaged"),
        ({"parents": bytes(12)}, "it is damaged"),
        ({"seal": bytes(64)}, "it is damaged"),
        ({"height": 77, "payload": b"rot"}, "it is damaged, and its payload as well"),
    ],
)
def test_damaged_entry_is_restored_from_a_peer(rot: dict[str, Any], fault: str) -> None:
    """Otherwise one flipped bit would cost the whole store."""

    async def scenario(world: World) -> None:
        a, b = await two(world)
        arrival = 3
        tables_of(b).rot_entry(arrival, **rot)
        found = await findings(b)
        assert [kind for kind, _ in found] == ["fault"]
        assert found[0][1].startswith("notes: entry 3")
        assert found[0][1].endswith(fault)
        assert not is_healthy(b)
        assert [event.facts["entry"] for event in events(b, "damaged")] == [3]
        (_, again), *done = await findings(b, repair=True)
        assert again == found[0][1]
        assert [kind for kind, _ in done] == ["repair"]
        assert is_healthy(b)
        assert await findings(b) == []
        assert documents(b) == documents(a)
        await level(a, b)
        assert events(a, "peer_error") == events(b, "peer_error") == []

    simulate(scenario)


def test_report_says_from_whom() -> None:
    """The owner wants to know whether it was restored, or only believed to be."""

    async def scenario(world: World) -> None:
        _, b = await two(world)
        tables_of(b).rot_entry(3, payload=b"rot")
        found = await findings(b, repair=True)
        assert ("repair", f"notes: entry 3: restored from peer {world.id(1).hex()[:8]}") in found
        assert [event.facts["entries"] for event in events(b, "repaired")] == [[3]]

    simulate(scenario)


def test_third_node_gets_nothing_damaged_and_all_after_the_repair() -> None:
    """The peer would be told a lie, and close the connection on this node."""

    async def scenario(world: World) -> None:
        a, b = await two(world)
        tables_of(b).rot_entry(4, payload=b"rot")
        world.cut(1, 3)
        c = await world.start(3, peers=[2])
        await until(b, "damaged")
        await until(b, "connected", 2)
        await trio.sleep(60)
        assert documents(c) == {}
        assert [session["stall"] for session in b.status()["collections"][0]["peers"] if session["stall"]] != []
        await findings(b, repair=True)
        await level(a, b, c)
        assert documents(c) == documents(a)
        assert [events(node, "peer_error") for node in (a, b, c)] == [[], [], []]

    simulate(scenario)


def test_node_that_starts_with_a_damaged_tip_is_completed_by_its_peers() -> None:
    """A wrong tip would look like a fork to everyone."""

    async def scenario(world: World) -> None:
        a, b = await two(world)
        tables = tables_of(b)
        await world.stop(2)
        tables.rot_entry(7, id=bytes(32))
        b = await world.start(2, peers=[1])
        await until(b, "repaired")
        await level(a, b)
        assert is_healthy(b)
        assert documents(b) == documents(a)
        assert await findings(b) == []
        assert events(a, "fork", "peer_error") == events(b, "fork", "peer_error") == []

    simulate(scenario)


def test_damaged_documents_are_made_anew() -> None:
    """No peer can send them."""

    async def scenario(world: World) -> None:
        a, b = await two(world)
        tables_of(b).rot_document("d2")
        with pytest.raises(DamagedError):
            documents(b)
        found = await findings(b)
        assert found == [("fault", "notes: document 'd2' is damaged")]
        assert not is_healthy(b)
        assert (await findings(b, repair=True))[1:] == [
            ("repair", "notes: 1 documents were made anew from their entries")
        ]
        assert documents(b) == documents(a)
        assert is_healthy(b)

    simulate(scenario)


def test_what_nobody_else_has_is_said_to_remain() -> None:
    """The owner has to know before throwing anything away."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write(a, *IDS)
        tables_of(a).rot_entry(3, payload=b"rot")
        tables_of(a).rot_document("d2")
        found = await findings(a, repair=True)
        assert ("repair", "notes: no peer is connected that has this collection") in found
        assert ("repair", "notes: entry 3: no connected peer has it") in found
        assert [text.split(" (")[0] for kind, text in found if kind == "remains"] == [
            "notes: entry 3",
            "notes: document 'd2' is damaged",
        ]
        assert "move its meshsync.db" in found[-1][1]
        assert not is_healthy(a)

    simulate(scenario)


def test_peer_without_the_payload_is_not_waited_for() -> None:
    """A repair would hang on it."""

    async def scenario(world: World) -> None:
        a, b = await two(world)
        for node in (a, b):
            tables_of(node).rot_entry(3, payload=b"rot")
        began = trio.current_time()
        found = await findings(b, repair=True)
        assert trio.current_time() - began < LIMITS.repair_seconds_max
        assert ("repair", "notes: entry 3: no connected peer has it") in found

    simulate(scenario)


def test_own_entry_comes_back_from_a_peer() -> None:
    """What was written here is repaired like anything else, and the log goes on."""

    async def scenario(world: World) -> None:
        a, b = await two(world)
        tables_of(a).rot_entry(3, hlc=5)
        tables_of(a).rot_entry(5, payload=b"rot")
        assert [kind for kind, _ in await findings(a, repair=True)].count("remains") == 0
        await write(a, "after")
        await level(a, b)
        assert documents(a) == documents(b)
        assert events(a, "fork") == events(b, "fork") == []

    simulate(scenario)


def test_damaged_entries_that_build_upon_each_other_are_restored_together() -> None:
    """Each log would wait for the other one to be mended first."""

    async def scenario(world: World) -> None:
        a, b = await two(world)
        c = await world.start(3, peers=[1, 2])
        await level(a, b, c)
        for node in (a, b, a, b):
            await write(node, f"after {node.name}")
            await level(a, b, c)
        rows = [entry.row for entry in tables_of(c).inspect_entries(1, 99)]
        rotten = [row.arrival for row in rows if row.seq == 1 or row.parents is not None]
        for arrival in rotten:
            tables_of(c).rot_entry(arrival, hlc=5)
        assert len(await findings(c)) == len(rotten) == 4
        assert [kind for kind, _ in await findings(c, repair=True)].count("remains") == 0
        await level(a, b, c)
        assert documents(c) == documents(a)
        assert events(c, "fork", "peer_error") == []

    simulate(scenario)


@pytest.mark.parametrize("seed", range(8))
def test_rot_anywhere_is_repaired_as_long_as_one_node_has_it(seed: int) -> None:
    """Damage of every kind on every node, while they write, stop and start: nobody blames anybody."""

    async def scenario(world: World) -> None:
        rng = random.Random(seed)
        for number in (1, 2, 3):
            await world.start(number, peers=range(1, number))
        for step in range(30):
            number = rng.randint(1, 3)
            chance = rng.random()
            if chance < 0.5:
                await write(world.node(number), f"d{rng.randrange(9)}", step=step)
            elif chance < 0.7:
                await world.stop(number)
                await world.start(number, peers=[other for other in (1, 2, 3) if other != number])
            elif all(is_sound(world.node(each)) for each in (1, 2, 3)):
                await level(*(world.node(each) for each in (1, 2, 3)))
                for _ in range(rng.randint(1, 4)):
                    rot(tables_of(world.node(number)), rng)
            elif chance < 0.85:
                await findings(world.node(number), repair=True)
            await trio.sleep(rng.random())
        for number in (1, 2, 3):
            await findings(world.node(number), repair=True)
        nodes = [world.node(number) for number in (1, 2, 3)]
        await level(*nodes)
        for node in nodes:
            assert await findings(node) == []
            assert documents(node) == documents(nodes[0])
            # A quick restart can look like a second process, which is nobody's lie.
            told = [event for event in events(node, "fork", "peer_error") if event.facts.get("code") != "INSTANCE"]
            assert told == []

    simulate(scenario, seed=seed)


def is_sound(node: Node) -> bool:
    """Whether nothing rotted on a node, known or not."""
    tables = tables_of(node)
    sound = all(entry.has_head and entry.has_body for entry in tables.inspect_entries(1, 999))
    return sound and tables.damaged_documents(b"", 999) == ([], None)


def rot(tables: MemoryTables, rng: random.Random) -> None:
    """Let an entry or a document of a node rot."""
    entries = tables.next_arrival() - 1
    if entries and rng.random() < 0.8:
        kinds: list[dict[str, Any]] = [
            {"payload": b"rot"},
            {"id": bytes(32)},
            {"hlc": 3},
            {"parents": bytes(12)},
            {"seal": bytes(64)},
        ]
        tables.rot_entry(rng.randint(1, entries), **rng.choice(kinds))
    elif found := [one.row.id for one in scan_documents(tables)]:
        tables.rot_document(rng.choice(found))
