"""The two log tables of a session: how messages name a log by a small number instead of by 40 bytes.

Each side appends a log to its own table when its OPEN names it in a tip or a message of its lists it under
`logs`, and the other side counts along (see meshsync.core.messages).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshsync.errors import CloseCode, PeerError
from meshsync.ids import LogId


class OwnLogTable:
    """The logs that this side has named."""

    def __init__(self) -> None:
        self._index: dict[LogId, int] = {}
        self._unannounced: list[LogId] = []

    def index(self, log: LogId) -> int:
        """The number of a log; a new one has to go out with `take` in the message that uses it."""
        index = self._index.get(log)
        if index is None:
            index = self._index[log] = len(self._index)
            self._unannounced.append(log)
        return index

    def named_by_open(self, logs: Iterable[LogId]) -> None:
        """Number the logs that an OPEN is about to name."""
        for log in logs:
            self._index.setdefault(log, len(self._index))

    def take(self) -> tuple[LogId, ...]:
        """The logs that the next message has to list."""
        announced = tuple(self._unannounced)
        self._unannounced.clear()
        return announced


class PeerLogTable:
    """The logs that the peer has named, bounded."""

    def __init__(self, logs_max: int) -> None:
        self._logs_max = logs_max
        self._logs: list[LogId] = []
        self._known: set[LogId] = set()

    @property
    def logs(self) -> Sequence[LogId]:
        """By number."""
        return self._logs

    def learn(self, logs: Iterable[LogId]) -> None:
        """Number the logs that a message named.  PeerError: more than this node keeps."""
        for log in logs:
            if log not in self._known:
                self._known.add(log)
                self._logs.append(log)
        if len(self._logs) > self._logs_max:
            raise PeerError(f"more than {self._logs_max} logs", CloseCode.LIMIT)

    def __getitem__(self, index: int) -> LogId:
        if index >= len(self._logs):
            raise PeerError("a message names no log")
        return self._logs[index]
