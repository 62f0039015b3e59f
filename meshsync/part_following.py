"""Following a part of a collection: which documents entered it, changed in it, and left it.

Payloads of a part come when they are wanted, which may be long after their headers, so the order of arrival does not
tell what is new.  What is followed here is the view: whoever falls behind is told the present state of each document
that changed, once, and misses no document.  The positions are those of this process (`meshsync.store.news`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import trio

from meshsync.core.hlc import to_datetime
from meshsync.core.query import Query
from meshsync.documents import Change
from meshsync.errors import LocalError
from meshsync.ids import EndpointId
from meshsync.notifier import Notifier
from meshsync.store.replica import Replica

if TYPE_CHECKING:
    from meshsync.store.interest import Interest

_SLICE = 128
"""So many documents are looked at before others run."""


class PartFollower:
    """Reads the changes of the part of a replica for one reader."""

    def __init__(self, replica: Replica, watcher: Notifier, query: Query | None, cursor: str | None) -> None:
        """`cursor`: None for the present moment.  LocalError: it is none of this process, or too old."""
        self._replica = replica
        self._watcher = watcher
        self._query = query or Query()
        self._news = self._interest().news
        self._is_beginning = cursor == "0"
        self._number = self._news.last if cursor in ("0", None) else self._news.number(cursor)
        self._told: set[str] = set()
        """What the reader takes to be there."""

    def _interest(self) -> Interest:
        interest = self._replica.interest
        if interest is None:
            raise LocalError(f'this node has all of {self._replica.name!r} now, and not a part: begin anew with "0"')
        return interest

    async def changes(self) -> AsyncGenerator[Change, None]:
        """See `Collection.changes`."""
        await self._watcher.wait_until(lambda: self._replica.is_settled)
        todo: list[str] = []
        if self._is_beginning:
            todo, self._number = sorted(self._interest()), self._news.last
        else:
            self._told = set(self._interest()) | set(self._news.after(self._number))
        # Those of the beginning carry the cursor of the beginning: whoever stops among them begins anew.
        for count, id in enumerate(todo):
            if (change := self._change(id, "0")) is not None:
                yield change
            if count % _SLICE == 0:
                await trio.lowlevel.checkpoint()
        while True:
            self._interest()
            self._news.require(self._number)
            for count, (id, number) in enumerate(self._news.after(self._number).items()):
                self._number = number
                if (change := self._change(id, self._news.cursor(number))) is not None:
                    yield change
                if count % _SLICE == 0:
                    await trio.lowlevel.checkpoint()
            await self._watcher.wait_until(self._has_news)

    def _has_news(self) -> bool:
        return self._news.last > self._number or self._replica.interest is None

    def _change(self, id: str, cursor: str) -> Change | None:
        row = self._replica.tables.documents([id])[id]
        merged = self._replica.merger.read(row)
        matches = id in self._interest() and merged.body is not None and self._query.matches(merged.body, id)
        if not matches and id not in self._told:
            return None
        if matches:
            self._told.add(id)
        else:
            self._told.discard(id)
        kind = "put" if matches else "removed" if row.live else "delete"
        body = merged.body if matches else None
        author, time = EndpointId(merged.stamp.author), to_datetime(merged.stamp.hlc)
        return Change(cursor, self._replica.name, id, body, author, time, kind, row.conflict)
