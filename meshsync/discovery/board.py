"""Sightings on their way to whoever dials: the newest of each endpoint, in the order in which they changed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from meshsync.discovery.base import Sighting
from meshsync.ids import EndpointId
from meshsync.notifier import Notifier


class Board(AsyncIterator[Sighting]):
    """An iterator that a task or another thread feeds; what was not read yet is replaced by what is newer.

    So it holds no more than one sighting of each endpoint, however slowly it is read.
    """

    def __init__(self) -> None:
        self._waiting: dict[EndpointId | str, Sighting] = {}
        self._is_closed = False
        self._changed = Notifier()

    def post(self, sighting: Sighting) -> None:
        """Tell of a sighting."""
        key = sighting.endpoint if sighting.endpoint is not None else sighting.name
        self._waiting.pop(key, None)
        self._waiting[key] = sighting
        self._changed.notify()

    def close(self) -> None:
        """Nothing more can come: the iterator ends with what is there."""
        self._is_closed = True
        self._changed.notify()

    async def __anext__(self) -> Sighting:
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._changed.wait_until(lambda: bool(self._waiting) or self._is_closed)
        # Nothing is awaited from here on, so a cancelled wait loses nothing.
        if not self._waiting:
            raise StopAsyncIteration
        return self._waiting.pop(next(iter(self._waiting)))
