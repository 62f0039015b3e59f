from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from meshsync.lab.cable.frames import HEADER, datagrams, frame_bytes

MAC = bytes(range(12))
UDP_L4 = 5


def ones(data: bytes) -> int:
    """RFC 1071, as simply as can be."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def bundle(payload: bytes, size: int, *, version: int) -> bytes:
    """What a packet socket gives where a sender used UDP_SEGMENT."""
    udp = struct.pack("!HHHH", 4433, 5000, 8 + len(payload), 0)
    if version == 4:
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 7, 0, 64, 17, 0, b"\n\0\0\1", b"\n\0\0\2")
        start, kind = 34, b"\x08\0"
    else:
        ip = struct.pack("!IHBB16s16s", 6 << 28, 8 + len(payload), 17, 64, bytes(15) + b"\1", bytes(15) + b"\2")
        start, kind = 54, b"\x86\xdd"
    header = HEADER.pack(1, UDP_L4, start + 8, size, start, 6)
    return header + MAC + kind + ip + udp + payload


@given(payload=st.binary(min_size=1, max_size=5000), size=st.integers(1, 1500), version=st.sampled_from([4, 6]))
def test_a_bundle_is_cut_into_the_datagrams_that_were_sent(payload: bytes, size: int, version: int) -> None:
    """Otherwise a loss takes dozens of datagrams at once, and a receiver throws away what has wrong lengths."""
    found = list(datagrams(bundle(payload, size, version=version)))
    parts = []
    for number, data in enumerate(found):
        flags, kind, _, _, start, offset = HEADER.unpack_from(data)
        assert (flags, kind, offset) == (1, 0, 6), "the checksum is owed, and nothing else"
        frame = data[HEADER.size :]
        ip, udp = frame[14:start], frame[start : start + 8]
        part = frame[start + 8 :]
        length = int.from_bytes(udp[4:6], "big")
        assert length == 8 + len(part)
        if version == 4:
            assert int.from_bytes(ip[2:4], "big") == len(ip) + length
            assert int.from_bytes(ip[4:6], "big") == 7 + number
            assert ones(ip) == 0xFFFF, "the header's checksum holds"
            addresses = ip[12:20]
        else:
            assert int.from_bytes(ip[4:6], "big") == length
            addresses = ip[8:40]
        assert int.from_bytes(udp[6:8], "big") == ones(addresses + struct.pack("!HH", 17, length))
        parts.append(part)
    assert b"".join(parts) == payload
    assert all(len(part) == size for part in parts[:-1])


@given(st.binary(max_size=200))
def test_whatever_else_comes_goes_on_as_it_is(data: bytes) -> None:
    """Otherwise ARP, or a frame that nobody expected, ends the cable."""
    whole = HEADER.pack(0, 0, 0, 0, 0, 0) + data
    assert list(datagrams(whole)) == [whole]
    assert frame_bytes(whole) == len(data)
    cut = list(datagrams(HEADER.pack(1, UDP_L4, 0, 100, 34, 6) + data[:41]))
    assert len(cut) == 1
    assert list(datagrams(data[:9])) == []
