"""What a single write said: the words in which every question about the past is answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from meshsync.core.document import REMOVED
from meshsync.core.entry import KINDS
from meshsync.core.hlc import to_datetime
from meshsync.core.siblings import Mark, Side
from meshsync.ids import EndpointId, EntryId
from meshsync.store.past import Write


@dataclass(frozen=True, slots=True)
class WriteInfo:
    """Which entry wrote, whose it is, when and how."""

    entry: EntryId
    author: EndpointId
    time: datetime
    kind: str
    """put, patch or delete."""

    @classmethod
    def of(cls, write: Write | Mark) -> WriteInfo:
        """The facts of a write."""
        hlc, author, entry = write.stamp
        return cls(EntryId(entry), EndpointId(author), to_datetime(hlc), KINDS[write.kind])


@dataclass(frozen=True, slots=True)
class Said:
    """What one write made of one field."""

    is_there: bool
    """False: it removed the field, or wrote the document without it, or deleted the document."""
    value: Any
    write: WriteInfo

    @classmethod
    def of(cls, write: Write, field: str) -> Said:
        """What `write` makes of `field`."""
        is_there, value = write.value_of(field)
        return cls(is_there, value, WriteInfo.of(write))

    @classmethod
    def by(cls, side: Side) -> Said:
        """What a side of a field is."""
        is_there = side.value is not REMOVED
        return cls(is_there, side.value if is_there else None, WriteInfo.of(side.mark))
