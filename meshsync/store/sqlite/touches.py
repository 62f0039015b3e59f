"""Which entries touch a document, in SQLite: the index beside the documents, and making it anew from the entries."""

# ruff: noqa: S608 -- what is put into a statement is the number of a collection, which a store gave out itself.

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import apsw

from meshsync.core import cbor
from meshsync.core.entry import document_tag
from meshsync.core.limits import INT_MAX
from meshsync.ids import CollectionId
from meshsync.store.rows import Touch
from meshsync.store.sqlite.database import Database, run

_PAGE = 256
"""Entries that are read at once to make the index anew: with payloads of the greatest size, 64 MiB."""


class SqliteTouches:
    """Implements `DocumentTouches`."""

    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        self._insert = f"INSERT OR IGNORE INTO touches_{number} VALUES (?, ?, ?)"
        page = f"SELECT hlc, arrival FROM touches_{number} WHERE tag = ? AND (hlc, arrival)"
        self._forwards = f"{page} > (?, ?) ORDER BY hlc, arrival LIMIT ?"
        self._backwards = f"{page} < (?, ?) ORDER BY hlc DESC, arrival DESC LIMIT ?"

    def add(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        self._database.write_many(self._insert, touches)

    def page(self, tag: bytes, after: Touch | None, limit: int, *, reverse: bool = False) -> list[Touch]:
        if reverse:
            rows = self._database.rows(self._backwards, (tag, *(after or (INT_MAX, INT_MAX)), limit))
        else:
            rows = self._database.rows(self._forwards, (tag, *(after or (-1, -1)), limit))
        return [Touch(*row) for row in rows]


def fill_touches(connection: apsw.Connection, number: int, id: CollectionId) -> None:
    """Note all entries of a collection.  Reads everything once."""
    # What a document's row points at is found by the row.
    note = (
        f"INSERT OR IGNORE INTO touches_{number} SELECT ?, ?, ? WHERE NOT EXISTS "
        f"(SELECT 1 FROM documents_{number} WHERE id = ? AND arrival = ? AND state IS NULL)"
    )
    note_bare = f"INSERT OR IGNORE INTO touches_{number} VALUES (?, ?, ?)"
    after = 0
    while rows := run(
        connection,
        f"SELECT arrival, hlc, CAST(payload AS BLOB), CAST(bare AS BLOB) FROM entries_{number} "
        "WHERE arrival > ? ORDER BY arrival LIMIT ?",
        (after, _PAGE),
    ):
        for arrival, hlc, payload, bare in rows:
            # What makes no sense is damaged; it is stored again, and noted then, by a repair.
            with suppress(*cbor.GARBAGE, AttributeError):
                if payload is None:
                    tags = cbor.decode_trusted(bare)[2]
                    connection.executemany(note_bare, [(tag, hlc, arrival) for tag in tags])
                    continue
                ids = [operation[1] for operation in cbor.decode_trusted(payload)]
                touches = [(document_tag(id, one), hlc, arrival, one, arrival) for one in ids]
                connection.executemany(note, touches)
        after = rows[-1][0]
