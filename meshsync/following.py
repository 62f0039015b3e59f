"""Following a collection: every operation in the order of its arrival at this node, and what it made of its document.

What is told depends on nothing but the entries that arrived before, never on when it is read.  So a reader that goes
on from a cursor, after a restart or an hour behind, is told exactly what one was told that was there all the time, and
whoever applies the changes one by one holds the documents, or those that match a query, as they stood at each cursor.

That a document expires is not an entry.  A position holds how far the time was told besides how far the entries were,
and the time goes on once all entries are told: so documents are told to be removed in the order in which they expire,
once, whether the reader was there or not.

Entries whose payloads were let go, or never came because later ones supersede them, are passed over, and the other
changes of their documents show these as they stand now: so whoever applies them all holds what there is.

Entries are told once they are committed, not once they outlast a power cut: a node that waits for no disk would tell
late or never, and one that does would tell each write later by a sync.  So a power cut can take what was told, and its
numbers go to other entries.  A cursor names the life of the store in which it was given out (`meshsync.store.lives`),
and one that is behind what is left of that life is refused: what its reader has cannot be known, since nobody may ever
hear again of what was lost, so going back to the last common entry would leave it with documents that are nowhere.
All other cursors go on.

There is no queue: a reader is a position, and what it has yet to read is in the store.  A follower remembers how the
documents that it met last stood at its position, because making that anew means reading their writes; it remembers so
much of them and no more (`Limits.follower_documents_max`, `Limits.follower_bytes_max`).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import trio

from meshsync.core import cbor
from meshsync.core.bare import is_marked
from meshsync.core.entry import DELETE, KINDS, PUT
from meshsync.core.hlc import to_datetime
from meshsync.core.query import Query
from meshsync.documents import Change
from meshsync.errors import LetGoError, LocalError
from meshsync.ids import EndpointId
from meshsync.moments import time_of
from meshsync.notifier import Notifier
from meshsync.part_following import (
    PREFIX,
    PartFollower,
    check_reach,
    end_of_life,
    no_cursor,
    parse_position,
    position_now,
    position_of_all,
)
from meshsync.store.drafts import State
from meshsync.store.past import Past, Write
from meshsync.store.replica import Replica
from meshsync.store.rows import DocumentRow, EntryRow, Moment

_PAGE = 256
_PAGE_FIRST = 16
_PAGE_BYTES = 256 * 1024
"""Payloads that are read at once, roughly: a page is made longer or shorter by what the one before held."""
_STEPS = 128
"""So many writes are looked at before others run: some milliseconds."""
_CURSOR = re.compile("([0-9a-f]{16})-([0-9]{1,20})(?:-([0-9]{1,15})(?:-((?:[0-9a-f]{2})+))?)?")
_MOMENTS = 64
"""Documents that expire are looked at so many at a time."""
_OPERATION_BITS = 9
"""A cursor counts operations; an entry has at most 256."""


def follow(replica: Replica, watcher: Notifier, query: Query | None, since: str) -> AsyncGenerator[Change, None]:
    """The changes from a cursor on; see `Collection.changes`.  LocalError: it cannot go on from there."""
    if not isinstance(since, str):
        raise LocalError(f"{since!r:.80} is no cursor; expected the text of one, or '0' for the beginning")
    if since.startswith(PREFIX):
        return PartFollower(replica, watcher, query, parse_position(replica, since)).changes()
    if since == "0" and replica.interest is not None:
        return PartFollower(replica, watcher, query, position_of_all(replica)).changes()
    return Follower(replica, watcher, query, since).changes()


def cursor_now(replica: Replica) -> str:
    """The cursor of who knows all that there is.  StoreError: the disk."""
    if replica.interest is not None:
        return position_now(replica).format(replica.lives.tag)
    return format_cursor(replica, replica.tables.next_arrival(), 0, replica.expiries.passed)


def format_cursor(replica: Replica, arrival: int, number: int, moment: Moment) -> str:
    """The cursor that names an operation of an entry as the next one, and the next document to expire."""
    cursor = f"{replica.lives.tag.hex()}-{arrival << _OPERATION_BITS | number}"
    if moment > Moment(1, ""):
        cursor += f"-{moment.expires_ms}"
    return f"{cursor}-{moment.id.encode().hex()}" if moment.id else cursor


def parse_cursor(replica: Replica, cursor: str) -> tuple[int, int, Moment]:
    """The arrival number and the operation that a cursor names, and the moment before which all that expires was told.

    CursorLostError: it is none of this store, or names what was lost; LocalError: it is none at all.
    """
    if cursor == "0":
        return 1, 0, replica.expiries.passed
    if (found := _CURSOR.fullmatch(cursor)) is None:
        raise no_cursor(cursor)
    arrival, number = int(found[2]) >> _OPERATION_BITS, int(found[2]) & (1 << _OPERATION_BITS) - 1
    check_reach(cursor, within=arrival + (number > 0) <= end_of_life(replica, found[1], cursor).arrival)
    id = bytes.fromhex(found[4] or "").decode(errors="replace")
    return arrival, number, Moment(int(found[3] or 1), id)


@dataclass(slots=True)
class _Known:
    """What is remembered of a document at the position of a follower."""

    matches: bool
    state: bytes | None
    """Encoded; None where the present state, which the store has, was its state here."""


class Follower:
    """Reads the changes of one replica for one reader."""

    def __init__(self, replica: Replica, watcher: Notifier, query: Query | None, cursor: str) -> None:
        """LocalError: the cursor leads nowhere."""
        self._replica = replica
        self._past = Past(replica)
        self._watcher = watcher
        self._query = Query() if query is None else query
        arrival, number, self._moment = parse_cursor(replica, cursor)
        self._next = arrival, number
        self._known: OrderedDict[str, _Known] = OrderedDict()
        """By id, those met last at the end."""
        self._known_bytes = 0
        self._may_have_any = cursor != "0"
        """Whether the reader may have documents that are not remembered here."""
        self._steps = 0

    async def changes(self) -> AsyncGenerator[Change, None]:
        """See `Collection.changes`."""
        tables, page = self._replica.tables, _PAGE_FIRST
        arrival, number = self._next
        while self._replica.interest is None:
            rows = list(takewhile(_is_here, tables.entries_from(arrival, page)))
            for row in rows:
                operations = [] if row.payload is None else cbor.decode_trusted(row.payload)
                documents, looked_at = dict[str, DocumentRow](), -1
                for position, operation in enumerate(operations[number:], number):
                    last = position + 1 == len(operations)
                    await self._step()
                    if looked_at != tables.document_changes:
                        # Documents change while others run, and what they were made of may be let go.
                        looked_at = tables.document_changes
                        documents = tables.documents([operation[1] for operation in operations[position:]])
                    change = await self._change(row, operation, documents[operation[1]])
                    if change is not None:
                        after = (row.arrival + 1, 0) if last else (row.arrival, position + 1)
                        yield Change(format_cursor(self._replica, *after, self._moment), *change)
                arrival, number = row.arrival + 1, 0
            if rows:
                size = sum(len(row.payload or b"") for row in rows)
                if size > _PAGE_BYTES:
                    page = max(1, page // 2)
                elif 2 * size <= _PAGE_BYTES:
                    page = min(_PAGE, 2 * page)
                await trio.lowlevel.checkpoint()
            elif self._is_time(arrival):
                for moment, change in self._time_goes_on():
                    self._moment = moment
                    if change is not None:
                        yield Change(format_cursor(self._replica, arrival, 0, self._moment), *change)
                        if not self._is_time(arrival):
                            break
                await trio.lowlevel.checkpoint()
            else:
                await self._watcher.wait_until(lambda at=arrival: self._has_news(at))  # type: ignore[misc]
        # From now on this node has a part: what the reader has is made into that, and the part is followed.
        start = position_of_all(self._replica, (0, 0) if (arrival, number) == (1, 0) else (arrival, number))
        async with aclosing(PartFollower(self._replica, self._watcher, self._query, start).changes()) as going_on:
            async for told in going_on:
                yield told

    def _has_news(self, arrival: int) -> bool:
        if self._replica.interest is not None or self._is_time(arrival):
            return True
        entry = self._replica.tables.entry(arrival)
        return entry is not None and _is_here(entry)

    def _is_time(self, arrival: int) -> bool:
        """Whether the time went on for the documents that are there once all entries before this one are told."""
        return self._moment != self._replica.expiries.passed and arrival == self._replica.tables.next_arrival()

    def _time_goes_on(self) -> list[tuple[Moment, tuple[Any, ...] | None]]:
        """The next documents that expire, or do not after all since the clock was set back: what each is told as, and
        the moment behind it.  All entries must be told.
        """
        tables, passed = self._replica.tables, self._replica.expiries.passed
        goes_back = passed < self._moment
        between = (passed, self._moment) if goes_back else (self._moment, passed)
        moments = tables.expiring(*between, _MOMENTS, reverse=goes_back)
        documents = tables.documents([moment.id for moment in moments])
        found: list[tuple[Moment, tuple[Any, ...] | None]] = []
        for moment in moments:
            change = self._turned(documents[moment.id], moment, shown=goes_back)
            found.append((moment if goes_back else moment.next(), change))
        return found if len(moments) == _MOMENTS else [*found, (passed, None)]

    def _turned(self, document: DocumentRow, moment: Moment, *, shown: bool) -> tuple[Any, ...] | None:
        """What it is told as that a document expired, or is shown again."""
        merged = self._replica.merger.read(document)
        matches = self._matches(document.id, merged.body)
        if (known := self._known.get(document.id)) is not None:
            known.matches = matches and shown
        if not matches:
            return None
        author = EndpointId(merged.stamp.author)
        told = (merged.body, author, to_datetime(merged.stamp.hlc), "put")
        if not shown:
            told = (None, author, time_of(moment.expires_ms), "removed")
        return self._replica.name, document.id, *told, document.conflict

    async def _change(self, row: EntryRow, operation: Any, document: DocumentRow) -> tuple[Any, ...] | None:
        """What one operation is told as, but for the cursor; None where the reader has no part in it."""
        try:
            return await self._told(row, operation, document)
        except LetGoError:
            # It went while its writes were read, and is told as one of which something is gone.
            return await self._told(row, operation, self._replica.tables.documents([document.id])[document.id])

    async def _told(self, row: EntryRow, operation: Any, document: DocumentRow) -> tuple[Any, ...] | None:
        kind, id = operation[:2]
        author = self._replica.branches[row.branch].log.author
        matched: bool | None = None
        is_gone = document.arrival != row.arrival and self._past.is_gone(id)
        if document.arrival == row.arrival or is_gone:
            encoded, expires_ms = None, document.expires_ms
            body = self._replica.merger.body(document, None) if document.live or expires_ms is not None else None
        else:
            state = await self._state_before(document, row.arrival)
            matched = self._matches(id, state.visible(), state.expires_ms)
            self._past.apply(state, Write.of(row, bytes(author), operation))
            encoded = state.encode()
            body, expires_ms = state.visible(), state.expires_ms
        if is_gone and (body is None) is not (kind == DELETE):
            kind = DELETE if body is None else PUT
        told = KINDS[kind]
        matches = self._matches(id, body, expires_ms)
        if not matches and (body is not None or not self._query.is_everything):
            if matched is None:
                matched = await self._matched_before(document, row.arrival)
            told = "" if not matched else "delete" if body is None else "removed"
            body = None
        self._remember(id, _Known(matches, encoded))
        if not told:
            return None
        return self._replica.name, id, body, author, to_datetime(row.hlc), told, document.conflict

    def _matches(self, id: str, body: Mapping[str, Any] | None, expires_ms: int | None = None) -> bool:
        """Whether a document matches that had not expired at the position of the reader."""
        if expires_ms is not None and Moment(expires_ms, id) < self._moment:
            return False
        return body is not None and self._query.matches(body, id)

    async def _matched_before(self, document: DocumentRow, arrival: int) -> bool:
        """Whether a document matched before an entry arrived."""
        known = self._known.get(document.id)
        if known is not None:
            return known.matches
        if self._past.is_gone(document.id):
            return self._may_have_any
        if document.state is None and document.arrival == arrival and not self._past.is_noted(document.id):
            return False  # it was never written before, which is so for most
        state = await self._state_before(document, arrival)
        return self._matches(document.id, state.visible(), state.expires_ms)

    async def _state_before(self, document: DocumentRow, arrival: int) -> State:
        """A document as it stood before an entry arrived."""
        known = self._known.get(document.id)
        if known is not None and known.state is not None:
            return self._past.decode_state(known.state)
        state = self._past.new_state()
        for _ in self._past.replay(state, document, lambda write: write.arrival < arrival):
            await self._step()
        return state

    async def _step(self) -> None:
        """Let others run now and then."""
        self._steps += 1
        if self._steps % _STEPS == 0:
            await trio.lowlevel.checkpoint()

    def _remember(self, id: str, known: _Known) -> None:
        if (before := self._known.pop(id, None)) is not None:
            self._known_bytes -= _size(id, before)
        self._known[id] = known
        self._known_bytes += _size(id, known)
        limits = self._replica.limits
        while len(self._known) > limits.follower_documents_max or self._known_bytes > limits.follower_bytes_max:
            self._known_bytes -= _size(*self._known.popitem(last=False))
            self._may_have_any = True


def _is_here(row: EntryRow) -> bool:
    """Whether an entry can be told, or need not be: who would not wait for one that came without its payload would
    never tell of it.
    """
    return row.payload is not None or is_marked(row.bare)


def _size(id: str, known: _Known) -> int:
    return len(id) + len(known.state or b"")
