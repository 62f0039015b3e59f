"""The part of a collection that this node wants, where its subscription chooses: what it shows, and what it lacks.

A document *matches* when it does as far as its payloads are here.  Wanted are the payloads that are lacking of the
documents that match, of those that a peer named because they match there, and of each document of which a payload just
came.  So a document that stops matching is noticed, and one that begins to match comes with its whole past.

What matches is in the *view*, but it enters only as it is: it is held back as long as a payload is lacking that may
say more of it, or has a mark in doubt (`meshsync.store.wholeness`), so nobody sees a document with fields missing.
One that is in the view stays there, as it stands, while the payload of a later write is lacking.

All of this is in memory, and made anew when the process starts: what peers named from the peers, which name all that
matches to whoever begins a session, and the view from the documents, which are looked through in small steps, by an
index where one serves.  Until that has come to its end the part is not *settled*: a document that was not looked at
yet is judged when somebody asks for it, and nobody is told that all is here.  Only what the documents do not tell is
written down (`meshsync.store.part_changes`): which of those of which something is lacking are shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from meshsync.core.bare import tags_of
from meshsync.core.entry import document_tag
from meshsync.core.query import Query
from meshsync.core.sieve import encode_query
from meshsync.errors import DamagedError
from meshsync.ids import EndpointId, LogPlace
from meshsync.store.listing import Listing, Selected
from meshsync.store.rows import DocumentRow, EntryRow
from meshsync.store.wholeness import Completion, bare_entries, first_lacking

if TYPE_CHECKING:
    from meshsync.store.replica import Replica


class Interest:
    """What one replica wants.  LocalError: the query is more than a peer takes.

    A new one is not settled: `step` is to be called until it is.
    """

    def __init__(self, replica: Replica, query: Query, before: Interest | None = None) -> None:
        """`before`: what was wanted until now."""
        self.query = query
        self.encoded = encode_query(query)
        """As peers are told."""
        self._replica = replica
        self._matching: set[str] = set()
        self._tags: dict[bytes, tuple[str, ...]] = {}
        """The documents that match, by tag."""
        self._held: set[str] = set()
        """Those that match and are not in the view."""
        self._news: dict[str, bool] = {}
        """Of documents of which something is lacking, or was, whether they are shown: to be written down."""
        self._is_first = not replica.part_changes.has_chosen
        """Whether this process wanted nothing else before."""
        self.before: Interest | None = before.before if before is not None and not before.is_settled else before
        """Until it is settled: what was shown when it was made, as far as that is known."""
        self._named: set[bytes] = set()
        """Tags of documents that match at a peer, and of which not all is here."""
        self._bookmarks: dict[EndpointId, bytes] = {}
        """By peer, what it gave with the last names: up to there all of them are remembered here."""
        self._has_forgotten = False
        """A name was not remembered, for lack of room."""
        self._review: list[str] = []
        """Documents that are held back, and perhaps need not be any more."""
        self._wanted: dict[int, None] = {}
        """The arrivals of entries whose payloads are lacking."""
        self.wishes = 0
        """How many payloads were wanted so far."""
        self._entered: deque[bytes] = deque(maxlen=replica.limits.named_documents_max)
        self._entered_count = 0
        """Tags of documents that began to match and have a past that is not here; and how many did so far."""
        self.completion = Completion(replica)
        self._documents = self._listing()
        self._scan: Iterator[list[Selected]] | None = self._documents.steps()

    # Looking through the documents

    def _listing(self) -> Listing:
        return Listing(self._replica, self.query, whole=True, page_max=self._replica.limits.part_slice_documents)

    @property
    def is_settled(self) -> bool:
        """Whether all documents were looked at."""
        return self._scan is None

    @property
    def has_work(self) -> bool:
        """Whether `step` is to be called."""
        return self._scan is not None or bool(self._review)

    def step(self) -> bool:
        """Look at some documents: some milliseconds.  Whether that was all.  StoreError: the disk."""
        if self._scan is None:
            self._look_at_held()
            return not self.has_work
        index = self._documents.plan.index
        if index is not None and index not in self._replica.indexes.rows:
            # It was given up, and names nothing any more.
            self._documents = self._listing()
            self._scan = self._documents.steps()
        documents = self._documents
        end = documents.documents_read + documents.keys_read + self._replica.limits.part_slice_documents
        while self._scan is not None:
            found = next(self._scan, None)
            if found is None:
                self._scan = self.before = None
                self._replica.unwanted.begin()
                break
            for (row, _), body in found:
                self._place(row, body)
            if documents.documents_read + documents.keys_read >= end:
                break
        self._write_down()
        return not self.has_work

    def look_again(self) -> None:
        """Less may hold documents back than before: `step` looks at them."""
        self._review = list(self._held)

    def _look_at_held(self) -> None:
        ids = self._review[-self._replica.limits.part_slice_documents :]
        rows = self._replica.tables.documents([id for id in ids if id in self._held])
        self._replica.part_changes.entered({id: row for id, row in rows.items() if self._is_whole(row)})
        for row in rows.values():
            self._release_whole(row)
        del self._review[len(self._review) - len(ids) :]
        self._write_down()

    # What is shown

    def __contains__(self, id: str) -> bool:
        """Whether a document is in the view."""
        if id not in self._matching and not self.is_settled:
            row = self._replica.tables.documents([id]).get(id)
            if row is not None:
                # Whoever is told that it is in the view has to learn when it leaves.
                self._place(row, self._body(row))
                self._write_down()
        return self.has(id)

    def shows(self, id: str, body: Mapping[str, Any]) -> bool:
        """Whether a document is in the view, for whoever has read it."""
        if self.is_settled:
            return id in self
        matches = self.query.matches(body, id)
        lacks = self._replica.tables.counts()[2] > 0 or self._replica.superseded.in_doubt is not None
        return id in self if matches and lacks else matches

    def has(self, id: str) -> bool:
        """Whether a document is in the view, of those that were looked at."""
        return id in self._matching and id not in self._held

    def __iter__(self) -> Iterator[str]:
        """The ids of the documents in the view, as far as it is settled."""
        return iter(self._matching - self._held)

    def __len__(self) -> int:
        """How many documents are in the view, as far as it is settled."""
        return len(self._matching) - len(self._held)

    def is_held(self, id: str) -> bool:
        """Whether a document matches and is held back, of those that were looked at."""
        return id in self._held

    def held(self, tags: Iterable[bytes] | None = None) -> list[str]:
        """The documents that match and are held back: with one of these tags, or all, as far as it is settled."""
        if tags is None:
            return list(self._held)
        return [id for tag in set(tags) for id in self._tags.get(tag, ()) if id in self._held]

    def shown(self, tags: Iterable[bytes]) -> list[str]:
        """The documents in the view with one of these tags, as far as it is settled."""
        return [id for tag in self._tags.keys() & tags for id in self._tags[tag] if id not in self._held]

    # What is lacking

    @property
    def is_satisfied(self) -> bool:
        """Whether no wanted payload is lacking, and no document held back because of a mark in doubt."""
        is_sure = not self._review and (not self._held or self._replica.superseded.in_doubt is None)
        return self.is_settled and not self._wanted and is_sure

    @property
    def lacking_count(self) -> int:
        """How many payloads are wanted and lacking, as far as it is settled."""
        return len(self._wanted)

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
        """Whether a document matches, or one with its tag does, or was named."""
        return id in self._matching or tag in self._tags or tag in self._named

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

    def stored(
        self, rows: Sequence[EntryRow], operations: Sequence[Any], lacking: Iterable[tuple[bytes, int, int]] = ()
    ) -> None:
        """Entries were stored, or got their payloads.  `lacking`: what those touch that lack theirs."""
        self.completion.came(lacking)
        tags, named = self._tags, self._named
        self._want([arrival for tag, _, arrival in lacking if tag in tags or tag in named])
        touched: dict[str, None] = {}
        payloads: dict[int, bytes | None] = {}
        for row, ops in zip(rows, operations, strict=True):
            if ops is not None:
                payloads[row.arrival] = row.payload
                self._wanted.pop(row.arrival, None)
                touched.update(dict.fromkeys([operation[1] for operation in ops]))
        for document in self._replica.tables.documents(list(touched)).values():
            self._touched(document, payloads.get(document.arrival))
        self._write_down()

    def turned(self, rows: Iterable[DocumentRow]) -> None:
        """Documents expired, or did not after all.

        What lacks of one that has expired is not wanted for that: where it matters to somebody, that one names it.
        """
        for row in rows:
            if row.live:
                self._touched(row)
            else:
                self._place(row, None)
                self._replica.unwanted.note(row.id)
        self._write_down()

    def superseded(self, rows: Iterable[EntryRow]) -> None:
        """Entries turned out not to need their payloads."""
        tags: set[bytes] = set()
        for row in rows:
            self._wanted.pop(row.arrival, None)
            tags.update(tags_of(row.bare or b""))
        for document in self._replica.tables.documents(self.held(tags)).values():
            self._release_whole(document)
        self._write_down()

    def entered(self, since: int) -> tuple[list[bytes] | None, int]:
        """The tags of the documents that began to match after so many others, of those of which superseded payloads
        are not here, and how many did so far; None: they are not remembered.
        """
        missed = max(0, self._entered_count - since)
        found = None if missed > len(self._entered) else list(islice(reversed(self._entered), missed))
        return found, self._entered_count

    def has_any(self, tags: Iterable[bytes]) -> bool:
        """Whether a document that matches has one of these tags."""
        return any(tag in self._tags for tag in tags)

    def _want(self, arrivals: Iterable[int]) -> None:
        before = len(self._wanted)
        self._wanted.update(dict.fromkeys(arrivals))
        self.wishes += len(self._wanted) - before

    def _touched(self, row: DocumentRow, payload: bytes | None = None) -> None:
        """`payload`: of the row's entry, where it is at hand."""
        did_match = row.id in self._matching
        self._place(row, self._body(row, payload))
        matches = row.id in self._matching
        if did_match:
            if not matches:
                self._replica.unwanted.note(row.id)
            return  # what is lacking of it was found when it began to match, and each bare entry since when it came
        tag = document_tag(self._replica.id, row.id)
        if not matches:
            last = self.completion.last_lacking(tag)
            if last is not None and last.arrival not in self._wanted:
                self._want(self._bare(tag))
            if last is None:
                self._named.discard(tag)  # it is here whole, and does not match
                self._replica.unwanted.note(row.id)

    def _body(self, row: DocumentRow, payload: bytes | None = None) -> Mapping[str, Any] | None:
        if self._replica.expiries.shows(row):
            with suppress(DamagedError):
                return self._replica.merger.body(row, payload)
        return None

    def _place(self, row: DocumentRow, body: Mapping[str, Any] | None) -> None:
        """Let a document that stands so match or not, and enter or leave the view."""
        id, matches = row.id, body is not None and self.query.matches(body, row.id)
        if matches is (id in self._matching):
            self._release_whole(row)
            return
        tag = document_tag(self._replica.id, id)
        if body is not None and matches:
            self._matching.add(id)
            self._tags[tag] = (*self._tags.get(tag, ()), id)
            if self._replica.superseded.is_wanted and self._replica.tables.touches.gone(tag) is not None:
                self._entered.append(tag)
                self._entered_count += 1
            self._named.discard(tag)
            bare = list(self._bare(tag))
            self._want(bare)
            is_held = (bool(bare) or self._replica.superseded.in_doubt is not None) and self._is_to_wait(row, body)
            if is_held:
                self._held.add(id)
            if bare or is_held:
                self._news[id] = not is_held
        else:
            self._matching.remove(id)
            self._held.discard(id)
            others = tuple([one for one in self._tags.pop(tag) if one != id])
            if others:
                self._tags[tag] = others

    def _is_to_wait(self, row: DocumentRow, body: Mapping[str, Any]) -> bool:
        """Whether a document that begins to match is to be held back."""
        first, changes = first_lacking(self._replica, row), self._replica.part_changes
        if first is None:
            return False
        if changes.is_kept:
            return not changes.shows(row.id, body, changes.row(row.id))
        if self.before is not None:
            return row.id not in self.before
        if self.is_settled:
            return True
        if self._is_first and (was_shown := changes.noted(row.id)) is not None:
            return not was_shown
        # What was shown before is not written down.  What came since then is later than all that was known.
        return first <= self._replica.merger.stamp(row).hlc

    def _release_whole(self, row: DocumentRow) -> None:
        """Let a document into the view that was held back, if nothing of it is lacking any more."""
        if row.id in self._held and self._is_whole(row):
            self._held.remove(row.id)
            self._news[row.id] = True

    def _is_whole(self, row: DocumentRow) -> bool:
        with suppress(DamagedError):
            return self.completion.is_whole(row)
        return False

    def _write_down(self) -> None:
        news, self._news = self._news, {}
        self._replica.part_changes.note(news)

    def _bare(self, tag: bytes) -> Iterator[int]:
        return (entry.arrival for entry in bare_entries(self._replica, tag))
