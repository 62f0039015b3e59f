"""One direction of an impaired link, as a machine without I/O: what goes in, and when it comes out.

The user-space cable and the simulated network both drive it, so a profile means the same in both.
"""

from __future__ import annotations

import random

from meshsync.lab.impairments import PERFECT, Impairment


class Wire:
    """Carries datagrams; `rng` decides alone, so a seed repeats a run."""

    def __init__(self, rng: random.Random, impairment: Impairment = PERFECT, since: float = 0.0) -> None:
        self.impairment = impairment
        """May be replaced at any time; what is under way stays as it was."""
        self.carried = 0
        self.lost = 0
        self._rng = rng
        self._since = since
        """When a flapping link was last seen to come up."""
        self._free_at = since
        """When the last datagram that was taken in will have been sent."""
        self._in_burst = False

    def impair(self, impairment: Impairment, now: float) -> None:
        """From now on the link does this to what goes in."""
        self.impairment, self._since, self._in_burst = impairment, now, False

    def carry(self, size_bytes: int, now: float) -> tuple[float, ...]:
        """Take in one datagram of so many bytes; returns the times at which it comes out, () where it is lost."""
        impairment, rng = self.impairment, self._rng
        if impairment.is_down_after(now - self._since):
            self.lost += 1
            return ()
        waiting = max(0.0, self._free_at - now)
        if waiting > impairment.queue_seconds:
            self.lost += 1
            return ()
        sent = now + waiting + size_bytes * 8 / impairment.rate_bits_per_second
        self._free_at = sent
        if self._is_lost():
            self.lost += 1
            return ()
        self.carried += 1
        copies = 2 if impairment.duplication and rng.random() < impairment.duplication else 1
        return tuple(sent + self._delay() for _ in range(copies))

    def _is_lost(self) -> bool:
        """Gilbert's model: a good state that loses nothing and a bad one that loses all.

        With `b` the mean length of a burst and `p` the share lost, the bad state is left with probability 1/b and
        entered with p / (b (1 - p)) (E. N. Gilbert, Capacity of a burst-noise channel, 1960).
        """
        loss, burst = self.impairment.loss, self.impairment.burst_datagrams
        if loss <= 0:
            return False
        if loss >= 1:
            return True
        if burst <= 1:
            return self._rng.random() < loss
        chance = 1 - 1 / burst if self._in_burst else min(1.0, loss / (burst * (1 - loss)))
        self._in_burst = self._rng.random() < chance
        return self._in_burst

    def _delay(self) -> float:
        impairment, rng = self.impairment, self._rng
        if impairment.reordering and rng.random() < impairment.reordering:
            return 0.0
        if not impairment.jitter_seconds:
            return impairment.delay_seconds
        jitter = rng.uniform(-impairment.jitter_seconds, impairment.jitter_seconds)
        return max(0.0, impairment.delay_seconds + jitter)
