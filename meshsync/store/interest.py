"""The part of a collection that this node wants, where its subscription chooses: what it shows, and what it lacks.

A document is in the *view* when it matches, as far as its payloads are here.  Wanted are the payloads that are
lacking of the documents in the view, of those that a peer named because they match there, and of each document of
which a payload just came.  So a document that stops matching is noticed, and one that begins to match comes with its
whole past.

All of this is in memory, and made anew when the process starts: the view from the documents, and what peers named
from the peers, which name all that matches to whoever begins a session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from meshsync.core.bare import description, is_lacking
from meshsync.core.entry import document_tag
from meshsync.core.query import Query
from meshsync.core.sieve import encode_query
from meshsync.errors import DamagedError
from meshsync.ids import LogId
from meshsync.store.news import News
from meshsync.store.rows import DocumentRow, EntryRow, Touch

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_PAGE = 64


class Interest:
    """What one replica wants.  `before`: what it wanted until now.  LocalError: the query is more than a peer takes."""

    def __init__(self, replica: Replica, query: Query, before: Interest | None = None) -> None:
        self.query = query
        self.encoded = encode_query(query)
        """As peers are told."""
        self._replica = replica
        self._view: set[str] = set()
        self._tags: dict[bytes, int] = {}
        """How many documents of the view have a tag."""
        self._named: set[bytes] = set()
        """Tags of documents that match at a peer, and of which not all is here."""
        self._wanted: dict[int, None] = {}
        """The arrivals of entries whose payloads are lacking."""
        self.wishes = 0
        """How many payloads were wanted so far."""
        for row, payload in replica.tables.scan_documents():
            self._judge(row, payload)
        self.news: News = News() if before is None else before.news
        """What entered the view, changed in it, or left it."""
        if before is not None:
            for id in sorted(set(before) ^ self._view):
                self.news.note(id)

    def __contains__(self, id: str) -> bool:
        """Whether a document is in the view."""
        return id in self._view

    def __iter__(self) -> Iterator[str]:
        """The ids of the documents in the view."""
        return iter(self._view)

    def __len__(self) -> int:
        """How many documents are in the view."""
        return len(self._view)

    @property
    def is_satisfied(self) -> bool:
        """Whether no wanted payload is lacking."""
        return not self._wanted

    def lacking(self, limit: int) -> list[tuple[LogId, int]]:
        """Where at most `limit` entries stand whose payloads are wanted and lacking."""
        found = []
        for arrival in islice(self._wanted, limit):
            with suppress(DamagedError):  # it is lacking as a damaged one, too
                entry = self._replica.tables.entry(arrival)
                assert entry is not None
                found.append((self._replica.branches[entry.branch].log, entry.seq))
        return found

    def named(self, tags: Iterable[bytes]) -> None:
        """A peer named documents that match there."""
        for tag in tags:
            if tag in self._tags or tag in self._named:
                continue  # all that is lacking of it is wanted already
            bare = list(self._bare(tag))
            # Without a header here the name may be ahead of it.  There is a bound on what a peer can make up.
            if bare or len(self._named) < self._replica.limits.named_documents_max:
                self._named.add(tag)
            self._want(bare)

    def stored(self, rows: Sequence[EntryRow], operations: Sequence[Any]) -> None:
        """Entries were stored, or got their payloads."""
        touched: dict[str, None] = {}
        for row, ops in zip(rows, operations, strict=True):
            if ops is not None:
                self._wanted.pop(row.arrival, None)
                touched.update(dict.fromkeys([operation[1] for operation in ops]))
            elif is_lacking(row.bare):
                tags = description(row.bare)[2]
                if any(tag in self._tags or tag in self._named for tag in tags):
                    self._want([row.arrival])
        for document in self._replica.tables.documents(list(touched)).values():
            self._touched(document)

    def _want(self, arrivals: Iterable[int]) -> None:
        before = len(self._wanted)
        self._wanted.update(dict.fromkeys(arrivals))
        self.wishes += len(self._wanted) - before

    def _touched(self, row: DocumentRow) -> None:
        was_in_view = row.id in self._view
        is_in_view = self._judge(row, None)
        if was_in_view or is_in_view:
            self.news.note(row.id)
        if was_in_view:
            return  # what is lacking of it was found when it entered, and each bare entry since then when it came
        tag = document_tag(self._replica.id, row.id)
        if not is_in_view:
            bare = list(self._bare(tag))
            self._want(bare)
            if not bare:
                self._named.discard(tag)  # it is here whole, and does not match

    def _judge(self, row: DocumentRow, payload: bytes | None) -> bool:
        """Let a document enter or leave the view; whether it is in it then."""
        body = None
        if row.live:
            with suppress(DamagedError):
                body = self._replica.merger.body(row, payload)
        matches = body is not None and self.query.matches(body, row.id)
        if matches is (row.id in self._view):
            return matches
        tag = document_tag(self._replica.id, row.id)
        if matches:
            self._view.add(row.id)
            self._tags[tag] = self._tags.get(tag, 0) + 1
            self._named.discard(tag)
            self._want(self._bare(tag))
        else:
            self._view.remove(row.id)
            self._tags[tag] -= 1
            if not self._tags[tag]:
                del self._tags[tag]
        return matches

    def _bare(self, tag: bytes) -> Iterator[int]:
        """The entries with this tag that lack their payloads."""
        after: Touch | None = None
        tables = self._replica.tables
        while page := tables.touches.page(tag, after, _PAGE):
            for touch in page:
                with suppress(DamagedError):
                    entry = tables.entry(touch.arrival)
                    if entry is not None and is_lacking(entry.bare):
                        yield touch.arrival
            after = page[-1]
