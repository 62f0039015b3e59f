"""Looking into a collection entry by entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshsync.core import cbor
from meshsync.core.entry import KINDS
from meshsync.core.hlc import to_datetime
from meshsync.moments import moment_text
from meshsync.store.replica import Replica


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
            "time": moment_text(to_datetime(row.hlc)),
            "prev": prev.hex() or None,
            "parents": [id.hex() for id in replica.parent_ids(row.parents)],
            "size": len(row.payload) if row.payload is not None else None,
            "ops": None if operations is None else [[KINDS[one[0]], one[1]] for one in operations],
        }
