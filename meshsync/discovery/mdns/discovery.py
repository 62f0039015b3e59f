"""The part of mDNS in trio: one session of zeroconf after the other, and what they see."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import structlog
import trio

from meshsync.addresses import HostPort
from meshsync.core.limits import LIMITS, Limits
from meshsync.discovery.advert import Advert, mesh_hint
from meshsync.discovery.base import Sighting
from meshsync.discovery.board import Board
from meshsync.discovery.mdns.heard import VIA
from meshsync.discovery.mdns.station import Sites, Station, ZeroconfError
from meshsync.groups import beside
from meshsync.ids import EndpointId
from meshsync.interfaces import Interface, Interfaces

_log = structlog.get_logger("meshsync.mdns")


class MdnsDiscovery:
    """Announces this node and sees others, as long as a block of `sightings` lasts."""

    via = VIA

    def __init__(
        self,
        id: EndpointId,
        name: str,
        listen: Iterable[HostPort],
        interfaces: Interfaces,
        *,
        mesh_key: bytes | None = None,
        is_known: Callable[[EndpointId], bool] = lambda _: False,
        rng: random.Random,
        limits: Limits = LIMITS,
    ) -> None:
        """Announce that `id` listens at `listen`, through the interfaces that are chosen.

        With a `mesh_key` only those are seen who hold it too, without only those who need none, and in any case those
        whom the owner named or accepted: `is_known` says so at every announcement, in a thread of its own.
        """
        self.fault: str | None = None
        """See `Discovery.fault`."""
        self._advert = Advert(id, name, mesh_hint(mesh_key, id) if mesh_key is not None else "")
        self._listen = tuple(listen)
        self._interfaces = interfaces
        self._mesh_key = mesh_key
        self._is_known = is_known
        self._rng = rng
        self._limits = limits

    @asynccontextmanager
    async def sightings(self) -> AsyncIterator[AsyncIterator[Sighting]]:
        """See `Discovery.sightings`.  Without multicast nobody is seen, and the log says why."""
        board = Board()
        async with beside(partial(self._keep_trying, board)):
            yield board

    async def _keep_trying(self, board: Board) -> None:
        limits = self._limits
        pause = limits.mdns_retry_seconds
        said = ""
        while True:
            began = trio.current_time()
            try:
                await self._session(board)
            except (OSError, ZeroconfError) as error:
                reason = _in_words(error)
                self.fault = f"peers on the local network cannot be found: {reason}"
                if reason != said:
                    _log.warning(f"{self.fault}; trying again")
                said = reason
            if trio.current_time() - began > limits.mdns_retry_seconds_max:
                pause = limits.mdns_retry_seconds
            with trio.move_on_after(self._rng.uniform(pause / 2, pause)):
                await self._interfaces.changed.wait()
            pause = min(2 * pause, limits.mdns_retry_seconds_max)

    async def _session(self, board: Board) -> None:
        """Run zeroconf until it fails or this is cancelled; both end its thread."""
        told: dict[EndpointId | None, Sighting] = {}

        def tell(sighting: Sighting) -> None:
            told[sighting.endpoint] = sighting
            board.post(sighting)

        token = trio.lowlevel.current_trio_token()

        def post(sighting: Sighting) -> None:
            token.run_sync_soon(tell, sighting)

        rng = random.Random(self._rng.random())
        station = Station(self._advert, self._sites(), self._is_wanted, post, rng, self._limits)
        failure: OSError | ZeroconfError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, station)
            nursery.start_soon(self._recover)
            try:
                await trio.to_thread.run_sync(station.run, thread_name="meshsync mdns", limiter=trio.CapacityLimiter(1))
            except (OSError, ZeroconfError) as error:
                failure = error  # raised below: out of the nursery it would come in a group
            finally:
                nursery.cancel_scope.cancel()
                # The next session begins with nothing, and would not notice that somebody left in between.
                for sighting in told.values():
                    board.post(replace(sighting, addresses=()))
        if failure is not None:
            raise failure

    async def _recover(self) -> None:
        """A session that lasts works: what hinders one shows at its beginning."""
        await trio.sleep(self._limits.mdns_retry_seconds)
        self.fault = None

    async def _follow(self, station: Station) -> None:
        """Tell the station of every change, and in the end to end."""
        try:
            while True:
                station.use(self._sites())
                await self._interfaces.changed.wait()
        finally:
            station.stop()

    def _is_wanted(self, advert: Advert) -> bool:
        expected = mesh_hint(self._mesh_key, advert.id) if self._mesh_key is not None else ""
        return advert.mesh == expected or self._is_known(advert.id)

    def _sites(self) -> Sites:
        has_ipv6 = any(":" in address.host for address in self._listen)
        chosen = self._interfaces.chosen
        ports: dict[int, list[str]] = {}
        for address in self._listen:
            ports.setdefault(address.port, []).append(address.host)
        count = self._limits.addresses_per_sighting_max
        return Sites(
            tuple((one.index, _senders(one, has_ipv6=has_ipv6)) for one in chosen),
            tuple((port, self._interfaces.reachable_at(hosts, count)) for port, hosts in ports.items()),
            has_ipv6=has_ipv6,
            has_loopback=any(one.is_loopback for one in chosen),
        )


def _senders(interface: Interface, *, has_ipv6: bool) -> tuple[str | int, ...]:
    ipv4 = tuple(text for text in interface.addresses if ":" not in text)
    return (*ipv4, interface.index) if has_ipv6 and len(ipv4) < len(interface.addresses) else ipv4


def _in_words(error: Exception) -> str:
    """What is wrong, for an owner."""
    if isinstance(error, OSError):
        if error.errno == errno.EADDRINUSE:
            return "port 5353/udp belongs to a program that does not share it"
        if error.errno in {errno.EPERM, errno.EACCES}:
            return "the system does not permit multicast"
        return error.strerror or str(error)
    return str(error) or type(error).__name__
