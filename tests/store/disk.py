"""A disk whose power can be cut: records what is written and synced, and tells what a cut could leave.

Between two syncs of a file a disk may write in any order, or not at all, or stop within a write.  What was written
before a sync began is there once the sync has returned.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import NamedTuple

import apsw

_SECTOR_BYTES = 512


class Write(NamedTuple):
    """Bytes written to a file; with `data` None the file was cut to `offset`."""

    file: str
    offset: int
    data: bytes | None


class Synced(NamedTuple):
    """A sync of a file returned; it covers the events before number `began`."""

    file: str
    began: int


class Committed(NamedTuple):
    """So many entries are committed."""

    entries: int


class Promised(NamedTuple):
    """Somebody was told that so many entries are safe."""

    entries: int


Event = Write | Synced | Committed | Promised


class Disk:
    """Records the events of the files of one directory.  `content` is what they hold at first, all of it safe."""

    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        self.events: list[Event] = []
        self._directory = directory
        self._names = names
        self.content = {name: path.read_bytes() for name in names if (path := directory / name).exists()}
        self.fails = False
        """A knob for tests: while set, SQLite's own syncs fail."""
        self._vfs: _Vfs | None = None

    def install(self) -> None:
        """Let SQLite's connections, from now on, go through this disk."""
        self._vfs = _Vfs(self)

    def remove(self) -> None:
        """Undo `install`, after the last of these connections is closed."""
        if self._vfs is not None:
            self._vfs.unregister()
            self._vfs = None

    def sync(self, descriptor: int) -> None:
        """Stands in for fdatasync."""
        inode = os.fstat(descriptor).st_ino
        began = len(self.events)
        os.fdatasync(descriptor)
        for name in self._names:
            path = self._directory / name
            if path.exists() and path.stat().st_ino == inode:
                self.events.append(Synced(name, began))

    def cut(self, at: int, chance: random.Random) -> dict[str, bytes]:
        """What a power cut after `at` events may leave of each file."""
        events = self.events[:at]
        safe: dict[str, int] = {}
        for event in events:
            if isinstance(event, Synced):
                safe[event.file] = max(safe.get(event.file, 0), event.began)
        # A disk that keeps most or hardly anything finds more than one that keeps every second write.
        keeps = chance.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        files = {name: bytearray(content) for name, content in self.content.items()}
        for number, event in enumerate(events):
            if not isinstance(event, Write):
                continue
            file = files.setdefault(event.file, bytearray())
            if number < safe.get(event.file, 0) or chance.random() < keeps:
                _apply(file, event, None)
            elif chance.random() < 0.2:
                _apply(file, event, chance)
        return {name: bytes(file) for name, file in files.items()}

    def entries(self, kind: type[Committed | Promised], at: int) -> int:
        """How many entries were committed, or promised, within the first `at` events."""
        return max((event.entries for event in self.events[:at] if isinstance(event, kind)), default=0)


def _apply(file: bytearray, write: Write, chance: random.Random | None) -> None:
    """Change the content of a file; with `chance`, only as far as the disk got, in whole sectors."""
    if write.data is None:
        if chance is None:
            del file[write.offset :]
        return
    data = write.data
    if chance is not None:
        edge = _SECTOR_BYTES - write.offset % _SECTOR_BYTES
        edges = [0, *range(edge, len(data), _SECTOR_BYTES)]
        data = data[: chance.choice(edges)]
    if len(file) < write.offset:
        file.extend(bytes(write.offset - len(file)))
    file[write.offset : write.offset + len(data)] = data


class _File(apsw.VFSFile):
    """A file of SQLite's default kind that tells what is done to it."""

    def __init__(self, base: str, disk: Disk, filename: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__(base, filename, flags)
        path = filename.filename() if isinstance(filename, apsw.URIFilename) else filename or ""
        self._name = Path(path).name
        self._disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 -- the name is SQLite's
        super().xWrite(data, offset)
        self._disk.events.append(Write(self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._disk.events.append(Write(self._name, newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._disk.fails:
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        began = len(self._disk.events)
        super().xSync(flags)
        self._disk.events.append(Synced(self._name, began))


class _Vfs(apsw.VFS):
    """SQLite's default way to files, with `_File` in between."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._base = apsw.vfs_names()[0]
        super().__init__("disk", self._base, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:  # noqa: N802
        return _File(self._base, self._disk, name, flags)
