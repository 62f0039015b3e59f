"""`index`: the fields of a collection by which this node finds documents at once."""

from __future__ import annotations

from typing import Any

import click

from meshsync.cli.main import client, client_options, data_dir_option
from meshsync.cli.output import print_json, print_table, write_line


@click.group("index")
@data_dir_option
def index_command() -> None:
    """List, add and remove indexes.

    An index finds the documents with certain values of a field without a look at all others, and lists in its order.
    It belongs to this node alone.
    """


@index_command.command("ls")
@client_options
@click.argument("collection")
def _ls(*, as_json: bool, collection: str) -> None:
    """List the indexes of a collection."""
    answer = client().get("v1", "collections", collection, "indexes")
    if as_json:
        print_json(answer)
    elif answer["indexes"]:
        print_table(("FIELD", "STATE", "DOCUMENTS"), [_row(one, answer["documents"]) for one in answer["indexes"]])
    else:
        write_line("no indexes; meshsync index add COLLECTION FIELD")


def _row(index: dict[str, Any], documents: int) -> tuple[Any, ...]:
    if index["ready"]:
        return index["field"], "ready", index["documents"]
    return index["field"], "building", f"{index['documents']} of {documents}"


@index_command.command("add")
@client_options
@click.argument("collection")
@click.argument("field")
def _add(*, as_json: bool, collection: str, field: str) -> None:
    """Declare an index of a field, such as team or position.lat.  It is built in the background; `ls` shows how far."""
    answer = client().request("POST", "v1", "collections", collection, "indexes", body={"field": field})
    if as_json:
        print_json(answer)


@index_command.command("rm")
@client_options
@click.argument("collection")
@click.argument("field")
def _rm(*, as_json: bool, collection: str, field: str) -> None:
    """Give up an index.  Exits with 1 where there is none."""
    answer = client().request("DELETE", "v1", "collections", collection, "indexes", field)
    if as_json:
        print_json(answer)
