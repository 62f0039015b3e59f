"""One QUIC connection: a state machine without I/O, and the pump that does its I/O.

The pump is the only task that sends and fires the machine's timer.  Everyone else changes the machine
synchronously and kicks the pump; what is received is dispatched where it is received.
"""

from __future__ import annotations

import structlog
import trio
from aioquic.quic import events

from meshsync.core.hello import Hello, Role
from meshsync.core.limits import Limits
from meshsync.errors import CloseCode, LocalError, PeerError
from meshsync.ids import EndpointId
from meshsync.transports.base import Address, Admit, CloseReason, MessageChannel, Origin
from meshsync.transports.quic._seam import Machine
from meshsync.transports.quic._seam_recovery import TIMER_GRANULARITY
from meshsync.transports.quic.close import reason_of
from meshsync.transports.quic.identity import Authentication, LocalIdentity
from meshsync.transports.quic.outbox import Outbox
from meshsync.transports.quic.patience import Deadlines
from meshsync.transports.quic.registry import Registry
from meshsync.transports.quic.stream import QuicStream
from meshsync.transports.quic.stream_table import StreamTable
from meshsync.transports.quic.udp import DatagramSocket, is_loopback

_log = structlog.get_logger(__name__)

_HANDSHAKE_ROUND_TRIPS = 2
_CONTROL_STREAM = 0  # the first stream that the dialer opens


