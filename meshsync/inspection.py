"""Looking into a collection entry by entry: the log, and the check of everything against its hashes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import trio

from meshsync.core import cbor
from meshsync.core.entry import KINDS, verify_seal
from meshsync.core.hlc import to_datetime
from meshsync.errors import RefusedError
from meshsync.store.base import EntryRow, Store
from meshsync.store.replica import Replica

_SLICE = 64
"""Entries that are checked at a time: some five milliseconds."""


def log_entries(replica: Replica) -> Iterator[dict[str, Any]]:
    """Every entry, in the order of arrival, in the words of `meshsync log --json`."""
    for row in replica.scan_entries():
        log = replica.branches[row.branch].log
        operations = cbor.decode_trusted(row.payload) if row.payload is not None else None
        prev = replica.anchor(row.branch, row.seq - 1).id
        yield {
            "entry": row.id.hex(),
            "author": log.author.hex(),
            "incarnation": log.incarnation.hex(),
            "seq": row.seq,
            "height": row.height,
            "time": to_datetime(row.hlc).isoformat(),
            "prev": prev.hex() or None,
            "parents": [id.hex() for id in replica.parent_ids(row.parents)],
            "size": len(row.payload) if row.payload is not None else None,
            "ops": None if operations is None else [[KINDS[one[0]], one[1]] for one in operations],
        }


async def verify_store(store: Store, replicas: Sequence[Replica], *, repair: bool) -> AsyncGenerator[str, None]:
    """Check the structure of the store, then rebuild every header and verify every seal.  Yields a line a fault.

    RefusedError: a repair was asked for and there is something to repair, which this version does not do.
    """
    faults = 0
    for line in await trio.to_thread.run_sync(lambda: list(store.verify())):
        faults += 1
        yield line
    for replica in replicas:
        for number, row in enumerate(replica.scan_entries()):
            if number % _SLICE == 0:
                await trio.lowlevel.checkpoint()
            if (fault := _check_entry(replica, row)) is not None:
                faults += 1
                yield f"{replica.name}: entry {row.arrival} ({row.id[:4].hex()}…): {fault}"
    if repair and faults:
        raise RefusedError(
            "repairing from peers is not available in this version; stop the node, move meshsync.db away, and start"
            " it again: what the peers hold comes back from them"
        )


def _check_entry(replica: Replica, row: EntryRow) -> str | None:
    try:
        header = replica.header(row)
    except (LookupError, ValueError) as error:
        return f"cannot be rebuilt: {error}"
    if hashlib.sha256(b"meshsync/entry/1\0" + header).digest() != row.id:
        return "its header or payload is not what its id says"
    author = replica.branches[row.branch].log.author
    if row.seal is not None and not verify_seal(author, row.id, row.seal):
        return "its seal does not verify"
    return None
