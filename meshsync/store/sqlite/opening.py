"""From a path to a connection that can be trusted: making a new file, and refusing a bad one in words that help."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import apsw

from meshsync.disk import sync_directory
from meshsync.errors import MeshsyncError, StoreError
from meshsync.store.sqlite.database import connect, damaged, meshsync_error, run
from meshsync.store.sqlite.files import StoreFiles, beside
from meshsync.store.sqlite.migrations import APPLICATION_ID, SCHEMA_VERSION, migrate, schema

# The first release with the fix for the WAL-reset bug: a checkpoint by one connection beside a writing one could
# corrupt the file (https://sqlite.org/wal.html#walresetbug).
_SQLITE_MIN = (3, 51, 3)

_MAGIC = b"SQLite format 3\0"
_HEADER = struct.Struct(">16s2xBB")
"""The beginning of https://sqlite.org/fileformat2.html#the_database_header: magic, versions of writing and reading."""
_WAL_VERSION = 2

_CACHE_KIB = 16 * 1024

_QUICK_CHECK_BYTES_MAX = 16 * 1024 * 1024
"""After a crash a file up to this size is checked whole, in some 50 ms; `verify` is there for the others."""


def _require_library() -> None:
    """StoreError: SQLite is too old."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split(".")[:3])
    if version < _SQLITE_MIN:
        raise StoreError(
            f"SQLite {apsw.sqlite_lib_version()} can corrupt a store (the WAL-reset bug); "
            f"meshsync needs {'.'.join(map(str, _SQLITE_MIN))} or newer, as the apsw packages from PyPI bring it"
        )


def _create(path: Path, random_bytes: Callable[[int], bytes]) -> None:
    """Make a new store.  It appears under its name only when it is whole."""
    if beside(path, "-wal").exists():
        raise StoreError(
            f"{path} is missing, but its write-ahead log {path.name}-wal is there: put the file back, or move both away"
        )
    new = beside(path, "-new")
    try:
        for leftover in (new, beside(new, "-wal"), beside(new, "-shm"), beside(new, "-journal")):
            leftover.unlink(missing_ok=True)
        # Made here, because SQLite would let the group and others read it.
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = connect(new)
        try:
            run(connection, "PRAGMA synchronous = FULL")
            run(connection, "PRAGMA journal_mode = WAL")
            with connection:
                run(connection, schema())
                run(connection, "INSERT INTO store (epoch, backup) VALUES (?, 0)", (random_bytes(8),))
                run(connection, f"PRAGMA application_id = {APPLICATION_ID}")
                run(connection, f"PRAGMA user_version = {SCHEMA_VERSION}")
        finally:
            # Closing checkpoints, with syncs, and removes the WAL.
            connection.close()
        new.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(f"cannot make the store {path}: {error.strerror}") from error
    except apsw.Error as error:
        raise meshsync_error(error, path) from error


def _open_descriptor(path: Path) -> int:
    """Check what can be seen without SQLite, and return a descriptor of the file.

    Close it after the last connection to the file, never before (see `StoreFiles`).
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except IsADirectoryError as error:
        raise StoreError(f"{path} is a directory; the store is a file") from error
    except OSError as error:
        raise StoreError(f"cannot open the store {path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        header = os.pread(descriptor, 512, 0)
        _check_header(path, status, header)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"cannot read the store {path}: {error.strerror}") from error
    except MeshsyncError:
        os.close(descriptor)
        raise
    return descriptor


def _check_header(path: Path, status: os.stat_result, header: bytes) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path} is no regular file")
    if not header:
        raise damaged(path, "it is empty")
    if len(header) < 512:
        raise damaged(path, f"it has {len(header)} bytes")
    magic, write_version, read_version = _HEADER.unpack_from(header)
    if magic != _MAGIC:
        raise damaged(path, "it is no SQLite database")
    wal = beside(path, "-wal")
    if (write_version, read_version) != (_WAL_VERSION, _WAL_VERSION) and wal.exists() and wal.stat().st_size:
        # SQLite would apply the log of the one file to the other.
        raise StoreError(
            f"{path} is a backup, and beside it is the write-ahead log {wal.name} of the store that it replaces: "
            "move that away"
        )


def open_files(path: Path, random_bytes: Callable[[int], bytes]) -> tuple[apsw.Connection, StoreFiles]:
    """The writing connection and the descriptors of the store at `path`, checked and migrated; made if missing."""
    _require_library()
    if not path.exists():
        _create(path, random_bytes)
    wal = beside(path, "-wal")
    with ExitStack() as undo:
        descriptor = _open_descriptor(path)
        undo.callback(os.close, descriptor)
        connection = _connect(path, unclean=wal.exists() and wal.stat().st_size > 0)
        undo.callback(connection.close)
        try:
            # SQLite made this file when the connection first read, and keeps it until the last one is closed.
            wal_descriptor = os.open(wal, os.O_RDWR | os.O_CLOEXEC)
            undo.callback(os.close, wal_descriptor)
            sync_directory(path.parent)
        except OSError as error:
            raise StoreError(f"cannot open {wal}: {error.strerror}") from error
        undo.pop_all()
    return connection, StoreFiles(path, descriptor, wal_descriptor)


def _connect(path: Path, *, unclean: bool) -> apsw.Connection:
    try:
        with ExitStack() as undo:
            connection = connect(path)
            undo.callback(connection.close)
            _check_identity(connection, path)
            # The pragmas are run one by one, because those that answer would hold up the others.
            if run(connection, "PRAGMA journal_mode = WAL") != [("wal",)]:
                raise StoreError(f"{path} is on a file system that cannot take a write-ahead log")
            run(connection, "PRAGMA synchronous = NORMAL")
            run(connection, "PRAGMA wal_autocheckpoint = 0")
            run(connection, f"PRAGMA cache_size = -{_CACHE_KIB}")
            migrate(connection, path)
            _check_contents(connection, path, thorough=unclean)
            undo.pop_all()
            return connection
    except apsw.Error as error:
        raise meshsync_error(error, path) from error


def _check_identity(connection: apsw.Connection, path: Path) -> None:
    if connection.readonly("main"):
        raise StoreError(f"{path} cannot be written")
    application_id = run(connection, "PRAGMA application_id")[0][0]
    if application_id != APPLICATION_ID:
        raise StoreError(f"{path} is a database of another program (application id {application_id:#x}), no store")


def _check_contents(connection: apsw.Connection, path: Path, *, thorough: bool) -> None:
    """Cheap probes; after an unclean end of a small file a check of everything."""
    pages, page_size = (run(connection, f"PRAGMA {name}")[0][0] for name in ("page_count", "page_size"))
    if thorough and pages * page_size <= _QUICK_CHECK_BYTES_MAX:
        found = run(connection, "PRAGMA quick_check(1)")
        if found != [("ok",)]:
            raise damaged(path, str(found[0][0]))
    tables = {name for (name,) in run(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
    expected = {"store", "meta", "peers", "collections"}
    numbers = [number for (number,) in run(connection, "SELECT number FROM collections")] if expected <= tables else []
    expected.update(
        f"{name}_{n}" for n in numbers for name in ("branches", "entries", "documents", "touches", "cursors")
    )
    if missing := sorted(expected - tables):
        raise damaged(path, f"table {missing[0]} is missing")
    if len(run(connection, "SELECT epoch FROM store")) != 1:
        raise damaged(path, "its epoch is missing")
