"""Frames over any byte stream that can be half-closed.

The same type runs over QUIC streams and over pairs in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType

import trio

from meshsync.core.framing import FrameDecoder, encode_frame
from meshsync.core.limits import LIMITS, Limits
from meshsync.core.priority import Priority
from meshsync.errors import CloseCode, PeerError, TransportLost


class ExclusiveUse:
    """Raises trio.BusyResourceError in the task that comes second."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._in_use = False

    def __enter__(self) -> None:
        if self._in_use:
            raise trio.BusyResourceError(self._message)
        self._in_use = True

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._in_use = False


def _nothing_unacked() -> int:
    return 0


def _unknown() -> float:
    return math.inf


def _no_round_trip() -> float:
    return 0.0


def _all_alike(_: Priority) -> None:
    pass


class MessageChannel:
    """Sends and receives frame bodies.  One task may send while another receives; no more than one each.

    A stream that signals why it broke raises trio.BrokenResourceError from a TransportLost with the code.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        *,
        frame_bytes_max: int | None = None,
        limits: Limits = LIMITS,
        reset: Callable[[CloseCode], None] | None = None,
        unacked: Callable[[], int] = _nothing_unacked,
        pace: Callable[[], float] = _unknown,
        prioritise: Callable[[Priority], None] = _all_alike,
        round_trip: Callable[[], float] = _no_round_trip,
    ) -> None:
        """Take over `stream`.

        `reset` breaks both directions at once and tells the peer the code; `unacked` counts the bytes that were
        sent and not acknowledged; `pace` is how many bytes a second the path carries; `prioritise` sends what is
        buffered before or behind other streams; `round_trip` is that of the path, in seconds.  Streams that can do
        none of it are given up without a word, count none, are fast, are all alike, and take no time.
        """
        self._stream = stream
        self._decoder = FrameDecoder(limits.frame_bytes_max if frame_bytes_max is None else frame_bytes_max)
        self._limits = limits
        self._reset = reset
        self._unacked = unacked
        self._pace = pace
        self._prioritise = prioritise
        self._round_trip = round_trip
        self._send_use = ExclusiveUse("another task is sending on this channel")
        self._receive_use = ExclusiveUse("another task is receiving from this channel")
        self._waited_seconds = 0.0  # for the rest of the frame that has begun
        self._closed = False
        self.bytes_sent = 0
        """Frames with their lengths; what the layers below add is not in it."""

    @property
    def unacked_bytes(self) -> int:
        """How many bytes the peer has yet to acknowledge: what a more urgent message would queue behind."""
        return self._unacked()

    @property
    def bytes_per_second(self) -> float:
        """What the path is thought to carry, all channels together; inf where that is not known."""
        return self._pace()

    def set_priority(self, priority: Priority) -> None:
        """Let what is sent here, and what already waits to be sent, go before or behind other channels.

        Priority.MEDIUM where nothing is said.  Each end decides for what it sends.  A transport whose connections
        hold nothing back, such as one in memory, has no order to keep; the control channel's place is fixed.
        """
        self._prioritise(priority)

    async def send(self, frame: bytes) -> None:
        """Send one frame body.  Returns when it is buffered, which waits while the peer is slow.

        TransportLost: the stream or its connection is gone.  A cancelled send leaves half a frame behind, so the
        channel must then be closed with a code.
        """
        with self._send_use:
            encoded = encode_frame(frame)
            try:
                await self._stream.send_all(encoded)
            except trio.BrokenResourceError as error:
                raise _lost(error) from error
            self.bytes_sent += len(encoded)

    async def receive(self) -> bytes:
        """Return the next frame body.  Cancelling loses nothing.

        trio.EndOfChannel: the peer ended cleanly.  TransportLost: the stream or its connection is gone.
        PeerError LIMIT: the frame is too long; TIMEOUT: its rest did not follow; PROTOCOL: the stream ended in it.
        """
        with self._receive_use:
            if self._closed:
                raise trio.ClosedResourceError("this channel is closed")
            frame = self._decoder.next_frame()
            if frame is not None:
                await trio.lowlevel.checkpoint()
                return frame
            while frame is None:
                data = await self._receive_more()
                if not data:
                    self._end_of_stream()
                self._decoder.feed(data)
                frame = self._decoder.next_frame()
            self._waited_seconds = 0.0
            return frame

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""
        with self._send_use:
            try:
                await self._stream.send_eof()
            except trio.BrokenResourceError as error:
                raise _lost(error) from error

    def close(self, code: CloseCode) -> None:
        """Break both directions at once; the peer's channel fails with TransportLost and this code."""
        self._closed = True
        if self._reset is not None:
            self._reset(code)

    async def aclose(self) -> None:
        """Close: what was sent is still delivered, what was not received is dropped."""
        self._closed = True
        await self._stream.aclose()

    async def _receive_more(self) -> bytes | bytearray:
        try:
            if self._decoder.at_boundary:
                return await self._stream.receive_some()
            return await self._receive_rest()
        except trio.BrokenResourceError as error:
            raise _lost(error) from error

    async def _receive_rest(self) -> bytes | bytearray:
        # Only the time spent waiting counts: a reader that pauses is no fault of the peer.
        began = trio.current_time()
        limits = self._limits
        seconds_max = limits.patience_seconds(limits.message_seconds_max, self._round_trip())
        seconds_max += self._decoder.held_bytes / limits.message_bytes_per_second_min
        try:
            with trio.move_on_at(began + seconds_max - self._waited_seconds):
                return await self._stream.receive_some()
        finally:
            self._waited_seconds += trio.current_time() - began
        raise PeerError(
            f"a frame was begun and not finished: {self._decoder.held_bytes} bytes in {seconds_max:.0f} seconds",
            CloseCode.TIMEOUT,
        )

    def _end_of_stream(self) -> None:
        if not self._decoder.at_boundary:
            raise PeerError("the stream ended in the middle of a frame")
        raise trio.EndOfChannel


def _lost(error: trio.BrokenResourceError) -> TransportLost:
    cause = error.__cause__
    if isinstance(cause, TransportLost):
        return TransportLost(str(cause), cause.code)
    return TransportLost(str(error) or "the stream is broken")
