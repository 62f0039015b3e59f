"""A cable between two nodes: a UDP relay on loopback that can be long, narrow, and cut."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

_DATAGRAM_BYTES_MAX = 65_535
_BUFFER_BYTES = 4 * 1024 * 1024
_Address = tuple[str, int]
_Delayed = tuple[float, bytes]


@dataclass(frozen=True)
class Kind:
    """How a cable treats what goes through it, the same both ways."""

    one_way_seconds: float = 0.0
    bytes_per_second: float = math.inf
    """Of UDP payload; what comes faster waits."""
    queue_bytes: float = math.inf
    """What may wait; beyond, the newest is lost."""
    datagram_bytes_max: int = _DATAGRAM_BYTES_MAX
    """Longer ones are lost, as on a real link."""


class Cable:
    """One node dials `address`, and so reaches the other one, which is at `target`."""

    def __init__(self, target: str, kind: Kind) -> None:
        host, _, port = target.rpartition(":")
        self.is_cut = False
        """While it is, whatever is sent is lost."""
        self.record: Callable[[bool, bytes], None] | None = None
        """Told of each datagram that is let in: whether the near end sent it, and its bytes."""
        self.near = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        self.far = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        self._kind = kind
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
        kind, free_at = self._kind, -math.inf
        while True:
            data, sender = await socket.recvfrom(_DATAGRAM_BYTES_MAX)
            if socket is self.near:
                self._caller = sender
            now = trio.current_time()
            free_at = max(now, free_at)
            waiting_bytes = (free_at - now) * kind.bytes_per_second if free_at > now else 0
            if self.is_cut or len(data) > kind.datagram_bytes_max or waiting_bytes + len(data) > kind.queue_bytes:
                continue
            if self.record is not None:
                self.record(socket is self.near, data)
            free_at += len(data) / kind.bytes_per_second
            queue.send_nowait((free_at + kind.one_way_seconds, data))

    async def deliver(self, socket: trio.socket.SocketType, queue: trio.MemoryReceiveChannel[_Delayed]) -> None:
        """Let out at one end what came in at the other."""
        async for due, data in queue:
            await trio.sleep_until(due)
            receiver = self._target if socket is self.far else self._caller
            if receiver is not None and not self.is_cut:
                await socket.sendto(data, receiver)


@asynccontextmanager
async def open_cable(target: str, kind: Kind = Kind()) -> AsyncIterator[Cable]:
    """A cable to the node at `target`.  Without a bound on its queue, the flow control of the nodes bounds it."""
    cable = Cable(target, kind)
    with cable.near, cable.far:
        await cable.bind()
        async with trio.open_nursery() as nursery:
            for end, other_end in ((cable.near, cable.far), (cable.far, cable.near)):
                put, take = trio.open_memory_channel[_Delayed](math.inf)
                nursery.start_soon(partial(cable.receive, end, put))
                nursery.start_soon(partial(cable.deliver, other_end, take))
            yield cable
            nursery.cancel_scope.cancel()
