"""Payloads of the past: what is superseded and wanted all the same, and which of it a peer is yet to be asked for.

Someone said that no document needs them, and left them out.  Who wants the whole history asks each peer for each of
them once in a session: best effort, because perhaps nobody has them any more, and nothing that is shown lacks them.
After so many questions in vain a peer is left alone, and its next session begins where this one stopped.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshsync.core.holding import Holding
from meshsync.core.limits import Limits
from meshsync.ids import EndpointId, LogPlace


class Pasts:
    """What one peer is yet to be asked for.  Arrivals are of this side's store."""

    def __init__(self, held: Holding, peer: EndpointId, limits: Limits) -> None:
        self._held = held
        self._peer = peer
        self._limits = limits
        self._start = self._next = held.superseded.starts.get(peer, 1)
        """Entries from the one on are asked for first, then those before; the other is the next to look at,"""
        self._first = 1
        """and this is the next one of those before."""
        self._again: dict[int, None] = {}
        """Entries that became known as superseded late."""
        self._named: set[bytes] = set()
        """Documents that are sought: the peer said that it has something of them now, or they began to be wanted;"""
        self._seek = 1
        """the next entry to look at for them,"""
        self._named_next: set[bytes] = set()
        """and those to be sought after that."""
        self._entered = self._entered_now
        """How many documents had begun to be wanted when this was last looked at."""
        self._in_vain = 0
        self._is_through = self._is_put_off = False

    @property
    def is_over(self) -> bool:
        """Whether the peer was asked for all that it is to be asked for, or there is nothing."""
        return (self._is_through and not self._is_put_off) or self._is_closed

    @property
    def has_more(self) -> bool:
        """Whether `take` may have more to ask for now."""
        return not (self.is_over or self._is_put_off)

    @property
    def _is_closed(self) -> bool:
        return not self._held.superseded.is_wanted or self._in_vain >= self._limits.past_in_vain_max

    def begin_anew(self) -> None:
        """Other payloads are wanted than before."""
        self._start = self._next = self._first = 1
        self._in_vain = 0
        self._is_through = self._is_put_off = False
        self._named.clear()
        self._named_next.clear()
        self._entered = self._entered_now

    @property
    def _entered_now(self) -> int:
        interest = self._held.interest
        return 0 if interest is None else interest.entered(0)[1]

    def notice(self) -> None:
        """Look which documents began to be wanted: the peer is to be asked for their past."""
        interest = self._held.interest
        if interest is not None:
            tags, self._entered = interest.entered(self._entered)
            if tags is None:
                self.begin_anew()
            elif tags:
                self.named(tags)

    def put_off(self) -> None:
        """What came was not stored: it is to be asked for again, and not at once."""
        self._is_put_off = True

    def resume(self) -> None:
        """The peer compares anew: what was put off is asked for."""
        if self._is_put_off:
            self.begin_anew()

    def told(self, first: int, end: int) -> None:
        """The peer left payloads out of these entries, as superseded: it need not be asked for them."""
        if self._next >= first:
            self._next = max(self._next, end)

    def again(self, arrivals: Iterable[int]) -> None:
        """Something came late of these entries: the peer has not been asked for them as superseded ones."""
        room = self._limits.named_documents_max - len(self._again)
        if self._held.superseded.is_wanted:
            self._again.update(dict.fromkeys(list(arrivals)[:room]))
            self._in_vain = 0
            self._is_through &= not self._again

    def named(self, tags: Iterable[bytes]) -> None:
        """The peer has something of these documents that it was not asked for, or did not have when it was."""
        if self._held.superseded.is_wanted and len(self._named_next) < self._limits.named_documents_max:
            self._named_next.update(tags)
            self._in_vain = 0
            self._is_through &= not self._named_next

    def take(self, limit: int) -> list[LogPlace]:
        """The next entries to ask for, at most `limit`; [] where it `is_over`, or none are among those looked at."""
        if self._is_closed or self._is_put_off:
            return []
        superseded = self._held.superseded
        if self._again:
            arrivals = list(self._again)[:limit]
            for arrival in arrivals:
                del self._again[arrival]
            return superseded.places_of(arrivals)
        if not self._named:
            self._named, self._named_next, self._seek = self._named_next, self._named, 1
        if self._named:
            found, after = superseded.places_from(self._seek, limit, tags=self._named)
            if after == self._seek:
                self._named.clear()
            self._seek = after
            if self._named:
                return found
        found, after = superseded.places_from(self._next, limit)
        self._next = max(self._next, after)
        if not found and self._first < self._start:
            found, self._first = superseded.places_from(self._first, limit, self._start)
        is_at_end = self._next >= self._held.selection.end() and self._first >= self._start
        self._is_through = is_at_end and not found and not self._named_next
        return found

    def answered(self, have_come: Iterable[bool]) -> None:
        """The peer dealt with some of the entries; whether it had their payloads."""
        for has_come in have_come:
            self._in_vain = 0 if has_come else self._in_vain + 1
        if self._is_closed:
            self._held.superseded.starts[self._peer] = self._next
        else:
            self._held.superseded.starts.pop(self._peer, None)
