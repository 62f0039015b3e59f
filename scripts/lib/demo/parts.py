"""An office has everything, two crews have what they look after; and what crosses the cable is captured."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

import trio
from cable import Cable, open_cable
from capture import Capture

from demo.cities import WORLD, write_world
from demo.nodes import DemoFailed, Shell, chapter, free_port, say
from meshsync.core.entry import touched_documents
from meshsync.core.messages import Batch, Payloads

_INNSBRUCK, _BERN = "2775220", "2661552"
_PATIENCE = ("--timeout", "50s")


class Story:
    """The three nodes, each with the terminal of its owner."""

    def __init__(self, directory: Path) -> None:
        variables: dict[str, str] = {}
        self.office, self.alps, self.fjord = (
            Shell(directory, owner=name, variables=variables) for name in ("office", "alps", "fjord")
        )
        self.capture = Capture(directory / "alps.keys")

    async def start(self, stack: AsyncExitStack, count: int) -> Cable:
        """Start the nodes; the cable between alps and office."""
        chapter(
            "1. An office and two crews",
            f"The office has {count:,} cities, by GeoNames. Each crew wants only those that it looks after. Alps\n"
            "reaches the office through a relay in this script, a cable that is tapped, and writes down the\n"
            "secrets of its connections, so that the capture can be read.",
        )
        listen = f"127.0.0.1:{free_port()}"
        cable = await stack.enter_async_context(open_cable(listen))
        cable.record = self.capture.note
        enter = stack.enter_async_context
        await enter(self.office.node("office", "--listen", listen, "--collection", "cities"))
        await self.office.run("load", "cities", f"{WORLD}.jsonl")
        peer_cable = await self.office.keep("CABLE", "id", "--address", cable.address)
        peer_office = await self.office.keep("OFFICE", "id", "--address", listen)
        for crew, peer, key_log in ((self.alps, peer_cable, "alps.keys"), (self.fjord, peer_office, "")):
            id = await crew.keep(crew.owner.upper(), "id")
            await enter(crew.node(crew.owner, "--listen", "127.0.0.1:0", "--peer", peer, key_log=key_log))
            await self.office.run("peers", "accept", id)
            await crew.run("collections", "join", "cities", "--where", f"crew={crew.owner}")
            await crew.run("wait", "synced", *_PATIENCE)
        return cable

    async def compare(self) -> None:
        """Each crew shows exactly its part.  DemoFailed: it does not."""
        chapter("2. Each has its part", "What a crew lists is what the office lists for it, to the last document.")
        for crew in (self.alps, self.fjord):
            await crew.run("ls", "cities", "--limit", "2")
            part = await crew.listed("cities")
            if not part or part != await self.office.listed("cities", "--where", f"crew={crew.owner}"):
                raise DemoFailed(f"{crew.owner} does not show what matches its query")
            say(f"{len(part)} documents, equal on both sides.")

    async def hand_over(self) -> None:
        """A document moves from one part to the other, and both are told."""
        chapter("3. Handed over, live", "Innsbruck goes from one crew to the other. Both are watching:")
        async with (
            self.alps.streaming("watch", "cities") as seen_by_alps,
            self.fjord.streaming("watch", "cities") as seen_by_fjord,
        ):
            await self.office.run("patch", "cities", _INNSBRUCK, '{"crew": "fjord"}')
            for crew, seen in ((self.alps, seen_by_alps), (self.fjord, seen_by_fjord)):
                print(f"{crew.owner} sees:", flush=True)
                await seen()
        await self.alps.run("get", "cities", _INNSBRUCK, exit_code=1)
        await self.fjord.run("why", "cities", _INNSBRUCK, "crew")

    async def write_apart(self, cable: Cable) -> None:
        """Two write the same field without knowing of each other."""
        chapter("4. Two write at once", "The cable to alps is cut, and both sides name another agent for Bern.")
        cable.is_cut = True
        await self.office.run("patch", "cities", _BERN, '{"agent": "Meier"}')
        await self.alps.run("patch", "cities", _BERN, '{"agent": "Amstutz"}')
        cable.is_cut = False
        say("The cable is mended. Both agree, and neither hides what lost:")
        await self.alps.run("wait", "synced", *_PATIENCE)
        await self.office.run("wait", "synced", *_PATIENCE)
        await self.office.run("why", "cities", _BERN, "agent")
        await self.office.run("conflicts", "cities")

    async def judge(self) -> bool:
        """Whether the roots are equal.  DemoFailed: something crossed that alps did not ask for."""
        chapter("5. What crossed the cable", "The capture, decrypted:")
        lines = await self.office.listed("cities", "--where", "crew=alps")
        asked = {json.loads(line)["id"] for line in lines} | {_INNSBRUCK}
        seen = self.capture.messages()
        batches = [one.message for one in seen if not one.from_near and isinstance(one.message, Batch)]
        payloads = [payload for batch in batches for payload in batch.payloads]
        late = [one.message for one in seen if not one.from_near and isinstance(one.message, Payloads)]
        whole = [one for one in payloads if one is not None] + [row[2] for message in late for row in message.payloads]
        others = [payload for payload in whole if asked.isdisjoint(touched_documents(payload))]
        print(
            f"{len(payloads):7,} entries came to alps, in {self.capture.bytes_from(near=False):,} bytes of UDP payload"
        )
        print(f"{len(whole):7,} of them with what they say: the documents of alps, and their past")
        print(f"{len(payloads) - len(whole):7,} as headers alone")
        print(f"{len(others):7,} payloads that nobody asked for")
        say("A root is a digest over all entries; the crews hold each of them, most as a header.")
        roots = {await shell.show_root() for shell in (self.office, self.alps, self.fjord)}
        if others or len(whole) < len(asked):
            raise DemoFailed("what crossed the cable is not what was asked for")
        return len(roots) == 1


async def tell(directory: Path) -> bool:
    """Tell the story; whether the roots are equal at the end."""
    count = await trio.to_thread.run_sync(write_world, directory)
    story = Story(directory)
    async with AsyncExitStack() as stack:
        cable = await story.start(stack, count)
        await story.compare()
        await story.hand_over()
        await story.write_apart(cable)
        return await story.judge()
