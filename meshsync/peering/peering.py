"""Peering: what the owner and the transport ask for, and the tasks that hold the right connections.

One task per connection (`meshsync.peering.arrivals`) and one per dialled peer (`meshsync.peering.dialer`), all in
one nursery.  Whatever one peer does is caught at the boundary of its task, by type, and becomes an event; the
others do not notice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import structlog
import trio

from meshsync.addresses import HostPort
from meshsync.core.dialing import Backoff
from meshsync.core.hello import Hello
from meshsync.core.limits import Limits
from meshsync.discovery.base import Discovery, Sighting
from meshsync.errors import CloseCode, LocalError, RefusedError
from meshsync.events import EventLog
from meshsync.ids import EndpointId
from meshsync.peering.arrivals import Arrivals
from meshsync.peering.book import PeerBook
from meshsync.peering.candidates import SOON_SECONDS, Candidates
from meshsync.peering.dialer import Dialer
from meshsync.peering.peer import MANUAL, STATIC, Peer
from meshsync.peering.prospects import Answer, Prospects
from meshsync.peering.trust import KNOCK, Trust, accepted_sighting
from meshsync.sync.engine import SyncEngine
from meshsync.transports.base import Address, Connection, Transport

_log = structlog.get_logger("meshsync.peering")

NETWORK_PROBE_ROUND_TRIPS = 10
NETWORK_PROBE_SECONDS = 5.0
"""How long a connection has to answer after the network has changed; where the link is slow, some round trips."""


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
        self._book = PeerBook(own, trust, events, limits, rng)
        self._welcomed: dict[EndpointId, float] = {}
        """Strangers that were let in a moment ago and are not linked yet, and until when they count."""
        self.peers = self._book.peers
        self.discoveries: tuple[Discovery, ...] = ()
        """The ways of finding peers that are in use."""
        self._own = own
        self._instance = instance
        self._engine = engine
        self._events = events
        self._wall = wall
        self._nursery: trio.Nursery | None = None
        self._candidates = Candidates(self._book, self._dial)
        self._dialer: Dialer | None = None
        self._arrivals: Arrivals | None = None
        self._prospects: Prospects | None = None

    def start(self, nursery: trio.Nursery, transports: Sequence[Transport], discoveries: Iterable[Discovery]) -> None:
        """Accept, dial and serve in `nursery`, until it is cancelled."""
        arrivals = self._arrivals = Arrivals(self._book, self._engine, nursery, self._wall)
        prospects = self._prospects = Prospects(self._book, transports, self._met, self._sighted)
        self._nursery = nursery
        self._dialer = Dialer(self._book, transports, self._candidates, self._admit_dialed, arrivals.dialed)
        for transport in transports:
            nursery.start_soon(self._accept_loop, transport, arrivals, nursery)
        for row in self.trust.accepted():
            if (sighting := accepted_sighting(row)) is not None:
                self._sighted(sighting)
        self.discoveries = tuple(discoveries)
        for discovery in self.discoveries:
            nursery.start_soon(self._discover, discovery, prospects)
        nursery.start_soon(prospects.run)
        nursery.start_soon(self._candidates.run)

    async def _accept_loop(self, transport: Transport, arrivals: Arrivals, nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(arrivals.accepted, await transport.accept())

    async def _discover(self, discovery: Discovery, prospects: Prospects) -> None:
        """Follow one way of finding peers.  Where it fails the node goes on without it, and begins it anew."""
        pauses = Backoff(self._book.rng, self._book.limits)
        while True:
            try:
                await self._follow(discovery, prospects)
            except Exception:  # noqa: BLE001  # the boundary of one way of finding peers
                _log.exception("finding peers failed", via=discovery.via)
                self._events.emit("failed", part="discovery", via=discovery.via)
                await trio.sleep(pauses.next_delay())
            else:
                return

    async def _follow(self, discovery: Discovery, prospects: Prospects) -> None:
        async with discovery.sightings() as sightings:
            async for sighting in sightings:
                if sighting.endpoint is None:
                    prospects.sighted(sighting)
                else:
                    self._sighted(sighting)

    def _sighted(self, sighting: Sighting, source: str = "", has_mesh_key: bool | None = None) -> None:
        """An endpoint was seen, or is gone; `has_mesh_key` None: nobody asked it yet."""
        id = sighting.endpoint
        if id is None or id == self._own:
            return
        if has_mesh_key is None:
            has_mesh_key = id not in self.trust.knocks
        code = self.trust.judge(id, has_mesh_key=has_mesh_key)
        if sighting.via == STATIC:
            peer = self._book.peer(id)
            peer.learn(sighting.addresses, sighting.via, sighting.name)
            if code is None:
                self._want(peer)
        elif code is None:
            self._candidates.sighted(id, sighting, source)
        elif code is CloseCode.PENDING and self.trust.sighted(id, sighting, source or sighting.via):
            self._say_pending(id, sighting.name, str(sighting.addresses[0]), sighting.via)

    def _met(self, answer: Answer) -> None:
        """Somebody answered at an address of unknown identity; that it is this node itself is no news."""
        if answer.id == self._own:
            self._admit_self(answer.hello)

    # What the owner asks for

    def add(self, id: EndpointId, addresses: Sequence[HostPort], via: str, name: str = "") -> Peer:
        """Dial a peer from now on, for ever, where it has an address.  RefusedError: it is this node, or banned."""
        if id == self._own:
            raise RefusedError(f"{id} is this node itself; name the other node's id, which `meshsync id` prints there")
        if self.trust.is_banned(id):
            raise RefusedError(f"{id} is banned; to let it in again: meshsync peers accept {id}")
        peer = self._book.peer(id)
        peer.learn(addresses, via, name)
        self._want(peer)
        return peer

    def _want(self, peer: Peer) -> None:
        """Dial a peer as long as it is wanted, where the owner said where it is."""
        peer.is_parted = False
        if peer.is_named:
            peer.wanted = True
            self._dial(peer)

    def _hurry(self, peer: Peer) -> None:
        """Dial a peer now, be it only once."""
        peer.is_hurried = True
        if peer.queueing is not None:
            peer.queueing.cancel()
        peer.changed.notify()
        self._dial(peer)

    def _dial(self, peer: Peer) -> None:
        """See that a task dials a peer for as long as it is to be dialled."""
        if not peer.has_dialer:
            assert self._nursery is not None, "peering has not begun"
            assert self._dialer is not None
            peer.has_dialer = True
            self._nursery.start_soon(self._dialer.run, peer)

    async def connect(self, id: EndpointId, addresses: Sequence[HostPort]) -> bool:
        """Connect to a peer now, and keep doing so.

        True: connected, by this call or before.  False: the tie-break leaves it to the peer, which is connecting.
        TransportLost, PeerError: it failed; the peer is tried again all the same.  RefusedError: see `add`.
        LocalError: there is no address.  Cancelling stops the waiting only.
        """
        before = self.peers[id].addresses if id in self.peers else ()
        peer = self.add(id, addresses, MANUAL)
        if not peer.is_named:
            raise LocalError(f"no address of {id} is known: give one")
        self.trust.name(id)
        self._book.forgive(id)
        if peer.is_connected:
            await trio.lowlevel.checkpoint()
            return True
        if peer.dialing is not None and not set(peer.addresses) <= set(before):
            peer.dialing.cancel()  # it knows nothing of the new address
        self._hurry(peer)
        number = peer.tries_begun + 1
        await peer.changed.wait_until(
            lambda: peer.tries_ended >= number or not peer.wanted or (peer.is_connected and peer.tries_begun < number)
        )
        outcome = peer.outcome if peer.tries_ended >= number else peer.is_connected
        if isinstance(outcome, bool) or peer.is_connected:
            return outcome is not False
        raise type(outcome)(str(outcome), outcome.code)

    def accept(self, id: EndpointId) -> None:
        """Let an endpoint in; it is connected as soon as it knocks again, or at once where it can be reached."""
        knock = self.trust.accept(id)
        self._book.forgive(id)
        self._events.emit("accepted", peer=id)
        if knock is None and id not in self.peers:
            return
        peer = self._book.peer(id)
        self._want(peer)
        if knock is not None:
            peer.name, peer.via = knock.name or peer.name, peer.via or "accepted"
            peer.knocked_from = () if knock.place is None else (knock.place,)
            for source, sighting in knock.sightings.items():
                peer.learn(sighting.addresses, sighting.via, sighting.name, source)
        self._candidates.review()
        if peer.addresses or peer.knocked_from:
            self._hurry(peer)

    def disconnect(self, id: EndpointId, code: CloseCode = CloseCode.DISCONNECTED) -> None:
        """End the redial first, then the connection."""
        peer = self.peers.get(id)
        if peer is None:
            return
        peer.wanted = peer.is_hurried = peer.is_pending_there = False
        peer.is_parted = True
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

    def network_changed(self) -> None:
        """This machine has other addresses or links: try everybody soon, and see who is still there."""
        if self._nursery is None or self._arrivals is None or self._prospects is None:
            return
        for peer in self.peers.values():
            peer.backoff.reset()
            peer.paths.reset()
            if connection := peer.open_connection():
                self._nursery.start_soon(self._probe, self._arrivals, connection)
            elif peer.next_dial is not None:
                peer.next_dial = min(peer.next_dial, trio.current_time() + self._book.rng.uniform(0, SOON_SECONDS))
                peer.changed.notify()
        self._candidates.hurry()
        self._prospects.hurry()

    async def _probe(self, arrivals: Arrivals, connection: Connection) -> None:
        """Give a connection up that leads nowhere, so that its peer is dialled where it is now."""
        seconds = max(NETWORK_PROBE_SECONDS, NETWORK_PROBE_ROUND_TRIPS * connection.rtt_seconds)
        if not await arrivals.answers(connection, seconds):
            connection.close(CloseCode.TIMEOUT, "it did not answer after the network changed")

    # Trust, as the transport asks for it

    def _has_room_for(self, id: EndpointId) -> bool:
        """Strangers, where trust lets them in, leave room for the peers that the owner named or accepted."""
        links, limits, now = self._engine.links, self._book.limits, trio.current_time()
        if id in links or self.trust.is_known(id):
            return True
        self._welcomed = {one: until for one, until in self._welcomed.items() if until > now and one not in links}
        taken = len(links) + len(self._welcomed.keys() - {id})
        if taken >= limits.connections_max - limits.connections_for_known:
            return False
        self._welcomed[id] = now + limits.handshake_seconds_min
        return True

    def _admit_self(self, hello: Hello) -> CloseCode:
        """This node met itself, or a process with its identity."""
        if hello.instance != self._instance:
            message = "another process runs with this node's identity: one of them must get a key of its own"
            self._book.twin(self._own, message)
        return CloseCode.INSTANCE

    def admit(self, id: EndpointId, hello: Hello, address: Address, has_mesh_key: bool) -> CloseCode | None:
        """Whether a connection whose identity is proved may stay.  See meshsync.transports.base.Admit."""
        if id == self._own:
            return self._admit_self(hello)
        code = self.trust.judge(id, has_mesh_key=has_mesh_key)
        if code is None and (self._book.penalty(id) or not self._has_room_for(id)):
            return CloseCode.BUSY
        if code is CloseCode.PENDING and self.trust.knocked(id, hello.name, HostPort(*address)):
            self._say_pending(id, hello.name, address[0], KNOCK)
        return code

    def _admit_dialed(self, id: EndpointId, hello: Hello, address: Address, has_mesh_key: bool) -> CloseCode | None:
        """The same for a peer that this node dialled: who turns out to be a stranger has not knocked."""
        if id != self._own and self.trust.judge(id, has_mesh_key=has_mesh_key) is CloseCode.PENDING:
            peer = self._book.peer(id)
            sighting = Sighting(id, peer.addresses, peer.via, hello.name)
            peer.unlearn_discovered()
            self._candidates.review()
            self._sighted(sighting, has_mesh_key=False)
            return CloseCode.DISCONNECTED
        return self.admit(id, hello, address, has_mesh_key)

    def _say_pending(self, id: EndpointId, name: str, address: str, via: str) -> None:
        self._events.emit("pending", peer=id, name=name, address=address, via=via)
        does = "wants to connect" if via == KNOCK else f"was found by {via}"
        _log.warning(
            f"{name or 'an endpoint'} {does}; to let it in: meshsync peers accept {id}", peer=id.hex(), address=address
        )
