"""Documents as they were: the state made of the entries up to a time, or of one entry and what it had seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshsync.core.document import DocumentState
from meshsync.past.facts import WriteInfo
from meshsync.store.base import DocumentRow
from meshsync.store.past import Past, Write


@dataclass(frozen=True, slots=True)
class PastDocument:
    """A document as it was."""

    id: str
    body: dict[str, Any]
    write: WriteInfo
    """The write that contributed last."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A collection as the entries up to some point make it.  Made by `Collection.snapshot`; reads the store anew."""

    past: Past
    until_hlc: int
    """The greatest stamp that counts."""
    reached: Mapping[int, int] | None
    """How far each branch counts; None: all of it."""

    def get(self, id: str) -> PastDocument | None:
        """A document as it was; None where it did not exist.  DamagedError: one of its writes cannot be read."""
        row = self.past.row(id)
        return None if row is None else self._document(row)

    def documents(self) -> Iterator[PastDocument]:
        """The documents that existed, by id, read in pages; cheap to abandon.  DamagedError: as `get`."""
        for row in self.past.rows():
            if (document := self._document(row)) is not None:
                yield document

    def _document(self, row: DocumentRow) -> PastDocument | None:
        state = DocumentState()
        last: Write | None = None
        for write in self.past.writes(row):
            if write.stamp.hlc > self.until_hlc:
                break
            if self._counts(write):
                write.apply_to(state)
                last = write
        body = state.visible()
        return None if body is None or last is None else PastDocument(row.id, body, WriteInfo.of(last))

    def _counts(self, write: Write) -> bool:
        return self.reached is None or write.place.seq <= self.reached.get(write.place.branch, 0)
