"""Addresses as people write them: HOST:PORT and HEX@HOST:PORT.

Nothing here resolves a name or opens a socket.  Light to import: every command does.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from meshsync.errors import LocalError
from meshsync.ids import EndpointId

DEFAULT_PORT = 4433

# RFC 1123 section 2.1, and the underscore that container names have.
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
# What looks like numbers and dots is an IPv4 address or a mistake: resolvers read 10.1 as 10.0.0.1.
_NUMERIC = re.compile(r"[0-9.]+")
_PORT = re.compile(r"[0-9]{1,5}")


class HostPort(NamedTuple):
    """A host, by name or by IP address, and a UDP port."""

    host: str
    """IPv6 without brackets, with the zone (`fe80::1%eth0`) where there is one."""
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class DnsName(NamedTuple):
    """A name that stands for peers, as `--discover dns:` takes it."""

    host: str
    """In lower case, without a final dot."""
    port: int
    """Where its address records are all that there is."""

    def __str__(self) -> str:
        return self.host if self.port == DEFAULT_PORT else f"{self.host}:{self.port}"


class PeerAddress(NamedTuple):
    """An endpoint and one address of it, as `--peer` takes it."""

    id: EndpointId
    address: HostPort

    def __str__(self) -> str:
        return f"{self.id}@{self.address}"


def parse_address(text: str) -> HostPort:
    """Read HOST:PORT, where a peer can be reached.  LocalError: anything else; the message says what is wrong."""
    address = _parse(text)
    if address.port == 0:
        raise LocalError(f"{text!r} has port 0; expected a port from 1 to 65535")
    if address.host in {"0.0.0.0", "::"}:
        raise LocalError(f"{text!r} is no place to reach a peer; expected the host's own address or name")
    return address


def parse_listen(text: str) -> HostPort:
    """Read IP:PORT, where to listen; `localhost` is 127.0.0.1, port 0 any free port.  LocalError: anything else."""
    address = _parse(text)
    if address.host == "localhost":
        return HostPort("127.0.0.1", address.port)
    if not is_numeric(address.host):
        raise LocalError(
            f"{text!r} names a host; expected an IP address of this machine, such as 0.0.0.0:{DEFAULT_PORT} for all"
        )
    return address


def parse_dns_name(text: str) -> DnsName:
    """Read NAME or NAME:PORT, a name to look peers up by.  LocalError: anything else."""
    host, colon, _ = text.partition(":")
    wrong = LocalError(f"{_shown(text)} is no name to look up; expected NAME or NAME:PORT, such as mesh.example")
    if not host:
        raise wrong
    address = _parse(text) if colon else HostPort(_parse_host(host, text), DEFAULT_PORT)
    if is_numeric(address.host) or address.port == 0:
        raise wrong
    return DnsName(address.host.removesuffix("."), address.port)


def parse_peer(text: str) -> PeerAddress:
    """Read HEX@HOST:PORT.  LocalError: anything else; the message says what is wrong."""
    hex_id, at, address = text.partition("@")
    if not at:
        raise LocalError(
            f"{_shown(text)} has no @; expected HEX@HOST:PORT, as `meshsync id --address HOST:PORT` prints"
        )
    return PeerAddress(EndpointId.parse(hex_id), parse_address(address))


def is_numeric(host: str) -> bool:
    """Whether `host` is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _parse(text: str) -> HostPort:
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port or ("[" not in text and ":" in host):
        wanted = "[IPV6]:PORT" if text.count(":") > 1 else "HOST:PORT"
        example = f"[::1]:{DEFAULT_PORT}" if text.count(":") > 1 else f"10.0.12.2:{DEFAULT_PORT}"
        raise LocalError(f"{_shown(text)} has no port; expected {wanted}, such as {example}")
    # int() would also take signs, blanks, underscores and the digits of other scripts.
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise LocalError(f"{_shown(text)} has the port {_shown(port)}; expected a port from 1 to 65535")
    return HostPort(_parse_host(host, text), int(port))


def _parse_host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            # The one spelling of each address, so that equal addresses are equal.
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise LocalError(f"{_shown(text)} has no valid IPv6 address in its brackets: {error}") from None
    if _NUMERIC.fullmatch(host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise LocalError(
                f"{_shown(text)} has no valid IPv4 address; expected four numbers from 0 to 255, such as 10.0.12.2"
            ) from None
    name = host.removesuffix(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise LocalError(f"{_shown(text)} has the host {_shown(host)}; expected an IP address or a host name in ASCII")
    return host.lower()


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:99] + "…")
