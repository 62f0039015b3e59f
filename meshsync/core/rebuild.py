"""Reading a BATCH: rebuild every header, check it against its ancestors, and verify the seals.

What each column means stands in `meshsync.core.batch`.  Nothing here stores anything: the result lists what may
be stored, and what had to be left out and why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

from meshsync.core import cbor
from meshsync.core.anchor import ORIGIN, PARENT, Anchor
from meshsync.core.bare import SUPERSEDED, bare_of, check_described_untrusted
from meshsync.core.entry import HeaderBuilder, check_untrusted_payload, describe_payload, document_tag, verify_seal
from meshsync.core.hlc import COUNTER_BITS, HLC_MAX
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.messages import Batch
from meshsync.errors import CloseCode, DamagedError, PeerError
from meshsync.ids import CollectionId, LogId


class Held(Protocol):
    """What rebuilding needs to know of the entries that are held already."""

    def find(self, log: LogId, seq: int, id: bytes | None) -> list[Anchor]:
        """The entries at this place whose ids begin with `id`: more than one only where the log has forked.

        DamagedError: what is held there is damaged.
        """

    def tip_seq(self, branch: int) -> int:
        """The seq of the last entry of a branch."""

    def extend(self, log: LogId, base: Anchor) -> int | None:
        """The branch for the entry after `base`: its own where it is a tip, otherwise the number of a new one.

        None: this node keeps no more branches of the log.  A number is good for this batch only.
        """


class Skip(Enum):
    """Why a log's part of a batch was left out.  None of these is the sender's lie; each has a remedy."""

    GAP = "entries before it are missing"
    FORK = "it continues a branch that is not here"
    CLOCK = "its clock is more than ten minutes ahead of ours"
    PARENT = "a parent is missing"
    QUOTA = "its author has forked more often than this node keeps"
    DAMAGED = "what it builds on is damaged here: meshsync verify --repair"


class NewEntry(NamedTuple):
    """A rebuilt entry, verified, in the terms of the receiving store; `operations` is None without payload."""

    branch: int
    seq: int
    id: bytes
    hlc: int
    height: int
    parents: bytes | None
    payload: bytes | None
    bare: bytes | None
    seal: bytes | None
    operations: list[Any] | None


_new_entry: Callable[[Sequence[Any]], NewEntry] = partial(tuple.__new__, NewEntry)
"""NewEntry(*columns) at two thirds of its cost."""


@dataclass(slots=True)
class Rebuilt:
    """What came out of a batch: the new entries, parents first, and what was left out and why."""

    entries: list[NewEntry] = field(default_factory=list)
    skipped: dict[LogId, Skip] = field(default_factory=dict)
    reached: dict[int, int] = field(default_factory=dict)
    """How far the batch followed each branch, held before or not: the sender has these."""
    seals_checked: int = 0
    repeated: list[tuple[Anchor, bytes, list[Any]]] = field(default_factory=list)
    """Payloads, and the operations in them, of entries that are held already: they may be held without."""
    superseded: list[Anchor] = field(default_factory=list)
    """Entries that are held already, and of which the sender says that nobody needs their payloads."""


@dataclass(slots=True)
class _Chain:
    """The end of one branch as the batch builds it up."""

    branch: int
    seq: int
    id: bytes
    hlc: int
    height: int
    overlap: bool
    """Entries that follow may be held already."""
    implicit: bool
    """An entry that it builds upon was named by place only, and may be another one here than at the sender."""
    fresh: int = -1
    """Position in the result of the last entry that is new, -1 while there is none."""
    offset: int = -1


def rebuild(
    batch: Batch,
    logs: Sequence[LogId],
    collection: CollectionId,
    held: Held,
    now_ms: int,
    limits: Limits = LIMITS,
) -> Rebuilt:
    """Rebuild, check and verify the entries of a batch.

    PeerError: the batch contradicts itself, an operation is invalid, or a seal does not fit.
    """
    _check_columns(batch, logs, limits)
    return _Rebuilder(batch, logs, collection, held, now_ms, limits).run()


def _check_columns(batch: Batch, logs: Sequence[LogId], limits: Limits) -> None:
    count = len(batch.hlcs)
    if count > limits.batch_entries_max or len(batch.seals) > limits.batch_seals_max:
        raise PeerError(f"a batch of {count} entries and {len(batch.seals)} seals", CloseCode.LIMIT)
    if len(batch.payloads) != count or sum(run[2] for run in batch.runs) != count:
        raise PeerError("the columns of a batch differ in length")
    if any(run[0] >= len(logs) or run[1] < 1 or run[2] < 1 for run in batch.runs):
        raise PeerError("a run of a batch names no log, or no entry")
    columns = [[row[0] for row in rows] for rows in (batch.parents, batch.seals)]
    for offsets in (*columns, batch.superseded):
        if offsets and (offsets[-1] >= count or any(a >= b for a, b in pairwise(offsets))):
            raise PeerError("the offsets of a batch are not in order")
    if len(batch.bare) != batch.payloads.count(None):
        raise PeerError("a batch must say hash, size and tags of just those entries that have no payload")
    if any(batch.payloads[k] is not None for k in batch.superseded):
        raise PeerError("a batch brings a payload that it calls superseded")


class _Rebuilder:
    def __init__(
        self, batch: Batch, logs: Sequence[LogId], collection: CollectionId, held: Held, now_ms: int, limits: Limits
    ) -> None:
        self.batch = batch
        self.logs = logs
        self.collection = collection
        self.held = held
        self.hlc_limit = (now_ms + limits.clock_ahead_ms_max + 1 << COUNTER_BITS) - 1
        self.parents = dict(batch.parents)
        self.bare = dict(zip([k for k, one in enumerate(batch.payloads) if one is None], batch.bare, strict=True))
        self.superseded = set(batch.superseded)
        self.seals = dict(batch.seals)
        self.chains: dict[int, list[_Chain]] = {}
        """By log index; the chain that a run without `prev` continues is the last one."""
        self.fresh: dict[tuple[int, int], list[Anchor]] = {}
        """The new entries by (log index, seq), for parents within the batch."""
        self.skipped: dict[int, Skip] = {}
        self.depends: dict[int, set[int]] = {}
        self.tracking = bool(batch.parents) or len(batch.runs) > 1
        """Whether anything in the batch can refer to an entry of the batch."""
        self.result: list[NewEntry] = []
        self.sources: list[int] = []
        """The log index of each."""
        self.repeated: list[tuple[Anchor, bytes, list[Any]]] = []
        self.passed: list[Anchor] = []

    def run(self) -> Rebuilt:
        batch = self.batch
        check_described_untrusted(batch.bare)
        full = [payload for payload in batch.payloads if payload is not None]
        operations = iter(cbor.decode_payloads_untrusted(full)) if full else iter(())
        stamps = list(accumulate(batch.hlcs))
        if stamps and (min(stamps) < 1 or max(stamps) > HLC_MAX):
            raise PeerError("a stamp of a batch is out of range")
        offset = 0
        for run in batch.runs:
            end = offset + run[2]
            ops = [next(operations) if payload is not None else None for payload in batch.payloads[offset:end]]
            if run[0] not in self.skipped:
                try:
                    self._run(run, offset, stamps, ops)
                except DamagedError:
                    self.skipped[run[0]] = Skip.DAMAGED
                self.sources += [run[0]] * (len(self.result) - len(self.sources))
            offset = end
        return self._finish()

    def _attach(self, log_index: int, first_seq: int, prev: bytes | None) -> _Chain | None:
        """The chain that a run continues, or None after noting why there is none."""
        log = self.logs[log_index]
        chains = self.chains.setdefault(log_index, [])
        if prev is None and first_seq > 1:
            if not chains or chains[-1].seq != first_seq - 1:
                raise PeerError("a run of a batch continues nothing")
            return chains[-1]
        if prev is not None:
            for chain in chains:
                if chain.seq == first_seq - 1 and chain.id.startswith(prev):
                    chain.implicit = chain.implicit or len(prev) < len(chain.id)
                    return chain
        anchors = self.held.find(log, first_seq - 1, prev) if first_seq > 1 else [ORIGIN]
        if prev is not None:
            anchors += [one for one in self.fresh.get((log_index, first_seq - 1), ()) if one.id.startswith(prev)]
        if len(anchors) != 1:
            known = self.held.find(log, first_seq - 1, None)
            self.skipped[log_index] = Skip.FORK if known else Skip.GAP
            return None
        anchor = anchors[0]
        overlap = bool(self.held.find(log, first_seq, None)) or anchor.seq < self.held.tip_seq(anchor.branch)
        chain = _Chain(*anchor, overlap=overlap, implicit=prev is not None and len(prev) < len(anchor.id))
        chains.append(chain)
        return chain

    def _run(self, run: tuple[int, int, int, bytes | None], offset: int, stamps: list[int], ops: list[Any]) -> None:
        log_index, first_seq, count, prev = run
        chain = self._attach(log_index, first_seq, prev)
        if chain is None:
            return
        log = self.logs[log_index]
        builder = HeaderBuilder(self.collection, log)
        parents_at, superseded, collection = self.parents, self.superseded, self.collection
        sha256, result, fresh, hlc_limit = hashlib.sha256, self.result, self.fresh, self.hlc_limit
        seq, last_id, last_hlc, height = first_seq - 1, chain.id, chain.hlc, chain.height
        if not chain.overlap and chain.fresh < 0 and not self._extend(log_index, chain, seq):
            return
        end = offset + count
        columns = zip(range(offset, end), stamps[offset:end], self.batch.payloads[offset:end], ops, strict=True)
        for k, hlc, payload, operations in columns:
            seq += 1
            if hlc > hlc_limit:
                self.skipped[log_index] = Skip.CLOCK
                return
            height += 1
            named: Sequence[Anchor] = ()
            if k in parents_at:
                found = self._parents(log_index, parents_at[k])
                if found is None:
                    return
                named = found
                chain.implicit = chain.implicit or any(parent[2] is None for parent in parents_at[k])
                height = max(height, *(1 + parent.height for parent in named))
                last_hlc = max(last_hlc, *(parent.hlc for parent in named))
            if hlc <= last_hlc:
                self._refute(log_index, chain, "an entry is not later than the entries before it")
                return
            if payload is not None:
                tags = self._tags(payload, operations, collection)
                described, bare = describe_payload(sha256(payload).digest(), len(payload), tags), None
            else:
                described = self.bare[k]
                bare = bare_of(described, SUPERSEDED if k in superseded else None)
            parent_ids = sorted([parent.id for parent in named]) if named else ()
            id = builder.id_described(seq, last_id or None, parent_ids, height, hlc, described)
            last_id, last_hlc = id, hlc
            if chain.overlap:
                if anchors := self.held.find(log, seq, id):
                    chain.branch = anchors[0].branch
                    self.repeated += [(anchors[0], payload, operations)] if payload is not None else []
                    self.passed += [anchors[0]] if k in superseded else []
                    continue
                chain.overlap = False
                if not self._extend(log_index, chain, seq - 1):
                    return
            packed = b"".join(PARENT.pack(one.branch, one.seq) for one in sorted(named, key=_by_id)) if named else None
            chain.fresh, chain.offset = len(result), k
            result.append(_new_entry((chain.branch, seq, id, hlc, height, packed, payload, bare, None, operations)))
            if self.tracking:
                same_place = fresh.setdefault((log_index, seq), [])
                if any(other.id == id for other in same_place):
                    raise PeerError("an entry is twice in one batch")
                same_place.append(Anchor(chain.branch, seq, id, hlc, height))
        chain.seq, chain.id, chain.hlc, chain.height = seq, last_id, last_hlc, height

    def _tags(self, payload: bytes, operations: Any, collection: CollectionId) -> list[bytes]:
        check_untrusted_payload(payload, operations)
        if len(operations) == 1:
            return [document_tag(collection, operations[0][1])]
        return sorted({document_tag(collection, operation[1]) for operation in operations})

    def _extend(self, log_index: int, chain: _Chain, seq: int) -> bool:
        """Give the chain the branch for what follows `seq`; False after noting that there is none."""
        branch = self.held.extend(self.logs[log_index], Anchor(chain.branch, seq, chain.id, chain.hlc, chain.height))
        if branch is None:
            self.skipped[log_index] = Skip.QUOTA
            return False
        chain.branch = branch
        return True

    def _parents(self, log_index: int, named: Iterable[tuple[int, int, bytes | None]]) -> list[Anchor] | None:
        """The entries that a row of the parents column names; None after noting that one is missing."""
        found: list[Anchor] = []
        for parent_log, seq, id in named:
            if parent_log >= len(self.logs):
                raise PeerError("a parent names no log")
            if parent_log == log_index:
                raise PeerError("an entry names an entry of its own log as a parent")
            anchors = [a for a in self.fresh.get((parent_log, seq), ()) if id is None or a.id == id]
            if anchors:
                self.depends.setdefault(log_index, set()).add(parent_log)
            else:
                anchors = self.held.find(self.logs[parent_log], seq, id)
            if not anchors or (len(anchors) > 1 and id is None):
                self.skipped[log_index] = Skip.FORK if anchors else Skip.PARENT
                return None
            found.append(anchors[0])
        if len({parent.id for parent in found}) != len(found):
            raise PeerError("an entry names a parent twice")
        return found

    def _refute(self, log_index: int, chain: _Chain, fault: str) -> None:
        """Something does not fit.  It proves a lie only where every entry was named by its whole id."""
        if not chain.implicit:
            raise PeerError(fault)
        self.skipped[log_index] = Skip.FORK

    def _finish(self) -> Rebuilt:
        """Verify one seal for each branch that is new, and leave out the logs that depend on one left out."""
        self._spread()
        rebuilt = Rebuilt(repeated=self.repeated, superseded=self.passed)
        for log_index, chains in self.chains.items():
            for chain in chains:
                if log_index not in self.skipped and chain.fresh >= 0:
                    rebuilt.seals_checked += 1
                    self._verify(log_index, chain)
        self._spread()
        rebuilt.skipped = {self.logs[index]: why for index, why in self.skipped.items()}
        for log_index, chains in self.chains.items():
            if log_index not in self.skipped:
                for chain in chains:
                    rebuilt.reached[chain.branch] = max(chain.seq, rebuilt.reached.get(chain.branch, 0))
        rebuilt.entries = self.result
        if self.skipped:
            each = zip(self.sources, self.result, strict=True)
            rebuilt.entries = [entry for log_index, entry in each if log_index not in self.skipped]
        return rebuilt

    def _spread(self) -> None:
        """Leave out the logs that depend on one left out."""
        changed = bool(self.skipped)
        while changed:
            changed = False
            for log_index, others in self.depends.items():
                if log_index not in self.skipped and (left := others & self.skipped.keys()):
                    self.skipped[log_index] = self.skipped[min(left)]
                    changed = True

    def _verify(self, log_index: int, chain: _Chain) -> None:
        seal = self.seals.get(chain.offset)
        if seal is None:
            raise PeerError("a batch brings entries of a log without a seal on the last one")
        entry = self.result[chain.fresh]
        if verify_seal(self.logs[log_index].author, entry.id, seal):
            self.result[chain.fresh] = entry._replace(seal=seal)
        else:
            self._refute(log_index, chain, f"the seal of entry {entry.seq} does not verify")


def _by_id(anchor: Anchor) -> bytes:
    return anchor.id
