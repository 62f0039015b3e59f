"""Reading documents from SQLite: one, many, pages of them, and what of them is damaged."""

# ruff: noqa: S608 -- what is put into a statement is the number of the collection, which this store gave out itself.

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from zlib import crc32

import apsw

from meshsync.errors import DamagedError
from meshsync.store.checksums import ODD_1, ODD_2, expiry_crc
from meshsync.store.rows import LOST_STATE, DocumentPage, DocumentPayload, DocumentRow, Moment
from meshsync.store.sqlite.database import Database
from meshsync.store.sqlite.soundness import is_sound_document

_ROW = "id, arrival, op, live, conflict, CAST(state AS BLOB), expires, crc"
_START = f"arrival + op * {ODD_1} + (live + 2 * conflict + 4 * (state IS NULL)) * {ODD_2}"
_HINTED_ROW = f"CAST(id AS BLOB), arrival, state IS NULL, crc, {_START}"
"""What it takes to leave a document out: less than half of the columns, of which each costs its share of a scan."""
_FEW_LEFT = 8
"""At most one of so many, and it is worth to read the rest of their columns by themselves."""
_CHECKED_ROW = f"{_ROW}, CAST(id AS BLOB), {_START}"
"""With what `document_crc` begins with: SQLite is quicker at sums, and a scan checks every row that it passes."""

_document: Callable[[Sequence[Any]], DocumentRow] = partial(tuple.__new__, DocumentRow)
_payload: Callable[[Sequence[Any]], DocumentPayload] = partial(tuple.__new__, DocumentPayload)
"""Like EntryRow's in soundness.py: every document that a query looks at may pass here."""


