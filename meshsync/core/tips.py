"""Tips, and the root: what a node holds, in one line a log and in 32 bytes.

Every log is a gap-free prefix, so its last entry stands for all of it, and the sorted tips for everything.

The root has two levels: logs fall into 256 buckets by the first byte of their incarnation, which is random; the
root is the hash over the hashes of the buckets that hold any.  So a new tip costs one bucket, and a hundred
thousand logs cost a live write no more than a few.
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


class Root:
    """The digest of a changing set of tips, each known by a number of the caller's."""

    def __init__(self, collection: CollectionId) -> None:
        self._collection = collection
        self._buckets: dict[int, dict[int, bytes]] = {}
        """By bucket: the encoded tips by number."""
        self._hashes: dict[int, bytes] = {}
        """The hashes of the buckets that did not change since."""
        self._digest: bytes | None = None

    def set(self, number: int, tip: Tip) -> None:
        """A tip is new, or moved; its log stays the same.  At seq 0 it is gone."""
        log = tip.log
        bucket = log.incarnation[0]
        tips = self._buckets.setdefault(bucket, {})
        if tip.seq:
            tips[number] = b"".join((log.author, log.incarnation, tip.seq.to_bytes(8, "big"), tip.id))
        else:
            tips.pop(number, None)
        if not tips:
            del self._buckets[bucket]
        self._hashes.pop(bucket, None)
        self._digest = None

    def digest(self) -> bytes:
        """32 bytes, equal exactly when two nodes hold the same set of entries."""
        if self._digest is None:
            total = hashlib.sha256(_ROOT_DOMAIN + self._collection)
            for bucket, tips in sorted(self._buckets.items()):
                found = self._hashes.get(bucket)
                if found is None:
                    found = self._hashes[bucket] = hashlib.sha256(b"".join(sorted(tips.values()))).digest()
                total.update(bytes((bucket,)) + found)
            self._digest = total.digest()
        return self._digest


def root_of(collection: CollectionId, tips: Iterable[Tip]) -> bytes:
    """The digest of some tips, in any order: 32 bytes."""
    root = Root(collection)
    for number, tip in enumerate(tips):
        root.set(number, tip)
    return root.digest()
