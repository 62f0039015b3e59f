"""Payloads that stayed away, or were damaged: which are lacking, and giving them back to their entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from meshsync.core import cbor
from meshsync.core.anchor import Anchor
from meshsync.core.bare import LET_GO, described, description, is_lacking, with_mark
from meshsync.core.entry import check_untrusted_payload, document_tags, touched_tags
from meshsync.errors import DamagedError, PeerError
from meshsync.ids import LogId, LogPlace
from meshsync.store.applied import Applied
from meshsync.store.headers import rebuilt_id
from meshsync.store.rows import EntryRow, InspectedEntry

if TYPE_CHECKING:
    from meshsync.store.replica import Replica


class Payloads:
    """The payloads of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def lacking(self, limit: int) -> list[LogPlace]:
        """Where at most `limit` entries stand that lack a payload that is wanted."""
        replica, tables = self._replica, self._replica.tables
        rows = [tables.inspect_entries(arrival, 1)[0].row for arrival in replica.damage.lacking[:limit]]
        places = [(replica.branches[row.branch].log, row.seq) for row in rows]
        if replica.interest is not None:
            return places + replica.interest.lacking(limit - len(places))
        rows = tables.bare_entries(limit - len(places))
        return places + [(replica.branches[row.branch].log, row.seq) for row in rows]

    def fill(self, log: LogId, seq: int, payload: bytes) -> Applied | None:
        """Store a payload that had stayed away, or was damaged; None where it is not lacking.

        PeerError: it is not the entry's.
        """
        replica = self._replica
        operations = cbor.decode_payloads_untrusted([payload])[0]
        check_untrusted_payload(payload, operations)
        summary = (cbor.sha256(payload), len(payload), document_tags(replica.id, [one[1] for one in operations]))
        found = [self._inspected(anchor) for anchor in replica.find(log, seq, None)]
        lacking = [one for one in found if one.row.bare is not None or not one.has_body]
        for old, _, has_body in lacking:
            row = old._replace(payload=payload, bare=None)
            try:
                fits = description(old.bare) == summary if has_body else rebuilt_id(replica, row) == row.id
            except DamagedError:
                return None  # what it builds upon is damaged as well, so nothing can prove it yet
            if fits:
                with replica.change():
                    conflicts = replica.rewrite(row, operations)
                if has_body:
                    return Applied(conflicts=conflicts, filled=[row.arrival])
                tips = self._sendable_again(row.branch)
                return Applied(conflicts=conflicts, tips=tips, mended=[row.arrival], filled=[row.arrival])
        if lacking and len(found) == 1:
            raise PeerError("a payload is not the one that its header names")
        return None

    def fill_repeated(self, repeated: Iterable[tuple[Anchor, bytes, list[Any]]], applied: Applied) -> None:
        """Give entries their payloads that came once more, now whole, in a `change`: their ids say that they fit."""
        replica = self._replica
        for anchor, payload, operations in repeated:
            try:
                old, has_head, _ = self._inspected(anchor)
            except DamagedError:
                continue  # it is known of from now on, and comes again when that is repaired
            if has_head and is_lacking(old.bare):
                applied.conflicts += replica.rewrite(old._replace(payload=payload, bare=None), operations)
                applied.filled.append(old.arrival)
                applied.payload_bytes += len(payload)

    def let_go(self, rows: Sequence[EntryRow]) -> int:
        """Drop payloads that are superseded (`contributing`), in a transaction; how many bytes they took."""
        tables, freed = self._replica.tables, 0
        for row in rows:
            assert row.payload is not None
            freed += len(row.payload)
            tags = touched_tags(self._replica.id, row.payload)
            tables.touches.let_go([(tag, row.hlc, row.arrival) for tag in tags])
            tables.rewrite_entry(row._replace(payload=None, bare=with_mark(described(row.payload, tags), LET_GO)))
        return freed

    def _sendable_again(self, number: int) -> dict[int, int]:
        """The branches that may be sent further now that an entry of one is mended."""
        branches = self._replica.branches
        return {number: branches[number].tip.seq for number in ([number] if self._replica.damage else branches)}

    def _inspected(self, anchor: Anchor) -> InspectedEntry:
        tables = self._replica.tables
        head = tables.entry_at(anchor.branch, anchor.seq)
        assert head is not None
        return tables.inspect_entries(head.arrival, 1)[0]
