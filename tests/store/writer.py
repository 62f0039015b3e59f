"""A process that writes until it is killed: `python -m tests.store.writer PATH BOOT_ID`.

It prints its incarnation, then a line after each commit, and a line after each sync.
"""

from __future__ import annotations

import sys

import trio

from meshsync.store.sqlite import SqliteStore
from tests.store.rows import PLACES, document, entry, places


async def main() -> None:
    """Write entries one by one, with a document each."""
    store = SqliteStore.open(sys.argv[1], boot_id=sys.argv[2].encode())
    tables = places(store)
    print("incarnation", store.incarnation(PLACES).hex(), flush=True)
    while True:
        arrival = tables.next_arrival()
        with store.transaction():
            tables.insert_entries([entry(arrival, payload=b"x" * 1000)])
            tables.put_documents([document(f"d{arrival:06}", arrival)], 1)
        print("committed", arrival, flush=True)
        if arrival % 7 == 0:
            await store.synced()
            print("synced", arrival, flush=True)


if __name__ == "__main__":
    trio.run(main)
