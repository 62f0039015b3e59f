"""Multicast on the network of a topology: nodes announce themselves to those on a segment with them, as by mDNS."""

from __future__ import annotations

import random
from dataclasses import replace

from meshsync.addresses import DEFAULT_PORT, HostPort
from meshsync.discovery.base import Sighting
from meshsync.ids import EndpointId
from meshsync.lab.simulation.network import Network
from meshsync.lab.simulation.station import Station

_ANNOUNCEMENT_BYTES = 300


class Segments:
    """All segments of a network.  See `meshsync.lab.simulation.station.Medium`."""

    again_seconds = 20.0
    keep_seconds = 75.0
    """mDNS keeps addresses for 120 s."""

    def __init__(self, network: Network, rng: random.Random) -> None:
        self.network = network
        self.rng = rng
        self._stations: dict[str, Station] = {}

    def station(self, host: str, id: EndpointId) -> Station:
        """A host's way of finding the others, for one start of its node."""
        addresses = tuple(HostPort(one, DEFAULT_PORT) for one in self.network.addresses(host))
        return Station(self, host, Sighting(id, addresses, Station.via, host))

    def join(self, station: Station) -> None:
        """See `Medium.join`."""
        self._stations[station.host] = station

    def leave(self, station: Station) -> None:
        """See `Medium.leave`.  What others say goes on to take up the links to its host, whoever listens there."""

    def announce(self, station: Station) -> None:
        """See `Medium.announce`.  Each hears of the addresses that are on a segment with it."""
        said = station.sighting
        for other in self._stations.values():
            if other is station:
                continue
            near = tuple(one for one in said.addresses if self.network.reaches(other.host, one.host))
            for address in self.network.addresses(other.host):
                carried = self.network.carry(station.host, address, _ANNOUNCEMENT_BYTES)
                for due in carried[1] if carried is not None else ():
                    other.hear(replace(said, addresses=near), due)
