"""A small DNS server on loopback, with real packets, that can also be wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio
from dns.asyncresolver import Resolver

from meshsync.notifier import Notifier

Answering = Callable[[bytes], bytes | None]
"""What becomes of an answer on its way: another one, or none."""


@dataclass
class DnsServer:
    """Answers from `zone`; names are absolute and in lower case."""

    port: int
    zone: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)
    """Name and type; TTL and records."""
    tamper: Answering = lambda answer: answer
    asked: list[tuple[str, str]] = field(default_factory=list)
    heard: Notifier = field(default_factory=Notifier)
    """Told of each question."""

    def put(self, name: str, kind: str, *records: str, ttl: int = 60) -> None:
        """Records in the place of those that are there."""
        self.zone[f"{name}.", kind] = ttl, list(records)

    def clear(self) -> None:
        self.zone.clear()

    def resolver(self) -> Resolver:
        """Asks this server, and nobody else."""
        made = Resolver(configure=False)
        made.nameservers = ["127.0.0.1"]
        made.port = self.port
        made.timeout = 0.2
        return made

    def answer(self, question: bytes) -> bytes:
        query = dns.message.from_wire(question)
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.AA | dns.flags.RA
        [asked] = query.question
        name, kind = asked.name.to_text().lower(), dns.rdatatype.to_text(asked.rdtype)
        self.asked.append((name, kind))
        self.heard.notify()
        if found := self.zone.get((name, kind)):
            ttl, records = found
            reply.answer.append(dns.rrset.from_text(asked.name, ttl, "IN", kind, *records))
        elif name not in {known for known, _ in self.zone}:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire(max_size=65_000)


@asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    """Run a server for the block."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as socket:
        await socket.bind(("127.0.0.1", 0))
        server = DnsServer(socket.getsockname()[1])

        async def serve() -> None:
            while True:
                question, client = await socket.recvfrom(65_536)
                answer = server.tamper(server.answer(question))
                if answer is not None:
                    await socket.sendto(answer, client)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield server
            nursery.cancel_scope.cancel()
