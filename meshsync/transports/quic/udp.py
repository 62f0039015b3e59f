"""One UDP socket: datagrams in batches, with the kernel's segmentation offload where it has it.

The simulated network plugs in here: whatever satisfies DatagramSocket carries an endpoint.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket as stdlib_socket
import struct
from collections.abc import Iterator, Sequence
from typing import Protocol

import trio

from meshsync.errors import LocalError
from meshsync.transports.base import Address

Datagram = tuple[bytes, Address]
_Ancillary = tuple[int, int, bytes]

# linux/in.h, linux/in6.h and linux/udp.h; Python's socket module has no names for them.
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_PROBE = 3
_IP_PKTINFO = 8
_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104
_SEGMENTS_MAX = 64  # UDP_MAX_SEGMENTS before Linux 6.9
_UDP_PAYLOAD_MAX = 65_507  # an IPv4 packet of 65535 bytes less its headers

_BUFFER_BYTES = 4 * 1024 * 1024  # asked of the kernel, which may grant less
_RECEIVES_PER_BATCH = 16  # so that a flood cannot keep the receiver from its other work
_ANCILLARY_BYTES = 128
_PEERS_REMEMBERED_MAX = 4096


class DatagramSocket(Protocol):
    """What an endpoint needs of a socket."""

    @property
    def address(self) -> Address:
        """Where it is bound."""

    def send(self, datagrams: Sequence[bytes], address: Address) -> int:
        """Send without waiting and return how many were taken; fewer than all means: `wait_sendable`, then the rest.

        Datagrams that the system refuses count as taken: to the protocol above they are lost packets.
        """

    async def wait_sendable(self) -> None:
        """Wait until `send` may take more."""

    async def receive(self) -> list[Datagram]:
        """Wait for datagrams and return some, at least one.  trio.ClosedResourceError: the socket is closed."""

    def close(self) -> None:
        """Close; a waiting `receive` fails."""


def is_loopback(address: Address) -> bool:
    """Whether datagrams to `address` stay on this machine."""
    return ipaddress.ip_address(address[0].partition("%")[0]).is_loopback


class UdpSocket:
    """A DatagramSocket of the operating system."""

    def __init__(self, socket: stdlib_socket.socket, *, offload: bool = True) -> None:
        """Take over a bound UDP socket.  Without `offload` each datagram costs one system call."""
        self._socket = socket
        self._is_ipv6 = socket.family == stdlib_socket.AF_INET6
        self._segments = offload and _can_segment(socket)
        self._is_drained = True
        self._scratch = bytearray(65_536)
        self._view = memoryview(self._scratch)
        socket.setblocking(False)
        for option in (stdlib_socket.SO_RCVBUF, stdlib_socket.SO_SNDBUF):
            with contextlib.suppress(OSError):
                socket.setsockopt(stdlib_socket.SOL_SOCKET, option, _BUFFER_BYTES)
        if offload:
            with contextlib.suppress(OSError):
                socket.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        _forbid_fragments(socket)
        # A socket bound to every address of a host with several would answer from whichever the routes prefer, and
        # a peer takes packets only from where it sent its own (RFC 9000 section 9).  So answers leave from there.
        self._answers_from: dict[Address, _Ancillary] = {}
        if ipaddress.ip_address(self.address[0].partition("%")[0]).is_unspecified:
            level, option = (
                (stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_RECVPKTINFO)
                if self._is_ipv6
                else (stdlib_socket.IPPROTO_IP, _IP_PKTINFO)
            )
            with contextlib.suppress(OSError):
                socket.setsockopt(level, option, 1)

    @property
    def address(self) -> Address:
        """Where the socket is bound."""
        return self._from_system(self._socket.getsockname())

    def send(self, datagrams: Sequence[bytes], address: Address) -> int:
        """Send without waiting; see DatagramSocket."""
        target = self._to_system(address)
        source = self._answers_from.get(address)
        ancillary = [] if source is None else [source]
        taken = 0
        for run in _runs_of_equal_size(datagrams) if self._segments else ([datagram] for datagram in datagrams):
            try:
                self._send_run(run, ancillary, target)
            except BlockingIOError:
                return taken
            taken += len(run)
        return taken

    async def wait_sendable(self) -> None:
        """Wait until the system's send buffer has room."""
        await trio.lowlevel.wait_writable(self._socket.fileno())

    async def receive(self) -> list[Datagram]:
        """Return what has arrived; see DatagramSocket."""
        # What was seen empty is waited for at once; what was not still has to let others run.
        if self._is_drained:
            await self._wait_readable()
        else:
            await trio.lowlevel.checkpoint()
        while not (batch := self._receive_nowait()):
            await self._wait_readable()
        return batch

    def close(self) -> None:
        """Close the socket.  Idempotent."""
        if self._socket.fileno() < 0:
            return
        with contextlib.suppress(RuntimeError):  # outside of trio nobody waits
            trio.lowlevel.notify_closing(self._socket.fileno())
        self._socket.close()

    def _send_run(self, run: Sequence[bytes], ancillary: list[_Ancillary], target: tuple[str, int]) -> None:
        if len(run) > 1:
            segment = struct.pack("H", len(run[0]))
            try:
                self._socket.sendmsg(run, [*ancillary, (_SOL_UDP, _UDP_SEGMENT, segment)], 0, target)
            except BlockingIOError:
                raise
            except OSError as error:
                # EIO: this device cannot cut.  Anything else may be about these datagrams; one by one will tell.
                self._segments = error.errno != errno.EIO
            else:
                return
        for datagram in run:
            try:
                if ancillary:
                    self._socket.sendmsg([datagram], ancillary, 0, target)
                else:
                    self._socket.sendto(datagram, target)
            except BlockingIOError:
                raise
            except OSError:
                self._answers_from.clear()  # perhaps one of our addresses is gone; what comes in will tell

    async def _wait_readable(self) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this socket is closed")
        await trio.lowlevel.wait_readable(self._socket.fileno())

    def _receive_nowait(self) -> list[Datagram]:
        batch: list[Datagram] = []
        self._is_drained = False
        for _ in range(_RECEIVES_PER_BATCH):
            try:
                size, ancillary, _, source = self._socket.recvmsg_into([self._scratch], _ANCILLARY_BYTES)
            except BlockingIOError:
                self._is_drained = True
                break
            except OSError:
                continue  # an earlier datagram could not be delivered: a lost packet
            address = self._from_system(source)
            segment = size
            for level, kind, data in ancillary:
                if level == _SOL_UDP and kind == _UDP_GRO:
                    segment = struct.unpack_from("i", data)[0]
                else:
                    self._note_target(level, kind, data, address)
            batch.extend(
                (bytes(self._view[start : min(start + segment, size)]), address)
                for start in range(0, size, segment or 1)
            )
        return batch

    def _note_target(self, level: int, kind: int, data: bytes, peer: Address) -> None:
        """Remember which of our addresses a peer sends to."""
        if level == stdlib_socket.IPPROTO_IPV6 and kind == stdlib_socket.IPV6_PKTINFO:
            source = (level, kind, data[:16] + bytes(4))  # the address, and any interface
        elif level == stdlib_socket.IPPROTO_IP and kind == _IP_PKTINFO:
            source = (level, kind, bytes(4) + data[4:8] + bytes(4))
        else:
            return
        if len(self._answers_from) >= _PEERS_REMEMBERED_MAX and peer not in self._answers_from:
            del self._answers_from[next(iter(self._answers_from))]
        self._answers_from[peer] = source

    def _to_system(self, address: Address) -> tuple[str, int]:
        host, port = address
        return (f"::ffff:{host}", port) if self._is_ipv6 and ":" not in host else address

    def _from_system(self, sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Address:
        host = sockaddr[0]
        if len(sockaddr) == 4 and sockaddr[3] and "%" not in host:
            host = f"{host}%{sockaddr[3]}"
        # One socket serves both families; IPv4 peers appear mapped into IPv6 (RFC 4291 section 2.5.5.2).
        return host.removeprefix("::ffff:") if "." in host else host, sockaddr[1]


def _can_segment(socket: stdlib_socket.socket) -> bool:
    """Whether the kernel cuts for us; one that cannot would send everything as a single datagram."""
    try:
        socket.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


def _forbid_fragments(socket: stdlib_socket.socket) -> None:
    """Set DF on every datagram (RFC 9000 section 14): one that is too long should be lost, not cut into pieces."""
    with contextlib.suppress(OSError):
        socket.setsockopt(stdlib_socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    if socket.family == stdlib_socket.AF_INET6:
        with contextlib.suppress(OSError):
            socket.setsockopt(stdlib_socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)


def open_udp_socket(host: str = "::", port: int = 0, *, offload: bool = True) -> UdpSocket:
    """Bind a socket; "::" serves IPv4 as well, and falls back to "0.0.0.0" on systems without IPv6.

    LocalError: `host` is no numeric address, or it cannot be bound.
    """
    try:
        version = ipaddress.ip_address(host.partition("%")[0]).version
    except ValueError as error:
        raise LocalError(f"{host!r} is no numeric IP address to listen on") from error
    try:
        if version == 6:
            try:
                return UdpSocket(_bind(stdlib_socket.AF_INET6, host, port), offload=offload)
            except OSError as error:
                if host != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                host = "0.0.0.0"  # the same wish in the only family there is
        return UdpSocket(_bind(stdlib_socket.AF_INET, host, port), offload=offload)
    except OSError as error:
        raise LocalError(f"cannot listen on {host} port {port}/udp: {error.strerror}") from error


def _bind(family: int, host: str, port: int) -> stdlib_socket.socket:
    socket = stdlib_socket.socket(family, stdlib_socket.SOCK_DGRAM)
    try:
        if family == stdlib_socket.AF_INET6:
            socket.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, 0)
        socket.bind((host, port))
    except OSError:
        socket.close()
        raise
    return socket


def _runs_of_equal_size(datagrams: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut `datagrams` into runs that one sendmsg can carry: equal sizes, of which the last may be smaller."""
    start = 0
    count = len(datagrams)
    while start < count:
        size = len(datagrams[start])
        most = min(count, start + _SEGMENTS_MAX, start + max(1, _UDP_PAYLOAD_MAX // max(1, size)))
        end = start + 1
        while end < most and len(datagrams[end]) == size:
            end += 1
        if end < most and len(datagrams[end]) < size:
            end += 1
        yield datagrams[start:end]
        start = end
