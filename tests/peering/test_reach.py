"""From names and addresses to a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest
import trio

from meshsync.addresses import HostPort
from meshsync.errors import CloseCode, PeerError, TransportLost
from meshsync.ids import EndpointId
from meshsync.peering.reach import reach
from meshsync.transports.base import Address, Admit, Transport
from tests.stack.world import IDENTITIES

PEER = IDENTITIES[0].endpoint_id


@dataclass
class FakeTransport:
    """Notes whom it was asked to dial, and connects only to some."""

    host: str
    answers: dict[Address, object]
    log: list[tuple[str, Address]]

    @property
    def address(self) -> Address:
        return self.host, 4433

    async def dial(self, address: Address, expect: EndpointId | None, admit: Admit | None) -> object:
        assert admit is None
        assert expect == PEER
        await trio.lowlevel.checkpoint()
        self.log.append((self.host, address))
        answer = self.answers.get(address, TransportLost(f"{address[0]} does not answer"))
        if isinstance(answer, Exception):
            raise answer
        return answer


async def attempt(hosts: list[str], addresses: list[HostPort], answers: dict[Address, object]) -> Any:
    """What became of dialling, and whom was dialled from where."""
    log: list[tuple[str, Address]] = []
    transports = cast(list[Transport], [FakeTransport(host, answers, log) for host in hosts])
    outcome: object
    try:
        outcome = await reach(transports, PEER, addresses)
    except (TransportLost, PeerError) as error:
        outcome = error
    return outcome, log


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


async def test_the_last_failure_is_told() -> None:
    """Otherwise the reason shown is that of an address nobody cares about."""
    refused = PeerError("someone else is there", CloseCode.IDENTITY)
    outcome, _ = await attempt(
        ["0.0.0.0"], [HostPort("10.0.0.1", 1), HostPort("10.0.0.2", 2)], {("10.0.0.2", 2): refused}
    )
    assert outcome is refused
    outcome, _ = await attempt(["0.0.0.0"], [], {})
    assert str(outcome) == "no address is known"
