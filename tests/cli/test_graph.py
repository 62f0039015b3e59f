"""What `graph` prints: for people, for Graphviz, for Mermaid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.cli.graph import dot_lines, labels, lag_text, mermaid_lines
from meshsync.cli.main import _run
from tests.cli.processes import running

HOSTILE = [
    'quo"te',
    "back\\",
    'both\\"',
    "new\\nline \\l \\G",
    "]; evil [shape=none",
    '"]; n9["x',
    "a --> b",
    "%% comment",
    "%%{init: {}}%%",
    "end",
    "subgraph x",
    "click n0 href",
    "<b>bold</b><script>",
    "&lt;&#60;",
    "#quot;",
    "`code`",
    "|pipe|",
    "u\u2028v\u200fw\u202e",
    "\x1b[2J\x07",
    "  ",
    "",
    "x" * 500,
    "é😀",
]


def node(number: int, name: str, state: str = "reachable", **holding: Any) -> dict[str, Any]:
    """A node as the API tells it."""
    held = {"collection": "notes", "root": "00" * 32, "equal": True, "entries": 3, "documents": 2}
    held |= {"behind": 0, "ahead": 0, "exact": True, "age_s": 2.0, **holding}
    facts = {"id": f"{number:064x}", "name": name, "age_s": 2.0, "state": state, "addresses": []}
    return {**facts, "collections": ["notes"], "holdings": [held]}


def link(a: int, b: int, state: str = "connected", rtt_ms: float | None = 1.25, age_s: float = 0) -> dict[str, Any]:
    """A link as the API tells it."""
    facts = {"a": f"{a:064x}", "b": f"{b:064x}", "state": state, "rtt_ms": rtt_ms, "age_s": age_s}
    return {**facts, "said_by": [], "denied_by": [], "collections": ["notes"]}


def mesh_of(names: list[str]) -> dict[str, Any]:
    """A line of nodes with these names."""
    nodes = [node(number, name, "reachable" if number else "self") for number, name in enumerate(names)]
    return {"v": 1, "self": nodes[0]["id"], "nodes": nodes, "links": [link(n, n + 1) for n in range(len(names) - 1)]}


# One statement of the DOT language a line, as Graphviz's grammar has them (https://graphviz.org/doc/info/lang.html).
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_ATTRIBUTES = rf" \[(?:[a-z]+=(?:{_QUOTED}|[a-z0-9]+)(?:, )?)+\];"
DOT_LINE = re.compile(rf"  {_QUOTED}(?: -- {_QUOTED})?{_ATTRIBUTES}")
# A label in quotes, in which nothing but letters, digits, blanks, a few signs and numbered characters stands.
_LABEL = r'"(?:[^\W_]|[ .,\-_/]|#\d+;|<br/>)*"'
MERMAID_LINE = re.compile(rf"  n\d+(?:\[{_LABEL}\]| (?:---|-\.-)\|{_LABEL}\| n\d+)")


def check_dot(lines: list[str], nodes: int, links: int) -> None:
    assert lines[:2] == ["graph meshsync {", "  node [shape=box, style=rounded];"]
    assert lines[-1] == "}"
    assert len(lines) == 3 + nodes + links
    assert [one for one in lines[2:-1] if not DOT_LINE.fullmatch(one)] == []


def check_mermaid(lines: list[str], nodes: int, links: int) -> None:
    assert lines[0] == "flowchart LR"
    assert len(lines) == 1 + nodes + links
    assert [one for one in lines[1:] if not MERMAID_LINE.fullmatch(one)] == []


@given(st.lists(st.text(max_size=30) | st.sampled_from(HOSTILE), min_size=1, max_size=5))
def test_no_name_breaks_out_of_its_label(names: list[str]) -> None:
    """A peer chooses its name, and a name could draw nodes and links that do not exist, or run a script in a page."""
    graph = mesh_of(names)
    check_dot(list(dot_lines(graph)), len(names), len(names) - 1)
    check_mermaid(list(mermaid_lines(graph)), len(names), len(names) - 1)


def test_hostile_names_of_collections_and_states_are_as_harmless() -> None:
    """The names of collections are the owner's own, and yet may hold what these languages use."""
    graph = mesh_of(["a", "b"])
    graph["nodes"][1]["holdings"] = [node(1, "", collection=name)["holdings"][0] for name in HOSTILE]
    check_dot(list(dot_lines(graph)), 2, 1)
    check_mermaid(list(mermaid_lines(graph)), 2, 1)


