"""The streams of one connection: who reads what, and what the peer opened."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio
from aioquic.quic import events

from meshsync.core.priority import Priority
from meshsync.errors import CloseCode, TransportLost
from meshsync.transports.quic.close import close_code_of_untrusted
from meshsync.transports.quic.stream import QuicStream

if TYPE_CHECKING:
    from meshsync.transports.quic.connection import QuicConnection


class StreamTable:
    """Finds the stream for an event.  The library bounds how many there are (streams_per_connection_max)."""

    def __init__(self, connection: QuicConnection) -> None:
        """Begin with no streams."""
        self._connection = connection
        self._streams: dict[int, QuicStream] = {}
        self._unaccepted: deque[QuicStream] = deque()
        self._retired: set[int] = set()
        self._ready = trio.Event()
        self._loss: TransportLost | None = None

    def __len__(self) -> int:
        """How many streams are known, the control stream included."""
        return len(self._streams)

    def open(self) -> QuicStream:
        """Make the next stream of this side."""
        machine = self._connection.machine
        stream_id = machine.get_next_available_stream_id()
        # Asking for an id does not reserve it.  Writing does, and writing nothing sends nothing.
        machine.send_stream_data(stream_id, b"")
        return self.add(stream_id)

    def add(self, stream_id: int) -> QuicStream:
        """Make the object for a stream that exists."""
        stream = self._streams[stream_id] = QuicStream(self._connection, stream_id)
        stream.set_priority(Priority.MEDIUM)
        if self._loss is not None:
            stream.lose(self._loss)
        return stream

    async def accept(self) -> QuicStream:
        """Wait for the next stream that the peer opened; what arrived before the connection was lost still comes."""
        await trio.lowlevel.checkpoint()
        while not self._unaccepted:
            if self._loss is not None:
                raise TransportLost(str(self._loss), self._loss.code)
            self._ready = trio.Event()
            await self._ready.wait()
        return self._unaccepted.popleft()

    def handle(self, event: events.QuicEvent) -> None:
        """Pass on what happened to a stream; events of other kinds are nobody's here."""
        match event:
            case events.StreamDataReceived():
                self._find(event.stream_id).deliver(event.data, event.end_stream)
            case events.StreamReset():
                error = _error("gave up sending", event.error_code)
                self._find(event.stream_id).reset_by_peer(error)
            case events.StopSendingReceived():
                error = _error("gave up reading", event.error_code)
                self._find(event.stream_id).stopped_by_peer(error)

    def lose(self, loss: TransportLost) -> None:
        """The connection is gone."""
        self._loss = loss
        for stream in self._streams.values():
            stream.lose(loss)
        self._ready.set()

    def retire(self, stream: QuicStream) -> None:
        """The application is done with this stream; it is forgotten when the library is done as well."""
        self._retired.add(stream.id)

    def prune(self) -> None:
        """Forget what nothing more can come for.  Sooner, a late event would look like a new stream."""
        if self._retired:
            over = {stream_id for stream_id in self._retired if not self._connection.machine.has_stream(stream_id)}
            self._retired -= over
            for stream_id in over:
                del self._streams[stream_id]
            if over:
                self._connection.machine.forget_streams(over)

    def _find(self, stream_id: int) -> QuicStream:
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self.add(stream_id)
            self._unaccepted.append(stream)
            self._ready.set()
        return stream


def _error(deed: str, error_code: int) -> TransportLost:
    code: CloseCode = close_code_of_untrusted(error_code)
    return TransportLost(f"the peer {deed} on this stream: {code.name}", code)
