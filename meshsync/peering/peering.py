"""The dial loops, the accept loop, and the rule that leaves one connection with each peer.

One task per connection and one per dialled peer, all in one nursery.  Whatever one peer does is caught
at the boundary of its task, by type, and becomes an event; the others do not notice.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVarTuple

import structlog
import trio

from meshsync.addresses import HostPort
from meshsync.core.dialing import Allowance, Backoff, Penalties, replaces
from meshsync.core.hello import Hello
from meshsync.core.limits import Limits
from meshsync.discovery.base import Discovery
from meshsync.errors import CloseCode, LocalError, PeerError, RefusedError, TransportLost
from meshsync.events import EventLog
from meshsync.ids import EndpointId
from meshsync.peering.dialer import reach
from meshsync.peering.peer import MANUAL, Outcome, Peer
from meshsync.peering.trust import Trust
from meshsync.sync.engine import SyncEngine
from meshsync.sync.link import Link
from meshsync.transports.base import Address, Connection, Origin, Transport

Ts = TypeVarTuple("Ts")

_log = structlog.get_logger("meshsync.peering")

PENDING_RETRY_SECONDS = 2.0
"""How often to knock where the owner has yet to accept us: often, because someone may be waiting for it."""
ASIDE_SECONDS = 0.5
"""How long an accepted connection waits for one's own dial to the same peer, which would survive."""
SUCCESSOR_SECONDS = 2.0
"""How long a connection that the peer closed as a duplicate may take to be replaced."""
PROBE_SECONDS = 2.0
"""How long a connection has to answer when a second process with the peer's identity shows up."""
LASTING_SECONDS = 10.0
"""A connection that lasted so long was a good one: the next try comes soon."""


