"""Carrying collections for others: store and forward, for subscribers that have no direct path to each other.

A node that relays says RELAY to everyone.  Whoever trusts it answers with CARRY: the ids of its collections.  The
relay opens a replica without a name for each and takes part in its sessions like a subscriber, at the lowest
priority; what it learns by that is told where the messages are (`meshsync.core.messages`).  One that relays asks
other relays for what it carries itself, so that a chain of them joins its ends.

    - What is carried is remembered, and carried on after a restart, until nobody asked for it for a long time, or the
      owner says so; then its space is used again.  One whose name is known was the owner's once: its data stays.
    - Beyond the quota the sessions tell their peers to send no more, until there is room.
    - Age counts while the node runs: a clock that was wrong at the start must not make everything old.

One task (`run`) begins and ends all carrying, so that asking and leaving never cross.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from meshsync.core import cbor
from meshsync.core.messages import Carry
from meshsync.errors import LocalError, PeerError, StoreError
from meshsync.ids import CollectionId, EndpointId
from meshsync.notifier import Notifier
from meshsync.store.replica import Replica
from meshsync.sync.subscriptions import find_id

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine
    from meshsync.sync.link import Link

_CARRIED = "carried"
"""Under this name the store keeps what is carried: CBOR [[id, who asked first, age in seconds], …]."""
_LEFT = "carried-left"
"""What the owner does not want to be carried: CBOR [[id, age in seconds], …]."""


@dataclass(slots=True)
class _Carried:
    """A collection that is carried for others."""

    replica: Replica
    asker: EndpointId
    """Who asked for it first."""
    asked_at: float
    """When a subscriber last asked for it, by trio's clock."""
    is_told: bool = False
    """Whether there was an event.  There is none while it is empty, or whoever asks for ever new ones floods them."""


