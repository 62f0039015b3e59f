"""Which documents of a replica match a peer's query, as they stand here."""

from __future__ import annotations

import secrets
import struct
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

from meshsync.core.bare import described
from meshsync.core.entry import document_tag, touched_documents, touched_tags
from meshsync.core.hints import Hint
from meshsync.core.query import Query
from meshsync.errors import DamagedError
from meshsync.ids import LogId, LogPlace
from meshsync.store.matches import Matches
from meshsync.store.rows import DocumentRow, EntryRow, entry_row

if TYPE_CHECKING:
    from meshsync.store.replica import Replica


_BOOKMARK = struct.Struct(">8sQQ")
"""Of which process, how many entries had got their payloads late, and the next entry to look at."""
_LATE_MAX = 4096
"""Who comes back after more than so many has everything named again."""
_MOSTLY_NEW = 1.25
"""With no more entries than so many for each document, most documents were written once, and few are noted."""


class Selection:
    """Answers for one replica.  Implements `meshsync.core.holding.Selecting`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._matches_by_index = Matches(replica)
        self._late: deque[int] = deque(maxlen=_LATE_MAX)
        """The last entries that got their payloads late."""
        self.renew()

    # What was named until when

    def renew(self) -> None:
        """Documents are another thing now, and no entry says so: everything that matches has to be named again."""
        self._process, self._late_count = secrets.token_bytes(8), 0
        self._late.clear()

    def came_late(self, arrival: int) -> None:
        """An entry got its payload, long after its header."""
        self._late_count += 1
        self._late.append(arrival)

    def bookmark(self, arrival: int) -> bytes:
        """What a peer may give back to `since`: all that changed before `arrival` was looked at for it."""
        return _BOOKMARK.pack(self._process, self._late_count, arrival)

    def since(self, bookmark: bytes) -> tuple[int, list[int]] | None:
        """The next entry to look at, and earlier ones that got their payloads since; None: it says nothing any more.

        Nothing outlives the process: what it looked at before it lost power may be other entries now.
        """
        if len(bookmark) != _BOOKMARK.size:
            return None
        process, late_count, arrival = _BOOKMARK.unpack(bookmark)
        missed = self._late_count - late_count
        if process != self._process or not 0 <= missed <= len(self._late) or not 1 <= arrival <= self.end():
            return None
        return arrival, list(self._late)[len(self._late) - missed :]

    # What matches

    def end(self) -> int:
        """The arrival number of the next entry."""
        return self._replica.tables.next_arrival()

    def part(self, query: Query, rows: Sequence[EntryRow]) -> list[EntryRow]:
        """Entries as they go out to a peer with this query: without the payload where no document that the entry
        touches matches now.
        """
        tags = self._touched_tags(rows)
        whole = self._matching(query, rows, tags)
        chosen: list[EntryRow] = []
        for row, touched in zip(rows, tags, strict=True):
            arrival, branch, seq, id, hlc, height, parents, payload, _, seal = row
            if payload is None or arrival in whole:
                chosen.append(row)
            else:
                bare = described(payload, touched)
                chosen.append(entry_row((arrival, branch, seq, id, hlc, height, parents, None, bare, seal)))
        return chosen

    def next_matching(self, query: Query, after: str | None, limit: int) -> tuple[list[tuple[bytes, int]], str | None]:
        """Of the next `limit` documents behind the id `after` those that match: (tag, arrival of the last operation).

        And the id to go on after; None at the end.
        """
        page = self._replica.tables.document_page(after, limit, hint=self._hint(query))
        found = [row for row, payload in page.documents if self._matches(query, row, payload, if_lost=False)]
        return [(document_tag(self._replica.id, row.id), row.arrival) for row in found], page.last

    def changed_matching(self, query: Query, arrival: int, limit: int, but: Collection[int]) -> tuple[list[bytes], int]:
        """The tags of documents that match now and that the next `limit` entries from `arrival` on touch, without
        those in `but`; and the arrival number to go on from.
        """
        try:
            rows = self._replica.tables.entries_from(arrival, limit)
        except DamagedError as error:
            return [], (error.arrival or arrival) + 1
        found = self._tags(query, [row for row in rows if row.arrival not in but])
        return found, rows[-1].arrival + 1 if rows else arrival

    def arrival_at(self, branch: int, seq: int) -> int | None:
        """The arrival number of the first entry of a branch from `seq` on; None where that is not known."""
        seq = max(seq, self._replica.branches[branch].first_seq)
        with suppress(DamagedError):
            head = self._replica.tables.entry_at(branch, seq)
            return None if head is None else head.arrival
        return None

    def entries_at(self, log: LogId, seq: int) -> list[EntryRow]:
        """The entries at a place, with or without payloads: more than one only where the log has forked."""
        try:
            anchors = self._replica.find(log, seq, None)
            return [self._replica.tables.entries_of(anchor.branch, seq - 1, 1)[0] for anchor in anchors]
        except DamagedError:
            return []

    def place(self, arrival: int) -> LogPlace | None:
        """Where an entry stands; None where that is not known."""
        row = self._entry(arrival)
        return None if row is None else (self._replica.branches[row.branch].log, row.seq)

    def touched_matching(self, query: Query | None, arrival: int) -> list[bytes]:
        """The tags of the documents that an entry touches, of those that match now, or of all."""
        row = self._entry(arrival)
        return [] if row is None else self._tags(query, [row])

    def _entry(self, arrival: int) -> EntryRow | None:
        with suppress(DamagedError):
            return self._replica.tables.entry(arrival)
        return None

    def _tags(self, query: Query | None, rows: Sequence[EntryRow]) -> list[bytes]:
        tags = self._touched_tags(rows)
        if query is None:
            return list(dict.fromkeys(chain.from_iterable(tags)))
        ids = dict.fromkeys(chain.from_iterable(self._matching(query, rows, tags).values()))
        return [document_tag(self._replica.id, id) for id in ids]

    def _touched_tags(self, rows: Sequence[EntryRow]) -> list[Sequence[bytes]]:
        """For each of these entries the tags of the documents that it touches, where its payload is here."""
        collection = self._replica.id
        return [() if row.payload is None else touched_tags(collection, row.payload) for row in rows]

    def _matching(
        self, query: Query, rows: Sequence[EntryRow], tags: Sequence[Sequence[bytes]]
    ) -> dict[int, list[str]]:
        """Of these entries those that touch documents that match as they stand now: by arrival, these documents."""
        matching = self._matches_by_index.ids(query, len(rows))
        if matching is None:
            rows = self._unsettled(query, rows, tags)
        touched = {row.arrival: touched_documents(row.payload) for row in rows if row.payload is not None}
        if matching is None:
            ids = list(dict.fromkeys(chain.from_iterable(touched.values())))
            at_hand = {row.arrival: row.payload for row in rows if row.payload is not None}
            found = self._replica.tables.document_payloads(ids, self._hint(query), at_hand)
            matching = {row.id for row, payload in found if self._matches(query, row, payload, if_lost=True)}
        return {
            arrival: [id for id in ids if id in matching]
            for arrival, ids in touched.items()
            if not matching.isdisjoint(ids)
        }

    def _unsettled(self, query: Query, rows: Sequence[EntryRow], tags: Sequence[Sequence[bytes]]) -> Sequence[EntryRow]:
        """Those of these entries whose documents have to be looked at to know whether one of them matches."""
        hint, tables = self._hint(query), self._replica.tables
        entries, documents, _ = tables.counts()
        if hint is None or entries > _MOSTLY_NEW * documents:
            return rows
        # A document of which no entry is noted was written once, so it is what the payload at hand says: see
        # DocumentTouches.
        noted = tables.touches.noted(list(chain.from_iterable(tags)))
        return [
            row
            for row, touched in zip(rows, tags, strict=True)
            if row.payload is not None and (hint(row.payload) or not noted.isdisjoint(touched))
        ]

    def _hint(self, query: Query) -> Hint | None:
        """What tells by the stored bytes of a document that it does not match."""
        # Where all sides of a conflict are kept, what a document shows is not what is stored.
        return None if self._replica.policy.keeps_all else query.hint

    def _matches(self, query: Query, row: DocumentRow, payload: bytes | None, *, if_lost: bool) -> bool:
        """Whether a live document matches; `if_lost`: what to say where nobody knows."""
        try:
            body = self._replica.merger.body(row, payload)
        except DamagedError:
            return if_lost
        return body is not None and query.matches(body, row.id) and self._replica.expiries.shows(row)