def test_dot_and_mermaid_show_what_is_in_doubt() -> None:
    """A drawing that hides a dispute, a lag or an age is believed."""
    graph = mesh_of(["here", "near", "gone"])
    graph["nodes"][1] = node(1, "near", "connected", equal=False, behind=3, ahead=1)
    graph["nodes"][2] = node(2, "gone", "unreachable")
    graph["links"] = [link(0, 1), link(1, 2, "disputed", None, 65.0)]
    gray = ', style="rounded,dashed", color=gray, fontcolor=gray'
    dot = list(dot_lines(graph))
    assert dot[2:] == [
        f'  "{0:064x}" [label="here\\nheard 2 s ago", penwidth=2];',
        f'  "{1:064x}" [label="near\\nnotes: 3 behind, 1 ahead\\nheard 2 s ago"];',
        f'  "{2:064x}" [label="gone\\nout of reach\\nnotes: in sync\\nheard 2 s ago"{gray}];',
        f'  "{0:064x}" -- "{1:064x}" [label="1.2 ms"];',
        f'  "{1:064x}" -- "{2:064x}" [label="disputed, 1 min ago", style=dashed, color=red];',
        "}",
    ]
    check_dot(dot, 3, 2)
    assert list(mermaid_lines(graph)) == [
        "flowchart LR",
        '  n0["here<br/>heard 2 s ago"]',
        '  n1["near<br/>notes#58; 3 behind, 1 ahead<br/>heard 2 s ago"]',
        '  n2["gone<br/>out of reach<br/>notes#58; in sync<br/>heard 2 s ago"]',
        '  n0 ---|"1.2 ms"| n1',
        '  n1 -.-|"disputed, 1 min ago"| n2',
    ]


def test_nodes_of_one_name_are_told_apart() -> None:
    """Two devices of one image often have one name."""
    graph = mesh_of(["sensor", "sensor", "hub", ""])
    assert list(labels(graph).values()) == ["sensor 00000000", "sensor 00000000", "hub", "00000000"]


@pytest.mark.parametrize(
    ("holding", "text"),
    [
        ({}, "in sync"),
        ({"equal": False, "behind": 2}, "2 behind"),
        ({"equal": False, "behind": 2, "ahead": 1}, "2 behind, 1 ahead"),
        ({"equal": False, "ahead": 9, "exact": False}, "at least 9 ahead"),
        ({"equal": False, "exact": False}, "differs"),
    ],
)
def test_lag_is_said_as_exactly_as_it_is_known(holding: dict[str, Any], text: str) -> None:
    """`0 behind` beside another root would be a lie."""
    assert lag_text(node(1, "", **holding)["holdings"][0]) == text


@pytest.mark.parametrize("options", [("--dot", "--mermaid"), ("--json", "--dot")])
def test_one_form_at_a_time(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A script that asks for two gets one of them and fails later."""
    assert _run(["graph", *options]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_a_running_pair_is_drawn_in_every_form(tmp_path: Path) -> None:
    """The forms come from one answer of a node, and each must hold for what a node really says."""
    with (
        running(tmp_path / "a", "--trust", "open", "--name", "alpha") as a,
        running(tmp_path / "b", "--trust", "open", "--name", 'be"ta', "--peer", a.peer) as b,
    ):
        b.out("put", "notes", "n1", "{}")
        b.out("wait", "synced", "--timeout", "30s")
        graph = b.json("graph")
        assert graph["v"] == 1
        assert {one["id"]: one["state"] for one in graph["nodes"]} == {a.id: "connected", b.id: "self"}
        (told,) = graph["links"]
        assert (told["a"], told["b"], told["state"]) == (b.id, a.id, "connected")
        check_dot(b.out("graph", "--dot").splitlines(), 2, 1)
        check_mermaid(b.out("graph", "--mermaid").splitlines(), 2, 1)
        text = b.out("graph")
        assert re.search(r'^be"ta +\w{8} +self +notes +1 +now$', text, re.MULTILINE)
        assert re.search(r'^be"ta +alpha +connected +\d+\.\d ms +now$', text, re.MULTILINE)
