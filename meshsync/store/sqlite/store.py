"""SqliteStore: all that a node remembers, in one file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from meshsync.core import cbor
from meshsync.core.limits import LIMITS, Limits
from meshsync.errors import LocalError, MeshsyncError, StoreError
from meshsync.ids import CollectionId
from meshsync.store.rows import PeerRow
from meshsync.store.sqlite import copies
from meshsync.store.sqlite.checkpointer import Checkpointer
from meshsync.store.sqlite.database import Database
from meshsync.store.sqlite.files import StoreFiles, StoreLock
from meshsync.store.sqlite.incarnations import Incarnations
from meshsync.store.sqlite.migrations import COLLECTION_TABLES, collection_schema
from meshsync.store.sqlite.opening import open_files
from meshsync.store.sqlite.syncer import Syncer
from meshsync.store.sqlite.tables import SqliteTables
from meshsync.store.sqlite.touches import SqliteTouches

_PAGE_BYTES = 4096
_SPACE_CHECK_SECONDS = 1.0
_LIFE = "life"
"""The small value that holds the life, and the boot id under which it began."""


class _Transaction:
    """What `SqliteStore.transaction` returns: one object for all, because a generator costs as much as BEGIN."""

    def __init__(self, begin: Callable[[], None], commit: Callable[[], None], rollback: Callable[[], None]) -> None:
        self._begin = begin
        self._commit = commit
        self._rollback = rollback

    def __enter__(self) -> None:
        self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            self._commit()
        else:
            self._rollback()


class SqliteStore:
    """Implements `Store`.  Owns its connections, descriptors, threads and lock; `close` releases them."""

    epoch: bytes
    life: bytes

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        boot_id: bytes | None,
        random_bytes: Callable[[int], bytes] = os.urandom,
        limits: Limits = LIMITS,
    ) -> Self:
        """Open the store at `path`, or make it.

        `boot_id` changes exactly when the kernel starts anew; None where it is not to be had.
        StoreError: the file is damaged, of another program, from a newer version, in use, or cannot be written.
        """
        # SQLite puts its files beside the one that a link leads to.
        path = Path(os.path.realpath(path))
        with ExitStack() as undo:
            lock = StoreLock(path)
            undo.callback(lock.release)
            connection, files = open_files(path, random_bytes)
            undo.callback(files.close)
            undo.callback(connection.close)
            connection.pragma("journal_size_limit", limits.wal_bytes_soft)
            store = cls(Database(connection, path), files, lock, boot_id, random_bytes, limits)
            undo.pop_all()
        return store

    def __init__(
        self,
        database: Database,
        files: StoreFiles,
        lock: StoreLock,
        boot_id: bytes | None,
        random_bytes: Callable[[int], bytes],
        limits: Limits,
    ) -> None:
        """Use `open`."""
        self.path = database.path
        self._database = database
        self._files = files
        self._lock = lock
        self._limits = limits
        self._closed = False
        self._transaction = _Transaction(self._begin, self._commit, self._rollback)
        self._recounted: dict[SqliteTables, None] = {}
        """Those whose counts the transaction changed."""
        self._all_touches: dict[SqliteTouches, None] = {}
        self._space_checked_at = -_SPACE_CHECK_SECONDS
        self._space_is_low = False
        self._syncer = Syncer(lambda: database.commits, files.sync_wal, files.note_failed_sync)
        self._checkpointer = Checkpointer(
            self.path,
            files.sync_database,
            self._syncer.fail,
            pages_soft=limits.wal_bytes_soft // _PAGE_BYTES,
            pages_max=limits.wal_bytes_max // _PAGE_BYTES,
        )
        database.wal_grew = self._checkpointer.grew
        database.sync_failed = self._syncer.fail
        self._incarnations = Incarnations(database, boot_id, random_bytes, self._syncer.sync_now)
        self._boot_id = boot_id
        self._random_bytes = random_bytes
        self._start()
        self._tables: dict[CollectionId, SqliteTables] = {}
        self._load_collections()

    def _start(self) -> None:
        self.epoch, is_backup = self._database.row("SELECT epoch, backup FROM store")
        if is_backup:
            # The log goes on in the store that this is a backup of, so nothing here may go on in it.
            self.epoch = self._random_bytes(8)
            with self._transaction:
                self._database.write("UPDATE collections SET incarnation = NULL, writer = NULL")
                self._database.write("UPDATE store SET epoch = ?, backup = 0", (self.epoch,))
            self._syncer.sync_now()
        may_have_lost = self._files.failed_sync_noted()
        if may_have_lost:
            self._incarnations.distrust()
        stored = self.meta(_LIFE)
        self.life, boot_id = (self.epoch, self._boot_id) if stored is None else cbor.decode_trusted(stored)
        if stored is None or is_backup or may_have_lost or boot_id is None or boot_id != self._boot_id:
            self.life = self.epoch if stored is None or is_backup else self._random_bytes(8)
            try:
                self._keep_life(self.life)
            except StoreError:
                self.life = self._random_bytes(8)  # nobody will know of this one, so the next process begins another
        if may_have_lost:
            self._files.forget_failed_sync()

    def _keep_life(self, life: bytes) -> None:
        self.set_meta(_LIFE, cbor.encode([life, self._boot_id]))

    def _load_collections(self) -> None:
        for number, id, name, unwritten_from, *counts in self._database.rows(
            "SELECT number, id, name, unwritten_from, live, bare, marked, bytes FROM collections ORDER BY number"
        ):
            self._add_tables(number, CollectionId(id), name, *counts).touches.load(unwritten_from)

    def _add_tables(self, number: int, id: CollectionId, name: str, *counts: int) -> SqliteTables:
        tables = SqliteTables(self._database, number, id, name, self._recounted.setdefault, self._all_touches)
        tables.load_counts(*counts)
        self._tables[id] = tables
        return tables

    # Transactions

    def transaction(self) -> _Transaction:
        return self._transaction

    def _begin(self) -> None:
        self._syncer.require_sound()
        if self._checkpointer.finish_due:
            self._checkpointer.finish(self._database.connection)
        self._database.begin()

    def _commit(self) -> None:
        try:
            for tables in self._recounted:
                tables.write_counts()
            self._database.commit()
        except MeshsyncError:
            self._rollback()
            raise
        for tables in self._recounted:
            tables.committed()
        self._recounted.clear()

    def _rollback(self) -> None:
        self._database.rollback()
        for tables in self._recounted:
            tables.rolled_back()
        self._recounted.clear()

    def _write(self, sql: str, bindings: tuple[object, ...] = ()) -> None:
        """Run one statement, inside a transaction or as one by itself."""
        self._syncer.require_sound()
        self._database.write(sql, bindings)

    # Collections

    def collection(self, id: CollectionId, name: str) -> SqliteTables:
        tables = self._tables.get(id)
        if tables is not None and (tables.is_named or not name):
            return tables
        if self._database.active:
            raise LocalError("a collection is made, and named, in a transaction of its own")
        if tables is not None:
            with self._transaction:
                self._database.write("UPDATE collections SET name = ? WHERE number = ?", (name, tables.number))
            tables.call(name)
            return tables
        with self._transaction:
            self._database.write(
                "INSERT INTO collections (id, name, live, bare, marked, bytes) VALUES (?, ?, 0, 0, 0, 0)", (id, name)
            )
            number: int = self._database.row("SELECT number FROM collections WHERE id = ?", (id,))[0]
            self._database.write(collection_schema(number))
        return self._add_tables(number, id, name, 0, 0, 0, 0)

    def collections(self) -> list[tuple[CollectionId, str]]:
        return [(tables.id, tables.name if tables.is_named else "") for tables in self._tables.values()]

    def drop_collection(self, id: CollectionId) -> None:
        tables = self._tables.get(id)
        if tables is None:
            return
        if self._database.active:
            raise LocalError("a collection is dropped in a transaction of its own")
        life = self._random_bytes(8)
        with self._transaction:
            self._keep_life(life)
            for table in COLLECTION_TABLES:
                self._database.write(f"DROP TABLE {table}_{tables.number}")
            self._database.write("DELETE FROM collections WHERE number = ?", (tables.number,))
            self._database.write("DELETE FROM meta WHERE key LIKE '%:' || ?", (str(id),))
        self.life = life
        del self._tables[id]
        self._all_touches.pop(tables.touches, None)
        self._incarnations.forget(id)

    def incarnation(self, id: CollectionId) -> bytes:
        return self._incarnations.of(id)

    def renew_incarnation(self, id: CollectionId) -> bytes:
        return self._incarnations.renew(id)

    # Small things

    def meta(self, key: str) -> bytes | None:
        row = self._database.row("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else row[0]

    def set_meta(self, key: str, value: bytes | None) -> None:
        if value is None:
            self._write("DELETE FROM meta WHERE key = ?", (key,))
        else:
            self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def peers(self) -> list[PeerRow]:
        return [
            PeerRow(*row) for row in self._database.rows("SELECT id, trust, name, address, seen FROM peers ORDER BY id")
        ]

    def put_peer(self, row: PeerRow) -> None:
        self._write("INSERT OR REPLACE INTO peers (id, trust, name, address, seen) VALUES (?, ?, ?, ?, ?)", row)

    def forget_peer(self, id: bytes) -> bool:
        known = self._database.row("SELECT 1 FROM peers WHERE id = ?", (id,)) is not None
        if known:
            self._write("DELETE FROM peers WHERE id = ?", (id,))
        return known

    # Durability

    async def synced(self) -> None:
        await self._syncer.synced()

    def low_space(self) -> bool:
        now = time.monotonic()
        if now - self._space_checked_at >= _SPACE_CHECK_SECONDS:
            self._space_checked_at = now
            self._space_is_low = self._files.free_bytes() < self._limits.free_bytes_min
        return self._space_is_low

    def trouble(self) -> str:
        if self._syncer.failure:
            return f"the disk did not keep what was written: {self._syncer.failure}"
        if self._checkpointer.error:
            return f"the write-ahead log cannot be moved into the file: {self._checkpointer.error}"
        if self.low_space():
            return f"less than {self._limits.free_bytes_min >> 20} MiB are free on the disk"
        return ""

    def backup(self, target: Path) -> None:
        """Copy the store, as committed, to the new file `target`.  Takes long: run it in a thread.

        Whoever opens the copy gets a new epoch and new incarnations.
        StoreError: `target` exists, or the disk does not take it.
        """
        copies.backup(self.path, target)

    def verify(self) -> Iterator[str]:
        """See `Store.verify`.  Takes long, and uses nothing of this object but the path: run it in a thread."""
        return copies.verify(self.path)

    async def verify_aside(self) -> list[str]:
        return await trio.to_thread.run_sync(lambda: list(self.verify()))

    def rebuild_indexes(self) -> None:
        with self._transaction:
            self._database.write("REINDEX")
            for tables in self._tables.values():
                tables.touches.make_anew(tables.id)
                tables.recount()

    def size_bytes(self) -> int:
        return self._files.size_bytes()

    def close(self) -> None:
        if self._closed:
            return
        if self._database.active:
            raise LocalError("a store is not closed inside a transaction")
        self._closed = True
        self._write_what_waits()
        try:
            self._checkpointer.stop()
            self._syncer.stop()
            self._syncer.require_sound()
            self._incarnations.end()
            self._syncer.sync_now()
        finally:
            self._syncer.answer_rest()
            self._release()

    def _write_what_waits(self) -> None:
        """Spare the next process reading it again, which it can where the disk does not take it."""
        with suppress(StoreError), self._transaction:
            for touches in self._all_touches:
                touches.write_all()

    def _release(self) -> None:
        # After a failed sync the write-ahead log may be damaged where it was read last: the checksums that tell are
        # looked at when the store is opened, and not by a checkpoint.
        try:
            self._database.close(checkpoint=not self._syncer.failure)
        finally:
            self._files.close()
            self._lock.release()
