"""Policies for conflicts between real nodes: agreed by all, or noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from meshsync.core.entry import PUT, Operation
from meshsync.core.policy import UNDECIDED, Policy, collection_id
from meshsync.errors import LocalError
from meshsync.node import Node
from tests.stack.world import World, documents, events, faults, level, simulate


def put_unseen(n: int, *nodes: Node) -> None:
    """Each node writes a number of its own, before it can hear of the others'."""
    for number, node in enumerate(nodes):
        node.collection("notes").write_soon([Operation(PUT, "d", {"n": n + number})])


async def holds(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not condition():  # noqa: ASYNC110  virtual time
        await trio.sleep(0.1)


def differing(node: Node) -> list[tuple[str, str]]:
    """The peers that decide otherwise, as status tells it."""
    return [
        (one["id"], one["conflicts"]) for collection in node.status()["collections"] for one in collection["differing"]
    ]


@pytest.mark.parametrize(("policy", "shown"), [("greatest", 3), ("least", 1), ("manual", {UNDECIDED: [1, 2, 3]})])
def test_all_nodes_show_the_same(policy: str, shown: Any) -> None:
    """Otherwise the policy is an opinion of each node."""

    async def scenario(world: World) -> None:
        nodes = [await world.start(number, peers=range(1, number), collections=()) for number in (1, 2, 3)]
        for node in nodes:
            await node.join("notes", conflicts=policy)
        put_unseen(1, *nodes)
        with trio.fail_after(30):
            await level(*nodes)
        assert [documents(node) for node in nodes] == [{"d": {"n": shown}}] * 3
        await world.stop(3)
        third = await world.start(3, peers=[1], collections=())
        assert third.status()["collections"][0]["conflicts"] == policy
        assert documents(third) == {"d": {"n": shown}}
        await nodes[0].collection("notes").patch("d", {"n": 7})
        with trio.fail_after(30):
            await level(nodes[0], nodes[1], third)
        assert documents(third) == {"d": {"n": 7}}
        assert not differing(third)

    simulate(scenario)


@pytest.mark.parametrize("dialer_is_first", [True, False])
@pytest.mark.parametrize("connected_first", [True, False])
def test_nodes_that_decide_otherwise_notice_and_say_so(dialer_is_first: bool, connected_first: bool) -> None:
    """Otherwise two nodes wait for each other in silence, or show different values and call it synced."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=())
        b = await world.start(2, peers=[1], collections=())
        if connected_first:
            await holds(lambda: bool(a.sync.links and b.sync.links))
            await trio.sleep(1)
        first, second = (b, a) if dialer_is_first else (a, b)
        await first.join("notes", conflicts="greatest")
        await trio.sleep(1)
        await second.join("notes")
        put_unseen(1, a, b)
        with trio.fail_after(30):
            await holds(lambda: bool(differing(a) and differing(b)))
        assert differing(first) == [(second.id.hex(), "latest")]
        assert differing(second) == [(first.id.hex(), "greatest")]
        await trio.sleep(60)
        for node, other, here, there in ((first, second, "greatest", "latest"), (second, first, "latest", "greatest")):
            assert [event.facts for event in events(node, "policies_differ")] == [
                {"collection": "notes", "peer": other.id.hex(), "conflicts": here, "conflicts_there": there}
            ]
            assert faults(node)
            assert node.collection("notes").get("d") is not None
            assert len(list(node.log_entries("notes"))) == 1, "nothing was exchanged"
        with pytest.raises(LocalError, match="decides conflicts by `latest` here"):
            await second.join("notes", conflicts="greatest")
        await second.leave("notes")
        await second.join("notes", conflicts="greatest")
        with trio.fail_after(30):
            await level(a, b)
        assert differing(a) == differing(b) == []
        assert faults(a) == []
        assert faults(b) == []

    simulate(scenario)


def test_a_policy_is_asked_for_where_two_could_be_meant() -> None:
    """Otherwise joining again, without a word of the policy, shows an empty collection, or another one's documents."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=())
        await a.join("notes", conflicts=Policy.LEAST)
        await a.collection("notes").put("d", {})
        await a.leave("notes")
        await a.join("notes")
        assert documents(a) == {"d": {}}
        await a.join("notes", conflicts="least")
        await a.leave("notes")
        await a.join("notes", conflicts="latest")
        assert documents(a) == {}
        await a.leave("notes")
        with pytest.raises(LocalError, match="latest and least"):
            await a.join("notes")
        with pytest.raises(LocalError, match="there is no policy"):
            await a.join("notes", conflicts="newest")

    simulate(scenario)


def test_what_was_relayed_is_made_anew_when_its_policy_is_known() -> None:
    """A relay knows no names, hence no policies; its documents are wrong until it joins, and must not stay so."""

    async def scenario(world: World) -> None:
        relay = await world.start(1, relay=True, collections=())
        a = await world.start(2, peers=[1], collections=())
        b = await world.start(3, peers=[1], collections=())
        for node in (a, b):
            await node.join("notes", conflicts="greatest")
        put_unseen(1, b, a)
        for n in range(300):
            a.collection("notes").write_soon([Operation(PUT, f"n{n}", {"n": n})])
        with trio.fail_after(60):
            await holds(lambda: len(list(a.log_entries("notes"))) == len(list(b.log_entries("notes"))) == 302)
        await relay.join("notes")
        assert relay.sync.replica("notes").id == collection_id("notes", Policy.GREATEST), "it is here under its id"
        with trio.fail_after(60):
            await level(relay, a, b)
        assert documents(relay) == documents(a) == documents(b)
        assert documents(relay)["d"] == {"n": 2}
        assert len(relay.collection("notes")) == 301
        assert [one.id for one in relay.collection("notes").conflicts()] == ["d"]

    simulate(scenario)
