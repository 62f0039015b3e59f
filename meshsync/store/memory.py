"""A store in memory: for the seeded simulator, for tests, and for nodes that are to forget.

It is the reference for what a store does, and it can die in the two ways that a store on disk can: `kill` and
`crash`.  Nothing here reads a clock or draws a random number of its own.
"""

# ruff: noqa: SLF001 -- the private names are those of a twin of the same class.

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import trio

from meshsync.errors import LocalError, StoreError
from meshsync.ids import CollectionId
from meshsync.store.memory_tables import MemoryTables
from meshsync.store.rows import PeerRow


class MemoryStore:
    """Implements `Store`.

    Every change leaves a step that takes it back.  The steps of a transaction are taken when it fails, those since
    the last sync when the machine dies; so neither a transaction nor a crash copies anything.
    """

    def __init__(self, *, random_bytes: Callable[[int], bytes], boot_id: bytes | None = b"boot") -> None:
        self._random_bytes = random_bytes
        self._boot_id = boot_id
        self._closed = False
        self._active = False
        self._undo: list[Callable[[], object]] = []
        self._meta: dict[str, bytes] = {}
        self._peers: dict[bytes, PeerRow] = {}
        self._tables: dict[CollectionId, MemoryTables] = {}
        self._marks: dict[CollectionId, tuple[bytes, bytes | None] | tuple[bytes]] = {}
        """(incarnation,) after a clean end; (incarnation, boot id) while a process writes."""
        self._incarnations: dict[CollectionId, bytes] = {}
        """Those that this process may write under."""
        self.space_is_low = False
        """A knob for tests: what `low_space` says."""
        self.broken = ""
        """A knob for tests: while set, commits and syncs fail with this text."""
        self.commits_left = math.inf
        """A knob for tests: so many commits succeed."""
        self.epoch = self.life = random_bytes(8)

    # Transactions

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._active:
            raise LocalError("transactions do not nest")
        self._require_open()
        start = len(self._undo)
        self._active = True
        try:
            yield
            self._commit()
        except BaseException:
            self._take_back(start)
            raise
        finally:
            self._active = False

    def _commit(self) -> None:
        self._require_disk()
        if not self.commits_left:
            raise StoreError("the disk is full")
        self.commits_left -= 1

    def _take_back(self, start: int) -> None:
        while len(self._undo) > start:
            self._undo.pop()()

    def _changed(self, undo: Callable[[], object]) -> None:
        """Note how to take back a change that was just made."""
        self._undo.append(undo)

    def _require_disk(self) -> None:
        if self.broken:
            raise StoreError(self.broken)

    def _require_open(self) -> None:
        if self._closed:
            raise LocalError("the store is closed")

    def _require_transaction(self) -> None:
        if not self._active:
            raise LocalError("writes to a collection belong inside Store.transaction()")

    # Collections

    def collection(self, id: CollectionId, name: str) -> MemoryTables:
        self._require_open()
        tables = self._tables.get(id)
        if tables is not None and (tables.is_named or not name):
            return tables
        if self._active:
            raise LocalError("a collection is made, and named, in a transaction of its own")
        if tables is not None:
            self._require_disk()
            tables.call(name)
            self._changed(partial(tables.call, ""))
        else:
            tables = MemoryTables(id, name)
            tables.attach(changed=self._changed, require_transaction=self._require_transaction)
            self._put(self._tables, id, tables)
        return tables

    def collections(self) -> list[tuple[CollectionId, str]]:
        return [(tables.id, tables.name if tables.is_named else "") for tables in self._tables.values()]

    def drop_collection(self, id: CollectionId) -> None:
        self._require_open()
        if id not in self._tables:
            return
        if self._active:
            raise LocalError("a collection is dropped in a transaction of its own")
        for rows in (self._tables, self._marks, self._incarnations):
            self._put(rows, id, None)
        for key in [key for key in self._meta if key.endswith(f":{id}")]:
            self._put(self._meta, key, None)
        self.life = _after(self.life)

    def incarnation(self, id: CollectionId) -> bytes:
        self._require_open()
        known = self._incarnations.get(id)
        if known is not None:
            return known
        mark = self._marks.get(id)
        continues = mark is not None and (len(mark) == 1 or (mark[1] is not None and mark[1] == self._boot_id))
        return self._mark(id, mark[0] if mark is not None and continues else self._random_bytes(8))

    def renew_incarnation(self, id: CollectionId) -> bytes:
        self._require_open()
        return self._mark(id, self._random_bytes(8))

    def _mark(self, id: CollectionId, incarnation: bytes) -> bytes:
        if self._active:
            raise LocalError("an incarnation is made durable at once, so it cannot be taken inside a transaction")
        if id not in self._tables:
            raise LocalError(f"there is no collection {id}")
        self._put(self._marks, id, (incarnation, self._boot_id))
        self._put(self._incarnations, id, incarnation)
        self.sync_now()
        return incarnation

    # Small things

    def meta(self, key: str) -> bytes | None:
        return self._meta.get(key)

    def set_meta(self, key: str, value: bytes | None) -> None:
        self._require_open()
        self._put(self._meta, key, value)

    def peers(self) -> list[PeerRow]:
        return [self._peers[id] for id in sorted(self._peers)]

    def put_peer(self, row: PeerRow) -> None:
        self._require_open()
        self._put(self._peers, row.id, row)

    def forget_peer(self, id: bytes) -> bool:
        self._require_open()
        known = id in self._peers
        self._put(self._peers, id, None)
        return known

    def _put(self, rows: dict[Any, Any], key: object, value: object | None) -> None:
        """Set or remove one key of a dict, so that it can be taken back."""
        if not self._active:
            self._require_disk()
        before = rows.get(key)
        _set(rows, key, value)
        self._changed(lambda: _set(rows, key, before))

    # Durability, simulated

    def sync_now(self) -> None:
        """What was committed so far survives `crash`."""
        self._require_disk()
        assert not self._active, "a sync covers whole transactions"
        self._undo.clear()

    async def synced(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self._closed:
            self.sync_now()

    def kill(self) -> MemoryStore:
        """The process dies, the machine stays up: the store as the next process finds it.  This one is closed."""
        return self._reborn(self._boot_id)

    def crash(self) -> MemoryStore:
        """The power goes: what was not synced is lost, and the boot id is another one.  This store is closed."""
        self._take_back(0)
        return self._reborn(self._random_bytes(16))

    def reopened(self) -> MemoryStore:
        """After `close`: the store as the next process finds it."""
        assert self._closed, "close it first, or use kill"
        return self._reborn(self._boot_id)

    def _reborn(self, boot_id: bytes | None) -> MemoryStore:
        # The new store takes over the very rows, with the steps back to the last sync: what one process committed
        # without a sync can still be lost after the next one started.
        reborn = copy.copy(self)
        reborn._closed = reborn._active = False
        if boot_id is None or boot_id != self._boot_id:
            reborn.life = _after(self.life)
        reborn._boot_id = boot_id
        reborn._incarnations = {}
        for tables in reborn._tables.values():
            tables.attach(changed=reborn._changed, require_transaction=reborn._require_transaction)
        self._closed = True
        return reborn

    def copy(self) -> MemoryStore:
        """The same store a second time, sharing nothing that changes; all of it counts as synced.

        Going on with an old copy is what restoring a copied file by hand does: it knows nothing of its age.
        """
        assert not self._active, "a copy holds whole transactions"
        twin = copy.copy(self)
        twin._undo = []
        twin._meta = dict(self._meta)
        twin._peers = dict(self._peers)
        twin._marks = dict(self._marks)
        twin._incarnations = dict(self._incarnations)
        twin._tables = {id: tables.copy() for id, tables in self._tables.items()}
        for tables in twin._tables.values():
            tables.attach(changed=twin._changed, require_transaction=twin._require_transaction)
        return twin

    def backup(self) -> MemoryStore:
        """A backup as it is when it was restored: a copy with a new epoch and without incarnations."""
        twin = self.copy()
        twin.epoch = twin.life = self._random_bytes(8)
        twin._marks = {}
        twin._incarnations = {}
        return twin

    # The rest

    def low_space(self) -> bool:
        return self.space_is_low

    def trouble(self) -> str:
        return self.broken or ("space is low" if self.space_is_low else "")

    def verify(self) -> Iterator[str]:
        for tables in list(self._tables.values()):
            yield from tables.verify()

    async def verify_aside(self) -> list[str]:
        await trio.lowlevel.checkpoint()
        return list(self.verify())

    def rebuild_indexes(self) -> None:
        with self.transaction():
            for tables in self._tables.values():
                tables.recount()

    def size_bytes(self) -> int:
        return sum(tables.size_bytes() for tables in self._tables.values())

    def close(self) -> None:
        if self._closed:
            return
        self.sync_now()
        for id, mark in self._marks.items():
            self._marks[id] = mark[:1]
        self._closed = True


def _after(life: bytes) -> bytes:
    """Another life; no random bytes, so that what they decide in a simulation does not depend on it."""
    return hashlib.sha256(life).digest()[:8]


def _set(rows: dict[Any, Any], key: object, value: object | None) -> None:
    if value is None:
        rows.pop(key, None)
    else:
        rows[key] = value
