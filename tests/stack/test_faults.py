"""What is not the network's doing: wrong clocks, full disks, slow readers, and what is left when a node ends."""

from __future__ import annotations

from contextlib import aclosing

import pytest
import trio

from meshsync.core.rebuild import Skip
from meshsync.documents import Change
from meshsync.errors import LocalError, StoreError
from meshsync.ids import LogId
from meshsync.node import Node
from meshsync.store.replica import Applied
from tests.stack.world import World, documents, events, level, simulate, until, write

MINUTE_MS = 60_000


def test_entries_from_the_future_wait_and_are_taken_when_their_time_comes() -> None:
    """Otherwise a clock that is ahead spreads over the mesh, or keeps its entries away for good."""

    async def scenario(world: World) -> None:
        world.machine(2).skew_ms = 15 * MINUTE_MS
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await write(b, "n1")
        held = await until(a, "held")
        assert held.facts["author"] == b.id.hex()
        assert "ten minutes ahead" in held.facts["reason"]
        differs = await until(a, "clock_differs")
        assert differs.facts == {"peer": b.id.hex(), "seconds_ahead": 900}
        assert documents(a) == {}
        [collection] = a.status()["collections"]
        [why] = collection["held"].values()
        assert "ten minutes ahead" in why
        assert "ten minutes ahead" in collection["peers"][0]["stall"]
        assert not a.sync.is_synced()
        for number in range(12):
            await write(a, f"own {number}")
            await trio.sleep(0.7)
            assert f"own {number}" in documents(b), "what is held here must not hold up what goes there"
        await until(a, "released")
        assert 5 * 60 <= trio.current_time() <= 6 * 60
        await level(a, b)
        assert a.status()["collections"][0]["held"] == {}
        assert len(events(a, "held")) == len(events(a, "released")) == 1

    simulate(scenario)


def test_a_clock_within_the_bound_is_no_reason_to_wait() -> None:
    """Otherwise the bound is off by its unit."""

    async def scenario(world: World) -> None:
        world.machine(2).skew_ms = 10 * MINUTE_MS - 2000
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await write(b, "n1")
        with trio.fail_after(5):
            await level(a, b)
        assert not events(a, "held")

    simulate(scenario)


def test_a_peer_cannot_fill_the_list_of_holds() -> None:
    """Otherwise logs that nobody signed fill the memory and the status."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        replica = a.sync.replica("notes")
        for number in range(1000):
            log = LogId(world.id(2), number.to_bytes(8, "big"))
            a.sync.stored(replica, Applied(skipped={log: Skip.CLOCK}))
        assert len(a.sync.held(replica)) == len(events(a, "held")) == a.limits.held_logs_max
        await a.leave("notes")
        assert not a.sync.held(replica)

    simulate(scenario)


def test_a_full_disk_refuses_and_recovers_by_itself() -> None:
    """Otherwise a node with a full disk loses what its peers send, ends, or needs to be started again."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await write(a, "before")
        await level(a, b)
        world.machine(2).store.broken = "no space left on device"
        await write(a, *(f"n{number}" for number in range(50)))
        failed = await until(b, "store_failed")
        assert failed.facts["reason"] == "no space left on device"
        with pytest.raises(StoreError):
            await write(b, "refused")
        await trio.sleep(300)
        assert b.status()["store"]["fault"] == "no space left on device"
        assert b.sync.state("notes", a.id).stall == "no space left on device"
        assert not b.sync.is_synced()
        assert not a.sync.is_synced()
        assert set(documents(b)) == {"before"}
        assert len(events(b, "store_failed")) == 1
        world.machine(2).store.broken = ""
        with trio.fail_after(60):
            await level(a, b)
        assert documents(b) == documents(a)
        assert len(documents(b)) == 51
        assert b.status()["store"]["fault"] is None
        assert len(events(b, "store_recovered")) == 1
        for node in (a, b):
            assert len(events(node, "connected")) == 1
            assert not events(node, "failed", "peer_error", "disconnected")

    simulate(scenario)


