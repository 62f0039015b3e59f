"""What was exchanged of each collection since the start of the node: sums over sessions that run and that ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshsync.core.session import Session
from meshsync.ids import CollectionId
from meshsync.sync.results import SyncStats

if TYPE_CHECKING:
    from meshsync.sync.exchange import Exchange


@dataclass(slots=True)
class Exchanged:
    """What sessions exchanged."""

    pulled: int = 0
    pushed: int = 0
    conflicts: int = 0
    payload_bytes: int = 0
    """Of the entries that were received, each as often as it was."""
    payload_bytes_new: int = 0
    """Of those that were not here: the least that had to be received."""

    @property
    def redundancy(self) -> float | None:
        """How often a payload was received on average; None where none was."""
        return self.payload_bytes / self.payload_bytes_new if self.payload_bytes_new else None

    def add(self, session: Session) -> None:
        """Count a session."""
        pulled = session.pulled
        self.pulled += pulled.entries
        self.pushed += session.pushed
        self.conflicts += pulled.conflicts
        self.payload_bytes += pulled.payload_bytes
        self.payload_bytes_new += pulled.payload_bytes_new


class Totals:
    """Sums by collection."""

    def __init__(self) -> None:
        self._ended: dict[CollectionId, Exchanged] = {}

    def ended(self, session: Session) -> None:
        """A session is over."""
        self._ended.setdefault(session.held.id, Exchanged()).add(session)

    def stats(self, running: Collection[Exchange], failures: int, links: int) -> SyncStats:
        """All of it; `failures` of the store, and `links` at present."""
        total = self.sum(exchange.session for exchange in running)
        return SyncStats(
            total.pulled,
            total.pushed,
            total.conflicts,
            total.payload_bytes,
            total.payload_bytes_new,
            failures,
            links,
            len(running),
        )

    def sum(self, running: Iterable[Session], collection: CollectionId | None = None) -> Exchanged:
        """Of one collection, or of all; `running`: the sessions that have not ended."""
        total = Exchanged()
        for id, ended in self._ended.items():
            if collection in (None, id):
                total.pulled += ended.pulled
                total.pushed += ended.pushed
                total.conflicts += ended.conflicts
                total.payload_bytes += ended.payload_bytes
                total.payload_bytes_new += ended.payload_bytes_new
        for session in running:
            if collection in (None, session.held.id):
                total.add(session)
        return total
