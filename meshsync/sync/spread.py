"""Carries out what `meshsync.core.spreading` decides about the links of one collection."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import trio

from meshsync.core.limits import Limits
from meshsync.core.session_events import Arrived, Offered
from meshsync.core.spreading import Partner, Spreading, Turn
from meshsync.ids import CollectionId, EndpointId
from meshsync.store.replica import Replica

if TYPE_CHECKING:
    from meshsync.sync.engine import SyncEngine
    from meshsync.sync.exchange import Exchange


class Spreads:
    """By collection."""

    def __init__(self, engine: SyncEngine) -> None:
        self._engine = engine
        self._spreads: dict[CollectionId, Spread] = {}

    def of(self, collection: CollectionId) -> Spread:
        """Those of one collection."""
        if collection not in self._spreads:
            engine = self._engine
            self._spreads[collection] = Spread(lambda: engine.subscribers(collection), engine.limits, engine.rng)
        return self._spreads[collection]

    def grew(self, replica: Replica, tips: Mapping[int, int]) -> None:
        """Entries were stored, by whomever."""
        if (spread := self._spreads.get(replica.id)) and any(
            replica.branches[number].log.author == replica.author for number in tips
        ):
            spread.wrote(replica.author)

    def forget(self, collection: CollectionId) -> None:
        """Keep nothing of a collection that is gone: others can make up as many as they like."""
        self._spreads.pop(collection, None)


class Spread:
    """The exchanges of one collection, one a peer."""

    def __init__(self, subscribers: Callable[[], int], limits: Limits, rng: random.Random) -> None:
        self._spreading = Spreading(subscribers, limits, rng)
        self._exchanges: dict[Partner, Exchange] = {}

    def begin(self, exchange: Exchange) -> bool:
        """A session begins, in the place of an earlier one with the same peer; whether as a lazy link."""
        for other in [one for one in self._exchanges.values() if one.link.peer == exchange.link.peer]:
            self.end(other)
        self._exchanges[exchange.session] = exchange
        return self._spreading.join(exchange.session, lambda: exchange.link.connection.rtt_seconds)

    def end(self, exchange: Exchange) -> None:
        """A session is over, or about to be."""
        if self._exchanges.pop(exchange.session, None) is not None:
            self._carry_out(self._spreading.leave(exchange.session, trio.current_time()))

    def wrote(self, author: EndpointId) -> None:
        """This node wrote an entry."""
        self._spreading.wrote(author, trio.current_time())

    def arrived(self, exchange: Exchange, what: Arrived) -> None:
        """A batch came."""
        self._carry_out(self._spreading.arrived(exchange.session, what, trio.current_time()))

    def offered(self, exchange: Exchange, what: Offered) -> None:
        """A lazy link told of an entry."""
        self._carry_out(self._spreading.offered(exchange.session, what, trio.current_time()))

    def heard(self) -> None:
        """A peer said something."""
        self._carry_out(self._spreading.look(trio.current_time()))

    def turn(self, exchange: Exchange) -> float:
        """Look again if it is time to; returns when it is for the sake of this exchange."""
        if self._spreading.wake_at(exchange.session) <= trio.current_time():
            self.heard()
        return self._spreading.wake_at(exchange.session)

    def _carry_out(self, turns: Iterable[Turn]) -> None:
        for turn in turns:
            if exchange := self._exchanges.get(turn.partner):
                exchange.turn(lazy=turn.lazy)
        for partner, exchange in self._exchanges.items():
            exchange.wake(self._spreading.wake_at(partner))
