"""`lab new`, `lab check` and `lab prepare`: what is done to the files of a lab, with nothing running."""

from __future__ import annotations

from pathlib import Path

import click

from meshsync.cli.main import json_option
from meshsync.cli.output import counted, print_json, write_line
from meshsync.lab.commands.group import examples, folder_argument


@click.command(
    "new",
    epilog=examples(
        "meshsync lab new my-lab",
        "meshsync lab new --shape ring --nodes 12 --profile jtrs my-ring",
    ),
)
@click.option(
    "--shape", default="line", metavar="SHAPE", help="pair, line, ring, star, tree, clique, lan or web.  [line]"
)
@click.option("--nodes", type=int, default=None, help="How many; 2 for a pair, otherwise 5.")
@click.option(
    "--profile", default="nominal", metavar="NAME", help="What every link does to what it carries.  [nominal]"
)
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def new_command(folder: Path, shape: str, nodes: int | None, profile: str, as_json: bool) -> None:
    """Write a new lab into a new folder.

    Its scenario lets nodes write, cuts a part of them off, and joins it again.  The files are made to be edited;
    `meshsync lab check` says what is wrong with them then.  Needs nothing.
    """
    from meshsync.lab.generate import write_lab
    from meshsync.lab.shapes import make_shape

    count = nodes if nodes is not None else 2 if shape == "pair" else 5
    write_lab(folder, shape, made := make_shape(shape, count), profile)
    if as_json:
        print_json({"v": 1, "folder": str(folder), "nodes": list(made.nodes)})
        return
    write_line(f"{folder} is ready; run it with: sudo meshsync lab run {folder}")


@click.command("check", epilog=examples("meshsync lab check topologies/line"))
@folder_argument
@json_option
def check_command(folder: Path, as_json: bool) -> None:
    """Say whether the files of a lab are right, and do nothing else.

    Exits with 2 where they are not, with a line for each problem: the file, the line, the key, and what was expected.
    Needs nothing.
    """
    from meshsync.lab.drivers.base import read_lab

    lab = read_lab(folder)
    topology = lab.topology
    if as_json:
        links = [one.name for one in topology.links]
        print_json({"v": 1, "name": lab.name, "nodes": list(topology.nodes), "links": links})
        return
    write_line(
        f"{lab.name} is right: {counted(len(lab.scenario.nodes), 'node')}, {counted(len(topology.links), 'link')}"
    )


@click.command(
    "prepare",
    epilog=examples(
        "sudo meshsync lab prepare topologies/pair",
        "sudo containerlab deploy -t topologies/pair/pair.clab.yml",
        "sudo docker exec clab-pair-a meshsync status",
        "sudo meshsync lab down topologies/pair",
    ),
)
@folder_argument
@json_option
def prepare_command(folder: Path, as_json: bool) -> None:
    """Make the keys and the configuration of every node, in the folder's `.lab`.

    For who deploys the topology with containerlab itself; `run` and `up` do it by themselves.  Keys that are there
    stay, the configuration is written anew.  Needs root only because nodes in containers are root's.
    """
    from meshsync.lab.drivers.base import read_lab
    from meshsync.lab.prepare import prepare

    lab = read_lab(folder)
    prepared = prepare(lab)
    if as_json:
        ids = {name: node.identity.endpoint_id.hex() for name, node in prepared.items()}
        print_json({"v": 1, "name": lab.name, "topology": str(lab.topology.path), "nodes": ids})
        return
    write_line(f"{lab.name} is prepared; bring it up with: containerlab deploy -t {lab.topology.path}")
