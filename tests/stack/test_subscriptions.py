"""Which collections are replicated, how urgently, and what the engine says of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsync.core.priority import Priority
from meshsync.core.session_events import SessionState
from meshsync.errors import LocalError
from meshsync.ids import LogId
from tests.simnet import LinkProfile
from tests.stack.world import World, documents, events, faults, level, simulate, until, write

BAD = LinkProfile(latency_seconds=0.04, jitter_seconds=0.03, loss=0.08, duplication=0.05)


def test_a_subscription_lasts_as_long_as_its_handle() -> None:
    """Otherwise replication stops too early, or never."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=["notes", "logs"])
        b = await world.start(2, peers=[1])
        await write(a, "l1", collection="logs")
        with pytest.raises(LocalError):
            b.collection("logs")
        async with b.sync.subscribe("logs") as subscription:
            await subscription.wait_synced()
            assert set(documents(b, "logs")) == {"l1"}
        with pytest.raises(LocalError):
            b.collection("logs")
        with pytest.raises(LocalError):
            await subscription.wait_synced()
        await write(a, "l2", collection="logs")
        await trio.sleep(60)
        assert a.sync.state("logs", b.id).stall == "the peer does not subscribe to it"
        assert events(a, "disconnected") == []
        async with b.sync.subscribe("logs") as subscription:
            await subscription.wait_synced()
            assert set(documents(b, "logs")) == {"l1", "l2"}

    simulate(scenario)


def test_a_handle_that_is_closed_at_once_leaves_nothing_behind() -> None:
    """Otherwise a stream that was still being opened goes on for a collection that nobody wishes to have."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=["notes", "logs"])
        b = await world.start(2, peers=[1])
        await level(a, b)
        subscription = b.sync.subscribe("logs")
        subscription.open()
        subscription.close()
        await trio.sleep(1)
        assert [one.replica.name for one in b.sync._exchanges] == ["notes"]
        assert [one.replica.name for one in a.sync._exchanges] == ["notes"]
        async with subscription:
            await subscription.wait_synced()

    simulate(scenario)


def test_a_handle_that_wants_too_much_beside_another_changes_nothing() -> None:
    """Otherwise a collection is replicated for ever for a handle that was never open, and the other says it is new."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=[])
        first, second = (" or ".join(f"{field}{number}=1" for number in range(200)) for field in "xy")
        one, other = a.sync.subscribe("notes", first), a.sync.subscribe("notes", second)
        one.open()
        with pytest.raises(LocalError, match="more than 256 conditions"):
            other.open()
        interest = a.sync.replica("notes").interest
        assert interest is not None
        assert interest.query == one.query
        other = a.sync.subscribe("notes", "z=1")
        other.open()
        with pytest.raises(LocalError, match="more than 256 conditions"):
            other.choose(second, history="latest")
        assert (str(other.query), other.history) == ("z=1", None)
        other.choose(history="latest")
        other.close()
        one.close()
        assert a.sync.subscribed() == []

    simulate(scenario)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("priority", "there is no priority 5; there are critical, high, medium, low"),
        ("conflicts", "there is no policy for conflicts 5; there are latest, greatest, least, manual"),
        ("history", "there is no history 5; there are full, latest"),
        ("retain", "'5' does not say what to keep; expected all, latest, 30d, 12h or 10000 entries"),
    ],
)
def test_what_is_none_of_its_kind_is_refused(what: str, expected: str) -> None:
    """Otherwise a slip in a program shows much later, as an error of this package's own."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        wrong: dict[str, Any] = {what: 5}
        with pytest.raises(LocalError, match=f"^{expected}"):
            a.sync.subscribe("notes", **wrong)
        with pytest.raises(LocalError, match=f"^{expected}"):
            await a.join("notes", **wrong)

    simulate(scenario)


def test_the_last_of_several_handles_ends_it() -> None:
    """Otherwise one part of a program ends the replication of another."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=["logs"])
        b = await world.start(2, peers=[1], collections=[])
        async with b.sync.subscribe("logs", priority=Priority.LOW) as first:
            async with b.sync.subscribe("logs", priority=Priority.HIGH):
                assert b.sync.priority(b.sync.replica("logs")) is Priority.HIGH
                await first.wait_synced()
            assert b.sync.priority(b.sync.replica("logs")) is Priority.LOW
            await write(a, "l1", collection="logs")
            await level(a, b, collection="logs")
            first.close()
            first.close()
        assert b.collections() == []

    simulate(scenario)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), is_bad=st.booleans())
