"""The local network, where anybody may say anything, and may be switched off."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import structlog.testing
import trio
from zeroconf._dns import DNSAddress, DNSPointer, DNSRecord, DNSService, DNSText
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.const import _MAX_CACHE_RECORDS

from meshsync.addresses import HostPort
from meshsync.core.limits import LIMITS, Limits
from meshsync.discovery.advert import Advert
from meshsync.discovery.base import Sighting
from meshsync.discovery.mdns import station
from meshsync.discovery.mdns.discovery import MdnsDiscovery
from meshsync.discovery.mdns.heard import SERVICE
from meshsync.identity import Identity
from meshsync.ids import EndpointId
from meshsync.interfaces import Interfaces
from tests.cli.processes import PATIENCE_SECONDS, ROOT

OWN, A, B, CANARY = (Identity.generate().endpoint_id for _ in range(4))
"""Of this run alone: who has the same name on loopback at the same time speaks for the same endpoint."""
KEY = random.SystemRandom().randbytes(32)
"""Of a mesh of this run's own: other runs may be on loopback at the same time."""
QUICK = replace(LIMITS, mdns_settle_seconds=0.01, mdns_ttl_seconds=120, mdns_retry_seconds=0.5)
_RESPONSE, _UNIQUE, _IN = 0x8400, 0x8001, 1
_MULTICAST = ("224.0.0.251", 5353)


def discovery(id: EndpointId, port: int, limits: Limits = QUICK, key: bytes = KEY) -> MdnsDiscovery:
    address = HostPort("127.0.0.1", port)
    return MdnsDiscovery(id, "", [address], Interfaces(["lo"]), mesh_key=key, rng=random.Random(port), limits=limits)


@asynccontextmanager
async def looking(limits: Limits = QUICK) -> AsyncIterator[AsyncIterator[Sighting]]:
    looker = discovery(OWN, 9, limits)
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            async with looker.sightings() as sightings, discovery(CANARY, 8).sightings():
                # What is said before the station listens is lost; from now on it does.
                await next_of(sightings, CANARY)
                yield sightings
    except trio.TooSlowError as error:
        error.add_note(f"what the looker says of the network: {looker.fault or 'all is well'}")
        raise


async def next_of(sightings: AsyncIterator[Sighting], id: EndpointId) -> Sighting:
    """The next sighting of an endpoint; who else is there is none of this test's business."""
    async for sighting in sightings:
        if sighting.endpoint == id:
            return sighting
    raise AssertionError("sightings ended")


class Shouter:
    """Sends records to the group on loopback."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))

    def raw(self, data: bytes) -> None:
        self._socket.sendto(data, _MULTICAST)

    def say(self, *records: DNSRecord) -> None:
        out = DNSOutgoing(_RESPONSE)
        for record in records:
            out.add_answer_at_time(record, 0)
        for packet in out.packets():
            self.raw(packet)

    def announce(
        self, label: str, txt: bytes, port: int = 1000, addresses: tuple[str, ...] = ("127.0.0.1",), ttl: int = 120
    ) -> None:
        name, server = f"{label}.{SERVICE}", f"{label[:32]}.local."
        self.say(
            DNSPointer(SERVICE, 12, _IN, ttl, name),
            DNSService(name, 33, _UNIQUE, ttl, 0, 0, port, server),
            DNSText(name, 16, _UNIQUE, ttl, txt),
            *(DNSAddress(server, 1, _UNIQUE, ttl, socket.inet_aton(address)) for address in addresses),
        )

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def shouter() -> Iterator[Shouter]:
    made = Shouter()
    yield made
    made.close()


def txt_of(advert: Advert, **changed: bytes) -> bytes:
    """A TXT record's bytes (RFC 6763 section 6.1)."""
    found = {key: value.encode() for key, value in advert.txt().items()} | changed
    strings = [f"{key}=".encode() + value for key, value in found.items()]
    return b"".join(bytes([len(one)]) + one for one in strings)


def member(id: EndpointId) -> Advert:
    """An announcement of the mesh of this run."""
    return discovery(id, 1)._advert


