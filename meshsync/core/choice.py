"""Which of many endpoints that were discovered to connect to, so that all together hold together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from meshsync.ids import EndpointId

POINTS = 4
_RING = 2**256


def choose(own: EndpointId, candidates: Iterable[EndpointId], *, all_up_to: int) -> set[EndpointId]:
    """The candidates to connect to: all where they are few, else one after each of four points on the ring of ids.

    The points lie a quarter of the ring apart and the first is `own`, so each endpoint connects to its successor: where
    all see all, or all see all of the networks that they are on, this alone makes a ring.  The others shorten the ways
    and hold it together where views have holes; with few holes and many links a piece breaks off once in a very
    long time, and introductions mend that.  A candidate that comes or goes changes at most the choice in its own
    place (Karger et al., "Consistent hashing and random trees", 1997); offsets by rank would move all of them.
    """
    ring = sorted(set(candidates) - {own})
    if len(ring) <= max(all_up_to, POINTS):
        return set(ring)
    chosen: set[EndpointId] = set()
    for number in range(POINTS):
        point = (int.from_bytes(own, "big") + number * _RING // POINTS) % _RING
        at = bisect_right(ring, point.to_bytes(32, "big"))
        while ring[at % len(ring)] in chosen:
            at += 1
        chosen.add(ring[at % len(ring)])
    return chosen
