"""Cables: frames from one interface to the other, and back, late, lost or in another order."""

from __future__ import annotations

import random

import trio

from meshsync.lab.agenda import Agenda
from meshsync.lab.cable.ends import End, require_right
from meshsync.lab.cable.frames import datagrams, frame_bytes
from meshsync.lab.impairments import Impairment, LinkImpairment
from meshsync.lab.wire import Wire

UNDER_WAY_BYTES_MAX = 64 * 1024 * 1024
"""What a direction holds at most; more is lost, as where a link's queue is full."""


class Direction:
    """One direction of a cable."""

    def __init__(self, source: End, target: End, impairment: Impairment, rng: random.Random) -> None:
        self.wire = Wire(rng, impairment, trio.current_time())
        self._source = source
        self._target = target
        self._agenda: Agenda[bytes] = Agenda()
        self._bytes = 0

    async def take_in(self) -> None:
        """Take in frames for ever."""
        while True:
            for frame in datagrams(await self._source.receive()):
                for due in self.wire.carry(frame_bytes(frame), trio.current_time()):
                    self._put(due, frame)

    def _put(self, due: float, frame: bytes) -> None:
        if self._bytes + len(frame) > UNDER_WAY_BYTES_MAX:
            return
        self._bytes += len(frame)
        self._agenda.add(due, frame)

    async def let_out(self) -> None:
        """Let out frames for ever, each when it is due."""
        while True:
            await self._agenda.wait()
            for frame in self._agenda.take():
                self._bytes -= len(frame)
                await self._target.send(frame)


class Cable:
    """Both directions between two interfaces."""

    KIND = "user-space"

    def __init__(self, first: str, second: str, impairment: LinkImpairment, rng: random.Random) -> None:
        self._ends = End(first), End(second)
        self.forward = Direction(self._ends[0], self._ends[1], impairment.forward, rng)
        self.backward = Direction(self._ends[1], self._ends[0], impairment.backward, rng)

    def impair(self, impairment: LinkImpairment) -> None:
        """From now on do this to what goes in."""
        now = trio.current_time()
        self.forward.wire.impair(impairment.forward, now)
        self.backward.wire.impair(impairment.backward, now)

    def counts(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """How many frames were carried, and how many lost, in each direction."""
        forward, backward = self.forward.wire, self.backward.wire
        return (forward.carried, forward.lost), (backward.carried, backward.lost)

    async def run(self) -> None:
        """Carry frames until cancelled.  LocalError: this process must not open packet sockets."""
        require_right()
        try:
            async with trio.open_nursery() as nursery:
                for direction in (self.forward, self.backward):
                    nursery.start_soon(direction.take_in)
                    nursery.start_soon(direction.let_out)
        finally:
            for end in self._ends:
                end.close()
