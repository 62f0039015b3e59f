"""A real node with its real API on a real socket, and an HTTP client on that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import h11
import httpx
import trio
from httpx import AsyncClient

from meshsync.addresses import parse_listen
from meshsync.api.server import ApiAddresses, serve_api
from meshsync.config import Config
from meshsync.datadir import DataDir
from meshsync.events import Event
from meshsync.launch import open_node
from meshsync.node import Node


@dataclass
class Served:
    """A node that serves its API."""

    node: Node
    addresses: ApiAddresses
    client: AsyncClient
    data_dir: DataDir

    async def get(self, path: str, **parameters: Any) -> Any:
        """The JSON at a path that must answer with 200."""
        response = await self.client.get(path, params=parameters)
        assert response.status_code == 200, response.text
        return response.json()

    async def error(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]:
        """Status and error of a request that must fail, in the one shape that errors have."""
        response = await self.client.request(method, path, **more)
        answer = response.json()
        assert answer["v"] == 1
        assert set(answer["error"]) >= {"code", "message", "hint"}
        return response.status_code, answer["error"]

    @asynccontextmanager
    async def feed(self, path: str, headers: Mapping[str, str] | None = None, **parameters: str) -> AsyncIterator[Feed]:
        """A feed whose answer has begun.  (Of an unfinished answer httpx leaves generators behind, which warn.)"""
        async with await trio.open_unix_socket(str(self.addresses.socket)) as stream:
            feed = Feed(stream)
            await feed.begin(f"{path}?{urlencode(parameters)}", headers or {})
            yield feed

    async def lines(self, path: str, **parameters: Any) -> list[Any]:
        """The JSON lines of a stream that ends."""
        response = await self.client.get(path, params=parameters)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in response.text.splitlines()]


class Feed:
    """An answer that goes on, read line by line."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._connection = h11.Connection(h11.CLIENT)
        self._text = b""
        self.headers: dict[str, str] = {}

    async def begin(self, target: str, headers: Mapping[str, str]) -> None:
        """Send the request, and return when the answer has begun."""
        request = h11.Request(method="GET", target=target, headers=[("Host", "localhost"), *headers.items()])
        await self._stream.send_all(self._connection.send(request) or b"")
        await self._stream.send_all(self._connection.send(h11.EndOfMessage()) or b"")
        response = await self._event()
        assert isinstance(response, h11.Response)
        assert response.status_code == 200
        self.headers = {name.decode(): value.decode() for name, value in response.headers}

    async def line(self) -> str:
        """The next line."""
        while b"\n" not in self._text:
            data = await self._event()
            assert isinstance(data, h11.Data), f"the feed ended: {data}"
            self._text += data.data
        line, self._text = self._text.split(b"\n", 1)
        return line.decode()

    async def lines(self, count: int) -> list[Any]:
        """So many JSON lines."""
        return [json.loads(await self.line()) for _ in range(count)]

    async def sent(self) -> tuple[str, str, Any]:
        """A server-sent event: id, event, data."""
        fields: dict[str, str] = {}
        while line := await self.line():
            name, _, value = line.partition(": ")
            fields[name] = value
        return fields["id"], fields["event"], json.loads(fields["data"])

    async def _event(self) -> Any:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(await self._stream.receive_some())
        return event


async def happened(node: Node, kind: str) -> Event:
    """Wait for an event of a type, the past ones included."""
    async with aclosing(node.events.follow(1)) as events:
        async for event in events:
            if event.type == kind:
                return event
    raise AssertionError("the log of events does not end")


@asynccontextmanager
async def serving(directory: Path, http: str | None = None, **settings: Any) -> AsyncIterator[Served]:
    """Run a node on loopback, and its API."""
    settings = {"collections": ["notes"], "listen": ["127.0.0.1:0"], "discovery": {"mdns": False}, **settings}
    data_dir = DataDir(directory)
    address = None if http is None else parse_listen(http)
    async with (
        open_node(Config(data_dir=directory, **settings)) as node,
        serve_api(node, data_dir, address) as addresses,
        AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(addresses.socket)), base_url="http://localhost"
        ) as client,
    ):
        yield Served(node, addresses, client, data_dir)