class Carrier:
    """What one node carries for others, and what it asks of others that carry."""

    def __init__(
        self,
        engine: SyncEngine,
        open_replica: Callable[[CollectionId], Replica],
        drop: Callable[[CollectionId], None],
        confides: Callable[[EndpointId], bool],
        *,
        relays: bool,
    ) -> None:
        self.relays = relays
        """Whether this node carries for others."""
        self._engine = engine
        self._open_replica = open_replica
        self._drop = drop
        self._confides = confides
        self._limits = engine.limits
        self._carried: dict[CollectionId, _Carried] = {}
        self._left: dict[CollectionId, float] = {}
        """When the owner left these."""
        self._asks: dict[Link, dict[CollectionId, float]] = {}
        """What each connected peer asks for, and since when nobody did, by trio's clock."""
        self._turned_away: set[CollectionId] = set()
        """What is asked for and not carried, because it would be too many."""
        self._is_full = False
        self._has_news = True
        self._news = Notifier()
        self._ended = Notifier()

    def load(self) -> None:
        """Take up what was carried when the last process ended.  StoreError: the disk."""
        now, store = trio.current_time(), self._engine.store
        for id, age in cbor.decode_trusted(store.meta(_LEFT) or cbor.encode([])):
            self._left[CollectionId(id)] = now - age
        for raw, asker, age in cbor.decode_trusted(store.meta(_CARRIED) or cbor.encode([])):
            id = CollectionId(raw)
            replica = self._open_replica(id)
            self._carried[id] = _Carried(replica, EndpointId(asker), now - age, bool(replica.entry_count()))
            if self.relays and not self._engine.is_own(id):
                self._engine.replicating.carry(replica)
        self._settle_room()

    async def run(self) -> None:
        """Begin and end carrying as it is asked for, for ever."""
        limits, tidy_at = self._limits, trio.current_time() + self._limits.relay_tidy_seconds
        while True:
            self._has_news = False
            is_tidying = trio.current_time() >= tidy_at
            if is_tidying:
                tidy_at = trio.current_time() + limits.relay_tidy_seconds
                self.tell_all()
            try:
                await self._review(is_tidying=is_tidying)
            except StoreError as error:
                self._engine.store_failed(error)
                self._has_news = True
            await trio.sleep(limits.relay_pace_seconds)
            with trio.move_on_at(tidy_at):
                await self._news.wait_until(lambda: self._has_news)

    # What links and the engine report

    def linked(self, link: Link) -> None:
        """A connection begins."""
        if self.relays:
            link.control.tell_relay()

    def unlinked(self, link: Link) -> None:
        """A connection is over."""
        if self._asks.pop(link, None):
            self._wake()

    def tell(self, link: Link) -> None:
        """Ask a peer that relays to carry what is replicated here, where it is trusted with that."""
        if not link.control.peer_relays or not self._confides(link.peer):
            return
        now = trio.current_time()
        rows = [(replica.id, 0) for replica in self._engine.subscribed() if self._engine.is_own(replica.id)]
        if self.relays:
            rows += [(one.replica.id, math.ceil(now - one.asked_at)) for one in self._foreign()]
        link.control.tell_carry(tuple(rows[: self._limits.carry_collections_max]))

    def tell_all(self) -> None:
        """What is replicated here has changed: tell those that carry it."""
        for link in self._engine.links.values():
            self.tell(link)
        self._wake()

    def asked(self, link: Link, message: Carry) -> None:
        """A peer asks for collections.  PeerError: this node never said that it relays."""
        if not self.relays:
            raise PeerError("a CARRY, and this node does not relay")
        now = trio.current_time()
        self._asks[link] = {id: now - age for id, age in message.collections}
        self._wake()

    def grew(self, replica: Replica) -> None:
        """Entries were stored."""
        one = self._carried.get(replica.id)
        if one is None:
            return
        if not one.is_told:
            one.is_told = True
            self._engine.events.emit("relay_began", collection=replica.name, id=replica.id, peer=one.asker)
        self._settle_room()

    # What the owner asks for

    def find(self, text: str) -> CollectionId | None:
        """What is carried under a name, an id, or the only id that begins so; None where there is none, or several."""
        return find_id(text, {id: one.replica for id, one in self._carried.items()})

    async def leave(self, id: CollectionId) -> None:
        """Carry a collection no longer, whoever asks, and remove its data.  Cancelling stops the waiting only.

        LocalError: it is not carried.
        """
        if id not in self._carried:
            raise LocalError(f"this node does not relay {id.short}…; `meshsync collections` lists what it does")
        while len(self._left) >= self._limits.relayed_collections_max:
            del self._left[min(self._left, key=self._left.__getitem__)]
        self._left[id] = trio.current_time()
        self._wake()
        await self._ended.wait_until(lambda: id not in self._carried)

    def idle(self) -> list[Replica]:
        """What was carried for others and is kept, though this node relays no longer: the owner may leave it."""
        return [] if self.relays else [one.replica for one in self._foreign()]

    def status(self) -> dict[str, Any]:
        """What `status --json` says under `relay`."""
        return {
            "enabled": self.relays,
            "collections": len(list(self._foreign())),
            "bytes": self._size_bytes(),
            "bytes_max": self._limits.relay_bytes_max,
            "turned_away": len(self._turned_away),
            "fault": self.fault,
        }

    @property
    def fault(self) -> str | None:
        """Why not all is carried that is asked for, and what to do; None where all is."""
        if self._is_full:
            return self._full_text()
        if self._turned_away:
            return (
                f"{len(self._turned_away)} more collections are asked for, and {len(self._carried)} are carried:"
                " meshsync collections leave ID makes room"
            )
        return None

    # Beginning and ending

    async def _review(self, *, is_tidying: bool) -> None:
        """Make what is carried what it should be.  StoreError: the disk; some of it is done."""
        before = set(self._carried)
        self._left = {id: at for id, at in self._left.items() if self._age(at) < self._limits.relay_keep_seconds}
        for asks in self._asks.values():
            for id in asks.keys() & self._carried.keys():
                self._carried[id].asked_at = max(self._carried[id].asked_at, asks[id])
        try:
            for id in before:
                if (reason := self._reason_to_end(id)) is not None:
                    await self._end(id, reason)
            self._begin_asked()
        finally:
            if is_tidying or before != set(self._carried):
                self._remember()
                self._settle_room()
                self._ended.notify()
        if before != set(self._carried):
            self.tell_all()

    def _reason_to_end(self, id: CollectionId) -> str | None:
        one = self._carried[id]
        if self._engine.is_own(id):
            return "this node subscribes to it"
        if id in self._left:
            return "the owner left it"
        if self._age(one.asked_at) >= self._limits.relay_keep_seconds:
            return "nobody asked for it for a long time"
        if not one.replica.entry_count() and not any(id in asks for asks in self._asks.values()):
            return "it is empty, and nobody asks for it"
        return None

    def _begin_asked(self) -> None:
        """Carry what is asked for, as far as there is room for so many."""
        limits, was_asked_too_much = self._limits, bool(self._turned_away)
        self._turned_away.clear()
        for link, asks in self._asks.items():
            count = sum(one.asker == link.peer for one in self._carried.values())
            for id, asked_at in asks.items():
                if id in self._carried or id in self._left or self._engine.is_own(id):
                    continue
                if self._age(asked_at) >= limits.relay_keep_seconds:
                    continue
                if count >= limits.relayed_per_peer_max or len(self._carried) >= limits.relayed_collections_max:
                    self._turned_away.add(id)
                    continue
                count += 1
                replica = self._open_replica(id)
                self._engine.replicating.carry(replica)
                self._carried[id] = _Carried(replica, link.peer, asked_at)
        if self._turned_away and not was_asked_too_much:
            self._engine.events.emit("relay_full", reason=self.fault)

    async def _end(self, id: CollectionId, reason: str) -> None:
        one = self._carried[id]
        replica = one.replica
        self._engine.replicating.uncarry(replica)
        if not self._engine.is_own(id):
            for exchange in self._engine.exchanges(replica):
                await exchange.done.wait()
        # The owner may have joined it in the meantime.
        if not replica.tables.is_named and not self._engine.is_own(id):
            self._drop(id)
            self._engine.spreads.forget(id)
        self._hold_back(replica, None)
        del self._carried[id]
        if one.is_told:
            self._engine.events.emit("relay_ended", collection=replica.name, id=id, reason=reason)

    def _remember(self) -> None:
        carried = [[id, one.asker, round(self._age(one.asked_at))] for id, one in self._carried.items()]
        left = [[id, round(self._age(at))] for id, at in self._left.items()]
        store = self._engine.store
        with store.transaction():
            store.set_meta(_CARRIED, cbor.encode(carried))
            store.set_meta(_LEFT, cbor.encode(left))

    # The quota

    def _settle_room(self) -> None:
        """Hold entries back where the quota is reached, and take them where it is not."""
        is_full = self._size_bytes() >= self._limits.relay_bytes_max
        if is_full is not self._is_full:
            self._is_full = is_full
            if is_full:
                self._engine.events.emit("relay_full", reason=self._full_text())
            else:
                self._engine.events.emit("relay_has_room")
        for id, one in self._carried.items():
            full = self._full_text() if is_full and not self._engine.is_own(id) else None
            self._hold_back(one.replica, full)

    def _hold_back(self, replica: Replica, why: str | None) -> None:
        """Take no entries of a collection, or take them again; its sessions tell their peers."""
        if replica.full != why:
            replica.full = why
            for exchange in self._engine.exchanges(replica):
                exchange.resume()

    def _size_bytes(self) -> int:
        return sum(one.replica.tables.size_bytes() for one in self._foreign())

    def _full_text(self) -> str:
        return (
            f"what is relayed takes {self._limits.relay_bytes_max} bytes, all that it may: raise limits.relay_bytes, or"
            " meshsync collections leave ID"
        )

    # Small things

    def _foreign(self) -> Iterator[_Carried]:
        """What is carried and not subscribed to."""
        return (one for id, one in self._carried.items() if not self._engine.is_own(id))

    def _wake(self) -> None:
        self._has_news = True
        self._news.notify()

    @staticmethod
    def _age(at: float) -> float:
        return trio.current_time() - at
