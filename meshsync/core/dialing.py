"""Who dials, which of two connections survives, and when to try again."""

from __future__ import annotations

import random

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

    def __init__(self, rng: random.Random, limits: Limits = LIMITS) -> None:
        self._rng = rng
        self._first = limits.backoff_first_seconds
        self._last = limits.backoff_last_seconds
        self._bound = self._first

    def next_delay(self) -> float:
        """Seconds to wait before the next try."""
        bound, self._bound = self._bound, min(2 * self._bound, self._last)
        return self._rng.uniform(0, bound)

    def reset(self) -> None:
        """A try succeeded."""
        self._bound = self._first
