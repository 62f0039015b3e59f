"""The sides of a document in conflict: what each field is by what one author knew, and which writes say so.

The entries on a document that no other entry on it has seen are its sides.  A side is read backwards from there, until
it is known what made each field what it is on that side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from meshsync.core.anchor import Place
from meshsync.core.entry import PATCH
from meshsync.core.limits import LIMITS
from meshsync.store.past import Past, Write
from meshsync.store.rows import DocumentRow

_CHUNK = 64


@dataclass(slots=True)
class Side:
    """One side of a document, while its writes are read backwards."""

    place: Place
    last: Write | None = None
    floor: Write | None = None
    """The put or delete below which nothing counts."""
    fields: dict[str, Write] = field(default_factory=dict)
    expiry: Write | None = None
    """What said when the document expires."""

    def take(self, write: Write) -> None:
        """Take the next earlier write that this side has seen."""
        if self.floor is not None:
            return
        self.last = self.last or write
        for name in write.body or ():
            self.fields.setdefault(name, write)
        if write.expires_ms is not None and self.expiry is None:
            self.expiry = write
        if write.kind != PATCH:
            self.floor = write

    def shows(self, name: str) -> Write | None:
        """What made the field what it is here; None where nothing ever did."""
        return self.fields.get(name, self.floor)

    def places(self) -> set[Place]:
        """The writes that this side is made of."""
        writes = (self.last, self.floor, self.expiry, *self.fields.values())
        return {write.place for write in writes if write is not None}


def read_sides(past: Past, row: DocumentRow, places: Sequence[Place]) -> tuple[list[Side], bool]:
    """The sides of a document that end at these places, and whether each is known down to its floor.

    At most `Limits.past_writes_max` writes are read, the latest first.  DamagedError: one cannot be read.
    """
    sides = [Side(place) for place in places]
    writes = past.writes(row, reverse=True)
    for _ in range(LIMITS.past_writes_max // _CHUNK):
        unread = [side for side in sides if side.floor is None]
        chunk = list(islice(writes, _CHUNK)) if unread else []
        if not chunk:
            return sides, True
        for side in unread:
            seen = past.seen_by(side.place, [write.place for write in chunk])
            for write in chunk:
                if write.place in seen:
                    side.take(write)
    return sides, not any(side.floor is None for side in sides) or next(writes, None) is None
