from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from meshsync.lab.cable.control import serve_cables

GOOD = {"link": "a-b", "ends": ["no1", "no2"], "forward": {"delay_seconds": 0.1}, "backward": {}}
LAID = {"v": 1, "kind": "user-space", "carried": [0, 0], "lost": [0, 0]}


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[trio.SocketStream]:
    """A connection to a process that has the cables."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_cables, path, "user-space", random.Random(1))
        while not await trio.Path(path).exists():
            await trio.lowlevel.checkpoint()
        async with await trio.open_unix_socket(str(path)) as stream:
            yield stream
        nursery.cancel_scope.cancel()


async def ask(stream: trio.SocketStream, line: bytes) -> dict[str, object]:
    await stream.send_all(line + b"\n")
    reply: dict[str, object] = json.loads(await stream.receive_some())
    return reply


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'"a-b"',
        b"null",
        b"{}",
        b'{"link": "a-b"}',
        json.dumps(GOOD | {"link": 7}).encode(),
        json.dumps(GOOD | {"ends": ["no1"]}).encode(),
        json.dumps(GOOD | {"ends": [1, 2]}).encode(),
        json.dumps(GOOD | {"ends": None}).encode(),
        json.dumps(GOOD | {"forward": {"delay": 1}}).encode(),
        json.dumps(GOOD | {"forward": {"delay_seconds": "long"}}).encode(),
        json.dumps(GOOD | {"forward": {"delay_seconds": -1}}).encode(),
        json.dumps(GOOD | {"forward": {"loss": True}}).encode(),
        json.dumps(GOOD | {"forward": {"flap_seconds": [1]}}).encode(),
        json.dumps(GOOD | {"forward": {"flap_seconds": [0, 0]}}).encode(),
        json.dumps(GOOD | {"forward": {"rate_bits_per_second": 0}}).encode(),
        json.dumps(GOOD | {"forward": []}).encode(),
        b"[" * 30_000,
    ],
)
async def test_an_order_that_makes_no_sense_is_answered(tmp_path: Path, line: bytes) -> None:
    """One slip of whoever gives the orders would cut every cable of the lab."""
    async with served(tmp_path / "cables.sock") as stream:
        assert "error" in await ask(stream, line)
        assert await ask(stream, json.dumps(GOOD).encode()) == {
            "v": 1,
            "kind": "user-space",
            "carried": [0, 0],
            "lost": [0, 0],
        }


async def test_whoever_goes_in_the_middle_of_an_order_ends_nothing(tmp_path: Path) -> None:
    """A run that is killed must not cut the cables under the next command."""
    async with served(tmp_path / "cables.sock") as stream:
        async with await trio.open_unix_socket(str(tmp_path / "cables.sock")) as other:
            await other.send_all(b'{"link": "a')
        assert "error" not in await ask(stream, json.dumps(GOOD).encode())
