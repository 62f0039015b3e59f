"""The files of a store beside what SQLite does with them: syncing, and the lock that keeps a second process out."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from meshsync.disk import sync_directory
from meshsync.errors import StoreError

# macOS: fsync stops at the drive's cache, this does not.
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


def sync_descriptor(descriptor: int) -> None:
    """Return once what was written to a file survives a power cut.  OSError: it may not."""
    if _FULL_SYNC is not None:
        fcntl.fcntl(descriptor, _FULL_SYNC)
    else:
        # Not fsync: the times of the file need not survive, its length is included where it matters.
        os.fdatasync(descriptor)


def beside(path: Path, suffix: str) -> Path:
    """The file next to the store whose name goes on with `suffix`."""
    return path.with_name(path.name + suffix)


class StoreLock:
    """Held as long as the store is open; the counts kept in memory allow of one process only."""

    def __init__(self, path: Path) -> None:
        """Take the lock.  StoreError: another process has it, or the directory cannot be written."""
        name = beside(path, "-lock")
        try:
            self._descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(f"cannot open the store {path}: {name}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            if isinstance(error, BlockingIOError):
                raise StoreError(f"the store {path} is open in another process") from error
            raise StoreError(f"cannot lock the store {path}: {name}: {error.strerror}") from error

    def release(self) -> None:
        """Let others in.  The file stays: removing it would let two processes lock two files of one name."""
        os.close(self._descriptor)


class StoreFiles:
    """The descriptors of an open store: of the database file, to sync it, and of its write-ahead log (WAL).

    Close them after SQLite's connections: closing any descriptor of the database file drops all POSIX locks that
    this process holds on it, and with them SQLite's.
    """

    def __init__(self, path: Path, database: int, wal: int) -> None:
        self._path = path
        self._database = database
        self._wal = wal

    def sync_wal(self) -> None:
        sync_descriptor(self._wal)

    def sync_database(self) -> None:
        sync_descriptor(self._database)

    def note_failed_sync(self) -> None:
        """Leave a note that the end of the WAL may be lost though it was given to peers; as well as this disk can."""
        try:
            os.close(os.open(self._note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            sync_directory(self._path.parent)
        except OSError:
            # The disk is failing; the failure that led here is reported.
            pass

    def failed_sync_noted(self) -> bool:
        return self._note.exists()

    def forget_failed_sync(self) -> None:
        self._note.unlink()

    @property
    def _note(self) -> Path:
        return beside(self._path, "-unsynced")

    def size_bytes(self) -> int:
        """Of both files."""
        return os.fstat(self._database).st_size + os.fstat(self._wal).st_size

    def free_bytes(self) -> int:
        """What the file system has left for this process."""
        status = os.fstatvfs(self._database)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        os.close(self._wal)
        os.close(self._database)
