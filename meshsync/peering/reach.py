"""From names and addresses to a connection: resolve, choose where to dial from, try everything."""

from __future__ import annotations

import ipaddress
import socket as stdlib_socket
from collections.abc import Iterable, Sequence

import trio

from meshsync.addresses import HostPort
from meshsync.errors import PeerError, TransportLost
from meshsync.ids import EndpointId
from meshsync.transports.base import Address, Admit, Connection, Transport


async def reach(
    transports: Sequence[Transport], id: EndpointId | None, addresses: Iterable[HostPort], admit: Admit | None = None
) -> Connection:
    """Connect to an endpoint, or without `id` to anyone, at the first address that answers and whom `admit` lets in.

    Names are resolved anew each time, and all of their records are tried.  TransportLost, PeerError: none
    answered; what the last one said.  Cancelling abandons the try.
    """
    failure: TransportLost | PeerError = TransportLost("no address is known")
    for address in addresses:
        try:
            targets = await _resolve(address)
        except TransportLost as error:
            failure = error
            continue
        for target in targets:
            candidates = _transports_for(transports, target)
            if not candidates:
                failure = TransportLost(f"{target[0]} cannot be reached from an address that this node listens on")
            for transport in candidates:
                try:
                    return await transport.dial(target, id, admit)
                except (TransportLost, PeerError) as error:
                    failure = error
    raise failure


async def _resolve(address: HostPort) -> list[Address]:
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
