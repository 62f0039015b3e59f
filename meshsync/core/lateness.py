"""How much later than it is announced what comes over the tree comes: so long it is worth waiting for.

Whoever asks too soon gets an entry twice.  It is not only the network that takes time: where machines are busy, an
entry waits at each node on its way, and an announcement, which goes over one link, is far ahead of it.  So that is
measured, as TCP measures round trips, and as there what was asked for in vain counts, too (RFC 3522): an entry that
was asked for and comes by the old way after all shows that it was asked for too soon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from meshsync.core.limits import Limits
from meshsync.ids import LogId


class Lateness:
    """What was announced before it came, and how late it was of late."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._told: dict[LogId, tuple[int, float]] = {}
        """Of each log the first entry that was announced and did not come over the tree, and since when."""
        self._seconds = 0.0
        self._measured = 0.0

    def told(self, log: LogId, seq: int, now: float) -> None:
        """An entry that is not here was announced."""
        if log in self._told and now - self._told[log][1] <= self._limits.graft_late_seconds_max:
            return
        self._told.pop(log, None)
        if len(self._told) >= self._limits.late_logs_max:
            del self._told[next(iter(self._told))]
        self._told[log] = (seq, now)

    def came(self, places: Mapping[LogId, int], eager_since: float, now: float) -> None:
        """Entries came, here or not, of each log up to this one, over a link that turned eager at this time.

        Where it did so after they were announced, that is why they came: it says nothing about the tree.
        """
        for log, reached in places.items():
            seq, at = self._told.get(log, (reached + 1, now))
            if seq <= reached and eager_since < at:
                del self._told[log]
                self._measure(min(now - at, self._limits.graft_late_seconds_max), now)

    def _measure(self, late: float, now: float) -> None:
        self._seconds, self._measured = max(late, self.seconds(now)), now

    def seconds(self, now: float) -> float:
        """The longest of late; the longer ago it was, the less it counts."""
        return self._seconds * math.exp2(-(now - self._measured) / self._limits.late_fades_seconds)
