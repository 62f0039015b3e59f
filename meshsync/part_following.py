"""Following a part of a collection: which documents entered it, changed in it, and left it.

Payloads of a part come when they are wanted, which may be long after their headers, and those of a document that left
it may be gone: so the order of arrival does not tell what is new, and not every operation can be told.  What is
followed here is the view: of each document that changed, its present state, once, in the order of the last changes
(`meshsync.store.part_changes`).  That is in the store, so a reader is a position, and nothing waits in a queue for it.

Whoever applies the changes has the documents of the part, or those of them that match a query, as soon as there is
nothing more to tell.  Of a document that does not match, `removed` or `delete` is told where the reader may have it.
What a reader has is not written down anywhere.  It is found from its cursor, which says between which moments the
reader was told last (`Told`), and what the document was then; where that cannot be known it is told, because once too
often does no harm.  Numbers that a power cut took are given out again, so a cursor of those is refused
(`meshsync.following`).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import trio

from meshsync.core import cbor
from meshsync.core.entry import KINDS, PATCH, PUT
from meshsync.core.hlc import to_datetime
from meshsync.core.query import Query
from meshsync.documents import Change
from meshsync.errors import CursorLostError, DamagedError, LocalError
from meshsync.ids import EndpointId
from meshsync.notifier import Notifier
from meshsync.store.changes import ChangeRow
from meshsync.store.husks import is_husk, was_deleted
from meshsync.store.lives import Life
from meshsync.store.part_changes import is_shown, was_shown_between
from meshsync.store.past import Past
from meshsync.store.replica import Replica
from meshsync.store.rows import DocumentRow

PREFIX = "part-"
"""With what a cursor of a part begins."""
_NUMBER = "[0-9]{1,19}"
_CURSOR = re.compile(
    rf"part-([0-9a-f]{{16}})-({_NUMBER}(?:\.{_NUMBER})*)(?:-({_NUMBER})\.({_NUMBER})-((?:[0-9a-f]{{2}})*))?"
)


class Told(NamedTuple):
    """What a reader was told: all changes up to `number`, and of the later ones up to `until` it may know some.

    Each with the arrival number of the next entry at that moment.
    """

    number: int
    arrival: int
    until: int
    until_arrival: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader is."""

    number: int
    """The next change is the one after this number."""
    told: Told
    since: tuple[int, int] = (0, 0)
    """Whoever is being told of all documents has them as they were in a whole collection before this operation of the
    entry with this arrival number; 0: has nothing."""
    after: str | None = None
    """All documents up to this id were told; None: there is no need to tell of all of them."""

    def format(self, life: bytes) -> str:
        """The cursor."""
        told = self.told
        numbers = [self.number, told.arrival] if told.until == told.number == self.number else [self.number, *told]
        text = f"{PREFIX}{life.hex()}-{'.'.join(map(str, numbers))}"
        return text if self.after is None else f"{text}-{self.since[0]}.{self.since[1]}-{self.after.encode().hex()}"


def parse_position(replica: Replica, cursor: str) -> Position:
    """The position that a cursor names.  CursorLostError: it is none of this store; LocalError: it is none at all."""
    found = _CURSOR.fullmatch(cursor)
    if found is not None:
        end = end_of_life(replica, found[1], cursor)
        number, *told = map(int, found[2].split("."))
        since, after = (0, 0), None
        with suppress(ValueError):
            if found[3] is not None:
                since, after = (int(found[3]), int(found[4])), bytes.fromhex(found[5]).decode()
            if len(told) == 1:
                told = [number, *told, number, *told]
            if len(told) == 4:
                position = Position(number, Told(*told), since, after)
                check_reach(cursor, within=_is_within(position, end))
                return position
    raise no_cursor(cursor)


def _is_within(position: Position, end: Life) -> bool:
    """Whether a position is not behind one end."""
    told, (since, operation) = position.told, position.since
    arrival = max(told.arrival, told.until_arrival, since + (operation > 0))
    return end.change is not None and max(position.number, told.until) <= end.change and arrival <= end.arrival


def end_of_life(replica: Replica, tag: str, cursor: str) -> Life:
    """Up to where a cursor can lead that begins with the life in which it was told.  CursorLostError: nobody knows."""
    end = replica.lives.end_of(bytes.fromhex(tag))
    if end is None:
        raise CursorLostError(
            f"{cursor!r:.60} is no cursor of this collection in this store: it is another's, or of before the store was"
            ' restored; forget what was told, and begin anew with "0"'
        )
    return end


