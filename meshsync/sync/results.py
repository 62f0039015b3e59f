"""What the sync engine answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from meshsync.core import cbor
from meshsync.core.entry import Operation
from meshsync.core.session_events import SessionState
from meshsync.ids import EntryId, LogId
from meshsync.store.replica import Replica

if TYPE_CHECKING:
    from meshsync.sync.link import Link


@dataclass(frozen=True, slots=True)
class SyncCycleResult:
    """What a forced round did."""

    pulled: int
    """Entries received."""
    pushed: int
    """Entries sent."""
    conflicts: int
    """Documents that came into conflict."""
    peers: int
    """Peers that took part."""


@dataclass(frozen=True, slots=True)
class SyncState:
    """Where one collection stands with one peer."""

    state: SessionState
    missing: int
    """Entries that the peer has and this node has not."""
    unsent: int
    """Entries that this node has yet to send."""
    last_synced: float | None
    """Seconds since the epoch (UTC) when both roots were last equal; None: not yet on this connection."""
    stall: str | None
    """Why it does not go on."""
    lazy: bool = False
    """Whether entries are only announced on this link, because they come by others."""


@dataclass(frozen=True, slots=True)
class SyncStats:
    """Sums since the start of the node, but for the last two."""

    pulled: int
    pushed: int
    conflicts: int
    payload_bytes: int
    """Of entries that were received, each as often as it was."""
    payload_bytes_new: int
    """Of those that were not here before."""
    batches_failed: int
    """How often the store did not take something."""
    links: int
    """Connections at present."""
    sessions: int
    """Sessions at present."""


@dataclass(frozen=True, slots=True)
class OriginEntry:
    """An entry by its place in its author's log."""

    log: LogId
    seq: int
    id: EntryId
    hlc: int
    operations: tuple[Operation, ...] | None
    """None where the payload is not here."""


def entries_since(replica: Replica, cursors: Mapping[LogId, int], limit: int) -> list[OriginEntry]:
    """At most `limit` entries at or past the cursors, parents first; [] where there are none."""
    known = {branch.number: cursors[log] - 1 for log in cursors for branch in replica.branches_of(log)}
    parcel = replica.parcel(known, replica.numbers())
    return [
        OriginEntry(
            replica.branches[row.branch].log,
            row.seq,
            EntryId(row.id),
            row.hlc,
            None if row.payload is None else tuple(map(Operation.of, cbor.decode_trusted(row.payload))),
        )
        for row in (parcel.rows[:limit] if parcel is not None else ())
    ]


def state_of(link: Link | None, replica: Replica, wall_ms: int) -> SyncState:
    """Where a collection stands on the link with a peer, None where there is none."""
    exchange = link.exchanges.get(replica.id) if link is not None else None
    if exchange is None:
        shared = link.shares(replica.id) if link is not None else False
        reason = "the peer has yet to open it" if shared is not False else "the peer does not subscribe to it"
        reason = reason if link is not None else "not connected"
        return SyncState(SessionState.IDLE, 0, 0, None, reason)
    exchange.absorb()
    session = exchange.session
    last = session.last_synced
    if last is not None:
        last = wall_ms / 1000 - (trio.current_time() - last)
    stall = session.stall if session.is_opened else "the peer has yet to say what it holds"
    return SyncState(session.state, session.missing, session.unsent, last, stall, session.is_lazy)
