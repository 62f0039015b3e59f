"""Everything at once, at random: three nodes that write, part, meet, stop, are killed, lose power, leave and join.

Whatever happened, once all of them run and see each other they hold the same, and all that was acknowledged.
"""

from __future__ import annotations

import os

import pytest
import trio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.simnet import LinkProfile
from tests.stack.ordeal import Ordeal
from tests.stack.world import World, level, simulate

STEPS = 40
PHASES = (Phase.explicit, Phase.generate)
"""A storm of fewer steps is another storm: there is nothing to be found by shrinking a seed."""
PARTS = 6
"""Of the many storms, each a test: one that takes as long as all of them together is taken for one that hangs."""
PEERS = {1: [2, 3], 2: [1], 3: [1, 2]}


class Storm(Ordeal):
    """One run."""

    pauses = (0, 0.005, 0.03, 0.3, 2, 20)
    writes = (1, 1, 3, 30)
    sizes = (0, 10, 10, 5000)

    async def befall(self, number: int, choice: float) -> None:
        """See `Ordeal.befall`."""
        if choice < 0.5:
            await self.write(number)
        elif choice < 0.62:
            first, second = self.rng.sample(tuple(self.peers), 2)
            self.world.cut(first, second, one_way=self.rng.random() < 0.5)
        elif choice < 0.74:
            self.world.net.heal()
        elif choice < 0.80:
            await self.stop(number)
        elif choice < 0.88:
            await self.kill(number, power_cut=self.rng.random() < 0.5)
        else:
            await self.leave_or_join(number)

    async def leave_or_join(self, number: int) -> None:
        node = self.world.node(number)
        if "notes" in node.collections():
            await node.leave("notes")
        else:
            await node.join("notes")

    async def heal(self) -> None:
        """See `Ordeal.heal`; all join."""
        await super().heal()
        for node in self.nodes:
            if "notes" not in node.collections():
                await node.join("notes")

    async def check(self) -> None:
        nodes = self.nodes
        with trio.fail_after(300):
            for node in nodes:
                for other in nodes:
                    if other is not node:
                        peer = node.peering._book.peer(other.id)
                        await peer.changed.wait_until(lambda peer=peer: peer.is_connected)  # type: ignore[misc]
                # Each has a session with each other: no more, no fewer.
                await node.sync.progressed.wait_until(lambda node=node: len(node.sync._exchanges) == 2)  # type: ignore[misc]
            await level(*nodes)
        self.assert_sound()
        for node in nodes:
            assert len(node.sync._exchanges) == 2


def brew(seed: int, is_bad: bool) -> None:
    """Run one storm."""

    async def scenario(world: World) -> None:
        storm = Storm(world, PEERS)
        for number in PEERS:
            await storm.start(number)
        await storm.run(STEPS)
        await storm.heal()
        await storm.check()

    bad = LinkProfile(latency_seconds=0.03, jitter_seconds=0.03, loss=0.05, duplication=0.03)
    simulate(scenario, seed=seed, profile=bad if is_bad else None)


@settings(max_examples=12, phases=PHASES)
@given(seed=st.integers(0, 2**32), is_bad=st.booleans())
def test_after_a_storm_all_hold_the_same(seed: int, is_bad: bool) -> None:
    """Otherwise some order of events leaves two nodes apart, or loses what was acknowledged."""
    brew(seed, is_bad)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@settings(max_examples=int(os.environ.get("STORMS", "300")) // PARTS, phases=PHASES)
@given(seed=st.integers(0, 2**32), is_bad=st.booleans())
def test_after_many_storms_all_hold_the_same(part: int, seed: int, is_bad: bool) -> None:
    """The same, for the rare ones."""
    brew(part * 2**33 + seed, is_bad)
