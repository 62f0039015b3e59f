"""Two real nodes, and the commands that people type."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import COMMAND, PATIENCE_SECONDS, RunningNode, environment, meshsync, running

NOBODY = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with running(tmp_path_factory.mktemp("alone") / "n") as node:
        yield node


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningNode, RunningNode]]:
    directory = tmp_path_factory.mktemp("pair")
    b_id = meshsync("id", "--data-dir", directory / "b").stdout.strip()
    with running(directory / "a", "--name", "alpha") as a:
        a.out("peers", "accept", b_id)
        with running(directory / "b", "--name", "beta", "--peer", a.peer) as b:
            yield a, b


def test_a_stranger_knocks_is_accepted_and_gets_the_documents(tmp_path: Path) -> None:
    """The first five minutes with the program."""
    with running(tmp_path / "a", "--name", "alpha") as a, running(tmp_path / "b", "--peer", a.peer) as b:
        with a.streaming("events", "--since", "1", "--type", "pending", "--json") as events:
            assert events.stdout is not None
            assert json.loads(events.stdout.readline())["peer"] == b.id
        assert f"meshsync peers accept {b.id[:16]}" in a.out("status")
        assert [one["id"] for one in a.json("peers", "pending")["peers"]] == [b.id]
        assert (tmp_path / "a.log").read_text().count(b.id) > 0
        assert '"pending"' not in (tmp_path / "a.log").read_text(), "what the log says in words it says once"
        assert a.out("peers", "accept", b.id[:8]) == ""
        a.out("put", "notes", "n1", '{"title":"hello"}')
        assert b.out("wait", "synced", "--timeout", "30s") == "synced\n"
        assert json.loads(b.out("get", "notes", "n1")) == {"title": "hello"}
        assert a.json("peers", "pending")["peers"] == []


def test_two_keys_make_two_meshes_and_both_owners_read_why(tmp_path: Path) -> None:
    """Who copied the wrong file sees two nodes that wait for each other, and looks for the fault in the network."""
    keys = [tmp_path / "one.key", tmp_path / "other.key"]
    for key in keys:
        key.touch(0o600)
        key.write_text(secrets.token_hex(32))
    with (
        running(tmp_path / "a", "--trust", "mesh-key", "--mesh-key-file", keys[0], "--name", "alpha", "--relay") as a,
        running(tmp_path / "b", "--trust", "mesh-key", "--mesh-key-file", keys[1], "--peer", a.peer) as b,
    ):
        with b.streaming("events", "--since", "1", "--type", "dial_failed", "--json") as events:
            assert events.stdout is not None
            assert json.loads(events.stdout.readline())["reason"].endswith(" there, or the same mesh key on both")
        assert "or the same mesh key on both" in b.out("status")
        text = a.out("status")
        assert "wants to connect and does not hold this mesh's key; to let it in:\n    meshsync peers accept" in text
        assert "\nrelays 0 collections for others, 0 B of 1.1 GB\n" in text
        assert ", 0 entries in " in text
        with running(tmp_path / "c") as c:
            assert c.out("status").endswith("\nno peer is connected; --peer HEX@HOST:PORT of `node` names one\n")


def test_documents_travel_both_ways(pair: tuple[RunningNode, RunningNode]) -> None:
    """put, patch, get, rm and ls, on two nodes."""
    a, b = pair
    entry = a.json("put", "notes", "m1", '{"n":1,"team":"blue"}')
    assert (entry["v"], entry["collection"], entry["id"]) == (1, "notes", "m1")
    b.out("wait", "synced", "--timeout", "30s")
    b.out("patch", "notes", "m1", '{"n":null,"m":2}')
    a.out("wait", "synced", "--timeout", "30s")
    found = a.json("get", "notes", "m1")
    assert (found["doc"], found["author"], found["conflict"]) == ({"m": 2, "team": "blue"}, b.id, False)
    assert a.out("ls", "notes", "--where", "team=blue", "--ids") == "m1\n"
    a.out("rm", "notes", "m1")
    b.out("wait", "synced", "--timeout", "30s")
    assert b.run("get", "notes", "m1").returncode == 1


def test_status_says_whether_all_is_in_sync(pair: tuple[RunningNode, RunningNode]) -> None:
    """What users of every such system ask first: am I in sync, with whom, since when."""
    a, b = pair
    b.out("wait", "synced", "--timeout", "30s")
    text = b.out("status", "--check")
    assert "in sync with every connected peer" in text
    assert "alpha" in text
    status = b.json("status")
    assert [(one["id"], one["state"], one["via"]) for one in status["peers"]] == [(a.id, "connected", "static")]
    assert [one["state"] for one in status["collections"][0]["peers"]] == ["synced"]
    (link,) = b.json("graph")["links"]
    assert (link["a"], link["b"], link["state"]) == (b.id, a.id, "connected")
    assert b.json("sync", "notes")["peers"] == 1
    assert b.out("connect", a.peer) == "True\n"


def test_load_and_dump_are_each_others_opposite(pair: tuple[RunningNode, RunningNode], tmp_path: Path) -> None:
    """A backup in JSON lines must come back as it was, on another node and by way of a pipe."""
    a, b = pair
    documents = [{"id": f"d{n:03}", "n": n, "text": "ä😀\u0085"} for n in range(300)]
    file = tmp_path / "documents.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in documents))
    assert a.out("load", "notes", file) == "300 documents stored\n"
    b.out("wait", "synced", "--timeout", "30s")
    dumped = b.out("dump", "notes")
    # Split at newlines only: str.splitlines would also split at U+0085.
    assert sorted((json.loads(line) for line in dumped.split("\n")[:-1]), key=lambda one: one["id"]) == documents
    assert b.json("load", "notes", "--batch", "100", file)["stored"] == 300
    assert b.out("load", "notes", text=dumped) == "300 documents stored\n"
    assert b.out("ls", "notes", "--order", "-n", "--limit", "2", "--ids") == "d299\nd298\n"


def test_load_that_is_refused_ends_while_its_input_goes_on(alone: RunningNode) -> None:
    """Otherwise a misspelt name in a pipeline ends in a dump of the interpreter's state."""
    command = [*COMMAND, "load", "typo", "--data-dir", str(alone.data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as load:
        # Its input stays open, as that of a program that has more to say.
        assert load.wait(PATIENCE_SECONDS) == 4
        assert load.stderr is not None
        assert load.stderr.read() == "meshsync: this node has no collection 'typo'; meshsync collections join typo\n"


def test_load_stops_at_the_first_bad_line_and_says_how_to_go_on(alone: RunningNode, tmp_path: Path) -> None:
    """A million lines and one slip: nothing may be lost, and the place must be known."""
    file = tmp_path / "bad.jsonl"
    file.write_text('{"id":"b1"}\n{"id":"b2","a":NaN}\n{"id":"b3"}\n')
    done = alone.run("load", "notes", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file}: line 2: a: NaN is not JSON; use null or a string" in done.stderr
    assert "1 document stored before it; go on with line 2, or with --skip-bad" in done.stderr
    done = alone.run("load", "notes", "--skip-bad", file)
    assert (done.returncode, done.stdout) == (1, "2 documents stored\n")
    assert alone.run("load", "notes", tmp_path / "missing").returncode == 2


def test_watch_goes_on_from_its_cursor_also_after_a_restart(tmp_path: Path) -> None:
    """A program that was away must neither miss a change nor act on one twice."""
    with running(tmp_path / "n") as node:
        for n in range(3):
            node.out("put", "notes", f"n{n}", "{}")
        with node.streaming("watch", "notes", "--json", "--since", "0") as watch:
            assert watch.stdout is not None
            first = [json.loads(watch.stdout.readline()) for _ in range(2)]
        assert node.stop(signal.SIGKILL) == -signal.SIGKILL
    with running(tmp_path / "n") as node:
        node.out("rm", "notes", "n0")
        with node.streaming("watch", "notes", "--json", "--since", first[-1]["cursor"]) as watch:
            assert watch.stdout is not None
            second = [json.loads(watch.stdout.readline()) for _ in range(2)]
    assert [(one["id"], one["kind"]) for one in first + second] == [
        ("n0", "put"),
        ("n1", "put"),
        ("n2", "put"),
        ("n0", "delete"),
    ]


def test_what_was_joined_is_remembered_and_what_was_left_is_not(tmp_path: Path) -> None:
    """A node that forgets its collections at a restart stops replicating in silence."""
    with running(tmp_path / "n", collections=()) as node:
        node.out("collections", "join", "teams", "--priority", "high")
        node.out("collections", "join", "old")
        node.out("collections", "leave", "old")
        assert node.stop() == 0
    with running(tmp_path / "n", collections=()) as node:
        found = node.json("collections")["collections"]
        assert [(one["name"], one["priority"]) for one in found] == [("teams", "high")]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["get", "notes", "nothing"], 1, "there is no document 'nothing' in notes"),
        (["rm", "notes", "nothing"], 1, "there is no document 'nothing' in notes"),
        (["wait", "synced", "--timeout", "50ms"], 1, "no peer is connected"),
        (["put", "notes", "x", "[1]"], 2, "must be a JSON object"),
        (["put", "notes", "x", '{"a":1,"a":2}'], 2, "a: this key stands twice"),
        (["ls", "notes", "--where", "a==1"], 2, "column 3"),
        (["watch", "notes", "--since", "x"], 2, "is no cursor of this store"),
        (["events", "--type", "sinced"], 2, "there is no event 'sinced'"),
        (["peers", "accept", "feedfeed"], 2, "no known peers"),
        (["connect", "nonsense"], 2, "has no @"),
        (["get", "other", "x"], 4, "this node has no collection 'other'; meshsync collections join other"),
        (
            ["collections", "leave", "other"],
            4,
            "this node has no collection 'other'; see what it has: meshsync collections",
        ),
        (["collections", "join", ""], 2, "'' is no name; expected 1 to 128 bytes"),
        (["collections", "join", "x\x1b[2J"], 2, "has control characters"),
        (["collections", "join", "x" * 129], 2, "is no name; expected 1 to 128 bytes"),
        (["collections", "join", "x", "--where", "a"], 2, "a"),
        (["connect", f"{NOBODY}@127.0.0.1:1"], 5, ""),
    ],
)
def test_exit_codes_tell_what_went_wrong(alone: RunningNode, arguments: list[str], code: int, expected: str) -> None:
    """Scripts branch on them; people read one line and know what to do."""
    done = alone.run(*arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("meshsync: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ("get notes nothing", 1, "no_document"),
        ("get other x", 4, "no_collection"),
        ("ls notes --where a==1", 2, "bad_request"),
        ("ls notes --nothing", 2, "usage"),
        ("put notes x [1]", 2, "bad_request"),
        ("watch notes --since x", 2, "bad_request"),
        ("connect nonsense", 2, "bad_request"),
        ("get notes x --data-dir nowhere", 3, "no_node"),
    ],
)
def test_programs_are_told_errors_as_json(alone: RunningNode, arguments: str, code: int, told: str) -> None:
    """Otherwise a program has to take sentences apart, and they change."""
    command, *rest = arguments.split()
    done = meshsync(command, "--data-dir", alone.data_dir, *rest, "--json")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    answer = json.loads(done.stderr)
    assert (answer["v"], answer["error"]["code"], set(answer["error"])) == (1, told, {"code", "message", "hint"})
    assert answer["error"]["message"]
    in_words = meshsync(command, "--data-dir", alone.data_dir, *rest).stderr
    assert in_words == f"meshsync: {'; '.join(filter(None, (answer['error'][key] for key in ('message', 'hint'))))}\n"


