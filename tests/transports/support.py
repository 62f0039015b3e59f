"""Endpoints for tests: on the simulated network, on real sockets, in memory."""

from __future__ import annotations

import functools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.hello import Hello
from meshsync.core.limits import LIMITS, Limits
from meshsync.errors import CloseCode
from meshsync.ids import EndpointId
from meshsync.transports.base import Address, Admit, Transport
from meshsync.transports.loopback import LoopbackNetwork
from meshsync.transports.quic import DatagramSocket, QuicEndpoint, open_endpoint, open_udp_socket
from meshsync.transports.quic.certificate import endpoint_id
from meshsync.transports.quic.connection import QuicConnection
from tests.simnet import LinkProfile, SimNet


def virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run an async test on a clock that moves only when nothing else does."""

    @functools.wraps(test)
    def run() -> None:
        trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))

    return run


SECONDS_MAX = 3600
"""No scenario takes longer, by its own clock."""


def key(number: int) -> Ed25519PrivateKey:
    """Return the private key with this number."""
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def welcome(peer: EndpointId, hello: Hello, address: Address, mac_ok: bool) -> CloseCode | None:
    """Let everyone in."""
    del peer, hello, address, mac_ok
    return None


@asynccontextmanager
async def quic_endpoint(
    socket: DatagramSocket,
    number: int,
    *,
    admit: Admit = welcome,
    mesh_key: bytes | None = None,
    limits: Limits = LIMITS,
) -> AsyncIterator[QuicEndpoint]:
    """Run the endpoint with this number."""
    async with open_endpoint(
        socket,
        key(number),
        instance=bytes([number]) * 16,
        name=f"node {number}",
        admit=admit,
        mesh_key=mesh_key,
        limits=limits,
    ) as endpoint:
        yield endpoint


@asynccontextmanager
async def running_net(seed: int = 0, profile: LinkProfile | None = None) -> AsyncIterator[SimNet]:
    """Run a simulated network."""
    net = SimNet(random.Random(seed), profile or LinkProfile())
    with trio.fail_after(SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(net.run)
            yield net
            nursery.cancel_scope.cancel()


@dataclass(frozen=True)
class Pair:
    """Two endpoints on one simulated network, connected."""

    net: SimNet
    dialer: QuicEndpoint
    acceptor: QuicEndpoint
    near: QuicConnection
    """The dialer's end."""
    far: QuicConnection


@asynccontextmanager
async def connected(
    *, seed: int = 0, profile: LinkProfile | None = None, limits: Limits = LIMITS
) -> AsyncIterator[Pair]:
    """Connect endpoint 1 (10.0.0.1) to endpoint 2 (10.0.0.2)."""
    async with (
        running_net(seed, profile) as net,
        quic_endpoint(net.socket("10.0.0.2"), 2, limits=limits) as acceptor,
        quic_endpoint(net.socket("10.0.0.1"), 1, limits=limits) as dialer,
    ):
        near = await dialer.dial(acceptor.address, acceptor.id)
        far = await acceptor.accept()
        yield Pair(net, dialer, acceptor, near, far)


Scenario = Callable[[Transport, Transport], Awaitable[None]]


@dataclass(frozen=True)
class World:
    """A place with two endpoints, 1 and 2, where one scenario runs."""

    name: str

    def run(
        self, scenario: Scenario, *, admit: Admit = welcome, mesh_key: bytes | None = None, limits: Limits = LIMITS
    ) -> None:
        """Run `scenario(first, second)`; `admit` is the second's, `mesh_key` both share."""
        clock = None if self.name == "quic over UDP" else trio.testing.MockClock(autojump_threshold=0)
        trio.run(self._run, scenario, admit, mesh_key, limits, clock=clock)

    async def _run(self, scenario: Scenario, admit: Admit, mesh_key: bytes | None, limits: Limits) -> None:
        async with self._endpoints(admit, mesh_key, limits) as (first, second):
            with trio.fail_after(SECONDS_MAX):
                await scenario(first, second)

    @asynccontextmanager
    async def _endpoints(
        self, admit: Admit, mesh_key: bytes | None, limits: Limits
    ) -> AsyncIterator[tuple[Transport, Transport]]:
        match self.name:
            case "loopback":
                network = LoopbackNetwork(random.Random(0))
                first, second = (
                    network.endpoint(
                        endpoint_id(key(number)),
                        name=f"node {number}",
                        admit=rule,
                        instance=bytes([number]) * 16,
                        mesh_key=mesh_key,
                        limits=limits,
                    )
                    for number, rule in ((1, welcome), (2, admit))
                )
                yield first, second
                await first.aclose()
                await second.aclose()
            case "quic over UDP":
                async with (
                    quic_endpoint(open_udp_socket("127.0.0.1"), 1, mesh_key=mesh_key, limits=limits) as one,
                    quic_endpoint(
                        open_udp_socket("127.0.0.1"), 2, admit=admit, mesh_key=mesh_key, limits=limits
                    ) as two,
                ):
                    yield one, two
            case _:
                async with (
                    running_net() as net,
                    quic_endpoint(net.socket("10.0.0.1"), 1, mesh_key=mesh_key, limits=limits) as one,
                    quic_endpoint(net.socket("10.0.0.2"), 2, admit=admit, mesh_key=mesh_key, limits=limits) as two,
                ):
                    yield one, two


WORLDS = (World("loopback"), World("quic over simnet"), World("quic over UDP"))
