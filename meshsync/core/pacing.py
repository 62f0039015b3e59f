"""When a session may act again: small batches are paced, and a fruitless resync is put off longer each time."""

from __future__ import annotations

from meshsync.core.limits import Limits

RESYNC_FIRST_SECONDS = 0.2
RESYNC_HELD_SECONDS = 5.0
RESYNC_LAST_SECONDS = 30.0
MISFITS_MAX = 8
"""A peer whose batches did not fit in so many rounds running is broken, and not unlucky."""


class Pacer:
    """A burst of small batches goes at once, then one an interval, so that many writes share one.

    A batch costs both ends about as much as a dozen entries.  So while each turn finds more than that many waiting,
    the interval doubles, up to a bound; it is back at once when fewer wait.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._interval = limits.push_interval_seconds
        self._turns = float(limits.push_burst)
        self._at = 0.0

    def wait(self, now: float, unsent: int) -> float:
        """Take a turn for `unsent` entries: 0 where one is free, otherwise the seconds until the next one."""
        limits = self._limits
        self._turns = min(limits.push_burst, self._turns + (now - self._at) / self._interval)
        self._at = now
        if self._turns < 1:
            return max(self._interval * (1 - self._turns), 1e-4)
        self._turns -= 1
        if unsent < limits.push_flood_entries:
            self._interval = limits.push_interval_seconds
        elif self._turns < 1:
            self._interval = min(2 * self._interval, limits.push_interval_seconds_max)
        return 0


class Resync:
    """When to ask the peer to be compared anew; the delay doubles while nothing comes of it."""

    def __init__(self) -> None:
        self.at: float | None = None
        """When it is due; None: there is no need."""
        self._delay = RESYNC_FIRST_SECONDS

    def plan(self, now: float, delay_min: float = 0.0) -> float:
        """Plan one, unless one is planned; returns its time."""
        if self.at is None:
            self._delay = max(self._delay, delay_min)
            self.at = now + self._delay
            self._delay = min(2 * self._delay, RESYNC_LAST_SECONDS)
        return self.at

    def take(self, now: float) -> bool:
        """Whether one is due; it counts as done."""
        if self.at is None or now < self.at:
            return False
        self.at = None
        return True

    def forget(self) -> None:
        """All is well."""
        self.at = None
        self._delay = RESYNC_FIRST_SECONDS
