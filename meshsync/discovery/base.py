"""What a way of finding peers offers.

Nothing here dials or trusts: a sighting is a hint, and whoever is really there has to prove its identity.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from meshsync.addresses import HostPort
from meshsync.ids import EndpointId


@dataclass(frozen=True)
class Sighting:
    """Where an endpoint is said to be."""

    endpoint: EndpointId | None
    """None: an endpoint of unknown identity is said to be at each of the addresses; who it is has to be asked there."""
    addresses: tuple[HostPort, ...]
    """All that are known by this way now; none: it is gone, or its address was never known."""
    via: str
    """The `Discovery.via` that saw it."""
    name: str
    """What it is called, fit for terminals and logs; may be empty.  Without `endpoint`: what was looked up."""


class Discovery(Protocol):
    """One way of finding peers."""

    @property
    def via(self) -> str:
        """The word for it in status: static, mdns."""

    @property
    def fault(self) -> str | None:
        """Why nobody, or not everybody, can be found this way at present; None where all is well."""

    def sightings(self) -> AbstractAsyncContextManager[AsyncIterator[Sighting]]:
        """Look for peers as long as the block lasts.

        Each sighting replaces the earlier ones of its endpoint, or without one those of its name.  The iterator ends
        when nothing more can come.
        Cancelling a wait loses nothing: the next one goes on where it stopped.
        """
