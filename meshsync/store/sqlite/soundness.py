"""Rows as SQLite gives them, held against their checksums.

A bit that flips in the header of a record changes the type of a value, so each check takes values of any type.  Text
is the worst of them, because what is not UTF-8 cannot be read at all; it is read as the blob that it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from meshsync.store.checksums import ODD_1, ODD_2, PRIME, body_crc, branch_crc, document_crc, head_crc
from meshsync.store.rows import BranchRow, EntryRow, InspectedEntry, entry_row

ENTRY_COLUMNS = "arrival, branch, seq, id, hlc, height, parents, payload, bare, seal, crc"
ENTRY_COLUMNS_AS_BLOBS = (
    "arrival, branch, seq, CAST(id AS BLOB), hlc, height, CAST(parents AS BLOB), CAST(payload AS BLOB), "
    "CAST(bare AS BLOB), CAST(seal AS BLOB), crc"
)
INSPECTED_COLUMNS = (
    f"{ENTRY_COLUMNS_AS_BLOBS}, head_crc, "
    "'text' IN (typeof(id), typeof(parents), typeof(seal)), 'text' IN (typeof(payload), typeof(bare))"
)
HEAD_COLUMNS = (
    "arrival, branch, seq, CAST(id AS BLOB), hlc, height, CAST(parents AS BLOB), CAST(seal AS BLOB), head_crc"
)

LACKING = "bare IS NOT NULL AND substr(bare, 1, 1) <> x'84'"
MARKED = "bare IS NOT NULL AND substr(bare, 1, 1) = x'84'"
"""See meshsync.core.bare.  As in collection.sql: SQLite takes an index for a condition that it was made with."""


def sound_entries(rows: Sequence[tuple[Any, ...]]) -> list[EntryRow]:
    """Rows of ENTRY_COLUMNS as entries, as far as the first that is damaged."""
    entries: list[EntryRow] = []
    add = entries.append
    try:
        for row in rows:
            _, branch, seq, id, hlc, height, parents, payload, bare, seal, crc = row
            # As in `head_crc`: two calls for each row would cost as much as the checksum itself.
            found = crc32(id, hlc % PRIME + seq + height * ODD_1 + branch * ODD_2)
            if parents is not None:
                found = crc32(parents, found)
            if seal is not None:
                found = crc32(seal, found)
            if crc32(payload if bare is None else bare, found) != crc:
                break
            add(entry_row(row[:10]))
    except TypeError:
        pass  # the row at hand is the damaged one
    return entries


def inspected(row: Sequence[Any]) -> InspectedEntry:
    """A row of INSPECTED_COLUMNS, and what of it is sound."""
    _, branch, seq, id, hlc, height, parents, payload, bare, seal, crc, stored_head, head_is_text, body_is_text = row
    try:
        has_head = head_crc(branch, seq, id, hlc, height, parents, seal) == stored_head and not head_is_text
    except TypeError:
        has_head = False
    has_body = is_sound_body(payload, bare, stored_head, crc) and not body_is_text
    return InspectedEntry(entry_row(tuple(row[:10])), has_head, has_body)


def is_sound_body(payload: Any, bare: Any, head: Any, crc: object) -> bool:
    """Whether a payload, or what stands for it, fits the checksums of its entry."""
    try:
        return bool(body_crc(payload, bare, head) == crc)
    except TypeError:
        return False


def is_sound_head(row: Sequence[Any]) -> bool:
    """Whether a row of HEAD_COLUMNS is what was written."""
    try:
        return bool(head_crc(*row[1:8]) == row[8])
    except TypeError:
        return False


def is_sound_document(row: Sequence[Any]) -> bool:
    """Whether a row of id (text or its bytes), arrival, op, live, conflict, state, expires, crc is what was written."""
    try:
        id = row[0].decode() if isinstance(row[0], bytes) else row[0]
        return bool(document_crc(id, *row[1:7]) == row[7])
    except (TypeError, UnicodeDecodeError):
        return False


def is_sound_branch(row: BranchRow, crc: object) -> bool:
    """Whether a branch is what was written."""
    try:
        return branch_crc(row.author, row.incarnation, row.base, row.number, row.first_seq) == crc
    except TypeError:
        return False
