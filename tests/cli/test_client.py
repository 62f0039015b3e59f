"""The client of a node that does not answer as a node does."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from meshsync.cli.client import Client
from meshsync.cli.exits import CommandError, Exit
from meshsync.datadir import DataDir

_ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1027\r\n\r\n{"v":1,'


def test_a_node_that_is_killed_while_it_answers_is_a_node_that_ended(tmp_path: Path) -> None:
    """Otherwise the owner sees a traceback, and a lab breaks off because a scenario killed a node."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with DataDir(tmp_path).api_socket_address() as address:
            listener.bind(address)
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(_ANSWER)

        dying = threading.Thread(target=answer)
        dying.start()
        with pytest.raises(CommandError, match="ended before it had answered") as caught:
            Client(DataDir(tmp_path)).get("v1", "status")
        dying.join()
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