async def test_hostile_records_are_left_alone_and_the_good_one_is_heard(shouter: Shouter) -> None:
    """One announcement that is not understood must not cost anybody else's."""
    good, bad = member(A), member(B)
    async with looking() as sightings:
        shouter.announce(bad.label, txt_of(bad, id=b"0" * 64))
        shouter.announce(bad.label, txt_of(bad, id=A.hex().encode()))
        shouter.announce(bad.label, txt_of(bad, id=b"\xff" * 64))
        shouter.announce(bad.label, txt_of(bad, v=b"9"))
        shouter.announce(bad.label, txt_of(bad, mesh=b"0" * 16))
        shouter.announce(bad.label, txt_of(bad), port=0)
        shouter.announce(bad.label, txt_of(bad), addresses=("0.0.0.0", "224.0.0.1"))
        shouter.announce(bad.label, b"".join(b"\xffx" + bytes([n % 256]) * 254 for n in range(30)))
        shouter.announce(bad.label, b"\xff\x01\x02")
        shouter.announce(member(OWN).label, txt_of(member(OWN)))
        shouter.announce("\x1b[2J\u202e" + bad.label, txt_of(bad))
        shouter.announce("x" * 63, txt_of(bad))
        for data in (b"", b"\0", bytes(12), b"\x84\0" * 2000, bytes(random.Random(1).randbytes(1200))):
            shouter.raw(data)
        shouter.announce(good.label, txt_of(good, name=b"\x1b[31mred\xff"), port=1234)
        sighting = await anext(sightings)
        assert sighting.endpoint == A, "nothing else was taken for an announcement"
        assert sighting.addresses == (HostPort("127.0.0.1", 1234),)
        assert sighting.name == "[31mred\N{REPLACEMENT CHARACTER}"


async def test_thousands_of_made_up_endpoints_take_nobody_away(shouter: Shouter) -> None:
    """A flood may keep new ones out while it lasts; those who were there stay, and memory stays bounded."""
    good = member(A)
    limits = replace(QUICK, sightings_max=16)
    async with looking(limits) as sightings:
        await shout_until_seen(shouter, sightings, good, 1000)
        made_up = [member(Identity.generate().endpoint_id) for _ in range(300)]
        for advert in made_up:
            shouter.announce(advert.label, txt_of(advert), ttl=4500)
            await trio.lowlevel.checkpoint()
        seen = await shout_until_seen(shouter, sightings, good, 1001)
        assert len(seen) <= limits.sightings_max


async def test_whoever_moves_is_seen_however_many_records_were_said_to_be_good_for_hours(shouter: Shouter) -> None:
    """Else some hundred datagrams fill the memory of zeroconf, and for an hour no news of anybody finds room there."""
    good = member(A)
    async with looking() as sightings:
        for turn in range(_MAX_CACHE_RECORDS // 1000 + 3):
            await shout_until_seen(shouter, sightings, good, 1000 + turn)
            shouter.say(*(DNSAddress(f"{turn}-{n}.local.", 1, _IN, 4500, bytes(4)) for n in range(1000)))


async def test_rubbish_under_the_name_of_one_that_is_there_does_not_take_it_away(shouter: Shouter) -> None:
    """Otherwise one datagram makes room for a flood, and who had that name is not seen again while it lasts."""
    good, other = member(A), member(B)
    async with looking() as sightings:
        await shout_until_seen(shouter, sightings, good, 1000)
        shouter.announce(good.label, txt_of(good, mesh=b"0" * 16))
        shouter.announce(good.label, txt_of(good, id=b"0" * 64))
        assert A not in await shout_until_seen(shouter, sightings, other, 1000)


async def shout_until_seen(
    shouter: Shouter, sightings: AsyncIterator[Sighting], advert: Advert, port: int
) -> set[EndpointId | None]:
    """Announce it until it is seen at the port; returns who was seen before that.

    Again and again, as nodes do: in a flood the system drops datagrams.
    """

    async def shout() -> None:
        while True:
            shouter.announce(advert.label, txt_of(advert), port=port)
            await trio.sleep(0.5)

    seen: set[EndpointId | None] = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shout)
        async for sighting in sightings:
            if sighting.endpoint == advert.id and sighting.addresses == (HostPort("127.0.0.1", port),):
                break
            seen.add(sighting.endpoint)
        nursery.cancel_scope.cancel()
    return seen


