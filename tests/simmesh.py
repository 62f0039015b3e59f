"""A mesh of replicas and sessions under virtual time: one heap of events, one seeded `random.Random`, no event loop.

What is real: the replica over a `MemoryStore`, the session, the encoding of every message.  What is modelled:
streams (ordered, reliable, of a latency that varies; a cut loses what is under way and ends both sessions),
disks (a sync takes a while, may fail, and what was not synced is lost when the power goes), and clocks.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.entry import Operation
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.messages import Batch, Have, Open, decode_untrusted, encode_message
from meshsync.core.session import Session
from meshsync.core.session_events import (
    Changed,
    Check,
    Confirm,
    Durable,
    Event,
    Ready,
    Received,
    Send,
    SessionState,
    Start,
    Stored,
    WakeAt,
)
from meshsync.errors import StoreError
from meshsync.ids import CollectionId, EntryId
from meshsync.store.memory import MemoryStore
from meshsync.store.replica import Applied, Replica
from tests.simdisk import Disk, disk

NAME = "notes"
COLLECTION = CollectionId.of_name(NAME)
TAG = bytes(16)
EPOCH_MS = 1_800_000_000_000
FRAMES_UNDER_WAY_MAX = 4
"""The window of a stream: above it a session is not given Ready."""


class Node:
    """A machine: a disk that outlives its process, a clock, and the process while it runs."""

    def __init__(self, mesh: SimMesh, number: int, key: Ed25519PrivateKey, store: Disk) -> None:
        self.mesh = mesh
        self.number = number
        self.key = key
        self.store = store
        self.skew_ms = 0
        self.ends: list[End] = []
        self.running = True
        self.acknowledged: set[EntryId] = set()
        """What this node promised never to lose."""
        self.durable_next = 1
        """The arrival numbers below it survive a crash."""
        self.open()

    def __repr__(self) -> str:
        return f"node {self.number}"

    def open(self) -> None:
        """Start the process."""
        self.running = True
        # A process that cannot even make its tables does not start; here the disk has room for that.
        with self.store.sound():
            self.replica = Replica(self.store, self.store.collection(COLLECTION, NAME), self.key, self.mesh.limits)

    def mend_disk(self) -> None:
        """From now on the disk does what it should."""
        self.store.broken, self.store.fail_rate = "", 0.0

    @property
    def wall_ms(self) -> int:
        return self.mesh.wall_ms + int(self.mesh.now * 1000) + self.skew_ms

    def write(self, operations: Sequence[Operation], *, durable: bool = False) -> EntryId | None:
        """Write one entry; None where the disk refused.  `durable`: wait for the disk, and remember the promise."""
        try:
            applied, id = self.replica.append(operations, self.wall_ms)
        except StoreError:
            self.mesh.stats["writes refused"] += 1
            return None
        self.mesh.stats["writes"] += 1
        self.mesh.written.add(id)
        self.note(applied)
        if durable and self.sync():
            self.acknowledged.add(id)
        return id

    def sync(self) -> bool:
        """Whether the disk took everything committed so far."""
        try:
            self.store.sync_now()
        except StoreError:
            return False
        self.durable_next = self.replica.tables.next_arrival()
        return True

    def note(self, applied: Applied) -> None:
        """Tell every session of this node that branches grew."""
        for end in self.ends:
            end.handle(Changed(dict(applied.tips)))
            end.give_ready()

    def stop(self) -> None:
        """The process ends, and its connections with it."""
        for end in list(self.ends):
            self.mesh.cut(end.link)
        self.running = False


class End:
    """One end of a link: a session, and the frames on their way to it."""

    def __init__(self, link: Link, node: Node, peer: Node) -> None:
        self.link = link
        self.node = node
        self.session = Session(node.replica, peer.replica.author, TAG, node.mesh.limits)
        self.inbox: deque[tuple[float, bytes, bytes]] = deque()
        """(due, frame, the sender's root when it was sent)."""
        self.other: End = self
        self.peer_root: bytes | None = None
        """The peer's root as the last message that carried it was sent."""
        self.wake_at: float | None = None
        self.confirm: int | None = None
        self.confirmed = 1
        """Arrival numbers below it were checked to be durable at the peer."""
        self.syncing = False
        self.deaf_until = 0.0
        """Nothing that is sent to this end before arrives before."""

    def __repr__(self) -> str:
        return f"{self.node} to {self.other.node}"

    def handle(self, event: Event) -> None:
        """Give the session an event, and carry out its effects."""
        mesh, node = self.node.mesh, self.node
        if not self.link.up:
            return
        try:
            effects = self.session.handle(event, mesh.now, node.wall_ms)
        except StoreError as error:
            mesh.stats["batches not stored"] += 1
            effects = self.session.not_stored(mesh.now, str(error))
        for effect in effects:
            match effect:
                case Send(message):
                    self.send(message)
                case Stored(applied):
                    mesh.stats["entries applied"] += applied.count
                    mesh.stats["forks found"] += len(applied.forked)
                    mesh.stats["logs relayed"] += sum(
                        node.replica.branches[number].log.author != self.session.peer for number in applied.tips
                    )
                    node.note(applied)
                case WakeAt(time):
                    self.wake(time)
                case Confirm(cursor):
                    self.confirm = cursor
                    if not self.syncing:
                        self.syncing = True
                        mesh.after(mesh.rng.uniform(0.0002, 0.02), self.finish_sync)

    def send(self, message: object) -> None:
        mesh = self.node.mesh
        frame = encode_message(message)  # type: ignore[arg-type]
        mesh.stats[type(message).__name__] += 1
        mesh.stats["bytes"] += len(frame)
        if isinstance(message, Open) and message.round:
            mesh.stats["resyncs"] += 1
        inbox = self.other.inbox
        due = max(mesh.now + mesh.latency(), self.other.deaf_until, inbox[-1][0] if inbox else 0.0)
        inbox.append((due, frame, self.node.replica.root()))
        mesh.at(due, self.other.deliver)

    def deliver(self) -> None:
        """Hand over the frames that are due."""
        while self.link.up and self.inbox and self.inbox[0][0] <= self.node.mesh.now:
            self.deliver_one()

    def deliver_one(self) -> None:
        """Hand over the next frame, due or not."""
        if not self.inbox:
            return
        was_full = len(self.inbox) >= FRAMES_UNDER_WAY_MAX
        _, frame, root = self.inbox.popleft()
        message = decode_untrusted(frame)
        if isinstance(message, Open | Have) or (isinstance(message, Batch) and message.root is not None):
            self.peer_root = root
        self.handle(Received(message))
        if isinstance(message, Have) and message.cursor is not None:
            self.check_confirmed(message.cursor)
        self.give_ready()
        if was_full:
            self.other.give_ready()

    def check_confirmed(self, cursor: int) -> None:
        """A HAVE promises: everything of ours below this arrival number survives a crash of the peer."""
        peer = self.other.node
        start, self.confirmed = self.confirmed, max(cursor, self.confirmed)
        for row in self.node.replica.tables.entries_from(start, cursor - start):
            branch = self.node.replica.branches[row.branch]
            found = peer.replica.find(branch.log, row.seq, row.id)
            assert found, f"{self}: the peer confirmed entry {row.arrival} and does not hold it"
            head = peer.replica.tables.entry_at(found[0].branch, row.seq)
            assert head is not None
            assert head.arrival < peer.durable_next, f"{self}: the peer confirmed entry {row.arrival} before it synced"

    def finish_sync(self) -> None:
        self.syncing = False
        if self.link.up and self.confirm is not None and self.node.sync():
            cursor, self.confirm = self.confirm, None
            self.handle(Durable(cursor))

    def give_ready(self) -> None:
        """Ready, as long as the stream takes more and there is more."""
        mesh = self.node.mesh
        while self.link.up and len(self.other.inbox) < FRAMES_UNDER_WAY_MAX:
            sent = mesh.stats["bytes"]
            self.handle(Ready())
            if mesh.stats["bytes"] == sent:
                return

    def wake(self, time: float) -> None:
        if self.wake_at is None or time < self.wake_at:
            self.wake_at = time
            self.node.mesh.at(time, self.awake)

    def awake(self) -> None:
        if self.wake_at is not None and self.wake_at <= self.node.mesh.now:
            self.wake_at = None
            self.give_ready()

    def check(self) -> None:
        """Compare roots on an idle link, now and every 30 s."""
        if self.link.up:
            self.handle(Check())
            self.give_ready()
            mesh = self.node.mesh
            mesh.after(mesh.limits.root_check_seconds * mesh.rng.uniform(0.75, 1.25), self.check)


@dataclass(eq=False)
class Link:
    """A stream between two nodes."""

    ends: list[End] = field(default_factory=list)
    up: bool = True


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
        self.written: set[EntryId] = set()
        self.latency_seconds = 0.02
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

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass, at most until the condition holds; says whether it did."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            if until is not None and until():
                return True
            self.now, _, call = heapq.heappop(self._heap)
            call()
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
            end.node.ends.append(end)
            end.handle(Start())
            self.after(self.limits.root_check_seconds * self.rng.uniform(0.1, 1.25), end.check)
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

    # Outcome

    def is_level(self) -> bool:
        """Whether all nodes hold the same, and every session says so."""
        roots = {node.replica.root() for node in self.nodes}
        synced = all(end.session.state is SessionState.SYNCED for link in self.links for end in link.ends)
        return len(roots) == 1 and synced
