"""Addresses of unknown identity: whoever is there is asked who it is.

Asking leaves nothing behind: it ends when the other side has proved itself and this one has not, so the other side
never takes it for a connection.  What was learnt is a sighting like any other: the endpoint is then dialled as itself,
by the rules for peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from meshsync.addresses import HostPort
from meshsync.core.dialing import Aside, Paths
from meshsync.core.hello import Hello
from meshsync.discovery.base import Sighting
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import EndpointId
from meshsync.notifier import Notifier
from meshsync.peering.book import PeerBook
from meshsync.peering.candidates import SOON_SECONDS
from meshsync.peering.reach import reach
from meshsync.transports.base import Address, Transport

AGAIN_SECONDS = 300.0
"""How long an answer holds: after that somebody else may be at the address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Who was found at an address."""

    id: EndpointId
    hello: Hello
    address: HostPort
    """As a number."""
    has_mesh_key: bool


@dataclass(slots=True)
class _Place:
    """One address of a list, and who was there last."""

    address: HostPort
    aside: Aside
    paths: Paths
    due: float
    """trio time when it is asked next."""
    is_asked: bool = False
    answers: list[Answer] = field(default_factory=list)
    """Several where a name stands for several addresses."""


@dataclass(slots=True)
class _List:
    """The addresses that one lookup gave."""

    via: str
    name: str
    places: dict[HostPort, _Place] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """What tells its addresses from those that are known by other ways."""
        return f"{self.via} {self.name}"

    def addresses(self, id: EndpointId) -> tuple[HostPort, ...]:
        """Where an endpoint was found."""
        found = (one for place in self.places.values() for one in place.answers if one.id == id)
        return tuple(dict.fromkeys(one.address for one in found))


class Prospects:
    """Asks at the addresses of one node's sightings without an endpoint."""

    def __init__(
        self,
        book: PeerBook,
        transports: Sequence[Transport],
        met: Callable[[Answer], None],
        found: Callable[[Sighting, str, bool], None],
    ) -> None:
        """Begin with none.

        `met` hears of each answer, `found` of each endpoint whose addresses changed, with their source and whether
        it holds the mesh key.
        """
        self._book = book
        self._transports = transports
        self._met = met
        self._found = found
        self._lists: dict[tuple[str, str], _List] = {}
        self._changed = Notifier()

    def sighted(self, sighting: Sighting) -> None:
        """Ask at these addresses from now on, and no more at those that the same lookup gave before."""
        key = (sighting.via, sighting.name)
        known = self._lists.setdefault(key, _List(*key))
        before = known.places
        elsewhere = sum(len(each.places) for each in self._lists.values() if each is not known)
        room = max(0, self._book.limits.discovered_peers_max - elsewhere)
        known.places = {
            address: before.get(address) or self._place(address) for address in dict.fromkeys(sighting.addresses[:room])
        }
        if not known.places:
            del self._lists[key]
        gone = [place for address, place in before.items() if address not in known.places]
        self._tell(known, (one for place in gone for one in place.answers))
        self._changed.notify()

    def _place(self, address: HostPort) -> _Place:
        rng, limits = self._book.rng, self._book.limits
        return _Place(address, Aside(rng, limits), Paths(rng, limits), 0.0)

    def hurry(self) -> None:
        """The network is another one: ask everywhere anew, and soon."""
        for known in self._lists.values():
            for place in known.places.values():
                place.aside.reset()
                place.paths.reset()
                place.due = trio.current_time() + self._book.rng.uniform(0, SOON_SECONDS)
        self._changed.notify()

    async def run(self) -> None:
        """Ask, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                waiting = [
                    (known, place)
                    for known in self._lists.values()
                    for place in known.places.values()
                    if not place.is_asked
                ]
                for known, place in waiting:
                    if place.due <= now:
                        place.is_asked = True
                        nursery.start_soon(self._visit, known, place)
                with trio.move_on_at(min((place.due for _, place in waiting if place.due > now), default=float("inf"))):
                    await self._changed.wait()

    async def _visit(self, known: _List, place: _Place) -> None:
        """Ask at one address, unless a peer that was found there is still connected from there."""
        if not self._is_held(place):
            answers = await self._ask(place)
            before, place.answers = place.answers, answers
            if answers:
                place.aside.reset()
            if known.places.get(place.address) is place:
                self._tell(known, (*answers, *before))
        pause = AGAIN_SECONDS * self._book.rng.uniform(0.5, 1.0) if place.answers else place.aside.next_delay()
        place.due = trio.current_time() + pause
        place.is_asked = False
        self._changed.notify()

    def _is_held(self, place: _Place) -> bool:
        """Whether everybody who was found there is connected from there."""
        connections = [(self._book.connection_with(one.id), one.address) for one in place.answers]
        return bool(connections) and all(one is not None and one.address == address for one, address in connections)

    async def _ask(self, place: _Place) -> list[Answer]:
        """Who is at an address; several where it is a name."""
        answers: list[Answer] = []
        async with self._book.discovered_dials:
            try:
                await reach(self._transports, None, [place.address], partial(_note, answers), place.paths)
            except (TransportLost, PeerError):
                pass  # each that answered was refused, which is what is meant
        for answer in answers:
            self._met(answer)
        return answers

    def _tell(self, known: _List, about: Iterable[Answer]) -> None:
        """Say where these endpoints are now, as far as this list knows."""
        for one in {one.id: one for one in reversed(list(about))}.values():
            if one.id != self._book.own:
                sighting = Sighting(one.id, known.addresses(one.id), known.via, one.hello.name)
                self._found(sighting, known.source, one.has_mesh_key)


def _note(answers: list[Answer], id: EndpointId, hello: Hello, address: Address, has_mesh_key: bool) -> CloseCode:
    """Take note of who it is, and go no further.  See meshsync.transports.base.Admit."""
    answers.append(Answer(id, hello, HostPort(*address), has_mesh_key))
    return CloseCode.OK
