"""The network interfaces of this machine: which there are, which are chosen, and when that changes.

A device's network comes and goes: an interface appears after the process began, is renamed, gets its address later and
its carrier later still.  `Interfaces.follow` keeps up with all of it.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket as stdlib_socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import ifaddr
import structlog
import trio

from meshsync.core.limits import LIMITS, Limits
from meshsync.errors import LocalError
from meshsync.notifier import Notifier

_log = structlog.get_logger("meshsync.interfaces")

# linux/rtnetlink.h: the groups that tell of links and of addresses.
_GROUPS = 0x1 | 0x10 | 0x100
_NETLINK_ROUTE = 0
# linux/sockios.h and linux/if.h.
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8
_IFF_RUNNING = 0x40
_IFREQ_BYTES = 40
_DATAGRAM_BYTES = 65_536


@dataclass(frozen=True)
class Interface:
    """One network interface."""

    name: str
    index: int
    """What the system calls it as long as it exists, whatever its name becomes."""
    addresses: tuple[str, ...]
    """Numeric and without a zone, IPv4 first."""
    is_up: bool = True
    """Switched on, and with a carrier: something is at the other end of the cable."""
    is_loopback: bool = False

    @property
    def is_usable(self) -> bool:
        """Whether anything can be sent here."""
        return self.is_up and bool(self.addresses)


def read_interfaces() -> tuple[Interface, ...]:
    """All interfaces that the system has at this moment, by index."""
    addresses: dict[int, dict[str, None]] = {}
    for adapter in ifaddr.get_adapters(include_unconfigured=True):
        # An alias such as eth0:1 has the index of its interface.  None: it went while the list was read.
        if adapter.index is not None:
            known = addresses.setdefault(adapter.index, {})
            known.update((ip.ip if isinstance(ip.ip, str) else ip.ip[0].partition("%")[0], None) for ip in adapter.ips)
    found = []
    for index, texts in sorted(addresses.items()):
        with contextlib.suppress(OSError):  # it is gone
            name = stdlib_socket.if_indextoname(index)
            flags = _flags(name)
            loopback = all(ipaddress.ip_address(text).is_loopback for text in texts) and bool(texts)
            found.append(
                Interface(
                    name,
                    index,
                    tuple(sorted(texts, key=lambda text: ":" in text)),
                    is_up=flags is None or flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING,
                    is_loopback=loopback if flags is None else bool(flags & _IFF_LOOPBACK),
                )
            )
    return tuple(found)


def _flags(name: str) -> int | None:
    """The flags of an interface; None where the system tells them in another way than Linux does."""
    if sys.platform != "linux":
        return None
    import fcntl

    request = struct.pack(f"{_IFREQ_BYTES}s", name.encode())
    with stdlib_socket.socket(stdlib_socket.AF_INET, stdlib_socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
    flags: int = struct.unpack_from("H", answer, 16)[0]
    return flags


class Interfaces:
    """The interfaces that this node uses: those that the owner named, or all but loopback.

    Loopback counts where it was named, and where nothing else is usable: two nodes on a machine without a network.
    It is all that counts for a node that listens on loopback only.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        *,
        only_loopback: bool = False,
        read: Callable[[], Sequence[Interface]] = read_interfaces,
        limits: Limits = LIMITS,
    ) -> None:
        self.changed = Notifier()
        """Told whenever `chosen` is another."""
        self.chosen: tuple[Interface, ...] = ()
        """The usable ones among them."""
        self._names = tuple(names)
        self._only_loopback = only_loopback
        self._read = read
        self._limits = limits
        self._said: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        """Why a named interface is not used."""
        self._tell: Callable[[], None] = lambda: None
        self.refresh()

    @property
    def fault(self) -> str | None:
        """Why not all interfaces are used that the owner named; None where all are."""
        return "; ".join(self._missing.values()) or None

    def refresh(self) -> None:
        """Look now."""
        try:
            everything = tuple(self._read())
        except OSError as error:
            _log.warning("the network interfaces cannot be read", reason=error.strerror)
            return
        if self._names:
            self._explain(everything)
            chosen = tuple(one for one in everything if one.name in self._names and one.is_usable)
        else:
            usable = [one for one in everything if one.is_usable]
            chosen = tuple(one for one in usable if one.is_loopback is self._only_loopback)
            chosen = chosen or tuple(one for one in usable if one.is_loopback)
        if chosen != self.chosen:
            self.chosen = chosen
            self.changed.notify()
            self._tell()

    def _explain(self, everything: Sequence[Interface]) -> None:
        """Say of each named interface, once, why it is not used or that it is now."""
        there = {one.name: one for one in everything}
        for name in self._names:
            one = there.get(name)
            if one is None:
                known = ", ".join(sorted(there)) or "none"
                state = f"there is no interface {name} yet: waiting for it (there are: {known})"
            elif not one.is_up:
                state = f"interface {name} is down or has no carrier: waiting for it"
            elif not one.addresses:
                state = f"interface {name} has no address yet: waiting for one"
            else:
                state = f"using interface {name} with {', '.join(one.addresses)}"
            if one is None or not one.is_usable:
                self._missing[name] = state
            else:
                self._missing.pop(name, None)
            if self._said.get(name) != state:
                self._said[name] = state
                (_log.info if one is not None and one.is_usable else _log.warning)(state)

    async def follow(self, tell: Callable[[], None]) -> None:
        """Keep `chosen` true, until cancelled, and call `tell` whenever it is another."""
        self._tell = tell
        while True:
            try:
                await self._listen()
            except OSError as error:
                _log.info("changes of interfaces are found by looking again and again", reason=error.strerror)
            await self._poll()

    async def _listen(self) -> None:
        """Look again whenever the kernel tells of a change (rtnetlink(7)).  OSError: it does not tell."""
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "this system has no netlink")
        flags = stdlib_socket.SOCK_RAW | stdlib_socket.SOCK_CLOEXEC
        with trio.socket.socket(stdlib_socket.AF_NETLINK, flags, _NETLINK_ROUTE) as netlink:
            await netlink.bind((0, _GROUPS))
            # What changed before the socket was bound was not told.
            self.refresh()
            while True:
                # The names and addresses are read anew in any case: what a message says may be old by now.
                with trio.move_on_after(self._limits.interfaces_check_seconds):
                    await self._told(netlink)
                await trio.sleep(self._limits.interfaces_settle_seconds)
                self.refresh()

    async def _told(self, netlink: trio.socket.SocketType) -> None:
        try:
            await netlink.recv(_DATAGRAM_BYTES)
        except OSError as error:
            # More happened than the socket could hold: that is news enough.
            if error.errno != errno.ENOBUFS:
                raise

    async def _poll(self) -> None:
        while True:
            await trio.sleep(self._limits.interfaces_poll_seconds)
            self.refresh()

    # What the addresses of the chosen interfaces mean for others

    def reachable_at(self, listen: Iterable[str], addresses_max: int) -> tuple[str, ...]:
        """Where others reach what listens at these numeric hosts: addresses of the chosen interfaces, IPv4 first."""
        hosts = [ipaddress.ip_address(host.partition("%")[0]) for host in listen]
        found: dict[str, None] = {}
        for interface in self.chosen:
            for text in interface.addresses:
                address = ipaddress.ip_address(text)
                if any(
                    host == address or (host.is_unspecified and host.version in {6, address.version}) for host in hosts
                ):
                    found[text] = None
        return tuple(sorted(found, key=lambda text: ":" in text)[:addresses_max])

    def check_route(self, host: str) -> None:
        """Check that what is sent to a numeric address leaves through a chosen interface.  LocalError: it does not.

        The kernel's routes decide; connecting a UDP socket asks them and sends nothing.
        """
        if not self._names:
            return
        family = stdlib_socket.AF_INET6 if ":" in host else stdlib_socket.AF_INET
        with stdlib_socket.socket(family, stdlib_socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(stdlib_socket.getaddrinfo(host, 9, family, stdlib_socket.SOCK_DGRAM)[0][4])
            except OSError as error:
                raise LocalError(f"there is no way to {host}: {error.strerror}") from None
            source = probe.getsockname()[0].partition("%")[0]
        if not any(source in one.addresses for one in self.chosen):
            raise LocalError(f"the way to {host} does not lead through {', '.join(self._names)}")
