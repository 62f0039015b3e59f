"""The part of a collection that this node wants, where its subscription chooses: what it shows, and what it lacks.

A document is in the *view* when it matches, as far as its payloads are here.  Wanted are the payloads that are
lacking of the documents in the view, of those that a peer named because they match there, and of each document of
which a payload just came.  So a document that stops matching is noticed, and one that begins to match comes with its
whole past.

All of this is in memory, and made anew when the process starts: what peers named from the peers, which name all that
matches to whoever begins a session, and the view from the documents, which are looked through in small steps, by an
index where one serves.  Until that has come to its end the part is not *settled*: a document that was not looked at
yet is judged when somebody asks for it, and nobody is told that all is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from meshsync.core.bare import is_lacking, tags_of
from meshsync.core.entry import document_tag
from meshsync.core.query import Query
from meshsync.core.sieve import encode_query
from meshsync.errors import DamagedError
from meshsync.ids import EndpointId, LogPlace
from meshsync.store.listing import Listing, Selected
from meshsync.store.rows import DocumentRow, EntryRow, Touch

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_PAGE = 64


class Interest:
    """What one replica wants.  LocalError: the query is more than a peer takes.

    A new one is not settled: `step` is to be called until it is.
    """

    def __init__(self, replica: Replica, query: Query) -> None:
        self.query = query
        self.encoded = encode_query(query)
        """As peers are told."""
        self._replica = replica
        self._view: set[str] = set()
        self._tags: dict[bytes, int] = {}
        """How many documents of the view have a tag."""
        self._named: set[bytes] = set()
        """Tags of documents that match at a peer, and of which not all is here."""
        self._bookmarks: dict[EndpointId, bytes] = {}
        """By peer, what it gave with the last names: up to there all of them are remembered here."""
        self._has_forgotten = False
        """A name was not remembered, for lack of room."""
        self._wanted: dict[int, None] = {}
        """The arrivals of entries whose payloads are lacking."""
        self.wishes = 0
        """How many payloads were wanted so far."""
        self._documents = self._listing()
        self._scan: Iterator[list[Selected]] | None = self._documents.steps()

    # Looking through the documents

    def _listing(self) -> Listing:
        return Listing(self._replica, self.query, whole=True, page_max=self._replica.limits.part_slice_documents)

    @property
    def is_settled(self) -> bool:
        """Whether all documents were looked at."""
        return self._scan is None

    def step(self) -> bool:
        """Look at some documents: some milliseconds.  Whether that was all."""
        index = self._documents.plan.index
        if self._scan is not None and index is not None and index not in self._replica.indexes.rows:
            # It was given up, and names nothing any more.
            self._documents = self._listing()
            self._scan = self._documents.steps()
        documents = self._documents
        end = documents.documents_read + documents.keys_read + self._replica.limits.part_slice_documents
        while self._scan is not None:
            found = next(self._scan, None)
            if found is None:
                self._scan = None
                self._replica.unwanted.begin()
                break
            for (row, _), _ in found:
                self._place(row.id, is_in_view=True)
            if documents.documents_read + documents.keys_read >= end:
                break
        return self.is_settled

    # What is shown

    def __contains__(self, id: str) -> bool:
        """Whether a document is in the view."""
        if id not in self._view and not self.is_settled:
            row = self._replica.tables.documents([id]).get(id)
            # Whoever is told that it is in the view has to learn when it leaves.
            self._place(id, is_in_view=row is not None and self._matches(row))
        return id in self._view

    def shows(self, id: str, body: Mapping[str, Any]) -> bool:
        """Whether a document is in the view, for whoever has read it."""
        return id in self._view if self.is_settled else self.query.matches(body, id)

    def __iter__(self) -> Iterator[str]:
        """The ids of the documents in the view, as far as it is settled."""
        return iter(self._view)

    def __len__(self) -> int:
        """How many documents are in the view, as far as it is settled."""
        return len(self._view)

    # What is lacking

    @property
    def is_satisfied(self) -> bool:
        """Whether no wanted payload is lacking."""
        return self.is_settled and not self._wanted

    def lacking(self, limit: int) -> list[LogPlace]:
        """Where at most `limit` entries stand whose payloads are wanted and lacking."""
        found = []
        for arrival in islice(self._wanted, limit):
            with suppress(DamagedError):  # it is lacking as a damaged one, too
                entry = self._replica.tables.entry(arrival)
                assert entry is not None
                found.append((self._replica.branches[entry.branch].log, entry.seq))
        return found

    def wants(self, id: str, tag: bytes) -> bool:
        """Whether a document is in the view, or one with its tag is, or was named."""
        return id in self._view or tag in self._tags or tag in self._named

    def awaited(self, tag: bytes) -> int:
        """How many wanted payloads are lacking of the documents with a tag."""
        return sum(arrival in self._wanted for arrival in self._bare(tag)) if self._wanted else 0

    def named(self, tags: Iterable[bytes]) -> None:
        """A peer named documents that match there."""
        for tag in tags:
            if tag in self._tags or tag in self._named:
                continue  # all that is lacking of it is wanted already
            bare = list(self._bare(tag))
            # Without a header here the name may be ahead of it.  There is a bound on what a peer can make up.
            if bare or len(self._named) < self._replica.limits.named_documents_max:
                self._named.add(tag)
            else:
                self._has_forgotten = True
            self._want(bare)

    def bookmark(self, peer: EndpointId) -> bytes | None:
        """Up to where a peer need not name again what matches there."""
        return None if self._has_forgotten else self._bookmarks.get(peer)

    def set_bookmark(self, peer: EndpointId, bookmark: bytes | None) -> None:
        """A peer gave a bookmark with the names that came last; None: it has to name everything again."""
        self._bookmarks.pop(peer, None)
        if bookmark is not None:
            self._bookmarks[peer] = bookmark
            if len(self._bookmarks) > self._replica.limits.peers_max:
                del self._bookmarks[next(iter(self._bookmarks))]

    def stored(self, rows: Sequence[EntryRow], operations: Sequence[Any]) -> None:
        """Entries were stored, or got their payloads."""
        touched: dict[str, None] = {}
        for row, ops in zip(rows, operations, strict=True):
            if ops is not None:
                self._wanted.pop(row.arrival, None)
                touched.update(dict.fromkeys([operation[1] for operation in ops]))
                continue
            for tag in tags_of(row.bare or b""):
                if (tag in self._tags or tag in self._named) and is_lacking(row.bare):
                    self._want([row.arrival])
                    break
        for document in self._replica.tables.documents(list(touched)).values():
            self._touched(document)

    def turned(self, rows: Iterable[DocumentRow]) -> None:
        """Documents expired, or did not after all."""
        for row in rows:
            self._touched(row)

    def superseded(self, arrivals: Iterable[int]) -> None:
        """Entries turned out not to need their payloads."""
        for arrival in arrivals:
            self._wanted.pop(arrival, None)

    def has_any(self, tags: Iterable[bytes]) -> bool:
        """Whether a document of the view has one of these tags."""
        return any(tag in self._tags for tag in tags)

    def _want(self, arrivals: Iterable[int]) -> None:
        before = len(self._wanted)
        self._wanted.update(dict.fromkeys(arrivals))
        self.wishes += len(self._wanted) - before

    def _touched(self, row: DocumentRow) -> None:
        was_in_view = row.id in self._view
        is_in_view = self._matches(row)
        self._place(row.id, is_in_view=is_in_view)
        if was_in_view:
            if not is_in_view:
                self._replica.unwanted.note(row.id)
            return  # what is lacking of it was found when it entered, and each bare entry since then when it came
        tag = document_tag(self._replica.id, row.id)
        if not is_in_view:
            bare = list(self._bare(tag))
            self._want(bare)
            if not bare:
                self._named.discard(tag)  # it is here whole, and does not match
                self._replica.unwanted.note(row.id)

    def _matches(self, row: DocumentRow) -> bool:
        body = None
        if row.live:
            with suppress(DamagedError):
                body = self._replica.merger.body(row, None)
        return body is not None and self.query.matches(body, row.id)

    def _place(self, id: str, *, is_in_view: bool) -> None:
        """Let a document enter or leave the view."""
        if is_in_view is (id in self._view):
            return
        tag = document_tag(self._replica.id, id)
        if is_in_view:
            self._view.add(id)
            self._tags[tag] = self._tags.get(tag, 0) + 1
            self._named.discard(tag)
            self._want(self._bare(tag))
        else:
            self._view.remove(id)
            self._tags[tag] -= 1
            if not self._tags[tag]:
                del self._tags[tag]

    def _bare(self, tag: bytes) -> Iterator[int]:
        """The entries with this tag that lack their payloads."""
        after: Touch | None = None
        tables = self._replica.tables
        if not tables.counts()[2]:
            return
        while page := tables.touches.page(tag, after, _PAGE):
            for touch in page:
                with suppress(DamagedError):
                    entry = tables.entry(touch.arrival)
                    if entry is not None and is_lacking(entry.bare):
                        yield touch.arrival
            after = page[-1]
