"""JSON lines over a trio stream, both ways: how the benchmark talks to its nodes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import trio

_CHUNK = 65_536


async def read_lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[dict[str, Any]]:
    """Each line as an object, until the stream ends."""
    pending = b""
    while chunk := await stream.receive_some(_CHUNK):
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            yield json.loads(line)


async def write_line(stream: trio.abc.SendStream, value: dict[str, Any]) -> None:
    """One object as a line."""
    await stream.send_all(json.dumps(value, separators=(",", ":")).encode() + b"\n")
