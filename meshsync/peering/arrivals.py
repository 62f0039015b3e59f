"""The rule that leaves one connection with each peer, and the task that serves it.

Both ends decide alike and without a word (`meshsync.core.dialing.replaces`).  A connection of another process with
the peer's identity takes the place of the present one only when that no longer answers.  So does one that would come
second by the rule, long after the first: its peer would not have begun it, had it not lost the first.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from meshsync.addresses import HostPort
from meshsync.core.dialing import replaces
from meshsync.errors import CloseCode, PeerError, StoreError, TransportLost
from meshsync.peering.book import PeerBook
from meshsync.peering.dialer import LASTING_SECONDS
from meshsync.peering.peer import Peer
from meshsync.sync.engine import SyncEngine
from meshsync.sync.link import Link
from meshsync.transports.base import Connection, Origin

_log = structlog.get_logger("meshsync.peering")

ASIDE_SECONDS = 0.5
"""How long an accepted connection waits for one's own dial to the same peer, which would survive."""
SUCCESSOR_SECONDS = 2.0
"""How long a connection that the peer closed as a duplicate may take to be replaced."""
PROBE_SECONDS = (0.5, 2.0)
"""How long a connection has to answer when a second process with the peer's identity shows up, at least and at most."""
PROBE_ROUND_TRIPS = 10
SETTLED_SECONDS = 2.0
"""From when on a connection is not one of two that were dialled at once; where the link is slow, some round trips."""


