"""Under which incarnation this process may write to a collection (store.md section 1).

A log must never fork.  A process that writes marks the collection with the machine's boot id, durably, before the
first entry leaves; a clean end removes the mark.  Found at the next start, it tells what may have been lost:

    no mark                   nothing: the log goes on
    mark of the same boot     nothing: the process was killed, the kernel kept what it had committed; the log goes on
    any other mark            the end of the log, which peers may hold already: a new log begins
"""

from __future__ import annotations

from collections.abc import Callable

from meshsync.errors import LocalError
from meshsync.ids import CollectionId
from meshsync.store.sqlite.database import Database

_UNKNOWN_BOOT = b""
"""In the mark of a process that knew no boot id: equal to nobody's."""


class Incarnations:
    """The marks in the table `collections`.  `sync` makes durable what is committed."""

    def __init__(
        self,
        database: Database,
        boot_id: bytes | None,
        random_bytes: Callable[[int], bytes],
        sync: Callable[[], None],
    ) -> None:
        self._database = database
        self._boot_id = boot_id
        self._random_bytes = random_bytes
        self._sync = sync
        self._ours: dict[CollectionId, bytes] = {}
        """Those that this process may write under."""

    def of(self, id: CollectionId) -> bytes:
        """See `Store.incarnation`."""
        known = self._ours.get(id)
        if known is not None:
            return known
        incarnation, writer = self._database.row("SELECT incarnation, writer FROM collections WHERE id = ?", (id,)) or (
            None,
            None,
        )
        continues = writer is None or (self._boot_id is not None and writer == self._boot_id)
        return self._mark(id, incarnation if incarnation is not None and continues else self._random_bytes(8))

    def renew(self, id: CollectionId) -> bytes:
        """See `Store.renew_incarnation`."""
        return self._mark(id, self._random_bytes(8))

    def _mark(self, id: CollectionId, incarnation: bytes) -> bytes:
        if self._database.active:
            raise LocalError("an incarnation is made durable at once, so it cannot be taken inside a transaction")
        marked = self._database.rows(
            "UPDATE collections SET incarnation = ?, writer = ? WHERE id = ? RETURNING number",
            (incarnation, self._boot_id or _UNKNOWN_BOOT, id),
        )
        if not marked:
            raise LocalError(f"there is no collection {id}")
        self._sync()
        self._ours[id] = incarnation
        return incarnation

    def forget(self, id: CollectionId) -> None:
        """The collection is dropped."""
        self._ours.pop(id, None)

    def distrust(self) -> None:
        """A sync failed before this start: no mark can be continued, whatever its boot id."""
        self._database.write("UPDATE collections SET writer = ? WHERE writer IS NOT NULL", (_UNKNOWN_BOOT,))
        self._sync()

    def end(self) -> None:
        """A clean end: remove the marks.  The caller syncs."""
        self._database.write("UPDATE collections SET writer = NULL WHERE writer IS NOT NULL")
