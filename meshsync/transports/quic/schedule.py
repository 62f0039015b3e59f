"""Which stream of a connection goes into the next packet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from meshsync.core.priority import Priority

SHARE_EVERY_PACKETS = 16
"""One packet in so many goes to the stream that was served longest ago, however urgent the others are."""

_CONTROL_STREAM = 0
_ABOVE_ALL = -1


class _Stream(Protocol):
    @property
    def stream_id(self) -> int | None: ...


_AnyStream = TypeVar("_AnyStream", bound=_Stream)


class Schedule:
    """Urgent streams go first, equals take turns, and none starves.

    The order is made anew for each packet, so what is urgent waits for the packet that has begun and no other one.
    The control stream comes before all others: little is said there, and the liveness of the peer hangs on it.
    """

    def __init__(self) -> None:
        self._priorities: dict[int, int] = {_CONTROL_STREAM: _ABOVE_ALL}
        self._served: dict[int, int] = {}
        """When each stream was served last, counted in packets that carried data."""
        self._packets = 0
        self._packet_number = -1

    def set_priority(self, stream_id: int, priority: Priority) -> None:
        """Put a stream before or behind others from the next packet on."""
        if stream_id != _CONTROL_STREAM:
            self._priorities[stream_id] = priority

    def forget(self, stream_ids: Iterable[int]) -> None:
        """These streams are over."""
        for stream_id in stream_ids:
            self._priorities.pop(stream_id, None)
            self._served.pop(stream_id, None)

    @property
    def is_mixed(self) -> bool:
        """Whether some streams are more urgent than others; the control stream does not count."""
        return len(set(self._priorities.values()) - {_ABOVE_ALL}) > 1

    def arrange(self, queue: list[_AnyStream]) -> None:
        """Put the streams in the order in which they may fill the next packet.

        Sorting keeps the order of equals, and whoever maintains the queue moves those that were served to its end.
        """
        if len(queue) < 2:
            return
        if self._packets % SHARE_EVERY_PACKETS == SHARE_EVERY_PACKETS - 1:
            queue.sort(key=lambda stream: self._served.get(stream.stream_id or 0, 0))
        else:
            queue.sort(key=lambda stream: self._priorities.get(stream.stream_id or 0, Priority.MEDIUM))

    def served(self, stream_id: int, packet_number: int) -> None:
        """A stream put something into a packet."""
        if packet_number != self._packet_number:
            self._packet_number = packet_number
            self._packets += 1
        self._served[stream_id] = self._packets
