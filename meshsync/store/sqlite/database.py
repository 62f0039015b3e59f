"""The writing connection: statements, transactions, and SQLite's errors in words that help.

All access of the event loop's thread goes through one `Database`.  Nothing here knows what the tables mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import apsw

from meshsync.errors import LocalError, MeshsyncError, StoreError

# More than the statements of a dozen collections; a miss costs 10 to 20 µs.
_CACHED_STATEMENTS = 256

# Someone who looks into the file with a tool of their own can hold the write lock for a moment.  It is the event loop
# that waits.
_BUSY_MS = 1000


class NotTextError(StoreError):
    """What should be text in the file is not UTF-8: bits have flipped."""


def meshsync_error(error: apsw.Error, path: Path) -> MeshsyncError:
    """Say whose fault an error of SQLite is and what to do about it."""
    match error:
        case apsw.ConnectionClosedError() | apsw.CursorClosedError():
            return LocalError("the store is closed")
        case apsw.FullError():
            return StoreError(f"the disk is full: {path} took nothing. It goes on by itself once there is space")
        case apsw.CorruptError() | apsw.NotADBError():
            return damaged(path, str(error))
        case apsw.BusyError() | apsw.LockedError():
            return StoreError(f"another program has locked {path}")
        case apsw.ReadOnlyError():
            return StoreError(f"{path} cannot be written: {error}")
        case _:
            return StoreError(f"{path} failed: {type(error).__name__}: {error}")


def is_failed_sync(error: apsw.Error) -> bool:
    """Whether the kernel said that it could not keep what was written."""
    # apsw sets the extended result on every exception that stands for one, and its type stubs leave it out.
    result = getattr(error, "extendedresult", apsw.SQLITE_OK)
    return result in {apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC}


def damaged(path: Path, what: str) -> StoreError:
    """The error for a file that cannot be trusted."""
    return StoreError(
        f"{path} is damaged ({what}). `meshsync verify` shows how far; restore a backup, or move the file away "
        f"together with {path.name}-wal: the peers hold the data, and a new store fetches it from them"
    )


def connect(path: Path, flags: int = apsw.SQLITE_OPEN_READWRITE) -> apsw.Connection:
    """Open a connection with the settings that all connections share."""
    connection = apsw.Connection(str(path), flags=flags, statementcachesize=_CACHED_STATEMENTS)
    connection.set_busy_timeout(_BUSY_MS)
    return connection


def run(connection: apsw.Connection, sql: str, bindings: Sequence[object] = ()) -> list[Any]:
    """Run statements to their end and return all rows.

    apsw runs a statement only as far as its rows are read: without this a pragma that answers would keep those
    behind it from being run at all.
    """
    return connection.execute(sql, bindings).fetchall()


class Database:
    """The one writing connection, used on one thread.  Owns it."""

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self.connection = connection
        self.path = path
        self.commits = 0
        """Commits that wrote something."""
        self.wal_grew: Callable[[int], None] = lambda pages: None  # noqa: ARG005
        """Called after each of them with the length of the write-ahead log in pages."""
        self.sync_failed: Callable[[str], None] = lambda what: None  # noqa: ARG005
        """Called when SQLite could not sync a file."""
        self.active = False
        """Whether a transaction is open."""
        self._cursor = connection.cursor()
        self._failure: MeshsyncError | None = None
        """What made the transaction fail.  SQLite may have rolled it back on its own, so the rest must not run."""
        connection.set_wal_hook(self._committed)

    def _committed(self, connection: apsw.Connection, name: str, pages: int) -> int:  # noqa: ARG002
        self.commits += 1
        self.wal_grew(pages)
        return apsw.SQLITE_OK

    def rows(self, sql: str, bindings: Sequence[object] = ()) -> list[Any]:
        """All rows of a query.  A query is always read to its end: an open one would hold up checkpoints."""
        try:
            return self._cursor.execute(sql, bindings).fetchall()
        except apsw.Error as error:
            raise meshsync_error(error, self.path) from error
        except UnicodeDecodeError as error:
            raise NotTextError(str(damaged(self.path, str(error)))) from error

    def row(self, sql: str, bindings: Sequence[object] = ()) -> Any:
        """The only row of a query, or None."""
        rows = self.rows(sql, bindings)
        return rows[0] if rows else None

    def write(self, sql: str, bindings: Sequence[object] = ()) -> None:
        """Run one statement that writes; outside a transaction it is one by itself."""
        try:
            if self._failure is not None:
                raise self._failure
            self._cursor.execute(sql, bindings)
        except apsw.Error as error:
            raise self._failed(error) from error

    def write_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row."""
        try:
            if self._failure is not None:
                raise self._failure
            self._cursor.executemany(sql, rows)
        except apsw.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: apsw.Error) -> MeshsyncError:
        failure = meshsync_error(error, self.path)
        if is_failed_sync(error):
            self.sync_failed(str(error))
        if self.active:
            self._failure = failure
        return failure

    def begin(self) -> None:
        """Start a transaction.  LocalError: there is one."""
        if self.active:
            raise LocalError("transactions do not nest")
        self.write("BEGIN IMMEDIATE")
        self.active = True

    def commit(self) -> None:
        """End the transaction; all or nothing.  StoreError: the disk did not take it, and everything is rolled back."""
        try:
            self.write("COMMIT")
        except MeshsyncError:
            self.rollback()
            raise
        self.active = False

    def rollback(self) -> None:
        """End the transaction and undo it.  What failed is said already, so this says nothing."""
        self.active = False
        self._failure = None
        try:
            if self.connection.in_transaction:
                self._cursor.execute("ROLLBACK")
        except apsw.Error:
            # SQLite rolls back by itself what it cannot roll back on request (sqlite.org/lang_transaction.html).
            pass

    def close(self, *, checkpoint: bool) -> None:
        """Close the connection, after moving the write-ahead log into the file and removing it, or leaving it as is."""
        try:
            self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(not checkpoint))
            self.connection.close()
        except apsw.Error as error:
            raise meshsync_error(error, self.path) from error
