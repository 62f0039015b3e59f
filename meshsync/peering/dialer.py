"""The dial loops: whoever is wanted and not connected is tried again, for ever.

A peer is dialled by one task only, so two dials to one peer never race each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import structlog
import trio

from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.peering.book import PeerBook
from meshsync.peering.candidates import Candidates
from meshsync.peering.peer import Outcome, Peer
from meshsync.peering.reach import reach
from meshsync.transports.base import Admit, Connection, Transport

_log = structlog.get_logger("meshsync.peering")

KNOCK_SECONDS = 2.0
"""How often to knock where the owner has yet to accept us: often at first, because someone may be waiting for it."""
KNOCKS_OFTEN = 30
KNOCK_SECONDS_LAST = 30.0
"""Later the pauses grow up to this.  Whoever accepts us then dials us at once."""
LASTING_SECONDS = 10.0
"""A connection that lasted so long was a good one: the next try comes soon."""


class Dialer:
    """Dials for one node; `register` takes each connection and says whether it stays."""

    def __init__(
        self,
        book: PeerBook,
        transports: Sequence[Transport],
        candidates: Candidates,
        admit: Admit,
        register: Callable[[Connection], Awaitable[bool]],
    ) -> None:
        self._book = book
        self._transports = transports
        self._candidates = candidates
        self._admit = admit
        self._register = register

    async def run(self, peer: Peer) -> None:
        """Keep a peer connected for as long as it is wanted; try it once where it is only hurried."""
        try:
            await self._rest(peer, self._candidates.give_way_seconds(peer))
            while peer.wanted or peer.is_hurried:
                if peer.is_connected:
                    peer.is_hurried = False
                    began = trio.current_time()
                    await peer.changed.wait_until(lambda: not (peer.is_connected and peer.wanted))
                    if trio.current_time() >= began + LASTING_SECONDS:
                        peer.backoff.reset()
                    delay = peer.backoff.next_delay() + self._candidates.give_way_seconds(peer)
                else:
                    delay = await self._try(peer)
                if peer.wanted or peer.is_hurried:
                    await self._rest(peer, delay)
        finally:
            peer.has_dialer = False

    async def _rest(self, peer: Peer, delay: float) -> None:
        """Wait before the next try, unless there is something else to do."""
        peer.next_dial = trio.current_time() + max(delay, self._book.penalty(peer.id))
        while not (peer.is_connected or not peer.wanted or peer.is_hurried) and trio.current_time() < peer.next_dial:
            with trio.move_on_at(peer.next_dial):  # which may be moved meanwhile
                await peer.changed.wait()
        peer.next_dial = None

    async def _try(self, peer: Peer) -> float:
        """Dial once; returns how long to rest."""
        is_urgent = peer.is_named or peer.is_hurried
        peer.is_hurried = False
        peer.tries_begun += 1
        outcome: Outcome
        try:
            if is_urgent:
                outcome = await self._dial(peer)
            else:
                outcome = await self._dial_in_turn(peer)
        except (TransportLost, PeerError) as error:
            # The frames of `error` hold the dead connection.
            outcome = type(error)(self._book.in_words(peer.id, error), error.code)
        except Exception:  # noqa: BLE001  # the boundary of one peer
            _log.exception("dialling a peer failed", peer=peer.id.hex())
            outcome = TransportLost("an internal fault of this node; see the log", CloseCode.INTERNAL)
        peer.tries_ended, peer.outcome = peer.tries_begun, outcome
        peer.changed.notify()
        if peer.is_connected or not (peer.wanted or peer.is_discovered):
            return 0.0
        return peer.backoff.next_delay() if isinstance(outcome, bool) else self._failed(peer, outcome)

    async def _dial(self, peer: Peer) -> bool:
        """Dial once.  True: connected.  False: the peer's own connection comes first, or the peer is not wanted."""
        scope = trio.CancelScope()
        return await self._conclude(peer, scope, await self._reach(peer, scope))

    async def _dial_in_turn(self, peer: Peer) -> bool:
        """The same for a peer that the owner did not name: only few such dials are under way at one time."""
        scope = trio.CancelScope()
        async with AsyncExitStack() as stack:
            with trio.CancelScope() as peer.queueing:
                if peer.failures:
                    await stack.enter_async_context(self._book.discovered_retries)
                await stack.enter_async_context(self._book.discovered_dials)
            peer.queueing = None
            if peer.is_connected or not peer.wanted:
                return False
            connection = await self._reach(peer, scope)
        return await self._conclude(peer, scope, connection)

    async def _conclude(self, peer: Peer, scope: trio.CancelScope, connection: Connection | None) -> bool:
        if connection is None:
            return False
        if scope.cancel_called:  # too late to stop the dial
            connection.close(CloseCode.DUPLICATE if peer.wanted else CloseCode.DISCONNECTED)
            return False
        return await self._register(connection)

    async def _reach(self, peer: Peer, scope: trio.CancelScope) -> Connection | None:
        """Dial within `scope`; None where that was cancelled before there was a connection."""
        connection: Connection | None = None
        addresses = peer.addresses or peer.knocked_from
        with scope:
            peer.dialing = scope
            try:
                connection = await reach(self._transports, peer.id, addresses, self._admit, peer.paths)
            finally:
                peer.dialing = None
                peer.changed.notify()
        return connection

    def _failed(self, peer: Peer, error: TransportLost | PeerError) -> float:
        """Note why a try failed; returns how long to rest."""
        book = self._book
        peer.failures += 1
        was_pending, peer.is_pending_there = peer.is_pending_there, error.code is CloseCode.PENDING
        delay = self._pause(peer)
        peer.last_error = reason = str(error)
        if was_pending and peer.is_pending_there:
            return delay
        if error.code is CloseCode.INSTANCE:
            book.twin(peer.id, f"the peer refuses this node: {reason}")
        elif isinstance(error, PeerError) and (peer.is_named or error.code is not CloseCode.IDENTITY):
            # Where a discovered peer was said to be, somebody else may well be by now.
            book.events.emit("peer_error", peer=peer.id, reason=reason, code=error.code.name)
        book.events.emit("dial_failed", peer=peer.id, reason=reason, retry_s=round(delay, 2))
        return delay

    def _pause(self, peer: Peer) -> float:
        """How long to rest after a try that failed."""
        if not peer.is_named:
            return self._candidates.failed(peer)
        if not peer.is_pending_there:
            return peer.backoff.next_delay()
        peer.knocks += 1
        bound = min(KNOCK_SECONDS * 2 ** max(0, min(peer.knocks - KNOCKS_OFTEN, 10)), KNOCK_SECONDS_LAST)
        return self._book.rng.uniform(bound / 2, bound)
