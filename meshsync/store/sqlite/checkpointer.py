"""A thread with a connection of its own that moves the write-ahead log (WAL) into the database file.

Passive checkpoints hold nobody up, but they reach the end of the WAL only when the writer rests for a moment, and
only then can the WAL start again at its head.  So when a writer that never rests has let it grow past a bound, a
checkpoint that excludes the writer takes the rest.  The database file is synced just before, so that this sync,
which the writer may have to wait for, finds little to do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import apsw

from meshsync.store.sqlite.database import connect


class Checkpointer:
    """`grew` is called on the event loop's thread, the rest happens in the thread.

    `sync_database` syncs the database file.  `error` is what the last checkpoint failed with, None after a good one;
    a failed one loses nothing and is tried again when the WAL has grown further.
    """

    def __init__(self, path: Path, sync_database: Callable[[], None], *, pages_soft: int, pages_max: int) -> None:
        self._path = path
        self._sync_database = sync_database
        self._pages_soft = pages_soft
        self._pages_max = pages_max
        self._due_at = pages_soft
        self._busy = False
        self._jobs: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None
        self.checkpoints = 0

    def grew(self, pages: int) -> None:
        """The WAL has this many pages."""
        if pages < self._due_at or self._busy:
            return
        self._busy = True
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
                        # Waiting for readers with the writer shut out would hold up the event loop.
                        connection.set_busy_timeout(0)
                    self._due_at = self._checkpoint(connection)
                    self.error = None
                except (apsw.Error, OSError) as error:
                    self.error = error
                    self._due_at += self._pages_soft
                self.checkpoints += 1
                self._busy = False
        finally:
            if connection is not None:
                connection.close()

    def _checkpoint(self, connection: apsw.Connection) -> int:
        """Move what can be moved; return at how many pages of WAL to do so again."""
        pages, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if moved < pages and pages >= self._pages_max:
            self._sync_database()
            try:
                pages, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            except apsw.BusyError:
                # A long reader (a backup, a verify) needs the WAL as it is.  The next turn comes.
                return pages + self._pages_soft
        return self._pages_soft if moved >= pages else pages + self._pages_soft

    def stop(self) -> None:
        """End the thread after the checkpoint under way."""
        if self._thread is not None:
            self._jobs.put(False)
            self._thread.join()
            self._thread = None
