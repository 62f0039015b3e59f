"""A process that writes and lets its past go until it is killed: `python -m tests.store.sweeper PATH`.

It prints a line after each step of a sweep: how many payloads were dropped so far.
"""

from __future__ import annotations

import sys

from meshsync.core.entry import PUT, Operation
from meshsync.core.retention import LATEST
from meshsync.ids import CollectionId
from meshsync.store.replica import Replica
from meshsync.store.sqlite import SqliteStore
from tests.authors import START_MS, Author

NOTES = CollectionId.of_name("notes")


def opened(store: SqliteStore) -> Replica:
    return Replica(store, store.collection(NOTES, "notes"), Author(9).key)


def main() -> None:
    """Write a few documents over and over; others have all of it at once."""
    replica = opened(SqliteStore.open(sys.argv[1], boot_id=b"boot"))
    replica.retaining.keep(LATEST)
    while True:
        for number in range(200):
            replica.append([Operation(PUT, f"d{number % 9}", {"n": number, "text": "x" * 500})], START_MS)
        replica.retaining.kept_elsewhere(replica.tables.next_arrival())
        while replica.retaining.step(START_MS):
            print("dropped", replica.retaining.dropped.entries, flush=True)


if __name__ == "__main__":
    main()
