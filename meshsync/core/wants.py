"""Payloads that stayed away: asking a peer for them, and answering when it asks.

An answer says how many of the wanted entries it deals with, in the order of asking, so the asker knows which ones
the peer does not have either, and asks for the next.  In the place of a payload it may say that this is superseded.

What lacks here goes first; then, where the whole history is wanted, payloads of the past (`meshsync.core.pasts`).  A
peer that calls superseded what is not keeps it from whoever wants the latest only, because that one asks nobody else
for it; one that wants the whole history asks the others as well, and gets from any of them what there is.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from meshsync.core.bare import is_lacking
from meshsync.core.doubts import Doubts
from meshsync.core.holding import Holding
from meshsync.core.limits import Limits
from meshsync.core.logtable import OwnLogTable, PeerLogTable
from meshsync.core.messages import PREV_HINT_BYTES, Payloads, Want
from meshsync.core.pasts import Pasts
from meshsync.core.sieve import Sieve
from meshsync.errors import CloseCode, PeerError, StoreError
from meshsync.ids import LogPlace

_SKIP_MAX = 4096
"""So many entries that the peer lacks, too, are looked past; then asking ends until the peer has news."""


class Wants:
    """What was asked for on one stream, in both directions."""

    def __init__(
        self,
        held: Holding,
        own_logs: OwnLogTable,
        peer_logs: PeerLogTable,
        sieve: Sieve,
        pasts: Pasts,
        doubts: Doubts,
        limits: Limits,
    ) -> None:
        self._held = held
        self._own_logs = own_logs
        self._peer_logs = peer_logs
        self._sieve = sieve
        self._pasts = pasts
        self._doubts = doubts
        self._limits = limits
        self._asked: deque[LogPlace] = deque()
        self._asks_of: Pasts | Doubts | None = None
        """Why that was asked for; None: because it is lacking."""
        self._in_vain = -1
        """When nothing more was found to ask for, what `Holding.wishes` was."""
        self._noticed = -1
        self._due = 0.0
        """What `Holding.wishes` was, and when this peer is asked for what others brought up."""
        self._lacked: set[LogPlace] = set()
        """What the peer did not have when it was asked."""
        self._owed: deque[LogPlace] = deque()
        self._changes: list[Any] = []

    # Asking

    def ask(self) -> Want | None:
        """A request for payloads that are lacking, in doubt, or of the past; None where there is none to make now."""
        if self._asked:
            return None
        self._asks_of, places = None, self._lacking()
        for other in (self._doubts, self._pasts):
            if not places:
                self._asks_of, places = other, other.take(self._limits.want_entries_max)
        self._asked.extend(places)
        entries = [(self._own_logs.index(log), seq) for log, seq in self._asked]
        return Want(self._own_logs.take(), entries) if entries else None

    def _lacking(self) -> list[LogPlace]:
        """Where the next payloads are lacking that the peer may have."""
        if self._is_idle or len(self._lacked) >= _SKIP_MAX:
            return []
        limit = self._limits.want_entries_max
        places = [place for place in self._held.wanted_places(len(self._lacked) + limit) if place not in self._lacked]
        if not places:
            self._in_vain = self._held.wishes
        return places[:limit]

    @property
    def _is_idle(self) -> bool:
        """Whether nothing is lacking, or nothing more than when the peer was asked in vain."""
        return self._held.wishes == self._in_vain or self._held.is_satisfied

    def ask_besides(self, now: float) -> Want | float | None:
        """A request for what others brought up and did not send in a while, or when there will be one, or None.

        Whoever told of an entry, or named a document, is asked at once; if all were, each payload would come from all.
        """
        if not self._asked and not self._is_idle:
            if self._held.wishes != self._noticed:
                self._noticed, self._due = self._held.wishes, now + self._limits.want_patience_seconds
            if now < self._due:
                return self._due
        return self.ask() or self.look_on(now)

    def look_on(self, now: float) -> float | None:
        """When to look for more of the past to ask for, None where there is no more."""
        return now if (self._pasts.has_more or self._doubts.has_more) and not self._asked else None

    @property
    def can_ask_of_doubts(self) -> bool:
        """Whether the next thing to ask for is what is in doubt."""
        return self._doubts.has_more and self._is_idle and not self._asked

    @property
    def is_asking(self) -> bool:
        """Whether the peer has yet to answer."""
        return bool(self._asked)

    def begin_anew(self) -> None:
        """Something else is wanted than before."""
        self._pasts.begin_anew()
        self._doubts.begin_anew()

    def renew(self) -> None:
        """Ask the peer again for what it did not have, or what was not stored."""
        self._lacked.clear()
        self._in_vain = -1
        self._pasts.resume()

    def take(self, message: Payloads) -> None:
        """Store payloads that came; `changes` says what that changed.

        PeerError: not asked for, or not the entries'.  StoreError: the disk.  What came before is stored all the same.
        """
        if message.answered > len(self._asked):
            raise PeerError("an answer to more payloads than were asked for")
        if any(position >= message.answered for position, _ in message.superseded):
            raise PeerError("an answer calls superseded what it does not deal with")
        answered = [self._asked.popleft() for _ in range(message.answered)]
        wanted, lacked = frozenset(answered), set(answered)
        changes = self._changes
        try:
            for index, seq, payload in message.payloads:
                place = (self._peer_logs[index], seq)
                if place not in wanted:
                    raise PeerError("a payload that was not asked for")
                if (applied := self._held.fill_payload(*place, payload)) is not None:
                    changes.append(applied)
                    lacked.discard(place)
                elif self._is_here(place):
                    lacked.discard(place)
            came = wanted - lacked
            for position, id in message.superseded:
                # Where there are several by a fork, and this one was not lacking, the place counts as not answered.
                if (applied := self._told(answered[position], id)) is not None:
                    changes.append(applied)
                    lacked.discard(answered[position])
            if self._asks_of is self._pasts:
                self._pasts.answered([place in came for place in answered])
            elif self._asks_of is self._doubts:
                known = came | {answered[position] for position, _ in message.superseded}
                self._doubts.answered([place in known for place in answered], is_word=bool(message.superseded))
            if self._asks_of is not None:
                lacked.clear()
        except StoreError:
            if self._asks_of is not None:
                self._asks_of.put_off()
            raise
        finally:
            self._lacked |= lacked

    def changes(self) -> list[Any]:
        """What payloads that came changed since this was last asked."""
        changes, self._changes = self._changes, []
        return changes

    def _told(self, place: LogPlace, id: bytes) -> Any | None:
        """The peer calls a payload superseded: in doubt first, so that nothing is shown for it."""
        entries = self._held.selection.entries_at(*place)
        if lacking := [entry.arrival for entry in entries if is_lacking(entry.bare)]:
            self._doubts.said(min(lacking))
        return self._held.superseded.told(*place, id)

    def _is_here(self, place: LogPlace) -> bool:
        """Whether nothing lacks there: where a log has forked, a peer may send the other branch's, again and again."""
        entries = self._held.selection.entries_at(*place)
        return len(entries) > 0 and all(entry.payload is not None for entry in entries)

    # Answering

    def owe(self, message: Want) -> None:
        """The peer asks.  PeerError: for more at a time than it may."""
        self._owed.extend((self._peer_logs[index], seq) for index, seq in message.entries)
        if len(self._owed) > self._limits.want_entries_max:
            raise PeerError("a WANT of too many payloads", CloseCode.LIMIT)

    def answer(self) -> Payloads | None:
        """The next answer; None where nothing is owed."""
        rows: list[tuple[int, int, bytes]] = []
        superseded: list[tuple[int, bytes]] = []
        answered = size = 0
        limits = self._limits
        while self._owed and size < limits.batch_bytes_soft and len(rows) + len(superseded) < limits.want_entries_max:
            log, seq = self._owed[0]
            entries = self._held.selection.entries_at(log, seq)
            passed = self._sieve.passed(entries)
            if passed is None:
                break
            self._owed.popleft()
            for entry in entries:
                if entry.arrival in passed:
                    superseded.append((answered, entry.id[:PREV_HINT_BYTES]))
                elif entry.payload is not None:
                    rows.append((self._own_logs.index(log), seq, entry.payload))
                    size += len(entry.payload)
            if not (self._sieve.is_latest and passed) and all(entry.payload is None for entry in entries):
                self._sieve.missed((log, seq))
            answered += 1
        return Payloads(self._own_logs.take(), answered, rows, superseded) if answered else None
