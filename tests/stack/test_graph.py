"""The graph of a mesh, asked for at one node: who is there, who lags, what is in doubt, and how old each fact is."""

from __future__ import annotations

from typing import Any

import trio

from meshsync.core.limits import LIMITS
from meshsync.graph import SETTLED_SECONDS
from meshsync.node import Node
from tests.stack.stranger import NOTES
from tests.stack.test_summaries import heard_by_all, line, links_told
from tests.stack.world import World, level, simulate, until, write


def by_name(node: Node) -> dict[str, dict[str, Any]]:
    """The nodes that a node knows."""
    return {one["name"]: one for one in node.graph()["nodes"]}


def links(node: Node) -> dict[tuple[str, str], dict[str, Any]]:
    """The links that a node knows, by the names of their ends."""
    graph = node.graph()
    names = {one["id"]: one["name"] for one in graph["nodes"]}
    return {tuple(sorted((names[link["a"]], names[link["b"]]))): link for link in graph["links"]}


async def told(nodes: list[Node], ends: int) -> None:
    """Wait until every node knows so many ends of links."""
    await heard_by_all(nodes, lambda found: links_told(found) == ends)


def test_each_end_of_a_line_draws_the_whole_line() -> None:
    """Otherwise an operator has to ask every node in turn."""

    async def scenario(world: World) -> None:
        nodes = await line(world, 5)
        await told(nodes, 8)
        await write(nodes[4], "a", "b", "c")
        await heard_by_all(nodes, lambda found: all(one.entries == 3 for one in found.values()))
        await trio.sleep(100)
        for node, state in ((nodes[0], ["self", "connected", *["reachable"] * 3]), (nodes[2], None)):
            known = by_name(node)
            assert sorted(known) == [f"node {number}" for number in range(1, 6)]
            assert state is None or [known[f"node {number}"]["state"] for number in range(1, 6)] == state
            drawn = links(node)
            assert sorted(drawn) == [(f"node {number}", f"node {number + 1}") for number in range(1, 5)]
            assert all(link["state"] == "connected" and len(link["said_by"]) == 2 for link in drawn.values())
            assert all(link["rtt_ms"] > 0 and link["collections"] == ["notes"] for link in drawn.values())
            for one in known.values():
                (holding,) = one["holdings"]
                assert (holding["entries"], holding["documents"]) == (3, 3)
                assert (holding["equal"], holding["behind"], holding["ahead"], holding["exact"]) == (True, 0, 0, True)
        far = by_name(nodes[0])["node 5"]
        assert 100 <= far["age_s"] <= 130
        assert far["addresses"] == [], "the nodes of a test are not introduced to each other"
        assert links(nodes[0])["node 1", "node 2"]["age_s"] == 0
        assert links(nodes[0])["node 4", "node 5"]["age_s"] >= 100

    simulate(scenario)


def test_how_far_a_node_lags_is_said_exactly() -> None:
    """Otherwise one sees that the roots differ, and not whether by one entry or by a million."""

    async def scenario(world: World) -> None:
        nodes = await line(world, 3)
        await told(nodes, 4)
        await write(nodes[0], "a", "b")
        await heard_by_all(nodes, lambda found: all(one.entries == 2 for one in found.values()))
        for node in nodes:
            await node.sync.stop_sync()
        await write(nodes[0], "c", "d", "e")
        await write(nodes[2], "f")
        (holding,) = by_name(nodes[0])["node 3"]["holdings"]
        assert (holding["behind"], holding["ahead"], holding["exact"]) == (3, 0, True)
        for node in nodes:
            await node.sync.start_sync()
        await level(*nodes)
        await heard_by_all(nodes, lambda found: all(one.entries == 6 for one in found.values()))
        (holding,) = by_name(nodes[0])["node 3"]["holdings"]
        assert (holding["equal"], holding["behind"], holding["ahead"]) == (True, 0, 0)

    simulate(scenario)


def test_a_node_that_dies_is_out_of_reach_and_then_forgotten() -> None:
    """Otherwise the dead are drawn like the living."""

    async def scenario(world: World) -> None:
        nodes = await line(world, 5)
        await told(nodes, 8)
        await world.kill(4)
        living = nodes[:3]
        with trio.fail_after(LIMITS.idle_seconds_max + LIMITS.keepalive_seconds + 30):
            await heard_by_all(living, lambda found: len(found["node 3"].links) == 1)
        known, drawn = by_name(nodes[0]), links(nodes[0])
        assert [known[f"node {number}"]["state"] for number in range(1, 6)] == [
            *("self", "connected", "reachable"),
            *("unreachable", "unreachable"),
        ]
        assert known["node 4"]["age_s"] > 10
        gone = drawn["node 3", "node 4"]
        assert gone["state"] == "stale", "only the dead one says so"
        assert gone["age_s"] > 10
        assert (gone["said_by"], gone["denied_by"]) == ([world.id(4).hex()], [world.id(3).hex()])
        assert drawn["node 4", "node 5"]["state"] == "stale"
        await trio.sleep(3.1 * LIMITS.summary_refresh_seconds)
        assert sorted(by_name(nodes[0])) == ["node 1", "node 2", "node 3"]
        assert len(links(nodes[0])) == 2

    simulate(scenario)


