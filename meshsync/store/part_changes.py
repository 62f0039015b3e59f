"""Keeps what followers of a part need in step with the documents: which of them entered it, changed in it, or left it.

It is kept from the moment on at which somebody follows the part for the first time, in the transaction that changes a
document, so neither a kill nor a power cut parts the two.  A document without a row has not changed since then, and is
shown where the query of that moment, the *base*, says so.  A document takes one row of a bounded size, however often it
changes, comes and goes: a newer change stands in the place of the older one, which nobody has to be told any more.

When the node wants another part, what that makes enter and leave is found in small steps by whoever follows, because
nobody else needs to know; how far that has come is in the store as well.

Before anybody ever followed, the rows say only of documents of which payloads are lacking, or were, whether they are
shown: what else is shown the next process finds from the documents.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from meshsync.core import cbor
from meshsync.core.query import Query
from meshsync.errors import DamagedError, StoreError
from meshsync.store.changes import ChangeRow
from meshsync.store.rows import DocumentPayload, DocumentRow
from meshsync.store.wholeness import first_lacking

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_STAYS_MAX = 17
"""Numbers that are remembered of a document, two for each time that it was in the part."""


class _Kept(NamedTuple):
    """What is kept beside the rows."""

    base: Query
    query: Query
    """What is wanted now."""
    after: str | None
    """Documents behind this id are yet to be looked at since that is wanted; None: all were."""
    end: str | None = None
    """Only those up to this id; None: to the last one."""
    then: str | None = None
    """And then those from the first one up to this id; None: no more."""

    def encode(self) -> bytes:
        """CBOR of all."""
        return cbor.encode([self.base.to_json(), self.query.to_json(), self.after, self.end, self.then])

    def choosing(self, query: Query) -> _Kept:
        """The same where another part is wanted from now on: all are to be looked at.

        From where it stood on, because a part may become another one before it ever came to the end.
        """
        return _Kept(self.base, query, self.after or "", then=self.after or None)

    def looked_at(self, last: str | None) -> _Kept:
        """The same once documents up to an id were looked at; None: up to the last one."""
        if last is not None and (self.end is None or last < self.end):
            return self._replace(after=last)
        if self.then is not None:
            return self._replace(after="", end=self.then, then=None)
        return self._replace(after=None, end=None)


class PartChanges:
    """The changes of the part of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._tables = replica.tables.changes
        self._key = f"part:{replica.id}"
        self._kept = self._load()
        self.has_chosen = False
        """Whether this process said which part it wants."""

    def _load(self) -> _Kept | None:
        stored = self._replica.store.meta(self._key)
        if stored is None:
            return None
        base, query, *rest = cbor.decode_trusted(stored)
        return _Kept(Query.from_json(base), Query.from_json(query), *rest)

    def _keep(self, kept: _Kept) -> None:
        """Write down what is kept, unless it is there."""
        encoded = kept.encode()
        if self._replica.store.meta(self._key) != encoded:
            self._replica.store.set_meta(self._key, encoded)
        self._kept = kept

    @property
    def is_kept(self) -> bool:
        """Whether somebody ever followed a part of this collection."""
        return self._kept is not None

    @property
    def is_settled(self) -> bool:
        """Whether the rows say what the present query shows."""
        return self._kept is not None and self._kept.after is None

    def begin(self) -> None:
        """Keep the changes from now on; nothing where they are kept already.  StoreError: the disk."""
        if self._kept is None:
            interest = self._replica.interest
            query = Query() if interest is None else interest.query
            self._replica.lives.keep()
            kept = _Kept(query, query, None)
            with self._replica.store.transaction():
                self._tables.clear()
                held = [] if interest is None else interest.held()
                self._tables.put([_first(id, shown=False) for id in held])
                self._replica.store.set_meta(self._key, kept.encode())
            self._kept = kept

    def choose(self, query: Query | None) -> None:
        """The node wants the documents that match, or all."""
        query = Query() if query is None else query
        self.has_chosen = True
        if self._kept is None and query.is_everything and self._tables.after(-1, 1):
            with suppress(StoreError), self._replica.store.transaction():
                self._tables.clear()  # all is shown from now on
        if self._kept is not None and self._kept.query != query:
            # Written with the first document that changes, or is looked at: until then it can be found anew.
            self._kept = self._kept.choosing(query)

    # What is shown though something of it is lacking

    def lacking(self, tags: Iterable[bytes]) -> None:
        """Entries with these tags came without their payloads: write down what of that is shown.

        In the transaction that stores them.
        """
        interest = self._replica.interest
        ids = [] if interest is None else interest.shown(tags)
        if ids and self._kept is None:
            self._put_shown(dict.fromkeys(ids, True))
        elif ids and self._kept is not None and not self.is_settled:
            self._keep(self._kept)
            self._look_at(self._replica.tables.document_payloads(ids))

    def note(self, shown: Mapping[str, bool]) -> None:
        """Write down of documents of which something is lacking whether they are shown, for the next process."""
        if self._kept is None and shown:
            with suppress(StoreError), self._replica.store.transaction():  # it is as good as a guess then
                self._put_shown(shown)

    def noted(self, id: str) -> bool | None:
        """Whether a document was shown when a payload was lacking last; None where that is not known."""
        row = None if self._kept is not None else self.row(id)
        return None if row is None else is_shown(row)

    def _put_shown(self, shown: Mapping[str, bool]) -> None:
        known = self._tables.rows(list(shown))
        rows = [_first(id, shown=is_shown) for id, is_shown in shown.items()]
        self._tables.put([row for row in rows if known.get(row.id) != row])

    def last(self) -> int:
        """The number of the last change."""
        return self._tables.last()

    def after(self, number: int, limit: int) -> list[ChangeRow]:
        """At most `limit` documents that changed after a number, by the numbers of their last changes."""
        return self._tables.after(number, limit)

    def shows(self, id: str, body: Mapping[str, Any], row: ChangeRow | None) -> bool:
        """Whether a document that stands so, and of which that is kept, is in the part, once all is settled."""
        if row is not None:
            return is_shown(row)
        return self._kept is not None and self._kept.base.matches(body, id)

    def row(self, id: str) -> ChangeRow | None:
        """What is kept of a document."""
        return self._tables.rows([id]).get(id)

    # Following the writes

    def follow(
        self,
        documents: Sequence[DocumentRow],
        bodies: Sequence[dict[str, Any] | None],
        before: Mapping[str, DocumentRow] | None,
        *,
        late: bool,
        dropped: bool = False,
    ) -> None:
        """Note documents as they stand now, in the transaction that changed them.

        `bodies` may be left out where nobody ever followed.  `before`: how they stood; None where they are made anew,
        and nobody knows.  `late`: a payload changed them that came after its entry.  `dropped`: they are what is left
        of documents that are not in the part, whatever that says.
        """
        if self._kept is None:
            return
        self._replica.lives.keep()
        self._keep(self._kept)
        known = self._tables.rows([document.id for document in documents])
        number = self._tables.last()
        rows = []
        for document, body in zip(documents, bodies, strict=True):
            if document.live and body is None:
                continue  # it is damaged, and told once it is known again
            old = None if before is None else before.get(document.id)
            noted = known.get(document.id)
            if noted is not None:
                was_shown = is_shown(noted)
            else:
                was_shown = before is None or (old is not None and self._was_shown(old))
            shown = not dropped and body is not None and self._is_to_show(document, body, was_shown=was_shown)
            is_same = old is not None and _stands_as(document, old) and shown is was_shown
            if (was_shown or shown) and not is_same:
                number += 1
                rows.append(_next(noted, document.id, number, was_shown=was_shown, shown=shown, late=late))
            elif late and (noted is not None or was_shown):
                # There is nothing to tell, but what it was can no longer be found from its writes.
                rows.append((noted or _first(document.id, shown=was_shown))._replace(late=number + 1))
            elif noted is None and not was_shown and body is not None and self._kept.base.matches(body, document.id):
                rows.append(_first(document.id, shown=False))
        self._tables.put(rows)

    def superseded(self, tags: Sequence[bytes]) -> None:
        """Entries with these tags turned out not to need their payloads: note what is held back no longer.

        In the transaction that changed the entries.
        """
        interest = self._replica.interest
        if self._kept is not None and interest is not None:
            self.trusted()
            self._enter(self._replica.tables.documents(interest.held(tags)))

    def trusted(self) -> None:
        """Something holds documents back no longer, in a transaction; `entered` tells of those that are known to be."""
        interest = self._replica.interest
        if self._kept is not None and interest is not None and not interest.is_settled:
            # What is held back is not known yet.
            self._keep(self._kept.choosing(self._kept.query))

    def entered(self, documents: Mapping[str, DocumentRow]) -> None:
        """These are held back no longer.  StoreError: the disk."""
        if self._kept is not None:
            with self._replica.store.transaction():
                self._enter(documents)

    def _enter(self, documents: Mapping[str, DocumentRow]) -> None:
        bodies = [self._body(DocumentPayload(document, None)) for document in documents.values()]
        self.follow(list(documents.values()), bodies, documents, late=False)

    def _is_to_show(self, document: DocumentRow, body: Mapping[str, Any], *, was_shown: bool) -> bool:
        """Whether a document is in the part: it enters only whole, where not all documents are wanted."""
        assert self._kept is not None
        query, interest = self._kept.query, self._replica.interest
        if not query.matches(body, document.id):
            return False
        # After another query it may have entered the view, and nobody who follows has looked at it yet.
        if was_shown or query.is_everything or (interest is not None and interest.has(document.id)):
            return True
        return (
            first_lacking(self._replica, document) is None
            if interest is None
            else interest.completion.is_whole(document)
        )

    def _was_shown(self, document: DocumentRow) -> bool:
        """Whether a document without a row was shown when it stood so."""
        assert self._kept is not None
        try:
            body = self._replica.merger.body(document, None) if document.live else None
        except DamagedError:
            return True  # nobody knows: told once too often does less harm than never
        return body is not None and self._kept.base.matches(body, document.id)

    # Another query

    def step(self) -> bool:
        """Look at some documents for what another query makes enter or leave; whether that was all.

        StoreError: the disk.
        """
        if self._kept is None or self._kept.after is None:
            return True
        kept, tables = self._kept, self._replica.tables
        page = tables.document_page(kept.after or None, self._replica.limits.follower_step_documents)
        before = self._kept
        try:
            with self._replica.store.transaction():
                self._look_at(page.documents)
                self._keep(kept.looked_at(page.last))
        except BaseException:
            self._kept = before
            raise
        return self.is_settled

    def _look_at(self, documents: Sequence[DocumentPayload]) -> None:
        """Note those of some documents that another query made enter or leave, in a transaction."""
        assert self._kept is not None
        self._replica.lives.keep()
        known = self._tables.rows([document.row.id for document in documents])
        number, rows = self._tables.last(), []
        for document, body in zip(documents, self._bodies(documents), strict=True):
            id = document.row.id
            if body is None:
                continue
            noted = known.get(id)
            was_shown = self._kept.base.matches(body, id) if noted is None else is_shown(noted)
            if was_shown is not self._is_to_show(document.row, body, was_shown=was_shown):
                number += 1
                rows.append(_next(noted, id, number, was_shown=was_shown, shown=not was_shown, late=False))
        self._tables.put(rows)

    def _bodies(self, documents: Sequence[DocumentPayload]) -> list[dict[str, Any] | None]:
        # One by one each would cost the decoding of all that its entry says.
        if not self._replica.expiries.is_behind:
            with suppress(DamagedError):
                return self._replica.merger.bodies(documents)
        return [self._body(document) for document in documents]

    def _body(self, document: DocumentPayload) -> dict[str, Any] | None:
        if not self._replica.expiries.shows(document.row):
            return None  # it has expired, and is followed when its turn comes
        try:
            return self._replica.merger.body(*document)
        except DamagedError:
            return None  # told once it is known again


