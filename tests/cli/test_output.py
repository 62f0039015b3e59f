from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsync.cli.durations import Duration
from meshsync.cli.main import _run
from meshsync.cli.output import counted, duration, part_text, printable, size, to_json
from tests.cli.processes import COMMAND, environment

UNSAFE = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *"\u200e\u200f\u202a\u202e\u2066\u2069"}


@given(st.text())
def test_no_text_can_drive_a_terminal(text: str) -> None:
    """A peer chooses its name, and a name could clear the screen."""
    assert not set(printable(text)) & UNSAFE
    assert len(printable(text)) <= 120


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_json_is_safe_and_says_the_same(value: dict[str, str]) -> None:
    """Escaping must not change what a program reads."""
    assert not set(to_json(value)) & UNSAFE
    assert json.loads(to_json(value)) == value
    assert not set(to_json(value, indent=2)) & (UNSAFE - {"\n"})
    assert json.loads(to_json(value, indent=2)) == value


def test_ids_that_differ_are_printed_as_such() -> None:
    """`ls --ids` feeds scripts: without its control character one document's id would name another one to `rm`."""
    assert [printable("ab"), printable("a\x01b"), printable("a\nb")] == ["ab", r"a\u0001b", r"a\u000ab"]


def test_amounts_are_for_people() -> None:
    """`up 93784.2 s` and `1 documents` are not."""
    assert [duration(seconds) for seconds in (0.4, 59, 61, 7200, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]
    assert [size(count) for count in (7, 1500, 25_000, 3e6, 5e12)] == ["7 B", "1.5 kB", "25 kB", "3.0 MB", "5000.0 GB"]
    assert [counted(count, "line") for count in (0, 1, 2)] == ["0 lines", "1 line", "2 lines"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("500ms", 0.5), ("5m", 300), ("1.5h", 5400), ("2", 2), ("1 d", 86400)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    """`--timeout 60s` is in the interface."""
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["gte"],
        ["get"],
        ["get", "notes"],
        ["get", "notes", "n1", "more"],
        ["ls", "notes", "--limit", "-1"],
        ["wait", "synced", "--timeout", "soon"],
        ["node", "--trust", "none"],
        ["load", "notes", "--batch", "257"],
        ["collections", "join", "x", "--history", "some"],
    ],
)
def test_a_slip_on_the_command_line_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts tell a slip from a missing document by this code."""
    assert _run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["events", "--since", "x"],
            "'x' is not the number of an event, with which each line of `meshsync events` begins",
        ),
        (["events", "--since", "-1"], "; 0 begins with the oldest that is kept"),
        (["events", "--since", "9" * 20], "is not the number of an event"),
        (["events", "--since", "²"], "is not the number of an event"),
        (["ls", "notes", "--limit", "1.5"], "'1.5' is not how many documents to print: 0 or more"),
        (["log", "notes", "--limit", "0"], "'0' is not how many entries to print: 1 or more"),
        (["load", "notes", "--batch", "257"], "'257' is not how many documents go into an entry: 1 to 256"),
    ],
)
def test_a_number_that_is_none_is_named_with_what_it_stands_for(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise whoever types a cursor in the place of a number reads about ranges of integers."""
    assert _run(arguments) == 2
    assert expected in capsys.readouterr().err


def collection(state: str) -> dict[str, object]:
    """A collection with one session, as status tells it."""
    session = {"id": "ab" * 32, "state": state, "missing": 3, "unsent": 0, "stall": None}
    return {"name": "notes", "relayed": False, "differing": [], "peers": [session]}


def test_a_part_says_what_it_may_miss_and_what_it_dropped() -> None:
    """Otherwise an owner takes what few peers know for all that there is, or wonders where documents went."""
    part = {**collection("synced"), "certain": True, "unwanted": {"payloads": 0, "bytes": 0}}
    assert part_text(part) == ""
    assert "no connected peer has all of it" in part_text({**part, "certain": False})
    assert part_text({**collection("pulling"), "certain": False, "unwanted": part["unwanted"]}) == ""
    dropped = part_text({**part, "unwanted": {"payloads": 2, "bytes": 300}})
    assert dropped == "notes dropped 2 payloads that are not wanted, 300 B"


def test_a_disk_that_is_full_ends_what_is_printed_with_a_word() -> None:
    """A backup by `dump >file` that is not whole has to say so, and not where in the program it noticed."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "version"], stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
    assert done.returncode == 1
    assert done.stderr == (
        "meshsync: standard output: No space left on device; what was printed before it is not the whole\n"
    )
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "version"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.parametrize("arguments", ["put notes n1 -", "patch notes n1 -", "batch notes", "load notes"])
def test_a_standard_input_that_is_closed_is_named(arguments: str, tmp_path: Path) -> None:
    """Services and cron jobs may have none; a traceback says nothing, and an empty load would pass for a whole one."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, *arguments.split(), "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.stderr == "meshsync: standard input is closed; name a file, or give it something to read\n"
    assert (done.returncode, done.stdout) == (2, "")


def test_ctrl_c_among_the_imports_ends_a_command_quietly() -> None:
    """In a loop of a shell it falls there as likely as not, and a traceback looks like a fault."""
    script = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "meshsync.cli.lazy":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from meshsync.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_empty_data_directory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With a variable that is not set, a script would write to whatever node has its data where the script runs."""
    assert _run(["--data-dir", "", "version"]) == 2
    assert _run(["get", "--data-dir", "", "notes", "n1"]) == 2
    assert capsys.readouterr().err.count("an empty argument names nothing; is a variable of a script not set?") == 2


def test_the_version_is_told_by_the_option_as_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` is what people and packagers try first."""
    assert _run(["--version"]) == 0
    assert _run(["version"]) == 0
    option, command = capsys.readouterr().out.splitlines()
    assert option == command


@pytest.mark.parametrize("group", ["collections", "index", "peers", "wait"])
def test_the_data_directory_may_stand_at_every_place(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that is taken before one group's command and refused before another's is a trap."""
    assert _run([group, "--data-dir", "somewhere", "nonsense"]) == 2
    assert "No such command 'nonsense'" in capsys.readouterr().err