def test_a_disk_that_fails_for_a_moment_costs_a_moment() -> None:
    """Otherwise what was refused is asked for again only when roots are compared, half a minute later."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        await trio.sleep(10)
        world.machine(2).store.broken = "no space left on device"
        await write(a, "n1")
        await until(b, "store_failed")
        world.machine(2).store.broken = ""
        with trio.fail_after(3):
            await level(a, b)

    simulate(scenario)


def test_the_last_space_is_left_to_the_writes_made_here() -> None:
    """Otherwise what peers send fills the disk up to where a node cannot write itself."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        world.machine(2).store.space_is_low = True
        await write(a, "of a")
        await until(b, "store_failed")
        await write(b, "of b")
        await trio.sleep(100)
        assert set(documents(b)) == {"of b"}
        assert set(documents(a)) == {"of a", "of b"}
        assert b.status()["store"]["fault"]
        world.machine(2).store.space_is_low = False
        with trio.fail_after(60):
            await level(a, b)
        assert documents(a) == documents(b)
        assert len(events(b, "store_failed")) == len(events(b, "store_recovered")) == 1

    simulate(scenario)


def test_what_was_not_synced_is_not_confirmed() -> None:
    """Otherwise a peer forgets what a power cut may still take."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        broken = [True]
        true_synced = b.store.synced

        async def synced() -> None:
            await trio.lowlevel.checkpoint()
            if broken[0]:
                raise StoreError("the disk hangs")
            await true_synced()

        b.store.synced = synced  # type: ignore[method-assign]
        await write(a, "n1")
        await until(b, "store_failed")
        await trio.sleep(10)
        assert "n1" in documents(b)
        assert not a.sync.is_synced()
        broken[0] = False
        with trio.fail_after(5):
            await level(a, b)

    simulate(scenario)


async def _follow(node: Node, since: str | None, count: int) -> list[Change]:
    found: list[Change] = []
    async with aclosing(node.collection("notes").changes(since=since)) as changes:
        while len(found) < count:
            found.append(await anext(changes))
    return found


def test_a_reader_goes_on_from_its_cursor_across_a_restart() -> None:
    """Otherwise a reader that was away misses changes, or sees them again."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await write(a, *(f"n{number}" for number in range(20)))
        first = await _follow(b, "0", 7)
        await world.stop(2)
        await write(a, *(f"m{number}" for number in range(20)))
        b = await world.start(2, peers=[1])
        rest = await _follow(b, first[-1].cursor, 33)
        seen = [change.id for change in first + rest]
        assert sorted(seen) == sorted(documents(a))
        with trio.move_on_after(10) as scope:
            await _follow(b, rest[-1].cursor, 1)
        assert scope.cancelled_caught
        with pytest.raises(LocalError):
            a.collection("notes").changes(since=rest[-1].cursor)

    simulate(scenario)


def test_a_slow_reader_loses_nothing_and_holds_up_nobody() -> None:
    """Otherwise a channel that drops stands between storing and showing, or a reader stops the mesh."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        changes = b.collection("notes").changes()
        ids = [f"n{number}" for number in range(1500)]
        await write(a, *ids)
        with trio.fail_after(10):
            await level(a, b)
        seen = []
        async with aclosing(changes):
            for _ in ids:
                seen.append((await anext(changes)).id)
                await trio.sleep(0.1)
        assert seen == ids

    simulate(scenario)


def test_nothing_is_left_behind() -> None:
    """Otherwise a program that opens and closes nodes fills up with tasks and sockets."""

    async def scenario(world: World) -> None:
        task = trio.lowlevel.current_task()
        assert task.parent_nursery is not None

        def tasks() -> int:
            root = trio.lowlevel.current_root_task()
            todo, count = [root], 0
            while todo:
                found = todo.pop()
                assert found is not None
                count += 1
                todo += [child for nursery in found.child_nurseries for child in nursery.child_tasks]
            return count

        before = tasks()
        for _ in range(3):
            a = await world.start(1, peers=[2, 3])
            b = await world.start(2, peers=[1])
            await level(a, b)
            await write(a, "n1")
            world.cut(1, 2)
            await write(a, "n2")
            await trio.sleep(world.rng.uniform(0, 40))
            world.net.heal()
            await trio.sleep(world.rng.uniform(0, 40))
            for number in (1, 2):
                await world.stop(number)
            assert tasks() == before
            assert not world.net._sockets

    simulate(scenario)
