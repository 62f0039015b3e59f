"""The versions of the schema, and the way from each to the next.

A step gets a connection inside one transaction with all the others, after a copy of the file was made next to it.
To change the schema: edit schema.sql or collection.sql, add 1 to SCHEMA_VERSION, and add the step that makes an old
file equal to a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

import apsw

from meshsync.errors import StoreError
from meshsync.ids import CollectionId
from meshsync.store.sqlite.copies import copy_marked
from meshsync.store.sqlite.database import run
from meshsync.store.sqlite.files import beside
from meshsync.store.sqlite.touches import fill_touches

SCHEMA_VERSION = 10

APPLICATION_ID = 0x6D737931
"""In the header of the file ("msy1"), so that file(1) and we know what it is."""

Step = Callable[[apsw.Connection], None]


def _count_bytes(connection: apsw.Connection) -> None:
    """From 1 to 2: how many bytes of payload a collection has is counted."""
    run(connection, "ALTER TABLE collections ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0")
    for (number,) in run(connection, "SELECT number FROM collections"):
        counted = f"(SELECT ifnull(sum(length(payload)), 0) FROM entries_{number})"  # noqa: S608
        run(connection, f"UPDATE collections SET bytes = {counted} WHERE number = {number}")  # noqa: S608


def _note_touches(connection: apsw.Connection) -> None:
    """From 2 to 3: which entries touch a document is noted, and contested documents are found at once."""
    for number, id in run(connection, "SELECT number, id FROM collections"):
        run(connection, f"CREATE INDEX documents_{number}_contested ON documents_{number} (id) WHERE conflict")
        run(
            connection,
            f"CREATE TABLE touches_{number} (tag BLOB NOT NULL, hlc INTEGER NOT NULL, arrival INTEGER NOT NULL, "
            "PRIMARY KEY (tag, hlc, arrival)) STRICT, WITHOUT ROWID",
        )
        fill_touches(connection, number, CollectionId(id))


def _make_room_for_indexes(connection: apsw.Connection) -> None:
    """From 3 to 4: a collection may have declared indexes."""
    for (number,) in run(connection, "SELECT number FROM collections"):
        run(
            connection,
            f"CREATE TABLE indexes_{number} (number INTEGER PRIMARY KEY, path TEXT NOT NULL, state TEXT NOT NULL, "
            "after TEXT NOT NULL) STRICT",
        )
        run(
            connection,
            f"CREATE TABLE keys_{number} (field INTEGER NOT NULL, id TEXT NOT NULL, key BLOB NOT NULL, "
            "PRIMARY KEY (field, id)) STRICT, WITHOUT ROWID",
        )
        run(connection, f"CREATE INDEX keys_{number}_order ON keys_{number} (field, key, id)")


def _make_room_for_marks(connection: apsw.Connection) -> None:
    """From 4 to 5: a payload that is not here may be marked as one that is not needed."""
    run(connection, "ALTER TABLE collections ADD COLUMN marked INTEGER NOT NULL DEFAULT 0")
    for (number,) in run(connection, "SELECT number FROM collections"):
        run(connection, f"DROP INDEX entries_{number}_bare")
        run(
            connection,
            f"CREATE INDEX entries_{number}_bare ON entries_{number} (arrival) "
            "WHERE bare IS NOT NULL AND substr(bare, 1, 1) <> x'84'",
        )


def _let_documents_expire(connection: apsw.Connection) -> None:
    """From 5 to 6: a document may have a time at which it expires."""
    for (number,) in run(connection, "SELECT number FROM collections"):
        run(connection, f"ALTER TABLE documents_{number} ADD COLUMN expires INTEGER")
        run(
            connection,
            f"CREATE INDEX documents_{number}_expiring ON documents_{number} (expires, id) WHERE expires IS NOT NULL",
        )


def _make_room_for_changes(connection: apsw.Connection) -> None:
    """From 6 to 7: what followers of a part were told is kept."""
    for (number,) in run(connection, "SELECT number FROM collections"):
        run(
            connection,
            f"CREATE TABLE changes_{number} (id TEXT PRIMARY KEY, number INTEGER NOT NULL, late INTEGER NOT NULL, "
            "stays BLOB NOT NULL) STRICT, WITHOUT ROWID",
        )
        run(connection, f"CREATE INDEX changes_{number}_order ON changes_{number} (number)")


def _let_the_past_go(connection: apsw.Connection) -> None:
    """From 7 to 8: superseded payloads may be dropped, and what is known of them then is kept."""
    run(connection, "ALTER TABLE collections ADD COLUMN retained BLOB")
    for (number,) in run(connection, "SELECT number FROM collections"):
        run(connection, f"CREATE TABLE superseded_{number} (arrival INTEGER PRIMARY KEY) STRICT")
        run(
            connection,
            f"CREATE TABLE gone_{number} (tag BLOB PRIMARY KEY, hlc INTEGER NOT NULL, arrival INTEGER NOT NULL) "
            "STRICT, WITHOUT ROWID",
        )


def _find_marks(connection: apsw.Connection) -> None:
    """From 8 to 9: entries with a mark are found without a look at all."""
    for (number,) in run(connection, "SELECT number FROM collections"):
        run(
            connection,
            f"CREATE INDEX entries_{number}_marked ON entries_{number} (arrival) "
            "WHERE bare IS NOT NULL AND substr(bare, 1, 1) = x'84'",
        )


def _write_touches_late(connection: apsw.Connection) -> None:
    """From 9 to 10: what entries touch that lack their payloads may be written after the entries."""
    run(connection, "ALTER TABLE collections ADD COLUMN unwritten_from INTEGER")


STEPS: Mapping[int, Step] = {
    1: _count_bytes,
    2: _note_touches,
    3: _make_room_for_indexes,
    4: _make_room_for_marks,
    5: _let_documents_expire,
    6: _make_room_for_changes,
    7: _let_the_past_go,
    8: _find_marks,
    9: _write_touches_late,
}
"""STEPS[v] makes version v + 1 from version v."""


COLLECTION_TABLES = (
    "branches",
    "entries",
    "documents",
    "touches",
    "gone",
    "superseded",
    "indexes",
    "keys",
    "changes",
    "cursors",
)
"""The tables of a collection, without their numbers."""


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


# Read while this version is what is installed: an upgrade replaces the files under a node that runs, which would then
# make tables of the next version in a file of this one, and no step leads from there.
_SCHEMA = _read("schema.sql")
_COLLECTION_SCHEMA = _read("collection.sql")


def schema() -> str:
    """The statements that make an empty store."""
    return _SCHEMA


def collection_schema(number: int) -> str:
    """The statements that make the tables of a collection."""
    return _COLLECTION_SCHEMA.replace("{n}", str(number))


def version_of(connection: apsw.Connection) -> int:
    """The version of the schema in a file."""
    version: int = run(connection, "PRAGMA user_version")[0][0]
    return version


def migrate(connection: apsw.Connection, path: Path, *, steps: Mapping[int, Step] = STEPS) -> None:
    """Bring a file to the present version.  StoreError: it is newer, or there is no way."""
    version = version_of(connection)
    if version == SCHEMA_VERSION:
        return
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}, and this meshsync knows versions up to {SCHEMA_VERSION}: "
            "use a newer meshsync"
        )
    missing = [number for number in range(version, SCHEMA_VERSION) if number not in steps]
    if missing:
        raise StoreError(
            f"{path} has schema version {version}, and nothing leads from {missing[0]} to {missing[0] + 1}"
        )
    copy_marked(connection, beside(path, f"-v{version}"))
    with connection:
        for number in range(version, SCHEMA_VERSION):
            steps[number](connection)
        run(connection, f"PRAGMA user_version = {SCHEMA_VERSION}")
