"""The log that this process writes to, and its next entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshsync.core import cbor
from meshsync.core.anchor import ORIGIN, PARENT, Anchor
from meshsync.core.entry import HeaderBuilder, Operation, document_tags, encode_operations, expiry_item
from meshsync.core.hlc import next_stamp
from meshsync.core.limits import PARENTS_MAX
from meshsync.core.rebuild import NewEntry
from meshsync.ids import LogId

if TYPE_CHECKING:
    from meshsync.store.replica import Replica


class OwnLog:
    """The log of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._log: LogId | None = None
        self._builder: HeaderBuilder | None = None

    @property
    def log(self) -> LogId:
        """Its id.  The first look marks the collection as being written (see `Store.incarnation`)."""
        if self._log is None:
            replica = self._replica
            self._take(replica.store.incarnation(replica.id))
            if any(branch.number in replica.tails for branch in replica.by_log.get(self.log, ())):
                # It would go on from an entry that has a successor already, and fork.
                self.renew()
        assert self._log is not None
        return self._log

    def renew(self) -> None:
        """Write to a new log from now on."""
        self._take(self._replica.store.renew_incarnation(self._replica.id))

    def _take(self, incarnation: bytes) -> None:
        self._log = LogId(self._replica.author, incarnation)
        self._builder = HeaderBuilder(self._replica.id, self._log)

    def next_entry(self, operations: Sequence[Operation], wall_ms: int) -> NewEntry:
        """The entry to write next; its branch is 0 where the log is yet to be opened.

        LocalError, RefusedError: the operations are not what may be written.
        """
        payload = encode_operations(operations)
        replica, log = self._replica, self.log
        assert self._builder is not None
        branch = next(iter(replica.by_log.get(log, ())), None)
        parents: list[Anchor] = []
        prev = branch.tip if branch is not None else ORIGIN
        hlc, height, packed = next_stamp(wall_ms, replica.latest), prev.height + 1, None
        heads = [head for head in replica.heads() if head.branch != prev.branch]
        if heads:
            # The latest first: where there are more than a header may name, the rest waits for the next entry.
            heads.sort(key=lambda anchor: anchor.hlc, reverse=True)
            parents = sorted(heads[:PARENTS_MAX], key=lambda anchor: anchor.id)
            height = max(height, 1 + max(parent.height for parent in parents))
            packed = b"".join(PARENT.pack(parent.branch, parent.seq) for parent in parents)
        digest, tags = cbor.sha256(payload), document_tags(replica.id, [operation.id for operation in operations])
        ids = [parent.id for parent in parents]
        id = self._builder.id(prev.seq + 1, prev.id or None, ids, height, hlc, digest, len(payload), tags)
        decoded: list[Any] = [(one.kind, one.id, one.body, *expiry_item(one)) for one in operations]
        number = 0 if branch is None else branch.number
        return NewEntry(number, prev.seq + 1, id, hlc, height, packed, payload, None, None, decoded)
