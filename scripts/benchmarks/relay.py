"""A UDP relay that delays: time through it, divided by its round trip, is how many round trips something takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

_DATAGRAM_BYTES_MAX = 65_535
_BUFFER_BYTES = 4 * 1024 * 1024
_Address = tuple[str, int]
_Delayed = tuple[float, bytes]


class _Relay:
    """One client's datagrams go to the target, and the target's back to the client, each after the delay."""

    def __init__(self, target: _Address, one_way_seconds: float) -> None:
        self.near = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        self.far = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        self.client: _Address | None = None
        self._target = target
        self._delay = one_way_seconds

    async def listen(self, *, from_client: bool, queue: trio.MemorySendChannel[_Delayed]) -> None:
        socket = self.near if from_client else self.far
        while True:
            data, sender = await socket.recvfrom(_DATAGRAM_BYTES_MAX)
            if from_client:
                self.client = sender
            queue.send_nowait((trio.current_time() + self._delay, data))

    async def deliver(self, *, to_client: bool, queue: trio.MemoryReceiveChannel[_Delayed]) -> None:
        async for due, data in queue:
            await trio.sleep_until(due)
            if not to_client:
                await self.far.sendto(data, self._target)
            elif self.client is not None:
                await self.near.sendto(data, self.client)


@asynccontextmanager
async def open_relay(target: str, one_way_seconds: float) -> AsyncIterator[str]:
    """The address of a relay to the node at `target`.  It queues without bound: a node's windows bound it."""
    host, _, port = target.rpartition(":")
    relay = _Relay((host, int(port)), one_way_seconds)
    with relay.near, relay.far:
        for socket in (relay.near, relay.far):
            socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, _BUFFER_BYTES)
            await socket.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            for outward in (True, False):
                sender, receiver = trio.open_memory_channel[_Delayed](float("inf"))
                nursery.start_soon(lambda out=outward, end=sender: relay.listen(from_client=out, queue=end))
                nursery.start_soon(lambda out=outward, end=receiver: relay.deliver(to_client=not out, queue=end))
            yield "{}:{}".format(*relay.near.getsockname())
            nursery.cancel_scope.cancel()
