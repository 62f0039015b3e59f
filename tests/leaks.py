"""What a program holds, counted before and after: tasks, timers, descriptors, threads, connections and their kin.

    async with nothing_left():
        ...  # start nodes and stop them, connect and disconnect

What the block began it must have ended: whatever is there more often than before, a while after, is a leak.  Nodes
that run through it may be connected again when it ends, as often as they were when it began.
"""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from trio._core._run import GLOBAL_RUN_CONTEXT

from meshsync.peering.peer import Peer
from meshsync.sync.exchange import Exchange
from meshsync.sync.link import Link
from meshsync.transports.loopback import LoopbackConnection
from meshsync.transports.quic.connection import QuicConnection
from meshsync.transports.quic.endpoint import QuicEndpoint
from meshsync.transports.quic.stream import QuicStream

Census = Counter[tuple[str, str]]
"""How often there is what: ("task", its function), ("descriptor", what it is open on), ("object", its class), …"""

PATIENCE_SECONDS = 120.0
"""Longer than a closed connection lingers (RFC 9000 section 10.2) and a dial takes."""
_LOOKS = 10
_OBJECTS = (QuicEndpoint, QuicConnection, QuicStream, LoopbackConnection, Link, Exchange, Peer)


def census() -> Census:
    """Count.  Belongs in a trio task, and sees all of its run."""
    found: Census = Counter()
    for task in _tasks():
        found["task", task.name] += 1
    found["timer", "trio deadlines"] = GLOBAL_RUN_CONTEXT.runner.deadlines._active
    for thread in threading.enumerate():
        if not thread.name.startswith("Trio thread"):  # trio keeps idle ones for a while
            found["thread", thread.name] += 1
    for kind in _descriptors():
        found["descriptor", kind] += 1
    gc.collect()
    for one in gc.get_objects():
        if type(one) in _OBJECTS:
            found["object", type(one).__name__] += 1
        if type(one) is QuicEndpoint:
            found["connection", "open"] += len(one._connections)
            found["connection", "ids that datagrams are routed by"] += len(one._routes)
            found["connection", "half open"] += one._doorman.half_open
            found["connection", "not taken yet"] += len(one._accepted)
    return found


@asynccontextmanager
async def nothing_left(patience_seconds: float = PATIENCE_SECONDS) -> AsyncIterator[Census]:
    """Check that the block leaves nothing behind; AssertionError says what it left, and how much of it."""
    before = census()
    yield before
    left = census() - before
    for _ in range(_LOOKS):
        if not left:
            return
        await trio.sleep(patience_seconds / _LOOKS)
        left = census() - before
    assert not left, "left behind: " + ", ".join(f"{count} × {kind} {what}" for (kind, what), count in left.items())


def _tasks() -> list[trio.lowlevel.Task]:
    """All tasks of this run, those of trio itself included."""
    root = trio.lowlevel.current_root_task()
    found = [root] if root is not None else []
    for task in found:  # which grows meanwhile
        for nursery in task.child_nurseries:
            found.extend(nursery.child_tasks)
    return found


def _descriptors() -> list[str]:
    """What each open descriptor is open on; numbers are left out, because the next socket has another one."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue  # the one through which the directory was read
        found.append(target.partition(":")[0] if ":" in target else Path(target).name)
    return found
