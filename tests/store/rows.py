"""Rows for the tests of stores: valid in shape, and nothing more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from meshsync.core import cbor
from meshsync.ids import CollectionId
from meshsync.store.base import CollectionTables, Store
from meshsync.store.rows import DocumentPayload, DocumentRow, EntryRow

PLACES = CollectionId.of_name("places")
AUTHOR = b"a" * 32
INCARNATION = b"i" * 8
LACKING = cbor.encode([bytes(32), 7, [bytes(8)]])
"""What stands for a payload that is lacking."""


def entry(
    arrival: int,
    branch: int = 1,
    seq: int | None = None,
    *,
    parents: bytes | None = None,
    payload: bytes | None = b"payload",
    seal: bytes | None = None,
) -> EntryRow:
    """An entry; without payload it is bare."""
    seq = arrival if seq is None else seq
    return EntryRow(
        arrival=arrival,
        branch=branch,
        seq=seq,
        id=hashlib.sha256(b"%d/%d" % (branch, seq)).digest(),
        hlc=arrival << 16,
        height=arrival,
        parents=parents,
        payload=payload,
        bare=None if payload is not None else LACKING,
        seal=seal,
    )


def document(
    id: str, arrival: int, *, live: bool = True, state: bytes | None = None, expires_ms: int | None = None
) -> DocumentRow:
    """A document as entry `arrival` says, or with a merged state."""
    return DocumentRow(id, arrival, op=0, live=live, conflict=state is not None, state=state, expires_ms=expires_ms)


def places(store: Store) -> CollectionTables:
    """The tables of the collection `places` with one branch."""
    tables = store.collection(PLACES, "places")
    if not tables.branches():
        with store.transaction():
            tables.add_branch(AUTHOR, INCARNATION, None, 1)
    return tables


def fill(store: Store, count: int) -> CollectionTables:
    """`places` with as many entries, each with a document of its own."""
    tables = places(store)
    with store.transaction():
        start = tables.next_arrival()
        tables.insert_entries([entry(n) for n in range(start, start + count)])
        tables.put_documents([document(f"d{n:06}", n) for n in range(start, start + count)], count)
    return tables


def scan_documents(
    tables: CollectionTables, after: str | None = None, *, reverse: bool = False, limit: int = 7
) -> Iterator[DocumentPayload]:
    """All live documents by id, after the id `after`, in pages: others may write between."""
    while True:
        page = tables.document_page(after, limit, reverse=reverse)
        yield from page.documents
        if page.last is None:
            return
        after = page.last
