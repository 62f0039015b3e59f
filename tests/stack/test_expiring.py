"""Nodes whose documents expire: each when it is time by its own clock, and all with the same documents then."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.core.policy import Policy
from meshsync.moments import time_of
from tests.stack.world import EPOCH_MS, World, documents, level, simulate

HOUR_MS = 3_600_000


def test_nodes_agree_on_what_is_shown_though_their_clocks_differ() -> None:
    """Each shows a document as long as its own clock says so, and all the same once the time has passed for all."""

    async def scenario(world: World) -> None:
        world.machine(2).skew_ms = 20_000
        world.machine(3).skew_ms = -20_000
        nodes = [await world.start(1), await world.start(2, peers=[1]), await world.start(3, peers=[1])]
        notes = [node.collection("notes") for node in nodes]
        await notes[0].put("a", {"n": 1}, expires="60s")
        await notes[0].put("b", {"n": 1})
        await level(*nodes)
        assert [*map(documents, nodes)] == [{"a": {"n": 1}, "b": {"n": 1}}] * 3
        await trio.sleep(45)
        assert [len(one) for one in notes] == [2, 1, 2]
        await trio.sleep(20)
        assert [len(one) for one in notes] == [1, 1, 2]
        # What a node writes tells the others how late it is.
        await notes[1].patch("b", {"n": 2})
        await level(*nodes)
        assert notes[2].get("a") is None
        await trio.sleep(11)
        assert [*map(documents, nodes)] == [{"b": {"n": 2}}] * 3
        await notes[2].patch("a", {"m": 1})
        await level(*nodes)
        assert [*map(documents, nodes)] == [{"a": {"m": 1}, "b": {"n": 2}}] * 3

    simulate(scenario)


def test_an_extension_that_was_cut_off_brings_the_document_back() -> None:
    """Whoever extended it in time goes on to show it, and so must all others once they hear of that."""

    async def scenario(world: World) -> None:
        a, b = await world.start(1), await world.start(2, peers=[1])
        await a.collection("notes").put("d", {"n": 1}, expires="60s")
        await level(a, b)
        world.cut(1, 2)
        await b.collection("notes").patch("d", {"m": 1}, expires="1h")
        kinds: list[str] = []

        async def follow() -> None:
            nonlocal kinds
            async with aclosing(a.collection("notes").changes()) as changes:
                async for change in changes:
                    kinds += [change.kind]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(120)
            assert (documents(a), documents(b)) == ({}, {"d": {"n": 1, "m": 1}})
            world.join(1, 2)
            await trio.sleep(120)
            await level(a, b)
            assert documents(a) == documents(b) == {"d": {"n": 1, "m": 1}}
            await trio.sleep(3600)
            assert documents(a) == documents(b) == {}
            assert kinds == ["removed", "patch", "removed"]
            nursery.cancel_scope.cancel()

    simulate(scenario)


def test_a_clock_that_is_set_is_noticed() -> None:
    """A machine without a battery for its clock starts in another year, and is set right later."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await a.collection("notes").put("d", {"n": 1}, expires="60s")
        world.machine(1).skew_ms = HOUR_MS
        await trio.sleep(11)
        assert documents(a) == {}
        world.machine(1).skew_ms = 0
        await trio.sleep(11)
        assert documents(a) == {"d": {"n": 1}}
        await trio.sleep(60)
        assert documents(a) == {}

    simulate(scenario)


def test_what_expired_while_a_node_was_off_is_gone_before_anybody_looks() -> None:
    """Otherwise every start shows for a moment what is not there any more."""

    async def scenario(world: World) -> None:
        a = await world.start(1)
        await a.collection("notes").put("d", {"n": 1}, expires="60s")
        cursor = a.collection("notes").cursor()
        await world.stop(1)
        await trio.sleep(61)
        a = await world.start(1)
        assert len(a.collection("notes")) == 0
        assert documents(a) == {}
        async with aclosing(a.collection("notes").changes(since=cursor)) as changes:
            change = await anext(changes)
        assert (change.kind, change.id, change.time) == ("removed", "d", time_of(EPOCH_MS + 60_000))

    simulate(scenario)


@pytest.mark.parametrize("policy", [Policy.LATEST, Policy.MANUAL])
def test_a_part_of_a_collection_loses_what_expires(policy: Policy) -> None:
    """An expired document matches nobody's query: it leaves every view, and is sent to nobody."""

    async def scenario(world: World) -> None:
        collection = {"name": "notes", "conflicts": policy.value}
        a = await world.start(1, collections=[collection])
        await a.collection("notes").put("gone", {"team": "blue", "text": "x" * 1000}, expires="10s")
        await a.collection("notes").put("soon", {"team": "blue"}, expires="60s")
        await trio.sleep(20)
        b = await world.start(2, peers=[1], collections=[{**collection, "where": ["team=blue"]}])
        await level(a, b)
        assert documents(b) == {"soon": {"team": "blue"}}
        assert b.sync.replica("notes").tables.counts()[2] == 1, "the payload of what has expired was sent"
        async with aclosing(b.collection("notes").changes()) as changes:
            await trio.sleep(60)
            change = await anext(changes)
        assert (change.kind, change.id) == ("removed", "soon")
        assert documents(b) == {}
        assert len(b.collection("notes")) == 0
        await a.collection("notes").put("soon", {"team": "blue", "n": 2})
        await level(a, b)
        assert documents(b) == {"soon": {"team": "blue", "n": 2}}

    simulate(scenario)


def test_what_lacks_of_what_has_expired_is_not_fetched() -> None:
    """Otherwise a node with a part fetches what nobody is shown, and drops it again, whenever something expires."""

    async def scenario(world: World) -> None:
        limits = replace(LIMITS, root_check_seconds=36_000.0, unwanted_seconds=36_000.0)
        a = await world.start(1, limits=limits)
        b = await world.start(2, peers=[1], collections=[{"name": "notes", "where": ["team=blue"]}], limits=limits)
        notes = a.collection("notes")
        await notes.put("d", {"team": "blue"}, expires="600s")
        await level(a, b)
        await notes.patch("d", {"team": "red"})
        await level(a, b)
        await notes.patch("d", {"n": 1})
        await level(a, b)
        replica = b.sync.replica("notes")
        assert (documents(b), replica.complete) == ({}, False)
        await trio.sleep(900)
        assert (replica.expiries.next_ms, replica.complete) == (None, False)
        await level(a, b)
        assert b.sync.is_synced()

    simulate(scenario)


def test_what_expired_is_dropped_where_a_part_is_wanted_and_comes_back_with_its_extension() -> None:
    """Otherwise nobody gets rid of what expired documents said, or an extension that comes late finds nothing of it."""

    async def scenario(world: World) -> None:
        a, c = await world.start(1), await world.start(3, peers=[1])
        # All documents match, and those that have expired do not.
        b = await world.start(2, peers=[1], collections=[{"name": "notes", "where": ["not dropped=true"]}])
        await a.collection("notes").put("d", {"n": 1}, expires="60s")
        await level(a, b, c)
        world.cut(1, 3)
        await c.collection("notes").patch("d", {"m": 1}, expires="3h")
        await trio.sleep(LIMITS.clock_ahead_ms_max / 1000 + 600)
        assert documents(b) == {}
        (entry,) = b.sync.replica("notes").scan_entries()
        assert entry.payload is None
        world.join(1, 3)
        await trio.sleep(120)
        await level(a, b, c)
        assert documents(a) == documents(b) == documents(c) == {"d": {"n": 1, "m": 1}}

    simulate(scenario)
