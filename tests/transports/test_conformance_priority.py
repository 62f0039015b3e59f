"""Priorities of channels on every transport; what QUIC makes of them is in tests/transports/test_quic_priority.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from meshsync.core.limits import LIMITS
from meshsync.core.priority import Priority
from meshsync.transports.base import MessageChannel, Transport
from tests.transports.support import WORLDS, World
from tests.transports.test_conformance import connect, open_both


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_urgent_frames_pass_those_that_wait(world: World) -> None:
    """Otherwise an alarm waits for a bulk transfer to be read, or saying how urgent something is breaks a channel."""
    limits = replace(LIMITS, stream_window_bytes=100_000, send_high_water_bytes=100_000)

    async def send(channel: MessageChannel) -> None:
        for _ in range(10):
            await channel.send(bytes(50_000))

    async def scenario(first: Transport, second: Transport) -> None:
        near, far = await connect(first, second)
        bulk, bulk_there = await open_both(near, far)
        alarm, alarm_there = await open_both(near, far)
        bulk.set_priority(Priority.LOW)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, bulk)
            for number, priority in enumerate([Priority.CRITICAL, *Priority]):
                alarm.set_priority(priority)
                await alarm.send(bytes([number]) * 10_000)
                assert await alarm_there.receive() == bytes([number]) * 10_000
            near.control.set_priority(Priority.LOW)
            await near.control.send(b"still first")
            assert await far.control.receive() == b"still first"
            for _ in range(10):
                assert await bulk_there.receive() == bytes(50_000)
        await alarm.aclose()
        alarm.set_priority(Priority.LOW)  # too late to matter, and no error

    world.run(scenario, limits=limits)
