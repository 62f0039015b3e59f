"""Ethernet frames as a packet socket gives them: with what the sender left to its network card.

A sender may hand over many UDP datagrams as one frame (UDP_SEGMENT) and leave checksums to the card.  On a virtual link
there is none, so a frame comes with a header that says what is owed (struct virtio_net_hdr, virtio 1.2 section 5.1.6).
A link carries datagrams, so such frames are cut into them; the checksum stays owed, and the receiving kernel knows it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct("=BBHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset."""

_NEEDS_CSUM = 1
_GSO_NONE = 0
_GSO_UDP_L4 = 5
_ETHERNET_BYTES = 14
_UDP_BYTES = 8
_UDP_CSUM_OFFSET = 6
_PROTOCOL_UDP = 17
_IPV6_BYTES = 40


def datagrams(data: bytes) -> Iterator[bytes]:
    """The frames in what a packet socket with PACKET_VNET_HDR gave, each with its header, ready to be sent on.

    What is no bundle of UDP datagrams comes out as it went in.
    """
    if len(data) < HEADER.size:
        return
    _, kind, _, size, start, _ = HEADER.unpack_from(data)
    frame = memoryview(data)[HEADER.size :]
    if kind != _GSO_UDP_L4 or not size or len(frame) < start + _UDP_BYTES or start < _ETHERNET_BYTES + 20:
        yield data
        return
    payload = frame[start + _UDP_BYTES :]
    for number, offset in enumerate(range(0, len(payload), size)):
        yield _datagram(frame, start, payload[offset : offset + size], number)


def frame_bytes(data: bytes) -> int:
    """How long a frame is, without its header."""
    return len(data) - HEADER.size


def _datagram(frame: memoryview, start: int, payload: memoryview, number: int) -> bytes:
    head = bytearray(frame[: start + _UDP_BYTES])
    length = _UDP_BYTES + len(payload)
    if head[_ETHERNET_BYTES] >> 4 == 4:
        ip = slice(_ETHERNET_BYTES, start)
        identification = int.from_bytes(head[_ETHERNET_BYTES + 4 : _ETHERNET_BYTES + 6], "big") + number
        struct.pack_into("!H", head, _ETHERNET_BYTES + 2, start - _ETHERNET_BYTES + length)
        struct.pack_into("!H", head, _ETHERNET_BYTES + 4, identification & 0xFFFF)
        struct.pack_into("!H", head, _ETHERNET_BYTES + 10, 0)
        struct.pack_into("!H", head, _ETHERNET_BYTES + 10, ~_sum(bytes(head[ip])) & 0xFFFF)
        addresses = bytes(head[_ETHERNET_BYTES + 12 : _ETHERNET_BYTES + 20])
    else:
        struct.pack_into("!H", head, _ETHERNET_BYTES + 4, start - _ETHERNET_BYTES - _IPV6_BYTES + length)
        addresses = bytes(head[_ETHERNET_BYTES + 8 : _ETHERNET_BYTES + 40])
    struct.pack_into("!H", head, start + 4, length)
    # What is owed begins with the sum of the pseudo header (RFC 768, RFC 8200 section 8.1), not inverted.
    pseudo = addresses + struct.pack("!HH", _PROTOCOL_UDP, length)
    struct.pack_into("!H", head, start + _UDP_CSUM_OFFSET, _sum(pseudo))
    header = HEADER.pack(_NEEDS_CSUM, _GSO_NONE, 0, 0, start, _UDP_CSUM_OFFSET)
    return b"".join((header, head, payload))


def _sum(data: bytes) -> int:
    """The ones' complement sum of 16-bit words (RFC 1071); `data` has an even length."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
