"""The cables of a lab in one process, laid and changed over a Unix socket: a JSON object a line, each way.

    {"link": "a-b", "ends": ["l0a", "l0b"], "forward": {"delay_seconds": 0.1}, "backward": {}}

Lays the cable where it is new, and impairs it.  The answer is `{"v":1,"kind":"netem","carried":[…],"lost":[…]}`, both
counts per direction; to an order that makes no sense or cannot be followed `{"v":1,"error":"…"}`, and nothing is done.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from meshsync.errors import LocalError
from meshsync.lab.cable.kinds import AnyCable, make
from meshsync.lab.drivers.base import LabError
from meshsync.lab.impairments import Impairment, LinkImpairment

_LINE_BYTES_MAX = 64 * 1024
_ANSWER_SECONDS = 10.0


async def serve_cables(path: Path, kind: str, rng: random.Random) -> None:
    """Lay cables of a kind, and obey whoever connects, until cancelled.  The socket is its owner's alone."""
    cables: dict[str, AnyCable] = {}
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listening:
        # Under its name only once it listens: whoever sees it can connect.
        early = path.with_suffix(".new")
        early.unlink(missing_ok=True)
        await listening.bind(str(early))
        early.chmod(0o600)
        listening.listen()
        early.rename(path)
        async with trio.open_nursery() as nursery:

            def lay(order: _Order) -> AnyCable:
                cable = make(kind, *order.ends, order.impairment, rng)
                nursery.start_soon(cable.run)
                return cable

            async def answer(stream: trio.SocketStream) -> None:
                buffer = b""
                # Whoever goes in the middle of an order has gone, and the cables stay.
                with contextlib.suppress(trio.BrokenResourceError):
                    while data := await stream.receive_some(_LINE_BYTES_MAX):
                        *lines, buffer = (buffer + data).split(b"\n")
                        if len(buffer) > _LINE_BYTES_MAX:
                            return
                        for line in lines:
                            reply = _answer(line, cables, lay)
                            await stream.send_all(json.dumps(reply).encode() + b"\n")

            await trio.serve_listeners(answer, [trio.SocketListener(listening)])


def _answer(line: bytes, cables: dict[str, AnyCable], lay: Callable[[_Order], AnyCable]) -> dict[str, Any]:
    try:
        order = _Order.read(line)
        if order.link in cables:
            cables[order.link].impair(order.impairment)
        else:
            cables[order.link] = lay(order)
        counts = cables[order.link].counts()
    except (LocalError, LabError) as error:
        return {"v": 1, "error": str(error)}
    carried, lost = zip(*counts, strict=True)
    return {"v": 1, "kind": cables[order.link].KIND, "carried": carried, "lost": lost}


@dataclass(frozen=True)
class _Order:
    link: str
    ends: tuple[str, str]
    impairment: LinkImpairment

    @classmethod
    def read(cls, line: bytes) -> _Order:
        """LocalError: it is none."""
        try:
            order = json.loads(line)
            first, second = order["ends"]
            directions = [Impairment.from_json(order[key]) for key in ("forward", "backward")]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise LocalError(f"no order for a cable: {error!r}") from None
        if not all(isinstance(one, str) and one for one in (order["link"], first, second)):
            raise LocalError("no order for a cable: link and ends are names")
        return cls(order["link"], (first, second), LinkImpairment(*directions))


def order_cable(path: Path, link: str, ends: tuple[str, str], impairment: LinkImpairment) -> dict[str, Any]:
    """Lay or impair a cable of the process that listens there; blocks.

    LabError: it does not answer, or not as it was ordered.
    """
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
    if "error" in reply:
        raise LabError(f"the cables of this lab: {reply['error']}")
    return reply
