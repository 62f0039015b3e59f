"""Who may connect: the configuration, what the owner accepted or banned, and who knocked."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Literal

from meshsync.addresses import HostPort
from meshsync.core.limits import Limits
from meshsync.discovery.base import Sighting
from meshsync.errors import CloseCode, LocalError
from meshsync.ids import EndpointId
from meshsync.store.base import Store
from meshsync.store.rows import PeerRow

KNOCK = "knock"
ACCEPTED = "accepted"
Mode = Literal["closed", "mesh-key", "open"]


@dataclass(slots=True)
class Knock:
    """An endpoint that is not trusted yet.  Kept in memory: a stranger must not fill the disk."""

    id: EndpointId
    name: str
    place: HostPort | None
    """Where it came from when it proved who it is: a node dials from the address at which it listens, so perhaps it
    can be reached there.  None: it was only seen."""
    seen: float
    """Seconds since the epoch (UTC)."""
    times: int = 1
    via: str = KNOCK
    """How it became known: it knocked, or a way of discovery."""
    sightings: dict[str, Sighting] = field(default_factory=dict)
    """Where it is said to be, by source."""

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Where it may be."""
        seen = [address for sighting in self.sightings.values() for address in sighting.addresses]
        return tuple(dict.fromkeys(seen if self.place is None else [self.place, *seen]))


def accepted_sighting(row: PeerRow) -> Sighting | None:
    """Where an endpoint was last that the owner accepted; None where that is not known, or was no number."""
    host, _, port = row.address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal():
        return None
    return Sighting(EndpointId(row.id), (HostPort(host, int(port)),), ACCEPTED, row.name)


class Trust:
    """Decides for one node."""

    def __init__(
        self,
        own: EndpointId,
        mode: Mode,
        named: Collection[EndpointId],
        store: Store,
        limits: Limits,
        now: Callable[[], float],
    ) -> None:
        self.mode = mode
        self._own = own
        self._named = set(named)
        self._store = store
        self._limits = limits
        self._now = now
        self._decided: dict[EndpointId, PeerRow] = {EndpointId(row.id): row for row in store.peers()}
        self.knocks: dict[EndpointId, Knock] = {}

    def judge(self, peer: EndpointId, *, has_mesh_key: bool) -> CloseCode | None:
        """None: welcome.  PENDING: the owner has to say.  BANNED: the owner has said."""
        if self.is_banned(peer):
            return CloseCode.BANNED
        if self.is_known(peer) or self.mode == "open" or (self.mode == "mesh-key" and has_mesh_key):
            return None
        return CloseCode.PENDING

    def would_admit(self, peer: EndpointId) -> bool:
        """Whether an endpoint is welcome, if it holds the mesh key where that is what counts."""
        return self.judge(peer, has_mesh_key=True) is None

    def confides(self, peer: EndpointId) -> bool:
        """Whether a connected peer may be told what only those should know that this node trusts.

        Under trust `open` everyone is let in, so being let in says nothing.
        """
        return self.mode != "open" or self.is_known(peer)

    def is_known(self, peer: EndpointId) -> bool:
        """Whether the owner named or accepted this endpoint."""
        row = self._decided.get(peer)
        return peer in self._named or (row is not None and row.trust == ACCEPTED)

    def met(self, peer: EndpointId, name: str, place: HostPort) -> None:
        """An endpoint was connected: where one is that the owner accepted is remembered.  StoreError: the disk."""
        row = self._decided.get(peer)
        if row is None or row.trust != ACCEPTED or (row.address, row.name) == (str(place), name):
            return
        row = PeerRow(peer, ACCEPTED, name, str(place), self._now())
        with self._store.transaction():
            self._store.put_peer(row)
        self._decided[peer] = row

    def is_banned(self, peer: EndpointId) -> bool:
        """Whether the owner banned this endpoint."""
        row = self._decided.get(peer)
        return row is not None and row.trust == "banned"

    def name(self, peer: EndpointId) -> None:
        """The owner named this endpoint while the node runs: it is welcome until the end of the process."""
        self._named.add(peer)

    def knocked(self, peer: EndpointId, name: str, place: HostPort) -> bool:
        """Note a stranger; True where it is a new one.  Beyond the bound strangers are not remembered."""
        knock = self.knocks.get(peer)
        if knock is not None:
            knock.times += 1
            knock.seen, knock.name, knock.place = self._now(), name, place
            return False
        if len(self.knocks) >= self._limits.pending_peers_max:
            seen = next((one.id for one in self.knocks.values() if one.place is None), None)
            if seen is None:
                return False
            del self.knocks[seen]  # anyone can make others see any number, and nobody can knock without a key
        self.knocks[peer] = Knock(peer, name, place, self._now())
        return True

    def sighted(self, peer: EndpointId, sighting: Sighting, source: str) -> bool:
        """Note a stranger that was seen, or is seen no more; True where it is a new one."""
        knock = self.knocks.get(peer)
        if not sighting.addresses:
            if knock is not None:
                knock.sightings.pop(source, None)
                if not knock.addresses:
                    del self.knocks[peer]
            return False
        is_new = knock is None
        if knock is None:
            if len(self.knocks) >= self._limits.pending_peers_max:
                return False
            knock = self.knocks[peer] = Knock(peer, sighting.name, None, self._now(), times=0)
        knock.via, knock.seen, knock.name = sighting.via, self._now(), sighting.name or knock.name
        addresses = sighting.addresses[: self._limits.discovered_addresses_max]
        knock.sightings[source] = replace(sighting, addresses=addresses)
        return is_new

    def accept(self, peer: EndpointId) -> Knock | None:
        """Let an endpoint in from now on; returns how it knocked or was seen, where it was."""
        return self._decide(peer, ACCEPTED)

    def ban(self, peer: EndpointId) -> None:
        """Keep an endpoint out from now on, even where the configuration names it."""
        self._decide(peer, "banned")

    def forget(self, peer: EndpointId) -> bool:
        """Forget what was decided or named; False where nothing was."""
        knocked = self.knocks.pop(peer, None) is not None
        decided, named = peer in self._decided, peer in self._named
        if decided:
            with self._store.transaction():
                self._store.forget_peer(peer)
            del self._decided[peer]
        self._named.discard(peer)
        return knocked or decided or named

    def accepted(self) -> list[PeerRow]:
        """The endpoints that the owner accepted."""
        return [row for row in self._decided.values() if row.trust == ACCEPTED]

    def known(self) -> set[EndpointId]:
        """Every endpoint of which anything is known."""
        return self._named | set(self._decided) | set(self.knocks)

    def _decide(self, peer: EndpointId, trust: str) -> Knock | None:
        if peer == self._own:
            raise LocalError(f"{peer} is this node itself")
        knock = self.knocks.pop(peer, None)
        row = PeerRow(peer, trust, knock.name if knock else "", str(knock.addresses[0]) if knock else "", self._now())
        with self._store.transaction():
            self._store.put_peer(row)
        self._decided[peer] = row
        return knock
