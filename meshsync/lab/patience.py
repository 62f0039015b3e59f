"""How long a node cannot be blamed for what it does not know: as long as its links may keep news from it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from meshsync.core.limits import LIMITS
from meshsync.lab.impairments import Impairment, LinkImpairment

_SECONDS = 2.0
_TRIPS = 4
"""Beside the delays of so many passages."""
_CHANCE = 1e-6
"""What is no likelier than this is not put down to luck."""
_TRY_SECONDS_MIN = 2.0
_TRY_ROUND_TRIPS = 3
"""What was lost is sent again after as long at most: twice the probe timeout, or what bounds it from below."""


def patience_seconds(links: Iterable[LinkImpairment]) -> float:
    """How long news may be on the way over the worst of some links."""
    return max((_on_one(link) for link in links), default=_SECONDS)


def _on_one(link: LinkImpairment) -> float:
    ways = [way for way in (link.forward, link.backward) if not way.down]
    delays = [way.delay_seconds + way.jitter_seconds for way in ways]
    seconds = _SECONDS + _TRIPS * max(delays, default=0.0)
    seconds += max((0.0 if math.isinf(way.rate_bits_per_second) else way.queue_seconds for way in ways), default=0.0)
    seconds += max((sum(way.flap_seconds[1:]) for way in ways if way.flap_seconds is not None), default=0.0)
    tries = max(map(_tries, ways), default=1)
    if tries > 1:
        # Where the end of a connection went unheard, the next keep-alive asks.
        seconds += LIMITS.keepalive_seconds
    return seconds + (tries - 1) * max(_TRY_SECONDS_MIN, _TRY_ROUND_TRIPS * sum(delays))


def _tries(way: Impairment) -> int:
    """How often news must be sent until they are there, but for bad luck."""
    if not 0 < way.loss < 1:
        return 1  # where all is lost, nobody hears of anybody
    return math.ceil(way.burst_datagrams * math.log(_CHANCE) / math.log(way.loss))
