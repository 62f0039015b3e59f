"""Ring 1: readers of nodes that hold parts, while these get what they want from each other, change it, and die."""

from __future__ import annotations

import pytest

from meshsync.core.history import History
from meshsync.core.query import Query
from tests.choosy import ChoosyMesh, shown
from tests.readers import Reader
from tests.simnode import Node

WISHES = (None, Query.parse("n>4"), Query.parse("team=blue"))


class FollowedMesh(ChoosyMesh):
    """Every node has a reader, which reads some of what there is now and then."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.followers = {node.number: Reader(self.rng.choice(WISHES)) for node in self.mesh.nodes}
        self._weights = {**self._weights, self._read: 12, self._restart: 2, self._crash: self.rng.choice((0, 4))}

    def _read(self, node: Node) -> None:
        self.followers[node.number].read(node.replica, self.rng.choice((None, None, 1, 4)))

    def _restart(self, node: Node) -> None:
        """It wants something else when it comes back."""
        if node.number >= self.full:
            node.query = self.rng.choice((node.query, None, Query.parse("team=red")))
        self.mesh.kill(node)

    def _crash(self, node: Node) -> None:
        """The power goes right after its reader was told of something."""
        self._write(node)
        self._read(node)
        super()._crash(node)

    def _random_history(self) -> History:
        return History.FULL

    def check(self) -> None:
        """Whoever was told all has what is shown."""
        for node in self.mesh.nodes:
            reader = self.followers[node.number]
            reader.read(node.replica)
            reader.read(node.replica)  # from "0", where it was told of what a power cut took
            wish = Query() if reader.wish is None else reader.wish
            assert reader.has == {id: body for id, body in shown(node).items() if wish.matches(body, id)}, f"{node}"


@pytest.mark.parametrize("seed", range(8))
def test_readers_have_what_their_nodes_show(seed: int) -> None:
    """Otherwise a reader believes in what its node does not hold any more, or misses what it got late."""
    mesh = FollowedMesh(seed)
    for _ in range(80):
        mesh.step()
    mesh.heal()
    mesh.mesh.run(2.0)
    mesh.look_at_clocks()
    mesh.check()
