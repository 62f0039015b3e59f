"""Whether entries take the long way round a tree: what lazy links announce is set against when it came.

An announcement says how long what it tells of has been at the peer.  So it shows when that would have come here had
the link been eager.  Where that is a good deal earlier than it came, this link belongs into the tree, and the one
over which it came does not (the optimisation of Plumtree, which counts hops where this takes the time).

The tree stays one, because whoever had an entry earlier did not get it from here: as long as all nodes go by the
entries of one author.  With several, changes at many nodes at once would make circles here and gaps there.  So of
those who wrote of late the one with the lowest id counts.  A tree that is short from there is at most twice as long
between any two.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshsync.core.limits import Limits
from meshsync.ids import EndpointId, LogId

P = TypeVar("P")
"""What stands for a link."""


@dataclass(frozen=True, slots=True)
class Detour(Generic[P]):
    """Something came over a link, and would have come sooner over another one."""

    longer: P
    shorter: P
    seconds: float
    """How much sooner."""


@dataclass(frozen=True, slots=True)
class _Passage(Generic[P]):
    """When an entry came over a link, or would have come."""

    partner: P
    log: LogId
    seq: int
    at: float


class Detours(Generic[P]):
    """What came of late, and what was announced before it came."""

    def __init__(self, limits: Limits, rng: random.Random) -> None:
        self._limits = limits
        self._rng = rng
        self._wrote: dict[EndpointId, float] = {}
        """When entries of an author were met last; the newest last."""
        self._came: _Passage[P] | None = None
        """The last entry of the author who counts."""
        self._offers: dict[P, _Passage[P]] = {}
        """The last of each link that was not here yet."""
        self._next_at = -math.inf
        self._rest = limits.detour_rest_seconds_min

    def wrote(self, author: EndpointId, now: float) -> None:
        """There is an entry of this author, written here or not."""
        self._wrote.pop(author, None)
        self._wrote[author] = now
        if len(self._wrote) > self._limits.detour_authors_max:
            del self._wrote[next(iter(self._wrote))]

    def _counts(self, log: LogId, now: float) -> bool:
        since = now - self._limits.detour_author_seconds
        return log.author == min((author for author, at in self._wrote.items() if at >= since), default=None)

    def came(self, partner: P, places: Mapping[LogId, int], now: float) -> Detour[P] | None:
        """Entries came, of each log up to this one."""
        for one in places:
            self.wrote(one.author, now)
        log = next((log for log in places if self._counts(log, now)), None)
        if log is None:
            return None
        self._came = _Passage(partner, log, places[log], now)
        offers = [one for one in self._offers.values() if one.log == log and one.seq <= places[log]]
        self._offers.clear()
        first = min(offers, key=lambda offer: offer.at, default=None)
        return None if first is None or first.partner == partner else Detour(partner, first.partner, now - first.at)

    def offered(self, partner: P, log: LogId, seq: int, at: float, now: float) -> Detour[P] | None:
        """A lazy link told of an entry that would have come at this time, had it been eager."""
        came = self._came
        if not self._counts(log, now):
            return None
        if came is None or came.log != log or came.seq < seq:
            self._offers[partner] = _Passage(partner, log, seq, at)
            return None
        return Detour(came.partner, partner, came.at - at) if came.seq == seq and came.partner != partner else None

    def take(self, detour: Detour[P], rtt_seconds: float, now: float) -> bool:
        """Whether it is worth turning links; counts as done then.

        The more often, the longer is the rest until the next time: among machines that are slow to answer all paths
        look long now and then, and each turn may have something come twice.
        """
        # One link more than over the other path is half a round trip, two are a whole one.
        if now < self._next_at or detour.seconds <= max(0.75 * rtt_seconds, self._limits.detour_seconds_min):
            return False
        self._next_at = now + self._rest * self._rng.uniform(0.5, 1.5)
        self._rest = min(2 * self._rest, self._limits.detour_rest_seconds_max)
        return True

    def forget(self, partner: P) -> None:
        """This link is gone."""
        self._offers.pop(partner, None)
        if self._came is not None and self._came.partner == partner:
            self._came = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Links come or go, so the tree is another one."""
        self._next_at, self._rest = -math.inf, self._limits.detour_rest_seconds_min
