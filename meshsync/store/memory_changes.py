"""What was told of the documents of a part of a collection, in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter

from meshsync.store.changes import ChangeRow

_NUMBER = attrgetter("number")


class MemoryChanges:
    """Implements `DocumentChanges`."""

    def __init__(self) -> None:
        self._rows: dict[str, ChangeRow] = {}
        self._sorted: list[ChangeRow] = []
        """By number."""
        self.changed: Callable[[Callable[[], object]], None] = lambda undo: None  # noqa: ARG005
        """Receives the steps back; set by the tables that these belong to."""

    def copy(self) -> MemoryChanges:
        """The same a second time, sharing nothing that changes."""
        twin = MemoryChanges()
        twin._rows, twin._sorted = self._rows.copy(), self._sorted.copy()
        return twin

    def last(self) -> int:
        return self._sorted[-1].number if self._sorted else 0

    def rows(self, ids: Sequence[str]) -> dict[str, ChangeRow]:
        return {id: self._rows[id] for id in ids if id in self._rows}

    def after(self, number: int, limit: int) -> list[ChangeRow]:
        start = bisect_right(self._sorted, number, key=_NUMBER)
        return self._sorted[start : start + limit]

    def put(self, rows: Sequence[ChangeRow]) -> None:
        for row in rows:
            self.changed(partial(self._set, row.id, self._rows.get(row.id)))
            self._set(row.id, row)

    def clear(self) -> None:
        for id, row in list(self._rows.items()):
            self.changed(partial(self._set, id, row))
            self._set(id, None)

    def _set(self, id: str, row: ChangeRow | None) -> None:
        before = self._rows.pop(id, None)
        if before is not None:
            at = bisect_left(self._sorted, before.number, key=_NUMBER)
            while self._sorted[at].id != id:  # those with number 0
                at += 1
            del self._sorted[at]
        if row is not None:
            self._rows[id] = row
            insort(self._sorted, row, key=_NUMBER)
