"""Three laptops on one network share a key and know no address; one is unplugged, all go on writing."""

from __future__ import annotations

import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from demo.nodes import Shell, chapter, say
from meshsync.lab.namespaces import is_privileged
from tests.netns import Machine, lan

_NAMES = ("anna", "boris", "clara")
_KEY = "(umask 077; od -An -v -N32 -tx1 /dev/urandom | tr -d ' \\n' >mesh.key)"
_NEWS_SECONDS_MAX = 30
_MEMBER = ("--trust", "mesh-key", "--mesh-key-file", "mesh.key", "--collection", "notes")
_ALONE = ("--no-mdns", "--listen", "127.0.0.1:0")
_LAN = "Each laptop is a network namespace of this machine, with an interface of its own on one switch."
_ONE_MACHINE = (
    "As root, each would be a machine of its own on one switch. Without, they are three directories on this machine,\n"
    "and the third laptop is taken off the network by starting it again where nobody can find it."
)


class Laptop:
    """One laptop with its node, and the terminal of whoever owns it."""

    def __init__(self, directory: Path, name: str, machine: Machine | None) -> None:
        """`machine`: where it is on a network of its own."""
        self.name = name
        self.shell = Shell(directory, owner=name, prefix=machine.command() if machine is not None else (), mdns=True)
        self._machine = machine
        self._running = AsyncExitStack()

    async def start(self, *options: str) -> None:
        """Start the node."""
        await self._running.enter_async_context(self.shell.node(self.name, *_MEMBER, *options))

    async def stop(self) -> None:
        """Stop the node."""
        await self._running.aclose()

    async def unplug(self) -> None:
        """Take it off the network."""
        if self._machine is not None:
            self._machine.ports[0].unplug()
        else:
            await self.stop()
            await self.start(*_ALONE)

    async def plug(self) -> None:
        """Bring it back."""
        if self._machine is not None:
            self._machine.ports[0].plug()
        else:
            await self.stop()
            await self.start()


async def tell(directory: Path) -> bool:
    """Tell the story; whether the roots are equal at the end."""
    async with AsyncExitStack() as stack:
        is_lan = is_privileged() and shutil.which("ip") is not None
        machines = stack.enter_context(lan(*_NAMES)) if is_lan else (None, None, None)
        laptops = [Laptop(directory, name, machine) for name, machine in zip(_NAMES, machines, strict=True)]
        for laptop in laptops:
            stack.push_async_callback(laptop.stop)
        await meet(laptops, _LAN if is_lan else _ONE_MACHINE)
        await write_apart(laptops)
        return await reunite(laptops)


async def meet(laptops: list[Laptop], how: str) -> None:
    """Start the nodes; see one's write at the other, and all of the mesh at the third."""
    anna, boris, clara = laptops
    chapter(
        "1. Three laptops, no address",
        f"Anna, Boris and Clara have a file with the same key, and nobody's address. There is no server.\n{how}",
    )
    await Shell(anna.shell.directory).system(_KEY)
    for laptop in laptops:
        await laptop.start()
    say("Boris watches. Anna writes. Clara looks at the mesh:")
    async with boris.shell.streaming("watch", "notes", "--since", "0") as next_line:
        await anna.shell.run("put", "notes", "n1", '{"title": "hello", "team": "blue"}')
        await next_line()
    await clara.shell.run("wait", "synced", "--timeout", "30s")
    await see_all(clara)
    await clara.shell.run("graph")


async def see_all(laptop: Laptop) -> None:
    """Wait until the news of every node and link has come to a laptop."""
    with trio.fail_after(_NEWS_SECONDS_MAX):
        while True:
            graph = await laptop.shell.ask("graph")
            links = [link["state"] for link in graph["links"]]
            equal = [holding["equal"] for node in graph["nodes"] for holding in node["holdings"]]
            if links == ["connected"] * 3 and equal == [True] * 3:
                return


async def write_apart(laptops: list[Laptop]) -> None:
    """Unplug Clara, and write on all three."""
    anna, boris, clara = laptops
    chapter("2. Clara is unplugged", "All three go on writing, two of them in the same note.")
    await clara.unplug()
    await anna.shell.run("put", "notes", "n2", '{"title": "from anna"}')
    await boris.shell.run("patch", "notes", "n1", '{"seen_by": "boris"}')
    await clara.shell.run("patch", "notes", "n1", '{"done": true}')
    await clara.shell.run("put", "notes", "n3", '{"title": "from clara"}')
    say("Her node knows that it is not in sync:")
    await clara.shell.run("wait", "synced", "--timeout", "1s", exit_code=1)


async def reunite(laptops: list[Laptop]) -> bool:
    """Plug Clara in; whether all are equal then."""
    chapter("3. Clara is back", "Nobody does anything but wait.")
    clara = laptops[-1]
    began = time.monotonic()
    await clara.plug()
    for laptop in reversed(laptops):
        await laptop.shell.run("wait", "synced", "--timeout", "60s")
    say(f"In sync {time.monotonic() - began:.1f} s after she was plugged in. What each wrote is everywhere:")
    for laptop in laptops:
        await laptop.shell.run("ls", "notes")
    say("A root is a digest over everything that a node holds: equal roots, equal sets.")
    return len({await laptop.shell.show_root() for laptop in laptops}) == 1
