"""From names and addresses to a connection."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from meshsync.addresses import HostPort
from meshsync.core.dialing import Paths
from meshsync.core.hello import Hello
from meshsync.core.limits import LIMITS
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import EndpointId
from meshsync.peering.reach import reach
from meshsync.transports.base import Address, Admit, Transport
from tests.stack.world import IDENTITIES

PEER = IDENTITIES[0].endpoint_id
HELLO = Hello(nonce=bytes(32), instance=bytes(16), name="", agent="")


@dataclass
class FakeTransport:
    """Notes whom it was asked to dial and when, and connects only to some."""

    host: str
    answers: dict[Address, object]
    log: list[tuple[str, Address]]
    times: list[float]

    @property
    def address(self) -> Address:
        return self.host, 4433

    async def dial(self, address: Address, expect: EndpointId | None, admit: Admit) -> object:
        assert expect == PEER
        self.log.append((self.host, address))
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        answer = self.answers.get(address, TransportLost(f"{address[0]} does not answer", CloseCode.TIMEOUT))
        if isinstance(answer, tuple):
            seconds, answer = answer
            await trio.sleep(seconds)
        if isinstance(answer, Exception):
            raise answer
        code = admit(PEER, HELLO, address, False)
        if code is not None:
            raise TransportLost("refused here", code)
        return answer


async def attempt(
    hosts: list[str], addresses: list[HostPort], answers: dict[Address, object], paths: Paths | None = None
) -> Any:
    """What became of dialling, and whom was dialled from where."""
    outcome, log, _ = await timed(hosts, addresses, answers, paths)
    return outcome, log


async def timed(
    hosts: list[str], addresses: list[HostPort], answers: dict[Address, object], paths: Paths | None = None
) -> Any:
    """The same, and how long after the beginning each was dialled."""
    log: list[tuple[str, Address]] = []
    times: list[float] = []
    transports = cast(list[Transport], [FakeTransport(host, answers, log, times) for host in hosts])
    began = trio.current_time()
    outcome: object
    try:
        outcome = await reach(transports, PEER, addresses, welcome, paths or Paths(random.Random(1)))
    except (TransportLost, PeerError) as error:
        outcome = error
    return outcome, log, [time - began for time in times]


def welcome(*_: object) -> CloseCode | None:
    return None


def places(*hosts: str) -> list[HostPort]:
    return [HostPort(host, 1) for host in hosts]


async def test_every_address_is_tried_until_one_answers() -> None:
    """Otherwise one stale address keeps a peer away."""
    outcome, log = await attempt(
        ["0.0.0.0"],
        [HostPort("10.0.0.1", 1), HostPort("10.0.0.2", 2), HostPort("10.0.0.3", 3)],
        {("10.0.0.2", 2): "connected"},
    )
    assert outcome == "connected"
    assert [address for _, address in log] == [("10.0.0.1", 1), ("10.0.0.2", 2)]


@pytest.mark.parametrize(
    ("hosts", "target", "used"),
    [
        (["0.0.0.0"], "10.0.0.1", ["0.0.0.0"]),
        (["::"], "10.0.0.1", ["::"]),
        (["::"], "fe80::1%eth0", ["::"]),
        (["127.0.0.1", "10.0.0.9"], "10.0.0.1", ["10.0.0.9"]),
        (["10.0.0.9", "127.0.0.1"], "127.0.0.1", ["127.0.0.1"]),
        (["10.0.0.9", "10.1.0.9"], "10.1.0.1", ["10.0.0.9", "10.1.0.9"]),
        (["0.0.0.0"], "fe80::1", []),
        (["127.0.0.1"], "10.0.0.1", []),
    ],
)
async def test_a_socket_that_cannot_get_there_is_not_used(hosts: list[str], target: str, used: list[str]) -> None:
    """Otherwise a node that listens on loopback first never reaches anybody else."""
    outcome, log = await attempt(hosts, [HostPort(target, 1)], {})
    assert [host for host, _ in log] == used
    assert isinstance(outcome, TransportLost)
    if not used:
        assert "cannot be reached from" in str(outcome)


async def test_the_most_telling_failure_is_told() -> None:
    """Otherwise the reason shown is that of an address nobody cares about."""
    refused = PeerError("someone else is there", CloseCode.IDENTITY)
    for hosts in (["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.1"]):
        outcome, _ = await attempt(["0.0.0.0"], places(*hosts), {("10.0.0.2", 1): refused})
        assert isinstance(outcome, PeerError)
        assert (str(outcome), outcome.code) == ("10.0.0.2:1: someone else is there", CloseCode.IDENTITY)
    outcome, _ = await attempt(["0.0.0.0"], [], {})
    assert str(outcome) == "no address is known"


async def test_a_dead_address_costs_half_a_second(autojump_clock: MockClock) -> None:
    """Otherwise each dead address costs the five seconds after which a dial is given up, at every try."""
    silence = (5.0, TransportLost("the handshake took too long", CloseCode.TIMEOUT))
    answers: dict[Address, object] = {(f"10.0.0.{number}", 1): silence for number in (1, 2)}
    outcome, log, times = await timed(
        ["0.0.0.0"], places("10.0.0.1", "10.0.0.2", "10.0.0.3"), {**answers, ("10.0.0.3", 1): "connected"}
    )
    assert outcome == "connected"
    assert [host for _, (host, _) in log] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert times == pytest.approx([0.0, 0.5, 1.0])
    assert autojump_clock.current_time() < 2


async def test_what_fails_at_once_is_not_waited_for(autojump_clock: MockClock) -> None:
    """Otherwise a refusal costs as much as silence."""
    _, _, times = await timed(["0.0.0.0"], places("10.0.0.1", "10.0.0.2", "10.0.0.3"), {})
    assert times == [0.0, 0.0, 0.0]
    assert autojump_clock.current_time() >= 0


async def test_the_address_that_worked_last_is_tried_first() -> None:
    """Otherwise a peer with dead addresses takes as long to find each time."""
    paths = Paths(random.Random(1))
    answers: dict[Address, object] = {("10.0.0.3", 1): "connected"}
    hosts = places("10.0.0.1", "10.0.0.2", "10.0.0.3")
    _, log = await attempt(["0.0.0.0"], hosts, answers, paths)
    assert len(log) == 3
    outcome, log = await attempt(["0.0.0.0"], hosts, answers, paths)
    assert (outcome, log) == ("connected", [("0.0.0.0", ("10.0.0.3", 1))])


async def test_an_address_that_failed_rests_while_there_are_others(autojump_clock: MockClock) -> None:
    """Otherwise a forged address of a peer makes every node knock there for as long as the peer is away."""
    paths = Paths(random.Random(1))
    for _ in range(5):
        await attempt(["0.0.0.0"], places("10.0.0.1"), {}, paths)
    _, log = await attempt(["0.0.0.0"], places("10.0.0.1", "10.0.0.2"), {}, paths)
    assert [host for _, (host, _) in log] == ["10.0.0.2"]
    _, log = await attempt(["0.0.0.0"], places("10.0.0.1"), {}, paths)
    assert [host for _, (host, _) in log] == ["10.0.0.1"], "there is no other"
    await trio.sleep(LIMITS.backoff_last_seconds)
    _, log = await attempt(["0.0.0.0"], places("10.0.0.1", "10.0.0.3"), {}, paths)
    assert len(log) == 2
    assert autojump_clock.current_time() > 0


@pytest.mark.parametrize("seed", range(20))
async def test_only_one_of_two_that_answer_at_once_goes_on(seed: int, autojump_clock: MockClock) -> None:
    """Otherwise the peer takes the second for the one that counts, and the first is closed under our hands."""
    rng = random.Random(seed)
    seconds = rng.choice([0.5, 0.6])
    hosts = places("10.0.0.1", "10.0.0.2")
    answers: dict[Address, object] = {
        ("10.0.0.1", 1): (seconds, "first"),
        ("10.0.0.2", 1): (rng.choice([seconds - 0.5, 0.1]), "second"),
    }
    let_in: list[Address] = []

    def admit(_id: EndpointId, _hello: Hello, address: Address, _mac: bool) -> CloseCode | None:
        let_in.append(address)
        return None

    transports = cast(list[Transport], [FakeTransport("0.0.0.0", answers, [], [])])
    outcome = await reach(transports, PEER, hosts, admit, Paths(rng))
    assert len(let_in) == 1
    assert outcome == answers[let_in[0]][1]  # type: ignore[index]
    assert autojump_clock.current_time() < 1


async def test_a_cancelled_try_leaves_no_connection_open(autojump_clock: MockClock) -> None:
    """Otherwise a dial that is stopped in the moment in which it succeeds leaves a connection that nobody has."""

    class Ended:
        def close(self, *_: object) -> None:
            closed.append(self)

    closed: list[Ended] = []
    with trio.CancelScope() as scope:

        def admit(*_: object) -> CloseCode | None:
            scope.cancel()
            return None

        transports = cast(list[Transport], [FakeTransport("0.0.0.0", {("10.0.0.1", 1): Ended()}, [], [])])
        await reach(transports, PEER, places("10.0.0.1"), admit, Paths(random.Random(1)))
        raise AssertionError("it was cancelled")
    assert len(closed) == 1
    assert autojump_clock.current_time() == 0
