"""The counting of leaks itself, and nodes under storms of connects and disconnects."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from meshsync.config import Config
from meshsync.core.dialing import Allowance, Aside, Backoff, Paths
from meshsync.errors import MeshsyncError
from meshsync.ids import EndpointId
from meshsync.launch import open_node
from meshsync.peering.peer import Peer
from tests.leaks import nothing_left
from tests.simnet import LinkProfile
from tests.stack.sightings import Sightings
from tests.stack.world import World, level, simulate, write


def leave_task(nursery: trio.Nursery) -> None:
    nursery.start_soon(trio.sleep_forever)


def leave_timer(nursery: trio.Nursery) -> None:
    nursery.start_soon(trio.sleep, 1e6)


def leave_descriptor(_: trio.Nursery) -> Callable[[], None]:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close


def leave_thread(_: trio.Nursery) -> Callable[[], None]:
    end = threading.Event()
    threading.Thread(target=end.wait, name="left behind").start()
    return end.set


def leave_object(_: trio.Nursery) -> Peer:
    rng = random.Random(1)
    return Peer(EndpointId(bytes(31) + b"\5"), Backoff(rng), Aside(rng), Paths(rng), Allowance(1, 1.0))


@pytest.mark.parametrize(
    ("kind", "leave"),
    [
        ("task", leave_task),
        ("timer", leave_timer),
        ("descriptor", leave_descriptor),
        ("thread", leave_thread),
        ("object", leave_object),
    ],
)
async def test_what_is_left_behind_is_seen(kind: str, leave: Callable[[trio.Nursery], object]) -> None:
    """Otherwise every test that counts is green, whatever leaks."""
    kept: list[object] = []

    async def leak(nursery: trio.Nursery) -> None:
        async with nothing_left(0.0):
            kept.append(leave(nursery))

    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match=kind):
            await leak(nursery)
        nursery.cancel_scope.cancel()
    for end in kept:
        if callable(end):
            end()


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_connects_and_disconnects_leaves_nothing_behind(seed: int) -> None:
    """Otherwise a node that runs for months ends by running out of something."""

    async def scenario(world: World) -> None:
        rng = world.rng
        seen = Sightings(world)
        hub = await world.start(1, discoveries=[seen])
        # Not a moment at which a worker wakes that looks around every few seconds: its timer would not be counted.
        await trio.sleep(61.7)
        async with nothing_left():
            for number in (2, 3, 4):
                await world.start(number, peers=[1] if number > 2 else [])
            for _ in range(60):
                number = rng.choice([2, 3, 4])
                match rng.randrange(6):
                    case 0:
                        with suppress(MeshsyncError):
                            await hub.connect(world.id(number), [world.machine(number).address])
                    case 1:
                        hub.peering.disconnect(world.id(number))
                    case 2:
                        world.cut(1, number, one_way=rng.random() < 0.5)
                    case 3:
                        await rng.choice([world.stop, world.kill])(number)
                        await trio.sleep(rng.random())
                        await world.start(number, peers=[1])
                    case 4:
                        seen.see(number)
                        hub.peering.network_changed()
                    case 5:
                        await write(hub, f"n{rng.randrange(9)}")
                        world.net.heal()
                await trio.sleep(rng.choice([0, 0.01, 0.02, 0.5, 5, 40]))
            world.net.heal()
            for number in (2, 3, 4):  # a disconnect that somebody asked for is for good
                with suppress(MeshsyncError):
                    await hub.connect(world.id(number), [world.machine(number).address])
            await level(*(world.node(number) for number in (1, 2, 3, 4)))
            for number in (2, 3, 4):
                seen.gone(number)
                await world.stop(number)
                hub.peering.forget(world.id(number))

    simulate(scenario, seed=seed, profile=LinkProfile(jitter_seconds=0.02, loss=0.02, duplication=0.02))


async def test_real_nodes_leave_no_socket_thread_or_timer_behind(tmp_path: Path) -> None:
    """Otherwise a program that opens a node now and then runs out of descriptors."""

    async def meet(number: int) -> None:
        async with AsyncExitStack() as stack:
            nodes = []
            for name in ("a", "b"):
                config = Config(
                    data_dir=tmp_path / name,
                    listen=["127.0.0.1:0"],
                    collections=["notes"],
                    trust="open",
                    discovery={"mdns": False},
                )
                nodes.append(await stack.enter_async_context(open_node(config)))
            a, b = nodes
            await write(a, f"n{number}")
            await a.connect(b.id, [b.listen[0]])
            await b.sync.wait_synced(["notes"])

    with trio.fail_after(60):
        await meet(0)
        async with nothing_left(10.0):
            for number in range(1, 4):
                await meet(number)