def test_leaving_and_joining_in_any_order_ends_in_sync(seed: int, is_bad: bool) -> None:
    """Otherwise a stream that ends while another begins leaves a collection without one for good."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        nodes = [a, b]
        for turn in range(12):
            node = world.rng.choice(nodes)
            if "logs" in node.collections():
                await node.leave("logs")
            else:
                await node.join("logs")
                for part in range(world.rng.choice([1, 1, 1, 8])):
                    await write(node, f"{node.name} {turn} {part}", collection="logs", text="x" * 50_000 * (part > 0))
            await trio.sleep(world.rng.choice([0, 0, 0.001, 0.01, 0.03, 0.2]))
        for node in nodes:
            if "logs" not in node.collections():
                await node.join("logs")
        with trio.fail_after(600 if is_bad else 10):
            await level(a, b, collection="logs")
        assert documents(a, "logs") == documents(b, "logs")
        await write(a, "last", collection="logs")
        await level(a, b, collection="logs")
        for node in nodes:
            assert len(events(node, "connected")) == 1
            assert not events(node, "disconnected", "failed", "peer_error")
            [link] = node.sync.links.values()
            assert len(link.exchanges) == 2
            assert len(node.sync._exchanges) == 2

    simulate(scenario, seed=seed, profile=BAD if is_bad else None)


def test_what_was_joined_is_joined_after_a_restart_and_what_was_left_is_not() -> None:
    """Otherwise a node forgets what its owner told it, or what the configuration no longer names stays for ever."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=["notes", "old"])
        await a.join("two words, naïve", priority=Priority.HIGH)
        await a.join("left")
        await a.leave("left")
        await a.join("notes", priority=Priority.CRITICAL)
        with pytest.raises(LocalError):
            await a.leave("never joined")
        await world.stop(1)
        a = await world.start(1, collections=["notes"])
        assert a.collections() == ["notes", "two words, naïve"]
        assert a.sync.priority(a.sync.replica("two words, naïve")) is Priority.HIGH
        await a.join("two words, naïve", priority=Priority.LOW)
        await world.stop(1)
        a = await world.start(1)
        assert a.sync.priority(a.sync.replica("two words, naïve")) is Priority.LOW

    simulate(scenario)


def test_a_stopped_sync_takes_and_gives_nothing_and_stays_connected() -> None:
    """Otherwise `stop_sync` stops one direction only, or costs the connection."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await level(a, b)
        await b.sync.stop_sync()
        assert not b.sync.is_syncing()
        assert b.status()["syncing"] is False
        await write(a, "of a", *(f"n{number}" for number in range(600)))
        await write(b, "of b")
        await trio.sleep(600)
        assert set(documents(b)) == {"of b"}
        assert "of b" not in documents(a)
        assert not b.sync.is_synced()
        with pytest.raises(LocalError, match="stopped"):
            await b.sync.force_sync()
        await b.sync.start_sync()
        assert b.sync.is_syncing()
        await level(a, b)
        assert documents(a) == documents(b)
        assert len(documents(a)) == 602
        for node in (a, b):
            assert len(events(node, "connected")) == 1
            assert not events(node, "disconnected")

    simulate(scenario)


def test_a_forced_round_says_what_it_did() -> None:
    """Otherwise `meshsync sync` reports nothing, or goes home before anything was asked."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        b = await world.start(2)
        await level(a, b)
        await write(a, "contested")
        await write(b, "contested", "of b")
        cycle = await a.sync.force_sync("notes")
        assert (cycle.pulled, cycle.conflicts, cycle.peers) == (2, 1, 1)
        assert documents(a) == documents(b)
        assert a.sync.stats().pushed == 1
        again = await a.sync.force_sync()
        assert (again.pulled, again.pushed, again.conflicts, again.peers) == (0, 0, 0, 1)
        with pytest.raises(LocalError):
            await a.sync.force_sync("unknown")
        world.cut(1, 2)
        with trio.fail_after(60):
            await a.sync.force_sync()

    simulate(scenario)


