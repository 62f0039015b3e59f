"""The cables of a lab in one process, laid and changed over a Unix socket: a JSON object a line, each way.

    {"link": "a-b", "ends": ["l0a", "l0b"], "forward": {"delay_seconds": 0.1}, "backward": {}}

Lays the cable where it is new, and impairs it.  The answer is `{"v":1,"carried":[…],"lost":[…]}`, per direction.
"""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path
from typing import Any

import trio

from meshsync.lab.cable.cable import Cable
from meshsync.lab.drivers.base import LabError
from meshsync.lab.impairments import Impairment, LinkImpairment

_LINE_BYTES_MAX = 64 * 1024
_ANSWER_SECONDS = 10.0


async def serve_cables(path: Path, rng: random.Random) -> None:
    """Carry frames, and obey whoever connects, until cancelled.  The socket is its owner's alone."""
    cables: dict[str, Cable] = {}
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listening:
        # Under its name only once it listens: whoever sees it can connect.
        early = path.with_suffix(".new")
        early.unlink(missing_ok=True)
        await listening.bind(str(early))
        early.chmod(0o600)
        listening.listen()
        early.rename(path)
        async with trio.open_nursery() as nursery:

            async def answer(stream: trio.SocketStream) -> None:
                buffer = b""
                while data := await stream.receive_some(_LINE_BYTES_MAX):
                    *lines, buffer = (buffer + data).split(b"\n")
                    for line in lines:
                        reply = _obey(json.loads(line), cables, nursery, rng)
                        await stream.send_all(json.dumps(reply).encode() + b"\n")

            await trio.serve_listeners(answer, [trio.SocketListener(listening)])


def _obey(order: dict[str, Any], cables: dict[str, Cable], nursery: trio.Nursery, rng: random.Random) -> dict[str, Any]:
    link = order["link"]
    if "forward" in order:
        impairment = LinkImpairment(Impairment.from_json(order["forward"]), Impairment.from_json(order["backward"]))
        if link in cables:
            cables[link].impair(impairment)
        else:
            first, second = order["ends"]
            cables[link] = Cable(first, second, impairment, rng)
            nursery.start_soon(cables[link].run)
    wires = cables[link].forward.wire, cables[link].backward.wire
    return {"v": 1, "carried": [wire.carried for wire in wires], "lost": [wire.lost for wire in wires]}


def order_cable(path: Path, link: str, ends: tuple[str, str], impairment: LinkImpairment) -> dict[str, Any]:
    """Lay or impair a cable of the process that listens there; blocks.  LabError: it does not answer."""
    order = {
        "link": link,
        "ends": ends,
        "forward": impairment.forward.as_json(),
        "backward": impairment.backward.as_json(),
    }
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(path))
            connection.sendall(json.dumps(order).encode() + b"\n")
            with connection.makefile("rb") as file:
                reply: dict[str, Any] = json.loads(file.readline(_LINE_BYTES_MAX))
    except (OSError, ValueError) as error:
        raise LabError(f"the cables of this lab do not answer: {error}; its log is beside {path}") from None
    return reply
