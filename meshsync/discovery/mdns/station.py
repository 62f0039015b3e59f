"""zeroconf in a thread of its own: what this node announces and asks, and where."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket as stdlib_socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, Zeroconf
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from meshsync.core.limits import Limits
from meshsync.discovery.advert import Advert
from meshsync.discovery.base import Sighting
from meshsync.discovery.mdns._seam import DNSOutgoing, DNSQuestion
from meshsync.discovery.mdns.heard import SERVICE, Heard
from meshsync.groups import unwrapped

PORT = 5353
_PTR, _IN = 12, 1  # RFC 1035 section 3.2
_QUERY = 0
_QUESTIONS_AFTER_SECONDS = (0.0, 1.0, 3.0)
"""When to ask who is there after an interface came up (RFC 6762 section 5.2); later, announcements tell."""
_REQUEST_MS = 3000

__all__ = ["NOWHERE", "Sites", "Station", "ZeroconfError"]


@dataclass(frozen=True)
class Sites:
    """Where to send, and what to announce."""

    senders: tuple[tuple[int, tuple[str | int, ...]], ...]
    """Of each interface its index, and what zeroconf wants: each IPv4 address, and the index once more for IPv6."""
    places: tuple[tuple[int, tuple[str, ...]], ...]
    """The ports and the addresses at which this node is to be found."""
    has_ipv6: bool
    has_loopback: bool

    @property
    def interfaces(self) -> list[str | int]:
        """The interfaces as zeroconf takes them."""
        return [sender for _, senders in self.senders for sender in senders]


NOWHERE = Sites((), (), has_ipv6=False, has_loopback=False)


class Station:
    """One session of zeroconf.  `run` is called in a thread, `use` and `stop` from outside of it."""

    def __init__(
        self,
        advert: Advert,
        sites: Sites,
        is_wanted: Callable[[Advert], bool],
        post: Callable[[Sighting], object],
        rng: random.Random,
        limits: Limits,
    ) -> None:
        self._advert = advert
        self._wanted = sites
        self._post = post
        self._rng = rng
        self._limits = limits
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._news = asyncio.Event()
        self._heard = Heard(advert.id, is_wanted, self._news.set, limits)
        self._sites = NOWHERE
        self._services: dict[str, AsyncServiceInfo] = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._broadcasts: list[asyncio.Future[Any]] = []
        """Announcements that zeroconf is repeating (RFC 6762 section 8.3)."""

    def use(self, sites: Sites) -> None:
        """Send and announce there from now on."""
        self._wanted = sites
        self._wake()

    def stop(self) -> None:
        """Say goodbye and end."""
        self._is_stopping = True
        self._wake()

    def _wake(self) -> None:
        # Without a loop it has yet to begin and will look by itself; with a closed one it has ended.
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._woken.set)

    def run(self) -> None:
        """Announce and listen until `stop`.  OSError, ZeroconfError: it cannot be done at present."""
        with unwrapped():
            asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        _check_port()
        zeroconf = _open_zeroconf(has_ipv6=self._wanted.has_ipv6)
        try:
            await zeroconf.zeroconf.async_wait_for_start()
            zeroconf.zeroconf.async_add_listener(self._heard, None)
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(one(zeroconf.zeroconf)) for one in (self._announce_again, self._listen)]
                await self._follow_sites(zeroconf, group)
                # An announcement that is repeated after the goodbye would undo it.
                for task in [*helpers, *self._requests, *self._broadcasts]:
                    task.cancel()
        finally:
            await zeroconf.async_close()

    # Where, and what is announced there

    async def _follow_sites(self, zeroconf: AsyncZeroconf, group: asyncio.TaskGroup) -> None:
        """Send where `use` said last, until `stop`."""
        asking: asyncio.Task[None] | None = None
        pause = self._limits.mdns_retry_seconds
        while not self._is_stopping:
            self._woken.clear()
            if self._wanted != self._sites:
                if asking is not None:
                    asking.cancel()
                await self._move(zeroconf, self._wanted)
                asking = group.create_task(_ask(zeroconf.zeroconf))
                pause = self._limits.mdns_retry_seconds
            # An address that the system is still checking (RFC 4862 section 5.4) cannot be used at once.
            is_whole = len(zeroconf.zeroconf.engine.senders) >= len(self._sites.interfaces)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if is_whole else pause):
                    await self._woken.wait()
            if not is_whole and not self._woken.is_set():
                pause = min(2 * pause, self._limits.mdns_retry_seconds_max)
                await zeroconf.async_update_interfaces(self._sites.interfaces)
        if asking is not None:
            asking.cancel()

    async def _move(self, zeroconf: AsyncZeroconf, sites: Sites) -> None:
        for number, (port, addresses) in enumerate(sites.places):
            if addresses:
                await self._announce(zeroconf, number, port, addresses)
        # An interface that went and came back with its address has lost its membership in the group.  zeroconf knows
        # it by the address and would see no difference.
        before = {sender: index for index, senders in self._sites.senders for sender in senders}
        moved = {one for index, senders in sites.senders for one in senders if before.get(one, index) != index}
        if moved:
            await zeroconf.async_update_interfaces([one for one in self._sites.interfaces if one not in moved])
        self._sites = sites
        self._heard.takes_loopback = sites.has_loopback
        await zeroconf.async_update_interfaces(sites.interfaces)
        if sites.interfaces and not zeroconf.zeroconf.engine.senders:
            raise OSError(errno.ENETUNREACH, "none of the chosen interfaces takes multicast")

    async def _announce(self, zeroconf: AsyncZeroconf, number: int, port: int, addresses: tuple[str, ...]) -> None:
        label = f"{self._advert.label}-{number}" if number else self._advert.label
        service = AsyncServiceInfo(
            SERVICE,
            f"{label}.{SERVICE}",
            port=port,
            properties=self._advert.txt(),
            server=f"{label}.local.",
            parsed_addresses=list(addresses),
            host_ttl=self._limits.mdns_ttl_seconds,
            other_ttl=self._limits.mdns_ttl_seconds,
        )
        known = self._services.get(label)
        self._services[label] = service
        if known is None:
            # Without asking first whether the name is taken: by the id in it, it is nobody else's, and whoever
            # claimed it could keep this node from being found.
            broadcast = await zeroconf.async_register_service(service, cooperating_responders=True)
        elif known.addresses != service.addresses or known.port != port:
            broadcast = await zeroconf.async_update_service(service)
        else:
            return
        self._broadcasts = [one for one in self._broadcasts if not one.done()]
        self._broadcasts.append(asyncio.ensure_future(broadcast))

    async def _announce_again(self, zeroconf: Zeroconf) -> None:
        """Repeat what was announced: a switch in between may have been off, and nobody asks later on."""
        while True:
            await asyncio.sleep(self._limits.mdns_announce_seconds * self._rng.uniform(0.75, 1.25))
            for service in self._services.values():
                zeroconf.async_send(zeroconf.generate_service_broadcast(service, None))

    # What others announce

    async def _listen(self, zeroconf: Zeroconf) -> None:
        """Look at what was heard, every now and then, and tell of it."""
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._heard.next_end):
                    await self._news.wait()
            await asyncio.sleep(self._limits.mdns_settle_seconds)
            self._news.clear()
            for service in self._heard.look(zeroconf, loop.time()):
                if len(self._requests) < self._limits.mdns_requests_max:
                    task = loop.create_task(self._request(zeroconf, service))
                    self._requests.add(task)
                    task.add_done_callback(self._requests.discard)
            for sighting in self._heard.changes():
                self._post(sighting)

    async def _request(self, zeroconf: Zeroconf, service: AsyncServiceInfo) -> None:
        """Ask for what is missing; the answer is heard like everything else."""
        if await service.async_request(zeroconf, _REQUEST_MS):
            self._heard.touch(service.name)


async def _ask(zeroconf: Zeroconf) -> None:
    """Ask who is there."""
    for seconds in _QUESTIONS_AFTER_SECONDS:
        await asyncio.sleep(seconds)
        question = DNSOutgoing(_QUERY)
        question.add_question(DNSQuestion(SERVICE, _PTR, _IN))
        zeroconf.async_send(question)


def _check_port() -> None:
    """OSError: zeroconf could not listen.  Where it finds out by itself it leaves an open socket behind."""
    with stdlib_socket.socket(stdlib_socket.AF_INET, stdlib_socket.SOCK_DGRAM) as probe:
        for name in ("SO_REUSEADDR", "SO_REUSEPORT"):
            if hasattr(stdlib_socket, name):
                probe.setsockopt(stdlib_socket.SOL_SOCKET, getattr(stdlib_socket, name), 1)
        probe.bind(("", PORT))


def _open_zeroconf(*, has_ipv6: bool) -> AsyncZeroconf:
    """zeroconf, on no interface yet."""
    if has_ipv6:
        with contextlib.suppress(OSError):  # a system without IPv6
            return AsyncZeroconf(interfaces=[], ip_version=IPVersion.All)
    return AsyncZeroconf(interfaces=[], ip_version=IPVersion.V4Only)