class Arrivals:
    """Takes connections whose identity is proved, dialled or accepted."""

    def __init__(self, book: PeerBook, engine: SyncEngine, nursery: trio.Nursery, wall: Callable[[], float]) -> None:
        self._book = book
        self._engine = engine
        self._nursery = nursery
        self._wall = wall

    async def accepted(self, connection: Connection) -> None:
        """Take a connection that a peer dialled."""
        came = trio.current_time()
        try:
            await self._stand_aside(connection)
            if await self._register(connection, came):
                self._say_connected(self._book.peer(connection.peer), connection)
        except Exception:  # noqa: BLE001  # the boundary of one peer
            _log.exception("a connection could not be taken", peer=connection.peer.hex())
            connection.close(CloseCode.INTERNAL)

    async def _stand_aside(self, connection: Connection) -> None:
        """Where this node dials the peer as well: find out which of the two is to survive, before anything is said."""
        peer = self._book.peer(connection.peer)
        if peer.dialing is None:
            return
        if self._book.own < connection.peer:
            with trio.move_on_after(ASIDE_SECONDS):
                await peer.changed.wait_until(lambda: peer.dialing is None)
        # A dial that is late would take the place of a connection that works by then, and all that is under way on it
        # would begin anew.  The peer never hears of one that is cancelled: its dialer proves itself last.
        if peer.dialing is not None:
            peer.dialing.cancel()

    async def dialed(self, connection: Connection) -> bool:
        """Take a connection that this node dialled.

        True: it is the connection with the peer.  False: the peer's own connection comes first.  TransportLost: the
        peer refused it.  That shows only now: a dialer is done before the acceptor has looked at its proof.
        """
        if not await self._register(connection, trio.current_time()):
            if connection.is_closed:
                reason = await connection.wait_closed()
                if reason.by_peer and reason.code is not CloseCode.DUPLICATE:
                    raise reason.as_error()  # refused sooner than it could be taken
            return False
        peer = self._book.peer(connection.peer)
        link = self._engine.links[connection.peer]
        await self._engine.progressed.wait_until(lambda: link.control.heard or connection.is_closed)
        if connection.is_closed:
            reason = await connection.wait_closed()
            if reason.code is CloseCode.DUPLICATE:
                return False
            raise reason.as_error()
        self._say_connected(peer, connection)
        return True

    async def _register(self, connection: Connection, came: float) -> bool:
        """Make this the connection with its peer, if the rules say so; whether it is.  It is there since `came`."""
        while (existing := self._book.connection_with(connection.peer)) is not None:
            refusal = await self._refusal(existing, connection, came)
            if refusal is not None:
                connection.close(refusal)
                return False
            if existing.hello.instance == connection.hello.instance:
                existing.close(CloseCode.DUPLICATE)
            else:
                existing.close(CloseCode.TIMEOUT, "another process of this peer has taken over")
        # It was admitted; what was decided since then counts.
        code = self._book.trust.judge(connection.peer, has_mesh_key=True)
        if code is not None:
            connection.close(code)
        if connection.is_closed:
            return False
        self._adopt(self._book.peer(connection.peer), connection)
        return True

    async def _refusal(self, existing: Connection, connection: Connection, came: float) -> CloseCode | None:
        """Why a second connection with a peer must not take the place of the first; None: it does."""
        peer = self._book.peer(connection.peer)
        if existing.hello.instance != connection.hello.instance:
            if await self._answers(existing):
                if connection.is_closed or (peer.adopted_at is not None and peer.adopted_at > came):
                    # While it waited for the answer of one that was gone, its peer was started anew once more.
                    return CloseCode.DUPLICATE
                self._book.twin(peer.id, "two processes run with one identity; the second is refused")
                return CloseCode.INSTANCE
            return None
        is_dialed = connection.origin is Origin.DIALED
        was_dialed = existing.origin is Origin.DIALED
        if not replaces(self._book.own, peer.id, existing_dialed=was_dialed, new_dialed=is_dialed):
            if is_dialed or not self._is_settled(peer, existing) or await self._answers(existing):
                return CloseCode.DUPLICATE
            return None  # the peer has given it up: it has moved, or lost its state of it
        if not is_dialed and not was_dialed and not peer.redials.take(trio.current_time()):
            self._book.punish(peer.id, PeerError("it connects again and again", CloseCode.LIMIT))
            return CloseCode.BUSY
        return None

    def _is_settled(self, peer: Peer, connection: Connection) -> bool:
        """Whether a connection has been there for so long that its peer knows of it."""
        seconds = max(SETTLED_SECONDS, PROBE_ROUND_TRIPS * connection.rtt_seconds)
        return peer.adopted_at is not None and trio.current_time() >= peer.adopted_at + seconds

    async def _answers(self, connection: Connection) -> bool:
        """Whether the peer at the other end of a connection is still there, without keeping anybody waiting."""
        least, most = PROBE_SECONDS
        rtt = connection.rtt_seconds
        return await self.answers(connection, max(least, min(most, PROBE_ROUND_TRIPS * rtt), 2 * rtt))

    async def answers(self, connection: Connection, seconds: float) -> bool:
        """Whether the peer at the other end of a connection answers within a time."""
        link = self._engine.links.get(connection.peer)
        if link is None or link.connection is not connection:
            return False  # it is being closed
        with trio.move_on_after(seconds) as scope:
            await link.control.ping()
        return not scope.cancelled_caught and not connection.is_closed

    def _adopt(self, peer: Peer, connection: Connection) -> None:
        """From now on this is the connection with the peer."""
        before, peer.connection, peer.adopted_at = peer.connection, connection, trio.current_time()
        if before is not None and before.hello.instance != connection.hello.instance:
            self._say_disconnected(peer, "the peer was started anew")
        peer.changed.notify()
        self._nursery.start_soon(self._serve, peer, self._engine.attach(connection))

    def _say_connected(self, peer: Peer, connection: Connection) -> None:
        """The peer wants this connection too; one that takes the place of another is no news."""
        peer.name = connection.hello.name or peer.name
        peer.via = peer.via or "accepted"
        peer.is_pending_there, peer.last_error, peer.knocks, peer.failures = False, None, 0, 0
        peer.aside_until = None
        self._book.trust.knocks.pop(peer.id, None)
        try:
            self._book.trust.met(peer.id, peer.name, HostPort(*connection.address[:2]))
        except StoreError as error:
            self._engine.store_failed(error)
        if peer.since is None:
            peer.since = self._wall()
            self._book.events.emit("connected", peer=peer.id, name=peer.name, origin=connection.origin.value)
        peer.changed.notify()
        self._book.changed.notify()

    async def _serve(self, peer: Peer, link: Link) -> None:
        """Serve the connection to its end, and tell of that unless another one has taken its place."""
        connection = link.connection
        reason: str | None = None
        began = trio.current_time()
        try:
            await self._engine.serve(link)
        except PeerError as error:
            reason = str(error)
            connection.close(error.code, reason)
            if error.code is not CloseCode.TIMEOUT:  # which may be the network's doing as well
                self._book.punish(peer.id, error)
        except TransportLost as error:
            reason = self._book.in_words(peer.id, error)
            connection.close(error.code if error.code is not CloseCode.LOST else CloseCode.OK, str(error))
            if trio.current_time() >= began + LASTING_SECONDS:
                self._book.forgive(peer.id)
                peer.aside.reset()
        except Exception:  # noqa: BLE001  # the boundary of one peer: our own fault must not take the others down
            _log.exception("serving a peer failed", peer=peer.id.hex())
            connection.close(CloseCode.INTERNAL)
            reason = "an internal fault of this node; see the log"
            self._book.events.emit("failed", part="peer", peer=peer.id)
        closed = await connection.wait_closed()
        if closed.code is CloseCode.DUPLICATE and closed.by_peer and peer.connection is connection:
            with trio.move_on_after(SUCCESSOR_SECONDS):
                await peer.changed.wait_until(lambda: peer.connection is not connection)
        if peer.connection is connection:
            peer.connection = None
            if peer.since is not None:
                peer.last_error = reason if closed.code not in (CloseCode.OK, CloseCode.SHUTDOWN) else None
            self._say_disconnected(peer, reason or closed.code.name.lower())
            peer.changed.notify()
            self._book.changed.notify()

    def _say_disconnected(self, peer: Peer, reason: str) -> None:
        if peer.since is not None:
            peer.since = None
            self._book.events.emit("disconnected", peer=peer.id, reason=reason)
