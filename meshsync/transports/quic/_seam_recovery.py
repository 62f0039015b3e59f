"""The part of the seam that concerns loss: aioquic's private names of pacing and loss recovery.

The library takes a packet for lost when three later ones are acknowledged.  Networks that reorder, such as
wireless links and emulated ones with jitter, then lose nothing and yet look congested: the window collapses
to a few packets.  So when packets that were taken for lost turn out to have arrived, this connection stops
counting packets, waits by time alone (as RACK does, RFC 8985), and undoes the reduction of its window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery, QuicPacketSpace

from meshsync.transports.quic.congestion import INITIAL_WINDOW_DATAGRAMS

TIMER_GRANULARITY = 0.001  # seconds; the system's timers are no finer, nor is RFC 9002 (kGranularity)

# How long a packet may be overtaken before it counts as lost, in round-trip times; one step further with every
# proof that this was too short.  RFC 9002 section 6.1.2 begins with 9/8.
_TIME_THRESHOLDS = (9 / 8, 5 / 4, 3 / 2, 2.0)

PROBE_SECONDS = 2.0
HANDSHAKE_PROBE_SECONDS = 6.4
"""How far probes may be apart while nothing is heard, or as far as the path's own probe timeout: see Recovery."""

_REMEMBERED_MAX = 64  # packets taken for lost, in case they turn up


class Pacer(QuicPacketPacer):
    """Pacing for a timer of one millisecond: what falls due until the timer can fire may leave in one burst.

    The library allows bursts of 16 packets and would then wait for times that the system cannot keep.
    """

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Follow the congestion window."""
        super().update_rate(congestion_window=congestion_window, smoothed_rtt=smoothed_rtt)
        self.bucket_max = max(self.bucket_max, 2 * TIMER_GRANULARITY)

    def set_datagram_bytes(self, size: int) -> None:
        """Count datagrams of this size."""
        self._max_datagram_size = size


class Recovery(QuicPacketRecovery):
    """Loss recovery that learns when a network reorders, and that does not lose heart while one is cut.

    Each probe that is not answered doubles the time to the next (RFC 9002 section 6.2.1), so that senders retreat
    from a path that is congested.  After a cut of half a minute the next probe would be half a minute away, though
    the path is free again.  So the doubling ends at PROBE_SECONDS, and a path whose own probe timeout is above half of
    that is probed once in each: where half of all is lost, several probes in a row are, though nothing is congested.
    That is less careful than the standard asks for, and what is left of the care is this: a probe is one datagram, in
    the end one a second at most and one in each probe timeout, which is less than the smallest window allows (two
    datagrams a round trip, section 7.2); and it is sent only while something is unacknowledged, and until the idle
    time is over.
    """

    def __init__(self, *, max_datagram_size: int, **options: Any) -> None:
        super().__init__(max_datagram_size=max_datagram_size, **options)
        self._pacer: Pacer = Pacer(max_datagram_size=max_datagram_size)
        self._patience = 0  # 0: count packets; above, _TIME_THRESHOLDS[_patience - 1] round-trip times
        self._taken_for_lost: dict[int, None] = {}
        self._probes_unanswered = 0
        self._before_loss: tuple[int, int | None] | None = None

    @property
    def rtt_seconds(self) -> float:
        """The smoothed round-trip time, 0.0 before the first measurement."""
        return float(self._rtt_smoothed)

    @property
    def rtt_least_seconds(self) -> float:
        """The shortest round trip seen: what the path itself takes; 0.0 before the first measurement."""
        return float(self._rtt_min) if self._rtt_initialized else 0.0

    @property
    def probes_unanswered(self) -> int:
        """How often in a row nothing was heard within the probe timeout."""
        return self._probes_unanswered if self._pto_count else 0

    def on_loss_detection_timeout(self, *, now: float) -> None:
        """Send a probe, or take for lost what is overdue."""
        before = self._pto_count
        super().on_loss_detection_timeout(now=now)
        if self._pto_count > before:
            self._probes_unanswered = self._probes_unanswered + 1 if before else 1
            seconds_max = PROBE_SECONDS if self.handshake_confirmed else HANDSHAKE_PROBE_SECONDS
            doublings_max = int(math.log2(max(1.0, seconds_max / self.get_probe_timeout())))
            self._pto_count = min(self._pto_count, doublings_max)

    def set_datagram_bytes(self, size: int) -> None:
        """Count datagrams of this size."""
        controller: Any = self._cc
        controller._max_datagram_size = size  # noqa: SLF001  # half of the seam
        window = INITIAL_WINDOW_DATAGRAMS * size
        if size < controller.datagram_bytes:  # another path, of which nothing is known (RFC 9000 section 9.4)
            controller.congestion_window = min(controller.congestion_window, window)
        elif controller.ssthresh is None:  # else the window is what the path was found to hold
            controller.congestion_window = max(controller.congestion_window, window)
        controller.datagram_bytes = size
        self._pacer.set_datagram_bytes(size)

    def keep_queue_short(self, *, keep: bool) -> None:
        """Let no long queue form on the way, from here on or no longer."""
        controller: Any = self._cc
        controller.keep_queue_short(keep=keep)

    def on_ack_received(self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        """Take note of what arrived, late or not."""
        if self._taken_for_lost and space.is_application_data:
            found = [
                number
                for number in self._taken_for_lost
                if any(acked.start <= number < acked.stop for acked in ack_rangeset)
            ]
            if found:
                self._learn(found)
        super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)

    def _learn(self, found: list[int]) -> None:
        for number in found:
            del self._taken_for_lost[number]
        self._patience = min(self._patience + 1, len(_TIME_THRESHOLDS))
        if self._before_loss is not None:
            window, self._cc.ssthresh = self._before_loss
            self._cc.congestion_window = max(self._cc.congestion_window, window)
            self._before_loss = None

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        if not self._patience:
            super()._detect_loss(now=now, space=space)
            return
        delay = _TIME_THRESHOLDS[self._patience - 1] * max(self._rtt_latest, self._rtt_smoothed)
        lost = []
        space.loss_time = None
        for number, packet in space.sent_packets.items():
            if number > space.largest_acked_packet:
                break
            assert packet.sent_time is not None, "registered when it was sent"
            if packet.sent_time > now - delay:
                space.loss_time = packet.sent_time + delay
                break
            lost.append(packet)
        self._on_packets_lost(
            now=now, packets=lost, persistent_congestion=self._in_persistent_congestion(packets=lost), space=space
        )

    def _on_packets_lost(
        self,
        *,
        congestion_event: bool = True,
        now: float,
        packets: Iterable[QuicSentPacket],
        persistent_congestion: bool = False,
        space: QuicPacketSpace,
    ) -> None:
        gone = list(packets)
        before = (self._cc.congestion_window, self._cc.ssthresh)
        super()._on_packets_lost(
            congestion_event=congestion_event,
            now=now,
            packets=gone,
            persistent_congestion=persistent_congestion,
            space=space,
        )
        if congestion_event and space.is_application_data:
            if self._cc.congestion_window < before[0]:
                self._before_loss = before
            self._taken_for_lost.update((packet.packet_number, None) for packet in gone)
            while len(self._taken_for_lost) > _REMEMBERED_MAX:
                del self._taken_for_lost[next(iter(self._taken_for_lost))]
