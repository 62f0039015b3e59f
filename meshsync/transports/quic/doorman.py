"""Who may begin a handshake: what to do with an Initial packet that belongs to no connection.

Until a handshake is over its source address may be forged, so a stranger's packet costs nothing that is kept
beyond the bounds here, and above a threshold the address has to be proved first (Retry, RFC 9000 section 8.1.2).
Slow links need a minute for a handshake.  They get it as long as nobody wants the place; where places are scarce,
whoever had `handshake_seconds_min` gives way, so that a flood holds none of them for longer.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Protocol

from aioquic.quic.packet import (
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from meshsync.core.limits import Limits
from meshsync.transports.base import Address
from meshsync.transports.quic._seam import CID_BYTES, SUPPORTED_VERSIONS, parse_header

_INITIAL_BYTES_MIN = 1200  # RFC 9000 section 14.1
_CID_BYTES_MIN = 8  # RFC 9000 section 7.2


class Caller(Protocol):
    """An accepted connection whose handshake is not over."""

    @property
    def address(self) -> Address:
        """Where it comes from, perhaps."""

    @property
    def began(self) -> float:
        """When the handshake began."""

    @property
    def is_address_proved(self) -> bool:
        """Whether it certainly comes from there."""

    def give_way(self) -> None:
        """End: others need the place."""


@dataclass(frozen=True)
class Welcome:
    """A handshake may begin."""

    destination_cid: bytes
    """What the datagrams are addressed to until the handshake is over."""
    original_destination_cid: bytes
    """What the client addressed first; the same as above unless a Retry lies between."""
    retry_source_cid: bytes | None


class Doorman:
    """Decides on Initial packets by how many handshakes are under way."""

    def __init__(self, limits: Limits) -> None:
        """Begin with no handshake under way."""
        self._limits = limits
        self._tokens = QuicRetryTokenHandler()
        self._half_open: set[Caller] = set()

    @staticmethod
    def is_exempt(host: str) -> bool:
        """Whether caps per address do not apply: every node of one machine shares the loopback address."""
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback

    @property
    def half_open(self) -> int:
        """How many handshakes are under way."""
        return len(self._half_open)

    def enter(self, caller: Caller) -> None:
        """A handshake has begun."""
        self._half_open.add(caller)

    def leave(self, caller: Caller) -> None:
        """A handshake is over, well or not.  Idempotent."""
        self._half_open.discard(caller)

    def judge_untrusted(self, datagram: bytes, address: Address, now: float) -> Welcome | bytes | None:
        """Return what to answer to a datagram that no connection knows: a handshake, a datagram, or nothing."""
        if len(datagram) < _INITIAL_BYTES_MIN:
            return None
        try:
            header = parse_header(datagram)
        except ValueError:  # also BufferReadError
            return None
        if header.version not in SUPPORTED_VERSIONS:
            if not header.version:
                return None  # a version negotiation that nobody asked for
            return encode_quic_version_negotiation(
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=SUPPORTED_VERSIONS,
            )
        if header.packet_type is not QuicPacketType.INITIAL or len(header.destination_cid) < _CID_BYTES_MIN:
            return None
        self._make_room(address, now)
        if self.half_open >= self._limits.half_open_max or self._is_crowded(address):
            return None
        if header.token:
            return self._check_token(header.token, header.destination_cid, address, now)
        if self.half_open < self._limits.half_open_retry_above:
            return Welcome(header.destination_cid, header.destination_cid, None)
        retry_source_cid = os.urandom(CID_BYTES)
        return encode_quic_retry(
            version=header.version,
            source_cid=retry_source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=self._tokens.create_token(
                address=address,
                original_destination_connection_id=header.destination_cid,
                retry_source_connection_id=retry_source_cid,
                now=now,
            ),
        )

    def _check_token(self, token: bytes, destination_cid: bytes, address: Address, now: float) -> Welcome | None:
        try:
            original = self._tokens.validate_token(
                address=address, destination_cid=destination_cid, token=token, now=now
            )
        except ValueError:
            return None
        return Welcome(destination_cid, original, destination_cid)

    def _make_room(self, address: Address, now: float) -> None:
        """Where there is no place for a newcomer, end one handshake that had its time."""
        overdue = [one for one in self._half_open if now >= one.began + self._limits.handshake_seconds_min]
        if self._is_crowded(address):
            overdue = [one for one in overdue if one.address[0] == address[0]]
        elif self.half_open < self._limits.half_open_retry_above:
            return
        elif self.half_open < self._limits.half_open_max:
            # Forged addresses take no place of those that are proved, however slow these are.
            overdue = [one for one in overdue if not one.is_address_proved]
        if overdue:
            last = min(overdue, key=lambda one: (one.is_address_proved, one.began))
            last.give_way()
            self.leave(last)

    def _is_crowded(self, address: Address) -> bool:
        if self.is_exempt(address[0]):
            return False
        same_host = sum(caller.address[0] == address[0] for caller in self._half_open)
        return same_host >= self._limits.half_open_per_address_max
