"""Which entries with marks in doubt touch a document: in memory, and found only as far as somebody asks.

The store has no list of the marks of one document, because a document that is written all the time has a great many.
Few are in doubt for long; where there are more than can be remembered, a document is in doubt that has any mark at all
that is not older than what is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from meshsync.core.bare import SUPERSEDED, mark_of, tags_of
from meshsync.errors import DamagedError
from meshsync.store.rows import EntryRow

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_PAGE = 256


class Doubtful:
    """The marks in doubt of one replica, by tag."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.forget()

    def forget(self) -> None:
        """What was found may not be so any more."""
        self._first = self._next = 0
        """From which entry on marks are in doubt, and the next one to look at."""
        self._count = 0
        self._by_tag: dict[bytes, list[int]] = {}
        """Arrivals; some may have got their payloads."""

    def marked(self, rows: Iterable[EntryRow]) -> None:
        """These entries, which were here, got marks."""
        for row in rows:
            if self._first <= row.arrival < self._next:
                self._note(row)

    def entries(self, tag: bytes, first: int, hlc: int) -> Iterator[EntryRow]:
        """The entries with this tag, written from one time on, that have marks in doubt; or one of them, perhaps.

        `first`: from which arrival on marks are in doubt.
        """
        gone = self._replica.tables.touches.gone(tag)
        if gone is None or gone.hlc < hlc:
            return  # that is the last of them
        self._look(first)
        is_known = self._has_room
        for arrival in self._by_tag.get(tag, []) if is_known else [gone.arrival]:
            with suppress(DamagedError):
                row = self._replica.tables.entry(arrival)
                if row is not None and not (is_known and (arrival < first or row.hlc < hlc or _is_sure(row, tag))):
                    yield row

    def _look(self, first: int) -> None:
        """Look at the marks in doubt that were not looked at yet."""
        if first < self._first or not self._next:
            self.forget()
            self._first = self._next = first
        end = self._replica.tables.next_arrival()
        while self._next < end and self._has_room:
            rows = self._replica.tables.marked_entries(self._next, _PAGE)
            for row in rows:
                self._note(row)
            self._next = rows[-1].arrival + 1 if rows else end

    @property
    def _has_room(self) -> bool:
        return self._count < self._replica.limits.doubtful_marks_max

    def _note(self, row: EntryRow) -> None:
        self._count += 1
        for tag in tags_of(row.bare or b""):
            self._by_tag.setdefault(tag, []).append(row.arrival)


def _is_sure(row: EntryRow, tag: bytes) -> bool:
    """Whether an entry has no such mark any more, or does not touch the document."""
    return row.bare is None or mark_of(row.bare) != SUPERSEDED or tag not in tags_of(row.bare)