class QuicConnection:
    """A connection, from the first datagram to the last; see base.Connection.

    The layers above see it only once its peer's identity is proved; before that only its endpoint does.
    """

    def __init__(
        self,
        machine: Machine,
        socket: DatagramSocket,
        registry: Registry,
        *,
        origin: Origin,
        address: Address,
        identity: LocalIdentity,
        expect: EndpointId | None,
        admit: Admit,
        limits: Limits,
        silence_seconds: float,
    ) -> None:
        """Drive `machine`, whose first input has been given: aioquic cannot be asked for datagrams before."""
        self.machine = machine
        self.limits = limits
        self.admit = admit
        """Decides whether the peer may stay; the registry asks it."""
        self.streams = StreamTable(self)
        self.parked: set[QuicStream] = set()
        """Streams with a writer that waits for acknowledgements."""
        self._outbox = Outbox(machine, socket)
        self._registry = registry
        self._origin = origin
        self._address = address
        role = Role.DIALER if origin is Origin.DIALED else Role.ACCEPTOR
        self._authentication = Authentication(identity, role, expect, limits.hello_bytes_max)
        self._control: MessageChannel | None = None
        self._kicked = trio.Event()
        self._settled = trio.Event()  # the identity is proved, or the connection is closed
        self._closed = trio.Event()
        self._close_reason: CloseReason | None = None
        self._peer_error: PeerError | None = None
        self._terminated = False
        now = trio.current_time()
        self._deadlines = Deadlines(now, limits, silence_seconds)
        self._due = now
        self._nap = trio.CancelScope()
        self._bytes_received = 0
        # On a slow link the first packets are sent again before their answers can come, and measure nothing.
        self._round_trip_guess = 0.0

    # -- for the layers above

    @property
    def peer(self) -> EndpointId:
        """Who is at the other end.  LocalError: not known before the TLS handshake is over."""
        if self._authentication.peer is None:
            raise LocalError("the peer is not known yet")
        return self._authentication.peer

    @property
    def origin(self) -> Origin:
        """Who began."""
        return self._origin

    @property
    def address(self) -> Address:
        """Where the peer is; it may move."""
        address: Address | None = self.machine.get_peer_address()
        return address or self._address

    @property
    def nonces(self) -> tuple[bytes, bytes]:
        """The dialer's nonce and the acceptor's."""
        return self._authentication.exchange.nonces

    @property
    def hello(self) -> Hello:
        """What the peer says about itself."""
        return self._authentication.exchange.peer_hello

    @property
    def mac_ok(self) -> bool:
        """Whether the peer proved that it holds the mesh key."""
        return self._authentication.exchange.mac_ok

    @property
    def control(self) -> MessageChannel:
        """The stream that both sides have from the start.  LocalError: the identity is not proved yet."""
        if self._control is None:
            raise LocalError("there is no control channel before the hello is verified")
        return self._control

    @property
    def is_heard(self) -> bool:
        """Whether anything of the peer was understood."""
        return self.machine.is_begun

    @property
    def is_proved(self) -> bool:
        """Whether the peer's identity was proved and the peer admitted."""
        return self._control is not None

    @property
    def is_closed(self) -> bool:
        """True from the moment either side closed or the path was given up."""
        return self._close_reason is not None

    @property
    def rtt_seconds(self) -> float:
        """The smoothed round-trip time; where none was measured yet, what the handshake lets expect."""
        return self.machine.rtt_seconds or self._round_trip_guess

    @property
    def bytes_sent(self) -> int:
        """UDP payload sent."""
        return self._outbox.bytes_sent

    @property
    def bytes_received(self) -> int:
        """UDP payload received."""
        return self._bytes_received

    async def open_channel(self) -> MessageChannel:
        """Open a stream; the opener must speak first.  TransportLost: the connection is closed."""
        await trio.lowlevel.checkpoint()
        if self._close_reason is not None:
            raise self._close_reason.as_error()
        return self._channel(self.streams.open(), self.limits.frame_bytes_max)

    async def accept_channel(self) -> MessageChannel:
        """Wait for the next stream that the peer opened.  TransportLost: the connection is closed."""
        return self._channel(await self.streams.accept(), self.limits.frame_bytes_max)

    async def wait_closed(self) -> CloseReason:
        """Wait until the connection is closed, by whomever."""
        await self._closed.wait()
        assert self._close_reason is not None
        return self._close_reason

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close at once; the peer is told soon after.  Idempotent."""
        if self._close_reason is None:
            self.machine.close(error_code=code, reason_phrase=reason)
            self._mark_closed(CloseReason(code=code, reason=reason, by_peer=False))
            self.kick()

    # -- for the endpoint

    @property
    def began(self) -> float:
        """When the handshake began."""
        return self._deadlines.began

    @property
    def is_address_proved(self) -> bool:
        """Whether the peer receives what is sent to its address."""
        return self.machine.is_address_proved

    def give_way(self) -> None:
        """Others need the place of this handshake."""
        self.close(CloseCode.BUSY, "the handshake took too long for a busy node")

    async def wait_proved(self) -> None:
        """Wait until the peer's identity is proved.  PeerError: the peer is to blame; TransportLost: nobody is."""
        await self._settled.wait()
        reason = self._close_reason
        if reason is None:
            return
        if self._peer_error is not None:
            raise PeerError(str(self._peer_error), self._peer_error.code)
        if reason.code is CloseCode.VERSION:
            raise PeerError(reason.reason or "the peer speaks another version", CloseCode.VERSION)
        raise reason.as_error()

    def take(self, datagram: bytes, address: Address, now: float) -> None:
        """Take one datagram; follow a batch of them with `after_input`.  Never raises."""
        self._bytes_received += len(datagram)
        self._deadlines.active(now)
        if self._outbox.is_farewell_said:
            self._outbox.repeat_farewell()  # the peer still speaks, so it has not heard (RFC 9000 section 10.2.1)
            return
        try:
            self.machine.receive_datagram(datagram, address, now)
        except Exception:  # noqa: BLE001  # the boundary: what one peer sends must not hurt anyone else
            _log.exception("a datagram could not be processed", address=address)
            self.close(CloseCode.INTERNAL)

    def after_input(self) -> None:
        """Act on what the datagrams brought.  Never raises."""
        self._dispatch()
        self._wake_writers()
        now = trio.current_time()
        if self.machine.is_urgent(now):
            self.kick()
        elif now + TIMER_GRANULARITY < self._nap.deadline:
            # Whoever was woken may have an answer, and the acknowledgement travels with it.
            self._nap.deadline = now + TIMER_GRANULARITY

    def take_reset_by_untrusted(self, token: bytes) -> bool:
        """Take what ends a datagram that names no connection.  True: it was the peer's reset, and this is over."""
        if self._outbox.is_farewell_said or not self.machine.is_reset_by_untrusted(token):
            return False
        self.machine.lose()
        self._dispatch()
        self.kick()
        return True

    @property
    def patience_seconds(self) -> float:
        """How long to wait for a sign that the peer missed the close."""
        is_told = self._close_reason is not None and self._close_reason.by_peer
        return 0.0 if is_told else self.machine.probe_timeout_seconds

    def repeat_farewell(self) -> None:
        """Tell the peer once more that the connection is closed, if this side closed it."""
        self._outbox.repeat_farewell()

    async def run(self) -> None:
        """Pump until the connection has ended and its drain period is over."""
        while True:
            now = trio.current_time()
            if now >= self._due:
                self._run_timers(now)
                self.after_input()
            if self._terminated:
                return
            self._kicked = trio.Event()  # whatever was changed until here leaves with the next datagrams
            outgoing = self._outbox.collect(now)
            self.streams.prune()
            if outgoing:
                self._dispatch()  # ids that were just issued must be known before the peer can use them
                await self._outbox.send(outgoing)
            self._due = self._next_due()
            with trio.CancelScope(deadline=self._due) as self._nap:
                await self._kicked.wait()

    def kick(self) -> None:
        """Have the pump look at the machine."""
        self._kicked.set()

    # -- inside: time

    def _run_timers(self, now: float) -> None:
        due = self.machine.get_timer()
        if due is not None and now >= due:
            self.machine.handle_timer(now=now)
        if self._close_reason is not None:
            return
        if self._control is None:
            if now >= self._deadlines.handshake_due(is_heard=self.is_heard):
                waited = "the handshake took too long" if self.is_heard else "nobody answered"
                self.close(CloseCode.TIMEOUT, f"{waited}: {now - self.began:.3g} seconds")
        elif now >= self._deadlines.keepalive_due():
            self._deadlines.active(now)
            self.machine.send_ping(0)

    def _next_due(self) -> float:
        now = trio.current_time()
        due = self.machine.get_timer()
        deadline = float("inf") if due is None else due
        if self._close_reason is None:
            deadlines = self._deadlines
            is_shaking = self._control is None
            own = deadlines.handshake_due(is_heard=self.is_heard) if is_shaking else deadlines.keepalive_due()
            deadline = min(deadline, own)
        # The library's loss timer may stay armed in the past for a moment; asking again at once would spin.
        return deadline if deadline > now else now + TIMER_GRANULARITY

    # -- inside: streams

    def _wake_writers(self) -> None:
        if self.parked:
            woken = {stream for stream in self.parked if stream.wake_writer()}
            self.parked -= woken

    # -- inside: receiving

    def _dispatch(self) -> None:
        """Act on the machine's events.  Never raises: what one peer does must not hurt anyone else."""
        try:
            self._handle_events()
        except PeerError as error:
            self._peer_error = error
            self.close(error.code, str(error))
        except Exception:  # noqa: BLE001  # the boundary
            _log.exception("an event could not be processed", address=self.address)
            self.close(CloseCode.INTERNAL)

    def _handle_events(self) -> None:
        while (event := self.machine.next_event()) is not None:
            match event:
                case events.StreamDataReceived(stream_id=0) if self._control is None:
                    self._receive_hello(event.data, event.end_stream)
                case events.HandshakeCompleted():
                    self._say(self._authentication.secured(self.machine.peer_certificate))
                case events.ConnectionIdIssued():
                    self._registry.route(event.connection_id, self)
                case events.ConnectionIdRetired():
                    self._registry.unroute(event.connection_id)
                case events.ConnectionTerminated():
                    self._terminated = True
                case _:
                    self.streams.handle(event)
        if self._close_reason is None and self.machine.is_ending:
            self._mark_closed(reason_of(self.machine))

    def _receive_hello(self, data: bytes, end: bool) -> None:
        if self._close_reason is not None:
            return
        self._say(self._authentication.receive(data))
        rest = b""
        if self._authentication.is_done:
            rest = self._authentication.take_rest()
            self._become_proved()
        elif end:
            raise PeerError("the control stream ended within the hello")
        self.machine.consume(_CONTROL_STREAM, len(data) - len(rest))
        if self._control is not None:
            self.streams.handle(events.StreamDataReceived(data=rest, end_stream=end, stream_id=_CONTROL_STREAM))

    def _say(self, data: bytes) -> None:
        if data:
            self.machine.send_stream_data(_CONTROL_STREAM, data)

    def _become_proved(self) -> None:
        code = self._registry.admit(self)
        if code is not None:
            self.close(code)
            return
        self.machine.raise_connection_window(self.limits.connection_window_bytes)
        if is_loopback(self.address):
            self.machine.raise_datagram_bytes(self.limits.datagram_bytes_loopback)
        else:
            self.machine.allow_datagram_bytes(self.limits.datagram_bytes_probed)
        self._round_trip_guess = (trio.current_time() - self.began) / _HANDSHAKE_ROUND_TRIPS
        self._control = self._channel(self.streams.add(_CONTROL_STREAM), self.limits.control_frame_bytes_max)
        self._settled.set()

    # -- inside: the rest

    def _channel(self, stream: QuicStream, frame_bytes_max: int) -> MessageChannel:
        return MessageChannel(
            stream,
            frame_bytes_max=frame_bytes_max,
            limits=self.limits,
            reset=stream.reset,
            unacked=lambda: stream.unacked_bytes,
            pace=lambda: self.machine.path_bytes_per_second,
            round_trip=lambda: self.rtt_seconds,
            prioritise=stream.set_priority,
        )

    def _mark_closed(self, reason: CloseReason) -> None:
        self._close_reason = reason
        self.streams.lose(reason.as_error())
        self._settled.set()
        self._closed.set()
