"""Peers that a name stands for: Kubernetes' headless services, and zones of fleets (RFC 1035, RFC 2782).

    _meshsync._udp.NAME  TXT  "HEX@HOST:PORT"     an endpoint and an address of it; any number of records
    _meshsync._udp.NAME  SRV  0 0 PORT TARGET     and at TARGET  TXT  "id=HEX", where it is known who is there
    NAME                 A, AAAA                  where nothing of that is there: somebody is at each address

A server that is silent or broken changes nothing: what was known stays.  Only an answer that there is nothing does.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio
from dns.asyncresolver import Resolver
from dns.exception import DNSException
from dns.rdatatype import RdataType
from dns.rdtypes.IN.SRV import SRV
from dns.rdtypes.txtbase import TXTBase
from dns.resolver import NXDOMAIN, Answer

from meshsync.addresses import DnsName, HostPort, PeerAddress, parse_peer
from meshsync.core.limits import LIMITS, Limits
from meshsync.discovery.base import Sighting
from meshsync.discovery.board import Board
from meshsync.errors import LocalError, PeerError
from meshsync.groups import beside
from meshsync.ids import EndpointId

_log = structlog.get_logger("meshsync.dns")

SERVICE = "_meshsync._udp"


@dataclass
class Found:
    """What the records under one name say."""

    ttl: float
    """For how many seconds, before bounds."""
    peers: dict[EndpointId, dict[HostPort, None]] = field(default_factory=dict)
    strangers: dict[HostPort, None] = field(default_factory=dict)
    """Addresses of which it is not said who is there."""

    def add(self, id: EndpointId, address: HostPort, limits: Limits) -> None:
        """Take an address, within bounds."""
        if id in self.peers or len(self.peers) < limits.sightings_max:
            addresses = self.peers.setdefault(id, {})
            if len(addresses) < limits.addresses_per_sighting_max:
                addresses[address] = None

    def sightings(self, via: str, name: str, own: EndpointId, limits: Limits) -> Iterator[Sighting]:
        """As others are told of it."""
        for id, addresses in self.peers.items():
            if id != own:
                yield Sighting(id, tuple(addresses), via, "")
        if self.strangers:
            yield Sighting(None, tuple(self.strangers)[: limits.sightings_max], via, name)


class DnsDiscovery:
    """Looks names up again and again, as long as a block of `sightings` lasts."""

    via = "dns"

    def __init__(
        self,
        own: EndpointId,
        names: Iterable[DnsName],
        *,
        rng: random.Random,
        limits: Limits = LIMITS,
        resolver: Callable[[], Resolver] = Resolver,
    ) -> None:
        """`resolver` makes one from the system's settings at each look, because those change with the network."""
        self._own = own
        self._names = tuple(names)
        self._rng = rng
        self._limits = limits
        self._resolver = resolver
        self._faults: dict[DnsName, str] = {}

    @property
    def fault(self) -> str | None:
        """See `Discovery.fault`."""
        return "; ".join(self._faults.values()) or None

    @asynccontextmanager
    async def sightings(self) -> AsyncIterator[AsyncIterator[Sighting]]:
        """See `Discovery.sightings`."""
        told = _Told(Board())
        async with beside(*(partial(self._follow, name, told) for name in self._names)):
            yield told.board

    async def _follow(self, name: DnsName, told: _Told) -> None:
        limits = self._limits
        retry = limits.dns_retry_seconds
        said = ""
        while True:
            try:
                found = await self._look(name)
            except (DNSException, OSError) as error:
                reason = str(error) or type(error).__name__
                self._faults[name] = f"{name} cannot be looked up: {reason}"
                if type(error).__name__ != said:
                    _log.warning(f"{self._faults[name]}; trying again", kept=told.count(name))
                said = type(error).__name__
                pause, retry = retry, min(2 * retry, limits.dns_refresh_seconds_max)
            else:
                self._faults.pop(name, None)
                told.replace(name, list(found.sightings(self.via, str(name), self._own, limits)))
                pause = min(max(found.ttl, limits.dns_refresh_seconds_min), limits.dns_refresh_seconds_max)
                retry, said = limits.dns_retry_seconds, ""
            # Never later than the records say, and not all nodes of a fleet in the same moment.
            await trio.sleep(self._rng.uniform(pause / 2, pause))

    async def _look(self, name: DnsName) -> Found:
        """Ask for everything once.  DNSException, OSError: no answer."""
        resolver = self._resolver()
        found = Found(self._limits.dns_refresh_seconds_max)
        for text in await self._texts(resolver, f"{SERVICE}.{name.host}", found):
            try:
                peer = parse_untrusted_record(text)
            except PeerError as error:
                _log.debug("a TXT record is not understood", name=str(name), reason=str(error))
                continue
            found.add(peer.id, peer.address, self._limits)
        services = list(await self._ask(resolver, f"{SERVICE}.{name.host}", RdataType.SRV, found))
        for service in services[: self._limits.dns_targets_max]:
            if isinstance(service, SRV) and service.port:
                await self._take_target(resolver, service, found)
        if not found.peers and not found.strangers:
            for kind in (RdataType.A, RdataType.AAAA):
                for record in await self._ask(resolver, name.host, kind, found):
                    found.strangers[HostPort(str(record), name.port)] = None
        if not found.peers and not found.strangers:
            found.ttl = self._limits.dns_absent_seconds
        return found

    async def _take_target(self, resolver: Resolver, service: SRV, found: Found) -> None:
        host = service.target.to_text(omit_final_dot=True).lower()
        if host in {"", "."}:
            return  # RFC 2782: decidedly not available
        address = HostPort(host, service.port)
        ids = [text.removeprefix("id=") for text in await self._texts(resolver, f"{host}.", found) if text[:3] == "id="]
        if not ids:
            found.strangers[address] = None
        for id in ids[:1]:
            try:
                found.add(EndpointId.parse(id.lower()), address, self._limits)
            except LocalError as error:
                _log.debug("an id is not understood", target=host, reason=str(error))

    async def _texts(self, resolver: Resolver, name: str, found: Found) -> list[str]:
        records = await self._ask(resolver, name, RdataType.TXT, found)
        return [b"".join(one.strings).decode(errors="replace") for one in records if isinstance(one, TXTBase)]

    async def _ask(self, resolver: Resolver, name: str, kind: RdataType, found: Found) -> Answer | tuple[()]:
        """The records of a kind; none where there are none.  DNSException, OSError: no answer."""
        try:
            answer = await resolver.resolve(
                name, kind, raise_on_no_answer=False, search=True, lifetime=self._limits.dns_answer_seconds_max
            )
        except NXDOMAIN:
            return ()
        if answer.rrset is None:
            return ()
        found.ttl = min(found.ttl, answer.rrset.ttl)
        return answer


