"""A mesh of replicas and sessions under virtual time: one heap of events, one seeded `random.Random`, no event loop.

What is real: the replica over a `MemoryStore`, the session, the spreading, the encoding of every message.  What is
modelled: streams (ordered, reliable, of a latency that varies; a cut loses what is under way and ends both sessions),
machines that are busy (where asked for), disks (a sync takes a while, may fail, and what was not synced is lost when
the power goes), and clocks.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.limits import LIMITS, Limits
from meshsync.core.session_events import SessionState
from meshsync.ids import EntryId
from meshsync.store.memory import MemoryStore
from tests.simdisk import Disk, disk
from tests.simnode import End, Link, Node

EPOCH_MS = 1_800_000_000_000


class SimMesh:
    """Nodes, links and virtual time."""

    def __init__(self, seed: int, nodes: int = 0, limits: Limits = LIMITS) -> None:
        self.rng = random.Random(seed)
        self.limits = limits
        self.now = 0.0
        self.wall_ms = EPOCH_MS
        """What a right clock showed at the beginning."""
        self.nodes: list[Node] = []
        self.links: list[Link] = []
        self.stats: Counter[str] = Counter()
        self.watch: Callable[[], None] = lambda: None
        """Called after each event."""
        self.written: set[EntryId] = set()
        self.latency_seconds = 0.02
        self.handling_seconds = 0.0
        """What a frame costs, on average, one of the processors that all nodes share,"""
        self.processors_free_at = [0.0, 0.0]
        """and when each of those has done what is asked of it."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        for _ in range(nodes):
            self.add_node()

    # Time

    def at(self, time: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(self.now + seconds, call)

    def latency(self) -> float:
        return self.latency_seconds * self.rng.uniform(0.5, 1.5)

    def handled_at(self, node: Node) -> float:
        """When a frame that this node received now will be handled: processors and nodes take one after the other."""
        if self.handling_seconds == 0:
            return self.now
        free = self.processors_free_at
        number = free.index(min(free))
        free[number] = max(self.now, free[number]) + self.rng.expovariate(1 / self.handling_seconds)
        node.busy_until = max(node.busy_until, free[number])
        return node.busy_until

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass, at most until the condition holds; says whether it did."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            if until is not None and until():
                return True
            self.now, _, call = heapq.heappop(self._heap)
            call()
            self.watch()
        if until is not None and until():
            return True
        self.now = max(self.now, end)
        return False

    # Nodes

    def add_node(self, like: Node | None = None) -> Node:
        """A new machine; `like`: with the key and a copy of the disk of another one."""
        if like is None:
            key = Ed25519PrivateKey.from_private_bytes(self.rng.randbytes(32))
            store = Disk(random_bytes=self.rng.randbytes)
            store.rng = self.rng
        else:
            key, store = like.key, disk(like.store.copy())
            self.stats["clones"] += 1
        node = Node(self, len(self.nodes), key, store)
        node.durable_next = node.replica.tables.next_arrival() if like is not None else 1
        self.nodes.append(node)
        return node

    def kill(self, node: Node) -> None:
        """The process dies and starts again: nothing is lost."""
        node.stop()
        node.store = disk(node.store.kill())
        node.open()
        self.stats["kills"] += 1

    def crash(self, node: Node, *, same_boot: bool = False) -> None:
        """The power goes: what was not synced is lost.  `same_boot`: the boot id does not tell of it."""
        node.stop()
        boot = node.store._boot_id
        before = node.replica.entry_count()
        node.store = disk(node.store.crash())
        if same_boot:
            node.store._boot_id = boot
        node.open()
        self.stats["crashes"] += 1
        self.stats["entries lost in crashes"] += before - node.replica.entry_count()

    def restart(self, node: Node) -> None:
        """The process ends in good order, and starts again."""
        node.stop()
        node.mend_disk()
        node.store.close()
        node.store = disk(node.store.reopened())
        node.durable_next = node.replica.tables.next_arrival()
        node.open()

    def restore(self, node: Node, backup: MemoryStore) -> None:
        """Put an older state of the disk back, in the way that is meant for it."""
        self.replace_disk(node, backup.backup())

    def replace_disk(self, node: Node, store: MemoryStore) -> None:
        """Put another disk in: a plain copy of an older state knows nothing of its age."""
        node.stop()
        node.acknowledged.clear()
        node.store = disk(store)
        node.open()
        node.durable_next = node.replica.tables.next_arrival()
        self.stats["restores"] += 1

    # Links

    def link(self, a: Node, b: Node) -> Link:
        """Connect two nodes, unless they are; both sides open a session."""
        for link in self.links:
            if {end.node for end in link.ends} == {a, b}:
                return link
        link = Link()
        link.ends = [End(link, a, b), End(link, b, a)]
        link.ends[0].other, link.ends[1].other = link.ends[1], link.ends[0]
        self.links.append(link)
        self.stats["links"] += 1
        for end in link.ends:
            end.start()
        return link

    def cut(self, link: Link) -> None:
        """The connection goes, with everything on its way."""
        if link.up:
            link.up = False
            self.stats["cuts"] += 1
            self.links.remove(link)
            for end in link.ends:
                end.node.ends.remove(end)
                end.inbox.clear()
            for end in link.ends:
                if end.node.running:
                    end.node.carry_out(end.node.spreading.leave(end.session, self.now))

    # Outcome

    def is_level(self) -> bool:
        """Whether all nodes hold the same, and every session says so."""
        roots = {node.replica.root() for node in self.nodes}
        synced = all(end.session.state is SessionState.SYNCED for link in self.links for end in link.ends)
        return len(roots) == 1 and synced
