"""The two roots of a session: this side's and the peer's, what each is known to be, and since when."""

from __future__ import annotations

from meshsync.core.holding import Holding


class Roots:
    """Equal roots are what synced means; roots that differ for long without a reason call for another comparison."""

    def __init__(self, held: Holding) -> None:
        self._held = held
        self.peers: bytes | None = None
        """The peer's, as it last said."""
        self.said: bytes | None = None
        """Ours, as the peer was last told."""
        self._seen: tuple[bytes | None, bytes] | None = None
        self._moved = 0.0
        """When either last changed."""

    @property
    def are_equal(self) -> bool:
        """Whether the peer's is ours."""
        return self.peers == self._held.root()

    @property
    def is_all_said(self) -> bool:
        """Whether they are equal, and the peer knows it."""
        return self.said == self.peers == self._held.root()

    def say(self) -> bytes:
        """Ours, to be told to the peer."""
        self.said = self._held.root()
        return self.said

    def note(self, now: float) -> None:
        """Look whether they changed."""
        seen = (self.peers, self._held.root())
        if seen != self._seen:
            self._seen, self._moved = seen, now

    def have_stood_still(self, now: float, seconds: float) -> bool:
        """Whether neither has changed for so long."""
        return (self.peers, self._held.root()) == self._seen and now >= self._moved + seconds
