"""One collection as this node holds it: the invariants, and everything that is done under them.

Invariants (protocol: "What a node holds"): every branch is gap-free, the set is closed under predecessors and
parents, arrival numbers put parents first.  Therefore the tips say exactly what is held, and what a peer lacks
is a subtraction.  In memory there is one object a branch, and nothing an entry.

Every change is one transaction of the store; what is in memory follows after the commit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.anchor import PARENT, Anchor
from meshsync.core.entry import Operation, make_seal
from meshsync.core.history import History
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.messages import Batch
from meshsync.core.policy import policy_of
from meshsync.core.query import Query
from meshsync.core.rebuild import NewEntry, rebuild
from meshsync.errors import DamagedError
from meshsync.ids import CollectionId, EndpointId, EntryId, LogId, LogPlace
from meshsync.store.ancestry import Ancestry
from meshsync.store.applied import Applied, Cursor
from meshsync.store.base import CollectionTables, Store
from meshsync.store.branches import Branch, Branches, renumbered
from meshsync.store.change import Change, Inserted
from meshsync.store.expiries import Expiries
from meshsync.store.indexes import Indexes
from meshsync.store.interest import Interest
from meshsync.store.lives import Lives
from meshsync.store.merge import DocumentMerger
from meshsync.store.outbox import Choose, Outbox, Parcel
from meshsync.store.own_log import OwnLog
from meshsync.store.part_changes import PartChanges
from meshsync.store.payloads import Payloads
from meshsync.store.retaining import Retaining
from meshsync.store.rows import CursorRow, EntryRow, entry_row
from meshsync.store.selection import Selection
from meshsync.store.superseded import Superseded
from meshsync.store.unwanted import Unwanted

__all__ = ["Applied", "Branch", "Cursor", "Replica"]

_SCAN_ENTRIES = 512
"""That are read at a time."""


class Replica(Branches):
    """The entries and documents of one collection at this node.  Implements `meshsync.core.holding.Holding`."""

    def __init__(self, store: Store, tables: CollectionTables, key: Ed25519PrivateKey, limits: Limits = LIMITS) -> None:
        super().__init__(tables, limits)
        self.store = store
        self.id: CollectionId = tables.id
        self.full: str | None = None
        self.policy = policy_of(tables.id, tables.name if tables.is_named else "")
        self.author = EndpointId(key.public_key().public_bytes_raw())
        self.key = key
        self.ancestry = Ancestry(self)
        self.merger = DocumentMerger(self)
        self.indexes = Indexes(self)
        self.expiries = Expiries(self)
        self.outbox = Outbox(self)
        self.part_changes = PartChanges(self)
        self.lives = Lives(self)
        self.payloads = Payloads(self)
        self.selection = Selection(self)
        self.interest: Interest | None = None
        """What is wanted of the collection; None: all."""
        self.history = History.FULL
        """How much of the past is wanted."""
        self.superseded = Superseded(self)
        self.own = OwnLog(self)
        self.retaining = Retaining(self)
        self.unwanted = Unwanted(self)
        self._confirmed: dict[tuple[EndpointId, bytes], int] = {}
        """By peer and epoch of its store: it has stored all that arrived here before."""

    @property
    def name(self) -> str:
        """What people call it: where no name is known, the first digits of its id."""
        return self.tables.name

    def document_count(self) -> int:
        """How many documents are shown."""
        if self.interest is None:
            return self.tables.counts()[1] - self.expiries.due()
        return len(self.interest) - sum(map(self.interest.has, self.expiries.due_ids()))

    def entry_count(self) -> int:
        """How many entries are held."""
        return self.tables.counts()[0]

    # meshsync.core.session.Holding, with what stands above

    @property
    def epoch(self) -> bytes:
        """The epoch of the store."""
        return self.store.epoch

    @property
    def complete(self) -> bool:
        """Whether every payload is here, but for those that are superseded."""
        return self.tables.counts()[2] == 0 and not self.damage.lacking

    @property
    def lacking_count(self) -> int:
        """How many payloads are wanted and not here."""
        return self.tables.counts()[2] if self.interest is None else self.interest.lacking_count

    @property
    def is_satisfied(self) -> bool:
        """Whether every payload is here that is wanted."""
        return self.complete if self.interest is None else self.interest.is_satisfied and not self.damage.lacking

    @property
    def is_settled(self) -> bool:
        """Whether it is known what of the documents here is wanted; see `Interest.step`."""
        return self.interest is None or self.interest.is_settled

    @property
    def shortage(self) -> str | None:
        """Why not every payload is here that is wanted, for people."""
        if not self.is_settled:
            return "the documents that are here are still being looked through for those that are wanted"
        return None if self.is_satisfied else "payloads are lacking that this peer has not sent"

    @property
    def wishes(self) -> int:
        """Changes whenever more payloads are lacking that are wanted."""
        return self.merger.bare if self.interest is None else self.interest.wishes

    def choose(self, query: Query | None, history: History = History.FULL) -> bool:
        """Want the documents that match, or all, and so much of their past; whether that is news.

        Until the part is settled, `interest.step` is to be called.  LocalError: the query is too large.
        """
        wanted = None if query is None or query.is_everything else query
        is_same = wanted == (None if self.interest is None else self.interest.query)
        interest = None if is_same or wanted is None else Interest(self, wanted, self.interest)
        known, self.history = self.history, history
        if is_same:
            self.part_changes.choose(wanted)  # another one may have been wanted when the process ended
            if history is not known:
                self.superseded.look_again()
            return history is not known
        self.interest = interest
        self.part_changes.choose(wanted)
        if self.interest is not None:
            self.interest.step()
        return True

    def unsent(self, known: Mapping[int, int], branches: Collection[int]) -> int:
        """How many entries of these branches a peer lacks that holds each up to `known`."""
        return self.outbox.unsent(known, branches)

    def parcel(
        self,
        known: Mapping[int, int],
        branches: Collection[int],
        floor: int = 0,
        bytes_soft: float = math.inf,
        choose: Choose | None = None,
    ) -> Parcel | None:
        """The next entries of these branches for a peer, or None; see `Outbox.read`."""
        try:
            return self.outbox.read(known, branches, floor, bytes_soft, choose)
        except DamagedError:
            # It is known of from now on, and what is left out with it as well.
            return self.outbox.read(known, branches, floor, bytes_soft, choose)

    @property
    def durable_next(self) -> int:
        """The arrival number below which everything survives a power cut."""
        return self.outbox.durable_next

    @property
    def is_damaged(self) -> bool:
        """Whether entries are known to be damaged, so that not all can be sent."""
        return bool(self.damage)

    def next_arrival(self) -> int:
        """The arrival number below which there is nothing that cannot be sent."""
        return self.damage.below(self.tables.next_arrival())

    def receive(
        self, batch: Batch, logs: Sequence[LogId], peer: EndpointId, epoch: bytes | None, now_ms: int
    ) -> Applied:
        """Apply a peer's batch, and remember how far its store has been read.

        `epoch`: of the peer's store; None where something before the batch is missing, so that its cursor says nothing.
        """
        if epoch is None:
            return self.apply(batch, logs, None, now_ms)
        row = CursorRow(epoch, batch.cursor, self._confirmed.get((peer, epoch), 1))
        return self.apply(batch, logs, Cursor(peer, row), now_ms)

    def cursor_for(self, peer: EndpointId) -> tuple[bytes, int] | None:
        """The epoch of the peer's store and the next arrival number to read of it."""
        row = self.tables.cursor(peer)
        if row is None:
            return None
        self._confirmed.setdefault((peer, row.epoch), row.next_confirm)
        return row.epoch, row.next_read

    def confirmed(self, peer: EndpointId, epoch: bytes, cursor: int) -> None:
        """The peer's store of this epoch has all that arrived here before; kept on disk with the next batch from it."""
        self._confirmed[peer, epoch] = cursor

    def wanted_places(self, limit: int) -> list[LogPlace]:
        """Entries that lack their payload, as far as it is wanted."""
        return self.payloads.lacking(limit)

    def fill_payload(self, log: LogId, seq: int, payload: bytes) -> Applied | None:
        """Give an entry the payload that it lacks; see `Payloads.fill`."""
        return self.payloads.fill(log, seq, payload)

    # Writing

    def append(self, operations: Sequence[Operation], wall_ms: int) -> tuple[Applied, EntryId]:
        """Write one entry of this node's own: what it changed, and its id.

        LocalError, RefusedError: the operations are not what may be written.  StoreError: the disk.
        """
        for operation in operations:
            self.policy.check_decided(operation.id, operation.body)
        entry = self.own.next_entry(operations, wall_ms)
        applied = Applied()
        with self.change():
            if not entry.branch:
                entry = entry._replace(branch=self._open_branch(self.own.log, None, 1))
            self._insert([entry], applied)
        return applied, EntryId(entry.id)

    def apply(self, batch: Batch, logs: Sequence[LogId], cursor: Cursor | None, now_ms: int) -> Applied:
        """Rebuild, verify and store the entries of a batch, with their documents and the cursor.

        PeerError: the batch is invalid; nothing was stored.  StoreError: the disk; nothing was stored.
        """
        self._claimed.clear()
        self._proposed.clear()
        try:
            rebuilt = rebuild(batch, logs, self.id, self, now_ms, self.limits)
        finally:
            self._forget(self._proposed)
        applied = Applied(skipped=rebuilt.skipped, seals_checked=rebuilt.seals_checked)
        if self._holds_later(rebuilt.entries):
            # Someone has later entries of our own log: this store is a restored copy, or has a twin.  First the
            # new incarnation, so that no crash in between leaves this node writing to the old one.
            self.own.renew()
        with self.change() as change:
            numbers = self._open_proposed({entry.branch for entry in rebuilt.entries})
            entries = renumbered(rebuilt.entries, numbers)
            if entries:
                self._insert(entries, applied)
                applied.payload_bytes = sum([len(entry.payload) for entry in entries if entry.payload is not None])
            if cursor is not None and not applied.skipped:
                self.tables.set_cursor(*cursor)
            if self.tables.counts()[2]:
                self.payloads.fill_repeated(rebuilt.repeated, applied)
                applied.filled += self.superseded.mark(rebuilt.superseded)
        applied.reached = {numbers.get(number, number): seq for number, seq in rebuilt.reached.items()}
        applied.forked = [branch.log for branch in change.opened if self.is_forked(branch.log)]
        return applied

    def _holds_later(self, entries: Iterable[NewEntry]) -> bool:
        """Whether entries of a peer belong to the log that this process writes to."""
        proposed = {branch.number: branch for branch in self._proposed}
        numbers = {entry.branch for entry in entries}
        logs = {(proposed.get(number) or self.branches[number]).log for number in numbers}
        return any(log.author == self.author for log in logs) and self.own.log in logs

    def _open_proposed(self, used: Collection[int]) -> dict[int, int]:
        """Open those of the proposed branches that are used; returns their final numbers."""
        numbers: dict[int, int] = {}
        for branch in self._proposed:
            if branch.number in used:
                base = None if branch.base is None else numbers.get(branch.base, branch.base)
                numbers[branch.number] = self._open_branch(branch.log, base, branch.first_seq)
        return numbers

    def _open_branch(self, log: LogId, base: int | None, first_seq: int) -> int:
        number = self.tables.add_branch(log.author, log.incarnation, base, first_seq)
        self._change.opened.append(self._register(Branch(number, log, base, first_seq, 0)))
        return number

    def rewrite(self, row: EntryRow, operations: Any) -> int:
        """Store a damaged or partial entry once more, whole, in a `change`; how many documents came into conflict."""
        had_marked = self.tables.marked()
        self.tables.rewrite_entry(row)
        if had_marked and not self.tables.marked():
            # Only the latest of each document is remembered, so that before the last one nothing can be told.
            self.tables.touches.forget_gone()
        conflicts = self.merger.merge([row], [operations], late=True)
        self.retaining.look_again([row.arrival])
        self._change.rewritten.append((row, operations))
        return conflicts

    def needs_none(self, rows: Iterable[EntryRow]) -> None:
        """These entries turned out not to need their payloads, in a `change`."""
        self._change.needless += rows

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction, and the memory that follows it."""
        self._change = change = Change()
        try:
            with self.store.transaction():
                yield change
        except BaseException:
            self._forget(change.opened)
            self.superseded.rolled_back()
            raise
        self._follow(change)

    def _insert(self, entries: Sequence[NewEntry], applied: Applied) -> None:
        self.lives.keep()
        operations, restored = [entry.operations for entry in entries], set[int]()
        if self.tails:
            rows, restored = self.tails.write(entries)
        else:
            arrival = self.tables.next_arrival()
            columns = list(zip(*entries, strict=True))[: len(EntryRow._fields) - 1]
            rows = list(map(entry_row, zip(range(arrival, arrival + len(entries)), *columns, strict=True)))
            self.tables.insert_entries(rows)
        applied.conflicts += self.merger.merge(rows, operations, late=bool(self.tails))
        self.retaining.look_again(restored)
        applied.count += len(rows)
        covered: dict[int, int] = {}
        for row in rows:
            if row.parents is not None:
                for branch, seq in PARENT.iter_unpack(row.parents):
                    if seq > max(covered.get(branch, 0), self.branches[branch].covered_seq):
                        covered[branch] = seq
        if covered:
            self.tables.set_covered(list(covered.items()))
        self._change.inserted = Inserted(rows, operations, self.merger.lacking, covered, restored, applied)

    def _follow(self, change: Change) -> None:
        """Let what is in memory follow a transaction that was just committed."""
        if change.inserted is not None:
            self._grow(change.inserted)
        for row, operations in change.rewritten:
            self.damage.entry_mended(row.arrival)
            self.selection.came_late(row.arrival)
            if self.interest is not None:
                self.interest.stored([row], [operations])
        if self.interest is not None and change.needless:
            self.interest.superseded(change.needless)

    def _grow(self, what: Inserted) -> None:
        grown, applied = {row.branch: row for row in what.rows}, what.applied
        for number, row in grown.items():
            branch = self.branches[number]
            branch.tip = Anchor(number, row.seq, row.id, row.hlc, row.height)
            branch.tip_arrival = row.arrival
            applied.tips[number] = row.seq
        for number, seq in what.covered.items():
            self.branches[number].covered_seq = seq
        for number in grown.keys() | what.covered.keys():
            self._settle(self.branches[number])
        self.expiries.stamped()
        if self.tails:
            for number in grown:
                self.tails.grew(self.branches[number])
            applied.mended = sorted(arrival for arrival in what.restored if self.damage.entry_mended(arrival))
            if applied.mended and not self.damage:
                applied.tips.update({number: branch.tip.seq for number, branch in self.branches.items()})
        if self.interest is not None:
            self.interest.stored(what.rows, what.operations, what.lacking)

    # Seals

    def seal_of(self, row: EntryRow) -> bytes | None:
        """The seal of an entry: the stored one, or one made now where the entry is this node's own."""
        if row.seal is not None:
            return row.seal
        if self.branches[row.branch].log.author == self.author:
            return make_seal(self.key, row.id)
        return None

    # Reading

    def scan_entries(self, arrival: int = 1) -> Iterator[EntryRow]:
        """All entries from an arrival number on, read in pages."""
        while rows := self.tables.entries_from(arrival, _SCAN_ENTRIES):
            yield from rows
            arrival = rows[-1].arrival + 1