async def test_whom_the_owner_accepts_is_seen_from_then_on_without_the_hint_of_the_mesh(shouter: Shouter) -> None:
    """A peer without the mesh key that was let in by hand would otherwise not be found where it is now."""
    known: set[EndpointId] = set()
    address = HostPort("127.0.0.1", 9)
    foreign, good = Advert(B), member(A)
    looker = MdnsDiscovery(
        OWN,
        "",
        [address],
        Interfaces(["lo"]),
        mesh_key=KEY,
        is_known=known.__contains__,
        rng=random.Random(1),
        limits=QUICK,
    )
    with trio.fail_after(PATIENCE_SECONDS):
        async with looker.sightings() as sightings, discovery(CANARY, 8).sightings():
            await next_of(sightings, CANARY)
            shouter.announce(foreign.label, txt_of(foreign), port=1001)
            shouter.announce(good.label, txt_of(good), port=1002)
            async for sighting in sightings:
                assert sighting.endpoint != B, "it is not of this mesh"
                if sighting.endpoint == A:
                    break
            known.add(B)
            # zeroconf takes a packet that comes twice within a second for an echo.
            shouter.announce(foreign.label, txt_of(foreign), port=1001, ttl=121)
            assert (await next_of(sightings, B)).addresses == (HostPort("127.0.0.1", 1001),)


async def test_one_record_holds_only_so_many_addresses(shouter: Shouter) -> None:
    """Each is tried, for seconds."""
    good = member(A)
    async with looking() as sightings:
        shouter.announce(good.label, txt_of(good), addresses=tuple(f"10.0.0.{n}" for n in range(1, 60)))
        assert len((await next_of(sightings, A)).addresses) == LIMITS.addresses_per_sighting_max


ANNOUNCER = """
import random, sys, trio
from dataclasses import replace
from meshsync.core.limits import LIMITS
from meshsync.ids import EndpointId
from tests.discovery.test_mdns import QUICK, discovery
async def main():
    limits = replace(QUICK, mdns_ttl_seconds=3, mdns_announce_seconds=1)
    id, key = (bytes.fromhex(one) for one in sys.argv[1:])
    async with discovery(EndpointId(id), 1000, limits, key).sightings():
        await trio.sleep_forever()
trio.run(main)
"""


async def test_whoever_is_killed_disappears_when_its_records_run_out() -> None:
    """It says no goodbye; whoever is alive announces itself again in time."""
    command = [sys.executable, "-c", ANNOUNCER, A.hex(), KEY.hex()]
    async with looking() as sightings:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:  # noqa: ASYNC220
            try:
                assert (await next_of(sightings, A)).addresses
            finally:
                process.send_signal(signal.SIGKILL)
            assert (await next_of(sightings, A)).addresses == ()


async def test_no_multicast_is_said_once_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may have the port for itself, or the system may forbid it, for a while; a node lives on."""
    limits = replace(QUICK, mdns_retry_seconds=0.02, mdns_retry_seconds_max=0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as selfish, structlog.testing.capture_logs() as logs:
        selfish.bind(("127.0.0.1", 0))
        monkeypatch.setattr(station, "PORT", selfish.getsockname()[1])
        with trio.fail_after(PATIENCE_SECONDS):
            async with discovery(OWN, 9, limits).sightings() as sightings, discovery(A, 1000, limits).sightings():
                with trio.move_on_after(0.5):
                    await anext(sightings)
                assert any("does not share" in entry["event"] for entry in logs)
                monkeypatch.undo()
                assert (await next_of(sightings, A)).addresses
    said = [entry["event"] for entry in logs if "cannot be found" in entry["event"]]
    expected = "port 5353/udp belongs to a program that does not share it"
    assert said == [f"peers on the local network cannot be found: {expected}; trying again"] * 2, "each says it once"
