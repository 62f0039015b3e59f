"""Introductions: nodes that have too few links learn from the summaries where others are."""

from __future__ import annotations

import trio

from meshsync.core.limits import LIMITS
from meshsync.node import Node
from tests.stack.test_summaries import heard_by_all
from tests.stack.world import World, events, level, simulate, write

KEY = b"k" * 32


async def star(world: World, leaves: int, *, exchange: bool = True, trust: str = "open") -> list[Node]:
    """Nodes that know of nobody but node 1, which begins no connection."""
    key = KEY if trust == "mesh-key" else None
    nodes = [await world.start(1, exchange=exchange, trust=trust, mesh_key=key)]
    more = [
        await world.start(number, peers=[1], exchange=exchange, trust=trust, mesh_key=key)
        for number in range(2, leaves + 2)
    ]
    return [*nodes, *more]


async def linked(nodes: list[Node], wanted: int = LIMITS.links_wanted) -> None:
    """Wait until each node has enough links."""
    with trio.fail_after(120):
        for node in nodes:
            await node.sync.progressed.wait_until(lambda node=node: len(node.sync.links) >= wanted)  # type: ignore[misc]


def test_the_leaves_of_a_star_hold_on_to_each_other_when_the_hub_goes() -> None:
    """Otherwise a mesh that began around one node ends with it."""

    async def scenario(world: World) -> None:
        nodes = await star(world, 6)
        await linked(nodes[1:])
        assert {peer["via"] for peer in nodes[3].peers()} >= {"static", "mesh"}
        await trio.sleep(120)
        links = sum(len(node.sync.links) for node in nodes) / 2
        assert links <= len(nodes) * LIMITS.links_wanted, "more were dialled than were wanted"
        await world.kill(1)
        await write(nodes[1], "after")
        await trio.sleep(LIMITS.idle_seconds_max + 10)
        await level(*nodes[1:])
        assert all(node.collection("notes").get("after") for node in nodes[1:])

    simulate(scenario)


def test_nobody_is_introduced_where_it_is_switched_off() -> None:
    """Otherwise an owner cannot say who is linked with whom; nor may such a node be told of to others."""

    async def scenario(world: World) -> None:
        nodes = await star(world, 3, exchange=False)
        curious = await world.start(5, peers=[1], exchange=True)
        await heard_by_all([*nodes, curious], lambda found: len(found) == 5)
        await trio.sleep(120)
        assert [len(node.sync.links) for node in [*nodes, curious]] == [4, 1, 1, 1, 1]
        facts = nodes[1].sync.summaries.gossip.facts(nodes[1].sync.replica("notes").id)
        told = {fact.signed.summary.name for fact in facts if fact.signed.summary.addresses}
        assert told == {"node 5"}
        (curious_there,) = [one for one in nodes[1].graph()["nodes"] if one["name"] == "node 5"]
        assert curious_there["addresses"] == [world.machine(5).address]

    simulate(scenario)


def test_holders_of_the_mesh_key_are_introduced() -> None:
    """It is the way in which most meshes are run."""

    async def scenario(world: World) -> None:
        await linked(await star(world, 3, trust="mesh-key"))

    simulate(scenario)


def test_strangers_are_not_dialled_in_a_closed_mesh() -> None:
    """Otherwise a peer makes this node knock at doors of its choice, and its owner is asked about strangers."""

    async def scenario(world: World) -> None:
        hub = await world.start(1, trusts=[2, 3, 4], trust="closed", exchange=True)
        two = await world.start(2, peers=[1], trusts=[3], trust="closed", exchange=True)
        three = await world.start(3, peers=[1], trusts=[2], trust="closed", exchange=True)
        four = await world.start(4, peers=[1], trust="closed", exchange=True)
        await linked([two, three], 2)
        await trio.sleep(120)
        assert [len(node.sync.links) for node in (hub, two, three, four)] == [3, 2, 2, 1]
        assert not any(node.trust.knocks for node in (hub, two, three, four))
        assert not events(two, "pending", "dial_failed")

    simulate(scenario)


def test_one_that_cannot_be_reached_is_given_up_for_another() -> None:
    """Otherwise the dead, who are told of for hours, take the place of the living."""

    async def scenario(world: World) -> None:
        nodes = await star(world, 5)
        hub, *leaves = nodes
        late = await world.start(8, peers=[1], exchange=True)
        for number in (2, 3):
            world.cut(8, number)
        await linked([late], 3)
        assert hub.id in late.sync.links
        assert len({leaf.id for leaf in leaves[2:]} & set(late.sync.links)) >= 2

    simulate(scenario)


def test_a_pair_is_content() -> None:
    """Two nodes have nobody else to look for, and must not look for each other again and again."""

    async def scenario(world: World) -> None:
        nodes = await star(world, 1)
        await level(*nodes)
        await trio.sleep(600)
        assert [len(events(node, "connected")) for node in nodes] == [1, 1]
        assert not events(nodes[0], "dial_failed")

    simulate(scenario)


class _StandsStill(trio.abc.Instrument):
    """Ends a scenario in which tasks run on and on while no time passes: virtual time never goes on by itself then."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        self._steps = 0
        self._at = 0.0
        self.spun = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  trio's signature
        now = trio.current_time()
        self._steps = self._steps + 1 if now == self._at else 0
        self._at = now
        if self._steps > 50_000:
            self.spun = True
            self._scope.cancel()


def test_who_cannot_be_reached_is_left_alone_without_a_spin() -> None:
    """A rest that was over set an alarm in the past: the node took all of a processor until the next introduction."""

    async def scenario(world: World) -> None:
        with trio.CancelScope() as scope:
            instrument = _StandsStill(scope)
            trio.lowlevel.add_instrument(instrument)
            nodes = await star(world, 2)
            await heard_by_all(nodes, lambda found: len(found) == len(nodes))
            for number in (2, 3):
                world.cut(1, number)
            world.cut(2, 3)
            await trio.sleep(1800)
        trio.lowlevel.remove_instrument(instrument)
        assert not instrument.spun

    simulate(scenario)
