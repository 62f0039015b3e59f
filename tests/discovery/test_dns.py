"""Names that stand for peers, and servers that do not answer, or not the truth."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import dns.rcode
import pytest
import trio

from meshsync.addresses import HostPort, parse_dns_name
from meshsync.core.limits import LIMITS
from meshsync.discovery.base import Sighting
from meshsync.discovery.dns import DnsDiscovery, parse_untrusted_record
from meshsync.errors import PeerError
from meshsync.ids import EndpointId
from tests.discovery.dnsserver import DnsServer, dns_server
from tests.stack.world import IDENTITIES

OWN, A, B, *OTHERS = (identity.endpoint_id for identity in IDENTITIES)
NAME = "mesh.example"
SERVICE = f"_meshsync._udp.{NAME}"
QUICK = replace(
    LIMITS,
    dns_refresh_seconds_min=0.02,
    dns_refresh_seconds_max=0.1,
    dns_retry_seconds=0.02,
    dns_answer_seconds_max=0.5,
)
SECONDS_MAX = 20


@asynccontextmanager
async def looking(server: DnsServer, *names: str) -> AsyncIterator[AsyncIterator[Sighting]]:
    parsed = [parse_dns_name(name) for name in names or (NAME,)]
    discovery = DnsDiscovery(OWN, parsed, rng=random.Random(1), limits=QUICK, resolver=server.resolver)
    with trio.fail_after(SECONDS_MAX):
        async with discovery.sightings() as sightings:
            yield sightings


def at(id: EndpointId | None, *addresses: str, name: str = "") -> Sighting:
    places = [address.rpartition(":") for address in addresses]
    return Sighting(id, tuple(HostPort(host, int(port)) for host, _, port in places), "dns", name)


async def next_look(server: DnsServer, times: int = 2) -> None:
    """Wait until the server was asked for the TXT records so often once more."""
    wanted = server.asked.count((f"{SERVICE}.", "TXT")) + times
    await server.heard.wait_until(lambda: server.asked.count((f"{SERVICE}.", "TXT")) >= wanted)


async def test_text_records_name_endpoints_and_addresses() -> None:
    """A fleet's zone: who and where, in one record."""
    async with dns_server() as server:
        server.put(SERVICE, "TXT", f'"{A}@10.0.0.1:4433"', f'"{B}@relay.example:1"', f'"{A}@[fd00::1]:4433"')
        async with looking(server) as sightings:
            found = {sighting.endpoint: sighting for sighting in [await anext(sightings) for _ in range(2)]}
            assert set(found[A].addresses) == {HostPort("10.0.0.1", 4433), HostPort("fd00::1", 4433)}
            assert found[B] == at(B, "relay.example:1")
            server.put(SERVICE, "TXT", f'"{A}@10.0.0.2:4433"')
            assert [await anext(sightings), await anext(sightings)] == [at(B), at(A, "10.0.0.2:4433")]


async def test_service_records_name_targets_and_perhaps_who_is_there() -> None:
    """What Kubernetes has of a headless service with a port called meshsync; who is there it does not know."""
    async with dns_server() as server:
        server.put(SERVICE, "SRV", "0 0 5000 pod-1.mesh.example.", "0 0 5001 pod-2.mesh.example.", "0 0 0 .")
        server.put("pod-1.mesh.example", "TXT", '"colour=blue"', f'"id={A}"')
        server.put("pod-2.mesh.example", "A", "10.0.0.2")
        async with looking(server) as sightings:
            assert await anext(sightings) == at(A, "pod-1.mesh.example:5000")
            assert await anext(sightings) == at(None, "pod-2.mesh.example:5001", name=NAME)


async def test_address_records_stand_for_somebody() -> None:
    """A name with addresses and nothing else is all that most people have."""
    async with dns_server() as server:
        server.put(NAME, "A", "10.0.0.1", "10.0.0.2")
        server.put(NAME, "AAAA", "fd00::1")
        async with looking(server, f"{NAME}:5000") as sightings:
            sighting = await anext(sightings)
            assert (sighting.endpoint, sighting.name) == (None, f"{NAME}:5000")
            assert set(sighting.addresses) == {HostPort(host, 5000) for host in ("10.0.0.1", "10.0.0.2", "fd00::1")}
            server.clear()
            assert await anext(sightings) == at(None, name=f"{NAME}:5000")


