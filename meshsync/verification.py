"""The check of everything that is stored: the structure, each entry against its hashes, each document against both."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import trio

from meshsync.core.entry import verify_seal
from meshsync.errors import DamagedError, StoreError
from meshsync.store.base import Store
from meshsync.store.headers import rebuilt_id
from meshsync.store.healing import with_documents
from meshsync.store.replica import Replica
from meshsync.store.rows import InspectedEntry

_SLICE = 64
"""Entries that are checked at a time: some five milliseconds."""


class Part(Enum):
    """What is at fault."""

    STRUCTURE = "structure"
    """The file, an index, a count."""
    HEAD = "head"
    """An entry, in all but its payload."""
    PAYLOAD = "payload"
    """The payload of an entry."""
    DOCUMENT = "document"
    """The row of a document."""
    INDEX = "index"
    """The declared indexes of a collection."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it should be."""

    part: Part
    text: str
    """For people."""
    replica: Replica | None = None
    arrival: int = 0
    """Of the entry."""
    document: bytes = b""
    """The id under which the row stands, in UTF-8 unless that is what is damaged."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of a report."""

    kind: Literal["fault", "repair", "remains"]
    """What is wrong; what was done about it; what is wrong still."""
    text: str


async def verify(store: Store, replicas: Sequence[Replica]) -> AsyncGenerator[Fault, None]:
    """Check all of a store; yields the faults.  Reads beside the writers, and lets others run."""
    for line in await store.verify_aside():
        yield Fault(Part.STRUCTURE, line)
    for replica in replicas:
        try:
            async for fault in _verify_replica(replica):
                yield fault
        except StoreError as error:
            yield Fault(Part.STRUCTURE, f"{replica.name}: {error}; nothing behind this place was checked", replica)


async def _verify_replica(replica: Replica) -> AsyncGenerator[Fault, None]:
    arrival = 1
    while page := replica.tables.inspect_entries(arrival, _SLICE):
        for entry in page:
            if (fault := _fault_of(replica, entry)) is not None:
                replica.damage.note(DamagedError(replica.name, arrival=fault.arrival, has_head=entry.has_head))
                yield fault
            elif entry.row.arrival in replica.damage:
                replica.damage.entry_mended(entry.row.arrival)  # it was read wrongly, and is fine
        for fault in _missing_documents(replica, page):
            yield fault
        arrival = page[-1].row.arrival + 1
        await trio.lowlevel.checkpoint()
    found: set[str] = set()
    after: bytes | None = b""
    while after is not None:
        damaged, after = replica.tables.damaged_documents(after, _SLICE)
        for id in damaged:
            text = id.decode(errors="backslashreplace")
            found.add(text)
            replica.damage.note(DamagedError(replica.name, document=text))
            yield Fault(Part.DOCUMENT, f"{replica.name}: document {text!r} is damaged", replica, document=id)
        await trio.lowlevel.checkpoint()
    replica.damage.documents_mended(found)
    async for fault in _verify_indexes(replica):
        yield fault


async def _verify_indexes(replica: Replica) -> AsyncGenerator[Fault, None]:
    for row, _ in replica.indexes.ready():
        after: str | None = ""
        while after is not None:
            wrong, after = replica.indexes.check(row.number, after)
            for line in wrong:
                yield Fault(Part.INDEX, f"{replica.name}: {line}", replica)
            await trio.lowlevel.checkpoint()


def _fault_of(replica: Replica, entry: InspectedEntry) -> Fault | None:
    found = _what_is_wrong(replica, entry)
    if found is None:
        return None
    part, what = found
    name = f" ({entry.row.id[:4].hex()}…)" if entry.has_head else ""
    return Fault(part, f"{replica.name}: entry {entry.row.arrival}{name}: {what}", replica, entry.row.arrival)


def _what_is_wrong(replica: Replica, entry: InspectedEntry) -> tuple[Part, str] | None:
    row = entry.row
    if not entry.has_head:
        return Part.HEAD, "it is damaged" + ("" if entry.has_body else ", and its payload as well")
    if not entry.has_body:
        # What stands for a payload comes with the header, and perhaps nobody has the payload any more.
        return (Part.PAYLOAD if row.bare is None else Part.HEAD), "its payload is damaged"
    try:
        if rebuilt_id(replica, row) != row.id:
            return Part.HEAD, "its header or payload is not what its id says"
    except DamagedError:
        return None  # it may be sound: what it builds upon is at fault
    except ValueError as error:
        return Part.HEAD, str(error)
    author = replica.branches[row.branch].log.author
    if row.seal is not None and not verify_seal(author, row.id, row.seal):
        return Part.HEAD, "its seal does not verify"
    return None


def _missing_documents(replica: Replica, page: Sequence[InspectedEntry]) -> Iterator[Fault]:
    rows = [entry.row for entry in page if entry.has_head and entry.has_body]
    ids = {id: row for row, touched in with_documents(rows) for id in touched}
    found = replica.tables.documents(list(ids))
    for id in ids.keys() - found.keys():
        text = f"{replica.name}: document {id!r:.80} is missing"
        yield Fault(Part.DOCUMENT, text, replica, document=id.encode())
