"""A cable between two nodes: a UDP relay on loopback that can delay what goes through it, and can be cut."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

_DATAGRAM_BYTES_MAX = 65_535
_BUFFER_BYTES = 4 * 1024 * 1024
_Address = tuple[str, int]
_Delayed = tuple[float, bytes]


class Cable:
    """One node dials `address`, and so reaches the other one, which is at `target`."""

    def __init__(self, target: str, one_way_seconds: float) -> None:
        host, _, port = target.rpartition(":")
        self.is_cut = False
        """While it is, whatever is sent is lost."""
        self.near = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        self.far = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        self._one_way_seconds = one_way_seconds
        self._target: _Address = (host, int(port))
        self._caller: _Address | None = None

    @property
    def address(self) -> str:
        """The address to dial."""
        return "{}:{}".format(*self.near.getsockname())

    async def bind(self) -> None:
        """Take a port at each end."""
        for socket in (self.near, self.far):
            # Both ends of a window's worth of data have to fit: a loss here would be the benchmark's own.
            socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, _BUFFER_BYTES)
            await socket.bind(("127.0.0.1", 0))

    async def receive(self, socket: trio.socket.SocketType, queue: trio.MemorySendChannel[_Delayed]) -> None:
        """Take in what arrives at one end."""
        while True:
            data, sender = await socket.recvfrom(_DATAGRAM_BYTES_MAX)
            if socket is self.near:
                self._caller = sender
            if not self.is_cut:
                queue.send_nowait((trio.current_time() + self._one_way_seconds, data))

    async def deliver(self, socket: trio.socket.SocketType, queue: trio.MemoryReceiveChannel[_Delayed]) -> None:
        """Let out at one end what came in at the other."""
        async for due, data in queue:
            await trio.sleep_until(due)
            receiver = self._target if socket is self.far else self._caller
            if receiver is not None and not self.is_cut:
                await socket.sendto(data, receiver)


@asynccontextmanager
async def open_cable(target: str, one_way_seconds: float = 0.0) -> AsyncIterator[Cable]:
    """A cable to the node at `target`.  It holds any number of datagrams: the flow control of the nodes bounds it."""
    cable = Cable(target, one_way_seconds)
    with cable.near, cable.far:
        await cable.bind()
        async with trio.open_nursery() as nursery:
            for end, other_end in ((cable.near, cable.far), (cable.far, cable.near)):
                put, take = trio.open_memory_channel[_Delayed](math.inf)
                nursery.start_soon(partial(cable.receive, end, put))
                nursery.start_soon(partial(cable.deliver, other_end, take))
            yield cable
            nursery.cancel_scope.cancel()
