"""Introductions: a node with few links learns from the summaries where others are, and dials some of them.

So the leaves of a star hold on to each other, and the mesh stays whole when the hub goes.  Nobody is introduced to
whom trust would not let in, and what a summary says is a hint like any other sighting.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from meshsync.addresses import HostPort
from meshsync.core.gossip import Fact
from meshsync.discovery.base import Sighting
from meshsync.discovery.board import Board
from meshsync.groups import beside
from meshsync.ids import CollectionId, EndpointId
from meshsync.sync.engine import SyncEngine

# Not all at once: whoever is dialled by others meanwhile needs nobody any more.
_DELAY_SECONDS = (0.5, 3.0)


@dataclass(slots=True)
class _Try:
    """One who was introduced, and what came of it."""

    addresses: tuple[HostPort, ...]
    until: float
    """When it should be connected; after that, when it may be introduced again."""
    failures: int = 0
    is_withdrawn: bool = False


class Introductions:
    """A Discovery that sees those who subscribe to the same collections, as long as this node has too few links."""

    via = "mesh"
    fault = None

    def __init__(self, engine: SyncEngine, is_welcome: Callable[[EndpointId], bool]) -> None:
        """`is_welcome` says whether trust would let an endpoint in."""
        self._engine = engine
        self._is_welcome = is_welcome
        self._tries: dict[EndpointId, _Try] = {}
        self._due: float | None = None
        """When the next one is introduced; None: nobody is needed."""

    @asynccontextmanager
    async def sightings(self) -> AsyncIterator[AsyncIterator[Sighting]]:
        """See `Discovery.sightings`."""
        board = Board()
        async with beside(partial(self._introduce, board)):
            yield board

    async def _introduce(self, board: Board) -> None:
        while True:
            next_at = self._look(board)
            with trio.move_on_at(next_at):
                await self._engine.summaries.changed.wait()

    def _look(self, board: Board) -> float:
        """Introduce whoever is due; returns when to look again."""
        now = trio.current_time()
        next_at = self._review(board, now)
        candidates = self._candidates(now)
        if not candidates:
            self._due = None
            return next_at
        if self._due is None:
            self._due = now + self._engine.rng.uniform(*_DELAY_SECONDS)
        if self._due <= now:
            fact = self._engine.rng.choice(candidates)
            self._post(board, fact, now)
            self._due = now + self._engine.rng.uniform(*_DELAY_SECONDS)
        return min(next_at, self._due)

    def _post(self, board: Board, fact: Fact, now: float) -> None:
        summary = fact.signed.summary
        before = self._tries.get(summary.author)
        until = now + self._engine.limits.introduction_seconds
        self._tries[summary.author] = _Try(summary.addresses, until, before.failures if before is not None else 0)
        board.post(Sighting(summary.author, summary.addresses, self.via, summary.name))

    def _review(self, board: Board, now: float) -> float:
        """See what came of those who were introduced; returns when the next one is to be connected or may be tried."""
        links, limits = self._engine.links, self._engine.limits
        known = {fact.signed.summary.author for one in self._engine.subscribed() for fact in self._facts(one.id)}
        for id, one in list(self._tries.items()):
            if id in links:
                one.failures = 0
                one.until = now + limits.introduction_seconds
            elif not one.is_withdrawn and (one.until <= now or id not in known):
                board.post(Sighting(id, (), self.via, ""))
                one.is_withdrawn = True
                one.failures += 1
                rest = min(limits.introduction_seconds * 2**one.failures, limits.introduction_rest_seconds_max)
                one.until = now + rest * self._engine.rng.uniform(0.5, 1.0)
            elif one.is_withdrawn and id not in known:
                del self._tries[id]
        # A rest that is over needs no look at a time of its own, and one in the past would be no wait at all.
        ends = (one.until for id, one in self._tries.items() if id not in links and one.until > now)
        return min(ends, default=math.inf)

    def _facts(self, collection: CollectionId) -> list[Fact]:
        return self._engine.summaries.gossip.facts(collection)

    def _candidates(self, now: float) -> list[Fact]:
        """Whom to introduce for the first collection that needs it; those of whom others speak before the rest."""
        engine = self._engine
        for replica in engine.subscribed():
            under_way = [id for id, one in self._tries.items() if not one.is_withdrawn and id not in engine.links]
            if len(engine.sharing.partners(replica.id)) + len(under_way) >= engine.limits.links_wanted:
                continue
            facts = self._facts(replica.id)
            found = [fact for fact in facts if self._may_introduce(fact, now)]
            alive = {link.peer for fact in facts for link in fact.signed.summary.links}
            if found:
                return [fact for fact in found if fact.signed.summary.author in alive] or found
        return []

    def _may_introduce(self, fact: Fact, now: float) -> bool:
        summary = fact.signed.summary
        before = self._tries.get(summary.author)
        return (
            bool(summary.addresses)
            and summary.author != self._engine.summaries.own
            and summary.author not in self._engine.links
            and (before is None or before.until <= now or before.addresses != summary.addresses)
            and self._is_welcome(summary.author)
        )
