"""`id` and `version`: what needs no running node."""

from __future__ import annotations

import click

from meshsync.cli.main import data_dir, data_dir_option, json_option
from meshsync.cli.output import print_json, write_line


@click.command("id")
@data_dir_option
@json_option
@click.option("--address", metavar="HOST:PORT", help="Print HEX@HOST:PORT, ready for --peer on another node.")
def id_command(*, as_json: bool, address: str | None) -> None:
    """Print the endpoint id of this node: 64 hexadecimal digits.

    The identity is made when the data directory has none.  No node needs to run.
    """
    from meshsync.addresses import PeerAddress, parse_address
    from meshsync.identity import load_or_create

    where = None if address is None else parse_address(address)
    endpoint_id = load_or_create(data_dir().path).endpoint_id
    peer = None if where is None else str(PeerAddress(endpoint_id, where))
    if as_json:
        print_json({"v": 1, "id": str(endpoint_id)} | ({} if peer is None else {"peer": peer}))
    else:
        write_line(peer or str(endpoint_id))


@click.command("version")
@json_option
def version_command(*, as_json: bool) -> None:
    """Print the version of meshsync."""
    from importlib.metadata import version

    if as_json:
        print_json({"v": 1, "version": version("meshsync")})
    else:
        write_line(version("meshsync"))
