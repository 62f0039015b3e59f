"""Payloads that stayed away: which to ask a peer for, answering the same question, and taking what comes."""

from __future__ import annotations

from collections.abc import Iterator

from meshsync.core.holding import Holding
from meshsync.core.limits import Limits
from meshsync.core.logtable import OwnLogTable, PeerLogTable
from meshsync.core.messages import Payloads, Want
from meshsync.errors import CloseCode, PeerError
from meshsync.ids import LogId

WANT_ENTRIES_MAX = 256


class Wants:
    """The payloads asked for on one stream."""

    def __init__(self, held: Holding, own_logs: OwnLogTable, peer_logs: PeerLogTable, limits: Limits) -> None:
        self._held = held
        self._own_logs = own_logs
        self._peer_logs = peer_logs
        self._limits = limits
        self._asked: set[tuple[LogId, int]] = set()

    def ask(self) -> Want | None:
        """A request for payloads that are lacking and were not asked for yet; None where there are none."""
        if self._held.complete:
            return None
        places = [place for place in self._held.bare_places(WANT_ENTRIES_MAX) if place not in self._asked]
        if not places:
            return None
        self._asked.update(places)
        entries = [(self._own_logs.index(log), seq) for log, seq in places]
        return Want(self._own_logs.take(), entries)

    def answer(self, message: Want) -> Iterator[Payloads]:
        """The payloads that the peer asks for, as far as they are here."""
        if len(message.entries) > WANT_ENTRIES_MAX:
            raise PeerError("a WANT of too many payloads", CloseCode.LIMIT)
        rows: list[tuple[int, int, bytes]] = []
        size = 0
        for index, seq in message.entries:
            log = self._peer_logs[index]
            payload = self._held.payload_at(log, seq)
            if payload is None:
                continue
            rows.append((self._own_logs.index(log), seq, payload))
            size += len(payload)
            if size > self._limits.batch_bytes_soft:
                yield Payloads(self._own_logs.take(), rows)
                rows, size = [], 0
        if rows:
            yield Payloads(self._own_logs.take(), rows)

    def take(self, message: Payloads) -> None:
        """Store payloads that came.  PeerError: not asked for, or not those of the entries."""
        for index, seq, payload in message.payloads:
            log = self._peer_logs[index]
            if (log, seq) not in self._asked:
                raise PeerError("a payload that was not asked for")
            self._asked.discard((log, seq))
            self._held.fill_payload(log, seq, payload)
