"""One QUIC stream as a trio stream.

Data goes straight to and from the connection's state machine; only the connection's pump does I/O.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import trio

from meshsync.core.priority import Priority
from meshsync.errors import CloseCode, TransportLost
from meshsync.transports.channel import ExclusiveUse

if TYPE_CHECKING:
    from meshsync.transports.quic.connection import QuicConnection


class QuicStream(trio.abc.HalfCloseableStream):
    """A bidirectional stream of one connection.

    `receive_some` may be cancelled and loses nothing.  A `send_all` that is cancelled has sent an unknown part:
    close the stream with `reset`.  When the stream breaks, trio.BrokenResourceError has a TransportLost as its
    cause, with the code where the peer gave one.
    """

    def __init__(self, connection: QuicConnection, stream_id: int) -> None:
        """Belong to `connection`; only it makes streams."""
        self._connection = connection
        self._machine = connection.machine
        self.id = stream_id
        self._chunks: list[bytes] = []
        self._unread_bytes = 0
        self._ended = False  # everything up to the peer's FIN is in _chunks
        self._read_error: TransportLost | None = None
        self._write_error: TransportLost | None = None
        self._finished = False  # FIN was written
        self._torn = False  # a send_all is under way, or ended half-way
        self._closed = False
        self._readable = trio.Event()
        self._writable = trio.Event()
        self._send_use = ExclusiveUse("another task is sending on this stream")
        self._receive_use = ExclusiveUse("another task is receiving from this stream")

    @property
    def unacked_bytes(self) -> int:
        """How many of the bytes sent the peer has not acknowledged."""
        return self._machine.unacked_bytes(self.id)

    # -- for the application

    def set_priority(self, priority: Priority) -> None:
        """Send this stream's data before or behind that of others, what was buffered before included."""
        self._machine.set_priority(self.id, priority)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Buffer `data`, waiting while too much of what went before is unacknowledged."""
        with self._send_use:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check_writable()
            self._torn = True
            with memoryview(data) as view:
                position = 0
                while position < len(view):
                    room = self._room
                    if room <= 0:
                        await self._wait_writable()
                        continue
                    self._machine.send_stream_data(self.id, bytes(view[position : position + room]))
                    self._connection.kick()
                    position += room
            self._torn = False
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until `send_all` would take something at once."""
        with self._send_use:
            await trio.lowlevel.checkpoint()
            self._check_writable()
            while self._room <= 0:
                await self._wait_writable()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""
        with self._send_use:
            await trio.lowlevel.checkpoint()
            if self._finished and not self._closed:
                return
            self._check_writable()
            self._finish()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived, at most `max_bytes`, waiting for the first byte; b"" at the end."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receive_use:
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this stream is closed")
                if self._chunks:
                    return self._take(max_bytes)
                if self._ended:
                    return b""
                if self._read_error is not None:
                    raise trio.BrokenResourceError(str(self._read_error)) from self._read_error
                self._readable = trio.Event()
                await self._readable.wait()

    def reset(self, code: CloseCode) -> None:
        """Break both directions at once and tell the peer why."""
        self._close(code)

    async def aclose(self) -> None:
        """Close: what was sent is still delivered, what was not read is dropped."""
        if not self._closed:
            # After half a send_all an end would look clean to the peer, and is not.
            if self._write_error is None and not self._finished and not self._torn:
                self._finish()
            self._close(CloseCode.OK)
        await trio.lowlevel.checkpoint()

    # -- for the connection

    def deliver(self, data: bytes, end: bool) -> None:
        """Take data in order from the peer; `end` says that no more will come."""
        if self._closed or self._read_error is not None:
            self._credit(self._machine.settle(self.id))
        elif data:
            self._chunks.append(data)
            self._unread_bytes += len(data)
        self._ended = self._ended or end
        self._readable.set()

    def reset_by_peer(self, error: TransportLost) -> None:
        """The peer gave up sending: what was not read is void."""
        self._read_error = self._read_error or error
        self._drop_unread()
        self._readable.set()

    def stopped_by_peer(self, error: TransportLost) -> None:
        """The peer gave up reading."""
        self._write_error = self._write_error or error
        self._writable.set()

    def lose(self, error: TransportLost) -> None:
        """The connection is gone; what had arrived before can still be read."""
        self._read_error = self._read_error or error
        self._write_error = self._write_error or error
        self._readable.set()
        self._writable.set()

    def wake_writer(self) -> bool:
        """Something was acknowledged; return whether that woke the writer."""
        if self._room > 0:
            self._writable.set()
        return self._writable.is_set()

    # -- inside

    def _check_writable(self) -> None:
        if self._closed or self._finished:
            raise trio.ClosedResourceError("this stream is closed for sending")
        if self._write_error is not None:
            raise trio.BrokenResourceError(str(self._write_error)) from self._write_error

    @property
    def _room(self) -> int:
        return self._high_water_bytes - self.unacked_bytes

    @property
    def _high_water_bytes(self) -> int:
        """How much may be unacknowledged before the sender waits: what the path holds, twice.

        More would only wait here, where no message of the same stream can overtake it.
        """
        limits, path = self._connection.limits, self._machine.path_bytes
        if not path:
            return limits.send_high_water_bytes
        return max(
            min(limits.send_high_water_bytes, limits.send_slow_path_bytes), min(2 * path, limits.stream_window_bytes)
        )

    async def _wait_writable(self) -> None:
        self._writable = trio.Event()
        self._connection.parked.add(self)
        await self._writable.wait()
        self._check_writable()

    def _take(self, max_bytes: int | None) -> bytes:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        if max_bytes is not None and len(data) > max_bytes:
            self._chunks = [data[max_bytes:]]
            data = data[:max_bytes]
        else:
            self._chunks.clear()
        self._unread_bytes -= len(data)
        self._credit(self._machine.consume(self.id, len(data)))
        return data

    def _credit(self, is_due: bool) -> None:
        if is_due:
            self._connection.kick()

    def _finish(self) -> None:
        self._finished = True
        self._machine.send_stream_data(self.id, b"", end_stream=True)
        self._connection.kick()

    def _close(self, code: CloseCode) -> None:
        if self._closed:
            return
        self._closed = True
        self._drop_unread()
        self._machine.abandon_stream(self.id, code, reset=not self._finished or code is not CloseCode.OK)
        self._connection.streams.retire(self)
        self._connection.kick()
        self._readable.set()
        self._writable.set()

    def _drop_unread(self) -> None:
        self._machine.consume(self.id, self._unread_bytes)
        self._chunks.clear()
        self._unread_bytes = 0
        self._credit(self._machine.settle(self.id))
