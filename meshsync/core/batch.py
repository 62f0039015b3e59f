"""The compact encoding of entries in a BATCH: columns, without anything that the receiver can derive.

The columns, over the entries in an order in which parents come first:

    runs        (log, first seq, count, prev): consecutive entries of one log.  `prev` hints at the entry before
                the run (8 bytes of its id, or all 32 where forks make a hint ambiguous) and is None where the run
                goes on from an earlier run of the log in this batch, or begins the log
    hlcs        the first stamp, then the difference to the entry before
    parents     (offset, [(log, seq, id or None)]) for entries that have any
    payloads    the payload, or None where only the header travels
    bare        what the headers of those say of their payloads, in that order: hash, size and document tags as they
                stand in the header
    superseded  the offsets of those among them that no document needs any more
    seals       (offset, seal): the last entry of every log in the batch has one

Version, collection, author, incarnation, prev, height, payload hash, size and tags are rebuilt.  Whatever the
receiver fills in wrongly, or the sender leaves out wrongly, gives another id, and the seal does not fit it.
One seal vouches for the whole prev-chain before it, never for parents (protocol: "Seals").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from meshsync.core.anchor import PARENT
from meshsync.core.bare import count_marked, described_by, is_marked
from meshsync.core.holding import Holding, StoredEntry
from meshsync.core.messages import PREV_HINT_BYTES, Batch
from meshsync.ids import LogId


class OutgoingEntry(NamedTuple):
    """An entry as it goes into a batch."""

    log: int
    """Index into the sender's log table."""
    seq: int
    id: bytes
    prev: bytes
    hlc: int
    parents: Sequence[tuple[int, int, bytes]]
    """(log index, seq, id)."""
    payload: bytes | None
    bare: bytes | None
    branch: int


_entry: Callable[[Sequence[Any]], OutgoingEntry] = partial(tuple.__new__, OutgoingEntry)
"""OutgoingEntry(*columns) at two thirds of its cost."""


def outgoing(held: Holding, rows: Sequence[StoredEntry], index: Callable[[LogId], int]) -> list[OutgoingEntry]:
    """Stored entries as they go out; `index` numbers logs."""
    entries: list[OutgoingEntry] = []
    last: dict[int, StoredEntry] = {}
    logs: dict[int, int] = {}
    for row in rows:
        before = last.get(row.branch)
        if before is not None and before.seq == row.seq - 1:
            prev = before.id
        else:
            prev = held.anchor(row.branch, row.seq - 1).id
        parents: Sequence[tuple[int, int, bytes]] = ()
        if row.parents is not None:
            anchors = [held.anchor(number, seq) for number, seq in PARENT.iter_unpack(row.parents)]
            parents = [(index(held.branch(one.branch).log), one.seq, one.id) for one in anchors]
        log = logs.get(row.branch)
        if log is None:
            log = logs[row.branch] = index(held.branch(row.branch).log)
        entries.append(_entry((log, row.seq, row.id, prev, row.hlc, parents, row.payload, row.bare, row.branch)))
        last[row.branch] = row
    return entries


def build_batch(
    entries: Sequence[OutgoingEntry],
    seals: dict[int, bytes],
    *,
    answers: int,
    logs: Sequence[LogId],
    cursor: int,
    root: bytes | None,
    explicit: bool,
) -> Batch:
    """Put entries into columns.

    `seals` maps offsets to seals; `answers` is the round of the OPEN that this answers; `explicit` names
    predecessors and parents in full.
    """
    runs: list[tuple[int, int, int, bytes | None]] = []
    ends: dict[int, tuple[int, int]] = {}
    current: tuple[int, int] | None = None
    for entry in entries:
        if current is not None and current == (entry.branch, entry.seq - 1):
            log, first, count, prev = runs[-1]
            runs[-1] = (log, first, count + 1, prev)
        elif entry.seq == 1:
            runs.append((entry.log, 1, 1, None))
        elif explicit:
            runs.append((entry.log, entry.seq, 1, entry.prev))
        elif ends.get(entry.log) == (entry.branch, entry.seq - 1):
            runs.append((entry.log, entry.seq, 1, None))
        else:
            runs.append((entry.log, entry.seq, 1, entry.prev[:PREV_HINT_BYTES]))
        current = (entry.branch, entry.seq)
        ends[entry.log] = current
    stamps = [entry.hlc for entry in entries]
    bare = {k: entry.bare for k, entry in enumerate(entries) if entry.payload is None and entry.bare is not None}
    return Batch(
        round=answers,
        logs=tuple(logs),
        runs=runs,
        hlcs=stamps[:1] + [b - a for a, b in pairwise(stamps)],
        parents=[
            (k, [(log, seq, id if explicit else None) for log, seq, id in entry.parents])
            for k, entry in enumerate(entries)
            if entry.parents
        ],
        payloads=[entry.payload for entry in entries],
        bare=[described_by(one) for one in bare.values()],
        superseded=[k for k, one in bare.items() if is_marked(one)] if count_marked(bare.values()) else [],
        seals=sorted(seals.items()),
        cursor=cursor,
        root=root,
    )
