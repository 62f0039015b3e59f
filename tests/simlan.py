"""Discovery on a simulated network that a seed determines: multicast with delays, losses, duplicates and stale records.

Every machine announces itself, hears the others, and forgets whom it has not heard of for too long.  What parts two
machines parts their announcements too.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import trio

from meshsync.addresses import HostPort
from meshsync.discovery.base import Sighting
from meshsync.ids import EndpointId
from meshsync.lab.simulation.station import Station
from tests.simnet import SimNet


@dataclass
class SimLan:
    """A `Medium` of stations; probabilities from 0 to 1, change them at any time."""

    rng: random.Random
    net: SimNet
    delay_seconds: float = 0.5
    """At most; each announcement and listener draws anew, so they overtake each other."""
    loss: float = 0.0
    duplication: float = 0.0
    again_seconds: float = 45.0
    keep_seconds: float = 120.0
    stale: list[Sighting] = field(default_factory=list)
    """What somebody keeps on announcing although nobody is there any more."""
    stations: list[Station] = field(default_factory=list)

    def discovery(self, id: EndpointId, address: HostPort, name: str = "") -> Station:
        """A machine's way of finding the others, for one start of its node."""
        return Station(self, address.host, Sighting(id, (address,), Station.via, name))

    def send(self, source: str, sighting: Sighting) -> None:
        """Let all who hear `source` hear of a sighting."""
        for station in self.stations:
            if station.host == source or self.rng.random() < self.loss:
                continue
            if self.net.is_cut(source, station.host):
                continue
            for _ in range(2 if self.rng.random() < self.duplication else 1):
                station.hear(sighting, trio.current_time() + self.rng.uniform(0, self.delay_seconds))

    def join(self, station: Station) -> None:
        """See `Medium.join`."""
        self.stations.append(station)

    def leave(self, station: Station) -> None:
        """See `Medium.leave`.  Whoever was not killed says goodbye."""
        self.stations.remove(station)
        if not station.is_dead:
            self.send(station.host, replace(station.sighting, addresses=()))

    def announce(self, station: Station) -> None:
        """See `Medium.announce`."""
        self.send(station.host, station.sighting)
        for sighting in self.stale:
            self.send("", sighting)
