"""Twelve whole nodes on a bad network: cut off, killed, started anew and moved while they write."""

from __future__ import annotations

import os

import pytest
import trio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.leaks import census, nothing_left
from tests.simnet import LinkProfile
from tests.stack.ordeal import Ordeal
from tests.stack.world import PORT, World, documents, level, simulate, until

COUNT = 12
PEERS = {number: [1 + (number - 1 + step) % COUNT for step in (1, -1, COUNT // 2)] for number in range(1, COUNT + 1)}
"""Whom a node names: two on a ring, and one across it.  Each of a pair names the other."""
STEPS = 60
HEAL_SECONDS_MAX = 300
SETTLE_SECONDS = 60
"""Longer than a connection lives that one end has given up without a word."""
TOLD_SECONDS_MAX = 900
"""So long summaries of so many restarts may wait, each with a timer: a lazy link passes one on every half minute."""
PHASES = (Phase.explicit, Phase.generate)
BAD = LinkProfile(latency_seconds=0.03, jitter_seconds=0.03, loss=0.04, duplication=0.02)


class Churn(Ordeal):
    """One run."""

    pauses = (0, 0.01, 0.1, 1, 3, 12)
    writes = (1, 1, 3, 10)
    sizes = (0, 10, 3000)

    def __init__(self, world: World) -> None:
        super().__init__(world, PEERS)
        self.cuts = self.ends = self.moves = 0
        self.rebound: int | None = None

    async def befall(self, number: int, choice: float) -> None:
        """See `Ordeal.befall`."""
        if choice < 0.45:
            await self.write(number)
        elif choice < 0.65:
            other = self.rng.choice(PEERS[number])
            self.cuts += 1
            self.world.cut(number, other, one_way=self.rng.random() < 0.4)
        elif choice < 0.75:
            self.world.net.heal()
        elif choice < 0.95:
            await self.end(number)
        else:
            self.rebind(number)

    async def end(self, number: int) -> None:
        """End a node somehow; it may come back elsewhere, and mostly does soon."""
        self.ends += 1
        if self.rebound == number:
            self.rebound = None
        match self.rng.randrange(3):
            case 0:
                await self.stop(number)
            case how:
                await self.kill(number, power_cut=how == 1)
        if self.rng.random() < 0.3:
            self.moves += 1
            self.world.move(number, f"10.0.{self.moves}.{number}")
        if self.rng.random() < 0.6:
            await self.start(number)

    def rebind(self, number: int) -> None:
        """Another port in front of a node: of one at a time, because two such cannot find each other."""
        if self.rebound is None:
            self.world.net.rebind(self.world.machine(number).host, PORT, 5555)
            self.rebound = number
        else:
            self.world.net.rebind(self.world.machine(self.rebound).host, 5555, PORT)
            self.rebound = None

    async def heal(self) -> None:
        """All run and see each other: each pair that is to be connected is, all are level, nothing is lost."""
        if self.rebound is not None:
            self.rebind(self.rebound)
        await super().heal()
        with trio.fail_after(HEAL_SECONDS_MAX):
            await self.whole()
            await level(*self.nodes)
        await trio.sleep(SETTLE_SECONDS)
        assert self.is_whole()
        self.assert_sound()
        assert set(documents(self.nodes[0])) == self.acknowledged

    async def whole(self) -> None:
        """Wait until `is_whole`."""
        for _ in range(HEAL_SECONDS_MAX):
            if self.is_whole():
                return
            await trio.sleep(1)
        raise AssertionError("some pairs have no connection, or one at each end")

    def is_whole(self) -> bool:
        """Whether each pair that is to be connected has one connection, the same at both ends, and one session."""
        nodes = {number: self.world.node(number) for number in PEERS}
        for number, node in nodes.items():
            if len(node.sync.links) != len(PEERS[number]) or len(node.sync._exchanges) != len(node.sync.links):
                return False
            for other in PEERS[number]:
                ends = [nodes[one].sync.links.get(nodes[two].id) for one, two in ((number, other), (other, number))]
                if None in ends or len({end.connection.nonces for end in ends if end is not None}) != 1:
                    return False
        return True


def churn(seed: int) -> None:
    """One run: what is there when all is well again is what was there before."""

    async def scenario(world: World) -> None:
        churn = Churn(world)
        async with nothing_left():
            await churn.heal()
            async with nothing_left(TOLD_SECONDS_MAX):
                await churn.run(STEPS)
                await churn.heal()
            for number in PEERS:
                await world.stop(number)
        assert min(len(churn.acknowledged), churn.cuts, churn.ends) >= 3, "too little happened"

    simulate(scenario, seed=seed, profile=BAD)


def test_a_dial_that_failed_leaves_no_connection_in_memory() -> None:
    """Otherwise a node that knows many dead addresses keeps the buffers of a connection for each of them."""

    async def scenario(world: World) -> None:
        a = await world.start(1, peers=[2])
        await until(a, "dial_failed", 8)
        await trio.sleep(4)
        assert a.peers()[0]["state"] == "waiting"
        found = census()
        assert (found["object", "QuicConnection"], found["connection", "open"]) == (0, 0)

    simulate(scenario)


@settings(max_examples=2, phases=PHASES)
@given(seed=st.integers(0, 2**32))
def test_twelve_nodes_that_come_and_go_end_level_and_leave_nothing_behind(seed: int) -> None:
    """Otherwise some order of events leaves nodes apart, two connections with one peer, or tasks behind."""
    churn(seed)


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("CHURNS", "40")), phases=PHASES)
@given(seed=st.integers(0, 2**32))
def test_twelve_nodes_that_come_and_go_often(seed: int) -> None:
    """The same, for the rare ones.  CHURNS=N says how many."""
    churn(seed)
