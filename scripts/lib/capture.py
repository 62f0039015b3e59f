"""What crossed a cable: its datagrams, decrypted with the secrets that a node wrote down, as messages.

Nothing here asks the nodes.  The secrets come from the file that SSLKEYLOGFILE names, packets and frames are read as
RFC 9000 and RFC 9001 have them, and what is sent twice counts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from aioquic._buffer import Buffer
from aioquic._crypto import CryptoError
from aioquic.quic.crypto import CryptoContext
from aioquic.quic.packet import QuicProtocolVersion, is_long_header, pull_ack_frame, pull_quic_header
from aioquic.tls import CipherSuite

from meshsync.core.framing import FrameDecoder
from meshsync.core.limits import LIMITS
from meshsync.core.messages import Message, decode_untrusted
from meshsync.errors import PeerError

_CID_BYTES = 8
_SUITES = (CipherSuite.AES_128_GCM_SHA256, CipherSuite.CHACHA20_POLY1305_SHA256)
_LABELS = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0")


class Seen(NamedTuple):
    """A message that crossed."""

    from_near: bool
    """Whether the near end of the cable sent it."""
    message: Message
    size_bytes: int


@dataclass
class _Stream:
    """What one side of a stream carried, put in order."""

    pieces: dict[int, bytes] = field(default_factory=dict)

    def content(self) -> bytes:
        whole = bytearray()
        for offset, piece in sorted(self.pieces.items()):
            if offset > len(whole):
                break  # never seen
            whole[offset : offset + len(piece)] = piece
        return bytes(whole)


class _Keys:
    """The secret of one direction of a connection."""

    def __init__(self, secret: bytes, suite: CipherSuite) -> None:
        self.from_near = False
        """Which end has it; known with the first packet."""
        self.streams: dict[int, _Stream] = {}
        self._next = 0
        self._context = CryptoContext()
        self._context.setup(cipher_suite=suite, secret=secret, version=QuicProtocolVersion.VERSION_1)

    def open(self, packet: bytes) -> bytes | None:
        """The frames of a packet; None where it was sealed with another key."""
        try:
            _, frames, number, _ = self._context.decrypt_packet(packet, 1 + _CID_BYTES, self._next)
        except CryptoError:
            return None
        self._next = max(self._next, number + 1)
        return frames


class Capture:
    """Records a cable: give `note` to `Cable.record`."""

    def __init__(self, key_log: Path) -> None:
        self._key_log = key_log
        self._datagrams: list[tuple[bool, bytes]] = []

    def note(self, from_near: bool, datagram: bytes) -> None:
        """A datagram crossed."""
        self._datagrams.append((from_near, datagram))

    def bytes_from(self, *, near: bool) -> int:
        """UDP payload that one end sent."""
        return sum(len(datagram) for from_near, datagram in self._datagrams if from_near is near)

    def messages(self) -> list[Seen]:
        """The messages that crossed, stream by stream.  ValueError: a packet fits none of the secrets."""
        lines = map(str.split, self._key_log.read_text(encoding="ascii").splitlines())
        secrets = [bytes.fromhex(secret) for label, _, secret in lines if label in _LABELS]
        all_keys = [_Keys(secret, suite) for secret in secrets for suite in _SUITES]
        for from_near, datagram in self._datagrams:
            for packet in _short_packets(datagram):
                found = next(((keys, frames) for keys in all_keys if (frames := keys.open(packet)) is not None), None)
                if found is None:
                    raise ValueError(f"a packet of {len(packet)} bytes fits none of the secrets in {self._key_log}")
                keys, frames = found
                keys.from_near = from_near
                all_keys.remove(keys)
                all_keys.insert(0, keys)  # the next one is likely to be of the same connection
                _read_frames(frames, keys.streams)
        return [
            Seen(keys.from_near, *one)
            for keys in all_keys
            for _, stream in sorted(keys.streams.items())
            for one in _messages_of(stream.content())
        ]


def _short_packets(datagram: bytes) -> Iterator[bytes]:
    """The packets of a datagram that carry streams: those of the handshake come first, if any."""
    buffer = Buffer(data=datagram)
    while not buffer.eof() and is_long_header(datagram[buffer.tell()]):
        start = buffer.tell()
        buffer.seek(start + pull_quic_header(buffer, host_cid_length=_CID_BYTES).packet_length)
    rest = datagram[buffer.tell() :]
    if rest.strip(b"\0"):  # a datagram of the handshake is filled up with zeros
        yield rest


_NUMBERS = {
    **dict.fromkeys((0x00, 0x01, 0x1E), 0),  # PADDING, PING, HANDSHAKE_DONE
    **dict.fromkeys((0x10, 0x12, 0x13, 0x14, 0x16, 0x17, 0x19), 1),  # limits, RETIRE_CONNECTION_ID
    **dict.fromkeys((0x05, 0x11, 0x15), 2),  # STOP_SENDING, MAX_STREAM_DATA, STREAM_DATA_BLOCKED
    0x04: 3,  # RESET_STREAM
}
"""Frames that are so many numbers."""


def _read_frames(frames: bytes, streams: dict[int, _Stream]) -> None:
    """Take the stream data out of the frames of a packet (RFC 9000 section 19)."""
    buffer = Buffer(data=frames)
    number = buffer.pull_uint_var
    while not buffer.eof():
        kind = number()
        if 0x08 <= kind <= 0x0F:  # STREAM
            stream = streams.setdefault(number(), _Stream())
            offset = number() if kind & 4 else 0
            piece = buffer.pull_bytes(number() if kind & 2 else buffer.capacity - buffer.tell())
            if len(piece) >= len(stream.pieces.get(offset, b"")):
                stream.pieces[offset] = piece
        else:
            _skip_frame(buffer, kind)


def _skip_frame(buffer: Buffer, kind: int) -> None:
    number = buffer.pull_uint_var
    match kind:
        case 0x02 | 0x03:  # ACK
            pull_ack_frame(buffer)
            for _ in range(3 if kind == 0x03 else 0):
                number()
        case 0x06:  # CRYPTO
            number()
            buffer.pull_bytes(number())
        case 0x07:  # NEW_TOKEN
            buffer.pull_bytes(number())
        case 0x18:  # NEW_CONNECTION_ID
            _ = number(), number()
            buffer.pull_bytes(buffer.pull_uint8() + 16)
        case 0x1A | 0x1B:  # PATH_CHALLENGE, PATH_RESPONSE
            buffer.pull_bytes(8)
        case 0x1C | 0x1D:  # CONNECTION_CLOSE
            _ = number(), number() if kind == 0x1C else 0
            buffer.pull_bytes(number())
        case _:
            for _ in range(_NUMBERS[kind]):
                number()


def _messages_of(content: bytes) -> Iterator[tuple[Message, int]]:
    decoder = FrameDecoder(LIMITS.frame_bytes_max)
    decoder.feed(content)
    while (frame := decoder.next_frame()) is not None:
        try:
            yield decode_untrusted(frame), len(frame)
        except PeerError:
            continue  # a hello, which is no message
