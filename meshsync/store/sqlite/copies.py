"""Reading the whole store beside the writer, through connections of their own: backups, and the checks of `verify`.

Both take long on a large store; the caller runs them in a thread.
"""

# ruff: noqa: S608 -- what is put into a statement is the number of a collection, which a store gave out itself.

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from meshsync.disk import sync_directory
from meshsync.errors import StoreError
from meshsync.store.sqlite.database import connect, meshsync_error, run
from meshsync.store.sqlite.files import beside
from meshsync.store.sqlite.soundness import LACKING, MARKED

_FAULTS_MAX = 100
"""Lines for one kind of fault."""


def backup(path: Path, target: Path) -> None:
    """Copy the store at `path`, as of now, to the new file `target`.

    StoreError: `target` exists, or the disk does not take it.
    """
    if target.exists():
        raise StoreError(f"{target} exists already; a backup goes to a new file")
    try:
        source = connect(path, apsw.SQLITE_OPEN_READONLY)
        try:
            copy_marked(source, target)
        finally:
            source.close()
    except apsw.Error as error:
        raise meshsync_error(error, path) from error


def copy_marked(source: apsw.Connection, target: Path) -> None:
    """Copy a store to `target`, replacing what is there.

    The copy is marked before it gets its name, so that whoever opens it gets a new epoch and new incarnations: the
    logs go on in the original, and must not go on in the copy as well.
    StoreError: the disk does not take it.
    """
    part = beside(target, "-part")
    try:
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        run(source, "VACUUM INTO ?", (str(part),))
        copy = connect(part)
        try:
            # In rollback mode and with a sync, which takes the pages that VACUUM wrote along.
            run(copy, "PRAGMA synchronous = FULL")
            run(copy, "UPDATE store SET backup = 1")
        finally:
            copy.close()
        part.rename(target)
        sync_directory(target.parent)
    except (apsw.Error, OSError) as error:
        part.unlink(missing_ok=True)
        why = str(error) if isinstance(error, apsw.Error) else error.strerror
        raise StoreError(f"cannot write the copy {target}: {why}") from error


def verify(path: Path) -> Iterator[str]:
    """Check the structure of the store at `path`; yields one line a fault."""
    try:
        connection = connect(path, apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        yield f"{path}: {error}"
        return
    try:
        # One snapshot for all checks.
        run(connection, "BEGIN")
        for (line,) in connection.execute(f"PRAGMA integrity_check({_FAULTS_MAX})"):
            if line != "ok":
                yield f"{path}: {line}"
        collections = run(connection, "SELECT number, id, name, live, bare, marked FROM collections")
        for number, id, name, live, *bare in collections:
            for line in _verify_collection(connection, number, live, bare):
                yield f"collection {name or id.hex()[:8]}: {line}"
    except apsw.Error as error:
        yield f"{path}: {error}; nothing behind this place was checked"
    finally:
        connection.close()


def _verify_collection(connection: apsw.Connection, n: int, live: int, bare: Sequence[int]) -> Iterator[str]:
    count, last, *found_bare = run(
        connection,
        f"SELECT count(*), ifnull(max(arrival), 0), count(bare) FILTER (WHERE {LACKING}), "
        f"count(bare) FILTER (WHERE {MARKED}) FROM entries_{n}",
    )[0]
    if count != last:
        yield f"{last - count} of {last} entries are missing"
    if found_bare != bare:
        yield "{} entries lack their payloads and {} have marks, {} and {} were counted".format(*found_bare, *bare)
    ((found_live,),) = run(connection, f"SELECT count(*) FROM documents_{n} WHERE live")
    if found_live != live:
        yield f"{found_live} documents are live, {live} were counted"
    checks = (
        (
            "entry {} has both a payload and the description of an absent one, or neither",
            f"SELECT arrival FROM entries_{n} WHERE (payload IS NULL) = (bare IS NULL)",
        ),
        (
            "entry {} belongs to a branch that is not there",
            f"SELECT arrival FROM entries_{n} WHERE branch NOT IN (SELECT number FROM branches_{n})",
        ),
        (
            "branch {} has gaps",
            (
                f"SELECT b.number FROM branches_{n} AS b JOIN entries_{n} AS e ON e.branch = b.number "
                "GROUP BY b.number HAVING min(e.seq) != b.first_seq OR max(e.seq) - min(e.seq) + 1 != count(*)"
            ),
        ),
        (
            "document {!r} points at an entry that is not there",
            f"SELECT id FROM documents_{n} WHERE arrival NOT IN (SELECT arrival FROM entries_{n})",
        ),
        (
            "the index of a document names entry {}, which is not there",
            f"SELECT arrival FROM touches_{n} WHERE (arrival, hlc) NOT IN (SELECT arrival, hlc FROM entries_{n})",
        ),
    )
    for text, sql in checks:
        for (what,) in run(connection, f"{sql} LIMIT {_FAULTS_MAX}"):
            yield text.format(what)
