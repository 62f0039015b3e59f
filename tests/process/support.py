"""What the tests of real processes share: asking a node through its control API, and writing to it without pause."""

from __future__ import annotations

import json
import math
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.cli.processes import PATIENCE_SECONDS, RunningNode

OPEN = ("--trust", "open")


@contextmanager
def api(node: RunningNode) -> Iterator[httpx.Client]:
    """The control API of a node."""
    transport = httpx.HTTPTransport(uds=node.ready["api"])
    with httpx.Client(transport=transport, base_url="http://node/v1", timeout=PATIENCE_SECONDS) as client:
        yield client


def ids(node: RunningNode) -> set[str]:
    """The ids of all documents."""
    with api(node) as client:
        answer = client.get("/collections/notes/documents").raise_for_status()
    return {document["id"] for document in map(json.loads, answer.text.splitlines())}


def collection(node: RunningNode) -> dict[str, Any]:
    """What status says of the collection."""
    with api(node) as client:
        [found] = client.get("/status").json()["collections"]
    assert isinstance(found, dict)
    return found


def put(node: RunningNode, id: str) -> None:
    """Write a document."""
    with api(node) as client:
        client.put(f"/collections/notes/documents/{id}", json={}).raise_for_status()


def settle(*nodes: RunningNode) -> None:
    """Wait until all nodes are in sync, and check that they hold the same."""
    for _ in range(20):
        for node in nodes:
            with api(node) as client:
                assert client.post("/wait", json={"timeout_s": PATIENCE_SECONDS / 2}).json()["synced"]
        if len({collection(node)["root"] for node in nodes}) == 1:
            return
    raise AssertionError("the nodes say that they are in sync, and hold different things")


def free_port() -> int:
    """A UDP port that nobody uses at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Writer(threading.Thread):
    """Writes documents one after the other, and notes those that were acknowledged, until the node is gone."""

    def __init__(self, node: RunningNode, prefix: str = "w", count_max: float = math.inf) -> None:
        super().__init__()
        self._node = node
        self._prefix = prefix
        self._count_max = count_max
        self._more = threading.Condition()
        self.acknowledged: list[str] = []

    def run(self) -> None:
        with api(self._node) as client:
            number = 0
            while number < self._count_max:
                id = f"{self._prefix}{number}"
                number += 1
                try:
                    answer = client.put(f"/collections/notes/documents/{id}", json={"n": number})
                except httpx.TransportError as error:
                    # Where nobody listens any more httpcore leaves its socket to the garbage collector, which warns.
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", ResourceWarning)
                        error.__traceback__ = error.__cause__ = error.__context__ = None
                    return
                assert answer.is_success, answer.text
                with self._more:
                    self.acknowledged.append(id)
                    self._more.notify()

    def wait_for(self, count: int) -> None:
        """Wait until so many were acknowledged."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.acknowledged) >= count, PATIENCE_SECONDS)
