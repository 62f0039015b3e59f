"""`graph`: the whole mesh as one node knows it, for people, for programs, for Graphviz and for Mermaid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from meshsync.cli.exits import CommandError, Exit
from meshsync.cli.main import client, client_options
from meshsync.cli.output import counted, duration, print_json, print_table, printable, write_line

NAME_CHARACTERS_MAX = 64

Graph = dict[str, Any]


@click.command("graph")
@client_options
@click.option("--dot", is_flag=True, help="Print it for Graphviz: meshsync graph --dot | dot -Tsvg.")
@click.option("--mermaid", is_flag=True, help="Print it as a flowchart that Markdown pages show.")
def graph_command(*, as_json: bool, dot: bool, mermaid: bool) -> None:
    """Show the whole mesh as this node knows it: who is connected with whom, who lags, and how old that news is.

    A link is `down` where one end told of its end, `disputed` where one end keeps saying that it is there and the other
    that it is not, `stale` where nobody who says so can be reached any more.
    """
    if as_json + dot + mermaid > 1:
        raise CommandError(Exit.USAGE, "--json, --dot and --mermaid exclude each other; choose one")
    graph = client().get("v1", "graph")
    if as_json:
        print_json(graph)
    elif dot:
        write_line("\n".join(dot_lines(graph)))
    elif mermaid:
        write_line("\n".join(mermaid_lines(graph)))
    else:
        _show(graph)


def labels(graph: Graph) -> dict[str, str]:
    """What each node is called: its name where no other has it, else with the first digits of its id."""
    names = {node["id"]: printable(node["name"], NAME_CHARACTERS_MAX).strip() for node in graph["nodes"]}
    times = Counter(names.values())
    return {id: name if name and times[name] == 1 else f"{name} {id[:8]}".strip() for id, name in names.items()}


def lag_text(holding: dict[str, Any]) -> str:
    """How far a node is behind or ahead, for people."""
    if holding["equal"]:
        return "in sync"
    at_least = "" if holding["exact"] else "at least "
    parts = [f"{at_least}{holding[key]} {key}" for key in ("behind", "ahead") if holding[key]]
    return ", ".join(parts) or "differs"


# For people


def _show(graph: Graph) -> None:
    names = labels(graph)
    print_table(("NODE", "ID", "STATE", "COLLECTION", "ENTRIES", "SYNC", "HEARD"), _node_rows(graph, names))
    write_line("")
    if not graph["links"]:
        write_line("no links: no peer is known; meshsync status says where this node looks for some")
        return
    print_table(("FROM", "TO", "STATE", "RTT", "HEARD", "NOTE"), [_link_row(link, names) for link in graph["links"]])
    lost = [names[node["id"]] for node in graph["nodes"] if node["state"] == "unreachable"]
    if lost:
        verb = "is" if len(lost) == 1 else "are"
        write_line(f"\n{counted(len(lost), 'node')} {verb} out of reach from here: {', '.join(lost)}")


def _node_rows(graph: Graph, names: dict[str, str]) -> Iterator[tuple[str, ...]]:
    for node in graph["nodes"]:
        head = (names[node["id"]], node["id"][:8], node["state"])
        if not node["holdings"]:
            yield (*head, "", "", "", _ago(node["age_s"]))
        for holding in node["holdings"]:
            sync = "" if node["state"] == "self" else lag_text(holding)
            yield (*head, holding["collection"], holding["entries"], sync, _ago(holding["age_s"]))
            head = ("", "", "")


def _link_row(link: dict[str, Any], names: dict[str, str]) -> tuple[str, ...]:
    note = ""
    if link["state"] == "disputed":
        said, denied = (" and ".join(names[id] for id in link[key]) for key in ("said_by", "denied_by"))
        note = f"{said} says so, {denied} does not"
    rtt = "" if link["rtt_ms"] is None else f"{link['rtt_ms']:.1f} ms"
    return names[link["a"]], names[link["b"]], link["state"], rtt, _ago(link["age_s"]), note


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return "now" if seconds < 1 else f"{duration(seconds)} ago"


# For Graphviz and Mermaid


def dot_text(text: str) -> str:
    """A string of the DOT language, in which quotes, backslashes and ampersands have a meaning of their own."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return f'"{escaped}"'


def mermaid_text(text: str) -> str:
    """A label of Mermaid: what it could take for its own syntax, for HTML or for Markdown stands as a number."""
    return '"' + "".join(one if one.isalnum() or one in " .,-_/" else f"#{ord(one)};" for one in text) + '"'


def dot_lines(graph: Graph) -> Iterator[str]:
    """The mesh as an undirected graph in the DOT language."""
    names = labels(graph)
    yield "graph meshsync {"
    yield "  node [shape=box, style=rounded];"
    for node in graph["nodes"]:
        # The text of a label is escaped part by part: its line breaks are DOT's own.
        label = "\\n".join(dot_text(part)[1:-1] for part in _node_parts(node, names))
        look = {"self": ", penwidth=2", "unreachable": ', style="rounded,dashed", color=gray, fontcolor=gray'}
        yield f'  {dot_text(node["id"])} [label="{label}"{look.get(node["state"], "")}];'
    for link in graph["links"]:
        look = {} if link["state"] == "connected" else {"style": "dashed"}
        if link["state"] == "disputed":
            look["color"] = "red"
        attributes = ", ".join([f"label={dot_text(_link_text(link))}", *(f"{key}={one}" for key, one in look.items())])
        yield f"  {dot_text(link['a'])} -- {dot_text(link['b'])} [{attributes}];"
    yield "}"


def mermaid_lines(graph: Graph) -> Iterator[str]:
    """The mesh as a flowchart of Mermaid."""
    names = labels(graph)
    places = {node["id"]: f"n{number}" for number, node in enumerate(graph["nodes"])}
    yield "flowchart LR"
    for node in graph["nodes"]:
        label = "<br/>".join(mermaid_text(part)[1:-1] for part in _node_parts(node, names))
        yield f'  {places[node["id"]]}["{label}"]'
    for link in graph["links"]:
        line = "---" if link["state"] == "connected" else "-.-"
        yield f"  {places[link['a']]} {line}|{mermaid_text(_link_text(link))}| {places[link['b']]}"


def _node_parts(node: dict[str, Any], names: dict[str, str]) -> list[str]:
    parts = [names[node["id"]]]
    if node["state"] == "unreachable":
        parts.append("out of reach")
    if node["state"] != "self":
        parts += [f"{printable(one['collection'])}: {lag_text(one)}" for one in node["holdings"]]
    if node["age_s"] is None or node["age_s"] >= 1:
        parts.append(f"heard {_ago(node['age_s'])}")
    return parts


def _link_text(link: dict[str, Any]) -> str:
    parts = [] if link["state"] == "connected" else [link["state"]]
    if link["rtt_ms"] is not None:
        parts.append(f"{link['rtt_ms']:.1f} ms")
    if link["age_s"] >= 1:
        parts.append(_ago(link["age_s"]))
    return ", ".join(parts)
