"""What this side told a peer that it wants, and whether the peer has named all of it."""

from __future__ import annotations

from meshsync.core.history import History
from meshsync.core.holding import Holding
from meshsync.core.messages import Match
from meshsync.errors import PeerError
from meshsync.ids import EndpointId


class Asking:
    """For one peer."""

    def __init__(self, held: Holding, peer: EndpointId) -> None:
        self._held = held
        self._peer = peer
        self._said: bytes | None = None
        self._said_history = History.FULL
        self._since = 0
        """The round of ours in which the peer was told that first, or has to be told it once more."""
        self._named = -1
        """The last round of ours in which the peer has named all that matches there."""

    @property
    def _query(self) -> bytes | None:
        return None if self._held.interest is None else self._held.interest.encoded

    @property
    def is_news(self) -> bool:
        """Whether the peer has yet to be told what is wanted."""
        return self._query != self._said or self._held.history is not self._said_history

    @property
    def is_answered(self) -> bool:
        """Whether the peer knows what is wanted, and has named all that matches there."""
        return not self.is_news and (self._said is None or self._named >= self._since)

    def say(self, number: int) -> None:
        """The OPEN with this round tells it."""
        self._said_history = self._held.history
        if self._query != self._said:
            self._said, self._since = self._query, number

    def left_out(self, number: int) -> None:
        """Something that came in this round was not stored: the peer takes it that the payloads in it are here."""
        self._since = max(number + 1, self._since)
        self.forget()

    def forget(self) -> None:
        """The peer has to name everything again, the next time that it is told what is wanted."""
        if self._held.interest is not None:
            self._held.interest.set_bookmark(self._peer, None)

    def named(self, message: Match, last: int) -> None:
        """The peer named documents that match there.  PeerError: it answers an OPEN after `last`, the last one."""
        if message.round > last:
            raise PeerError("a MATCH answers an OPEN that was never sent")
        if self._held.interest is not None:
            self._held.interest.named(message.tags)
            if message.is_complete:
                self._named = max(message.round, self._named)
                if self.is_answered and message.bookmark is not None:
                    self._held.interest.set_bookmark(self._peer, message.bookmark)
