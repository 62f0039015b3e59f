"""The client of a node that does not answer as a node does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshsync.cli.client import Client
from meshsync.cli.exits import CommandError, Exit
from meshsync.datadir import DataDir

_ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1027\r\n\r\n{"v":1,'
_STREAM = b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"n":1}\n\r\n'


@contextmanager
def dying_node(path: Path, said: bytes) -> Iterator[Client]:
    """A client of a node that ends when it has said so much."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with DataDir(path).api_socket_address() as address:
            listener.bind(address)
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(said)

        dying = threading.Thread(target=answer)
        dying.start()
        yield Client(DataDir(path))
        dying.join()


def test_a_node_that_is_killed_while_it_answers_is_a_node_that_ended(tmp_path: Path) -> None:
    """Otherwise the owner sees a traceback, and a lab breaks off because a scenario killed a node."""
    with (
        dying_node(tmp_path, _ANSWER) as client,
        pytest.raises(CommandError, match="ended before it had answered") as caught,
    ):
        client.get("v1", "status")
    assert caught.value.code is Exit.NO_NODE


def test_who_watches_a_node_that_ends_is_told_how_to_go_on(tmp_path: Path) -> None:
    """Otherwise the end of a node reads as if the watch had never begun, and the owner begins anew."""
    with dying_node(tmp_path, _STREAM) as client, client.lines("v1", "collections", "notes", "changes") as changes:
        assert next(changes) == {"n": 1}
        with pytest.raises(CommandError, match=r"in the middle of its answer; .* --since") as caught:
            next(changes)
    assert caught.value.code is Exit.NO_NODE


@pytest.mark.parametrize(("argument", "said"), [("\udcff", "not UTF-8"), ("", "names nothing")])
def test_an_argument_that_cannot_be_asked_for_is_named(tmp_path: Path, argument: str, said: str) -> None:
    """The shell passes any bytes; a traceback, or the answer to another question, helps nobody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with DataDir(tmp_path).api_socket_address() as address:
            listener.bind(address)
        listener.listen()
        with pytest.raises(CommandError, match=said) as caught:
            Client(DataDir(tmp_path)).get("v1", "collections", argument)
    assert caught.value.code is Exit.USAGE