def _stands_as(document: DocumentRow, before: DocumentRow) -> bool:
    """Whether nothing was said of a document that was not said before."""
    return document == before or (document.state is not None and document[3:] == before[3:])


def is_shown(row: ChangeRow) -> bool:
    """Whether a document is in the part."""
    return len(stays_of(row)) % 2 == 1


def was_shown_between(row: ChangeRow, number: int, until: int) -> bool:
    """Whether a document was in the part at any moment from after one change until after a later one."""
    stays = stays_of(row)
    came = bisect_right(stays, number)
    return came % 2 == 1 or came < bisect_right(stays, until)


def stays_of(row: ChangeRow) -> list[int]:
    """The numbers with which a document came and left, in turns."""
    stays: list[int] = cbor.decode_trusted(row.stays)
    return stays


def _next(before: ChangeRow | None, id: str, number: int, *, was_shown: bool, shown: bool, late: bool) -> ChangeRow:
    before = before or _first(id, shown=was_shown)
    stays = stays_of(before)
    if shown is not was_shown:
        stays.append(number)
    if len(stays) > _STAYS_MAX:
        # Of what is forgotten it is taken that the document was there: it may be told once more that it left.
        stays = [0, *stays[3:]]
    return ChangeRow(id, number, number if late else before.late, cbor.encode(stays))


def _first(id: str, *, shown: bool) -> ChangeRow:
    """The row of a document that was not told so far."""
    return ChangeRow(id, 0, 0, cbor.encode([0] if shown else []))
