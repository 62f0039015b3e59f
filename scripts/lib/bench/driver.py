"""One node in a process of its own, told what to do by JSON lines on standard input, a JSON line back for each.

Times are CLOCK_MONOTONIC in seconds, which all processes of a machine share.
"""

from __future__ import annotations

import contextlib
import cProfile
import gc
import hashlib
import io
import json
import os
import pstats
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import structlog
import trio

import meshsync
from bench.documents import COLLECTION, KINDS, document, document_id
from bench.lines import read_lines, write_line
from meshsync.errors import TransportLost
from meshsync.ids import EndpointId
from meshsync.sync.link import Link
from meshsync.transports.channel import MessageChannel

# The links of a benchmark are those that it makes: nobody is looked for.
COMMON = {"listen": ["127.0.0.1:0"], "collections": [COLLECTION], "discovery": {"mdns": False, "exchange": False}}
PROFILE_LINES = 40
Answer = dict[str, Any]
now = time.monotonic


class Driver:
    """The node of this process.  Each public coroutine is a command; its arguments come from the line."""

    def __init__(self, node: meshsync.Node, nursery: trio.Nursery) -> None:
        self._node = node
        self._notes = node.collection(COLLECTION)
        self._nursery = nursery
        self._seen: dict[str, float] = {}
        self._shown: set[str] = set()
        """The documents that were told of, and did not leave since then."""
        self._turns = 0
        """How many times a document came to them, or left."""
        self._sight = trio.Event()
        self._profile = cProfile.Profile()

    async def accept(self, id: str) -> Answer:
        """Let the other node in."""
        await self._node.accept_peer(EndpointId.parse(id))
        return {}

    async def write(
        self,
        first: int,
        count: int,
        kind: str = "document",
        update: int = 0,
        in_flight: int = 1,
        collection: str = COLLECTION,
    ) -> Answer:
        """Write documents, an entry each, so many calls at once; when the first began and the last ended."""
        made = [(document_id(one), KINDS[kind](one, update)) for one in range(first, first + count)]
        work = iter(made)
        notes = self._node.collection(collection)
        began = now()
        if in_flight == 1:
            await _write_each(notes, work)
        else:
            async with trio.open_nursery() as nursery:
                for _ in range(in_flight):
                    nursery.start_soon(_write_each, notes, work)
        return {"began": began, "ended": now()}

    async def pulse(self, first: int, count: int, pause: float) -> Answer:
        """Write documents, one each `pause` seconds; when each call began."""
        began: list[float] = []
        start = trio.current_time()
        for turn in range(count):
            await trio.sleep_until(start + turn * pause)
            began.append(now())
            await self._notes.put(document_id(first + turn), document(first + turn))
        return {"began": began}

    async def connect(self, peers: list[tuple[str, str]]) -> Answer:
        """Begin to connect to peers, ids and addresses, all at once; `linked` waits for it."""
        for id, address in peers:
            self._nursery.start_soon(self._connect, id, address)
        return {"began": now()}

    async def _connect(self, id: str, address: str) -> None:
        # A machine that is busy may answer too late for a handshake; the node tries again.
        with contextlib.suppress(TransportLost):
            await self._node.sync.connect_to_peer(id, [address])

    async def linked(self, count: int) -> Answer:
        """Wait until this many peers are connected."""
        await self._node.sync.progressed.wait_until(lambda: len(self._node.sync.links) == count)
        return {"ended": now()}

    async def eager(self) -> Answer:
        """The peers to which entries go as they come, and not only word of them."""
        exchanges = [one for link in self._node.sync.links.values() for one in link.exchanges.values()]
        return {"peers": [one.link.peer.hex() for one in exchanges if not one.session.is_lazy]}

    async def pull(self, id: str, address: str) -> Answer:
        """Connect and wait until the roots are equal."""
        began = now()
        await self._node.sync.connect_to_peer(id, [address])
        connected = now()
        await self._node.sync.wait_synced(peers=[EndpointId.parse(id)])
        return {"began": began, "connected": connected, "ended": now(), "documents": len(self._notes)}

    async def synced(self) -> Answer:
        """Wait until the root equals that of every connected peer, of which there is at least one."""
        await self._node.sync.wait_synced()
        return {"ended": now()}

    async def held(self, count: int) -> Answer:
        """Wait until this many documents are here."""
        while len(self._notes) < count:
            seen = self._node.sync.cursors(COLLECTION)
            await self._node.sync.watch_cursors(COLLECTION, seen)
        return {"ended": now()}

    async def follow(self, collection: str = COLLECTION, where: str = "") -> Answer:
        """Follow the changes from now on, for `sight` and `turned`."""
        notes = self._node.collection(collection)
        changes = notes.changes(meshsync.Query.parse(where) if where else None, since=notes.cursor())
        self._nursery.start_soon(self._follow, changes)
        return {}

    async def _follow(self, changes: AsyncIterator[meshsync.Change]) -> None:
        async for change in changes:
            self._seen[change.id] = now()
            self._turns += (change.id in self._shown) is not (is_shown := change.document is not None)
            (self._shown.add if is_shown else self._shown.discard)(change.id)
            self._sight.set()

    async def turned(self, count: int) -> Answer:
        """Wait until so many documents were told to come or to leave since `follow`."""
        while self._turns < count:
            self._sight = trio.Event()
            await self._sight.wait()
        return {"ended": now(), "shown": len(self._shown)}

    async def sight(self, number: int) -> Answer:
        """Wait until a document was seen among the changes; when that was."""
        while document_id(number) not in self._seen:
            self._sight = trio.Event()
            await self._sight.wait()
        return {"ended": self._seen[document_id(number)]}

    async def sights(self, first: int, count: int) -> Answer:
        """Wait until these documents were seen among the changes; when each was."""
        return {"seen": [(await self.sight(number))["ended"] for number in range(first, first + count)]}

    async def part(self, id: str) -> Answer:
        """Disconnect from the other node."""
        self._node.peering.disconnect(EndpointId.parse(id))
        return await self.parted()

    async def parted(self) -> Answer:
        """Wait until nobody is connected."""
        await self._node.sync.progressed.wait_until(lambda: not self._node.sync.links)
        return {}

    async def index(self, field: str) -> Answer:
        """Declare an index and wait until it is ready."""
        began = now()
        await self._notes.add_index(field)
        await self._notes.wait_indexed()
        return {"seconds": now() - began}

    async def listing(self, times: int, where: str = "", order: str | None = None, limit: int | None = None) -> Answer:
        """Run a query so many times, letting others run between its steps: what it took, and what it looked at."""
        query = meshsync.Query.parse(where or [])
        taken: list[float] = []
        listing = self._notes.select(query, order=order, limit=limit)
        for _ in range(times):
            began = now()
            listing = self._notes.select(query, order=order, limit=limit)
            for _ in listing.steps():
                await trio.lowlevel.checkpoint()
            taken.append((now() - began) * 1000)
        return {
            "ms": taken,
            "index": listing.plan.served_by,
            "matched": listing.matched,
            "documents_read": listing.documents_read,
        }

    async def durable(self) -> Answer:
        """Wait until all that was written survives a power cut."""
        await self._node.sync.store.synced()
        return {}

    async def verify(self, count: int, kind: str = "document", update: int = 0) -> Answer:
        """How many of the first documents are here exactly as they were written."""
        bodies = dict(self._notes.bodies())
        return {"right": sum(bodies.get(document_id(one)) == KINDS[kind](one, update) for one in range(count))}

    async def state(self) -> Answer:
        """The root, and a digest of all documents as this node reads them."""
        digest = hashlib.sha256()
        for id, body in self._notes.bodies():
            digest.update(json.dumps([id, body], sort_keys=True).encode())
        [collection] = [one for one in self._node.status()["collections"] if one["name"] == COLLECTION]
        return {"root": collection["root"], "documents": collection["documents"], "digest": digest.hexdigest()}

    async def root(self) -> Answer:
        """The digest of what is held."""
        return {"root": self._node.sync.replica(COLLECTION).root().hex()}

    async def usage(self) -> Answer:
        """CPU time and memory of this process, and the UDP payload of the present connections."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        pages = await trio.Path("/proc/self/statm").read_text()
        resident = int(pages.split()[1]) * os.sysconf("SC_PAGE_SIZE")
        links = self._node.sync.links.values()
        return {
            "cpu_s": used.ru_utime + used.ru_stime,
            "rss_mb": resident / 1e6,
            "rss_max_mb": used.ru_maxrss * 1024 / 1e6,
            "bytes": sum(link.connection.bytes_sent + link.connection.bytes_received for link in links),
            "bytes_received": sum(link.connection.bytes_received for link in links),
            "frame_bytes": sum(channel.bytes_sent for link in links for channel in _channels(link)),
            **self._exchanged(),
        }

    def _exchanged(self) -> Answer:
        """Payload bytes of the entries that were received, and of those that were new."""
        stats = self._node.sync.stats()
        return {"payload_bytes": stats.payload_bytes, "payload_bytes_new": stats.payload_bytes_new}

    async def profile(self, order: str) -> Answer:
        """Begin to count where the time goes, or end it and tell."""
        if order == "begin":
            self._profile.enable()
            return {}
        self._profile.disable()
        text = io.StringIO()
        pstats.Stats(self._profile, stream=text).sort_stats("tottime").print_stats(PROFILE_LINES)
        self._profile = cProfile.Profile()
        return {"text": text.getvalue()}


def _channels(link: Link) -> list[MessageChannel]:
    return [link.connection.control, *(exchange.channel for exchange in link.exchanges.values())]


async def _write_each(notes: meshsync.Collection, work: Iterator[tuple[str, dict[str, Any]]]) -> None:
    for id, body in work:
        await notes.put(id, body)


async def main(configuration: Answer) -> None:
    """Open the node, say so, and obey until standard input ends."""
    standard_input, standard_output = (trio.lowlevel.FdStream(os.dup(number)) for number in (0, 1))
    name = Path(configuration["data_dir"]).name
    config = meshsync.Config.model_validate({"name": name, **COMMON, **configuration})
    # Standard output belongs to the answers; structlog would log there.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    began = now()
    async with meshsync.open_node(config) as node, trio.open_nursery() as nursery:
        gc.freeze()  # as `meshsync node` does
        driver = Driver(node, nursery)
        opened = {"id": node.id.hex(), "address": node.listen[0], "seconds": now() - began}
        await write_line(standard_output, opened)
        async for line in read_lines(standard_input):
            answer = await getattr(driver, line.pop("command"))(**line)
            await write_line(standard_output, answer)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, json.loads(sys.argv[1]))
