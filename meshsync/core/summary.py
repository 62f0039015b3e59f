r"""The summary: what a node says of itself to the whole of a mesh, signed, small, and the newest one counts.

    body      = deterministic CBOR of [format, collection, author, version, lasts_s, name, addresses, links,
                links_total, root, entries, documents, marks]
    signature = Ed25519(author, "meshsync/summary/1\0" || body)

A summary speaks of one collection and goes only to peers that share it.  The version rises with each; it is at
least the wall clock in milliseconds, so that a node that forgot everything still goes on above what it said.  No
clock is compared for anything else: how old a summary is travels beside it, as an age (`messages.Summary`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from meshsync.addresses import HostPort
from meshsync.core import cbor
from meshsync.core.hello import clean_text
from meshsync.core.limits import (
    SUMMARY_ADDRESSES_MAX,
    SUMMARY_BYTES_MAX,
    SUMMARY_LASTS_SECONDS_MAX,
    SUMMARY_LINKS_MAX,
    SUMMARY_MARKS_MAX,
)
from meshsync.errors import CloseCode, LocalError, PeerError
from meshsync.ids import CollectionId, EndpointId

SUMMARY_FORMAT = 1
VERSION_MAX = 2**64 - 1
RTT_US_MAX = 2**32 - 1
COUNT_MAX = 2**53
INCARNATION_BYTES = 8

_DOMAIN = b"meshsync/summary/1\0"
_FIELDS = 13


class PeerLink(NamedTuple):
    """A connection of the author with a peer that shares the collection."""

    peer: EndpointId
    rtt_us: int
    """The round trip in microseconds; 0 where none was measured."""


class Mark(NamedTuple):
    """How far the author holds one log."""

    incarnation: bytes
    """Of the log: 8 random bytes, which name it well enough for counting what is missing."""
    seq: int


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """What one node says of itself and of one collection."""

    collection: CollectionId
    author: EndpointId
    version: int
    lasts_s: int
    """After so many seconds without a newer one it is to be forgotten."""
    name: str
    addresses: tuple[HostPort, ...]
    """Where it can be reached: numeric."""
    links: tuple[PeerLink, ...]
    links_total: int
    """How many links there are; more than are listed where they would not fit."""
    root: bytes
    entries: int
    documents: int
    marks: tuple[Mark, ...]
    """The logs that grew last.  Where their seqs add up to `entries` they are all, and no log has forked."""

    @property
    def tells_all_links(self) -> bool:
        """Whether a peer that is not listed is not linked."""
        return len(self.links) == self.links_total

    def has_links_of(self, other: NodeSummary) -> bool:
        """Whether another summary tells of links with the same peers."""
        peers = {link.peer for link in self.links}
        return self.links_total == other.links_total and peers == {link.peer for link in other.links}

    @property
    def tells_all_logs(self) -> bool:
        """Whether the marks say exactly what is held."""
        return sum(mark.seq for mark in self.marks) == self.entries

    def encode(self) -> bytes:
        """Return the body, which never exceeds SUMMARY_BYTES_MAX where every part keeps its own bound."""
        return cbor.encode(
            [
                SUMMARY_FORMAT,
                self.collection,
                self.author,
                self.version,
                self.lasts_s,
                self.name,
                [str(address) for address in self.addresses],
                [list(link) for link in self.links],
                self.links_total,
                self.root,
                self.entries,
                self.documents,
                [list(mark) for mark in self.marks],
            ]
        )


@dataclass(frozen=True, slots=True)
class SignedSummary:
    """A summary with the bytes that were signed: they are passed on as they came."""

    summary: NodeSummary
    body: bytes
    signature: bytes

    @property
    def order(self) -> tuple[int, bytes]:
        """The greater one is the newer one; of two with one version, by a clone or a liar, all nodes keep the same."""
        return self.summary.version, self.body

    @property
    def size(self) -> int:
        """Bytes on the wire, about."""
        return len(self.body) + len(self.signature) + 32

    def verify(self) -> None:
        """Check the signature.  PeerError: it is not the author's."""
        key = Ed25519PublicKey.from_public_bytes(self.summary.author)
        try:
            key.verify(self.signature, _DOMAIN + self.body)
        except InvalidSignature:
            raise PeerError("the signature of a summary does not verify") from None


def sign_summary(summary: NodeSummary, key: Ed25519PrivateKey) -> SignedSummary:
    """Sign a summary of one's own."""
    body = summary.encode()
    return SignedSummary(summary, body, key.sign(_DOMAIN + body))


