"""What can be mended without a peer: entries that what is left of them proves, and documents, from the entries.

Nothing is guessed.  An entry's id commits to all of it, the next entry of its log commits to the id, and so does the
author's seal; what none of them confirms has to come from a peer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from meshsync.core import cbor
from meshsync.core.entry import verify_seal
from meshsync.core.policy import policy_of
from meshsync.errors import DamagedError
from meshsync.store.headers import rebuilt_id
from meshsync.store.replica import Replica
from meshsync.store.rows import LOST_STATE, EntryRow, InspectedEntry

_SLICE = 256


def follow_policy(replica: Replica) -> None:
    """Make the documents as the policy of the collection wants them.

    One that is carried for others has no name, and without a name its policy is not known.  When it gets one its
    documents, if there are any, are made anew, at once.  DamagedError: as `DocumentRebuild`.
    """
    tables, store, key = replica.tables, replica.store, f"policy:{replica.id}"
    replica.policy = policy_of(replica.id, tables.name if tables.is_named else "")
    if not replica.policy.keeps_all or store.meta(key) is not None:
        return
    ids: list[bytes] = []
    while rows := tables.document_rows(ids[-1].decode() if ids else "", _SLICE):
        ids += [row.id.encode() for row in rows]
    rebuild = DocumentRebuild(replica, ids)
    while ids and not rebuild.step():
        pass
    store.set_meta(key, replica.policy.value.encode())


def heal_entry(replica: Replica, damaged: InspectedEntry) -> bool:
    """Write a damaged entry anew as it must have been; False where that cannot be told from what is here."""
    row = _proven(replica, damaged.row)
    if row is None:
        return False
    with replica.store.transaction():
        replica.tables.rewrite_entry(row)
    replica.damage.entry_mended(row.arrival)
    return True


def _proven(replica: Replica, row: EntryRow) -> EntryRow | None:
    try:
        id = rebuilt_id(replica, row)
        author = replica.branches[row.branch].log.author
        has_seal = type(row.seal) is bytes and verify_seal(author, id, row.seal)
        if id != row.id and not has_seal and not _is_next_after(replica, row, id):
            return None
    except (DamagedError, ValueError):
        return None
    if has_seal or row.seal is None:
        return row._replace(id=id)
    # Batches are cut at seals: a seal of one's own is made anew, another's has to come again with its entry.
    return row._replace(id=id, seal=None) if author == replica.author else None


def _is_next_after(replica: Replica, row: EntryRow, id: bytes) -> bool:
    """Whether the next entry of the log names `id` as the one before."""
    following = replica.tables.entries_of(row.branch, row.seq, 1)
    return bool(following) and rebuilt_id(replica, following[0], prev=id) == following[0].id


def with_documents(rows: Iterable[EntryRow]) -> Iterator[tuple[EntryRow, list[str]]]:
    """Entries that have their payloads, and the ids of the documents that each touches."""
    for row in rows:
        if row.payload is not None:
            # What fits its checksum and makes no sense all the same was found by its hash.
            with suppress(*cbor.GARBAGE):
                yield row, [operation[1] for operation in cbor.decode_trusted(row.payload)]


class DocumentRebuild:
    """Makes documents anew by replaying the entries that touch them.  Call `step` until it says that it is done.

    DamagedError: an entry is damaged, and nobody knows which documents it touches.
    """

    def __init__(self, replica: Replica, ids: Iterable[bytes]) -> None:
        self._replica = replica
        self._arrivals: dict[bytes, list[int]] = {id: [] for id in ids}
        self._next = 1
        self._todo: list[bytes] | None = None
        self.count = len(self._arrivals)

    def step(self) -> bool:
        """Do some milliseconds of it; whether all is done."""
        if self._todo is None:
            if self._look_on():
                return False
            self._todo = list(self._arrivals)
        chosen, self._todo = self._todo[:_SLICE], self._todo[_SLICE:]
        while self._look_on():
            pass  # what was written in the meantime, which is little
        self._replay(chosen)
        return not self._todo

    def _look_on(self) -> bool:
        """Note the documents that the next entries touch; False where there are none."""
        rows = self._replica.tables.entries_from(self._next, _SLICE)
        for row, ids in with_documents(rows):
            for id in ids:
                if (arrivals := self._arrivals.get(id.encode())) is not None:
                    arrivals.append(row.arrival)
        if rows:
            self._next = rows[-1].arrival + 1
        return bool(rows)

    def _replay(self, chosen: Sequence[bytes]) -> None:
        replica = self._replica
        replica.selection.renew()
        with replica.store.transaction():
            replica.tables.forget_documents(chosen)
            only = {id.decode() for id in chosen if self._arrivals[id]}
            for arrival in sorted({arrival for id in chosen for arrival in self._arrivals[id]}):
                row = replica.tables.entry(arrival)
                assert row is not None
                replica.merger.merge([row], [cbor.decode_trusted(row.payload or b"")], only=only)
            if not self._todo:
                replica.tables.recount()
        for id, document in replica.tables.documents(sorted(only)).items():
            if document.state == LOST_STATE:
                raise DamagedError(replica.name, document=id)
