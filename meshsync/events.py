"""What a node tells its owner: events, numbered without gaps, the last of them kept.

A reader that falls behind loses the oldest events and sees that from the numbers; nobody waits for a reader.
Documents are not told here: `Collection.changes` is the feed for those, and loses nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import trio

from meshsync.core.limits import LIMITS, Limits

EVENT_TYPES: Mapping[str, str] = {
    "ready": "the node listens and its API answers",
    "connected": "a peer is connected and has proved who it is",
    "disconnected": "a connection to a peer ended; `reason` says why",
    "dial_failed": "a peer could not be reached; `retry_s` says when it is tried again",
    "pending": "an endpoint that is not trusted wants to connect; `meshsync peers accept` lets it",
    "accepted": "the owner accepted a peer",
    "forgotten": "the owner forgot a peer",
    "banned": "the owner banned a peer",
    "peer_error": "a peer broke the protocol and was disconnected",
    "clock_differs": "the clock of a peer, or the own one, is off by more than what is tolerated",
    "collection_joined": "this node replicates a collection from now on",
    "collection_left": "this node no longer replicates a collection",
    "policies_differ": "a peer has a collection under another policy for conflicts, so the two are not replicated",
    "index_ready": "a declared index of a collection is built and serves queries",
    "synced": "a collection became equal with a peer's",
    "fork": "an author signed two entries with one number: two processes run with its key, or it cheats",
    "held": "a peer's entries wait because their time lies in the future",
    "released": "the entries that were held were taken",
    "relay_began": "this node carries a collection for others from now on",
    "relay_ended": "this node no longer carries a collection for others; `reason` says why",
    "relay_full": "what others ask this node to carry is more than it may: `reason` says what to do",
    "relay_has_room": "entries that others ask this node to carry are taken again",
    "payloads_dropped": "payloads that are superseded, or not wanted, were dropped: `entries` of them, `bytes` in all",
    "damaged": "bits flipped in a stored entry or document; `meshsync verify --repair` restores it from the peers",
    "repaired": "damaged entries were restored from what a peer sent",
    "store_failed": "the disk did not take a write; entries of peers are refused until it does",
    "store_recovered": "the disk takes writes again",
    "failed": "a part of the node failed by a fault of its own and was started again",
    "stopping": "the node was asked to stop",
}
"""Every type of event, and what it means."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    n: int
    """1 for the first event of a process, rising by one."""
    time: float
    """Seconds since the epoch (UTC)."""
    type: str
    """One of EVENT_TYPES."""
    facts: Mapping[str, Any]
    """What JSON can say; ids are hex."""


class EventLog:
    """The events of one process.  Belongs to one trio run; emitting is synchronous and never fails."""

    def __init__(self, limits: Limits = LIMITS, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: deque[Event] = deque(maxlen=limits.events_kept_max)
        self._next = 1
        self._more: trio.Event | None = None

    @property
    def next(self) -> int:
        """The number of the next event."""
        return self._next

    def emit(self, kind: str, /, **facts: Any) -> Event:
        """Tell that something happened: one of EVENT_TYPES.  Bytes in `facts`, such as ids, become hex."""
        event = Event(self._next, self._clock(), kind, {name: _plain(fact) for name, fact in facts.items()})
        self._kept.append(event)
        self._next += 1
        if self._more is not None:
            self._more.set()
            self._more = None
        return event

    def read(self, since: int = 1) -> list[Event]:
        """The events that are kept, from number `since` on.

        A number that this process has not reached comes from an earlier one: then all that is kept is given, and
        the falling number shows that the node was started again.
        """
        if not self._kept:
            return []
        first = self._kept[0].n
        skipped = 0 if since > self._next else max(0, since - first)
        return list(islice(self._kept, skipped, None))

    async def follow(self, since: int | None = None) -> AsyncGenerator[Event, None]:
        """Every event from number `since` on, also those to come; without `since`, from now on.

        Cancelling ends it and loses nothing: continue with the number after the last one that was given.
        """
        position = self._next if since is None else since
        while True:
            events = self.read(position)
            for event in events:
                yield event
                position = event.n + 1
            if not events or position == self._next:
                await self._wait_more()

    async def _wait_more(self) -> None:
        if self._more is None:
            self._more = trio.Event()
        await self._more.wait()


def _plain(fact: Any) -> Any:
    """A fact as JSON can say it, without references to things that change."""
    if isinstance(fact, bytes):
        return fact.hex()
    if isinstance(fact, Mapping):
        return {str(name): _plain(item) for name, item in fact.items()}
    if fact is None or isinstance(fact, bool | int | float):
        return fact
    if isinstance(fact, Iterable) and not isinstance(fact, str):
        return [_plain(item) for item in fact]
    return str(fact)
