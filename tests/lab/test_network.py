from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from meshsync.lab.drivers.base import read_lab
from meshsync.lab.impairments import PROFILES, Impairment, LinkImpairment
from meshsync.lab.simulation.network import Network
from tests.lab.labs import TOPOLOGIES, write_files

PORT = 4433
PAYLOAD_BYTES = 958
FRAME_BYTES = 1000
"""With the headers of Ethernet, IPv4 and UDP."""

Arrivals = dict[int, list[float]]
"""Per datagram, how many seconds after it was sent each copy arrived."""


def pair(folder: Path, impairment: LinkImpairment) -> Network:
    """Two hosts, 10.0.0.1 and 10.0.0.2, and a link."""
    topology = read_lab(write_files(folder)).topology
    return Network(topology, {"a-b": impairment}, random.Random(1))


async def measure(network: Network, source: str, target: str, address: str, count: int, gap: float) -> Arrivals:
    """Send so many datagrams, each a gap after the one before, from one host to another one."""
    sent: dict[int, float] = {}
    arrived: Arrivals = {}
    sender, receiver = network.socket(source, PORT), network.socket(target, PORT)

    async def receive() -> None:
        while True:
            for payload, _ in await receiver.receive():
                number = int.from_bytes(payload[:4], "big")
                arrived.setdefault(number, []).append(trio.current_time() - sent[number])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.run)
        nursery.start_soon(receive)
        for number in range(count):
            sent[number] = trio.current_time()
            sender.send([number.to_bytes(4, "big").ljust(PAYLOAD_BYTES, b".")], (address, PORT))
            await trio.sleep(gap)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    return arrived


@pytest.mark.parametrize(
    "name", ["nominal", "tactical-radio", "degraded", "contested-light", "contested-heavy", "jtrs", "satcom-low"]
)
async def test_a_profile_delays_and_loses_as_it_says(tmp_path: Path, name: str, autojump_clock: object) -> None:
    """Otherwise every figure of a simulation is about another network.  Both directions, one after the other."""
    del autojump_clock
    profile = PROFILES[name].forward
    network = pair(tmp_path / "pair", PROFILES[name])
    seconds = FRAME_BYTES * 8 / profile.rate_bits_per_second
    for source, target, address in (("a", "b", "10.0.0.2"), ("b", "a", "10.0.0.1")):
        arrived = await measure(network, source, target, address, 1000, gap=seconds + 0.001)
        assert 1 - len(arrived) / 1000 == pytest.approx(profile.loss, abs=0.05)
        for delays in arrived.values():
            assert delays == [pytest.approx(profile.delay_seconds + seconds)]


async def test_a_link_has_the_rate_that_it_says(tmp_path: Path, autojump_clock: object) -> None:
    """Otherwise a slow radio is a fast one with delay."""
    del autojump_clock
    impairment = Impairment(rate_bits_per_second=400e3, queue_seconds=30)
    arrived = await measure(pair(tmp_path / "pair", LinkImpairment(impairment)), "a", "b", "10.0.0.2", 500, gap=0.0)
    assert len(arrived) == 500
    assert max(delays[0] for delays in arrived.values()) == pytest.approx(500 * FRAME_BYTES * 8 / 400e3)


async def test_copies_overtakers_and_bursts_arrive(tmp_path: Path, autojump_clock: object) -> None:
    """Otherwise a mesh is never tried against them in virtual time."""
    del autojump_clock
    impairment = Impairment(delay_seconds=0.1, duplication=0.1, reordering=0.2, loss=0.2, burst_datagrams=4)
    arrived = await measure(pair(tmp_path / "pair", LinkImpairment(impairment)), "a", "b", "10.0.0.2", 5000, gap=0.01)
    assert 1 - len(arrived) / 5000 == pytest.approx(0.2, abs=0.05)
    assert sum(len(delays) == 2 for delays in arrived.values()) / len(arrived) == pytest.approx(0.1, abs=0.02)
    assert sum(delays[0] < 0.05 for delays in arrived.values()) / len(arrived) == pytest.approx(0.2, abs=0.06)
    gaps = sum(number in arrived and number + 1 not in arrived for number in range(4999))
    assert (5000 - len(arrived)) / gaps == pytest.approx(4, abs=1)


async def test_a_link_that_flaps_or_is_cut_carries_nothing_meanwhile(tmp_path: Path, autojump_clock: object) -> None:
    """Otherwise a partition of a simulation is none."""
    del autojump_clock
    network = pair(tmp_path / "pair", LinkImpairment(Impairment(flap_seconds=(3, 2))))
    arrived = await measure(network, "a", "b", "10.0.0.2", 100, gap=0.1)
    assert sorted(arrived) == pytest.approx([number for number in range(100) if number % 50 < 30], abs=1)
    link = network.topology.links[0]
    network.part(link)
    assert await measure(network, "a", "b", "10.0.0.2", 10, gap=0.1) == {}
    network.impair(link, LinkImpairment())
    assert len(await measure(network, "a", "b", "10.0.0.2", 10, gap=0.1)) == 10


async def test_a_switch_adds_the_delays_of_both_cables(autojump_clock: object) -> None:
    """Otherwise nodes on a LAN are nearer to each other than their cables are long."""
    del autojump_clock
    topology = read_lab(TOPOLOGIES / "lan-mdns").topology
    links = {"n1-sw": PROFILES["nominal"], "n2-sw": LinkImpairment(backward=Impairment(delay_seconds=0.03))}
    arrived = await measure(Network(topology, links, random.Random(1)), "n1", "n2", "10.0.0.2", 5, gap=0.1)
    assert [delays for _, delays in sorted(arrived.items())] == [[pytest.approx(0.04)]] * 5
