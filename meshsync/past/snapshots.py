"""Documents as they were: the state made of the entries up to a time, or of one entry and what it had seen."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import trio

from meshsync.core.anchor import Place
from meshsync.core.entry import DELETE
from meshsync.core.hlc import COUNTER_BITS, HLC_MAX, milliseconds
from meshsync.core.query import Query
from meshsync.errors import LetGoError, LocalError
from meshsync.moments import milliseconds_of, time_of
from meshsync.past.facts import WriteInfo
from meshsync.store.past import Past, Write
from meshsync.store.rows import DocumentRow

_ENTRY = re.compile("[0-9a-f]{8,64}")
_SEARCH_ENTRIES = 4096
"""Looked at in one go for their ids: a millisecond or two."""
_EXPLORE_STEPS = 1024
_DOCUMENTS = 32
_WRITES = 128
"""So many are read before others run: some milliseconds."""


@dataclass(frozen=True, slots=True)
class PastDocument:
    """A document as it was."""

    id: str
    body: dict[str, Any]
    write: WriteInfo
    """The write that contributed last."""
    expires: datetime | None
    """When it was to expire, as was known then; None: never."""


@dataclass(slots=True)
class Missing:
    """The documents that are not known as they were, among others that are."""

    first: LetGoError | None = None
    count: int = 0
    until: str = ""

    def add(self, error: LetGoError) -> None:
        """One more is not known."""
        self.first = self.first or error
        self.count += 1
        # All of one form, so that the later one is the greater text.
        self.until = max(self.until, error.until)

    def check(self) -> None:
        """LetGoError: there are any."""
        if self.first is not None:
            raise LetGoError(self.first.document, self.until, self.count)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A collection as the entries up to some point make it, without what had expired by then.

    Made by `Collection.snapshot`; reads the store anew.
    """

    past: Past
    until_hlc: int
    """The greatest stamp that counts."""
    reached: Mapping[int, int] | None
    """How far each branch counts; None: all of it."""
    part: Query | None
    """What this node wants of the collection; None: all."""

    async def get(self, id: str) -> PastDocument | None:
        """A document as it was; None where it did not exist.  LetGoError: it is not known.  DamagedError: one of its
        writes cannot be read.

        Cancelling loses nothing.
        """
        await trio.lowlevel.checkpoint()
        row = self.past.row(id)
        return None if row is None else await self._document(row)

    async def expired_at(self, id: str) -> datetime | None:
        """When a document had expired that did not exist any more because of that; None of all others.

        Errors as of `get`.
        """
        await trio.lowlevel.checkpoint()
        row = self.past.row(id)
        document = None if row is None else await self._made(row)
        return document.expires if document is not None and self._has_expired(document) else None

    async def documents(self, after: str = "") -> AsyncGenerator[PastDocument, None]:
        """The documents that existed and were in `part`, by id, behind the id `after`, read in pages; cheap to abandon.

        LetGoError: in the end, after all that are known, where some are not.  DamagedError: as `get`.
        """
        missing = Missing()
        async with aclosing(self.known_and_missing(after)) as documents:
            async for one in documents:
                if isinstance(one, PastDocument):
                    yield one
                else:
                    missing.add(one)
        missing.check()

    async def known_and_missing(self, after: str = "") -> AsyncGenerator[PastDocument | LetGoError, None]:
        """The same with an error in the place of each document that is not known as it was, and may not have been."""
        for number, row in enumerate(self.past.rows(after)):
            if number % _DOCUMENTS == 0:
                await trio.lowlevel.checkpoint()
            try:
                document = await self._document(row)
            except LetGoError as error:
                yield error
                continue
            if document is not None and (self.part is None or self.part.matches(document.body, document.id)):
                yield document

    async def _document(self, row: DocumentRow) -> PastDocument | None:
        document = await self._made(row)
        return None if document is None or self._has_expired(document) else document

    def _has_expired(self, document: PastDocument) -> bool:
        return document.expires is not None and milliseconds_of(document.expires) <= milliseconds(self.until_hlc)

    async def _made(self, row: DocumentRow) -> PastDocument | None:
        """A document as its writes up to then made it, whether it had expired or not."""
        state = self.past.new_state()
        last: Write | None = None

        def counts(write: Write) -> bool:
            nonlocal last
            if not self._is_before(write):
                return False
            if write.kind != DELETE and (last is None or write.stamp > last.stamp):
                last = write
            return True

        for number, _ in enumerate(self.past.replay(state, row, counts), 1):
            if number % _WRITES == 0:
                await trio.lowlevel.checkpoint()
        body, expires_ms = state.visible(), state.expires_ms
        if body is None or last is None:
            return None
        return PastDocument(row.id, body, WriteInfo.of(last), None if expires_ms is None else time_of(expires_ms))

    def _is_before(self, write: Write) -> bool:
        if write.stamp.hlc > self.until_hlc:
            return False
        return self.reached is None or write.place.seq <= self.reached.get(write.place.branch, 0)


async def take_snapshot(past: Past, at: datetime | str, part: Query | None = None) -> Snapshot:
    """The documents as the entries up to a time make them, or one entry and all that its author had seen.

    `at`: a time with its zone, as a datetime or in ISO 8601, or the digits of an entry's id, at least 8 of them.  Of a
    time all of its millisecond counts.  An entry is looked for among all of the collection: a second for a few
    millions.  `part`: see `Snapshot`.  LocalError: it is neither, or there is no such entry, or more than one.
    Cancelling loses nothing.
    """
    await trio.lowlevel.checkpoint()
    if isinstance(at, str) and _ENTRY.fullmatch(at):
        place = await _find(past, at)
        explored = past.explore(place)
        reached = next(explored)  # and filled on from here
        for step, _ in enumerate(explored):
            if step % _EXPLORE_STEPS == _EXPLORE_STEPS - 1:
                await trio.lowlevel.checkpoint()
        return Snapshot(past, place.hlc, reached, part)
    return Snapshot(past, min((milliseconds_of(_time_of(at)) + 1 << COUNTER_BITS) - 1, HLC_MAX), None, part)


def _time_of(at: datetime | str) -> datetime:
    try:
        return datetime.fromisoformat(at) if isinstance(at, str) else at
    except ValueError:
        raise LocalError(
            f"{at!r:.80} is neither a time nor an entry; write 2026-05-04T12:30:00Z, or 8 digits or more of an entry's"
            " id"
        ) from None


async def _find(past: Past, digits: str) -> Place:
    found: list[Place] = []
    for places in past.find(
        bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f")), _SEARCH_ENTRIES
    ):
        found += places
        if len(found) > 1:
            raise LocalError(f"more than one entry begins with {digits}; give more digits of its id")
        if found and len(digits) == 64:
            break
        await trio.lowlevel.checkpoint()
    if not found:
        raise LocalError(f"there is no entry {digits} here; meshsync log COLLECTION lists them")
    return found[0]
