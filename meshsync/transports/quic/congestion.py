"""The congestion window: New Reno that bears random loss, and on request keeps the queue of a slow link short.

New Reno takes every loss for a queue that overflowed.  On a link that loses by itself it then sends two datagrams in
a round trip.  And it grows its window until a queue does overflow: on a slow link with a large buffer everything
waits for seconds behind what was sent before, however urgent it is, and no order of sending helps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet_builder import QuicSentPacket

NAME = "meshsync"
"""Under this name the library finds the controller."""

SHORT_PATH_SECONDS = 0.005
"""Below this round-trip time most of what is measured is the receiver at work, and not the path."""

_QUEUE_SECONDS_MIN = 0.010  # a queue as short as this is no harm
_QUEUE_SECONDS_MIN_SHORT_PATH = 0.050  # a receiver that checks signatures may be away for as long
_QUEUE_ROUND_TRIPS = 0.5  # how much longer than the path itself a round trip may take
_DRAIN = 0.9  # of what the path holds: the queue runs empty, and shows how long the path is
_WINDOW_DATAGRAMS_MIN = 2  # RFC 9002 section 7.2
_LATE_IN_SLOW_START = 4  # so many late acknowledgements in a row end it: the window doubles with each round trip
_PATH_SECONDS = 15.0  # the shortest round trip of the last one or two such spans is taken for that of the path
_UNQUEUED_ROUND_TRIPS = 0.25  # a round trip that is longer than the path's by no more shows no queue worth the name
_LOST_SHARE_MAX = 0.75
_SHARE_PACKETS = 64  # over about so many
INITIAL_WINDOW_DATAGRAMS = 10  # RFC 9002 section 7.2


class Controller(RenoCongestionControl):
    """New Reno that tells two kinds of loss apart, with a bound on the delay that it causes.

    Where round trips show no queue, loss does not bring the window below the one with which every connection begins:
    what may be sent into a path of which nothing is known (RFC 9002 section 7.2) does no harm on one that is known to
    be free.  TCP Veno (Fu and Liew 2003) tells random loss by the queue, too.  Queues may be too short to be seen, so
    this ends where three packets in four are lost: connections that crowd in a narrow place offer it four times what
    it carries at most, and give way from there on.  Going by what is delivered, as TCP Westwood does, is no help on a
    link that loses a third: what is delivered is always less than what was sent.

    While `keep_queue_short` is set, a round trip of which every packet came late cuts the window to a little less
    than what the path holds without a queue.  The rate of the path is taken from the window and the time in which
    it was acknowledged, as TCP Vegas does (Brakmo and Peterson 1995); draining the queue on each cut keeps the
    measure of the path honest, as BBR does by probing.  Where others fill the queue, the path soon counts as that
    much longer, so that this connection keeps a share, though a smaller one than theirs.
    """

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.datagram_bytes = max_datagram_size
        self._keeps_queue_short = False
        self._path_seconds = self._path_seconds_before = math.inf
        self._span_ends = math.inf
        self._cut_at = -math.inf
        self._round_began = -math.inf
        self._round_seconds = math.inf
        self._late_in_row = 0
        self._least_seconds = self._least_seconds_before = math.inf
        self._least_began = -math.inf
        self._lost_share = 0.0

    def keep_queue_short(self, *, keep: bool) -> None:
        """Say whether something urgent may come while less urgent things are sent."""
        if keep and not self._keeps_queue_short:
            self._span_ends = -math.inf  # begins with the next acknowledgement
        self._keeps_queue_short = keep

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """Take note that a packet arrived."""
        window, is_used = self.congestion_window, 2 * self.bytes_in_flight >= self.congestion_window
        super().on_packet_acked(now=now, packet=packet)
        assert packet.sent_time is not None, "it was sent"
        seconds = now - packet.sent_time
        if self._keeps_queue_short:
            if not is_used:
                # A window that nothing fills says nothing about the path (RFC 9002 section 7.8).
                self.congestion_window = window
            if now >= self._span_ends:
                if self._span_ends > -math.inf:
                    self._path_seconds_before, self._path_seconds = self._path_seconds, seconds
                self._span_ends = now + _PATH_SECONDS
        self._path_seconds = min(self._path_seconds, seconds)
        self._lost_share -= self._lost_share / _SHARE_PACKETS
        if packet.sent_time >= self._least_began:
            self._least_seconds_before, self._least_seconds, self._least_began = self._least_seconds, seconds, now
        elif seconds < self._least_seconds:
            self._least_seconds = seconds
        # What was sent before the cut tells of the queue before it.
        if self._keeps_queue_short and packet.sent_time >= self._cut_at:
            self._watch(now, packet.sent_time, seconds)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """Take note that packets did not arrive."""
        lost, window = list(packets), self.congestion_window
        super().on_packets_lost(now=now, packets=lost)
        for _ in lost:
            self._lost_share += (1 - self._lost_share) / _SHARE_PACKETS
        initial = INITIAL_WINDOW_DATAGRAMS * self.datagram_bytes
        if self.congestion_window < min(window, initial) and self._is_path_free():
            self.congestion_window = min(window, initial)
            self.ssthresh = initial

    def _is_path_free(self) -> bool:
        """Whether the last two round trips show that no queue stands on the way; on a short path none would show."""
        path = min(self._path_seconds, self._path_seconds_before)
        late = path + max(_UNQUEUED_ROUND_TRIPS * path, _QUEUE_SECONDS_MIN)
        return (
            path >= SHORT_PATH_SECONDS
            and min(self._least_seconds, self._least_seconds_before) <= late
            and self._lost_share <= _LOST_SHARE_MAX
        )

    def _watch(self, now: float, sent_time: float, seconds: float) -> None:
        path = min(self._path_seconds, self._path_seconds_before)
        queue_min = _QUEUE_SECONDS_MIN if path >= SHORT_PATH_SECONDS else _QUEUE_SECONDS_MIN_SHORT_PATH
        late = path + max(_QUEUE_ROUND_TRIPS * path, queue_min)
        self._late_in_row = self._late_in_row + 1 if seconds > late else 0
        self._round_seconds = min(self._round_seconds, seconds)
        least = math.inf
        if sent_time >= self._round_began:
            least, self._round_seconds, self._round_began = self._round_seconds, math.inf, now
        is_rushing = self.ssthresh is None and self._late_in_row >= _LATE_IN_SLOW_START
        if is_rushing or late < least < math.inf:
            window = self.congestion_window * _DRAIN * max(path, queue_min) / seconds
            self.congestion_window = max(_WINDOW_DATAGRAMS_MIN * self.datagram_bytes, int(window))
            self.ssthresh = self.congestion_window
            self._cut_at = now
            self._late_in_row = 0


register_congestion_control(NAME, Controller)
