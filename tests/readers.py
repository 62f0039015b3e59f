"""Readers that follow a collection, stop, and go on from their last cursor."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import trio
import trio.testing

from meshsync.core.query import Query
from meshsync.documents import Change
from meshsync.errors import LocalError, StoreError
from meshsync.following import follow
from meshsync.notifier import Notifier
from meshsync.store.replica import Replica


class Reader:
    """Somebody who has what was told."""

    def __init__(self, wish: Query | None) -> None:
        self.wish = wish
        self.begin()

    def begin(self) -> None:
        """Begin anew, with nothing."""
        self.cursor = "0"
        self.has: dict[str, dict[str, Any]] = {}

    def read(self, replica: Replica, most: int | None = None) -> list[Change]:
        """Read what there is, or the first of it, as a process that has just begun."""
        found: list[Change] = []

        async def read() -> None:
            try:
                async with aclosing(follow(replica, Notifier(), self.wish, self.cursor)) as changes:
                    while most is None or len(found) < most:
                        found.append(await anext(changes))
            except StoreError:
                pass  # it goes on when the disk does

        async def read_all() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

        try:
            trio.run(read_all)
        except* LocalError:
            self.begin()  # the cursor is of what the store has lost
        for change in found:
            self._note(change)
        return found

    def _note(self, change: Change) -> None:
        self.cursor = change.cursor
        if change.document is None:
            self.has.pop(change.id, None)
        else:
            assert change.kind != "removed"
            assert self.wish is None or self.wish.matches(change.document, change.id)
            self.has[change.id] = change.document