async def test_two_names_may_tell_of_one_endpoint() -> None:
    """Otherwise the second name's answer takes the first one's addresses away, and the other way round."""
    async with dns_server() as server:
        server.put(SERVICE, "TXT", f'"{A}@10.0.0.1:1"')
        server.put("_meshsync._udp.other.example", "TXT", f'"{A}@10.0.0.2:2"')
        async with looking(server, NAME, "other.example") as sightings:
            sighting = await anext(sightings)
            while len(sighting.addresses) < 2:
                sighting = await anext(sightings)
            assert set(sighting.addresses) == {HostPort("10.0.0.1", 1), HostPort("10.0.0.2", 2)}
            server.clear()
            while sighting.addresses:
                sighting = await anext(sightings)


def garbage(answer: bytes) -> bytes:
    return answer[:5] + b"\xff" * 40


def failed(answer: bytes) -> bytes:
    return answer[:3] + bytes([answer[3] & 0xF0 | dns.rcode.SERVFAIL]) + answer[4:]


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda _: None, id="silent"),
        pytest.param(garbage, id="garbage"),
        pytest.param(lambda answer: bytes([answer[0] ^ 1]) + answer[1:], id="of another question"),
        pytest.param(failed, id="failed"),
        pytest.param(lambda answer: answer[:-1], id="cut"),
        pytest.param(lambda _: b"", id="empty"),
    ],
)
async def test_a_server_that_is_silent_or_broken_takes_nobody_away(tamper: object) -> None:
    """A name server restarts far more often than a fleet moves."""
    async with dns_server() as server:
        server.put(SERVICE, "TXT", f'"{A}@10.0.0.1:1"', ttl=0)
        async with looking(server) as sightings:
            assert await anext(sightings) == at(A, "10.0.0.1:1")
            server.tamper = tamper  # type: ignore[assignment]
            await next_look(server)
            server.tamper = lambda answer: answer
            server.put(SERVICE, "TXT", f'"{A}@10.0.0.2:1"')
            assert await anext(sightings) == at(A, "10.0.0.2:1")


async def test_what_stands_in_the_records_does_no_worse_than_to_be_ignored() -> None:
    """Whoever may write to the zone, or answers in its place, may write anything."""
    async with dns_server() as server:
        server.put(
            SERVICE,
            "TXT",
            '""',
            '"nonsense"',
            f'"{"00" * 32}@10.0.0.1:1"',
            f'"{A}@10.0.0.1:0"',
            f'"{A}@0.0.0.0:1"',
            '"\\255\\254\\000"',
            '"' + "x" * 255 + '" "' + "y" * 255 + '"',
            f'"{OWN}@10.0.0.9:1"',
            f'"{B}@10.0.0.2:2"',
        )
        async with looking(server) as sightings:
            assert await anext(sightings) == at(B, "10.0.0.2:2")


async def test_one_answer_holds_only_so_many() -> None:
    """An answer may have 64 kB; what is kept of it is bounded."""
    async with dns_server() as server:
        server.put(NAME, "A", *(f"10.{number // 250}.0.{number % 250}" for number in range(1000)))
        async with looking(server) as sightings:
            assert len((await anext(sightings)).addresses) == LIMITS.sightings_max
        server.clear()
        server.put(SERVICE, "TXT", *(f'"{A}@10.0.0.{number}:1"' for number in range(1, 100)))
        async with looking(server) as sightings:
            assert len((await anext(sightings)).addresses) == LIMITS.addresses_per_sighting_max


def test_a_record_is_a_peer_or_refused() -> None:
    """The one door through which text from a zone comes in."""
    assert parse_untrusted_record(f"{A}@10.0.0.1:1") == (A, HostPort("10.0.0.1", 1))
    for text in ("", "@", f"{A}@", f"{A}", "\x00", f"{A}@10.0.0.1:1\n", "x" * 60_000):
        with pytest.raises(PeerError):
            parse_untrusted_record(text)
