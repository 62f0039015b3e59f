"""Which documents of a part of a collection changed, the latest last, for those who follow it in this process."""

from __future__ import annotations

import re
import secrets
from itertools import takewhile

from meshsync.errors import LocalError

_NUMBER = re.compile("[0-9]{1,20}")
_KEPT_MAX = 65_536
"""Documents.  Who is further behind begins anew."""


class News:
    """Numbers the changes; of each document only the last one counts."""

    def __init__(self, kept_max: int = _KEPT_MAX) -> None:
        self.last = 0
        """The number of the last change."""
        self._process = secrets.token_hex(4)
        self._numbers: dict[str, int] = {}
        self._forgotten = 0
        """All changes above this number are kept."""
        self._kept_max = kept_max

    def note(self, id: str) -> None:
        """A document entered the part, changed in it, or left it."""
        self.last += 1
        self._numbers.pop(id, None)
        self._numbers[id] = self.last
        if len(self._numbers) > self._kept_max:
            self._forgotten = self._numbers.pop(next(iter(self._numbers)))

    def after(self, number: int) -> dict[str, int]:
        """The documents that changed after a number, and the numbers of their last changes, in order."""
        found = list(takewhile(lambda item: item[1] > number, reversed(self._numbers.items())))
        return dict(reversed(found))

    def require(self, number: int) -> None:
        """LocalError: changes after this number are forgotten."""
        if number < self._forgotten:
            raise LocalError('too much has changed since this cursor: begin anew with "0"')

    def cursor(self, number: int) -> str:
        """The cursor that names the next change after a number."""
        return f"part-{self._process}-{number}"

    def number(self, cursor: str) -> int:
        """The number that a cursor names.  LocalError: it is none of this process, or too old."""
        prefix, _, digits = cursor.rpartition("-")
        if prefix != f"part-{self._process}" or not _NUMBER.fullmatch(digits) or int(digits) > self.last:
            raise LocalError(
                f"{cursor!r:.60} is no cursor of this run: of a part of a collection cursors are good while the node"
                ' runs; begin anew with "0"'
            )
        self.require(int(digits))
        return int(digits)