def check_reach(cursor: str, *, within: bool) -> None:
    """CursorLostError: the cursor leads behind the end of its life."""
    if not within:
        raise CursorLostError(
            f"{cursor!r:.60} is behind the end of this store: what was told before it was lost in part, in a power cut"
            ' or because an older state was restored; forget what was told, and begin anew with "0"'
        )


def no_cursor(text: str) -> LocalError:
    """It is none at all."""
    return LocalError(
        f'{text!r:.60} is no cursor of this store; give the last one that was told, or begin anew with "0"'
    )


class PartFollower:
    """Reads the changes of the part of a replica for one reader."""

    def __init__(self, replica: Replica, watcher: Notifier, query: Query | None, position: Position) -> None:
        self._replica = replica
        self._changes = replica.part_changes
        self._past = Past(replica)
        self._watcher = watcher
        self._query = Query() if query is None else query
        self._at = position
        self._known: OrderedDict[str, bool] = OrderedDict()
        """Whether the reader has a document, of those that it was told of last."""
        self._knows_all = position.told.number == position.told.until
        """Whether all that it was told after `Told.number` is known here."""

    async def changes(self) -> AsyncGenerator[Change, None]:
        """See `Collection.changes`."""
        while True:
            is_settled = self._changes.step()
            # No wait in here, so that all of a page is of one moment.
            if self._at.after is None:
                page = self._changed()
            else:
                page = self._all() if is_settled else []
            if page is None and is_settled:
                await self._watcher.wait_until(self._has_news)
                continue
            for change in page or ():
                yield change
            await trio.lowlevel.checkpoint()

    def _has_news(self) -> bool:
        return self._changes.last() > self._at.number or not self._changes.is_settled

    def _now(self) -> tuple[int, int]:
        return self._changes.last(), self._replica.tables.next_arrival()

    def _changed(self) -> list[Change] | None:
        """The next documents that changed; None where there are none."""
        last, arrival = self._now()
        rows = self._changes.after(self._at.number, self._replica.limits.follower_page_documents)
        if not rows:
            return None
        told = self._at.told._replace(until=last, until_arrival=arrival)
        documents = self._replica.tables.documents([row.id for row in rows])
        found: list[tuple[Position, tuple[Any, ...]]] = []
        for row in rows:
            document = documents.get(row.id)
            if document is not None and (change := self._change(document, row)) is not None:
                found.append((Position(row.number, told), change))
        is_level = rows[-1].number == last
        if is_level:
            told, self._knows_all = Told(last, arrival, last, arrival), True
        self._at = Position(rows[-1].number, told)
        return self._with_cursors(found)

    def _all(self) -> list[Change]:
        """The next of all documents."""
        at, (last, arrival) = self._at, self._now()
        if not at.after:  # this is the moment from which on changes are told
            at = Position(last, Told(last, arrival, last, arrival), at.since, "")
        told = at.told._replace(until=last, until_arrival=arrival)
        limit = self._replica.limits.follower_page_documents
        rows = self._replica.tables.document_rows(at.after or "", limit)
        listed = [(Position(at.number, told, at.since, row.id), self._listed(row)) for row in rows]
        found = [(position, change) for position, change in listed if change is not None]
        if len(rows) == limit:
            self._at = Position(at.number, told, at.since, rows[-1].id)
        else:
            self._at = Position(at.number, Told(last, arrival, last, arrival) if at.number == last else told)
        return self._with_cursors(found)

    def _with_cursors(self, found: list[tuple[Position, tuple[Any, ...]]]) -> list[Change]:
        """Changes with their cursors; the last leads to the end of the page, behind what there was no need to tell."""
        positions = [position for position, _ in found[:-1]] + [self._at]
        life = self._replica.lives.tag
        return [Change(at.format(life), *change) for at, (_, change) in zip(positions, found, strict=False)]

    def _change(self, document: DocumentRow, row: ChangeRow) -> tuple[Any, ...] | None:
        """What a change is told as; None where the reader has no part in it."""
        is_here = is_shown(row) and self._replica.expiries.shows(document)
        body = self._replica.merger.body(document, None) if is_here else None
        if body is not None and self._query.matches(body, document.id):
            had = was_shown_between(row, self._at.told.number, self._at.told.number)
            is_new = not had and not self._known.get(document.id)
            return self._tell(document, body, "put" if is_new else self._kind(document))
        if self._may_have(document, row):
            return self._tell(document, None, "")
        self._remember(document.id, has=False)
        return None

    def _listed(self, document: DocumentRow) -> tuple[Any, ...] | None:
        """What a document is told as to somebody who is told of all of them."""
        since, row = self._since(document.id), self._changes.row(document.id)
        is_live = self._replica.expiries.shows(document)
        body = self._replica.merger.body(document, None) if is_live else None
        shown = body is not None and self._changes.shows(document.id, body, row)
        matches = body is not None and self._query.matches(body, document.id)
        # Whether the reader was told that it expired is not known.
        has_expired = document.expires_ms is not None and not is_live
        is_late = is_husk(document.state) or (row is not None and bool(row.late))
        is_as_it_was = document.arrival < since and not is_late and not has_expired
        if is_as_it_was:
            has = matches
        else:
            has = since > 0 and self._may_have_matched(document, row, 0, since, since)
        if shown and matches and not is_as_it_was:
            return self._tell(document, body, "put")
        if has and not (shown and matches):
            return self._tell(document, None, "")
        self._remember(document.id, has=shown and matches)
        return None

    def _since(self, id: str) -> int:
        """The arrival number of the first entry that the reader, who was told of a whole collection, does not know of
        a document; see `Position.since`.
        """
        arrival, number = self._at.since
        if not number:
            return arrival
        entry = self._replica.tables.entry(arrival)
        payload = None if entry is None else entry.payload
        told = [] if payload is None else [one[1] for one in cbor.decode_trusted(payload)[:number]]
        return arrival + (id in told)

    def _tell(self, document: DocumentRow, body: dict[str, Any] | None, kind: str) -> tuple[Any, ...]:
        self._remember(document.id, has=body is not None)
        stamp = self._replica.merger.stamp(document)
        if body is None:
            # What has expired was not deleted by anybody.
            kind = "delete" if was_deleted(document) else "removed"
        author, time = EndpointId(stamp.author), to_datetime(stamp.hlc)
        return self._replica.name, document.id, body, author, time, kind, document.conflict

    def _kind(self, document: DocumentRow) -> str:
        """That of the last operation that arrived."""
        with suppress(DamagedError):
            entry = self._replica.tables.entry(document.arrival)
            if entry is not None and entry.payload is not None:
                kind = cbor.decode_trusted(entry.payload)[document.op][0]
                return KINDS[kind if kind == PATCH else PUT]
        return KINDS[PUT]

    # What the reader has

    def _may_have(self, document: DocumentRow, row: ChangeRow) -> bool:
        """Whether the reader was told of a document, and not that it left, as far as that can be known."""
        if (known := self._known.get(document.id)) is not None:
            return known
        told = self._at.told
        until, until_arrival = (told.number, told.arrival) if self._knows_all else told[2:]
        if not was_shown_between(row, told.number, until):
            return False
        if self._query.is_everything:
            return True
        return self._may_have_matched(document, row, told.number, told.arrival, until_arrival)

    def _may_have_matched(
        self, document: DocumentRow, row: ChangeRow | None, number: int, arrival: int, until_arrival: int
    ) -> bool:
        """Whether a document matched the reader's query at any moment from one to another, as far as that can be known.

        They are given by the next arrival number at that time, and the first by the number of the last change as well.
        """
        if row is not None and row.late > number:
            return True
        try:
            writes = self._past.all_writes(document, self._replica.limits.follower_writes_max)
        except DamagedError:
            return True
        if writes is None:
            return True
        state = self._past.new_state()
        for write in writes:
            if write.arrival >= arrival:
                break
            self._past.apply(state, write)
        if self._matches(document.id, state.visible()):
            return True
        for write in writes:
            if arrival <= write.arrival < until_arrival:
                self._past.apply(state, write)
                if self._matches(document.id, state.visible()):
                    return True
        return False

    def _matches(self, id: str, body: dict[str, Any] | None) -> bool:
        return body is not None and self._query.matches(body, id)

    def _remember(self, id: str, *, has: bool) -> None:
        self._known.pop(id, None)
        self._known[id] = has
        if len(self._known) > self._replica.limits.follower_documents_max:
            self._known.popitem(last=False)
            self._knows_all = False


def position_now(replica: Replica) -> Position:
    """That of a reader who knows all that there is.  StoreError: the disk."""
    replica.part_changes.begin()
    number, arrival = replica.part_changes.last(), replica.tables.next_arrival()
    return Position(number, Told(number, arrival, number, arrival))


def position_of_all(replica: Replica, since: tuple[int, int] = (0, 0)) -> Position:
    """That of a reader who is to be told of all documents; see `Position.since`.  StoreError: the disk."""
    now = position_now(replica)
    return Position(now.number, now.told, since, "")
