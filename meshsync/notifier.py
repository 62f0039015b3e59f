"""Waking whoever waits for something to change."""

from __future__ import annotations

from collections.abc import Callable

import trio


class Notifier:
    """Like a condition variable without a lock: waiters look again after each `notify`."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def notify(self) -> None:
        """Wake all who wait.  Costs nothing while nobody does."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait for the next `notify`."""
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at now and after each `notify`.  Cancelling loses nothing."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not condition():
            await self.wait()
        await trio.lowlevel.cancel_shielded_checkpoint()
