"""Which of two connections survives, when to try again, and whom to keep out for a while."""

from __future__ import annotations

import random
from collections.abc import Sequence

from meshsync.core.limits import LIMITS, Limits
from meshsync.ids import EndpointId


def initiator(local: EndpointId, peer: EndpointId, *, dialed: bool) -> EndpointId:
    """Which endpoint began a connection; `dialed`: this one did."""
    return local if dialed else peer


def replaces(local: EndpointId, peer: EndpointId, *, existing_dialed: bool, new_dialed: bool) -> bool:
    """Whether a second connection between two endpoints takes the place of the first.

    Both ends decide alike without a word: the connection that the lower endpoint id began survives.  Where the
    same end began both, it knows no longer of the first, so the second survives.
    """
    first = initiator(local, peer, dialed=existing_dialed)
    second = initiator(local, peer, dialed=new_dialed)
    return first == second or second < first


class Backoff:
    """Delays between tries: exponential with full jitter, for ever.

    Full jitter (a uniform draw from zero to the bound) spreads the nodes of a fleet that lost their network at
    the same moment better than a fixed part with some jitter does.
    """

    _least = 0.0
    """What part of the bound a delay has at least."""

    def __init__(self, rng: random.Random, limits: Limits = LIMITS) -> None:
        self._rng = rng
        self._first = limits.backoff_first_seconds
        self._last = limits.backoff_last_seconds
        self._bound = self._first

    def next_delay(self) -> float:
        """Seconds to wait before the next try."""
        bound, self._bound = self._bound, min(2 * self._bound, self._last)
        return self._rng.uniform(self._least * bound, bound)

    def reset(self) -> None:
        """A try succeeded."""
        self._bound = self._first


class Aside(Backoff):
    """Delays after which a record that led nowhere is tried again: longer, because it must leave room for others."""

    _least = 0.5

    def __init__(self, rng: random.Random, limits: Limits = LIMITS) -> None:
        super().__init__(rng, limits)
        self._first = self._bound = limits.aside_first_seconds
        self._last = limits.aside_last_seconds


class Paths:
    """What became of the addresses of one peer: the one that worked last is tried first, one that failed rests."""

    def __init__(self, rng: random.Random, limits: Limits = LIMITS) -> None:
        self._rng = rng
        self._limits = limits
        self._best: tuple[str, int] | None = None
        self._rests: dict[tuple[str, int], tuple[Backoff, float]] = {}

    def first(self, targets: Sequence[tuple[str, int]]) -> tuple[str, int]:
        """Which of these to try first; the order says it where none is known to work."""
        return self._best if self._best is not None and self._best in targets else targets[0]

    def is_resting(self, target: tuple[str, int], now: float) -> bool:
        """Whether it failed, and is to be left alone as long as there are others."""
        return target in self._rests and now < self._rests[target][1]

    def worked(self, target: tuple[str, int]) -> None:
        """The peer was there."""
        self._best = target
        self._rests.pop(target, None)

    def failed(self, target: tuple[str, int], now: float) -> None:
        """Nobody answered there, or somebody else."""
        backoff, _ = self._rests.pop(target, (Backoff(self._rng, self._limits), now))
        if len(self._rests) >= self._limits.paths_max:
            del self._rests[next(iter(self._rests))]
        self._rests[target] = (backoff, now + backoff.next_delay())

    def reset(self) -> None:
        """The network is another one: what failed before may work now."""
        self._rests.clear()


class Penalties:
    """Who broke the protocol is kept out for a while, each time longer; who then behaved well starts anew."""

    def __init__(self, rng: random.Random, limits: Limits = LIMITS) -> None:
        self._rng = rng
        self._limits = limits
        self._ends: dict[EndpointId, tuple[float, float]] = {}
        """When it ends, and how long the next one is at most."""

    def punish(self, peer: EndpointId, now: float) -> float:
        """Keep a peer out from now on; returns for how many seconds."""
        _, bound = self._ends.pop(peer, (now, 2 * self._limits.backoff_first_seconds))
        seconds = self._rng.uniform(bound / 2, bound)
        self._ends[peer] = (now + seconds, min(2 * bound, self._limits.backoff_last_seconds))
        if len(self._ends) > self._limits.connections_max:
            del self._ends[min(self._ends, key=lambda one: self._ends[one][0])]
        return seconds

    def remaining(self, peer: EndpointId, now: float) -> float:
        """Seconds for which a peer is still kept out; 0.0 where it is not."""
        end, _ = self._ends.get(peer, (now, 0.0))
        return max(0.0, end - now)

    def forgive(self, peer: EndpointId) -> None:
        """It behaved well, or the owner wants it."""
        self._ends.pop(peer, None)


class Allowance:
    """So many at once, and then one in every so many seconds."""

    def __init__(self, burst: int, seconds_each: float) -> None:
        self._burst = burst
        self._seconds_each = seconds_each
        self._left = float(burst)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take one; False where none is left."""
        self._left = min(self._burst, self._left + (now - self._at) / self._seconds_each)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
