"""What a session is made of, and what others may see of it.  What it does is in `meshsync.core.session`."""

from __future__ import annotations

from collections.abc import Mapping

from meshsync.core.announcing import Announcer
from meshsync.core.asking import Asking
from meshsync.core.comparing import Roots
from meshsync.core.doubts import Doubts
from meshsync.core.holding import Holding
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.locating import Locator
from meshsync.core.logtable import OwnLogTable, PeerLogTable
from meshsync.core.messages import Open
from meshsync.core.pasts import Pasts
from meshsync.core.peerview import PeerView
from meshsync.core.pulling import Pulled, Puller
from meshsync.core.pushing import Pusher
from meshsync.core.session_events import SessionState
from meshsync.core.sieve import Sieve
from meshsync.core.wants import Wants
from meshsync.ids import EndpointId, LogId


class SessionParts:
    """The parts of one session."""

    def __init__(self, held: Holding, peer: EndpointId, tag: bytes, limits: Limits = LIMITS) -> None:
        self.held = held
        self.peer = peer
        self.limits = limits
        self.state = SessionState.IDLE
        self.stall: str | None = None
        """Why it does not go on, for people; None while it does."""
        self.last_synced: float | None = None
        self.is_lazy = False
        """Whether this side announces and does not push, and takes the peer to do the same."""
        self.suspects_fork = False
        """The peer told over a lazy link of a branch that is not here, and only a push can bring it."""
        self._tag = tag
        self._view = PeerView(held, limits)
        self._peer_open: Open | None = None
        self._roots = Roots(held)
        self._own_logs = OwnLogTable()
        self._peer_logs = PeerLogTable(limits.logs_max)
        self._locator = Locator(held, self._view, self._own_logs, self._peer_logs, limits)
        self._asking = Asking(held, peer)
        self._sieve = Sieve(held, self._view, limits)
        self._pasts = Pasts(held, peer, limits)
        self._doubts = Doubts(held, self._roots)
        self._wants = Wants(held, self._own_logs, self._peer_logs, self._sieve, self._pasts, self._doubts, limits)
        self._pusher = Pusher(held, self._view, self._own_logs, self._sieve, limits)
        self._puller = Puller(held, self._view, self._peer_logs, peer, limits)
        self._announcer = Announcer(held, self._view, self._own_logs, limits)
        self._said_whole = True
        self._said_full = False
        self._answers_checks = False
        self._silent_until = 0.0
        """Nothing is pushed before, unless the peer says something."""
        self._pulled_at_check = 0
        self._receipt: tuple[int, float] | None = None
        """The peer is to confirm all below this cursor, and is asked at this time."""
        self._receipt_is_asked = False

    # What a status shows

    @property
    def missing(self) -> int:
        """How many entries the peer said to have that are not here."""
        return self._view.missing

    @property
    def unsent(self) -> int:
        """How many entries here the peer is not known to have been sent."""
        return self._view.unsent

    @property
    def pulled(self) -> Pulled:
        """What came."""
        return self._puller.pulled

    @property
    def pushed(self) -> int:
        """How many entries were sent."""
        return self._pusher.pushed

    @property
    def is_opened(self) -> bool:
        """Whether the peer has told its tips."""
        return self._peer_open is not None

    @property
    def is_ahead(self) -> bool:
        """Whether the peer said to have an entry that is not here and would be taken."""
        return not self.held.full and self._view.is_ahead

    def lacking(self) -> dict[LogId, int]:
        """The logs of which the peer told more than is here, and up to which entry."""
        return self._view.lacking()

    def lacks(self, places: Mapping[LogId, int]) -> int:
        """How many entries up to these places are not here."""
        return self._view.lacks(places)

    @property
    def is_asking(self) -> bool:
        """Whether the peer has yet to answer for payloads that it was asked for."""
        return self._wants.is_asking

    def peer_seq(self, branch: int) -> int:
        """Up to which entry the peer is known to have a branch."""
        return self._view.known.get(branch, 0)

    @property
    def unconfirmed(self) -> bool:
        """Whether something that was sent is not yet confirmed as stored."""
        return self._pusher.unconfirmed

    @property
    def _is_whole(self) -> bool:
        """Whether every payload is here, those of the past included."""
        return self.held.complete and not self.held.superseded.count

    @property
    def _has_news(self) -> bool:
        """Whether something that only an OPEN tells is another now."""
        is_full = bool(self.held.full) is not self._said_full
        return is_full or (self._is_whole and not self._said_whole) or self._asking.is_news
