"""Group commit: a thread that syncs the write-ahead log, and answers everyone whose commit came before.

Commits run with synchronous=NORMAL, so SQLite does not sync the write-ahead log (WAL) when it commits; this does,
through a descriptor of its own.  Why a return of that sync means that every commit before it is durable:

- The kernel syncs a file, not a descriptor, and SQLite writes the WAL with write(2): what was committed before the
  call is in the file when the call begins.  (SQLite takes no locks on the WAL, so opening it here is harmless.)
- A checkpoint syncs the WAL before it copies pages into the database file, and syncs that file before it counts the
  whole WAL as copied; only then may the next writer start again at the head of the WAL.  So a commit that is no
  longer in the WAL when the sync begins is already durable in the database file.
- That writer syncs the new head before any frame follows it (walRestartLog and syncHeader in SQLite's wal.c), so
  frames of an earlier turn never come back to life.
- The WAL stays one file with one inode while any connection is open, and at its creation the name is synced with
  the directory by `opening`.

A failed sync is final, whoever made it.  The kernel reports it once, marks the pages clean, and the next sync succeeds
although the data is lost (https://wiki.postgresql.org/wiki/Fsync_Errors).  So after one nothing is written, moved or
promised any more until the store is opened again, when the checksums in the WAL decide what is there.  That may be less
than peers were given already, so a note is left that makes the next process take new incarnations.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

import trio

from meshsync.errors import StoreError


class _Turn:
    """One sync, and those who wait for it."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self.token = token
        self.answered = trio.Event()
        self.covers = 0
        self.done = False


class Syncer:
    """Runs on the event loop's thread, but for `_work` and `fail`.  At most one turn is under way and one collects.

    `commits` tells how many commits there were, `sync` makes them durable or raises OSError, `note_failure` leaves a
    note for the next process.
    """

    def __init__(self, commits: Callable[[], int], sync: Callable[[], None], note_failure: Callable[[], None]) -> None:
        self._commits = commits
        self._sync = sync
        self._note_failure = note_failure
        self._durable = -1
        self._running: _Turn | None = None
        self._collecting: _Turn | None = None
        self._jobs: SimpleQueue[_Turn | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.failure = ""
        """What the sync that failed said; it stays."""

    def fail(self, what: str) -> None:
        """A sync failed.  May be called in any thread."""
        self.failure = self.failure or what or "a sync failed"
        self._note_failure()

    def require_sound(self) -> None:
        """StoreError: a sync failed."""
        if self.failure:
            raise StoreError(
                f"the disk did not keep what was written ({self.failure}); nothing more is written until the node is "
                "started again, and the disk is in doubt"
            )

    def sync_now(self) -> None:
        """Sync on this very thread.  StoreError: the disk does not take it."""
        self.require_sound()
        covers = self._commits()
        self._try_sync()
        self.require_sound()
        self._durable = max(self._durable, covers)

    def _try_sync(self) -> None:
        try:
            self._sync()
        except OSError as error:
            self.fail(error.strerror or str(error))

    async def synced(self) -> None:
        """See `Store.synced`."""
        self.require_sound()
        commits = self._commits()
        if self._durable >= commits:
            await trio.lowlevel.checkpoint()
            return
        turn = self._turn_covering(commits, trio.lowlevel.current_trio_token())
        await turn.answered.wait()
        if self._durable < commits:
            self.require_sound()
            raise StoreError("the store was closed, with an error, before this was synced")

    def _turn_covering(self, commits: int, token: trio.lowlevel.TrioToken) -> _Turn:
        running = self._running
        if running is not None:
            # The loop that started this turn may have ended since.  The thread sets `done` before it reads `token`,
            # this sets `token` before it reads `done`: one of the two sees the other.
            running.token = token
            if running.done:
                self._settle(running)
            elif running.covers >= commits:
                return running
        if self._collecting is None:
            self._collecting = _Turn(token)
        turn = self._collecting
        turn.token = token
        if self._running is None:
            self._start()
        return turn

    def _start(self) -> None:
        turn = self._collecting
        assert turn is not None
        self._collecting = None
        self._running = turn
        turn.covers = self._commits()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="meshsync store sync", daemon=True)
            self._thread.start()
        self._jobs.put(turn)

    def _work(self) -> None:
        """The thread: one sync for each turn, one wake-up of the loop for each sync."""
        while (turn := self._jobs.get()) is not None:
            self._try_sync()
            turn.done = True
            try:
                turn.token.run_sync_soon(self._settle, turn)
            except trio.RunFinishedError:
                # Whoever waited is gone with the loop.  `_turn_covering` or `close` finds the turn done.
                pass

    def _settle(self, turn: _Turn) -> None:
        if self._running is not turn:
            return
        self._running = None
        if not self.failure:
            self._durable = max(self._durable, turn.covers)
        turn.answered.set()
        if self._collecting is None:
            return
        if self.failure:
            self.answer_rest()
        else:
            self._start()

    def stop(self) -> None:
        """End the thread after the turn under way.  Who still collects is answered by `answer_rest`."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        if self._running is not None:
            running, self._running = self._running, None
            running.answered.set()

    def answer_rest(self) -> None:
        """Wake those that no turn took up; they see for themselves whether their commits are durable."""
        if self._collecting is not None:
            self._collecting.answered.set()
            self._collecting = None
