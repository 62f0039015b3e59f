"""Which entries touch a document, in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from functools import partial

from meshsync.store.rows import Touch


class MemoryTouches:
    """Implements `DocumentTouches`."""

    def __init__(self) -> None:
        self._by_tag: dict[bytes, list[Touch]] = {}
        """Sorted."""
        self._gone: dict[bytes, Touch] = {}
        self.changed: Callable[[Callable[[], object]], None] = lambda undo: None  # noqa: ARG005
        """Receives the steps back; set by the tables that these belong to."""

    def copy(self) -> MemoryTouches:
        """The same a second time, sharing nothing that changes."""
        twin = MemoryTouches()
        twin._by_tag = {tag: touches.copy() for tag, touches in self._by_tag.items()}
        twin._gone = self._gone.copy()
        return twin

    def add(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        for tag, hlc, arrival in touches:
            noted, touch = self._by_tag.setdefault(tag, []), Touch(hlc, arrival)
            at = bisect_left(noted, touch)
            if noted[at : at + 1] != [touch]:
                insort(noted, touch)
                self.changed(partial(noted.remove, touch))

    def add_lacking(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        self.add(touches)

    def let_go(self, touches: Sequence[tuple[bytes, int, int]]) -> None:
        for tag, hlc, arrival in touches:
            noted, touch = self._by_tag.get(tag, []), Touch(hlc, arrival)
            if touch in noted:
                noted.remove(touch)
                self.changed(partial(insort, noted, touch))
            before = self._gone.get(tag)
            if before is None or before < touch:
                self._gone[tag] = touch
                self.changed(partial(self._put_back, tag, before))

    def _put_back(self, tag: bytes, touch: Touch | None) -> None:
        self._gone.pop(tag)
        if touch is not None:
            self._gone[tag] = touch

    def gone(self, tag: bytes) -> Touch | None:
        return self._gone.get(tag)

    def forget_gone(self) -> None:
        before, self._gone = self._gone, {}
        self.changed(partial(self._gone.update, before))

    def noted(self, tags: Sequence[bytes]) -> set[bytes]:
        return {tag for tag in tags if self._by_tag.get(tag)}

    def page(self, tag: bytes, after: Touch | None, limit: int, *, reverse: bool = False) -> list[Touch]:
        noted = self._by_tag.get(tag, [])
        if reverse:
            end = len(noted) if after is None else bisect_left(noted, after)
            return noted[max(0, end - limit) : end][::-1]
        start = 0 if after is None else bisect_right(noted, after)
        return noted[start : start + limit]
