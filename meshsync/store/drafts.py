"""A document on its way from its row through a merge, and as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshsync.core.document import DocumentState, Stamp
from meshsync.core.siblings import SiblingState
from meshsync.ids import EntryId
from meshsync.store.husks import is_husk
from meshsync.store.rows import LOST_STATE, DocumentRow

State = DocumentState | SiblingState
"""The merged state of a document: which of the two follows from the policy of its collection."""


@dataclass(frozen=True, slots=True)
class MergedDocument:
    """A document as it stands, and the write that contributed last."""

    body: dict[str, Any] | None
    stamp: Stamp
    conflict: bool
    expires_ms: int | None

    @property
    def entry(self) -> EntryId:
        """The entry of that write."""
        return EntryId(self.stamp.entry)


class Draft:
    """A document while a batch is merged: decoded once, and encoded once."""

    __slots__ = ("arrival", "conflict", "encoded", "expires_ms", "is_lost", "live", "op", "state", "was_live")

    def __init__(self, stored: DocumentRow | None, now: DocumentRow | None = None) -> None:
        self.state: State | None = None
        self.encoded: bytes | None = None
        self.is_lost = False
        self.arrival = self.op = 0
        self.live = self.conflict = False
        self.expires_ms: int | None = None
        if (row := now or stored) is not None and not is_husk(row.state):
            _, self.arrival, self.op, self.live, self.conflict, self.encoded, self.expires_ms = row
            self.is_lost = self.encoded == LOST_STATE
        self.was_live = stored is not None and stored.live

    @property
    def has_state(self) -> bool:
        """Whether the document is more than one operation."""
        return self.state is not None or self.encoded is not None

    def point_at(self, arrival: int, op: int, expires_ms: int | None, *, exists: bool) -> None:
        """The document is what one operation says."""
        self.arrival, self.op, self.live, self.expires_ms = arrival, op, exists, expires_ms
        self.conflict, self.state, self.encoded = False, None, None

    def lose(self, arrival: int) -> None:
        """What the document was cannot be read."""
        self.arrival, self.op, self.live, self.conflict = arrival, 0, True, False
        self.state, self.encoded, self.is_lost, self.expires_ms = None, LOST_STATE, True, None

    def row(self, id: str) -> DocumentRow:
        """The document as it is stored."""
        encoded = self.encoded if self.state is None else self.state.encode()
        return DocumentRow(id, self.arrival, self.op, self.live, self.conflict, encoded, self.expires_ms)
