"""A peer that does as it likes: aioquic's connection with no manners on top, over the simulated network."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection as Library
from cryptography import x509

from meshsync.core.framing import FrameDecoder, encode_frame
from meshsync.core.hello import Hello, HelloExchange, Role
from meshsync.core.limits import ALPN, LIMITS, Limits
from meshsync.errors import CloseCode
from meshsync.lab.simulation.sockets import SimulatedSocket
from meshsync.transports.base import Address
from meshsync.transports.quic import QuicEndpoint
from meshsync.transports.quic.certificate import make_certificate, party_of_untrusted
from tests.simnet import SimNet
from tests.transports.support import key, quic_endpoint, running_net

NUMBER = 13
HELLO = Hello(nonce=b"n" * 32, instance=b"i" * 16, name="stranger", agent="none")


class Stranger:
    """A client, or a server for one connection, whose every move the test decides."""

    def __init__(
        self,
        socket: SimulatedSocket,
        address: Address | None = None,
        *,
        alpn: str = ALPN,
        certificate: x509.Certificate | None = None,
        private_key: Any = None,
        has_certificate: bool = True,
    ) -> None:
        """Connect to `address`, or wait for someone to connect."""
        self.socket = socket
        self.events: list[events.QuicEvent] = []
        self._address = address
        self._changed = trio.Event()
        self._configuration = QuicConfiguration(
            is_client=address is not None,
            alpn_protocols=[alpn],
            verify_mode=ssl.CERT_NONE,
            certificate=(certificate or make_certificate(key(NUMBER))) if has_certificate else None,
            private_key=(private_key or key(NUMBER)) if has_certificate else None,
        )
        self.quic = Library(configuration=self._configuration) if address else None

    @property
    def library(self) -> Any:
        """The library's connection, private names and all."""
        assert self.quic is not None, "nobody has connected yet"
        return self.quic

    async def run(self) -> None:
        """Keep the connection going until cancelled."""
        if self._address is not None:
            self.library.connect(self._address, trio.current_time())
        while True:
            self.flush()
            timer = None if self.quic is None else self.quic.get_timer()
            batch = []
            with trio.move_on_at(float("inf") if timer is None else timer):
                batch = await self.socket.receive()
            now = trio.current_time()
            for datagram, address in batch:
                if self.quic is None:
                    self.quic = Library(
                        configuration=self._configuration,
                        original_destination_connection_id=datagram[6 : 6 + datagram[5]],
                    )
                self.quic.receive_datagram(datagram, address, now)
            if self.quic is not None and timer is not None and now >= timer:
                self.quic.handle_timer(now)
            self._collect()

    def flush(self) -> None:
        """Send whatever the library wants to send."""
        if self.quic is not None:
            for datagram, address in self.quic.datagrams_to_send(trio.current_time()):
                self.socket.send([datagram], address)

    async def wait_for(self, kind: type[events.QuicEvent]) -> Any:
        """Wait until an event of this kind has come."""
        while True:
            for event in self.events:
                if isinstance(event, kind):
                    return event
            await self._changed.wait()

    async def say(self, data: bytes, stream_id: int = 0, *, end: bool = False) -> None:
        """Send bytes on a stream once TLS is done."""
        await self.wait_for(events.HandshakeCompleted)
        self.library.send_stream_data(stream_id, data, end_stream=end)
        self.flush()

    async def prove(self) -> None:
        """Go through the hello as an honest dialer would."""
        await self.wait_for(events.HandshakeCompleted)
        exchange = self.exchange()
        decoder = FrameDecoder(4096)
        for body in exchange.start():
            await self.say(encode_frame(body))
        seen = 0
        while not exchange.is_done:
            heard = b"".join(
                event.data
                for event in self.events
                if isinstance(event, events.StreamDataReceived) and not event.stream_id
            )
            decoder.feed(heard[seen:])
            seen = len(heard)
            while (frame := decoder.next_frame()) is not None:
                for body in exchange.handle(frame):
                    await self.say(encode_frame(body))
            if not exchange.is_done:
                await self._changed.wait()

    def exchange(self) -> HelloExchange:
        """Begin an honest hello."""
        return HelloExchange(
            Role.DIALER,
            private_key=key(NUMBER),
            hello=HELLO,
            own=party_of_untrusted(make_certificate(key(NUMBER))),
            peer=party_of_untrusted(self.library.tls._peer_certificate),
        )

    async def wait_refused(self) -> events.ConnectionTerminated:
        """Wait until the other side has closed the connection; say with what."""
        while True:
            event: events.ConnectionTerminated | None = self.library._close_event
            if event is not None:
                return event
            await self._changed.wait()

    def _collect(self) -> None:
        if self.quic is not None:
            while (event := self.quic.next_event()) is not None:
                self.events.append(event)
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def running(stranger: Stranger) -> AsyncIterator[Stranger]:
    """Run a stranger for the time of a block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stranger.run)
        yield stranger
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def target(limits: Limits = LIMITS) -> AsyncIterator[tuple[SimNet, QuicEndpoint]]:
    """Run an endpoint at 10.0.0.2 that welcomes everyone, and say whether it is unharmed in the end."""
    async with running_net() as net, quic_endpoint(net.socket("10.0.0.2"), 2, limits=limits) as endpoint:
        yield net, endpoint


async def assert_serves(net: SimNet, endpoint: QuicEndpoint) -> None:
    """Check that an honest peer can connect and talk."""
    async with quic_endpoint(net.socket("10.0.0.1"), 1) as honest:
        near = await honest.dial(endpoint.address, endpoint.id)
        while True:
            far = await endpoint.accept()
            if far.peer == honest.id:
                break
        await near.control.send(b"hello?")
        assert await far.control.receive() == b"hello?"


def application_code(event: events.ConnectionTerminated) -> CloseCode:
    """Return the code of an application's close."""
    assert event.frame_type is None, event
    return CloseCode(event.error_code)
