"""How long dials and handshakes wait: long enough for a slow radio, and no longer than a dead address is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode, TransportLost
from meshsync.transports.quic.patience import Deadlines, Silences
from tests.simnet import LinkProfile
from tests.transports.support import quic_endpoint, running_net, virtual_time

NOWHERE = ("10.0.0.99", 4000)


def test_address_where_nobody_answers_is_given_more_time() -> None:
    """Otherwise nobody ever waits as long as a slow link takes for its first answer."""
    silences = Silences(LIMITS)
    waits = []
    for _ in range(5):
        waits.append(silences.seconds(NOWHERE))
        silences.unanswered(NOWHERE)
    assert waits == [5, 10, 20, 20, 20]
    assert silences.seconds(("10.0.0.98", 4000)) == 5


def test_memory_of_silent_addresses_is_bounded() -> None:
    """Otherwise addresses that others invent fill it."""
    silences = Silences(replace(LIMITS, silent_addresses_max=3))
    for port in range(1, 10):
        silences.unanswered(("10.0.0.1", port))
    assert len(silences._seconds) == 3
    assert silences.seconds(("10.0.0.1", 9)) == 10


def test_handshake_has_its_time_once_something_was_heard() -> None:
    """Otherwise a dial over a slow link is given up half-way, or one to a dead address holds its place."""
    deadlines = Deadlines(100.0, LIMITS, 10.0)
    assert deadlines.handshake_due(is_heard=False) == 110
    assert deadlines.handshake_due(is_heard=True) == 100 + LIMITS.handshake_seconds_max


@virtual_time
async def test_dial_to_nobody_says_how_long_it_waited() -> None:
    """Otherwise the owner cannot tell a dead address from a slow link."""
    async with running_net() as net, quic_endpoint(net.socket("10.0.0.1"), 1) as dialer:
        for seconds in (5, 10, 20):
            began = trio.current_time()
            with pytest.raises(TransportLost, match=f"nobody answered: {seconds} seconds") as lost:
                await dialer.dial(NOWHERE, None)
            assert lost.value.code is CloseCode.TIMEOUT
            assert trio.current_time() - began == pytest.approx(seconds, abs=0.1)


@virtual_time
async def test_link_with_long_round_trips_needs_few_dials() -> None:
    """Otherwise satellites and HF radios carry nothing but first packets."""
    profile = LinkProfile(latency_seconds=5.0)
    async with (
        running_net(profile=profile) as net,
        quic_endpoint(net.socket("10.0.0.1"), 1) as dialer,
        quic_endpoint(net.socket("10.0.0.2"), 2) as acceptor,
    ):
        for _ in range(2):
            with pytest.raises(TransportLost):
                await dialer.dial(acceptor.address, acceptor.id)
        # From now on each try waits as long as it takes.
        for _ in range(2):
            near = await dialer.dial(acceptor.address, acceptor.id)
            assert near.rtt_seconds >= 10


@virtual_time
async def test_dead_address_costs_little() -> None:
    """Otherwise who waits for longer also sends for longer, on links that carry a kilobyte in a second."""
    async with running_net() as net, quic_endpoint(net.socket("10.0.0.1"), 1) as dialer:
        for datagrams in (6, 7, 9):
            before = net.datagrams
            with pytest.raises(TransportLost):
                await dialer.dial(NOWHERE, None)
            assert net.datagrams - before <= datagrams
