"""Over which links the entries of one collection come: a machine without I/O.

Each link of a collection is eager (what the other side lacks is pushed) or lazy (it is announced).  Among few
subscribers all links are eager, and nothing is faster.  Among many the eager links form a tree, so that each entry
comes once, and the lazy ones mend it, as in Plumtree (Leitão, Pereira and Rodrigues, "Epidemic broadcast trees",
2007).  There is one tree for the collection and not one for each log: an entry never overtakes its parents on a tree.

    - Entries that come twice make the second link lazy, where there are many subscribers, or many such entries.
    - What was announced and does not come is asked for: GRAFT to whoever announced it, then to the next one.
    - A great deal that is lacking comes from one *provider* alone.  The others wait until it has no more.
    - Where what was announced came by a long way round, the lazy link takes the place of the one over which it came.
    - Who made a link lazy makes it eager again once there is no reason left.  Whoever was pruned and has no eager
      link is grafted to another one.

Every decision is about this side's own links, and PRUNE and GRAFT may cross, so none relies on what the other end
believes.  In doubt a link is eager: that costs bytes, and nothing else.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from meshsync.core.detours import Detour, Detours
from meshsync.core.lateness import Lateness
from meshsync.core.limits import Limits
from meshsync.core.session_events import Arrived, Offered
from meshsync.ids import EndpointId, LogId


class Partner(Protocol):
    """What the machine sees of a session.  `meshsync.core.session.Session` is one."""

    @property
    def is_lazy(self) -> bool: ...
    @property
    def is_opened(self) -> bool: ...
    @property
    def is_ahead(self) -> bool: ...
    @property
    def suspects_fork(self) -> bool: ...
    @property
    def missing(self) -> int: ...
    def lacking(self) -> Mapping[LogId, int]: ...
    def lacks(self, places: Mapping[LogId, int]) -> int: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be done at once: a link turns lazy (MakeLazy) or eager (MakeEager)."""

    partner: Partner
    lazy: bool


@dataclass(eq=False, slots=True)
class _Link:
    partner: Partner
    rtt_seconds: Callable[[], float]
    is_lazy: bool
    is_ours: bool
    """It is lazy because this side wished it."""
    turned: float = -math.inf
    """When it last turned."""
    is_needed: bool = False
    """It was made eager to get what did not come otherwise."""
    pause: float = 0.0
    patient_until: float = -math.inf
    """The peer pruned it: not grafted without need before this."""
    awaited: Mapping[LogId, int] = field(default_factory=dict)
    """What the peer told of that was not here when it was looked at,"""
    lacked: int = 0
    """how much of that was not here when it was last looked at,"""
    deadline: float = math.inf
    """and when more of it must have come."""
    fruitless: int = 0
    """So many times running nothing came."""


