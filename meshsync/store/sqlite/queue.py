"""Entries whose payloads may be let go, in SQLite."""

# ruff: noqa: S608 -- what is put into a statement is the number of the collection, which this store gave out itself.

from __future__ import annotations

from collections.abc import Iterable

from meshsync.store.sqlite.database import Database


class SqliteQueue:
    """Implements `ArrivalQueue`."""

    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        table = f"superseded_{number}"
        self._add = f"INSERT OR IGNORE INTO {table} VALUES (?)"
        self._remove = f"DELETE FROM {table} WHERE arrival = ?"
        self._clear = f"DELETE FROM {table}"
        self._page = f"SELECT arrival FROM {table} WHERE arrival > ? ORDER BY arrival LIMIT ?"
        self._count = f"SELECT count(*) FROM {table}"

    def add(self, arrivals: Iterable[int]) -> None:
        self._database.write_many(self._add, [(arrival,) for arrival in arrivals])

    def remove(self, arrivals: Iterable[int]) -> None:
        self._database.write_many(self._remove, [(arrival,) for arrival in arrivals])

    def clear(self) -> None:
        self._database.write(self._clear)

    def page(self, after: int, limit: int) -> list[int]:
        return [arrival for (arrival,) in self._database.rows(self._page, (after, limit))]

    def __len__(self) -> int:
        count: int = self._database.row(self._count)[0]
        return count
