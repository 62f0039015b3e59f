"""The checksums of rows: what the disk gives back is what was written, or it is not used.

CRC-32, because it has to be paid for every row that is read: against bits that flip it is enough, and against anyone
who flips them on purpose the hashes of the entries stand (`verify` rebuilds all of them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from meshsync.store.rows import EntryRow

PRIME = 4294967291
"""The greatest below 2**32: no two stamps that differ in few bits are the same modulo it."""
ODD_1, ODD_2 = 65599, 16777619
"""Factors that keep numbers which are often alike from cancelling each other out."""


def head_crc(branch: int, seq: int, id: bytes, hlc: int, height: int, parents: bytes | None, seal: bytes | None) -> int:
    """The checksum of all of an entry but its payload.  TypeError: a value is not even of the type that it was."""
    crc = crc32(id, hlc % PRIME + seq + height * ODD_1 + branch * ODD_2)
    if parents is not None:
        crc = crc32(parents, crc)
    if seal is not None:
        crc = crc32(seal, crc)
    return crc


def body_crc(payload: bytes | None, bare: bytes | None, head: int) -> int:
    """The checksum of an entry, going on from that of its head.  TypeError: as `head_crc`."""
    return crc32(payload if bare is None else bare, head)  # type: ignore[arg-type]  # TypeError is an answer


def entry_crcs(row: EntryRow) -> tuple[int, int]:
    """The checksum of an entry's head, and that of all of it."""
    head = head_crc(row.branch, row.seq, row.id, row.hlc, row.height, row.parents, row.seal)
    return head, body_crc(row.payload, row.bare, head)


def rows_with_crcs(rows: Sequence[EntryRow]) -> Iterator[tuple[Any, ...]]:
    """Rows with `entry_crcs` behind.  As there, without the calls, which would cost as much as all the rest."""
    for row in rows:
        _, branch, seq, id, hlc, height, parents, payload, bare, seal = row
        head = crc32(id, hlc % PRIME + seq + height * ODD_1 + branch * ODD_2)
        if parents is not None:
            head = crc32(parents, head)
        if seal is not None:
            head = crc32(seal, head)
        crcs = (head, crc32(payload if bare is None else bare, head))  # type: ignore[arg-type]  # it is bytes
        yield row + crcs


def document_crc(
    id: str, arrival: int, op: int, live: int, conflict: int, state: bytes | None, expires_ms: int | None
) -> int:
    """The checksum of a document's row.  TypeError: as `head_crc`."""
    crc = crc32(id.encode(), arrival + op * ODD_1 + (live + 2 * conflict + 4 * (state is None)) * ODD_2)
    if state is not None:
        crc = crc32(state, crc)
    return crc if expires_ms is None else expiry_crc(expires_ms, crc)


def expiry_crc(expires_ms: int, crc: int) -> int:
    """The checksum of a document that expires, going on from that of the rest.  TypeError: as `head_crc`."""
    # One bit in the record makes a zero of NULL, which is not to look like it.
    return (crc + 1 + expires_ms * ODD_1) % PRIME


def branch_crc(author: bytes, incarnation: bytes, base: int | None, number: int, first_seq: int) -> int:
    """The checksum of a branch's row, but for how far it is covered.  TypeError: as `head_crc`."""
    return crc32(incarnation, crc32(author, number + first_seq * ODD_1 + (base or 0) * ODD_2))
