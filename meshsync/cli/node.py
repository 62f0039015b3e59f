"""`node`: runs a node in the foreground until SIGINT or SIGTERM."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshsync.cli.main import data_dir_option
from meshsync.cli.numbers import WholeNumber
from meshsync.cli.output import print_json, printable, write_line

if TYPE_CHECKING:
    from meshsync.api.server import ApiAddresses
    from meshsync.config import Config
    from meshsync.node import Node

_MANY = ("listen", "peer", "collection", "interface", "discover")


@click.command("node")
@data_dir_option
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="A YAML file."
)
@click.option("--check-config", is_flag=True, help="Say whether the configuration is right, and do nothing else.")
@click.option("--name", metavar="NAME", help="What people call this node.")
@click.option("--listen", multiple=True, metavar="HOST:PORT", help="Where to listen; port 0 for any.  [0.0.0.0:4433]")
@click.option("--peer", multiple=True, metavar="HEX@HOST:PORT", help="A peer to trust and dial; again for more.")
@click.option("--collection", multiple=True, metavar="NAME", help="A collection to replicate; again for more.")
@click.option("--trust", type=click.Choice(["closed", "mesh-key", "open"]), help="Who may connect.  [closed]")
@click.option("--mesh-key-file", metavar="FILE", help="The key that the mesh shares, for --trust mesh-key.")
@click.option("--mdns/--no-mdns", default=None, help="Look for peers on the local network.  [on]")
@click.option("--discover", multiple=True, metavar="dns:NAME", help="A name that stands for peers; again for more.")
@click.option("--exchange/--no-exchange", default=None, help="Tell and ask peers where others are.  [on]")
@click.option("--interface", multiple=True, metavar="NAME", help="A network interface to use; again for more.  [all]")
@click.option("--relay/--no-relay", default=None, help="Store and forward the collections of peers for others.")
@click.option("--durability", type=click.Choice(["full", "normal"]), help="When a write is acknowledged.  [full]")
@click.option("--http", metavar="HOST:PORT", help="Serve the API on localhost too, with the token of api.token.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Logs on standard error.  [text]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[info]")
@click.option(
    "--ready-fd",
    type=WholeNumber("the number of an open file: 1 or more", 1),
    metavar="FD",
    help="Write the ready line there, and close it.",
)
@click.pass_context
def node_command(
    context: click.Context, /, *, config_file: Path | None, check_config: bool, ready_fd: int | None, **flags: Any
) -> None:
    """Run a node until SIGINT or SIGTERM; a second signal ends it at once.

    Flags count over environment variables (MESHSYNC_NAME, MESHSYNC_PEERS, …), those over the file.  One line on
    standard output says when the node is ready; logs go to standard error.
    """
    from meshsync.config import resolve_settings

    settings = {name: list(value) if name in _MANY else value for name, value in flags.items()}
    settings["data_dir"] = context.ensure_object(dict).get("data_dir")
    resolved = resolve_settings(settings, os.environ, config_file)
    if check_config:
        write_line("the configuration is right")
        return
    if ready_fd is not None:
        _check_open(ready_fd)
    _run(resolved.config, ready_fd)


def _check_open(ready_fd: int) -> None:
    """UsageError: there is no such open file.  Now, because later something of the node's may have that number."""
    try:
        os.fstat(ready_fd)
    except OSError as error:
        raise click.UsageError(
            f"--ready-fd {ready_fd}: {error.strerror}; open it, such as by {ready_fd}>FILE"
        ) from None


def _run(config: Config, ready_fd: int | None) -> None:
    import trio

    from meshsync.cli.logs import configure_logs
    from meshsync.groups import unwrapped

    configure_logs(config.log_format, config.log_level)
    _warn_of_open_trust(config)
    with unwrapped():
        trio.run(_node, config, ready_fd)


async def _node(config: Config, ready_fd: int | None) -> None:
    import trio

    from meshsync.cli.logs import EventLogger

    async with trio.open_nursery() as nursery:
        await nursery.start(_end_on_signal, nursery.cancel_scope)
        # Imported while the signals are watched already: together these take most of the time of a start.
        from meshsync.api.server import serve_api
        from meshsync.datadir import DataDir
        from meshsync.launch import open_node

        async with AsyncExitStack() as last, AsyncExitStack() as stack:
            node = await stack.enter_async_context(open_node(config))
            api = await stack.enter_async_context(serve_api(node, DataDir(config.data_dir), config.http))
            logger = EventLogger(node.events)
            last.callback(logger.finish)
            nursery.start_soon(logger.run)
            # What a start has made stays until the end.  To look through it for garbage, again and again, took a tenth
            # of the time in which many headers are received.
            gc.freeze()
            node.events.emit("ready", listen=node.listen)
            _announce(node, api, ready_fd, as_json=config.log_format == "json")
            try:
                await trio.sleep_forever()
            finally:
                _notify_supervisor("STOPPING=1")


async def _end_on_signal(scope: Any, *, task_status: Any) -> None:
    """Cancel `scope` at the first signal; end the process at the second, whatever it is doing."""
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: os._exit(128 + received))
    scope.cancel()


def _announce(node: Node, api: ApiAddresses, ready_fd: int | None, *, as_json: bool) -> None:
    """Tell whoever started the node that it is ready: standard output, a descriptor, systemd."""
    ready: dict[str, Any] = {"v": 1, "event": "ready", "id": str(node.id), "listen": list(node.listen)}
    ready["api"] = str(api.socket)
    if api.http is not None:
        ready |= {"http": api.http, "token_file": str(api.token_file)}
    if as_json:
        print_json(ready)
    else:
        name = f" {printable(node.name)}" if node.name else ""
        http = f", {api.http} (token in {api.token_file})" if api.http is not None else ""
        write_line(f"node{name} {node.id} is ready: listening on {', '.join(node.listen)}; API at {api.socket}{http}")
    if ready_fd is not None:
        import json

        try:
            with os.fdopen(ready_fd, "w", encoding="utf-8") as file:
                file.write(json.dumps(ready) + "\n")
        except OSError as error:
            _cannot_be_told(f"--ready-fd {ready_fd}", error)
    _notify_supervisor(f"READY=1\nMAINPID={os.getpid()}")


def _notify_supervisor(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3)); a supervisor that is gone is none of our business."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            # A leading @ stands for the NUL byte of Linux's abstract name space.
            notifier.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            notifier.send(state.encode())
        except OSError as error:
            _cannot_be_told(address, error)


def _cannot_be_told(supervisor: str, error: OSError) -> None:
    print(f"meshsync: {supervisor}: the supervisor cannot be told: {error.strerror}", file=sys.stderr)


def _warn_of_open_trust(config: Config) -> None:
    import ipaddress

    if config.trust == "open" and not all(ipaddress.ip_address(one.host).is_loopback for one in config.listen):
        print("meshsync: --trust open lets anyone read and write; use closed or mesh-key", file=sys.stderr)