class SqliteDocumentReads:
    """The part of `CollectionTables` that reads documents."""

    name: str
    found_damage: Callable[[DamagedError], None]

    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        self.number = n = number
        # The array drives the join: one look-up for each id.
        wanted = f"FROM carray(?) AS wanted CROSS JOIN documents_{n} ON id = wanted.value"
        self._documents = f"SELECT {_ROW} {wanted}"
        self._checked_documents = f"SELECT {_CHECKED_ROW} {wanted}"
        self._hinted_documents = f"SELECT {_HINTED_ROW} {wanted}"
        rows_after = f"SELECT {_ROW} FROM documents_{n}"
        self._document_rows = {
            False: f"{rows_after} WHERE id > ? ORDER BY id LIMIT ?",
            True: f"{rows_after} INDEXED BY documents_{n}_contested WHERE conflict AND id > ? ORDER BY id LIMIT ?",
        }
        live = f"FROM documents_{n} WHERE live"
        ways = {
            (False, False): f"{live} ORDER BY id LIMIT ?",
            (False, True): f"{live} AND id > ? ORDER BY id LIMIT ?",
            (True, False): f"{live} ORDER BY id DESC LIMIT ?",
            (True, True): f"{live} AND id < ? ORDER BY id DESC LIMIT ?",
        }
        self._scan = {way: f"SELECT {_CHECKED_ROW} {rest}" for way, rest in ways.items()}
        self._hinted_scan = {way: f"SELECT {_HINTED_ROW} {rest}" for way, rest in ways.items()}
        self._leaves_few = True
        """Whether few of the last documents that were read with a hint needed more than a look at their payloads."""
        key = f"SELECT expires, id FROM documents_{n} INDEXED BY documents_{n}_expiring WHERE expires IS NOT NULL"
        between = f"{key} AND (expires, id) >= (?, ?) AND (expires, id) < (?, ?)"
        self._expiring = {
            False: f"{between} ORDER BY expires, id LIMIT ?",
            True: f"{between} ORDER BY expires DESC, id DESC LIMIT ?",
        }
        self._expiring_live = f"SELECT count(*) FROM ({between.replace('expires, id', '1', 1)} AND live)"
        # Apart from the rows, because many documents may be what one entry says.
        self._entry_payloads = (
            "SELECT arrival, CAST(payload AS BLOB), head_crc, crc "
            f"FROM carray(?) AS wanted CROSS JOIN entries_{n} ON arrival = wanted.value"
        )

    def documents(self, ids: Sequence[str]) -> dict[str, DocumentRow]:
        if not ids:
            return {}
        rows = self._database.rows(self._documents, (apsw.carray(tuple(ids)),))
        return {row[0]: self._document(row) for row in rows}

    def _document(self, row: Sequence[Any]) -> DocumentRow:
        """The document of a row of id, arrival, op, live, conflict, state, expires, crc and more."""
        if not is_sound_document(row):
            self.found_damage(DamagedError(self.name, document=row[0]))
            return DocumentRow(row[0], 0, 0, True, False, LOST_STATE)
        id, arrival, op, live, conflict, state, expires_ms = row[:7]
        return DocumentRow(id, arrival, op, bool(live), bool(conflict), state, expires_ms)

    def document_page(
        self,
        after: str | None,
        limit: int,
        *,
        reverse: bool = False,
        hint: Callable[[bytes], object] | None = None,
    ) -> DocumentPage:
        bindings = (limit,) if after is None else (after, limit)
        way = reverse, after is not None
        page = self._hinted_page(way, bindings, hint) if hint is not None and self._leaves_few else None
        if page is None:
            rows = self._database.rows(self._scan[way], bindings)
            page = DocumentPage(self._payloads_of(rows, hint), len(rows), rows[-1][0] if len(rows) == limit else None)
            if hint is not None:
                self._note_left(len(page.documents) + sum([row[5] is not None for row in rows]), len(rows))
        return page

    def _hinted_page(
        self, way: tuple[bool, bool], bindings: Sequence[object], hint: Callable[[bytes], object]
    ) -> DocumentPage | None:
        """A page, of which little is read of the documents that are left out; None where damage does not allow it."""
        rows = self._database.rows(self._hinted_scan[way], bindings)
        payloads = self._payloads({row[1] for row in rows if row[2]}, {})
        documents = self._left_by_hint(rows, payloads, hint)
        if documents is None:
            return None
        try:
            last = rows[-1][0].decode() if len(rows) == bindings[-1] else None
        except UnicodeDecodeError:
            return None
        return DocumentPage(documents, len(rows), last)

    def _left_by_hint(
        self, rows: Sequence[Any], payloads: Mapping[int, bytes], hint: Callable[[bytes], object]
    ) -> list[DocumentPayload] | None:
        """Of rows of `_HINTED_ROW` the live documents that these payloads of entries do not rule out; None where damage
        does not allow to tell.
        """
        ruled_out = {arrival for arrival, stored in payloads.items() if not hint(stored)}
        left: list[tuple[Any, ...]] = []
        for id, arrival, is_pointer, crc, start in rows:
            try:
                if is_pointer and arrival in ruled_out and crc32(id, start) == crc:
                    continue
            except TypeError:
                pass  # it is damaged, and so it stays
            left.append((id, arrival, crc, start))
        self._note_left(len(left), len(rows))
        try:
            ids = tuple([id.decode() for id, *_ in left])
        except UnicodeDecodeError:
            return None
        whole = self._database.rows(self._checked_documents, (apsw.carray(ids),)) if ids else []
        if [(row[8], row[1], row[7], row[9]) for row in whole] != left:
            return None  # where the id of one is damaged, another may have it, or none is found
        at_hand = {arrival: payloads[arrival] for _, arrival, *_ in left if arrival in payloads}
        return self._payloads_of(whole, hint, at_hand)

    def _note_left(self, left: int, count: int) -> None:
        self._leaves_few = _FEW_LEFT * left <= count

    def document_payloads(
        self,
        ids: Sequence[str],
        hint: Callable[[bytes], object] | None = None,
        at_hand: Mapping[int, bytes] | None = None,
    ) -> list[DocumentPayload]:
        if not ids:
            return []
        wanted = (apsw.carray(tuple(ids)),)
        if hint is not None and at_hand and self._leaves_few:
            found = self._left_by_hint(self._database.rows(self._hinted_documents, wanted), at_hand, hint)
            if found is not None:
                return found
        rows = self._database.rows(self._checked_documents, wanted)
        found = self._payloads_of(rows, hint, at_hand)
        if hint is not None and at_hand:
            self._note_left(len(found) + sum([row[5] is not None for row in rows]), len(rows))
        return found

    def _payloads_of(
        self, rows: Sequence[Any], hint: Callable[[bytes], object] | None, at_hand: Mapping[int, bytes] | None = None
    ) -> list[DocumentPayload]:
        payloads = self._payloads({row[1] for row in rows if row[5] is None}, at_hand or {})
        ruled_out = set() if hint is None else {arrival for arrival, stored in payloads.items() if not hint(stored)}
        found: list[DocumentPayload] = []
        add = found.append
        for row in rows:
            id, arrival, op, live, conflict, state, expires_ms, crc, key, start = row
            try:
                # As in `document_crc`: a call for each row would cost as much as all the rest.
                check = crc32(key, start)
                if state is not None:
                    check = crc32(state, check)
                elif arrival in ruled_out and check == crc:
                    continue
                is_sound = (check if expires_ms is None else expiry_crc(expires_ms, check)) == crc
            except TypeError:
                is_sound = False
            if not is_sound:
                # Whoever needs a payload that is damaged asks for the entry, and is told.
                document = self._document(row)
                if document.live:
                    add(DocumentPayload(document, payloads.get(arrival)))
            elif not live:
                continue
            elif state is None:
                if arrival not in ruled_out:
                    document = _document((id, arrival, op, True, conflict == 1, None, expires_ms))
                    add(_payload((document, payloads.get(arrival))))
            elif hint is None or hint(state) or state == LOST_STATE:
                add(_payload((_document((id, arrival, op, True, conflict == 1, state, expires_ms)), None)))
        return found

    def _payloads(self, arrivals: set[Any], at_hand: Mapping[int, bytes]) -> dict[int, bytes]:
        """The payloads of entries, those that are sound, and those that are at hand besides."""
        others = arrivals.difference(at_hand) if at_hand else arrivals
        try:
            wanted = array("q", others)
        except TypeError:
            # What is no number is damage, and its row is found by its checksum.
            wanted = array("q", [arrival for arrival in others if type(arrival) is int])
        rows = self._database.rows(self._entry_payloads, (apsw.carray(wanted),)) if wanted else []
        payloads = dict(at_hand)
        for arrival, payload, head, crc in rows:
            # As in `body_crc`; text in the place of numbers or bytes is damage.
            try:
                if crc32(payload, head) == crc:
                    payloads[arrival] = payload
            except TypeError:
                continue
        return payloads

    def document_rows(self, after: str, limit: int, *, contested: bool = False) -> list[DocumentRow]:
        return [self._document(row) for row in self._database.rows(self._document_rows[contested], (after, limit))]

    def expiring(self, start: Moment, end: Moment, limit: int, *, reverse: bool = False) -> list[Moment]:
        return [Moment(*row) for row in self._database.rows(self._expiring[reverse], (*start, *end, limit))]

    def expiring_live(self, start: Moment, end: Moment) -> int:
        count: int = self._database.rows(self._expiring_live, (*start, *end))[0][0]
        return count

    def damaged_documents(self, after: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        rows = self._database.rows(
            "SELECT CAST(id AS BLOB), arrival, op, live, conflict, CAST(state AS BLOB), expires, crc, "
            "typeof(state) = 'text' "
            f"FROM documents_{self.number} WHERE id > CAST(? AS TEXT) ORDER BY id LIMIT ?",
            (after, limit),
        )
        damaged = [row[0] for row in rows if row[5] == LOST_STATE or row[8] or not is_sound_document(row)]
        return damaged, rows[-1][0] if len(rows) == limit else None