def next_version(wall_ms: int, last: int) -> int:
    """The version of a new summary, above the last one."""
    return min(max(wall_ms, last + 1), VERSION_MAX)


def decode_untrusted_summary(body: bytes, signature: bytes) -> SignedSummary:
    """Read what a peer sent; the signature is for `SignedSummary.verify`.  PeerError: it is no summary.

    The name is cleaned, not refused: an odd name must not keep a node out of the picture.
    """
    if len(body) > SUMMARY_BYTES_MAX:
        raise PeerError(f"a summary of {len(body)} bytes; at most {SUMMARY_BYTES_MAX}", CloseCode.LIMIT)
    items = cbor.decode_message_untrusted(body)
    if type(items) is not list or not items or items[0] != SUMMARY_FORMAT or len(items) != _FIELDS:
        raise PeerError("not a summary of this format")
    try:
        return SignedSummary(_summary(items), body, signature)
    except (cbor.Malformed, LocalError) as error:
        raise PeerError(f"a summary is malformed: {error}") from None


def _summary(items: list[Any]) -> NodeSummary:
    _, collection, author, version, lasts, name, addresses, links, total, root, entries, documents, marks = items
    if type(name) is not str:
        raise cbor.Malformed("the name is no text")
    found = tuple(_link(item) for item in _array(links, SUMMARY_LINKS_MAX, "links"))
    if len({link.peer for link in found}) < len(found) or _uint(total, COUNT_MAX) < len(found):
        raise cbor.Malformed("links are listed twice, or not counted")
    return NodeSummary(
        CollectionId(_blob(collection, 32)),
        EndpointId(_blob(author, 32)),
        _uint(version, VERSION_MAX),
        _uint(lasts, SUMMARY_LASTS_SECONDS_MAX),
        clean_text(name),
        tuple(_address(item) for item in _array(addresses, SUMMARY_ADDRESSES_MAX, "addresses")),
        found,
        total,
        _blob(root, 32),
        _uint(entries, COUNT_MAX),
        _uint(documents, COUNT_MAX),
        tuple(_mark(item) for item in _array(marks, SUMMARY_MARKS_MAX, "marks")),
    )


def _link(item: Any) -> PeerLink:
    peer, rtt = _array(item, 2, "fields of a link", exactly=True)
    return PeerLink(EndpointId(_blob(peer, 32)), _uint(rtt, RTT_US_MAX))


def _mark(item: Any) -> Mark:
    incarnation, seq = _array(item, 2, "fields of a mark", exactly=True)
    return Mark(_blob(incarnation, INCARNATION_BYTES), _uint(seq, COUNT_MAX))


def _address(item: Any) -> HostPort:
    """A place that can be dialled: a number, so that a summary makes nobody ask a name server."""
    host, _, port = item.rpartition(":") if type(item) is str else ("", "", "")
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        address = HostPort(str(ip), int(port))
    except ValueError:
        raise cbor.Malformed("an address is not IP:PORT") from None
    if str(address) != item or not 0 < address.port < 65536 or not is_reachable(address.host):
        raise cbor.Malformed("an address is no place to reach a node")
    return address


def is_reachable(host: str) -> bool:
    """Whether a numeric address means the same place elsewhere: no wildcard, no group, no zone of one machine."""
    ip = ipaddress.ip_address(host)
    return not (ip.is_unspecified or ip.is_multicast or "%" in host or (ip.version == 6 and ip.is_link_local))


def only_reachable(addresses: Iterable[HostPort]) -> tuple[HostPort, ...]:
    """Those of some numeric addresses that mean the same place elsewhere; loopback only where there is nothing else."""
    found = tuple(dict.fromkeys(one for one in addresses if is_reachable(one.host)))
    return tuple(one for one in found if not ipaddress.ip_address(one.host).is_loopback) or found


def _array(value: Any, maximum: int, what: str, *, exactly: bool = False) -> list[Any]:
    if type(value) is not list or len(value) > maximum or (exactly and len(value) != maximum):
        raise cbor.Malformed(f"expected {'' if exactly else 'at most '}{maximum} {what}")
    return value


def _uint(value: Any, maximum: int) -> int:
    if type(value) is not int or not 0 <= value <= maximum:
        raise cbor.Malformed(f"expected an integer from 0 to {maximum}")
    return value


def _blob(value: Any, size: int) -> bytes:
    if type(value) is not bytes or len(value) != size:
        raise cbor.Malformed(f"expected {size} bytes")
    return value
