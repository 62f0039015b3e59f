"""Tips, and the root: what a node holds, in one line a log and in 32 bytes.

Every log is a gap-free prefix, so its last entry stands for all of it, and the sorted tips for everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from meshsync.ids import CollectionId, LogId

TIP_ID_BYTES = 16
"""How much of an entry's id a tip carries on the wire: enough that no one finds two entries alike."""

_ROOT_DOMAIN = b"meshsync/root/1\0"


class Tip(NamedTuple):
    """The last entry of one branch of a log."""

    log: LogId
    seq: int
    id: bytes
    """32 bytes where this node holds the entry, TIP_ID_BYTES where a peer told of it."""


def root_of(collection: CollectionId, tips: Iterable[Tip]) -> bytes:
    """The digest of the sorted tips: 32 bytes, equal exactly when two nodes hold the same set of entries."""
    digest = hashlib.sha256(_ROOT_DOMAIN + collection)
    for encoded in sorted(tip.log.author + tip.log.incarnation + tip.seq.to_bytes(8, "big") + tip.id for tip in tips):
        digest.update(encoded)
    return digest.digest()
