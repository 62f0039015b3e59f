"""A byte stream within one process, with the manners of a QUIC stream: half-closing, resets with a code, credit."""

from __future__ import annotations

import operator
from collections.abc import Callable

import trio

from meshsync.errors import CloseCode, TransportLost
from meshsync.transports.channel import ExclusiveUse


class Pipe:
    """One direction: a bounded buffer with an end, and perhaps a reason why there will be none."""

    def __init__(self, window_bytes: int) -> None:
        """Begin empty; a writer waits while `window_bytes` are unread."""
        self._window_bytes = window_bytes
        self._buffer = bytearray()
        self._ended = False
        self._error: TransportLost | None = None
        self._changed = trio.Event()

    @property
    def room(self) -> int:
        """How many bytes may be written now."""
        return self._window_bytes - len(self._buffer)

    @property
    def unread_bytes(self) -> int:
        """How many bytes the reader has yet to take."""
        return len(self._buffer)

    @property
    def has_end(self) -> bool:
        """Whether everything was written."""
        return self._ended

    def write(self, data: bytes | memoryview) -> None:
        """Append what there is room for."""
        self._buffer += data
        self.notify()

    def end(self) -> None:
        """Nothing more will be written."""
        self._ended = True
        self.notify()

    def fail(self, error: TransportLost, *, drop: bool) -> None:
        """Break; with `drop`, what was not read is void."""
        if self._error is None:
            self._error = error
        if drop and not self._ended:
            self._buffer.clear()
        self.notify()

    def check_writable(self) -> None:
        """trio.BrokenResourceError: the pipe is broken."""
        if self._error is not None:
            raise trio.BrokenResourceError(str(self._error)) from self._error

    def read(self, max_bytes: int | None) -> bytes | None:
        """Return some bytes, b"" at the end, None when there is nothing yet.  trio.BrokenResourceError: broken."""
        if self._buffer:
            size = len(self._buffer) if max_bytes is None else max_bytes
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
            self.notify()
            return data
        if self._ended:
            return b""
        self.check_writable()
        return None

    def notify(self) -> None:
        """Have everyone who waits look again."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()


class PipeStream(trio.abc.HalfCloseableStream):
    """Two pipes, one each way."""

    def __init__(self, incoming: Pipe, outgoing: Pipe, announce: Callable[[int], None]) -> None:
        """Read from one pipe and write to the other; `announce` is told of every write, before it."""
        self._incoming = incoming
        self._outgoing = outgoing
        self._announce = announce
        self._closed = False
        self._finished = False
        self._torn = False
        self._send_use = ExclusiveUse("another task is sending on this stream")
        self._receive_use = ExclusiveUse("another task is receiving from this stream")

    @property
    def unacked_bytes(self) -> int:
        """How many bytes the peer has not read."""
        return self._outgoing.unread_bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write, waiting for the reader where the window is full."""
        with self._send_use:
            await trio.lowlevel.checkpoint()
            self._check_writable()
            self._torn = True
            with memoryview(data) as view:
                position = 0
                while position < len(view):
                    piece = view[position : position + max(0, self._outgoing.room)]
                    if not piece:
                        await self._outgoing.wait_changed()
                        self._check_writable()
                        continue
                    self._announce(len(piece))
                    self._outgoing.write(piece)
                    position += len(piece)
            self._torn = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        with self._send_use:
            await trio.lowlevel.checkpoint()
            self._check_writable()
            while self._outgoing.room <= 0:
                await self._outgoing.wait_changed()
                self._check_writable()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        with self._send_use:
            await trio.lowlevel.checkpoint()
            if self._finished and not self._closed:
                return
            self._check_writable()
            self._finish()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived; b"" at the end."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receive_use:
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this stream is closed")
                data = self._incoming.read(max_bytes)
                if data is not None:
                    return data
                await self._incoming.wait_changed()

    def reset(self, code: CloseCode) -> None:
        """Break both directions at once and tell the peer why."""
        if self._closed:
            return
        self._closed = True
        if not self._finished or code is not CloseCode.OK:
            self._outgoing.fail(_error("gave up sending", code), drop=True)
        if not self._incoming.has_end:
            self._incoming.fail(_error("gave up reading", code), drop=True)
        self._incoming.notify()
        self._outgoing.notify()

    async def aclose(self) -> None:
        """Close: what was sent is still delivered, what was not read is dropped."""
        if not self._closed and not self._finished and not self._torn:
            self._finish()
        self.reset(CloseCode.OK)
        await trio.lowlevel.checkpoint()

    def lose(self, error: TransportLost) -> None:
        """The connection is gone; what had arrived before can still be read."""
        self._incoming.fail(error, drop=False)
        self._outgoing.fail(error, drop=False)

    def _check_writable(self) -> None:
        if self._closed or self._finished:
            raise trio.ClosedResourceError("this stream is closed for sending")
        self._outgoing.check_writable()

    def _finish(self) -> None:
        self._finished = True
        self._announce(0)
        self._outgoing.end()


def _error(deed: str, code: CloseCode) -> TransportLost:
    return TransportLost(f"the peer {deed} on this stream: {code.name}", code)