def parse_untrusted_record(text: str) -> PeerAddress:
    """Read HEX@HOST:PORT out of a TXT record.  PeerError: it is something else."""
    try:
        return parse_peer(text)
    except LocalError as error:
        raise PeerError(str(error)) from None


class _Told:
    """What each name gave, and what was told of it; two names may tell of one endpoint."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._by_name: dict[DnsName, list[Sighting]] = {}
        self._told: dict[EndpointId | str, Sighting] = {}

    def count(self, name: DnsName) -> int:
        return len(self._by_name.get(name, ()))

    def replace(self, name: DnsName, sightings: list[Sighting]) -> None:
        """A name gives these now."""
        self._by_name[name] = sightings
        found: dict[EndpointId | str, Sighting] = {}
        for sighting in (one for each in self._by_name.values() for one in each):
            key = sighting.endpoint if sighting.endpoint is not None else sighting.name
            known = found.get(key)
            merged = known.addresses if known is not None else ()
            addresses = tuple(dict.fromkeys(merged + sighting.addresses))
            found[key] = Sighting(sighting.endpoint, addresses, sighting.via, sighting.name)
        for key, sighting in self._told.items():
            if key not in found:
                self.board.post(Sighting(sighting.endpoint, (), sighting.via, sighting.name))
        for key, sighting in found.items():
            if self._told.get(key) != sighting:
                self.board.post(sighting)
        self._told = found
