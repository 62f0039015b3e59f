"""Stateless resets (RFC 9000 section 10.3): how a node that was killed tells its peers so after its restart.

A packet of a connection that is not known here is answered with the token that the peer was given for the packet's
connection id.  Tokens follow from the node's key and its address, so the new process makes those of the old one.
Whoever shares the key but not the address makes others: it cannot be asked for the tokens of a living connection
(RFC 9000 section 21.11).
"""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.dialing import Allowance
from meshsync.core.limits import Limits
from meshsync.transports.base import Address
from meshsync.transports.quic._seam import CID_BYTES

TOKEN_BYTES = 16
RESET_BYTES_MIN = 21
"""Shorter packets are no packets (RFC 9000 section 10.3)."""
RESET_BYTES_MAX = 42
"""As long as a packet with little in it, and so short that it is an answer to nearly everything."""

_DOMAIN = b"meshsync/reset/1\0"
_FORM_BITS = 0xC0
_SHORT_HEADER = 0x40


def is_short(datagram: bytes) -> bool:
    """Whether this may be a packet of a connection that is established, or a reset."""
    return len(datagram) >= RESET_BYTES_MIN and datagram[0] & _FORM_BITS == _SHORT_HEADER


def token_of(datagram: bytes) -> bytes:
    """Where the token is if the datagram is a reset."""
    return datagram[-TOKEN_BYTES:]


class Resets:
    """The tokens of one endpoint, and the answers to packets that no connection here knows."""

    def __init__(self, private_key: Ed25519PrivateKey, address: Address, limits: Limits) -> None:
        """Make the tokens of the node with this key that is bound to `address`."""
        secret = private_key.private_bytes_raw()
        host, port = address
        self._key = hmac.digest(secret, _DOMAIN + f"{host} {port}".encode(), "sha256")
        self._limits = limits
        self._all = Allowance(limits.resets_burst, limits.reset_seconds)
        self._by_host: OrderedDict[str, Allowance] = OrderedDict()

    def token(self, connection_id: bytes) -> bytes:
        """The token for one of this endpoint's connection ids: 16 bytes."""
        return hmac.digest(self._key, connection_id, "sha256")[:TOKEN_BYTES]

    def answer_untrusted(self, datagram: bytes, address: Address, now: float) -> bytes | None:
        """Return the reset for a packet of an unknown connection; None where it gets no answer.

        The answer is always shorter than the packet.  So it amplifies nothing, and of two endpoints that answer
        each other's resets one soon falls silent (RFC 9000 section 10.3.3).
        """
        size = min(len(datagram) - 1, RESET_BYTES_MAX)
        if size < RESET_BYTES_MIN or not is_short(datagram) or not self._may_answer(address[0], now):
            return None
        connection_id = datagram[1 : 1 + CID_BYTES]
        noise = bytearray(os.urandom(size - TOKEN_BYTES))
        noise[0] = _SHORT_HEADER | noise[0] & ~_FORM_BITS
        return bytes(noise) + self.token(connection_id)

    def _may_answer(self, host: str, now: float) -> bool:
        """Bound the answers of all and to each host, so that one that floods leaves some for the others."""
        limits = self._limits
        own = self._by_host.pop(host, None) or Allowance(limits.resets_per_host_burst, limits.reset_per_host_seconds)
        self._by_host[host] = own
        if len(self._by_host) > limits.reset_hosts_max:
            self._by_host.popitem(last=False)
        return own.take(now) and self._all.take(now)
