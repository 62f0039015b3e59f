"""Two and more whole nodes: what one writes, the others have, whatever the network does."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsync.node import Node
from tests.simnet import LinkProfile
from tests.stack.world import World, documents, events, level, simulate, until, write

BAD = LinkProfile(latency_seconds=0.04, jitter_seconds=0.03, loss=0.05, duplication=0.05)
SEEDS = st.integers(0, 2**32)


def test_a_new_node_gets_everything() -> None:
    """Otherwise bootstrap is broken."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await write(a, *(f"n{number}" for number in range(1500)))
        b = await world.start(2, peers=[1])
        await level(a, b)
        assert documents(b) == documents(a)
        assert len(documents(b)) == 1500

    simulate(scenario)


def test_what_the_dialer_has_goes_out_at_once() -> None:
    """Otherwise it waits for the next comparison of roots, half a minute later."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2)
        await write(a, "of a")
        await write(b, "of b")
        await b.connect(a.id, [world.machine(1).address])
        with trio.fail_after(1):
            await level(a, b)
        assert set(documents(a)) == {"of a", "of b"}

    simulate(scenario)


def test_a_write_reaches_the_peers_at_once() -> None:
    """Otherwise live push waits for a timer."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        changes = b.collection("notes").changes()
        began = trio.current_time()
        async with aclosing(changes):
            await write(a, "n1")
            change = await anext(changes)
        assert change.id == "n1"
        assert trio.current_time() - began < 0.1

    simulate(scenario)


def test_synced_is_not_said_before_the_peer_has_the_last_write() -> None:
    """Otherwise whoever writes and then waits for `synced` goes on too early."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        for number in range(40):
            await write(a, f"n{number}")
            assert not a.sync.is_synced()
            await a.sync.wait_synced()
            assert f"n{number}" in documents(b)

    simulate(scenario)


def test_a_stream_of_writes_does_not_flood_the_events() -> None:
    """Otherwise `synced`, told after every write, pushes out of the log what the owner has to know."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        for number in range(200):
            await write(a, f"n{number}")
            await a.sync.wait_synced()
        assert len(events(a, "synced")) == len(events(b, "synced")) == 1
        world.cut(1, 2)
        await write(a, "parted")
        await trio.sleep(5)
        world.net.heal()
        await level(a, b)
        assert len(events(a, "synced")) == 2

    simulate(scenario)


def test_a_returning_node_gets_only_what_it_missed() -> None:
    """Otherwise every reconnection costs the whole history."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await write(a, *(f"n{number}" for number in range(800)))
        await level(a, b)
        await world.stop(2)
        await write(a, "late")
        b = await world.start(2, peers=[1])
        await level(a, b)
        assert "late" in documents(b)
        assert b.sync.stats().pulled == 1
        assert a.peers()[0]["bytes_sent"] < 20_000

    simulate(scenario)


def test_both_write_while_parted_and_both_have_all() -> None:
    """Otherwise a partition loses writes, or leaves a conflict decided differently on each side."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        b = await world.start(2, peers=[1])
        await write(a, "shared", "mine")
        await level(a, b)
        world.cut(1, 2)
        await write(a, "shared", "a1", side="a")
        await write(b, "shared", "b1", side="b")
        await b.collection("notes").delete("mine")
        await trio.sleep(600)
        assert events(a, "disconnected")
        assert not a.sync.is_synced()
        world.net.heal()
        await level(a, b)
        assert documents(a) == documents(b)
        assert set(documents(a)) == {"shared", "a1", "b1"}
        shared = [node.collection("notes").get("shared") for node in (a, b)]
        assert shared[0] is not None
        assert shared[1] is not None
        assert replace(shared[0], revision=shared[1].revision) == shared[1]  # which write came last is each node's own
        assert shared[0].conflict

    simulate(scenario)


@settings(max_examples=8)
@given(seed=SEEDS)
def test_a_bad_network_costs_time_only(seed: int) -> None:
    """Otherwise loss, duplication or reordering loses an entry or ends a session for good."""

    async def scenario(world: World) -> None:
        async def write_now_and_then(node: Node) -> None:
            for number in range(30):
                await write(node, f"{node.name} {number}")
                await trio.sleep(world.rng.expovariate(20))

        a = await world.start(1, peers=[2])
        b = await world.start(2, peers=[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_now_and_then, a)
            nursery.start_soon(write_now_and_then, b)
        await level(a, b)
        assert len(documents(a)) == 60
        assert documents(a) == documents(b)

    simulate(scenario, seed=seed, profile=BAD)


def test_a_cut_in_one_direction_heals() -> None:
    """Otherwise a link on which one side hears nothing stays half open for ever."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        b = await world.start(2)
        await write(a, "before")
        await level(a, b)
        for first, second in ((1, 2), (2, 1)):
            world.cut(first, second, one_way=True)
            await write(a, f"during {first}")
            await write(b, f"during {first} too")
            await until(a, "disconnected", first)
            world.net.heal()
            await level(a, b)
        assert len(documents(b)) == 5
        assert documents(a) == documents(b)

    simulate(scenario)


def test_news_is_relayed_along_a_line() -> None:
    """Otherwise nodes that do not see each other never agree: news stops at the first neighbour."""

    async def scenario(world: World) -> None:
        await world.start(1)
        for number in (2, 3, 4):
            await world.start(number, peers=[number - 1])
        await write(world.node(1), "from the first")
        await write(world.node(4), "from the last")
        await level(*(world.node(number) for number in (1, 2, 3, 4)))
        for number in (1, 2, 3, 4):
            assert set(documents(world.node(number))) == {"from the first", "from the last"}

    simulate(scenario)


def test_a_full_mesh_of_five_settles_and_falls_silent() -> None:
    """Otherwise entries are echoed, or lost, where there are several ways."""

    async def scenario(world: World) -> None:
        numbers = range(1, 6)
        for number in numbers:
            await world.start(number, peers=[other for other in numbers if other != number])
        nodes = [world.node(number) for number in numbers]
        for node in nodes:
            await write(node, *(f"{node.name} {number}" for number in range(20)))
        await level(*nodes)
        assert len({tuple(sorted(documents(node))) for node in nodes}) == 1
        assert len(documents(nodes[0])) == 100
        pushed = [node.sync.stats().pushed for node in nodes]
        await trio.sleep(120)
        assert [node.sync.stats().pushed for node in nodes] == pushed

    simulate(scenario)


def test_a_killed_node_keeps_its_log_and_loses_nothing() -> None:
    """Otherwise every kill of a container costs a log, or what was acknowledged."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await write(a, "n1")
        await level(a, b)
        await write(a, "n2")
        await world.kill(1)
        a = await world.start(1)
        await write(a, "n3")
        await level(a, b)
        assert set(documents(b)) == {"n1", "n2", "n3"}
        assert a.status()["collections"][0]["logs"] == 1
        assert not events(b, "fork")

    simulate(scenario)


@settings(max_examples=6)
@given(seed=SEEDS)
def test_a_power_cut_never_forks(seed: int) -> None:
    """Otherwise a machine that lost its last instants signs other entries with the same numbers."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        for turn in range(4):
            kept = f"kept {turn}"
            await write(a, kept)
            await write(a, f"perhaps {turn}")
            await trio.sleep(world.rng.uniform(0, 0.05))
            await world.kill(1, power_cut=True)
            a = await world.start(1)
            assert kept in documents(a)
        await write(a, "last")
        await level(a, b)
        assert documents(a) == documents(b)
        assert not events(a, "fork")
        assert not events(b, "fork")

    simulate(scenario, seed=seed)
