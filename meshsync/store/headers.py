"""The headers of stored entries, rebuilt from what is stored of them: what they hash to is what must be there."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from meshsync.core import cbor
from meshsync.core.bare import description
from meshsync.core.entry import HeaderBuilder, document_tags, entry_id, touched_documents

if TYPE_CHECKING:
    from meshsync.store.replica import Replica
    from meshsync.store.rows import EntryRow


def rebuilt_id(replica: Replica, row: EntryRow, prev: bytes | None = None) -> bytes:
    """The id of an entry, from its header rebuilt: another one than is stored tells of damage.

    `prev`: take this for the id of the entry before.  DamagedError: what it builds upon is damaged.
    ValueError: the row makes no sense.
    """
    try:
        return entry_id(header_of(replica, row, prev))
    except (*cbor.GARBAGE, AttributeError, struct.error) as error:
        raise ValueError(f"the row makes no sense: {type(error).__name__}: {error}") from error


def header_of(replica: Replica, row: EntryRow, prev: bytes | None = None) -> bytes:
    """The header of a stored entry: its hash must be the entry's id."""
    log = replica.branches[row.branch].log
    if prev is None:
        prev = replica.anchor(row.branch, row.seq - 1).id or None
    if row.payload is not None:
        tags = document_tags(replica.id, touched_documents(row.payload))
        digest, size = cbor.sha256(row.payload), len(row.payload)
    else:
        digest, size, tags = description(row.bare)
    parents = replica.parent_ids(row.parents)
    return HeaderBuilder(replica.id, log).header(row.seq, prev, parents, row.height, row.hlc, digest, size, tags)
