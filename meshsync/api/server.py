"""Listening: the Unix socket of the data directory and, on request, a port on localhost."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from meshsync.addresses import HostPort
from meshsync.api._seam import serve_http
from meshsync.api.app import create_app, guard
from meshsync.core.limits import LIMITS, Limits
from meshsync.datadir import DataDir, read_private_file
from meshsync.errors import ConfigError

if TYPE_CHECKING:
    from meshsync.node import Node

TOKEN_NAME = "api.token"  # noqa: S105  the name of the file
_TOKEN_BYTES_MAX = 256


@dataclass(frozen=True)
class ApiAddresses:
    """Where the API answers."""

    socket: Path
    http: str | None
    """http://IP:PORT, where it was asked for."""
    token_file: Path | None


@asynccontextmanager
async def serve_api(
    node: Node, data_dir: DataDir, http: HostPort | None = None, limits: Limits = LIMITS
) -> AsyncIterator[ApiAddresses]:
    """Serve the API inside the block.  Only for the process that holds the lock of the data directory.

    ConfigError: a socket cannot be made.  Cancelling, or leaving the block, ends every request.
    """
    app = create_app(node)
    with contextlib.ExitStack() as cleanup:
        unix = cleanup.enter_context(contextlib.closing(data_dir.listen_api(limits.api_connections_max)))
        # A socket without a node behind it would make clients wait for a refusal instead of seeing it at once.
        cleanup.callback(data_dir.api_socket.unlink, missing_ok=True)
        addresses = ApiAddresses(data_dir.api_socket, None, None)
        async with trio.open_nursery() as nursery:
            if http is not None:
                token = load_or_create_token(data_dir)
                tcp = cleanup.enter_context(contextlib.closing(_listen_tcp(http, limits)))
                bound = HostPort(http.host, tcp.getsockname()[1])
                addresses = ApiAddresses(data_dir.api_socket, f"http://{bound}", data_dir.path / TOKEN_NAME)
                await nursery.start(partial(serve_http, guard(app, token, bound.port), tcp, limits))
            await nursery.start(partial(serve_http, app, unix, limits))
            yield addresses
            nursery.cancel_scope.cancel()


def load_or_create_token(data_dir: DataDir) -> str:
    """The token of the data directory, made at the first call, 0600.  ConfigError: others can read it."""
    path = data_dir.path / TOKEN_NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        token = read_private_file(path, bytes_max=_TOKEN_BYTES_MAX, follow_symlink=False).decode("ascii", "replace")
        if not token.strip():
            raise ConfigError(f"{path}: is empty; remove it, and the next start makes a new one") from None
        return token.strip()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror}; the data directory must be writable") from error
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{token}\n")
    return token


def _listen_tcp(address: HostPort, limits: Limits) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the connections of the last run to time out.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(limits.api_connections_max)
    except OSError as error:
        listener.close()
        raise ConfigError(f"--http {address}: cannot listen there: {error.strerror}; choose another port") from error
    return listener
