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
from itertools import pairwise
from typing import NamedTuple

from meshsync.core.anchor import PARENT
from meshsync.core.bare import count_marked, described_by, is_marked
from meshsync.core.holding import Holding, StoredEntry
from meshsync.core.messages import PREV_HINT_BYTES
from meshsync.ids import LogId


class Columns(NamedTuple):
    """Those that say what the entries are, as they stand in a `Batch`."""

    runs: list[tuple[int, int, int, bytes | None]]
    hlcs: list[int]
    parents: list[tuple[int, list[tuple[int, int, bytes | None]]]]
    payloads: list[bytes | None]
    bare: list[bytes]
    superseded: list[int]


def put_in_columns(
    held: Holding, rows: Sequence[StoredEntry], index: Callable[[LogId], int], *, explicit: bool
) -> Columns:
    """Stored entries as they go out; `index` numbers logs; `explicit` names predecessors and parents in full.

    DamagedError: what an entry builds upon cannot be read.
    """
    starts: list[int] = []
    """Where runs begin; a run is an entry and those right behind it that follow it in its branch."""
    parents: list[tuple[int, list[tuple[int, int, bytes | None]]]] = []
    branch = seq = 0
    for k, row in enumerate(rows):
        seq += 1
        if row.seq != seq or row.branch != branch:
            branch, seq = row.branch, row.seq
            starts.append(k)
        if row.parents is not None:
            anchors = [held.anchor(*place) for place in PARENT.iter_unpack(row.parents)]
            named = [(index(held.branch(one.branch).log), one.seq, one.id if explicit else None) for one in anchors]
            parents.append((k, named))
    stamps = [row.hlc for row in rows]
    bares = [row.bare for row in rows if row.payload is None and row.bare is not None]
    return Columns(
        _runs(held, rows, starts, index, explicit=explicit),
        stamps[:1] + [b - a for a, b in pairwise(stamps)],
        parents,
        [row.payload for row in rows],
        [described_by(one) for one in bares],
        [k for k, row in enumerate(rows) if is_marked(row.bare)] if count_marked(bares) else [],
    )


def _runs(
    held: Holding, rows: Sequence[StoredEntry], starts: Sequence[int], index: Callable[[LogId], int], *, explicit: bool
) -> list[tuple[int, int, int, bytes | None]]:
    runs: list[tuple[int, int, int, bytes | None]] = []
    ends: dict[int, StoredEntry] = {}
    """The last entry of each log so far."""
    for start, end in pairwise([*starts, len(rows)]):
        row = rows[start]
        log = index(held.branch(row.branch).log)
        before = ends.get(log)
        follows = before is not None and before.branch == row.branch and before.seq == row.seq - 1
        if row.seq == 1 or (follows and not explicit):
            prev = None
        else:
            prev = before.id if before is not None and follows else held.anchor(row.branch, row.seq - 1).id
        runs.append((log, row.seq, end - start, prev if explicit or prev is None else prev[:PREV_HINT_BYTES]))
        ends[log] = rows[end - 1]
    return runs
