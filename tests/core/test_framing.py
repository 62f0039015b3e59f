"""Bytes in, frames out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.core.framing import FrameDecoder, encode_frame
from meshsync.errors import CloseCode, PeerError


def decode_all(decoder: FrameDecoder, data: bytes) -> list[bytes]:
    decoder.feed(data)
    frames = []
    while (frame := decoder.next_frame()) is not None:
        frames.append(frame)
    return frames


def test_frame_is_length_and_body() -> None:
    """Otherwise two versions of this program cannot talk."""
    assert encode_frame(b"abc") == b"\0\0\0\3abc"
    assert encode_frame(b"") == b"\0\0\0\0"


@given(st.lists(st.binary(max_size=50), max_size=10), st.lists(st.integers(1, 20), min_size=1))
def test_frames_survive_any_cutting(bodies: list[bytes], cuts: list[int]) -> None:
    """Otherwise what arrives depends on how the network cut it."""
    stream = b"".join(map(encode_frame, bodies))
    decoder = FrameDecoder(50)
    frames = []
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        frames += decode_all(decoder, stream[position : position + size])
        position += size
        turn += 1
    assert frames == bodies
    assert decoder.at_boundary


@pytest.mark.parametrize("size", range(1, 8))
def test_end_within_a_frame_is_seen(size: int) -> None:
    """Otherwise half a message is taken for a clean end."""
    decoder = FrameDecoder(10)
    assert decode_all(decoder, encode_frame(b"abcd")[:size]) == []
    assert not decoder.at_boundary


def test_too_long_a_frame_is_refused_at_its_length() -> None:
    """Otherwise a peer has this node hold what it only announced."""
    decoder = FrameDecoder(10)
    decoder.feed(b"\0\0\0")
    with pytest.raises(PeerError) as caught:
        decoder.feed(b"\x0b")
    assert caught.value.code is CloseCode.LIMIT


def test_too_long_a_frame_behind_a_good_one_is_refused() -> None:
    """Otherwise the first frame of a packet hides the second."""
    decoder = FrameDecoder(10)
    decoder.feed(encode_frame(b"good") + b"\xff\xff\xff\xff")
    assert decoder.next_frame() == b"good"
    with pytest.raises(PeerError):
        decoder.next_frame()


def test_greatest_permitted_frame_passes() -> None:
    """Otherwise the limit is off by one."""
    assert decode_all(FrameDecoder(10), encode_frame(bytes(10))) == [bytes(10)]


def test_rest_is_given_up_whole() -> None:
    """Otherwise what follows the hello is lost, or read twice."""
    decoder = FrameDecoder(10)
    decoder.feed(encode_frame(b"hello") + b"\0\0\0\5fir")
    assert decoder.next_frame() == b"hello"
    assert decoder.take_rest() == b"\0\0\0\5fir"
    assert decoder.at_boundary
