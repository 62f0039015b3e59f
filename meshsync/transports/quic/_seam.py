"""The file that touches aioquic's private names; loss recovery is in _seam_recovery.py, resets in _seam_reset.py.

It bends the library's connection where the public interface has no handle: credit that follows what the
application consumed, client certificates, the size of datagrams, when to acknowledge.  A test compares every
name used here with the library, so that a new release fails there and not in the field.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    END_STATES,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnectionState,
    QuicNetworkPath,
)
from aioquic.quic.packet import QuicFrameType, QuicHeader, QuicPacketType, QuicProtocolVersion, pull_quic_header
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography import x509

from meshsync.core.limits import Limits
from meshsync.core.priority import Priority
from meshsync.transports.quic import congestion
from meshsync.transports.quic._seam_recovery import TIMER_GRANULARITY, Recovery
from meshsync.transports.quic._seam_reset import ResettableConnection
from meshsync.transports.quic.schedule import Schedule

SUPPORTED_VERSIONS: list[int] = [QuicProtocolVersion.VERSION_1]
CID_BYTES = 8
CERTIFICATE_NOT_VERIFIED = ssl.CERT_NONE
"""TLS still proves that the peer holds the certificate's key; whom to trust is decided by the key."""

_PROBE_SIZE_AFTER_BYTES = 32_768
_PROBES_BEFORE_SHRINKING = 3
_IDLE_PROBE_TIMEOUTS = 6

NO_COMMON_VERSION = "Could not find a common protocol version"
"""The library's only sign, apart from its log, that version negotiation failed."""

# Acknowledge at once when this many datagrams came in, else with the next data or after the library's 1 ms.
_DATAGRAMS_PER_ACK = 8

# A frame's length is written in two bytes, which hold 14 bits (RFC 9000 section 16).
DATAGRAM_BYTES_MAX = 16_383


def parse_header(datagram: bytes) -> QuicHeader:
    """Read the first header of a datagram.  ValueError: there is none."""
    return pull_quic_header(Buffer(data=datagram), host_cid_length=CID_BYTES)