class Spreading:
    """The links of one collection at one node."""

    def __init__(self, subscribers: Callable[[], int], limits: Limits, rng: random.Random) -> None:
        """`subscribers`: how many are known in the mesh, this node included."""
        self._subscribers = subscribers
        self._limits = limits
        self._rng = rng
        self._links: dict[Partner, _Link] = {}
        self._is_crowded = False
        self._counted = -math.inf
        """When the subscribers were."""
        self._provider: _Link | None = None
        self._bulk_until = -math.inf
        """Until then a great deal is taken to be on its way, though nobody told of it before."""
        self._looked = -math.inf
        self._detours: Detours[Partner] = Detours(limits, rng)
        self._lateness = Lateness(limits)
        self._turns: list[Turn] = []

    # Events.  After each the caller carries out the turns, and asks `wake_at` when to look again.

    def join(self, partner: Partner, rtt_seconds: Callable[[], float]) -> bool:
        """A session begins; whether it is to begin as a lazy link."""
        is_lazy = any(
            not link.is_lazy and (not link.partner.is_opened or link.partner.is_ahead) for link in self._links.values()
        )
        self._links[partner] = _Link(partner, rtt_seconds, is_lazy, is_lazy)
        self._detours.begin_anew()
        self._counted = -math.inf
        return is_lazy

    def leave(self, partner: Partner, now: float) -> list[Turn]:
        """A session is over."""
        link = self._links.pop(partner, None)
        if link is None:
            return []
        self._counted = -math.inf
        self._detours.forget(partner)
        return self.look(now)

    def arrived(self, partner: Partner, what: Arrived, now: float) -> list[Turn]:
        """A batch came."""
        link, new, repeated = self._links.get(partner), what.new, what.repeated
        if link is None:
            return []
        is_bulk = repeated >= self._limits.bulk_entries
        if new + repeated >= self._limits.bulk_entries:
            self._bulk_until = now + self._limits.bulk_rest_seconds
        self._notice(now)
        if self._provider is None:
            self._lateness.came({**what.places, **what.repeats}, link.turned, now)
        if repeated and self._is_spare(link, now) and (is_bulk or self._crowded(now)):
            self._prune(link, now)
        self._shorten(self._detours.came(partner, what.places, now), now)
        return self._decide(now)

    def wrote(self, author: EndpointId, now: float) -> None:
        """This node wrote an entry."""
        self._detours.wrote(author, now)

    def offered(self, partner: Partner, what: Offered, now: float) -> list[Turn]:
        """A lazy link told of an entry."""
        if partner not in self._links:
            return []
        self._notice(now)
        if self._provider is None and partner.lacks({what.log: what.seq}):
            self._lateness.told(what.log, what.seq, now)
        self._shorten(self._detours.offered(partner, what.log, what.seq, now - what.age_seconds, now), now)
        return self._decide(now)

    def look(self, now: float) -> list[Turn]:
        """Something was heard, or it is time: decide anew."""
        self._notice(now)
        return self._decide(now)

    def _decide(self, now: float) -> list[Turn]:
        self._looked = now
        links = [link for link in self._links.values() if link.partner.is_opened]
        if len(self._links) > 1 or any(link.is_lazy for link in links):
            for link in links:
                self._await(link, now)
            self._provide(links, now)
            if self._provider is None and now >= self._bulk_until and not self._crowded(now):
                for link in links:
                    if link.is_lazy and link.is_ours:
                        self._graft(link, now)
            self._keep_one(links, now)
        turns, self._turns = self._turns, []
        return turns

    def wake_at(self, partner: Partner) -> float:
        """When to look again for the sake of a link; infinity: not without an event."""
        link = self._links.get(partner)
        if link is None:
            return math.inf
        times = [link.deadline, self._bulk_until, link.patient_until] if link.is_lazy else [link.deadline]
        return min((time for time in times if time > self._looked), default=math.inf)

    # Turns

    def _graft(self, link: _Link, now: float) -> None:
        link.is_lazy = link.is_ours = link.is_needed = False
        link.turned = now
        self._turns.append(Turn(link.partner, lazy=False))

    def _prune(self, link: _Link, now: float) -> None:
        link.is_lazy = link.is_ours = True
        link.turned = now
        self._turns.append(Turn(link.partner, lazy=True))

    def _notice(self, now: float) -> None:
        """Peers may have turned links."""
        for link in self._links.values():
            if link.partner.is_lazy is not link.is_lazy and link.partner.is_opened:
                self._turned(link, now)

    def _turned(self, link: _Link, now: float) -> None:
        limits = self._limits
        link.is_lazy, link.is_ours, link.is_needed = link.partner.is_lazy, False, False
        if link.is_lazy:
            was_short = now < link.turned + limits.pruned_seconds_max
            link.pause = min(2 * link.pause, limits.pruned_seconds_max) if was_short and link.pause else 0.0
            link.pause = link.pause or limits.pruned_seconds_min
            link.patient_until = now + link.pause
        link.turned = now

    # Many subscribers

    def _crowded(self, now: float) -> bool:
        """Whether there are many subscribers; with a margin, so that one who comes and goes does not turn all links."""
        if now >= self._counted + 1:
            self._counted = now
            count, most = self._subscribers(), self._limits.eager_subscribers_max
            self._is_crowded = count > most or (self._is_crowded and count > most * 3 / 4)
        return self._is_crowded

    def _is_spare(self, link: _Link, now: float) -> bool:
        """Whether this link may turn lazy."""
        if link is self._provider:
            return False
        if link.is_lazy:  # PRUNE crossed a GRAFT, or is still on its way
            return now >= link.turned + self._patience(link, now)
        if link.is_needed and now < link.turned + self._limits.grafted_seconds_min:
            return False
        return any(not other.is_lazy and other.partner.is_opened for other in self._links.values() if other is not link)

    def _keep_one(self, links: list[_Link], now: float) -> None:
        """Without an eager link nothing comes until it was announced."""
        if all(link.is_lazy for link in self._links.values()):
            willing = [link for link in links if now >= link.patient_until]
            if willing:
                self._graft(min(willing, key=lambda link: (not link.partner.is_ahead, link.rtt_seconds())), now)

    def _shorten(self, detour: Detour[Partner] | None, now: float) -> None:
        """Where entries would have come sooner over a lazy link, it takes the place of the one over which they came."""
        if detour is None or self._provider is not None or not self._crowded(now):
            return
        longer, shorter = self._links[detour.longer], self._links[detour.shorter]
        is_free = shorter.is_lazy and shorter.partner.is_opened and now >= shorter.patient_until
        if is_free and not longer.is_lazy and self._detours.take(detour, shorter.rtt_seconds(), now):
            self._graft(shorter, now)
            shorter.is_needed = True
            self._prune(longer, now)

    # What was announced and does not come

    def _patience(self, link: _Link, now: float) -> float:
        limits, rtt = self._limits, link.rtt_seconds()
        if link is self._provider:
            return max(limits.bulk_seconds_max, 4 * rtt)
        # Many who were cut off hear of the same entry at once.  One of them is to fetch it and pass it on, and not all:
        # their links would make circles, and breaking all those at once cuts nodes off again.
        least = max(limits.graft_seconds_min, 1.5 * rtt, self._lateness.seconds(now))
        return least * self._rng.uniform(1, 3)

    def _await(self, link: _Link, now: float) -> None:
        partner = link.partner
        if partner.suspects_fork:
            self._graft(link, now)
            link.is_needed = True
        if not partner.is_ahead:
            link.deadline, link.fruitless = math.inf, 0
            return
        if now < link.deadline < math.inf:
            return
        lacked = partner.lacks(link.awaited) if link.deadline < math.inf else 0
        if lacked == 0:
            link.awaited = partner.lacking()
            link.lacked, link.fruitless = partner.lacks(link.awaited), 0
        elif lacked < link.lacked:
            link.lacked, link.fruitless = lacked, 0
        elif self._provider in (None, link):
            self._ask(link, now)
            return
        link.deadline = now + self._patience(link, now)

    def _ask(self, link: _Link, now: float) -> None:
        """Nothing came: ask for it; whoever else announced it is asked next."""
        link.fruitless += 1
        patience = self._patience(link, now)
        link.deadline = now + min(patience * 2**link.fruitless, max(patience, self._limits.graft_seconds_max))
        if link is self._provider:
            self._provider = None
            self._prune(link, now)
            return
        self._graft(link, now)
        link.is_needed = True
        for other in self._links.values():
            if other is not link and other.deadline < math.inf:
                other.deadline = max(other.deadline, now + patience)

    # Bulk

    def _provide(self, links: list[_Link], now: float) -> None:
        """While a great deal is lacking, have it come from one peer only."""
        provider = self._provider
        if provider is not None and provider in links and not provider.is_lazy and provider.partner.is_ahead:
            return
        was_bulk, self._provider = provider is not None, None
        ahead = [link for link in links if not link.fruitless and link.partner.is_ahead]
        if not ahead:
            return
        most = max(ahead, key=lambda link: (link.partner.missing, not link.is_lazy))
        if not was_bulk and most.partner.missing < self._limits.bulk_entries:
            return
        self._provider = most
        most.deadline = math.inf
        if most.is_lazy:
            self._graft(most, now)
        for link in ahead:
            if link is not most and not link.is_lazy:
                self._prune(link, now)
        self._await(most, now)
