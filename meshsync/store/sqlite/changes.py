"""What was told of the documents of a part of a collection, in SQLite."""

# ruff: noqa: S608 -- what is put into a statement is the number of the collection, which this store gave out itself.

from __future__ import annotations

from collections.abc import Sequence

import apsw

from meshsync.store.changes import ChangeRow
from meshsync.store.sqlite.database import Database

_COLUMNS = "id, number, late, stays"


class SqliteChanges:
    """Implements `DocumentChanges`."""

    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        n = number
        row = f"SELECT {_COLUMNS} FROM changes_{n}"
        self._rows = f"SELECT {_COLUMNS} FROM carray(?) AS wanted CROSS JOIN changes_{n} ON id = wanted.value"
        self._after = f"{row} INDEXED BY changes_{n}_order WHERE number > ? ORDER BY number LIMIT ?"
        self._last = f"SELECT ifnull(max(number), 0) FROM changes_{n}"
        self._clear = f"DELETE FROM changes_{n}"
        self._put = f"INSERT OR REPLACE INTO changes_{n} ({_COLUMNS}) VALUES (?, ?, ?, ?)"

    def last(self) -> int:
        last: int = self._database.row(self._last)[0]
        return last

    def rows(self, ids: Sequence[str]) -> dict[str, ChangeRow]:
        rows = self._database.rows(self._rows, (apsw.carray(tuple(ids)),)) if ids else []
        return {row[0]: ChangeRow(*row) for row in rows}

    def after(self, number: int, limit: int) -> list[ChangeRow]:
        return [ChangeRow(*row) for row in self._database.rows(self._after, (number, limit))]

    def clear(self) -> None:
        self._database.write(self._clear)

    def put(self, rows: Sequence[ChangeRow]) -> None:
        self._database.write_many(self._put, rows)
