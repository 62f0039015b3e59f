"""The congestion window on paths that lose, with a queue and without one."""

from __future__ import annotations

import itertools
import random

import pytest
import trio
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.tls import Epoch

from meshsync.transports.quic.congestion import INITIAL_WINDOW_DATAGRAMS, Controller
from tests.simnet import LinkProfile
from tests.transports.support import connected, virtual_time

DATAGRAM_BYTES = 1200
PATH_SECONDS = 0.4


class Path:
    """A path, with whoever fills the window in each round trip."""

    def __init__(self) -> None:
        self.controller = Controller(max_datagram_size=DATAGRAM_BYTES)
        self._rng = random.Random(1)
        self._numbers = itertools.count()
        self._now = 0.0

    @property
    def window_datagrams(self) -> int:
        return self.controller.congestion_window // DATAGRAM_BYTES

    def carry(self, round_trips: int, *, loss: float, seconds: float = PATH_SECONDS) -> None:
        """Lose a share of all packets; a round trip takes so long."""
        for _ in range(round_trips):
            packets = [self._packet() for _ in range(self.window_datagrams)]
            self._now += seconds
            lost = [packet for packet in packets if self._rng.random() < loss]
            for packet in packets:
                if packet not in lost:
                    self.controller.on_packet_acked(now=self._now, packet=packet)
            if lost:
                self.controller.on_packets_lost(now=self._now, packets=lost)

    def _packet(self) -> QuicSentPacket:
        packet = QuicSentPacket(
            epoch=Epoch.ONE_RTT,
            in_flight=True,
            is_ack_eliciting=True,
            is_crypto_packet=False,
            packet_number=next(self._numbers),
            packet_type=QuicPacketType.ONE_RTT,
            sent_time=self._now,
            sent_bytes=DATAGRAM_BYTES,
        )
        self.controller.on_packet_sent(packet=packet)
        return packet


@pytest.mark.parametrize("loss", [0.05, 0.3, 0.5])
def test_loss_on_a_free_path_leaves_the_window_with_which_all_begin(loss: float) -> None:
    """Otherwise a radio link that loses a third is used as if it carried two packets in a round trip."""
    path = Path()
    path.carry(3, loss=0.0)
    path.carry(100, loss=loss)
    assert path.window_datagrams >= INITIAL_WINDOW_DATAGRAMS


def test_loss_with_a_queue_shrinks_the_window_as_ever() -> None:
    """Otherwise a slow link whose queue overflows stays full, and whoever shares it gets nothing."""
    path = Path()
    path.carry(3, loss=0.0)
    path.carry(20, loss=0.3, seconds=1.5 * PATH_SECONDS)
    assert path.window_datagrams < INITIAL_WINDOW_DATAGRAMS / 2


def test_loss_of_nearly_everything_shrinks_the_window_as_ever() -> None:
    """Otherwise many connections that crowd in a place with no room to queue keep each other out."""
    path = Path()
    path.carry(3, loss=0.0)
    path.carry(100, loss=0.95)
    assert path.window_datagrams == 2
    path.carry(20, loss=0.0)
    assert path.window_datagrams >= INITIAL_WINDOW_DATAGRAMS, "it is free again"


@virtual_time
async def test_much_gets_through_a_link_that_loses_a_third() -> None:
    """Otherwise a link that is bad and free carries a few kilobytes a second."""
    profile = LinkProfile(latency_seconds=0.2, loss=0.3)
    async with connected(profile=profile) as pair, trio.open_nursery() as nursery:
        channel = await pair.near.open_channel()
        nursery.start_soon(channel.send, bytes(200_000))
        received = await pair.far.accept_channel()
        began = trio.current_time()
        await received.receive()
        assert trio.current_time() - began < 30