class Peering:
    """Holds the right connections for one node."""

    def __init__(
        self,
        own: EndpointId,
        instance: bytes,
        trust: Trust,
        engine: SyncEngine,
        events: EventLog,
        limits: Limits,
        rng: random.Random,
        wall: Callable[[], float],
    ) -> None:
        self.trust = trust
        self.peers: dict[EndpointId, Peer] = {}
        self._own = own
        self._instance = instance
        self._engine = engine
        self._events = events
        self._limits = limits
        self._rng = rng
        self._wall = wall
        self._transports: Sequence[Transport] = ()
        self._nursery: trio.Nursery | None = None
        self._penalties = Penalties(rng, limits)

    def start(self, nursery: trio.Nursery, transports: Sequence[Transport], discoveries: Iterable[Discovery]) -> None:
        """Accept, dial and serve in `nursery`, until it is cancelled."""
        self._nursery = nursery
        self._transports = transports
        for transport in transports:
            self._start(self._accept_loop, transport)
        for discovery in discoveries:
            self._start(self._discover, discovery)

    # What the owner asks for

    def add(self, id: EndpointId, addresses: Sequence[HostPort], via: str, name: str = "") -> Peer:
        """Dial a peer from now on, for ever, where it has an address.  RefusedError: it is this node, or banned."""
        if id == self._own:
            raise RefusedError(f"{id} is this node itself; name the other node's id, which `meshsync id` prints there")
        if self.trust.is_banned(id):
            raise RefusedError(f"{id} is banned; to let it in again: meshsync peers accept {id}")
        peer = self._peer(id)
        peer.learn(addresses, via, name)
        if peer.addresses:
            self._want(peer)
        return peer

    async def connect(self, id: EndpointId, addresses: Sequence[HostPort]) -> bool:
        """Connect to a peer now, and keep doing so.

        True: connected, by this call or before.  False: the tie-break leaves it to the peer, which is connecting.
        TransportLost, PeerError: it failed; the peer is tried again all the same.  RefusedError: see `add`.
        LocalError: there is no address.  Cancelling stops the waiting only.
        """
        peer = self.add(id, addresses, MANUAL)
        if not peer.addresses:
            raise LocalError(f"no address of {id} is known: give one")
        self.trust.name(id)
        self._penalties.forgive(id)
        if peer.is_connected:
            await trio.lowlevel.checkpoint()
            return True
        peer.is_hurried = True
        number = peer.tries_begun + 1
        peer.changed.notify()
        await peer.changed.wait_until(
            lambda: peer.tries_ended >= number or not peer.wanted or (peer.is_connected and peer.tries_begun < number)
        )
        outcome = peer.outcome if peer.tries_ended >= number else peer.is_connected
        if isinstance(outcome, bool) or peer.is_connected:
            return outcome is not False
        raise type(outcome)(str(outcome), outcome.code)

    def accept(self, id: EndpointId) -> None:
        """Let an endpoint in; it is connected as soon as it knocks again, or at once where its address is known."""
        self.trust.accept(id)
        self._penalties.forgive(id)
        self._events.emit("accepted", peer=id)
        peer = self.peers.get(id)
        if peer is not None and peer.addresses:
            self._want(peer)

    def disconnect(self, id: EndpointId, code: CloseCode = CloseCode.DISCONNECTED) -> None:
        """End the redial first, then the connection."""
        peer = self.peers.get(id)
        if peer is None:
            return
        peer.wanted = peer.is_pending_there = False
        if peer.dialing is not None:
            peer.dialing.cancel()
        if peer.connection is not None:
            peer.connection.close(code)
        peer.changed.notify()

    def forget(self, id: EndpointId) -> None:
        """Forget an endpoint and disconnect it.  LocalError: nothing is known of it."""
        known = self.trust.forget(id)
        if not known and id not in self.peers:
            raise LocalError(f"nothing is known of {id}")
        self.disconnect(id)
        self.peers.pop(id, None)
        self._events.emit("forgotten", peer=id)

    def ban(self, id: EndpointId) -> None:
        """Keep an endpoint out, and disconnect it."""
        self.trust.ban(id)
        self.disconnect(id, CloseCode.BANNED)
        self._events.emit("banned", peer=id)

    # Trust, as the transport asks for it

    def admit(self, id: EndpointId, hello: Hello, address: Address, has_mesh_key: bool) -> CloseCode | None:
        """Whether a connection whose identity is proved may stay.  See meshsync.transports.base.Admit."""
        if id == self._own:
            if hello.instance != self._instance:
                self._loudly(
                    "another process runs with this node's identity: one of them must get a key of its own", id
                )
            return CloseCode.INSTANCE
        code = self.trust.judge(id, has_mesh_key=has_mesh_key)
        if code is None and self._penalties.remaining(id, trio.current_time()):
            return CloseCode.BUSY
        if code is CloseCode.PENDING and self.trust.knocked(id, hello.name, f"{address[0]} port {address[1]}"):
            self._events.emit("pending", peer=id, name=hello.name, address=address[0])
            _log.warning(
                f"{hello.name or 'an endpoint'} wants to connect; to let it in: meshsync peers accept {id}",
                peer=id.hex(),
                address=address[0],
            )
        return code

    # Dialling

    async def _discover(self, discovery: Discovery) -> None:
        async with discovery.sightings() as sightings:
            async for sighting in sightings:
                try:
                    self.add(sighting.endpoint, sighting.addresses, sighting.via, sighting.name)
                except RefusedError as error:
                    _log.info("a peer that was seen is not dialled", peer=sighting.endpoint.hex(), reason=str(error))

    def _want(self, peer: Peer) -> None:
        peer.wanted = True
        if not peer.has_dialer:
            peer.has_dialer = True
            self._start(self._dial_loop, peer)

    async def _dial_loop(self, peer: Peer) -> None:
        try:
            while peer.wanted:
                if peer.is_connected:
                    began = trio.current_time()
                    await peer.changed.wait_until(lambda: not (peer.is_connected and peer.wanted))
                    if trio.current_time() >= began + LASTING_SECONDS:
                        peer.backoff.reset()
                    delay = peer.backoff.next_delay()
                else:
                    delay = await self._try(peer)
                await self._rest(peer, delay)
        finally:
            peer.has_dialer = False

    async def _rest(self, peer: Peer, delay: float) -> None:
        """Wait before the next try, unless there is something else to do."""
        now = trio.current_time()
        peer.next_dial = now + max(delay, self._penalties.remaining(peer.id, now))
        with trio.move_on_at(peer.next_dial):
            await peer.changed.wait_until(lambda: peer.is_connected or not peer.wanted or peer.is_hurried)
        peer.next_dial = None

    async def _try(self, peer: Peer) -> float:
        """Dial once; returns how long to rest."""
        peer.is_hurried = False
        peer.tries_begun += 1
        outcome: Outcome
        try:
            outcome = await self._dial(peer)
        except (TransportLost, PeerError) as error:
            outcome = error
        except Exception:  # noqa: BLE001  # the boundary of one peer
            _log.exception("dialling a peer failed", peer=peer.id.hex())
            outcome = TransportLost("an internal fault of this node; see the log", CloseCode.INTERNAL)
        peer.tries_ended, peer.outcome = peer.tries_begun, outcome
        peer.changed.notify()
        if peer.is_connected or not peer.wanted:
            return 0.0
        return peer.backoff.next_delay() if isinstance(outcome, bool) else self._failed(peer, outcome)

    def _failed(self, peer: Peer, error: TransportLost | PeerError) -> float:
        """Note why a try failed; returns how long to rest."""
        if error.code is CloseCode.PENDING:
            delay = self._rng.uniform(0.5, 1) * PENDING_RETRY_SECONDS
            if peer.is_pending_there:
                return delay
            reason = f"{peer.id.short} has yet to accept this node: `meshsync peers accept {self._own}` there"
        else:
            reason, delay = str(error), peer.backoff.next_delay()
        peer.is_pending_there = error.code is CloseCode.PENDING
        peer.last_error = reason
        if error.code is CloseCode.INSTANCE:
            self._loudly(f"the peer refuses this node: {reason}", peer.id)
        elif isinstance(error, PeerError):
            self._events.emit("peer_error", peer=peer.id, reason=reason, code=error.code.name)
        self._events.emit("dial_failed", peer=peer.id, reason=reason, retry_s=round(delay, 2))
        return delay

    async def _dial(self, peer: Peer) -> bool:
        """Dial once.  See `connect` for the answers."""
        scope = trio.CancelScope()
        connection = await self._reach(peer, scope)
        if connection is None:
            return False
        if scope.cancel_called:  # too late to stop the dial
            connection.close(CloseCode.DUPLICATE if peer.wanted else CloseCode.DISCONNECTED)
            return False
        return await self._register(connection)

    async def _reach(self, peer: Peer, scope: trio.CancelScope) -> Connection | None:
        """Dial within `scope`; None where that was cancelled before there was a connection."""
        connection: Connection | None = None
        with scope:
            peer.dialing = scope
            try:
                connection = await reach(self._transports, peer.id, peer.addresses)
            finally:
                peer.dialing = None
                peer.changed.notify()
        return connection

    # Accepting, and the one connection with each peer

    async def _accept_loop(self, transport: Transport) -> None:
        while True:
            self._start(self._incoming, await transport.accept())

    async def _incoming(self, connection: Connection) -> None:
        try:
            await self._decide(connection)
        except Exception:  # noqa: BLE001  # the boundary of one peer
            _log.exception("a connection could not be taken", peer=connection.peer.hex())
            connection.close(CloseCode.INTERNAL)

    async def _decide(self, connection: Connection) -> None:
        peer = self._peer(connection.peer)
        if peer.dialing is not None:
            if self._own < connection.peer:
                # Our own dial would survive; "connected" is not said before that is known.
                with trio.move_on_after(ASIDE_SECONDS):
                    await peer.changed.wait_until(lambda: peer.dialing is None)
            else:
                peer.dialing.cancel()
        await self._register(connection)

    async def _register(self, connection: Connection) -> bool:
        """Make this the connection with its peer, if the rules say so; whether it is."""
        while (existing := self._connection_with(connection.peer)) is not None:
            refusal = await self._refusal(existing, connection)
            if refusal is not None:
                connection.close(refusal)
                return False
            if existing.hello.instance == connection.hello.instance:
                existing.close(CloseCode.DUPLICATE)
            else:
                existing.close(CloseCode.TIMEOUT, "another process of this peer has taken over")
        # It was admitted; what was decided since then counts.
        code = self.trust.judge(connection.peer, has_mesh_key=True)
        if code is not None:
            connection.close(code)
        if connection.is_closed:
            return False
        self._adopt(self._peer(connection.peer), connection)
        return True

    def _connection_with(self, id: EndpointId) -> Connection | None:
        peer = self.peers.get(id)
        return peer.open_connection() if peer is not None else None

    async def _refusal(self, existing: Connection, connection: Connection) -> CloseCode | None:
        """Why a second connection with a peer must not take the place of the first; None: it does."""
        peer = self._peer(connection.peer)
        if existing.hello.instance != connection.hello.instance:
            if await self._answers(existing):
                self._loudly("two processes run with one identity; the second is refused", peer.id)
                return CloseCode.INSTANCE
            return None
        is_dialed = connection.origin is Origin.DIALED
        was_dialed = existing.origin is Origin.DIALED
        if not replaces(self._own, peer.id, existing_dialed=was_dialed, new_dialed=is_dialed):
            return CloseCode.DUPLICATE
        if not is_dialed and not was_dialed and not peer.redials.take(trio.current_time()):
            self._punish(peer.id, PeerError("it connects again and again", CloseCode.LIMIT))
            return CloseCode.BUSY
        return None

    async def _answers(self, connection: Connection) -> bool:
        """Whether the peer at the other end of a connection is still there."""
        link = self._engine.links.get(connection.peer)
        if link is None or link.connection is not connection:
            return False  # it is being closed
        with trio.move_on_after(PROBE_SECONDS) as scope:
            await link.control.ping()
        return not scope.cancelled_caught and not connection.is_closed

    def _adopt(self, peer: Peer, connection: Connection) -> None:
        """From now on this is the connection with the peer."""
        before, peer.connection = peer.connection, connection
        peer.name = connection.hello.name or peer.name
        peer.via = peer.via or "accepted"
        peer.is_pending_there, peer.last_error = False, None
        self.trust.knocks.pop(peer.id, None)
        if before is not None and before.hello.instance != connection.hello.instance:
            self._say_disconnected(peer, "the peer was started anew")
        if peer.since is None:
            peer.since = self._wall()
            self._events.emit("connected", peer=peer.id, name=peer.name, origin=connection.origin.value)
        peer.changed.notify()
        self._start(self._serve, peer, self._engine.attach(connection))

    async def _serve(self, peer: Peer, link: Link) -> None:
        connection = link.connection
        reason: str | None = None
        began = trio.current_time()
        try:
            await self._engine.serve(link)
        except PeerError as error:
            reason = str(error)
            connection.close(error.code, reason)
            self._punish(peer.id, error)
        except TransportLost as error:
            reason = str(error)
            connection.close(error.code if error.code is not CloseCode.LOST else CloseCode.OK)
            if trio.current_time() >= began + LASTING_SECONDS:
                self._penalties.forgive(peer.id)
        except Exception:  # noqa: BLE001  # the boundary of one peer: our own fault must not take the others down
            _log.exception("serving a peer failed", peer=peer.id.hex())
            connection.close(CloseCode.INTERNAL)
            reason = "an internal fault of this node; see the log"
            self._events.emit("failed", part="peer", peer=peer.id)
        closed = await connection.wait_closed()
        if closed.code is CloseCode.DUPLICATE and closed.by_peer and peer.connection is connection:
            with trio.move_on_after(SUCCESSOR_SECONDS):
                await peer.changed.wait_until(lambda: peer.connection is not connection)
        if peer.connection is connection:
            peer.connection = None
            peer.last_error = reason if closed.code not in (CloseCode.OK, CloseCode.SHUTDOWN) else None
            self._say_disconnected(peer, reason or closed.code.name.lower())
            peer.changed.notify()

    def _say_disconnected(self, peer: Peer, reason: str) -> None:
        if peer.since is not None:
            peer.since = None
            self._events.emit("disconnected", peer=peer.id, reason=reason)

    def _punish(self, id: EndpointId, error: PeerError) -> None:
        """A peer broke the protocol: it is not let in again for a while, each time longer."""
        self._penalties.punish(id, trio.current_time())
        self._events.emit("peer_error", peer=id, reason=str(error), code=error.code.name)
        _log.warning("a peer broke the protocol", peer=id.hex(), reason=str(error), code=error.code.name)

    def _loudly(self, message: str, id: EndpointId) -> None:
        _log.error(message, peer=id.hex())
        self._events.emit("peer_error", peer=id, reason=message, code=CloseCode.INSTANCE.name)

    def _peer(self, id: EndpointId) -> Peer:
        peer = self.peers.get(id)
        if peer is None:
            self._make_room()
            limits = self._limits
            redials = Allowance(limits.redials_burst, limits.redial_seconds)
            peer = self.peers[id] = Peer(id, Backoff(self._rng, limits), redials)
        return peer

    def _make_room(self) -> None:
        """Of peers that nobody named the one known for longest is forgotten where there are too many."""
        if len(self.peers) >= self._limits.peers_max:
            for id, peer in self.peers.items():
                if not (peer.wanted or peer.is_static or peer.connection or self.trust.is_known(id)):
                    del self.peers[id]
                    return

    def _start(self, function: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        assert self._nursery is not None, "peering has not begun"
        self._nursery.start_soon(function, *args)
