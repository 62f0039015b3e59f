"""Bytes in, frames out: a frame is a 4-byte big-endian length and that many bytes.

What a frame means is not known here.
"""

from __future__ import annotations

from meshsync.errors import CloseCode, LocalError, PeerError

HEADER_BYTES = 4
_LENGTH_MAX = 2**32 - 1


def encode_frame(body: bytes) -> bytes:
    """Return `body` behind its length.  LocalError: longer than a length can say."""
    if len(body) > _LENGTH_MAX:
        raise LocalError(f"a frame holds at most {_LENGTH_MAX} bytes, not {len(body)}")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class FrameDecoder:
    """Cuts a stream of bytes into frames.

    Call `next_frame` until it answers None, then `feed` more.  A length is judged as soon as its four bytes
    are known, so what is held never exceeds one frame of the permitted size and the last piece fed.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._body_bytes: int | None = None  # of the frame that the buffer begins with, once known

    @property
    def at_boundary(self) -> bool:
        """True when no part of a frame is held: the stream may end here and nowhere else."""
        return not self._buffer

    @property
    def held_bytes(self) -> int:
        """How much of the next frame is here, its length included."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece of the stream.  PeerError LIMIT: the frame it belongs to is too long."""
        self._buffer += data
        self._judge_length()

    def next_frame(self) -> bytes | None:
        """Return the next frame's body, None while it is not complete.  PeerError LIMIT: it is too long."""
        if self._body_bytes is None:
            self._judge_length()
            if self._body_bytes is None:
                return None
        end = HEADER_BYTES + self._body_bytes
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            body = bytes(view[HEADER_BYTES:end])
        # Deleting from the front of a bytearray moves its start and copies nothing.
        del self._buffer[:end]
        self._body_bytes = None
        return body

    def take_rest(self) -> bytes:
        """Give up what was fed and not yet returned, for whoever reads the stream from here on."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._body_bytes = None
        return rest

    def _judge_length(self) -> None:
        if self._body_bytes is not None or len(self._buffer) < HEADER_BYTES:
            return
        body_bytes = int.from_bytes(self._buffer[:HEADER_BYTES], "big")
        if body_bytes > self._frame_bytes_max:
            self._buffer.clear()
            raise PeerError(
                f"a frame of {body_bytes} bytes is announced, at most {self._frame_bytes_max} are taken",
                CloseCode.LIMIT,
            )
        self._body_bytes = body_bytes