def test_states_and_sums() -> None:
    """Otherwise nobody can say with whom a node is in sync, and since when."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        assert a.sync.state("notes", world.id(2)).stall == "not connected"
        assert not a.sync.is_synced()
        await trio.sleep(1)
        assert faults(a)
        b = await world.start(2)
        await write(a, "n1", "n2")
        await level(a, b)
        state = a.sync.state("notes", b.id)
        assert (state.state, state.missing, state.unsent, state.stall) == (SessionState.SYNCED, 0, 0, None)
        assert state.last_synced is not None
        assert abs(state.last_synced - a.peers()[0]["since"]) < 1
        sums = a.sync.stats()
        assert (sums.pushed, sums.pulled, sums.links, sums.sessions) == (2, 0, 1, 1)
        assert faults(a) == []
        assert faults(b) == []
        status = a.status()
        assert status["synced"]
        assert status["collections"][0]["peers"][0]["state"] == "synced"
        world.cut(1, 2)
        await write(a, "n3")
        assert a.sync.state("notes", b.id).state is SessionState.PUSHING
        assert faults(a)
        await until(a, "disconnected")
        assert a.sync.stats().pushed == 3
        assert a.sync.stats().sessions == 0

    simulate(scenario)


def test_urgent_collections_go_first_and_none_is_starved() -> None:
    """Otherwise an alarm waits behind a bulk transfer, or the bulk never arrives."""
    slow = LinkProfile(latency_seconds=0.05, mtu_bytes=1472)

    async def scenario(world: World) -> None:
        names = ["bulk", "alarms"]
        a = await world.start(1, collections=names)
        await a.join("bulk", priority=Priority.LOW)
        await a.join("alarms", priority=Priority.CRITICAL)
        for name in names:
            await write(a, *(f"n{number}" for number in range(400)), collection=name, text="x" * 2000)
        b = await world.start(2, peers=[1], collections=names)
        done: list[str] = []

        async def wait(name: str) -> None:
            await b.sync.wait_synced([name])
            done.append(name)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(wait, name)
        assert done == ["alarms", "bulk"]

    simulate(scenario, profile=slow)


def test_setting_a_priority_needs_a_subscription() -> None:
    """Otherwise a slip in a name is taken for a wish."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        a.sync.set_priority("notes", Priority.CRITICAL)
        assert a.status()["collections"][0]["priority"] == "critical"
        with pytest.raises(LocalError):
            a.sync.set_priority("note", Priority.CRITICAL)

    simulate(scenario)


def test_cursors_say_what_is_held_of_each_origin() -> None:
    """Otherwise a program that follows origins misses entries or sees them twice."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        b = await world.start(2, peers=[1])
        await write(a, "n1", "n2")
        await write(b, "n3")
        await level(a, b)
        assert sorted(b.sync.cursors("notes").values()) == [2, 3]
        cursors: dict[LogId, int] = {}
        seen: list[str] = []
        while entries := b.sync.read_since("notes", cursors, limit=2):
            for entry in entries:
                assert entry.seq == cursors.get(entry.log, 1)
                cursors[entry.log] = entry.seq + 1
                assert entry.operations is not None
                seen += [operation.id for operation in entry.operations]
        assert sorted(seen) == ["n1", "n2", "n3"]
        assert cursors == b.sync.cursors("notes")
        waiting: list[dict[LogId, int]] = []

        async def wait() -> None:
            waiting.append(await b.sync.watch_cursors("notes"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(10)
            assert not waiting
            await write(a, "n4")
        assert waiting == [b.sync.cursors("notes")]
        assert await b.sync.watch_cursors("notes", {}) == b.sync.cursors("notes")

    simulate(scenario)
