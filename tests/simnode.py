"""The nodes of a simulated mesh, and the links between them; `tests.simmesh` gives them time and chance.

What is real: the replica over a `MemoryStore`, the session, the spreading, the encoding of every message.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.entry import Operation
from meshsync.core.history import History
from meshsync.core.messages import Batch, Have, Open, decode_untrusted, encode_message
from meshsync.core.query import Query
from meshsync.core.session import Session
from meshsync.core.session_events import (
    Arrived,
    Changed,
    Check,
    Chosen,
    Confirm,
    Durable,
    Event,
    MakeEager,
    MakeLazy,
    Offered,
    Ready,
    Received,
    Send,
    Start,
    Stored,
    Sync,
    WakeAt,
    Wished,
)
from meshsync.core.spreading import Spreading, Turn
from meshsync.errors import StoreError
from meshsync.ids import CollectionId, EntryId
from meshsync.store.replica import Applied, Replica
from tests.simdisk import Disk

if TYPE_CHECKING:
    from tests.simmesh import SimMesh

NAME = "notes"
COLLECTION = CollectionId.of_name(NAME)
TAG = bytes(16)
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
        self.busy_until = 0.0
        """It handles one frame after the other."""
        self.durable_next = 1
        """The arrival numbers below it survive a crash."""
        self.query: Query | None = None
        """What it subscribes to; None: everything."""
        self.history = History.FULL
        self.open()

    def __repr__(self) -> str:
        return f"node {self.number}"

    def open(self) -> None:
        """Start the process."""
        self.running = True
        # A process that cannot even make its tables does not start; here the disk has room for that.
        self.spreading = Spreading(self.subscribers, self.mesh.limits, self.mesh.rng)
        with self.store.sound():
            self.replica = Replica(self.store, self.store.collection(COLLECTION, NAME), self.key, self.mesh.limits)
            self.replica.choose(self.query, self.history)
        self.look(self.replica)

    def choose(self, query: Query | None, history: History = History.FULL) -> None:
        """Subscribe to something else from now on."""
        self.query, self.history = query, history
        if self.replica.choose(query, history):
            for end in self.ends:
                end.handle(Chosen())
                end.give_ready()
            self.look(self.replica)

    def look(self, replica: Replica) -> None:
        """Look through the documents for what is wanted, a little at a time, while other things happen."""
        if replica is not self.replica or replica.interest is None or not replica.interest.has_work:
            return
        self.mesh.stats["steps through the documents"] += 1
        is_done = False
        with suppress(StoreError):
            is_done = replica.interest.step()
        if is_done:
            for end in self.ends:
                end.give_ready()
        else:
            self.mesh.after(self.mesh.rng.uniform(0.0, 0.1), lambda: self.look(replica))

    def mend_disk(self) -> None:
        """From now on the disk does what it should."""
        self.store.broken, self.store.fail_rate = "", 0.0

    @property
    def wall_ms(self) -> int:
        return self.mesh.wall_ms + int(self.mesh.now * 1000) + self.skew_ms

    def write(self, operations: Sequence[Operation], *, durable: bool = False) -> EntryId | None:
        """Write one entry; None where the disk refused.  `durable`: wait for the disk, and remember the promise."""
        operations = self.replica.expiries.as_meant(operations, self.wall_ms)
        try:
            applied, id = self.replica.append(operations, self.wall_ms)
        except StoreError:
            self.mesh.stats["writes refused"] += 1
            return None
        self.mesh.stats["writes"] += 1
        self.mesh.written.add(id)
        self.spreading.wrote(self.replica.author, self.mesh.now)
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
        self.replica.outbox.synced(self.durable_next)
        return True

    def note(self, applied: Applied) -> None:
        """Tell every session of this node that branches grew."""
        for end in self.ends:
            end.handle(Changed(dict(applied.tips), tuple(applied.filled)))
            end.give_ready()

    def subscribers(self) -> int:
        """How many this node knows of: all that run, as if summaries had told of them."""
        return sum(node.running for node in self.mesh.nodes)

    def carry_out(self, turns: Iterable[Turn]) -> None:
        """Turn links lazy or eager."""
        ends = {end.session: end for end in self.ends}
        for turn in turns:
            self.mesh.stats["prunes" if turn.lazy else "grafts"] += 1
            end = next(end for session, end in ends.items() if session is turn.partner)
            end.handle(MakeLazy() if turn.lazy else MakeEager())
            end.give_ready()
        for end in self.ends:
            end.wake(self.spreading.wake_at(end.session))

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
        self.sync_wanted = False
        """Something is to be durable before it is sent."""
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
                case Arrived():
                    mesh.stats["entries repeated"] += effect.repeated
                    node.carry_out(node.spreading.arrived(self.session, effect, mesh.now))
                case Offered():
                    node.carry_out(node.spreading.offered(self.session, effect, mesh.now))
                case WakeAt(time):
                    self.wake(time)
                case Confirm(cursor):
                    self.confirm = cursor
                    self.begin_sync()
                case Wished():
                    for end in node.ends:
                        end.give_ready()
                    node.look(node.replica)
                case Sync():
                    mesh.stats["headers held back"] += not self.sync_wanted
                    self.sync_wanted = True
                    self.begin_sync()

    def send(self, message: object) -> None:
        mesh = self.node.mesh
        frame = encode_message(message)  # type: ignore[arg-type]
        mesh.stats[type(message).__name__] += 1
        mesh.stats["bytes"] += len(frame)
        if isinstance(message, Open) and message.round:
            mesh.stats["resyncs"] += 1
        if isinstance(message, Open) and message.bookmark is not None:
            mesh.stats["bookmarks given back"] += 1
        inbox = self.other.inbox
        due = max(mesh.now + mesh.latency(), self.other.deaf_until, inbox[-1][0] if inbox else 0.0)
        inbox.append((due, frame, self.node.replica.root()))
        mesh.at(due, self.other.arrive)

    def arrive(self) -> None:
        """A frame is here; it is handed over once the node has time for it."""
        mesh = self.node.mesh
        if (at := mesh.handled_at(self.node)) > mesh.now:
            mesh.at(at, self.deliver)
        else:
            self.deliver()

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
        if not isinstance(message, Batch):
            self.node.carry_out(self.node.spreading.look(self.node.mesh.now))
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

    def begin_sync(self, after: float = 0.0) -> None:
        if not self.syncing:
            self.syncing = True
            self.node.mesh.after(after + self.node.mesh.rng.uniform(0.0002, 0.02), self.finish_sync)

    def finish_sync(self) -> None:
        self.syncing = False
        if not self.link.up:
            return
        if not self.node.sync():
            if self.sync_wanted:
                self.begin_sync(1.0)
            return
        self.sync_wanted = False
        if self.confirm is not None:
            cursor, self.confirm = self.confirm, None
            self.handle(Durable(cursor))
        self.give_ready()

    def give_ready(self) -> None:
        """Ready, as long as the stream takes more and there is more."""
        mesh = self.node.mesh
        while self.link.up and len(self.other.inbox) < FRAMES_UNDER_WAY_MAX:
            sent = mesh.stats["bytes"]
            self.handle(Ready())
            if mesh.stats["bytes"] == sent:
                return

    def wake(self, time: float) -> None:
        if time < (self.wake_at or math.inf):
            self.wake_at = time
            self.node.mesh.at(time, self.awake)

    def awake(self) -> None:
        if self.wake_at is not None and self.wake_at <= self.node.mesh.now:
            self.wake_at = None
            if self.node.spreading.wake_at(self.session) <= self.node.mesh.now:
                self.node.carry_out(self.node.spreading.look(self.node.mesh.now))
            self.give_ready()

    def start(self) -> None:
        """Begin the session; the first end of a link is the one that dialled."""
        mesh, node, is_dialer = self.node.mesh, self.node, self is self.link.ends[0]
        node.ends.append(self)
        is_lazy = node.spreading.join(self.session, lambda: 2 * mesh.latency_seconds)
        self.handle(Start(lazy=is_lazy, answers_checks=not is_dialer))
        if is_dialer:
            mesh.after(mesh.limits.root_check_seconds * mesh.rng.uniform(0.1, 1.25), self.check)

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
