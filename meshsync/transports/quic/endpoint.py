"""One UDP socket from which an endpoint dials and on which it accepts."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TextIO

import structlog
import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import CipherSuite
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshsync.core.limits import ALPN, LIMITS, Limits
from meshsync.errors import CloseCode, LocalError, TransportLost
from meshsync.ids import EndpointId
from meshsync.transports.base import Address, Admit, Origin
from meshsync.transports.quic._seam import CERTIFICATE_NOT_VERIFIED, CID_BYTES, SUPPORTED_VERSIONS, Machine
from meshsync.transports.quic.connection import QuicConnection
from meshsync.transports.quic.doorman import Doorman
from meshsync.transports.quic.identity import LocalIdentity
from meshsync.transports.quic.patience import Silences
from meshsync.transports.quic.resets import Resets, is_short, token_of
from meshsync.transports.quic.udp import Datagram, DatagramSocket

_log = structlog.get_logger(__name__)


class QuicEndpoint:
    """Dials and accepts; see base.Transport.  Made by `open_endpoint`, which owns the tasks."""

    def __init__(
        self,
        socket: DatagramSocket,
        identity: LocalIdentity,
        *,
        admit: Admit,
        limits: Limits,
        nursery: trio.Nursery,
        key_log: TextIO | None = None,
    ) -> None:
        """Serve `socket`; `admit` decides who may stay."""
        self._socket = socket
        self._identity = identity
        self._admit = admit
        self._limits = limits
        self._nursery = nursery
        self._key_log = key_log
        self._doorman = Doorman(limits)
        self._silences = Silences(limits)
        self._resets = Resets(identity.private_key, socket.address, limits)
        self._routes: dict[bytes, QuicConnection] = {}
        self._connections: set[QuicConnection] = set()
        self._accepted: deque[QuicConnection] = deque()
        self._accept_ready = trio.Event()
        self._changed = trio.Event()  # a connection has ended for good
        self._closed = False

    @property
    def id(self) -> EndpointId:
        """Who this endpoint is."""
        return self._identity.party.id

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._socket.address

    @property
    def connections(self) -> frozenset[QuicConnection]:
        """Those whose peer is proved and that are not closed."""
        return frozenset(
            connection for connection in self._connections if connection.is_proved and not connection.is_closed
        )

    async def dial(self, address: Address, expect: EndpointId | None, admit: Admit | None = None) -> QuicConnection:
        """Connect to `address`, see base.Transport.  LocalError: no numeric address, or the endpoint is closed."""
        self._check_open()
        try:
            ipaddress.ip_address(address[0])
        except ValueError as error:
            raise LocalError(f"{address[0]!r} is no numeric IP address") from error
        if len(self._connections) >= self._limits.connections_max + self._limits.half_open_max:
            raise TransportLost(f"{len(self._connections)} connections are open already", CloseCode.BUSY)
        machine = Machine(
            configuration=self._configuration(is_client=True), limits=self._limits, reset_token=self._resets.token
        )
        machine.connect(address, trio.current_time())
        connection = self._make(machine, Origin.DIALED, address, expect, admit or self._admit)
        self._start(connection)
        try:
            await connection.wait_proved()
        except trio.Cancelled:
            connection.close(CloseCode.DISCONNECTED, "the dialer gave up")
            raise
        except TransportLost as error:
            if error.code is CloseCode.TIMEOUT and not connection.is_heard:
                self._silences.unanswered(address)
            raise
        return connection

    async def accept(self) -> QuicConnection:
        """Wait for the next connection; closed ones are skipped.  trio.ClosedResourceError: the endpoint is closed."""
        await trio.lowlevel.checkpoint()
        while True:
            while self._accepted:
                connection = self._accepted.popleft()
                if not connection.is_closed:
                    return connection
            self._check_open()
            self._accept_ready = trio.Event()
            await self._accept_ready.wait()

    async def aclose(self) -> None:
        """Close every connection with SHUTDOWN and wait, for a bounded time, until the peers were told."""
        self._closed = True
        self._accept_ready.set()
        for connection in self._connections:
            connection.close(CloseCode.SHUTDOWN)
        # A peer that is talking answers within its probe timeout, and is told again then; one that is silent would
        # not be heard by waiting longer.  Those that closed first know already.
        patience = max((connection.patience_seconds for connection in self._connections), default=0.0)
        with trio.move_on_after(min(patience, self._limits.close_seconds_max)):
            while self._connections:
                self._changed = trio.Event()
                await self._changed.wait()
        for connection in self._connections:
            connection.repeat_farewell()

    # -- for the connections

    def route(self, connection_id: bytes, connection: QuicConnection) -> None:
        """Datagrams for this id are for this connection from now on."""
        self._routes[connection_id] = connection

    def unroute(self, connection_id: bytes) -> None:
        """This id is used no more."""
        self._routes.pop(connection_id, None)

    def admit(self, connection: QuicConnection) -> CloseCode | None:
        """Decide on a connection whose identity was just proved."""
        is_accepted = connection.origin is Origin.ACCEPTED
        if self._closed:
            return CloseCode.SHUTDOWN
        if is_accepted and not self._has_room_for(connection):
            return CloseCode.BUSY
        code = connection.admit(connection.peer, connection.hello, connection.address, connection.mac_ok)
        self._doorman.leave(connection)
        if code is None and is_accepted:
            self._accepted.append(connection)
            self._accept_ready.set()
        return code

    # -- inside

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this endpoint is closed")

    def _configuration(self, *, is_client: bool) -> QuicConfiguration:
        return QuicConfiguration(
            alpn_protocols=[ALPN],
            certificate=self._identity.certificate,
            cipher_suites=[CipherSuite.AES_128_GCM_SHA256, CipherSuite.CHACHA20_POLY1305_SHA256],
            connection_id_length=CID_BYTES,
            idle_timeout=self._limits.idle_seconds_max,
            is_client=is_client,
            max_data=self._limits.unproven_window_bytes,
            max_datagram_size=self._limits.datagram_bytes,
            max_stream_data=self._limits.stream_window_bytes,
            private_key=self._identity.private_key,
            secrets_log_file=self._key_log,
            supported_versions=SUPPORTED_VERSIONS,
            verify_mode=CERTIFICATE_NOT_VERIFIED,
        )

    def _has_room_for(self, newcomer: QuicConnection) -> bool:
        if (
            len(self._accepted) >= self._limits.accept_queue_max
            or len(self.connections) >= self._limits.connections_max
        ):
            return False
        host = newcomer.address[0]
        if self._doorman.is_exempt(host):
            return True
        same_host = sum(connection.address[0] == host for connection in self.connections)
        return same_host < self._limits.connections_per_address_max

    def _make(
        self, machine: Machine, origin: Origin, address: Address, expect: EndpointId | None, admit: Admit
    ) -> QuicConnection:
        return QuicConnection(
            machine,
            self._socket,
            self,
            origin=origin,
            address=address,
            identity=self._identity,
            expect=expect,
            admit=admit,
            limits=self._limits,
            silence_seconds=self._silences.seconds(address),
        )

    def _start(self, connection: QuicConnection) -> None:
        self._connections.add(connection)
        for connection_id in connection.machine.host_cids:
            self._routes[connection_id] = connection
        self._nursery.start_soon(self._run_connection, connection)

    async def _run_connection(self, connection: QuicConnection) -> None:
        try:
            await connection.run()
        except Exception:  # noqa: BLE001  # the boundary: one connection must not hurt the others
            _log.exception("a connection failed", address=connection.address)
            connection.close(CloseCode.INTERNAL)
        finally:
            self._connections.discard(connection)
            self._doorman.leave(connection)
            for connection_id in [key for key, value in self._routes.items() if value is connection]:
                del self._routes[connection_id]
            self._changed.set()

    async def serve(self) -> None:
        """Receive until cancelled.  Never waits for a connection."""
        while True:
            # Nothing is kept from one batch to the next: it would keep the last connection alive after its end.
            self._deliver(await self._socket.receive(), trio.current_time())

    def _deliver(self, batch: Sequence[Datagram], now: float) -> None:
        touched: dict[QuicConnection, None] = {}
        for datagram, address in batch:
            connection = self._find(datagram, address, now)
            if connection is not None:
                connection.take(datagram, address, now)
                touched[connection] = None
        for connection in touched:
            connection.after_input()

    def _find(self, datagram: bytes, address: Address, now: float) -> QuicConnection | None:
        if not datagram:
            return None
        if datagram[0] & 0x80:  # a long header (RFC 8999 section 5.1)
            connection_id = datagram[6 : 6 + datagram[5]] if len(datagram) > 6 else b""
        else:
            connection_id = datagram[1 : 1 + CID_BYTES]
        connection = self._routes.get(connection_id)
        if connection is None and not self._closed:
            if datagram[0] & 0x80:
                self._knock(datagram, address, now)
            elif is_short(datagram):
                self._take_stray(datagram, address, now)
        return connection

    def _take_stray(self, datagram: bytes, address: Address, now: float) -> None:
        """Take a packet of no connection: a peer's reset, or one that is to be told so."""
        token = token_of(datagram)
        # A token counts only from where the connection's packets go (RFC 9000 section 10.3.1).
        for connection in self._connections:
            if connection.address == address and connection.take_reset_by_untrusted(token):
                return
        answer = self._resets.answer_untrusted(datagram, address, now)
        if answer is not None:
            self._socket.send([answer], address)

    def _knock(self, datagram: bytes, address: Address, now: float) -> None:
        verdict = self._doorman.judge_untrusted(datagram, address, now)
        if isinstance(verdict, bytes):
            self._socket.send([verdict], address)
        elif verdict is not None:
            machine = Machine(
                configuration=self._configuration(is_client=False),
                limits=self._limits,
                reset_token=self._resets.token,
                original_destination_connection_id=verdict.original_destination_cid,
                retry_source_connection_id=verdict.retry_source_cid,
            )
            connection = self._make(machine, Origin.ACCEPTED, address, None, self._admit)
            connection.take(datagram, address, now)
            if machine.is_begun:
                self._doorman.enter(connection)
                self._start(connection)
                self._routes[verdict.destination_cid] = connection


