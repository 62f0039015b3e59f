"""Reading documents from memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from meshsync.errors import DamagedError
from meshsync.store.rows import LOST_STATE, DocumentPage, DocumentPayload, DocumentRow, EntryRow, Moment


class MemoryDocumentReads:
    """The part of `CollectionTables` that reads documents."""

    name: str

    def __init__(self) -> None:
        self._entries: list[EntryRow] = []
        """Arrival n stands at n - 1."""
        self._documents: dict[str, DocumentRow] = {}
        self._sorted_ids: list[str] | None = []
        """The keys of `_documents` in order; None when they changed since that was asked for."""
        self._moments: list[Moment] | None = []
        """When documents expire, in order; None when that changed since it was asked for."""
        self._rotten_bodies: frozenset[int] = frozenset()
        self._rotten_documents: frozenset[str] = frozenset()
        self.found_damage: Callable[[DamagedError], None] = lambda error: None  # noqa: ARG005

    def documents(self, ids: Sequence[str]) -> dict[str, DocumentRow]:
        return {id: self._document(id) for id in ids if id in self._documents}

    def _document(self, id: str) -> DocumentRow:
        if id not in self._rotten_documents:
            return self._documents[id]
        self.found_damage(DamagedError(self.name, document=id))
        return DocumentRow(id, 0, 0, True, False, LOST_STATE)

    def _ids(self) -> list[str]:
        # Code points sort as their UTF-8 does, so comparing str is the bytewise order that is asked for.
        if self._sorted_ids is None:
            self._sorted_ids = sorted(self._documents)
        return self._sorted_ids

    def document_page(
        self,
        after: str | None,
        limit: int,
        *,
        reverse: bool = False,
        hint: Callable[[bytes], object] | None = None,
    ) -> DocumentPage:
        ids = self._ids()
        if reverse:
            following = range((len(ids) if after is None else bisect_left(ids, after)) - 1, -1, -1)
        else:
            following = range(0 if after is None else bisect_right(ids, after), len(ids))
        live = list(islice((ids[at] for at in following if self._document(ids[at]).live), limit))
        last = live[-1] if len(live) == limit else None
        return DocumentPage(self.document_payloads(live, hint), len(live), last)

    def document_payloads(
        self,
        ids: Sequence[str],
        hint: Callable[[bytes], object] | None = None,
        at_hand: Mapping[int, bytes] | None = None,  # noqa: ARG002  all are
    ) -> list[DocumentPayload]:
        found: list[DocumentPayload] = []
        for row in self.documents(ids).values():
            points = row.state is None and row.arrival not in self._rotten_bodies
            payload = self._entries[row.arrival - 1].payload if points else None
            stored = row.state or payload
            is_lost = stored is None or stored == LOST_STATE
            if row.live and (hint is None or is_lost or hint(stored or b"")):
                found.append(DocumentPayload(row, payload))
        return found

    def document_rows(self, after: str, limit: int, *, contested: bool = False) -> list[DocumentRow]:
        ids = self._ids()
        rows = map(self._document, islice(ids, bisect_right(ids, after), None))
        return list(islice((row for row in rows if row.conflict or not contested), limit))

    def expiring(self, start: Moment, end: Moment, limit: int, *, reverse: bool = False) -> list[Moment]:
        if self._moments is None:
            rows = self._documents.values()
            self._moments = sorted(Moment(row.expires_ms, row.id) for row in rows if row.expires_ms is not None)
        found = self._moments[bisect_left(self._moments, start) : bisect_left(self._moments, end)]
        return found[: -limit - 1 : -1] if reverse else found[:limit]

    def expiring_live(self, start: Moment, end: Moment) -> int:
        return sum(self._documents[moment.id].live for moment in self.expiring(start, end, len(self._documents)))

    def damaged_documents(self, after: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        ids = self._ids()
        start = bisect_right(ids, after.decode())
        page = ids[start : start + limit]
        lost = [id.encode() for id in page if self._document(id).state == LOST_STATE]
        return lost, page[-1].encode() if len(page) == limit else None