def test_a_load_that_stops_tells_programs_once_what_it_stored(alone: RunningNode) -> None:
    """Words between the lines of JSON would break whoever reads them."""
    done = alone.run("load", "notes", "--json", text='{"id":"l1"}\nnonsense\n')
    assert done.returncode == 2
    result, error = json.loads(done.stdout), json.loads(done.stderr)
    assert (result["stored"], result["error"]) == (1, error["error"])
    assert (error["error"]["code"], error["error"]["line"]) == ("bad_request", 2)


def test_text_of_others_cannot_drive_a_terminal(alone: RunningNode) -> None:
    """A document's id could clear the screen or retitle the window of whoever lists it."""
    alone.out("put", "notes", "evil\x1b[2J\u202e", '{"a":"\\u001b[31m","b":"\\u009b31m"}')
    for arguments in (["ls", "notes"], ["ls", "notes", "--json"], ["ls", "notes", "--ids"], ["log", "notes"]):
        text = alone.out(*arguments)
        assert "evil" in text
        assert not set(text) & {"\x1b", "\x9b", "\u202e"}


def test_documents_come_from_standard_input_too(alone: RunningNode) -> None:
    """A document that is longer than a command line may be."""
    long = {"text": "x" * 200_000}
    alone.out("put", "notes", "long", "-", text=json.dumps(long))
    assert json.loads(alone.out("get", "notes", "long")) == long


def test_a_reader_that_has_seen_enough_is_no_error(alone: RunningNode) -> None:
    """`meshsync dump notes | head -1` must not end in a traceback."""
    alone.out("load", "notes", text="".join(f'{{"id":"p{n}","text":"{"x" * 500}"}}\n' for n in range(2000)))
    command = [*COMMAND, "dump", "notes", "--data-dir", str(alone.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as dump:
        assert dump.stdout is not None
        assert dump.stderr is not None
        assert json.loads(dump.stdout.readline())["id"]
        dump.stdout.close()
        assert (dump.wait(PATIENCE_SECONDS), dump.stderr.read()) == (0, b"")