def test_a_link_is_there_as_soon_as_this_node_sees_it() -> None:
    """What the other end said before must not call it disputed, and the peer out of reach, for the first seconds."""

    async def scenario(world: World) -> None:
        nodes = await line(world, 2)
        await told(nodes, 2)
        world.cut(1, 2)
        for node in nodes:
            await until(node, "disconnected")
        (gone,) = links(nodes[1]).values()
        assert gone["state"] in {"waiting", "dialing"}
        assert gone["rtt_ms"] is None
        world.join(1, 2)
        for node in reversed(nodes):
            await until(node, "connected", 2)
            (link,) = links(node).values()
            assert link["state"] == "connected"
            assert {one["state"] for one in by_name(node).values()} == {"self", "connected"}

    simulate(scenario)


def test_a_link_that_comes_or_goes_is_at_no_moment_disputed() -> None:
    """Otherwise whoever asks for the graph just then sees a fault where one end was only heard before the other."""

    async def scenario(world: World) -> None:
        a, b, _ = await line(world, 3)
        await told([a, b], 4)
        seen: set[str] = set()

        async def watch(node: Node) -> None:
            while True:
                seen.update(link["state"] for link in node.graph()["links"])
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, a)
            nursery.start_soon(watch, b)
            for number, peers in ((4, [3]), (5, [1, 2, 3])):
                node = await world.start(number, peers=peers)
                nursery.start_soon(watch, node)
                await trio.sleep(70)
                for peer in peers:
                    node.peering.disconnect(world.id(peer))
                await trio.sleep(70)
            nursery.cancel_scope.cancel()
        assert "connected" in seen
        assert "disputed" not in seen

    simulate(scenario)


def test_ends_that_keep_contradicting_each_other_are_both_named() -> None:
    """Otherwise a link that works in one direction only looks like any other."""

    async def scenario(world: World) -> None:
        a, b, c = await line(world, 3)
        await told([a, b, c], 4)
        c.sync.summaries.known_links = lambda _: {}  # type: ignore[method-assign, assignment]
        await write(c, "one")
        await trio.sleep(SETTLED_SECONDS + 5)
        assert links(a)["node 2", "node 3"]["state"] == "down"
        await write(b, "two")
        await heard_by_all([a, b, c], lambda found: all(one.entries == 2 for one in found.values()))
        link = links(a)["node 2", "node 3"]
        assert (link["state"], link["said_by"], link["denied_by"]) == ("disputed", [b.id.hex()], [c.id.hex()])

    simulate(scenario)


def test_a_peer_that_is_dialled_in_vain_is_drawn_as_such() -> None:
    """Otherwise the first peer that somebody configures is nowhere to be seen."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[7])
        await trio.sleep(60)
        (link,) = a.graph()["links"]
        assert (link["a"], link["b"]) == (a.id.hex(), world.id(7).hex())
        assert link["state"] in {"waiting", "dialing"}
        assert (link["said_by"], link["denied_by"], link["rtt_ms"]) == ([], [a.id.hex()], None)
        other = a.graph()["nodes"][1]
        assert (other["state"], other["age_s"], other["collections"]) == ("unreachable", None, [])

    simulate(scenario)


def test_a_peer_with_other_collections_is_drawn_without_them() -> None:
    """What a peer holds of what this node does not share is none of its business; that it is there, is."""

    async def scenario(world: World) -> None:
        a = await world.start(1, collections=["notes"])
        b = await world.start(2, peers=[1], collections=["other"])
        await b.sync.summaries.changed.wait_until(lambda: bool(b.sync.links))
        await trio.sleep(5)
        (near,) = [one for one in a.graph()["nodes"] if one["name"] == "node 2"]
        assert (near["state"], near["collections"], near["addresses"]) == ("connected", [], [])
        assert links(a)["node 1", "node 2"]["collections"] == []
        assert a.sync.subscribers(NOTES) == 1

    simulate(scenario)


def test_a_relay_is_drawn_and_draws() -> None:
    """Otherwise the node that holds two halves together is the one that nobody sees, or that fails when asked."""

    async def scenario(world: World) -> None:
        relay = await world.start(2, relay=True, collections=())
        a = await world.start(1, peers=[2])
        b = await world.start(3, peers=[2])
        await told([a, b], 4)
        for node in (a, relay, b):
            assert sorted(links(node)) == [("node 1", "node 2"), ("node 2", "node 3")]
            assert all(link["state"] == "connected" for link in links(node).values())
        assert by_name(a)["node 2"]["collections"] == ["notes"]
        assert by_name(relay)["node 3"]["holdings"][0]["equal"] is True

    simulate(scenario)
