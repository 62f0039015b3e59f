"""The tables of one collection in memory: lists and dicts, and for every change a step that takes it back."""

# ruff: noqa: SLF001 -- the private names are those of a twin of the same class.

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from meshsync.core.bare import is_lacking, is_marked
from meshsync.errors import DamagedError, LocalError, StoreError
from meshsync.ids import CollectionId
from meshsync.store.memory_changes import MemoryChanges
from meshsync.store.memory_keys import MemoryKeys
from meshsync.store.memory_queue import MemoryQueue
from meshsync.store.memory_reading import MemoryDocumentReads
from meshsync.store.memory_touches import MemoryTouches
from meshsync.store.rows import (
    ENTRY_BYTES,
    BranchRow,
    CursorRow,
    DocumentRow,
    EntryHead,
    EntryRow,
    InspectedEntry,
    MergeRow,
)


class MemoryTables(MemoryDocumentReads):
    """Implements `CollectionTables`."""

    def __init__(self, id: CollectionId, name: str) -> None:
        self.id = id
        self.call(name)
        super().__init__()
        self._branches: list[BranchRow] = []
        """Number n stands at n - 1."""
        self._chains: list[list[int]] = []
        """For each branch the arrivals of its entries by seq, from first_seq on without gaps."""
        self._merges: list[list[int]] = []
        """For each branch the seqs of its entries with parents, ascending."""
        self._bare: set[int] = set()
        """The entries that lack their payloads."""
        self._marked: set[int] = set()
        """Those that have a mark in place of them."""
        self.touches = MemoryTouches()
        self.keys = MemoryKeys()
        self.changes = MemoryChanges()
        self.to_let_go = MemoryQueue()
        self._retained: bytes | None = None
        self._live = 0
        self._payload_bytes = 0
        self._cursors: dict[bytes, CursorRow] = {}
        self._rotten_heads: frozenset[int] = frozenset()

    def call(self, name: str) -> None:
        """Take a name; "" where it is not known."""
        self.name = name or self.id.short
        self.is_named = bool(name)

    def attach(
        self, *, changed: Callable[[Callable[[], object]], None], require_transaction: Callable[[], None]
    ) -> None:
        """Make these the tables of a store: `changed` receives the steps back, `require_transaction` guards writes."""
        self._changed = changed
        for part in (self.touches, self.keys, self.changes, self.to_let_go):
            part.changed = changed
        self._require_transaction = require_transaction
        self.document_changes = 0
        self.found_damage = lambda error: None  # noqa: ARG005

    def copy(self) -> MemoryTables:
        """The same rows a second time, sharing nothing that changes; to be attached to a store."""
        twin = copy.copy(self)
        twin._entries = self._entries.copy()
        twin._branches = self._branches.copy()
        twin._chains = [chain.copy() for chain in self._chains]
        twin._merges = [merges.copy() for merges in self._merges]
        twin._bare = self._bare.copy()
        twin._marked = self._marked.copy()
        twin._documents = self._documents.copy()
        twin._cursors = self._cursors.copy()
        twin.touches = self.touches.copy()
        twin.keys = self.keys.copy()
        twin.changes = self.changes.copy()
        twin.to_let_go = self.to_let_go.copy()
        return twin

    # Rot: knobs for tests

    def rot_entry(self, arrival: int, **changed: Any) -> None:
        """Some columns of an entry change on the disk by themselves, and its checksums do not fit any more."""
        self._entries[arrival - 1] = self._entries[arrival - 1]._replace(**changed)
        if changed.keys() & {"payload", "bare"}:
            self._rotten_bodies |= {arrival}
        if changed.keys() - {"payload", "bare"}:
            self._rotten_heads |= {arrival}

    def rot_document(self, id: str) -> None:
        """The row of a document changes on the disk by itself."""
        self._rotten_documents |= {id}

    def _require_sound(self, row: EntryRow, *, body: bool = True) -> EntryRow:
        has_head = row.arrival not in self._rotten_heads
        if has_head and (not body or row.arrival not in self._rotten_bodies):
            return row
        error = DamagedError(self.name, arrival=row.arrival, seq=row.seq, has_head=has_head)
        self.found_damage(error)
        raise error

    def _sound(self, rows: Sequence[EntryRow]) -> list[EntryRow]:
        """These rows, as far as the first that is damaged.  DamagedError: the very first is."""
        if not self._rotten_heads and not self._rotten_bodies:
            return list(rows)
        found: list[EntryRow] = []
        for row in rows:
            try:
                found.append(self._require_sound(row))
            except DamagedError:
                if not found:
                    raise
                break
        return found

    # Branches

    def branches(self) -> list[BranchRow]:
        return self._branches.copy()

    def add_branch(self, author: bytes, incarnation: bytes, base: int | None, first_seq: int) -> int:
        self._require_transaction()
        number = len(self._branches) + 1
        self._branches.append(BranchRow(number, author, incarnation, base, first_seq, 0))
        self._chains.append([])
        self._merges.append([])
        self._changed(self._remove_branch)
        return number

    def _remove_branch(self) -> None:
        self._branches.pop()
        self._chains.pop()
        self._merges.pop()

    def set_covered(self, covered: Sequence[tuple[int, int]]) -> None:
        self._require_transaction()
        for number, covered_seq in covered:
            before = self._branches[number - 1]
            self._branches[number - 1] = before._replace(covered_seq=covered_seq)
            self._changed(partial(self._branches.__setitem__, number - 1, before))

    def tip(self, branch: int, below: int | None = None) -> tuple[int, EntryHead] | None:
        if not self._known(branch):
            return None
        chain = self._chains[branch - 1]
        end = len(chain) if below is None else below - self._branches[branch - 1].first_seq
        if end < 1:
            return None
        row = self._require_sound(self._entries[chain[end - 1] - 1], body=False)
        return row.seq, _head(row)

    def _known(self, branch: int) -> bool:
        return 1 <= branch <= len(self._branches)

    # Entries

    def insert_entries(self, rows: Sequence[EntryRow]) -> None:
        self._require_transaction()
        # One step back for each row, noted before the next: a batch that is refused half-way leaves nothing.
        for row in rows:
            if row.arrival != len(self._entries) + 1:
                raise LocalError(f"arrival {row.arrival} does not follow {len(self._entries)}")
            if not self._known(row.branch):
                raise StoreError(f"there is no branch {row.branch}")
            chain = self._chains[row.branch - 1]
            if row.seq != self._branches[row.branch - 1].first_seq + len(chain):
                raise StoreError(f"seq {row.seq} does not follow in branch {row.branch}")
            self._entries.append(row)
            chain.append(row.arrival)
            if row.parents is not None:
                self._merges[row.branch - 1].append(row.seq)
            self._note_bare(row)
            self._payload_bytes += len(row.payload or b"")
            self._changed(self._remove_entry)

    def _remove_entry(self) -> None:
        row = self._entries.pop()
        self._chains[row.branch - 1].pop()
        if row.parents is not None:
            self._merges[row.branch - 1].pop()
        self._note_bare(row._replace(bare=None))
        self._payload_bytes -= len(row.payload or b"")

    def _note_bare(self, row: EntryRow) -> None:
        for arrivals, belongs in ((self._bare, is_lacking), (self._marked, is_marked)):
            if belongs(row.bare):
                arrivals.add(row.arrival)
            else:
                arrivals.discard(row.arrival)

    def entry_at(self, branch: int, seq: int) -> EntryHead | None:
        if not self._known(branch):
            return None
        at = seq - self._branches[branch - 1].first_seq
        chain = self._chains[branch - 1]
        if not 0 <= at < len(chain):
            return None
        return _head(self._require_sound(self._entries[chain[at] - 1], body=False))

    def entry(self, arrival: int) -> EntryRow | None:
        return self._require_sound(self._entries[arrival - 1]) if 1 <= arrival <= len(self._entries) else None

    def entries_of(self, branch: int, after_seq: int, limit: int) -> list[EntryRow]:
        if not self._known(branch):
            return []
        start = max(0, after_seq + 1 - self._branches[branch - 1].first_seq)
        return self._sound([self._entries[arrival - 1] for arrival in self._chains[branch - 1][start : start + limit]])

    def entries_named(self, first: bytes, last: bytes, arrival: int, count: int) -> list[int]:
        rows = self._entries[max(0, arrival - 1) : arrival - 1 + count]
        return [row.arrival for row in rows if first <= row.id <= last]

    def entries_from(self, arrival: int, limit: int) -> list[EntryRow]:
        start = max(0, arrival - 1)
        return self._sound(self._entries[start : start + limit])

    def merges_before(self, branch: int, seq: int, limit: int) -> list[MergeRow]:
        if not self._known(branch):
            return []
        seqs = self._merges[branch - 1]
        end = bisect_right(seqs, seq)
        first_seq = self._branches[branch - 1].first_seq
        chain = self._chains[branch - 1]
        rows = (self._entries[chain[seq - first_seq] - 1] for seq in reversed(seqs[max(0, end - limit) : end]))
        sound = [self._require_sound(row, body=False) for row in rows]
        return [MergeRow(row.seq, row.hlc, row.parents or b"") for row in sound]

    def rewrite_entry(self, row: EntryRow) -> None:
        self._require_transaction()
        rotten = self._rotten_heads, self._rotten_bodies
        before = self._entries[row.arrival - 1]
        self._set_entry(row)
        self._changed(partial(self._set_entry, before))
        self._rotten_heads -= {row.arrival}
        self._rotten_bodies -= {row.arrival}
        self._changed(partial(self._rot_again, rotten))

    def _rot_again(self, rotten: tuple[frozenset[int], frozenset[int]]) -> None:
        self._rotten_heads, self._rotten_bodies = rotten

    def _set_entry(self, row: EntryRow) -> None:
        self._payload_bytes += len(row.payload or b"") - len(self._entries[row.arrival - 1].payload or b"")
        self._entries[row.arrival - 1] = row
        self._note_bare(row)

    def marked_entries(self, arrival: int, limit: int) -> list[EntryRow]:
        sound = self._marked - self._rotten_heads - self._rotten_bodies
        return [self._entries[one - 1] for one in sorted(one for one in sound if one >= arrival)[:limit]]

    def bare_entries(self, limit: int) -> list[EntryRow]:
        sound = self._bare - self._rotten_heads - self._rotten_bodies
        return [self._entries[arrival - 1] for arrival in sorted(sound)[:limit]]

    def inspect_entries(self, arrival: int, limit: int) -> list[InspectedEntry]:
        start = max(0, arrival - 1)
        rows = self._entries[start : start + limit]
        heads, bodies = self._rotten_heads, self._rotten_bodies
        return [InspectedEntry(row, row.arrival not in heads, row.arrival not in bodies) for row in rows]

    def next_arrival(self) -> int:
        return len(self._entries) + 1

    # Documents

    def put_documents(self, rows: Sequence[DocumentRow], live_change: int) -> None:
        self._require_transaction()
        self.document_changes += 1
        before = [(row.id, self._documents.get(row.id)) for row in rows]
        self._changed(partial(self._put_back_documents, before, live_change, self._rotten_documents))
        self._live += live_change
        for row in rows:
            self._set_document(row.id, row)
        if self._rotten_documents:
            self._rotten_documents -= {row.id for row in rows}

    def _put_back_documents(
        self, before: list[tuple[str, DocumentRow | None]], live_change: int, rotten: frozenset[str]
    ) -> None:
        self._rotten_documents = rotten
        self._live -= live_change
        # Backwards, because one call may hold two rows of one document.
        for id, row in reversed(before):
            self._set_document(id, row)

    def _set_document(self, id: str, row: DocumentRow | None) -> None:
        before = self._documents.get(id)
        if (row is None) == (before is not None):
            self._sorted_ids = None
        if (row.expires_ms if row else None) != (before.expires_ms if before else None):
            self._moments = None
        if row is None:
            self._documents.pop(id, None)
        else:
            self._documents[id] = row

    def forget_documents(self, ids: Sequence[bytes]) -> None:
        self._require_transaction()
        self.document_changes += 1
        gone = [id.decode() for id in ids]
        before = [(id, self._documents.get(id)) for id in gone]
        self._changed(partial(self._put_back_documents, before, 0, self._rotten_documents))
        for id in gone:
            self._set_document(id, None)
        self.keys.forget(ids)
        self._rotten_documents -= set(gone)

    def recount(self) -> None:
        self._require_transaction()
        live = self._live
        self._changed(partial(setattr, self, "_live", live))
        self._live = sum(row.live for row in self._documents.values())

    def counts(self) -> tuple[int, int, int]:
        return len(self._entries), self._live, len(self._bare)

    def marked(self) -> int:
        return len(self._marked)

    def size_bytes(self) -> int:
        return self._payload_bytes + ENTRY_BYTES * len(self._entries)

    # Cursors

    def cursor(self, peer: bytes) -> CursorRow | None:
        return self._cursors.get(peer)

    def set_cursor(self, peer: bytes, cursor: CursorRow) -> None:
        self._require_transaction()
        before = self._cursors.get(peer)
        self._cursors[peer] = cursor
        self._changed(partial(self._put_back_cursor, peer, before))

    def _put_back_cursor(self, peer: bytes, before: CursorRow | None) -> None:
        if before is None:
            del self._cursors[peer]
        else:
            self._cursors[peer] = before

    # The rest

    def retained(self) -> bytes | None:
        return self._retained

    def set_retained(self, state: bytes) -> None:
        self._require_transaction()
        self._changed(partial(setattr, self, "_retained", self._retained))
        self._retained = state

    def verify(self) -> Iterator[str]:
        """See `Store.verify`."""
        live = sum(row.live for row in self._documents.values())
        if live != self._live:
            yield f"{self.name}: {live} documents are live, {self._live} were counted"
        for row in self._documents.values():
            if not 1 <= row.arrival <= len(self._entries):
                yield f"{self.name}: document {row.id!r} points at entry {row.arrival}, which is not there"


def _head(row: EntryRow) -> EntryHead:
    return EntryHead(row.arrival, row.id, row.hlc, row.height)
