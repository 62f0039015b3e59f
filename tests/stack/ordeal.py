"""What befalls nodes at random, one thing after the other, and what has to hold once all is well again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import trio

from meshsync.errors import LocalError
from meshsync.node import Node
from tests.stack.world import World, documents, events


class Ordeal(ABC):
    """One run; the test says what happens, and how often.  The world's seed decides."""

    pauses: Sequence[float]
    """Between two things, in seconds."""
    writes: Sequence[int]
    """How many at once."""
    sizes: Sequence[int]
    """Of a document's text."""

    def __init__(self, world: World, peers: Mapping[int, Sequence[int]]) -> None:
        """`peers`: which nodes there are, and whom each names."""
        self.world = world
        self.rng = world.rng
        self.peers = peers
        self.running: set[int] = set()
        self.acknowledged: set[str] = set()
        self._written = 0

    @property
    def nodes(self) -> list[Node]:
        """All nodes; all run."""
        return [self.world.node(number) for number in self.peers]

    @abstractmethod
    async def befall(self, number: int, choice: float) -> None:
        """Let one thing happen to a node that runs; `choice` is drawn between 0 and 1."""

    async def run(self, steps: int) -> None:
        """Let so many things happen."""
        for _ in range(steps):
            choice = self.rng.random()
            number = self.rng.choice(tuple(self.peers))
            if number in self.running:
                await self.befall(number, choice)
            else:
                await self.start(number)
            await trio.sleep(self.rng.choice(self.pauses))

    async def start(self, number: int) -> None:
        """Start a node; it is told where the others are now."""
        await self.world.start(number, peers=self.peers[number])
        self.running.add(number)

    async def stop(self, number: int) -> None:
        """End a node as its owner would."""
        self.running.discard(number)
        await self.world.stop(number)

    async def kill(self, number: int, *, power_cut: bool) -> None:
        """End a node's process."""
        self.running.discard(number)
        await self.world.kill(number, power_cut=power_cut)

    async def write(self, number: int) -> None:
        """Write some documents, unless the node has left the collection."""
        for _ in range(self.rng.choice(self.writes)):
            self._written += 1
            id = f"{number}-{self._written}"
            body = {"by": number, "text": "x" * self.rng.choice(self.sizes)}
            try:
                await self.world.node(number).collection("notes").put(id, body)
            except LocalError:
                return
            self.acknowledged.add(id)

    async def heal(self) -> None:
        """Have all run, and see each other."""
        self.world.net.heal()
        for number in self.peers:
            if number not in self.running:
                await self.start(number)

    def assert_sound(self) -> None:
        """All hold the same, what was acknowledged is there, and nobody was blamed for anything."""
        nodes = self.nodes
        assert self.acknowledged <= set(documents(nodes[0]))
        for node in nodes:
            assert documents(node) == documents(nodes[0])
            assert not events(node, "failed", "fork", "peer_error"), node.name
