"""The dial loops, the accept loop, and the rule that leaves one connection with each peer.

One task per connection and one per dialled peer, all in the nursery of `run`.  Whatever one peer does is caught
at the boundary of its task, by type, and becomes an event; the others do not notice.
"""

from __future__ import annotations

import random
import socket as stdlib_socket
from collections.abc import Callable, Iterable, Sequence

import structlog
import trio

from meshsync.addresses import HostPort
from meshsync.core.dialing import Backoff, replaces
from meshsync.core.hello import Hello
from meshsync.core.limits import Limits
from meshsync.discovery.base import Discovery
from meshsync.errors import CloseCode, LocalError, PeerError, RefusedError, TransportLost
from meshsync.events import EventLog
from meshsync.ids import EndpointId
from meshsync.peering.peer import Peer
from meshsync.peering.trust import Trust
from meshsync.sync.engine import SyncEngine
from meshsync.transports.base import Address, Connection, Origin, Transport

_log = structlog.get_logger("meshsync.peering")

PENDING_RETRY_SECONDS = 2.0
"""How often to knock where the owner has yet to accept us: often, because someone may be waiting for it."""
ASIDE_SECONDS = 0.5
"""How long an accepted connection waits for one's own dial to the same peer, which would survive."""
SUCCESSOR_SECONDS = 2.0
"""How long a connection that the peer closed as a duplicate may take to be replaced."""
PROBE_SECONDS = 2.0
"""How long a connection has to answer when a second process with the peer's identity shows up."""


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
        self._penalties: dict[EndpointId, tuple[float, Backoff]] = {}

    async def run(self, transports: Sequence[Transport], discoveries: Iterable[Discovery]) -> None:
        """Accept, dial and serve until cancelled."""
        self._transports = transports
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for transport in transports:
                nursery.start_soon(self._accept_loop, transport)
            for discovery in discoveries:
                nursery.start_soon(self._discover, discovery)
            for peer in self.peers.values():
                if peer.wanted:
                    nursery.start_soon(self._dial_loop, peer)

    # What the owner asks for

    def add(self, id: EndpointId, addresses: Sequence[HostPort], via: str, name: str = "") -> Peer:
        """Dial a peer from now on, for ever.  RefusedError: it is this node itself, or banned."""
        if id == self._own:
            raise RefusedError(f"{id} is this node itself; name the other node's id, which `meshsync id` prints there")
        peer = self._peer(id)
        known = {str(address) for address in peer.addresses}
        peer.addresses += tuple(address for address in addresses if str(address) not in known)
        peer.via, peer.name = via, name or peer.name
        if not peer.wanted and peer.addresses:
            peer.wanted = True
            if self._nursery is not None:
                self._nursery.start_soon(self._dial_loop, peer)
        return peer

    async def connect(self, id: EndpointId, addresses: Sequence[HostPort]) -> bool:
        """Connect to a peer now, and keep doing so.

        True: connected, by this call or before.  False: the tie-break leaves it to the peer, which is connecting.
        TransportLost, PeerError: it failed; the peer is tried again all the same.  Cancelling abandons this try.
        """
        self.trust.name(id)
        peer = self._peer(id)
        if peer.is_connected:
            self.add(id, addresses, peer.via or "manual")
            return True
        if id == self._own:
            self.add(id, addresses, "manual")
        try:
            return await self._dial(peer, addresses)
        finally:
            self.add(id, addresses, "manual")

    def accept(self, id: EndpointId) -> None:
        """Let an endpoint in; it is connected as soon as it knocks again."""
        self.trust.accept(id)
        self._events.emit("accepted", peer=id)

    def disconnect(self, id: EndpointId, code: CloseCode = CloseCode.DISCONNECTED) -> None:
        """End the redial first, then the connection."""
        peer = self.peers.get(id)
        if peer is None:
            return
        peer.wanted = False
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
        penalty = self._penalties.get(id)
        if penalty is not None and trio.current_time() < penalty[0]:
            return CloseCode.BUSY
        code = self.trust.judge(id, has_mesh_key=has_mesh_key)
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
                self.add(sighting.endpoint, sighting.addresses, sighting.via, sighting.name)

    async def _dial_loop(self, peer: Peer) -> None:
        while peer.wanted:
            if peer.is_connected:
                await peer.changed.wait_until(lambda: not peer.is_connected or not peer.wanted)
                peer.backoff.reset()
                continue
            delay: float
            try:
                await self._dial(peer, peer.addresses)
            except TransportLost as error:
                peer.is_pending_there = error.code is CloseCode.PENDING
                if peer.is_pending_there:
                    peer.last_error = (
                        f"{peer.id.short} has yet to accept this node: `meshsync peers accept {self._own}` there"
                    )
                    delay = self._rng.uniform(0.5, 1) * PENDING_RETRY_SECONDS
                else:
                    peer.last_error = str(error)
                    delay = peer.backoff.next_delay()
            except PeerError as error:
                peer.last_error = str(error)
                delay = peer.backoff.next_delay()
                self._events.emit("peer_error", peer=peer.id, reason=str(error), code=error.code.name)
            else:
                delay = 0.0 if peer.is_connected else peer.backoff.next_delay()
            if peer.is_connected or not peer.wanted:
                continue
            peer.next_dial = trio.current_time() + delay
            if peer.last_error is not None:
                self._events.emit("dial_failed", peer=peer.id, reason=peer.last_error, retry_s=round(delay, 2))
            with trio.move_on_at(peer.next_dial):
                await peer.changed.wait_until(lambda: peer.is_connected or not peer.wanted)
            peer.next_dial = None

    async def _dial(self, peer: Peer, addresses: Sequence[HostPort]) -> bool:
        """Try every address until one answers.  See `connect` for the answers."""
        failure: TransportLost | PeerError = TransportLost("no address is known")
        with trio.CancelScope() as scope:
            peer.dialing = scope
            try:
                for address in addresses:
                    try:
                        connection = await self._dial_name(peer.id, address)
                    except (TransportLost, PeerError) as error:
                        failure = error
                        continue
                    peer.last_error = None
                    return await self._register(connection)
            finally:
                peer.dialing = None
                peer.changed.notify()
        if scope.cancelled_caught:
            return False  # the peer's own connection to us came first, and survives
        raise failure

    async def _dial_name(self, id: EndpointId, address: HostPort) -> Connection:
        """Resolve a name anew and try each of its addresses."""
        try:
            records = await trio.socket.getaddrinfo(address.host, address.port, type=stdlib_socket.SOCK_DGRAM)
        except OSError as error:
            raise TransportLost(f"{address.host} cannot be resolved: {error.strerror or error}") from None
        failure: TransportLost | PeerError = TransportLost(f"{address.host} has no address")
        targets = dict.fromkeys((str(record[4][0]), int(record[4][1])) for record in records)
        for target in targets:
            transport = self._transport_for(target)
            if transport is None:
                failure = TransportLost(f"{target[0]} cannot be reached from an address that this node listens on")
                continue
            try:
                return await transport.dial(target, id)
            except (TransportLost, PeerError) as error:
                failure = error
        raise failure

    def _transport_for(self, target: Address) -> Transport | None:
        is_v6 = ":" in target[0]
        fitting = [one for one in self._transports if (":" in one.address[0]) == is_v6 or one.address[0] == "::"]
        return fitting[0] if fitting else None

    # Accepting, and the one connection with each peer

    async def _accept_loop(self, transport: Transport) -> None:
        assert self._nursery is not None
        while True:
            connection = await transport.accept()
            self._nursery.start_soon(self._incoming, connection)

    async def _incoming(self, connection: Connection) -> None:
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
        peer = self._peer(connection.peer)
        existing = peer.connection
        if existing is not None and not existing.is_closed:
            if existing.hello.instance != connection.hello.instance:
                if await self._is_alive(existing):
                    self._loudly("two processes run with one identity; the second is refused", connection.peer)
                    connection.close(CloseCode.INSTANCE, "another process runs with your identity")
                    return False
                existing.close(CloseCode.LOST)
            elif replaces(
                self._own,
                peer.id,
                existing_dialed=existing.origin is Origin.DIALED,
                new_dialed=connection.origin is Origin.DIALED,
            ):
                existing.close(CloseCode.DUPLICATE)
            else:
                connection.close(CloseCode.DUPLICATE)
                return peer.is_connected
        was_connected = existing is not None
        peer.connection, peer.name = connection, connection.hello.name or peer.name
        peer.is_pending_there, peer.last_error = False, None
        self.trust.knocks.pop(peer.id, None)
        if not was_connected:
            peer.since = self._wall()
            peer.via = peer.via or "accepted"
            self._events.emit("connected", peer=peer.id, name=peer.name, origin=connection.origin.value)
        peer.changed.notify()
        assert self._nursery is not None
        self._nursery.start_soon(self._serve, peer, connection)
        return True

    async def _is_alive(self, connection: Connection) -> bool:
        link = self._engine.links.get(connection.peer)
        if link is None or link.connection is not connection:
            return not connection.is_closed
        with trio.move_on_after(PROBE_SECONDS):
            try:
                await link.ping()
            except TransportLost:
                return False
            return True
        return False

    async def _serve(self, peer: Peer, connection: Connection) -> None:
        reason: str | None = None
        try:
            await self._engine.serve(connection)
        except PeerError as error:
            reason = str(error)
            connection.close(error.code, reason)
            self._punish(peer.id, error)
        except TransportLost as error:
            reason = str(error)
            connection.close(error.code if error.code is not CloseCode.LOST else CloseCode.OK)
        except Exception:  # the boundary of one peer: our own fault must not take the others down
            _log.exception("serving a peer failed", peer=peer.id.hex())
            connection.close(CloseCode.INTERNAL)
            reason = "an internal fault of this node; see the log"
            self._events.emit("failed", part="peer", peer=peer.id)
        closed = await connection.wait_closed()
        if closed.code is CloseCode.DUPLICATE and closed.by_peer and peer.connection is connection:
            with trio.move_on_after(SUCCESSOR_SECONDS):
                await peer.changed.wait_until(lambda: peer.connection is not connection)
        if peer.connection is connection:
            peer.connection = peer.since = None
            peer.last_error = reason if closed.code not in (CloseCode.OK, CloseCode.SHUTDOWN) else None
            self._events.emit("disconnected", peer=peer.id, reason=reason or closed.code.name.lower())
            peer.changed.notify()

    def _punish(self, id: EndpointId, error: PeerError) -> None:
        """A peer broke the protocol: it is not let in again for a while, each time longer."""
        backoff = self._penalties[id][1] if id in self._penalties else Backoff(self._rng, self._limits)
        self._penalties[id] = (trio.current_time() + backoff.next_delay(), backoff)
        if len(self._penalties) > self._limits.connections_max:
            del self._penalties[min(self._penalties, key=lambda one: self._penalties[one][0])]
        self._events.emit("peer_error", peer=id, reason=str(error), code=error.code.name)
        _log.warning("a peer broke the protocol", peer=id.hex(), reason=str(error), code=error.code.name)

    def _loudly(self, message: str, id: EndpointId) -> None:
        _log.error(message, peer=id.hex())
        self._events.emit("peer_error", peer=id, reason=message, code=CloseCode.INSTANCE.name)

    def _peer(self, id: EndpointId) -> Peer:
        peer = self.peers.get(id)
        if peer is None:
            peer = self.peers[id] = Peer(id, Backoff(self._rng, self._limits))
        return peer
