"""Three nodes share real data; one is cut off, all go on writing, and in the end all are equal."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio
from cable import Cable, open_cable

from demo.cities import LATER, write_files
from demo.nodes import Shell, chapter, free_port, say

NAMES = ("office", "harbour", "ship")
LIMA = "3936456"


async def start(shell: Shell, stack: AsyncExitStack) -> Cable:
    """Start the nodes; the cable between harbour and ship."""
    chapter(
        "1. Three nodes",
        "An office, a harbour and a ship: three nodes, here three processes on one machine, each with a copy of its\n"
        "own. The office and the ship know the harbour, not each other. There is no server.",
    )
    office, harbour = (f"127.0.0.1:{free_port()}" for _ in range(2))
    cable = await stack.enter_async_context(open_cable(harbour))
    peer_office = await shell.keep("OFFICE", "--data-dir", "office", "id", "--address", office)
    peer_harbour = await shell.keep("HARBOUR", "--data-dir", "harbour", "id", "--address", harbour)
    ship = await shell.keep("SHIP", "--data-dir", "ship", "id")
    say("The ship reaches the harbour through a relay in this script, a cable that can be cut:")
    peer_cable = await shell.keep("CABLE", "--data-dir", "harbour", "id", "--address", cable.address)
    share = ("--collection", "cities")
    enter = stack.enter_async_context
    await enter(shell.node("office", "--listen", office, "--peer", peer_harbour, *share))
    await enter(shell.node("harbour", "--listen", harbour, "--peer", peer_office, *share))
    await enter(shell.node("ship", "--listen", "127.0.0.1:0", "--peer", peer_cable, *share))
    say("Nobody is let in whom the harbour does not know. Its owner accepts the ship:")
    await shell.run("--data-dir", "harbour", "peers", "accept", ship)
    return cable


async def share_cities(shell: Shell, counts: dict[str, int]) -> None:
    """Load a part of the data at each node, until all have all of it."""
    chapter(
        "2. A third of the world each",
        "Every city with more than 50,000 inhabitants, by GeoNames: Europe and Africa are loaded at the office, Asia\n"
        "and Oceania at the harbour, the Americas on the ship.",
    )
    for name in NAMES:
        await shell.run("--data-dir", name, "load", "cities", f"{name}.jsonl")
    began = time.monotonic()
    await equal(shell)
    total = sum(counts[name] for name in NAMES)
    say(f"All three have all {total:,} cities, {time.monotonic() - began:.1f} s later. The ship's own view:")
    await shell.run("--data-dir", "ship", "status")
    await shell.run("--data-dir", "ship", "ls", "cities", "--where", "country=FR", "--where", "population>400000")


async def write_apart(shell: Shell, cable: Cable, counts: dict[str, int]) -> None:
    """Cut the ship off, and write on all sides."""
    chapter(
        "3. The ship is cut off", f"The cable is cut. All three go on writing, the office {counts[LATER]} cities more."
    )
    cable.is_cut = True
    await shell.run("--data-dir", "office", "load", "cities", f"{LATER}.jsonl")
    await shell.run("--data-dir", "office", "patch", "cities", LIMA, '{"agent": "Quispe"}')
    await shell.run("--data-dir", "harbour", "put", "cities", "berth-7", '{"name": "Berth 7", "free": true}')
    await shell.run("--data-dir", "ship", "put", "cities", "rock-1", '{"name": "Uncharted rock", "population": 0}')
    await shell.run("--data-dir", "ship", "patch", "cities", LIMA, '{"arrival": "2027-03-01"}')
    say("Office and harbour are in sync. The ship knows that it is not:")
    await shell.run("--data-dir", "office", "wait", "synced", "--timeout", "20s")
    await shell.run("--data-dir", "ship", "wait", "synced", "--timeout", "1s", exit_code=1)
    await show_roots(shell)


async def reunite(shell: Shell, cable: Cable) -> bool:
    """Mend the cable; whether all are equal then."""
    chapter("4. Together again", "The cable is mended.")
    began = time.monotonic()
    cable.is_cut = False
    await equal(shell)
    say(f"In sync again, {time.monotonic() - began:.1f} s later. Both changes to Lima are there, on every node:")
    await shell.run("--data-dir", "ship", "get", "cities", LIMA)
    await shell.run("--data-dir", "office", "get", "cities", "rock-1")
    say("A root is a digest over everything that a node holds: equal roots, equal sets.")
    return await show_roots(shell)


async def equal(shell: Shell) -> None:
    """Wait until all have the same."""
    # The harbour first: it is in sync with the other two only when all three are equal.
    for name in ("harbour", "office", "ship"):
        await shell.run("--data-dir", name, "wait", "synced", "--timeout", "50s")


async def show_roots(shell: Shell) -> bool:
    """Print the root of each node; whether they are equal."""
    roots = set()
    for name in NAMES:
        status = await shell.ask("--data-dir", name, "status")
        [collection] = status["collections"]
        roots.add(collection["root"])
        print(f"{name:8} {collection['documents']:6,} documents  root {collection['root']}", flush=True)
    return len(roots) == 1


async def tell(directory: Path) -> bool:
    """Tell the story; whether the roots are equal at the end."""
    counts = await trio.to_thread.run_sync(write_files, directory)
    async with AsyncExitStack() as stack:
        shell = Shell(directory)
        cable = await start(shell, stack)
        await share_cities(shell, counts)
        await write_apart(shell, cable, counts)
        return await reunite(shell, cable)
