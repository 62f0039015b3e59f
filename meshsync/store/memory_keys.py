"""The declared indexes of a collection in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from functools import partial

from meshsync.store.keys import IndexRow, KeyRow


class MemoryKeys:
    """Implements `DocumentKeys`."""

    def __init__(self) -> None:
        self._rows: dict[int, IndexRow] = {}
        self._keys: dict[int, dict[str, bytes]] = {}
        self._sorted: dict[int, list[KeyRow]] = {}
        self.changed: Callable[[Callable[[], object]], None] = lambda undo: None  # noqa: ARG005
        """Receives the steps back; set by the tables that these belong to."""

    def copy(self) -> MemoryKeys:
        """The same a second time, sharing nothing that changes."""
        twin = MemoryKeys()
        twin._rows = self._rows.copy()
        twin._keys = {number: keys.copy() for number, keys in self._keys.items()}
        twin._sorted = {number: keys.copy() for number, keys in self._sorted.items()}
        return twin

    def rows(self) -> list[IndexRow]:
        return [self._rows[number] for number in sorted(self._rows)]

    def set_row(self, row: IndexRow) -> None:
        self._set_row(row.number, row)

    def remove_row(self, number: int) -> None:
        self._set_row(number, None)

    def _set_row(self, number: int, row: IndexRow | None) -> None:
        before = self._rows.pop(number, None)
        if row is not None:
            self._rows[number] = row
        self.changed(partial(self._put_back_row, number, before))

    def _put_back_row(self, number: int, before: IndexRow | None) -> None:
        self._rows.pop(number, None)
        if before is not None:
            self._rows[number] = before

    def put(self, rows: Sequence[tuple[int, str, bytes]]) -> None:
        for number, id, key in rows:
            self._replace(number, id, key)

    def forget(self, ids: Sequence[bytes]) -> None:
        for number in self._rows:
            for id in ids:
                self._replace(number, id.decode(), None)

    def clear(self, number: int, limit: int) -> bool:
        for id in list(self._keys.get(number, ()))[:limit]:
            self._replace(number, id, None)
        return not self._keys.get(number)

    def _replace(self, number: int, id: str, key: bytes | None) -> None:
        before = self._keys.get(number, {}).get(id)
        if before != key:
            self._set(number, id, key)
            self.changed(partial(self._set, number, id, before))

    def _set(self, number: int, id: str, key: bytes | None) -> None:
        keys, ordered = self._keys.setdefault(number, {}), self._sorted.setdefault(number, [])
        before = keys.pop(id, None)
        if before is not None:
            del ordered[bisect_left(ordered, KeyRow(before, id))]
        if key is not None:
            keys[id] = key
            insort(ordered, KeyRow(key, id))

    def _between(self, number: int, low: bytes, high: bytes) -> list[KeyRow]:
        ordered = self._sorted.get(number, [])
        return ordered[bisect_left(ordered, KeyRow(low, "")) : bisect_left(ordered, KeyRow(high, ""))]

    def count(self, number: int, low: bytes, high: bytes, limit: int) -> int:
        return min(limit, len(self._between(number, low, high)))

    def page(
        self, number: int, low: bytes, high: bytes, after: KeyRow | None, limit: int, *, reverse: bool = False
    ) -> list[KeyRow]:
        found = self._between(number, low, high)
        if reverse:
            end = len(found) if after is None else bisect_left(found, after)
            return found[max(0, end - limit) : end][::-1]
        start = 0 if after is None else bisect_right(found, after)
        return found[start : start + limit]

    def by_id(self, number: int, after: str, limit: int) -> list[KeyRow]:
        keys = self._keys.get(number, {})
        return [KeyRow(keys[id], id) for id in sorted(id for id in keys if id > after)[:limit]]