class Machine(ResettableConnection):
    """aioquic's connection with the behaviour that meshsync needs.  Still no I/O and no clock."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        limits: Limits,
        reset_token: Callable[[bytes], bytes],
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            reset_token=reset_token,
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._stream_window = limits.stream_window_bytes
        self._connection_window = configuration.max_data
        self._consumed: dict[int, int] = {}
        self._consumed_total = 0
        self._datagrams_since_ack = 0
        self._untried_size = 0
        self._schedule = Schedule()
        self._loss: Recovery = Recovery(
            congestion_control_algorithm=congestion.NAME,
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=self._max_datagram_size,
            peer_completed_address_validation=not self._is_client,
            send_probe=self._send_probe,
            logger=self._logger,
        )
        # One spare id is enough for a peer whose address changes; each costs 28 bytes at setup.
        self._local_active_connection_id_limit = 2
        for limit, value in (
            (self._local_max_streams_bidi, limits.streams_per_connection_max),
            (self._local_max_streams_uni, 0),
        ):
            limit.value = limit.sent = value

    # -- identity

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._request_client_certificate = True
        self.tls._signature_algorithms = [tls.SignatureAlgorithm.ED25519]
        self.tls._supported_groups = [tls.Group.X25519]

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """The certificate that the peer proved to hold the key of."""
        certificate: x509.Certificate | None = self.tls._peer_certificate
        return certificate

    # -- state

    @property
    def is_begun(self) -> bool:
        """True once a packet of the peer was understood; before that a server must not be driven."""
        return self._remote_initial_source_connection_id is not None

    @property
    def is_address_proved(self) -> bool:
        """Whether the peer's address was proved (RFC 9000 section 8.1)."""
        return bool(self._network_paths) and bool(self._network_paths[0].is_validated)

    @property
    def is_ending(self) -> bool:
        """True once either side closed, before the drain period is over."""
        return self._close_event is not None or self._state in END_STATES

    @property
    def is_draining(self) -> bool:
        """True when it was the peer that closed."""
        return self._state is QuicConnectionState.DRAINING

    @property
    def close_event(self) -> events.ConnectionTerminated | None:
        """Why the connection ends; the library tells only after the drain period."""
        return self._close_event

    @property
    def rtt_seconds(self) -> float:
        """The smoothed round-trip time, 0.0 before the first measurement."""
        return self._loss.rtt_seconds

    @property
    def probe_timeout_seconds(self) -> float:
        """How long an answer may take (RFC 9002 section 6.2.1)."""
        return float(self._loss.get_probe_timeout())

    @property
    def path_bytes(self) -> int:
        """How many bytes a long path is thought to hold; a short one holds nothing worth counting."""
        return self._loss.congestion_window if self._loss.rtt_least_seconds > congestion.SHORT_PATH_SECONDS else 0

    @property
    def path_bytes_per_second(self) -> float:
        """What a long path is thought to carry: a window in each round trip; inf for a short one.

        As long as no round trip was measured it is taken to be a second.
        """
        if not self.rtt_seconds:
            return float(self._loss.congestion_window)
        return self.path_bytes / self.rtt_seconds if self.path_bytes else math.inf

    @property
    def host_cids(self) -> list[bytes]:
        """The connection ids that the peer may address."""
        return [connection_id.cid for connection_id in self._host_cids]

    # -- size of datagrams

    def raise_datagram_bytes(self, size: int) -> None:
        """Send datagrams of up to `size` bytes from here on; only for paths that are known to carry them."""
        size = min(size, DATAGRAM_BYTES_MAX)
        if size > self._max_datagram_size:
            self._set_datagram_bytes(size)

    def _set_datagram_bytes(self, size: int) -> None:
        self._max_datagram_size = size
        self._loss.set_datagram_bytes(size)

    def allow_datagram_bytes(self, size: int) -> None:
        """Try datagrams of `size` bytes once there is much to send, and keep to them if one arrives (RFC 8899)."""
        self._untried_size = size

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """Return what is to be sent now."""
        outgoing = super().datagrams_to_send(now)
        if self._untried_size and self._handshake_confirmed and not self.is_ending:
            path = self._network_paths[0]
            if path.is_validated and path.bytes_sent >= _PROBE_SIZE_AFTER_BYTES:
                outgoing += self._probe_size(path, self._untried_size, now)
                self._untried_size = 0
        return outgoing

    def _probe_size(self, path: QuicNetworkPath, size: int, now: float) -> list[tuple[bytes, Any]]:
        assert self._version is not None, "settled by the handshake"
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[tls.Epoch.ONE_RTT])
        buffer: Buffer = builder.start_frame(
            QuicFrameType.PING, capacity=1, handler=self._on_size_probe_delivery, handler_args=(size,)
        )
        buffer.push_bytes(bytes(builder.remaining_buffer_space))  # PADDING frames are zeros
        # A probe that is lost says something about its size, nothing about congestion (RFC 8899 section 3).
        assert builder._packet is not None, "just begun"
        builder._packet.in_flight = False
        datagrams: list[tuple[bytes, Any]] = self._flush_builder(
            builder=builder, network_path=path, peer_cid=self._peer_cid.cid, now=now
        )
        return datagrams

    def _on_size_probe_delivery(self, delivery: QuicDeliveryState, size: int) -> None:
        if delivery is QuicDeliveryState.ACKED:
            self.raise_datagram_bytes(size)

    def _idle_timeout(self) -> float:
        # The standard asks for three probe timeouts (RFC 9000 section 10.1).  A link that loses every third datagram
        # would then be given up again and again.
        return max(super()._idle_timeout(), _IDLE_PROBE_TIMEOUTS * float(self._loss.get_probe_timeout()))

    def handle_timer(self, now: float) -> None:
        """Act on the timer."""
        super().handle_timer(now)
        # Nothing long comes through any more: the path has changed.  What was lost is cut anew when it is sent again.
        if self._loss.probes_unanswered >= _PROBES_BEFORE_SHRINKING:
            self._set_datagram_bytes(self._configuration.max_datagram_size)

    # -- sending

    def is_urgent(self, now: float) -> bool:
        """Whether what just came in should be answered at once.  Anything else can wait for the ACK's timer."""
        space = self._spaces[tls.Epoch.ONE_RTT]
        return (
            not self._handshake_confirmed
            or self.is_ending
            or (space.ack_at is not None and space.ack_at <= now)
            or self._is_ack_worth_sending()
        )

    def has_stream(self, stream_id: int) -> bool:
        """Whether anything can still happen on the stream."""
        return stream_id in self._streams

    def unacked_bytes(self, stream_id: int) -> int:
        """How much of what was written to the stream is not acknowledged."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    def set_priority(self, stream_id: int, priority: Priority) -> None:
        """Send a stream before or behind others from here on.

        Where streams differ, the queue on the way is kept short: what was sent before cannot be overtaken.
        """
        self._schedule.set_priority(stream_id, priority)
        self._loss.keep_queue_short(keep=self._schedule.is_mixed)

    def forget_streams(self, stream_ids: Iterable[int]) -> None:
        """These streams are over, and no stream will have their ids."""
        self._schedule.forget(stream_ids)
        self._loss.keep_queue_short(keep=self._schedule.is_mixed)

    def abandon_stream(self, stream_id: int, code: int, *, reset: bool) -> None:
        """Stop reading a stream and, with `reset`, writing it, wherever these are not over yet."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if reset:
            self.reset_stream(stream_id, code)
        if not stream.receiver.is_finished:
            self.stop_stream(stream_id, code)

    def _write_handshake(self, builder: QuicPacketBuilder, epoch: tls.Epoch, now: float) -> None:
        # A client that has the keys for it answers with Handshake packets alone: the first of them has the server
        # drop its Initial keys (RFC 9001 section 4.9.1), so an acknowledgement there would tell it nothing, and
        # cost a datagram of 1200 bytes (RFC 9000 section 14.1).
        if self._is_client and epoch is tls.Epoch.INITIAL and self._cryptos[tls.Epoch.HANDSHAKE].send.is_valid():
            self._spaces[epoch].ack_at = None
        super()._write_handshake(builder, epoch, now)

    def _write_application(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float) -> None:
        space = self._spaces[tls.Epoch.ONE_RTT]
        if space.ack_at is not None and space.ack_at >= now and self._is_ack_worth_sending():
            space.ack_at = now - TIMER_GRANULARITY
        super()._write_application(builder, network_path, now)
        if len(self._consumed) > len(self._streams):  # the library has let go of streams that are over
            self._consumed = {key: value for key, value in self._consumed.items() if key in self._streams}

    def _write_stream_frame(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream, max_offset: int
    ) -> int:
        before = builder.remaining_buffer_space
        used: int = super()._write_stream_frame(builder, space, stream, max_offset)
        if builder.remaining_buffer_space < before:
            assert stream.stream_id is not None, "only streams of crypto data have no id"
            self._schedule.served(stream.stream_id, builder.packet_number)
        return used

    def _is_ack_worth_sending(self) -> bool:
        return self._datagrams_since_ack >= _DATAGRAMS_PER_ACK or any(
            not stream.sender.buffer_is_empty for stream in self._streams_queue
        )

    def _write_ack_frame(self, builder: QuicPacketBuilder, space: QuicPacketSpace, now: float) -> None:
        super()._write_ack_frame(builder, space, now)
        self._datagrams_since_ack = 0

    # -- receiving

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Take one datagram."""
        self._datagrams_since_ack += 1
        super().receive_datagram(data, addr, now)

    # The library doubles its windows from the highest offset seen, gaps included.  Here they slide with what the
    # application consumed, so a peer makes this node hold one window at most, however it arranges its frames.

    def consume(self, stream_id: int, size: int) -> bool:
        """Count `size` bytes of a stream as read by the application.  True: there is news for the peer, so pump."""
        self._consumed_total += size
        stream = self._streams.get(stream_id)
        if stream is None:
            return self._is_connection_credit_due()
        consumed = self._consumed.get(stream_id, 0) + size
        self._consumed[stream_id] = consumed
        return self._is_connection_credit_due() or self._is_stream_credit_due(stream, consumed)

    def settle(self, stream_id: int) -> bool:
        """Count everything received or announced on a stream as consumed: nobody will read it.  True: pump.

        Without this, streams that were abandoned would use up the connection's credit until nothing moves.
        Call it again for whatever still arrives.
        """
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._consumed_total += stream.receiver.highest_offset - self._consumed.get(stream_id, 0)
            self._consumed[stream_id] = stream.receiver.highest_offset
        return self._is_connection_credit_due()

    def raise_connection_window(self, size: int) -> None:
        """Let the peer have up to `size` bytes on the way, from here on."""
        self._connection_window = size

    def _is_connection_credit_due(self) -> bool:
        window = self._connection_window
        return self._consumed_total + window - self._local_max_data.value >= window // 4

    def _is_stream_credit_due(self, stream: QuicStream, consumed: int) -> bool:
        window = self._stream_window
        return not stream.receiver.is_finished and consumed + window - stream.max_stream_data_local >= window // 4

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        # The library calls this once for each packet, before it goes through the queue.
        self._schedule.arrange(self._streams_queue)
        credit = self._local_max_data
        if self._is_connection_credit_due():
            credit.value = self._consumed_total + self._connection_window
        used = credit.used
        credit.used = 0  # keeps the library from doubling
        try:
            super()._write_connection_limits(builder, space)
        finally:
            credit.used = used

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        del space  # as the library calls it
        assert stream.stream_id is not None, "only streams of crypto data have no id"
        consumed = self._consumed.get(stream.stream_id, 0)
        if self._is_stream_credit_due(stream, consumed):
            stream.max_stream_data_local = consumed + self._stream_window
        if stream.max_stream_data_local_sent == stream.max_stream_data_local or stream.receiver.is_finished:
            return
        buffer: Buffer = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        buffer.push_uint_var(stream.stream_id)
        buffer.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local
