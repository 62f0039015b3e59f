"""Endpoints of one process, connected in memory: for tests of the layers above.

The manners are those of the QUIC transport, and one suite of tests checks both.  There is no latency, no loss
and no cryptography: an endpoint is whoever it says it is.
"""

from __future__ import annotations

import hmac
import random
from collections import deque

import trio

from meshsync.core.hello import Hello
from meshsync.core.limits import LIMITS, Limits
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import EndpointId
from meshsync.transports.base import Address, Admit, CloseReason, MessageChannel, Origin
from meshsync.transports.pipe import Pipe, PipeStream


class LoopbackNetwork:
    """Where endpoints find each other by address."""

    def __init__(self, rng: random.Random) -> None:
        """Draw nonces and instances from `rng`."""
        self._rng = rng
        self._endpoints: dict[Address, LoopbackEndpoint] = {}
        self._next_port = 1

    def endpoint(
        self,
        endpoint_id: EndpointId,
        *,
        name: str,
        admit: Admit,
        instance: bytes | None = None,
        mesh_key: bytes | None = None,
        limits: Limits = LIMITS,
    ) -> LoopbackEndpoint:
        """Make an endpoint that can be dialled from now on."""
        address = ("127.0.0.1", self._next_port)
        self._next_port += 1
        hello = Hello(
            nonce=bytes(32), instance=instance or self._rng.randbytes(16), name=name, agent="meshsync-loopback"
        )
        endpoint = LoopbackEndpoint(self, endpoint_id, address, hello, admit=admit, mesh_key=mesh_key, limits=limits)
        self._endpoints[address] = endpoint
        return endpoint

    def find(self, address: Address) -> LoopbackEndpoint | None:
        """Return who listens at `address`."""
        return self._endpoints.get(address)

    def forget(self, endpoint: LoopbackEndpoint) -> None:
        """Nobody listens there any more."""
        self._endpoints.pop(endpoint.address, None)

    def new_nonce(self) -> bytes:
        """Return 32 bytes that no other connection has."""
        return self._rng.randbytes(32)


