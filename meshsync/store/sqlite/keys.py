"""The declared indexes of a collection in SQLite: a key for each document and field, found by either."""

# ruff: noqa: S608 -- what is put into a statement is the number of the collection, which this store gave out itself.

from __future__ import annotations

from collections.abc import Sequence

from meshsync.store.keys import IndexRow, KeyRow
from meshsync.store.sqlite.database import Database


class SqliteKeys:
    """Implements `DocumentKeys`."""

    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        n = number
        self._rows = f"SELECT number, path, state, after FROM indexes_{n} ORDER BY number"
        self._set = f"INSERT OR REPLACE INTO indexes_{n} VALUES (?, ?, ?, ?)"
        self._unset = f"DELETE FROM indexes_{n} WHERE number = ?"
        # A key that stays the same is not written: most changes of a document leave most of its fields alone.
        self._put = (
            f"INSERT INTO keys_{n} (field, id, key) VALUES (?, ?, ?) "
            "ON CONFLICT (field, id) DO UPDATE SET key = excluded.key WHERE key IS NOT excluded.key"
        )
        self._forget = f"DELETE FROM keys_{n} WHERE field IN (SELECT number FROM indexes_{n}) AND id = CAST(? AS TEXT)"
        self._clear = (
            f"DELETE FROM keys_{n} WHERE (field, id) IN (SELECT field, id FROM keys_{n} WHERE field = ? LIMIT ?)"
        )
        self._count = (
            f"SELECT count(*) FROM (SELECT 1 FROM keys_{n} INDEXED BY keys_{n}_order "
            "WHERE field = ? AND key >= ? AND key < ? LIMIT ?)"
        )
        page = f"SELECT key, id FROM keys_{n} INDEXED BY keys_{n}_order WHERE field = ?"
        self._page = {
            False: f"{page} AND (key, id) > (?, ?) AND key < ? ORDER BY key, id LIMIT ?",
            True: f"{page} AND (key, id) < (?, ?) AND key >= ? ORDER BY key DESC, id DESC LIMIT ?",
        }
        self._from = {
            False: f"{page} AND key >= ? AND key < ? ORDER BY key, id LIMIT ?",
            True: f"{page} AND key < ? AND key >= ? ORDER BY key DESC, id DESC LIMIT ?",
        }
        self._by_id = f"SELECT id, key FROM keys_{n} WHERE field = ? AND id > ? ORDER BY id LIMIT ?"

    def rows(self) -> list[IndexRow]:
        return [IndexRow(*row) for row in self._database.rows(self._rows)]

    def set_row(self, row: IndexRow) -> None:
        self._database.write(self._set, row)

    def remove_row(self, number: int) -> None:
        self._database.write(self._unset, (number,))

    def put(self, rows: Sequence[tuple[int, str, bytes]]) -> None:
        self._database.write_many(self._put, rows)

    def forget(self, ids: Sequence[bytes]) -> None:
        self._database.write_many(self._forget, [(id,) for id in ids])

    def clear(self, number: int, limit: int) -> bool:
        self._database.write(self._clear, (number, limit))
        return self.count(number, b"", b"\xff", 1) == 0

    def count(self, number: int, low: bytes, high: bytes, limit: int) -> int:
        found: int = self._database.row(self._count, (number, low, high, limit))[0]
        return found

    def page(
        self, number: int, low: bytes, high: bytes, after: KeyRow | None, limit: int, *, reverse: bool = False
    ) -> list[KeyRow]:
        near, far = (high, low) if reverse else (low, high)
        if after is None:
            rows = self._database.rows(self._from[reverse], (number, near, far, limit))
        else:
            rows = self._database.rows(self._page[reverse], (number, *after, far, limit))
        return [KeyRow(*row) for row in rows]

    def by_id(self, number: int, after: str, limit: int) -> list[KeyRow]:
        return [KeyRow(key, id) for id, key in self._database.rows(self._by_id, (number, after, limit))]
