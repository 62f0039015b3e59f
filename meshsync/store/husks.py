"""What is left in the row of a document whose payloads were dropped: who wrote it last, and whether it was deleted.

It stands where the merged state of a document does, CBOR [[hlc, author, entry, was deleted]].  Whoever follows the
part has to be told that the document left, by whom; for all else it is as if the document had never been written.
"""

from __future__ import annotations

from typing import TypeGuard

from meshsync.core import cbor
from meshsync.core.document import Stamp
from meshsync.store.rows import DocumentRow

_BEGIN = b"\x81"
"""How an array of one begins (RFC 8949 section 3.1); no merged state is one."""


def husk_of(row: DocumentRow, stamp: Stamp) -> DocumentRow:
    """The row of a document that is dropped, and that was written last by this write."""
    was_deleted = not row.live and row.expires_ms is None
    state = cbor.encode([[*stamp, was_deleted]])
    return row._replace(live=False, conflict=False, state=state, expires_ms=None)


def is_husk(state: bytes | None) -> TypeGuard[bytes]:
    """Whether this stands in the place of a merged state."""
    return state is not None and state.startswith(_BEGIN)


def stamp_of(state: bytes) -> Stamp:
    """Of the last write."""
    return Stamp(*cbor.decode_trusted(state)[0][:3])


def was_deleted(row: DocumentRow) -> bool:
    """Whether a document was deleted, as far as it is known here: it does not only have expired, or been dropped."""
    if is_husk(row.state):
        deleted: bool = cbor.decode_trusted(row.state)[0][3]
        return deleted
    return not row.live and row.expires_ms is None
