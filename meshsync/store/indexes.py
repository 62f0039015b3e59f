"""The declared indexes of one replica: kept in step with the documents, built and dropped in small steps, checked.

They are this node's own and never go to a peer.  A write puts its documents into every index in its own transaction,
whether that is ready or still being built, so building is one pass over the documents in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from meshsync.core.conditions import Path, format_path
from meshsync.core.matching import getter
from meshsync.core.ordering import MISSING_KEY, check_indexed, parse_path, sort_key
from meshsync.errors import LocalError
from meshsync.store.keys import IndexRow
from meshsync.store.rows import LOST_STATE, DocumentPayload, DocumentRow

if TYPE_CHECKING:
    from meshsync.store.replica import Replica

_BUILD_DOCUMENTS = 256
"""Documents that get their keys in one step: some three milliseconds."""
_CLEAR_KEYS = 1024
_CHECK_DOCUMENTS = 256


class Indexes:
    """The indexes of a replica, and what keeps them right."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.rows: list[IndexRow] = []
        """By number."""
        self.load()

    def load(self) -> None:
        """Look anew at what is declared."""
        self.rows = self._replica.tables.keys.rows()
        self._paths = {row.number: parse_path(row.path, "index") for row in self.rows}
        self._getters = [(row.number, getter(self._paths[row.number])) for row in self.rows if row.state != "dropping"]

    @property
    def is_any(self) -> bool:
        """Whether writes have to be followed."""
        return bool(self._getters)

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to build or drop."""
        return all(row.state == "ready" for row in self.rows)

    def declared(self) -> list[IndexRow]:
        """The indexes that are declared, by number."""
        return [row for row in self.rows if row.state != "dropping"]

    def ready(self) -> list[tuple[IndexRow, Path]]:
        """Those that can serve a query, and their paths."""
        return [(row, self._paths[row.number]) for row in self.rows if row.state == "ready"]

    def find(self, field: str) -> IndexRow | None:
        """The declared index of a field.  LocalError: that is no path."""
        path = parse_path(field, "index")
        return next((row for row in self.declared() if self._paths[row.number] == path), None)

    # Declaring

    def add(self, field: str) -> bool:
        """Declare an index, to be built by `step`; False where there is one already.

        LocalError: no field that can have one, or there are too many.
        """
        path = check_indexed(field)
        if self.find(field) is not None:
            return False
        limit = self._replica.limits.index_fields_max
        if len(self.declared()) >= limit:
            raise LocalError(f"{self._replica.name} has {limit} indexes, which is as many as may be; remove one first")
        number = max((row.number for row in self.rows), default=0) + 1
        self._set(IndexRow(number, format_path(path), "building", ""))
        return True

    def remove(self, field: str) -> bool:
        """Give up an index; `step` removes its keys.  False where there is none.  LocalError: that is no path."""
        row = self.find(field)
        if row is None:
            return False
        self._set(row._replace(state="dropping", after=""))
        return True

    def rebuild(self) -> None:
        """Make all of them anew, by `step`."""
        for row in self.declared():
            self.remove(row.path)
            self.add(row.path)

    def _set(self, row: IndexRow) -> None:
        with self._replica.store.transaction():
            self._replica.tables.keys.set_row(row)
        self.load()

    # Keeping in step

    def follow(self, rows: Sequence[DocumentRow], bodies: Sequence[dict[str, Any] | None]) -> None:
        """Note documents as they stand now, in the transaction that changed them.

        `bodies` may be left out where there is no index.
        """
        if not self.is_any:
            return
        keys = self._replica.tables.keys
        keys.put(list(self._keys(rows, bodies)))
        gone = [row.id.encode() for row in rows if not row.live]
        if gone:
            keys.forget(gone)

    def _keys(
        self, rows: Sequence[DocumentRow], bodies: Sequence[dict[str, Any] | None], only: int | None = None
    ) -> Iterator[tuple[int, str, bytes]]:
        for number, get in self._getters:
            if only is None or number == only:
                for row, body in zip(rows, bodies, strict=True):
                    if row.live:
                        # One that is lost stands in all indexes, so that their lengths stay right.
                        yield number, row.id, MISSING_KEY if body is None else sort_key(get(body))

    def step(self) -> bool:
        """Do some milliseconds of building or dropping; whether that was all.  StoreError: the disk."""
        row = next((row for row in self.rows if row.state != "ready"), None)
        if row is None:
            return True
        if row.state == "building":
            self._build(row)
        else:
            self._drop(row)
        self.load()
        return self.is_settled

    def _build(self, row: IndexRow) -> None:
        tables = self._replica.tables
        with self._replica.store.transaction():
            page = tables.document_page(row.after or None, _BUILD_DOCUMENTS)
            tables.keys.put(list(self._page_keys(row.number, page.documents)))
            done = row._replace(state="ready", after="") if page.last is None else row._replace(after=page.last)
            tables.keys.set_row(done)

    def _drop(self, row: IndexRow) -> None:
        keys = self._replica.tables.keys
        with self._replica.store.transaction():
            if keys.clear(row.number, _CLEAR_KEYS):
                keys.remove_row(row.number)

    def _page_keys(self, number: int, documents: Sequence[DocumentPayload]) -> Iterator[tuple[int, str, bytes]]:
        sound = [one for one in documents if one.row.state != LOST_STATE and not self._lacks_payload(one)]
        yield from self._keys([one.row for one in sound], self._replica.merger.bodies(sound), number)
        whole = {one.row.id for one in sound}
        for one in documents:
            if one.row.id not in whole:
                yield number, one.row.id, MISSING_KEY

    def _lacks_payload(self, document: DocumentPayload) -> bool:
        return document.row.state is None and document.payload is None

    # Checking

    def check(self, number: int, after: str) -> tuple[list[str], str | None]:
        """Hold some documents behind the id `after` against an index: what is wrong, and the id to go on after.

        A document that is damaged is not judged by its key.
        """
        tables = self._replica.tables
        page = tables.document_page(after or None, _CHECK_DOCUMENTS)
        expected = {id: key for _, id, key in self._page_keys(number, page.documents)}
        lost = {one.row.id for one in page.documents if one.row.state == LOST_STATE or self._lacks_payload(one)}
        # One more than there should be, if anything stands between that should not.
        found = {id: key for key, id in tables.keys.by_id(number, after, len(expected) + 1)}
        if page.last is not None:
            found = {id: key for id, key in found.items() if id <= page.last}
        wrong = [id for id in expected.keys() | found.keys() if id not in lost and expected.get(id) != found.get(id)]
        path = format_path(self._paths[number])
        return [f"the index of {path} is wrong about document {id!r:.80}" for id in sorted(wrong)], page.last
