"""A thread with a connection of its own that moves the write-ahead log (WAL) into the database file.

Its passive checkpoints hold nobody up, but they reach the end of the WAL only when the writer rests for a moment, and
only then can the WAL start again at its head.  For a writer that never rests the thread comes as close as it can, and
the writer does the little that is left before its next transaction.  (A checkpoint of the thread that shuts the writer
out is no way: it would have to find the writer between two transactions, and could make it wait for any reader.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import apsw

from meshsync.store.sqlite.database import connect, is_failed_sync, run

_APPROACHES_MAX = 3
"""Each takes a fraction of the time of the one before, and so leaves a fraction of what that one left."""


class Checkpointer:
    """`grew` and `finish` are called on the event loop's thread, the rest happens in the thread.

    `sync_database` syncs the database file.  `sync_failed` is told, in either thread, when a sync failed: after that
    nothing must touch the files any more (see `syncer`).
    """

    def __init__(
        self,
        path: Path,
        sync_database: Callable[[], None],
        sync_failed: Callable[[str], None],
        *,
        pages_soft: int,
        pages_max: int,
    ) -> None:
        self._path = path
        self._sync_database = sync_database
        self._sync_failed = sync_failed
        self._pages_soft = pages_soft
        self._pages_max = pages_max
        self._pages = 0
        self._due_at = pages_soft
        self.idle = threading.Event()
        self.idle.set()
        self._jobs: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.finish_due = False
        """The writer should call `finish` before its next transaction."""
        self.error = ""
        """What the last checkpoint failed with, "" after a good one.  A failed one loses nothing and is tried again."""

    def grew(self, pages: int) -> None:
        """The WAL has this many pages."""
        if pages < self._pages:
            # The writer found all of it moved, and started again at its head.
            self._due_at = self._pages_soft
        self._pages = pages
        if pages < self._due_at:
            return
        if not self.idle.is_set():
            if pages >= 2 * self._pages_max:
                # The thread cannot keep up, with the disk or with a loop that never lets go of the interpreter.
                self.finish_due = True
            return
        self.idle.clear()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="meshsync store checkpoint", daemon=True)
            self._thread.start()
        self._jobs.put(True)

    def _work(self) -> None:
        connection: apsw.Connection | None = None
        try:
            while self._jobs.get():
                try:
                    if connection is None:
                        connection = connect(self._path)
                        # A connection that never read has not opened the WAL, and finds nothing to move in it.
                        run(connection, "SELECT count(*) FROM sqlite_schema")
                    self._approach(connection)
                    self.error = ""
                except (apsw.Error, OSError) as error:
                    self._failed(error)
                    self._due_at += self._pages_soft
                self.idle.set()
        finally:
            if connection is not None:
                connection.close()

    def _approach(self, connection: apsw.Connection) -> None:
        """Move what can be moved."""
        pages, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if pages >= self._pages_max:
            for _ in range(_APPROACHES_MAX):
                if moved >= pages:
                    break
                # SQLite syncs the file only after the last page; the writer, who moves that, should find little to do.
                self._sync_database()
                pages, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self.finish_due = True
        self._due_at = pages + self._pages_soft

    def finish(self, connection: apsw.Connection) -> None:
        """Wait for the checkpoint under way, and move the rest of the WAL with the writer's own connection."""
        self.finish_due = False
        self.idle.wait()
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            self._failed(error)

    def _failed(self, error: apsw.Error | OSError) -> None:
        self.error = str(error) or type(error).__name__
        if isinstance(error, OSError) or is_failed_sync(error):
            self._sync_failed(self.error)

    def stop(self) -> None:
        """End the thread after the checkpoint under way."""
        if self._thread is not None:
            self._jobs.put(False)
            self._thread.join()
            self._thread = None
