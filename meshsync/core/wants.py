"""Payloads that stayed away: asking a peer for them, and answering when it asks.

An answer says how many of the wanted entries it deals with, in the order of asking, so the asker knows which ones
the peer does not have either, and asks for the next.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from meshsync.core.holding import Holding
from meshsync.core.limits import Limits
from meshsync.core.logtable import OwnLogTable, PeerLogTable
from meshsync.core.messages import Payloads, Want
from meshsync.core.sieve import Place, Sieve
from meshsync.errors import CloseCode, PeerError

_SKIP_MAX = 4096
"""So many entries that the peer lacks, too, are looked past; then asking ends until the peer has news."""


class Wants:
    """What was asked for on one stream, in both directions."""

    def __init__(
        self, held: Holding, own_logs: OwnLogTable, peer_logs: PeerLogTable, sieve: Sieve, limits: Limits
    ) -> None:
        self._held = held
        self._own_logs = own_logs
        self._peer_logs = peer_logs
        self._sieve = sieve
        self._limits = limits
        self._asked: deque[Place] = deque()
        self._in_vain = -1
        """When nothing more was found to ask for, what `Holding.wishes` was."""
        self._noticed = -1
        self._due = 0.0
        """What `Holding.wishes` was, and when this peer is asked for what others brought up."""
        self._lacked: set[Place] = set()
        """What the peer did not have when it was asked."""
        self._owed: deque[Place] = deque()

    # Asking

    def ask(self) -> Want | None:
        """A request for payloads that are lacking; None where there is none to make now."""
        wishes = self._held.wishes
        if self._asked or wishes == self._in_vain or self._held.is_satisfied or len(self._lacked) >= _SKIP_MAX:
            return None
        limit = self._limits.want_entries_max
        places = [place for place in self._held.wanted_places(len(self._lacked) + limit) if place not in self._lacked]
        if not places:
            self._in_vain = wishes
            return None
        self._asked.extend(places[:limit])
        entries = [(self._own_logs.index(log), seq) for log, seq in self._asked]
        return Want(self._own_logs.take(), entries)

    def ask_besides(self, now: float) -> Want | float | None:
        """A request for what others brought up and did not send in a while, or when there will be one, or None.

        Whoever told of an entry, or named a document, is asked at once; if all were, each payload would come from all.
        """
        wishes = self._held.wishes
        if self._asked or wishes == self._in_vain or self._held.is_satisfied:
            return None
        if wishes != self._noticed:
            self._noticed, self._due = wishes, now + self._limits.want_patience_seconds
        return self._due if now < self._due else self.ask()

    @property
    def is_asking(self) -> bool:
        """Whether the peer has yet to answer."""
        return bool(self._asked)

    def renew(self) -> None:
        """Ask the peer again for what it did not have."""
        self._lacked.clear()
        self._in_vain = -1

    def take(self, message: Payloads) -> list[Any]:
        """Store payloads that came; returns what that changed.  PeerError: not asked for, or not the entries'."""
        if message.answered > len(self._asked):
            raise PeerError("an answer to more payloads than were asked for")
        answered = [self._asked.popleft() for _ in range(message.answered)]
        lacked = set(answered)
        changes: list[Any] = []
        try:
            for index, seq, payload in message.payloads:
                place = (self._peer_logs[index], seq)
                if place not in answered:
                    raise PeerError("a payload that was not asked for")
                if (applied := self._held.fill_payload(*place, payload)) is not None:
                    changes.append(applied)
                    lacked.discard(place)
                elif self._is_here(place):
                    lacked.discard(place)
        finally:
            self._lacked |= lacked
        return changes

    def _is_here(self, place: Place) -> bool:
        """Whether nothing lacks there: where a log has forked, a peer may send the other branch's, again and again."""
        return len(self._held.payloads_at(*place)) == len(self._held.find(*place, None))

    # Answering

    def owe(self, message: Want) -> None:
        """The peer asks.  PeerError: for more at a time than it may."""
        self._owed.extend((self._peer_logs[index], seq) for index, seq in message.entries)
        if len(self._owed) > self._limits.want_entries_max:
            raise PeerError("a WANT of too many payloads", CloseCode.LIMIT)

    def answer(self) -> Payloads | None:
        """The next answer; None where nothing is owed."""
        rows: list[tuple[int, int, bytes]] = []
        answered = size = 0
        while self._owed and size < self._limits.batch_bytes_soft:
            log, seq = self._owed.popleft()
            answered += 1
            payloads = self._held.payloads_at(log, seq)
            if not payloads:
                self._sieve.missed((log, seq))
            for payload in payloads:
                rows.append((self._own_logs.index(log), seq, payload))
                size += len(payload)
        return Payloads(self._own_logs.take(), answered, rows) if answered else None
