"""Documents: merging operations, in any order, into the same state (protocol: "Documents").

State per document: a clear stamp, a stamp that says that it exists, and per field a value with a stamp.  A
stamp is (hlc, author, entry id), a total order that respects causality.  A put raises the clear stamp and sets
its fields; a patch sets or removes the fields that it names; a delete raises the clear stamp.  What lies below
the clear stamp is hidden for good, because that stamp only ever rises, and so it is dropped.  Each rule keeps
the greatest stamp, hence order, grouping and repetition do not matter.

When a document expires is one more field of it that has no name: a put sets it, to never where it names no time, and a
patch only where it names one.  So what a document is follows from its entries alone, and only whether it is shown
depends on the time besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from meshsync.core import cbor
from meshsync.core.anchor import Place
from meshsync.core.entry import DELETE, PATCH, PUT


class Stamp(NamedTuple):
    """When, by whom and in which entry: the total order of writes."""

    hlc: int
    author: bytes
    entry: bytes


class _Removed(Enum):
    REMOVED = "removed"


REMOVED: Final = _Removed.REMOVED
"""The value of a field that a patch removed."""


@dataclass(slots=True)
class DocumentState:
    """The merged state of one document."""

    clear: Stamp | None = None
    exists: Stamp | None = None
    fields: dict[str, tuple[Any, Stamp]] = field(default_factory=dict)
    frontier: list[Place] = field(default_factory=list)
    """The entries on this document that no other entry on it has seen: more than one is a conflict."""
    expiry: tuple[int, Stamp] | None = None
    """When it expires, or NEVER, and who said so; None: nobody did."""

    @property
    def expires_ms(self) -> int | None:
        """From when on it is not shown, in milliseconds since the Unix epoch; None: it is for ever."""
        return (self.expiry[0] or None) if self.expiry is not None and self.exists is not None else None

    def apply(self, kind: int, body: Mapping[str, Any] | None, stamp: Stamp, expires_ms: int | None = None) -> None:
        """Merge one operation; `expires_ms` as in `Operation`."""
        if kind in (PUT, DELETE) and (self.clear is None or stamp > self.clear):
            self.clear = stamp
            self.fields = {name: kept for name, kept in self.fields.items() if kept[1] >= stamp}
            if self.expiry is not None and self.expiry[1] < stamp:
                self.expiry = None
        if kind in (PUT, PATCH):
            if self.exists is None or stamp > self.exists:
                self.exists = stamp
            if self.clear is None or stamp >= self.clear:
                self._set(kind, body or {}, stamp)
                if expires_ms is not None and (self.expiry is None or stamp > self.expiry[1]):
                    self.expiry = (expires_ms, stamp)
        if self.exists is not None and self.clear is not None and self.exists < self.clear:
            self.exists = None

    def _set(self, kind: int, body: Mapping[str, Any], stamp: Stamp) -> None:
        for name, value in body.items():
            kept = self.fields.get(name)
            if kept is None or stamp > kept[1]:
                self.fields[name] = (REMOVED if kind == PATCH and value is None else value, stamp)

    def visible(self) -> dict[str, Any] | None:
        """The document, expired or not, or None where it does not exist."""
        if self.exists is None:
            return None
        return {name: value for name, (value, _) in sorted(self.fields.items()) if value is not REMOVED}

    def last(self) -> Stamp:
        """The greatest stamp that contributes: who wrote last, and when."""
        return max(self.stamps())

    def stamps(self) -> set[Stamp]:
        """The stamps of the writes that say what the document is, hidden fields and its absence included."""
        registers = [self.clear, self.exists, None if self.expiry is None else self.expiry[1]]
        return {stamp for _, stamp in self.fields.values()} | {stamp for stamp in registers if stamp is not None}

    def shows(self, kind: int, stamp: Stamp) -> bool:
        """Whether the document is, in part, what the write of this stamp said."""
        if self.exists is None:
            return kind == DELETE and self.clear == stamp
        if self.expiry is not None and self.expiry[1] == stamp:
            return True
        return any(one == stamp for _, one in self.fields.values()) or (not self.fields and self.exists == stamp)

    def encode(self) -> bytes:
        """CBOR [stamps, clear, exists, {field: [stamp index, value] or [stamp index]}, frontier], and [stamp index,
        time] where something was said of its expiry.
        """
        index: dict[Stamp, int] = {}

        def number(stamp: Stamp | None) -> int | None:
            return None if stamp is None else index.setdefault(stamp, len(index))

        fields = {
            name: [number(stamp)] if value is REMOVED else [number(stamp), value]
            for name, (value, stamp) in sorted(self.fields.items())
        }
        clear, exists = number(self.clear), number(self.exists)
        expiry = [] if self.expiry is None else [[number(self.expiry[1]), self.expiry[0]]]
        return cbor.encode([[list(stamp) for stamp in index], clear, exists, fields, self.frontier, *expiry])

    @classmethod
    def decode(cls, data: bytes) -> DocumentState:
        """Read what `encode` wrote."""
        rows, clear, exists, fields, frontier, *expiry = cbor.decode_trusted(data)
        stamps = [Stamp(*row) for row in rows]
        return cls(
            None if clear is None else stamps[clear],
            None if exists is None else stamps[exists],
            {name: (item[1] if len(item) == 2 else REMOVED, stamps[item[0]]) for name, item in fields.items()},
            [Place(*place) for place in frontier],
            (expiry[0][1], stamps[expiry[0][0]]) if expiry else None,
        )
