"""The one place that uses the insides of Hypercorn.

Its public `serve` ends the whole server when one connection meets an error that it did not expect, and cannot
be stopped while a client does not read, because it shields every send.  A node must survive both.  So the
connections are accepted here, each is a task with a boundary of its own, and stopping shuts the sockets down,
which ends a shielded send.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from meshsync.core.limits import Limits

_LOG = logging.getLogger("meshsync.api")


async def serve_http(
    app: Any,
    listener: socket.socket,
    limits: Limits,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application on a listening socket, which is closed in the end.

    Cancelling stops accepting and ends every request.
    """
    config = Config()
    config.errorlog = _LOG
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.request_head_bytes_max
    wrapped, context = ASGIWrapper(app), WorkerContext(None)
    open_streams: set[trio.SocketStream] = set()
    room = trio.CapacityLimiter(limits.api_connections_max)

    async def handle(stream: trio.SocketStream) -> None:
        open_streams.add(stream)
        try:
            # Of a connection above the limit nothing is read before another one ends.
            async with room:
                await TCPServer(wrapped, config, context, ConnectionState({}), stream).run()  # type: ignore[arg-type]
        except* Exception:  # noqa: BLE001  the boundary: one connection must not end the node
            _LOG.exception("a connection of the control API failed")
        finally:
            open_streams.discard(stream)
            stream.socket.close()

    async with trio.open_nursery() as connections:
        try:
            listening = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            await trio.serve_listeners(handle, [listening], handler_nursery=connections, task_status=task_status)
        finally:
            for stream in open_streams:
                with contextlib.suppress(OSError):
                    stream.socket.shutdown(socket.SHUT_RDWR)
