"""Repair of what verification found: from what is left of it here, then from the peers, and documents from entries.

Whatever a peer sends goes the ordinary way, through the hashes and seals, so that no peer can slip in anything.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence

import trio

from meshsync.core.limits import Limits
from meshsync.errors import DamagedError, MeshsyncError
from meshsync.store.base import Store
from meshsync.store.healing import DocumentRebuild, heal_entry
from meshsync.store.replica import Replica
from meshsync.sync.engine import SyncEngine
from meshsync.sync.exchange import Exchange
from meshsync.verification import Fault, Part

LAST_RESORT = (
    "what remains cannot be restored while the node runs: stop it, move its meshsync.db and meshsync.db-wal away, and"
    " start it again; the peers then send all that they hold"
)


async def repair(
    store: Store, engine: SyncEngine, faults: Sequence[Fault], limits: Limits
) -> AsyncGenerator[str, None]:
    """Mend what can be mended; yields a line for each thing that was, and for what is in the way."""
    replicas = {id(fault.replica): fault.replica for fault in faults if fault.replica is not None}
    for replica in replicas.values():
        mending = _Mending(engine, replica, [fault for fault in faults if fault.replica is replica], limits)
        try:
            async for line in mending.run():
                yield f"{replica.name}: {line}"
        except MeshsyncError as error:
            yield f"{replica.name}: not all was repaired: {error}"
    if any(fault.part is Part.STRUCTURE for fault in faults):
        try:
            if not any(replica.damage for replica in replicas.values()):
                store.rebuild_indexes()
                yield "the indexes and counts were made anew"
        except MeshsyncError as error:
            yield f"the indexes could not be made anew: {error}"


class _Mending:
    """The repair of one collection."""

    def __init__(self, engine: SyncEngine, replica: Replica, faults: Iterable[Fault], limits: Limits) -> None:
        self._engine = engine
        self._replica = replica
        self._limits = limits
        self._faults = list(faults)

    async def run(self) -> AsyncGenerator[str, None]:
        """Entries first, those that others build upon before those; documents last."""
        for line in self._heal():
            yield line
        if left := self._left():
            first_event = self._engine.events.next
            if not self._engine.is_syncing():
                yield "syncing is stopped, so no peer can be asked: `meshsync sync` starts it again"
            elif not self._engine.sessions(self._replica):
                yield "no peer is connected that has this collection"
            else:
                # In this order: what proves a payload is the head of its entry, and those that it builds upon.
                await self._fetch_entries()
                await self._fetch_payloads()
            for line in self._restored(first_event):
                yield line
            for arrival in sorted(set(left) & set(self._left())):
                yield f"entry {arrival}: no connected peer has it"
        async for line in self._rebuild_documents():
            yield line
        async for line in self._rebuild_indexes():
            yield line

    def _left(self, part: Part | None = None) -> list[int]:
        """The entries that are still damaged."""
        faults = [fault for fault in self._faults if fault.arrival in self._replica.damage]
        return sorted(fault.arrival for fault in faults if part is None or fault.part is part)

    def _heal(self) -> list[str]:
        replica = self._replica
        damaged = [replica.tables.inspect_entries(arrival, 1)[0] for arrival in self._left()]
        healed = [entry.row.arrival for entry in damaged if heal_entry(replica, entry)]
        if healed:
            self._hold_all()
            self._engine.resend(replica)
        return [f"entry {arrival}: what is left of it proves it; it was written anew" for arrival in healed]

    def _hold_all(self) -> None:
        for number in self._replica.branches:
            if number in self._replica.tails:
                self._replica.hold_all(number)

    # From peers

    async def _fetch_payloads(self) -> None:
        damage = self._replica.damage
        for session in self._engine.sessions(self._replica):
            damage.lacking = self._left(Part.PAYLOAD)
            if damage.lacking:
                session.check()
                with trio.move_on_after(self._limits.repair_seconds_max):
                    await self._engine.progressed.wait_until(lambda one=session: not _is_asking(one))  # type: ignore[misc]
        damage.lacking = []

    async def _fetch_entries(self) -> None:
        """Have whole entries sent again, with all that follows them in their logs: heads come in no other way.

        All at once, because entries of damaged logs may be parents of each other's.
        """
        replica, places = self._replica, self._places()
        able = [
            session
            for session in self._engine.sessions(replica)
            if any(session.session.peer_seq(number) >= seq for number, seq in places.items())
        ]
        if not able:
            return
        for number, seq in places.items():
            replica.hold_below(number, seq)
        for session in able:
            if replica.tails:
                session.ask_again()
                await self._wait_for_tails(session)
        if any(number in replica.tails for number in places):
            self._hold_all()
            for session in able:
                session.ask_again()

    def _places(self) -> dict[int, int]:
        """The branches that are held and have entries with damaged heads, and the seq of the first."""
        places: dict[int, int] = {}
        for arrival in self._left(Part.HEAD):
            row = self._replica.tables.inspect_entries(arrival, 1)[0].row
            branch = self._replica.branches.get(row.branch)
            if branch is not None and branch.first_seq <= row.seq <= branch.tip.seq and row.branch not in places:
                places[row.branch] = row.seq
        return places

    async def _wait_for_tails(self, session: Exchange) -> None:
        """Wait while a peer sends what was asked for again."""
        replica, watcher = self._replica, self._engine.watcher(self._replica)
        while replica.tails and not session.is_ending:
            left = replica.tails.left(replica.branches)
            with trio.move_on_after(self._limits.repair_seconds_max) as scope:
                await watcher.wait_until(lambda left=left: replica.tails.left(replica.branches) != left)  # type: ignore[misc]
            if scope.cancelled_caught:
                return

    def _restored(self, first_event: int) -> list[str]:
        """What peers sent since an event."""
        events = [one for one in self._engine.events.read(first_event) if one.type == "repaired"]
        return [
            f"entry {arrival}: restored from peer {event.facts['peer'][:8]}"
            for event in events
            if event.facts["collection"] == self._replica.name
            for arrival in event.facts["entries"]
        ]

    # Documents

    async def _rebuild_documents(self) -> AsyncGenerator[str, None]:
        ids = {fault.document for fault in self._faults if fault.part is Part.DOCUMENT}
        if not ids:
            return
        if self._replica.damage:
            yield f"{len(ids)} documents wait until no entry is damaged: it is not known which of them those touch"
            return
        rebuild = DocumentRebuild(self._replica, ids)
        try:
            while not rebuild.step():
                await trio.lowlevel.checkpoint()
        except DamagedError as error:
            yield f"documents cannot be made anew: {error}"
            return
        self._replica.damage.documents_mended()
        yield f"{len(ids)} documents were made anew from their entries"

    # Indexes

    async def _rebuild_indexes(self) -> AsyncGenerator[str, None]:
        if any(fault.part is Part.INDEX for fault in self._faults):
            self._replica.indexes.rebuild()
            while not self._replica.indexes.step():
                await trio.lowlevel.checkpoint()
            yield "the declared indexes were made anew"


def _is_asking(session: Exchange) -> bool:
    return session.session.is_asking and not session.is_ending
