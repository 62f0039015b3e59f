"""What is known of one peer at present."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from meshsync.addresses import HostPort
from meshsync.core.dialing import Allowance, Aside, Backoff, Paths
from meshsync.errors import PeerError, TransportLost
from meshsync.ids import EndpointId
from meshsync.notifier import Notifier
from meshsync.transports.base import Connection

STATIC = "static"
MANUAL = "manual"
MESH = "mesh"
"""Other peers told of it."""

Outcome = bool | TransportLost | PeerError
"""What became of a try: connected, left to the peer, or why it failed."""


@dataclass(slots=True)
class Peer:
    """One peer: where it is, and the one connection with it."""

    id: EndpointId
    backoff: Backoff
    """Of the peers that the owner named."""
    aside: Aside
    """Of the others."""
    paths: Paths
    redials: Allowance
    """How often it may put a new connection in the place of a good one."""
    name: str = ""
    places: dict[str, tuple[HostPort, ...]] = field(default_factory=dict)
    """Its addresses, by how they became known: the way, or a finer name of the source."""
    knocked_from: tuple[HostPort, ...] = ()
    """Where it was when the owner accepted it: worth one try, where nothing better is known."""
    via: str = ""
    """How it was found: static, manual, accepted, or a way of discovery."""
    connection: Connection | None = None
    adopted_at: float | None = None
    """trio time when `connection` was taken."""
    since: float | None = None
    """Seconds since the epoch (UTC) when it was connected; None: nobody was told that it is."""
    dialing: trio.CancelScope | None = None
    queueing: trio.CancelScope | None = None
    """While it waits for its turn to be dialled; cancelled where it shall wait no longer."""
    next_dial: float | None = None
    """trio time of the next try."""
    tries_begun: int = 0
    tries_ended: int = 0
    outcome: Outcome = False
    """Of the last try that ended."""
    is_hurried: bool = False
    """The owner wants it to be tried at once, be it only once."""
    last_error: str | None = None
    is_pending_there: bool = False
    """The peer has yet to accept this node."""
    knocks: int = 0
    """How often this node knocked there since."""
    wanted: bool = False
    """It is dialled whenever it is not connected."""
    is_parted: bool = False
    """The owner disconnected it: it is not dialled until the owner wants it again."""
    aside_until: float | None = None
    """trio time until which a discovered peer that could not be reached takes no place among those to dial."""
    failures: int = 0
    """Tries that failed since it was connected last."""
    has_dialer: bool = False
    """A task dials it as long as it is wanted."""
    changed: Notifier = field(default_factory=Notifier)

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Where it may be, each address once; what the owner said comes first."""
        sources = dict.fromkeys([MANUAL, STATIC, *self.places])
        return tuple(dict.fromkeys(address for source in sources for address in self.places.get(source, ())))

    @property
    def is_static(self) -> bool:
        """Whether the configuration names it."""
        return STATIC in self.places

    @property
    def is_named(self) -> bool:
        """Whether the owner said where it is: then it is dialled at once and for ever, whoever else there is."""
        return bool(self.places.get(STATIC) or self.places.get(MANUAL))

    @property
    def is_discovered(self) -> bool:
        """Whether an address of it was found by itself."""
        return any(addresses for source, addresses in self.places.items() if source not in (STATIC, MANUAL))

    def learn(self, addresses: Iterable[HostPort], via: str, name: str, source: str = "") -> bool:
        """It was seen; whether at an address that was not known.

        What the owner says by hand adds up; every other source replaces what it said before.
        """
        known = self.addresses
        before = self.places.get(via, ()) if via == MANUAL else ()
        self.places[source or via] = tuple(dict.fromkeys([*addresses, *before]))
        if not self.places[source or via] and via != STATIC:
            del self.places[source or via]
        elif not (self.is_static or (self.via == MANUAL and self.is_named)):
            self.via = via
        self.via = STATIC if self.is_static else self.via
        self.name = name or self.name
        return not set(self.addresses) <= set(known)

    def unlearn_discovered(self) -> None:
        """Forget where it was found, but for what the owner said."""
        self.places = {source: places for source, places in self.places.items() if source in (STATIC, MANUAL)}

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, and the peer wants it too."""
        return self.since is not None and self.open_connection() is not None

    def open_connection(self) -> Connection | None:
        """The connection, where there is one that is not closed; the peer may yet refuse it."""
        return self.connection if self.connection is not None and not self.connection.is_closed else None

    @property
    def state(self) -> str:
        """connected, dialing, waiting, pending or down, as `status` tells it.

        Who was discovered and not chosen waits as well: it is dialled as soon as others are gone.
        """
        if self.is_connected:
            return "connected"
        if self.is_pending_there:
            return "pending"
        if self.dialing is not None or self.open_connection() is not None:
            return "dialing"
        is_spare = self.is_discovered and not self.is_parted
        return "waiting" if self.wanted or self.next_dial is not None or is_spare else "down"
