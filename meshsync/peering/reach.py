"""From names and addresses to a connection: resolve, choose where to dial from, try everything.

The tries overlap, so that a dead address costs half a second and not the time after which a dial is given up (RFC
8305).  Only the first that proves its peer goes on: the others end before this node has proved itself there, so the
peer never sees two connections of one try, of which the second would take the place of the first.
"""

from __future__ import annotations

import ipaddress
import socket as stdlib_socket
from collections.abc import Iterable, Sequence

import trio

from meshsync.addresses import HostPort, is_numeric
from meshsync.core.dialing import Paths
from meshsync.core.hello import Hello
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import EndpointId
from meshsync.notifier import Notifier
from meshsync.transports.base import Address, Admit, Connection, Transport

HEAD_START_SECONDS = 0.5
"""How long a try has to succeed before the next one begins beside it."""


async def reach(
    transports: Sequence[Transport], id: EndpointId | None, addresses: Iterable[HostPort], admit: Admit, paths: Paths
) -> Connection:
    """Connect to an endpoint, or without `id` to anyone, at the first address that answers and whom `admit` lets in.

    Names are resolved anew each time, and all of their records are tried; `paths` says what became of each address.
    TransportLost, PeerError: none answered; what the most telling one said.  Cancelling abandons the try.
    """
    return await _Race(transports, id, admit, paths).run(addresses)


class _Race:
    """One try to reach one peer."""

    def __init__(self, transports: Sequence[Transport], id: EndpointId | None, admit: Admit, paths: Paths) -> None:
        self._transports = transports
        self._id = id
        self._admit = admit
        self._paths = paths
        self._known: set[Address] = set()
        self._waiting: list[tuple[Address, Transport]] = []
        """Where to, and from where; not tried yet."""
        self._resting: list[tuple[Address, Transport]] = []
        """The same for addresses that failed a moment ago."""
        self._resolving = self._running = self._ended = 0
        self._has_tried = False
        self._is_won = False
        self._connection: Connection | None = None
        self._failure: TransportLost | PeerError = TransportLost("no address is known")
        self._changed = Notifier()

    async def run(self, addresses: Iterable[HostPort]) -> Connection:
        """Try until one succeeds or none is left."""
        try:
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    self._resolving += 1
                    if is_numeric(address.host):
                        await self._resolve(address)  # which takes no time, and keeps the order
                    else:
                        nursery.start_soon(self._resolve, address)
                await self._try_all(nursery)
                nursery.cancel_scope.cancel()
        except BaseException:
            if self._connection is not None:
                self._connection.close(CloseCode.DISCONNECTED, "the dialer gave up")
            raise
        if self._connection is None:
            raise self._failure
        return self._connection

    async def _try_all(self, nursery: trio.Nursery) -> None:
        while self._connection is None:
            attempt = self._next()
            if attempt is not None:
                self._running += 1
                ended = self._ended
                nursery.start_soon(self._try, *attempt)
                with trio.move_on_after(HEAD_START_SECONDS):
                    while self._ended == ended:
                        await self._changed.wait()
            elif self._resolving or self._running:
                await self._changed.wait()
            else:
                return

    def _next(self) -> tuple[Address, Transport] | None:
        """What to try next.  An address that failed a moment ago rests, unless there is no other at all."""
        if not (self._has_tried or self._resolving or self._waiting):
            self._waiting, self._resting = self._resting, []
        if not self._waiting:
            return None
        first = self._paths.first([target for target, _ in self._waiting])
        attempt = next(attempt for attempt in self._waiting if attempt[0] == first)
        self._waiting.remove(attempt)
        self._has_tried = True
        return attempt

    async def _try(self, target: Address, transport: Transport) -> None:
        try:
            self._connection = await transport.dial(target, self._id, self._let_first_in)
            self._paths.worked(target)
        except (TransportLost, PeerError) as error:
            if not (self._is_won and error.code is CloseCode.DUPLICATE):
                self._paths.failed(target, trio.current_time())
                self._fail(error, f"{HostPort(*target)}: ")
        self._running -= 1
        self._ended += 1
        self._changed.notify()

    def _let_first_in(self, id: EndpointId, hello: Hello, address: Address, has_mesh_key: bool) -> CloseCode | None:
        """Let one connection of this try go on.  See meshsync.transports.base.Admit."""
        if self._is_won:
            return CloseCode.DUPLICATE
        code = self._admit(id, hello, address, has_mesh_key)
        self._is_won = code is None
        return code

    def _fail(self, error: TransportLost | PeerError, where: str = "") -> None:
        """Keep the most telling failure: an answer says more than silence, and the last says more than the first."""
        if _weight(error) >= _weight(self._failure):
            self._failure = type(error)(f"{where}{error}", error.code)

    async def _resolve(self, address: HostPort) -> None:
        try:
            for target in await _records(address):
                if target not in self._known:
                    self._known.add(target)
                    self._add(target)
        except TransportLost as error:
            self._fail(error)
        self._resolving -= 1
        self._changed.notify()

    def _add(self, target: Address) -> None:
        transports = _transports_for(self._transports, target)
        if not transports:
            self._fail(TransportLost(f"{target[0]} cannot be reached from an address that this node listens on"))
        attempts = self._resting if self._paths.is_resting(target, trio.current_time()) else self._waiting
        attempts += [(target, transport) for transport in transports]


def _weight(error: TransportLost | PeerError) -> int:
    if isinstance(error, PeerError):
        return 2
    return 1 if error.code not in (CloseCode.LOST, CloseCode.TIMEOUT) else 0


async def _records(address: HostPort) -> list[Address]:
    try:
        records = await trio.socket.getaddrinfo(address.host, address.port, type=stdlib_socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: no form in IDNA
        reason = error.strerror if isinstance(error, OSError) else None
        raise TransportLost(f"{address.host} cannot be resolved: {reason or error}") from None
    found = (_numeric(record[4]) for record in records)
    targets = list(dict.fromkeys(target for target in found if target is not None))
    if not targets:
        raise TransportLost(f"{address.host} has no address")
    return targets


def _numeric(sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> Address | None:
    """The address of a record; None where the system has no IPv6 and says so in its own way."""
    host, port = sockaddr[0], sockaddr[1]
    if not isinstance(host, str) or not isinstance(port, int):
        return None
    if len(sockaddr) == 4 and sockaddr[3] and "%" not in host:
        host = f"{host}%{sockaddr[3]}"
    return host, port


def _transports_for(transports: Sequence[Transport], target: Address) -> list[Transport]:
    """The transports from which a target can be reached; a socket bound to loopback reaches nothing else."""
    host = ipaddress.ip_address(target[0].partition("%")[0])
    found = []
    for transport in transports:
        own = ipaddress.ip_address(transport.address[0].partition("%")[0])
        fits = own.version == host.version or (own.is_unspecified and own.version == 6)
        if fits and (own.is_unspecified or own.is_loopback == host.is_loopback):
            found.append(transport)
    return found
