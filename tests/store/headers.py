"""Entries without payload, in bulk, and a process that stores them: `python -m tests.store.headers PATH`.

It goes on until it is killed, and prints a line after each commit: how many entries there are.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from meshsync.core import cbor
from meshsync.store.base import CollectionTables, Store
from meshsync.store.rows import EntryRow, Touch
from meshsync.store.sqlite import SqliteStore, touches
from meshsync.store.wholeness import touches_of
from tests.store.rows import entry, places

FEW = 40
"""That wait in these tests."""


def tag(number: int) -> bytes:
    """Tags that lie anywhere, as hashes do."""
    return random.Random(number).randbytes(8)


def header(arrival: int, *tags: bytes) -> EntryRow:
    """An entry that lacks its payload and touches documents with these tags."""
    return entry(arrival, payload=None)._replace(bare=cbor.encode([bytes(32), 7, sorted(tags)]))


def store_headers(store: Store, rows: Sequence[EntryRow]) -> CollectionTables:
    """What a replica does with headers that come alone."""
    tables = places(store)
    with store.transaction():
        tables.insert_entries(rows)
        tables.touches.add_lacking(touches_of(rows))
    return tables


def noted(tables: CollectionTables, tag: bytes, *, limit: int = 3, reverse: bool = False) -> list[Touch]:
    """All that is noted of a tag, page by page."""
    pages: list[Touch] = []
    while page := tables.touches.page(tag, pages[-1] if pages else None, limit, reverse=reverse):
        pages += page
    return pages


def check_all(tables: CollectionTables) -> None:
    """Every header that the process below would store is found under its tag."""
    count = tables.counts()[0]
    assert [one.arrival for one in noted(tables, tag(0), limit=50)] == list(range(3, count + 1, 3))
    for arrival in range(1, count + 1):
        if arrival % 3:
            assert noted(tables, tag(arrival)) == [Touch(arrival << 16, arrival)]


def headers_from(first: int, count: int) -> list[EntryRow]:
    """Headers, most of documents of their own."""
    return [header(n, tag(n if n % 3 else 0)) for n in range(first, first + count)]


def main() -> None:
    """Store batches of headers."""
    touches.WAITING_MAX = FEW
    store = SqliteStore.open(sys.argv[1], boot_id=b"boot")
    chance = random.Random(sys.argv[1])
    while True:
        rows = headers_from(places(store).next_arrival(), chance.choice([1, 5, 30, 100]))
        store_headers(store, rows)
        print("committed", rows[-1].arrival, flush=True)


if __name__ == "__main__":
    main()
