"""What is known of one peer at present."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from meshsync.addresses import HostPort
from meshsync.core.dialing import Backoff
from meshsync.ids import EndpointId
from meshsync.notifier import Notifier
from meshsync.transports.base import Connection


@dataclass(slots=True)
class Peer:
    """One peer: where it is, and the one connection with it."""

    id: EndpointId
    backoff: Backoff
    name: str = ""
    addresses: tuple[HostPort, ...] = ()
    via: str = ""
    """How it was found: static, manual, accepted."""
    connection: Connection | None = None
    since: float | None = None
    """Seconds since the epoch (UTC) when it was connected."""
    dialing: trio.CancelScope | None = None
    next_dial: float | None = None
    """trio time of the next try."""
    last_error: str | None = None
    is_pending_there: bool = False
    """The peer has yet to accept this node."""
    wanted: bool = False
    """It is dialled whenever it is not connected."""
    changed: Notifier = field(default_factory=Notifier)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self.connection is not None and not self.connection.is_closed

    @property
    def state(self) -> str:
        """connected, dialing, waiting, pending or down, as `status` tells it."""
        if self.is_connected:
            return "connected"
        if self.is_pending_there:
            return "pending"
        if self.dialing is not None:
            return "dialing"
        return "waiting" if self.wanted else "down"