@asynccontextmanager
async def open_endpoint(
    socket: DatagramSocket,
    private_key: Ed25519PrivateKey,
    *,
    instance: bytes,
    name: str,
    admit: Admit,
    mesh_key: bytes | None = None,
    limits: Limits = LIMITS,
    key_log: TextIO | None = None,
) -> AsyncIterator[QuicEndpoint]:
    """Run an endpoint on `socket` until the block is left; then close it, which takes a bounded time.

    `instance` is 16 bytes, new for every start; `name` is what people call this endpoint.  `key_log` takes the secrets
    of all connections, as SSLKEYLOGFILE: who reads it reads the traffic.
    LocalError: a name or an instance that cannot be said in a hello.
    """
    identity = LocalIdentity.create(private_key, instance=instance, name=name, mesh_key=mesh_key)
    try:
        async with trio.open_nursery() as outer:
            tasks = await outer.start(_shielded_nursery)
            endpoint = QuicEndpoint(socket, identity, admit=admit, limits=limits, nursery=tasks, key_log=key_log)
            tasks.start_soon(endpoint.serve)
            try:
                yield endpoint
            finally:
                # Shielded and bounded: the peers should learn of it even when this node is being cancelled.
                with trio.CancelScope(shield=True):
                    await endpoint.aclose()
                tasks.cancel_scope.cancel()
    finally:
        socket.close()


async def _shielded_nursery(*, task_status: Any) -> None:
    """Hold a nursery whose tasks outlive the cancellation of the block around the endpoint.

    Without it the tasks that send would end first, and nobody would be left to say goodbye.
    """
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await trio.sleep_forever()