class LoopbackConnection:
    """One end of a connection; see base.Connection."""

    def __init__(
        self,
        peer: EndpointId,
        hello: Hello,
        *,
        origin: Origin,
        address: Address,
        nonces: tuple[bytes, bytes],
        limits: Limits,
    ) -> None:
        """Be one end; `join` gives it the other."""
        self.peer = peer
        self.hello = hello
        self.origin = origin
        self.address = address
        self.nonces = nonces
        self.rtt_seconds = 0.0
        self.bytes_sent = 0
        self.bytes_received = 0
        self._limits = limits
        self._far: LoopbackConnection | None = None
        self._control: MessageChannel | None = None
        self._streams: list[PipeStream] = []
        self._unaccepted: deque[PipeStream] = deque()
        self._accept_ready = trio.Event()
        self._close_reason: CloseReason | None = None
        self._closed = trio.Event()

    @classmethod
    def join(cls, near: LoopbackConnection, far: LoopbackConnection) -> None:
        """Make two ends one connection, with its control channel."""
        near._far, far._far = far, near
        near_stream, far_stream = near._make_pair(far, is_known=True)
        near._control = near._channel(near_stream, near._limits.control_frame_bytes_max)
        far._control = far._channel(far_stream, far._limits.control_frame_bytes_max)

    @property
    def control(self) -> MessageChannel:
        """The channel that both ends have from the start."""
        assert self._control is not None, "joined before anyone sees it"
        return self._control

    @property
    def is_closed(self) -> bool:
        """True from the moment either side closed."""
        return self._close_reason is not None

    async def open_channel(self) -> MessageChannel:
        """Open a stream; the opener must speak first.  TransportLost: the connection is closed."""
        await trio.lowlevel.checkpoint()
        if self._close_reason is not None:
            raise self._close_reason.as_error()
        assert self._far is not None, "joined before anyone sees it"
        near, _ = self._make_pair(self._far, is_known=False)
        return self._channel(near, self._limits.frame_bytes_max)

    async def accept_channel(self) -> MessageChannel:
        """Wait for the next stream that the peer opened.  TransportLost: the connection is closed."""
        await trio.lowlevel.checkpoint()
        while not self._unaccepted:
            if self._close_reason is not None:
                raise self._close_reason.as_error()
            self._accept_ready = trio.Event()
            await self._accept_ready.wait()
        return self._channel(self._unaccepted.popleft(), self._limits.frame_bytes_max)

    async def wait_closed(self) -> CloseReason:
        """Wait until the connection is closed, by whomever."""
        await self._closed.wait()
        assert self._close_reason is not None
        return self._close_reason

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close at once, here and at the peer.  Idempotent."""
        if self._close_reason is None:
            self.mark_closed(CloseReason(code, reason, by_peer=False))
            if self._far is not None:
                self._far.mark_closed(CloseReason(code, reason, by_peer=True))

    def mark_closed(self, reason: CloseReason) -> None:
        """Take note that one of the ends was closed."""
        if self._close_reason is None:
            self._close_reason = reason
            for stream in self._streams:
                stream.lose(reason.as_error())
            self._accept_ready.set()
            self._closed.set()

    def _make_pair(self, far: LoopbackConnection, *, is_known: bool) -> tuple[PipeStream, PipeStream]:
        forth, back = Pipe(self._limits.stream_window_bytes), Pipe(self._limits.stream_window_bytes)
        known = [is_known]

        def announce_forth(size: int) -> None:
            self._count(far, size)
            if not known[0]:
                known[0] = True
                far._unaccepted.append(far_stream)
                far._accept_ready.set()

        near_stream = PipeStream(back, forth, announce_forth)
        far_stream = PipeStream(forth, back, lambda size: far._count(self, size))
        self._streams.append(near_stream)
        far._streams.append(far_stream)
        return near_stream, far_stream

    def _count(self, far: LoopbackConnection, size: int) -> None:
        self.bytes_sent += size
        far.bytes_received += size

    def _channel(self, stream: PipeStream, frame_bytes_max: int) -> MessageChannel:
        return MessageChannel(
            stream,
            frame_bytes_max=frame_bytes_max,
            limits=self._limits,
            reset=stream.reset,
            unacked=lambda: stream.unacked_bytes,
        )


class LoopbackEndpoint:
    """Dials and accepts within one process; see base.Transport."""

    def __init__(
        self,
        network: LoopbackNetwork,
        endpoint_id: EndpointId,
        address: Address,
        hello: Hello,
        *,
        admit: Admit,
        mesh_key: bytes | None,
        limits: Limits,
    ) -> None:
        """Be reachable at `address`.  `hello` is a pattern: every connection has its own nonce."""
        self.id = endpoint_id
        self.address = address
        self._network = network
        self._hello = hello
        self._admit = admit
        self._mesh_key = mesh_key
        self._limits = limits
        self._connections: set[LoopbackConnection] = set()
        self._accepted: deque[LoopbackConnection] = deque()
        self._accept_ready = trio.Event()
        self._closed = False

    async def dial(self, address: Address, expect: EndpointId | None, admit: Admit | None = None) -> LoopbackConnection:
        """Connect to `address`; see base.Transport."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        far = self._network.find(address)
        if far is None:
            raise TransportLost(f"nobody answers at {address[0]} port {address[1]}", CloseCode.TIMEOUT)
        if expect is not None and far.id != expect:
            raise PeerError(f"{expect} was dialled and {far.id} answered", CloseCode.IDENTITY)
        nonces = (self._network.new_nonce(), self._network.new_nonce())
        near_end = self._make(far, Origin.DIALED, nonces)
        far_end = far._make(self, Origin.ACCEPTED, nonces)
        LoopbackConnection.join(near_end, far_end)
        code = (admit or self._admit)(far.id, near_end.hello, near_end.address, self._shares_key(far))
        if code is not None:
            near_end.close(code)
            raise CloseReason(code, "", by_peer=False).as_error()
        code = far.knock(far_end, self._shares_key(far))
        if code is not None:
            far_end.close(code)
        return near_end

    async def accept(self) -> LoopbackConnection:
        """Wait for the next connection; closed ones are skipped.  trio.ClosedResourceError: the endpoint is closed."""
        await trio.lowlevel.checkpoint()
        while True:
            while self._accepted:
                connection = self._accepted.popleft()
                if not connection.is_closed:
                    return connection
            self._check_open()
            self._accept_ready = trio.Event()
            await self._accept_ready.wait()

    async def aclose(self) -> None:
        """Close every connection with SHUTDOWN and be reachable no more."""
        self._closed = True
        self._network.forget(self)
        self._accept_ready.set()
        for connection in self._connections:
            connection.close(CloseCode.SHUTDOWN)
        self._connections.clear()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this endpoint is closed")

    def _shares_key(self, far: LoopbackEndpoint) -> bool:
        keys = (self._mesh_key, far._mesh_key)
        return keys[0] is not None and keys[1] is not None and hmac.compare_digest(keys[0], keys[1])

    def _make(self, far: LoopbackEndpoint, origin: Origin, nonces: tuple[bytes, bytes]) -> LoopbackConnection:
        nonce = nonces[1] if origin is Origin.DIALED else nonces[0]
        hello = Hello(nonce=nonce, instance=far._hello.instance, name=far._hello.name, agent=far._hello.agent)
        connection = LoopbackConnection(
            far.id, hello, origin=origin, address=far.address, nonces=nonces, limits=self._limits
        )
        self._connections = {known for known in self._connections if not known.is_closed} | {connection}
        return connection

    def knock(self, connection: LoopbackConnection, mac_ok: bool) -> CloseCode | None:
        """Take this side's end of a connection that a peer dialled, or say why not."""
        if len(self._accepted) >= self._limits.accept_queue_max:
            return CloseCode.BUSY
        code = self._admit(connection.peer, connection.hello, connection.address, mac_ok)
        if code is None:
            self._accepted.append(connection)
            self._accept_ready.set()
        return code
