"""The README is run: what it shows is what happens.

A block of `console` is a transcript, one of `text` what a demo prints (tests/test_scripts.py).  `anna$ meshsync …` runs
with a data directory and a port of anna's own; `$ …` runs without.  A block whose first line is `# NAME` is a file.
Output is compared after ids, times, sizes and addresses were made alike; an id that stands in the README stands for the
one that took its place in the run.

In the section of the LAN each name has a machine of its own; `<!-- unplug NAME -->` and `<!-- plug NAME -->` are done
to its cable.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest

from meshsync.cli.exits import Exit
from meshsync.cli.main import group
from meshsync.lab.namespaces import is_privileged
from tests.netns import Machine, lan

ROOT = Path(__file__).resolve().parent.parent
_WHOLE = (ROOT / "README.md").read_text()
_BEFORE, _LAN_TITLE, _REST = _WHOLE.partition("\n## Three laptops, no address\n")
LAN, _NEXT_TITLE, _AFTER = _REST.partition("\n## ")
README = _BEFORE + _NEXT_TITLE + _AFTER
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LAN_BLOCK = re.compile(r"^(?:```console\n(.*?)^```|<!-- (unplug|plug) (\w+) -->)$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^(?P<name>[a-z]*)\$ (?P<command>.+)$")
HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
PREFIX = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}(?![0-9a-f])")
ANNAS_ADDRESS = "192.0.2.17:4433"
SECONDS_MAX = 60

SHAPES = (
    (HEX, "ID"),
    (PREFIX, "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T][\d:.]+Z?"), "TIME"),
    (re.compile(r"(\[::\]|\d+\.\d+\.\d+\.\d+)(:| port )\d+"), "ADDRESS"),
    (re.compile(r"\S+api\.sock"), "SOCKET"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s|min|B|kB|MB)\b"), "QUANTITY"),
    (re.compile(r", QUANTITY ago"), ""),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"QUANTITY ago|\bnow\b"), "AGO"),
    # Which peer is told of first, how far it is, and whether it is taken for connected still.
    (re.compile(r"(not synced after QUANTITY): (notes is not synced with|no peer) .*"), r"\1"),
    (re.compile(r" +"), " "),
)


def shape_of(text: str) -> list[str]:
    """The lines of an output with what differs from run to run made alike."""
    for pattern, name in SHAPES:
        text = pattern.sub(name, text)
    return [line.strip() for line in text.strip().splitlines()]


def _comparable(command: str, output: str) -> list[str]:
    """The shape of an output.  Ids decide about order and ends in a graph, so there it is the words of its lines."""
    if command.startswith("meshsync lab"):
        return [line for line in shape_of(re.sub(r"\d[\d.]*", "NUMBER", output)) if line.startswith(("PASS", "FAIL"))]
    if not command.startswith("meshsync graph"):
        return shape_of(output)
    for number, name in re.findall(r'^ +(n\d+)\["(\w+)', output, re.MULTILINE):
        output = re.sub(rf"\b{number}\b", name, output)
    return sorted(" ".join(sorted(line.split())) for line in shape_of(output))


def free_port() -> int:
    """A UDP port that nobody uses at present."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Terminals:
    """The terminals of the people in the README, all in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ids: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        self._nodes: dict[str, subprocess.Popen[str]] = {}
        (directory / "topologies").symlink_to(ROOT / "topologies")
        commands = directory / "bin"
        commands.mkdir()
        for name, start in (("meshsync", "-m meshsync"), ("python", "")):
            (commands / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {start} "$@"\n')
            (commands / name).chmod(0o755)

    def close(self) -> None:
        """Stop the nodes."""
        for node in self._nodes.values():
            node.terminate()
        for node in self._nodes.values():
            with node:
                node.wait(SECONDS_MAX)

    def translate(self, text: str) -> str:
        """The README's ids and addresses, as they are in this run."""
        text = text.replace(ANNAS_ADDRESS, self._address("anna"))
        text = HEX.sub(lambda found: self.ids.get(found.group(), found.group()), text)
        prefixes = {id[:8]: actual[:8] for id, actual in self.ids.items()}
        return PREFIX.sub(lambda found: prefixes.get(found.group(), found.group()), text)

    def follow(self, transcript: str) -> None:
        """Run the commands of a transcript and compare what they print."""
        steps: list[tuple[str, str, list[str]]] = []
        for line in transcript.splitlines():
            if prompt := PROMPT.match(line):
                steps.append((prompt["name"], prompt["command"], []))
            else:
                steps[-1][2].append(line)
        for name, command, lines in steps:
            expected = "\n".join(lines)
            actual = self._answer(name, self.translate(command), expected)
            assert _comparable(command, actual) == _comparable(command, expected), f"{name}$ {command}"
            self.ids.update(zip(HEX.findall(expected), HEX.findall(actual), strict=True))

    def _answer(self, name: str, command: str, expected: str) -> str:
        if command.startswith("meshsync node ") and "--check-config" not in command:
            return self._start(name, command)
        if command.startswith("meshsync watch "):
            return self._watch(name, command, expected.count("\n") + 1)
        deadline = time.monotonic() + SECONDS_MAX
        # What only looks may be asked until it sees: peers take a moment to meet.
        looks = (
            re.match(
                r"meshsync (peers( pending)?|status|graph( .*)?|wait synced .*|get .*|ls .*|log .*|history .*)$",
                command,
            )
            is not None
        )
        while True:
            done = subprocess.run(
                self._shell(name, command),
                cwd=self.directory,
                env=self._environment(name),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
            if (
                not looks
                or _comparable(command, done.stdout) == _comparable(command, expected)
                or time.monotonic() > deadline
            ):
                return done.stdout

    def _start(self, name: str, command: str) -> str:
        with (self.directory / f"{name}.log").open("w") as log:
            node = self._nodes[name] = subprocess.Popen(
                self._shell(name, f"exec {command}"),
                cwd=self.directory,
                env=self._environment(name),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert node.stdout is not None
        ready, _, _ = select.select([node.stdout], [], [], SECONDS_MAX)
        line = node.stdout.readline() if ready else ""
        assert line, f"{name}$ {command}: {(self.directory / f'{name}.log').read_text()}"
        return line

    def _watch(self, name: str, command: str, count: int) -> str:
        """The first lines of a command that goes on."""
        with subprocess.Popen(
            self._shell(name, f"exec {command}"),
            cwd=self.directory,
            env=self._environment(name),
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(count)]
            process.terminate()
        return "".join(lines)

    def _shell(self, name: str, command: str) -> list[str]:  # noqa: ARG002  laptops on a LAN have one each
        return ["bash", "-c", command]

    def _environment(self, name: str) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith("MESHSYNC_")}
        own |= {"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", "NO_COLOR": "1", "MESHSYNC_MDNS": "false"}
        if name:
            own |= {"MESHSYNC_DATA_DIR": str(self.directory / name), "MESHSYNC_LISTEN": self._address(name)}
        return own

    def _address(self, name: str) -> str:
        return self._addresses.setdefault(name, f"127.0.0.1:{free_port()}")


class Laptops(Terminals):
    """Terminals on machines of their own, which are on one LAN."""

    def __init__(self, directory: Path, machines: Sequence[Machine]) -> None:
        super().__init__(directory)
        self.machines = {machine.name: machine for machine in machines}

    def _shell(self, name: str, command: str) -> list[str]:
        shell = super()._shell(name, command)
        return self.machines[name].command(*shell) if name else shell

    def _environment(self, name: str) -> dict[str, str]:
        inherited = super()._environment(name)
        return {key: value for key, value in inherited.items() if key not in ("MESHSYNC_MDNS", "MESHSYNC_LISTEN")}

    def root(self, name: str) -> str:
        """The digest of what the node of this name holds."""
        command = [*self._shell(name, "exec meshsync status --json")]
        answer = subprocess.run(
            command, cwd=self.directory, env=self._environment(name), stdout=subprocess.PIPE, check=True
        )
        [collection] = json.loads(answer.stdout)["collections"]
        return str(collection["root"])


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    found = Terminals(tmp_path)
    try:
        yield found
    finally:
        found.close()


def test_readme_shows_what_happens(terminals: Terminals) -> None:
    """A newcomer types what stands there; where something else comes out, they leave."""
    for kind, text in BLOCK.findall(README):
        first = text.partition("\n")[0]
        if kind == "console":
            terminals.follow(text)
        elif kind != "text":
            assert re.fullmatch(r"# [\w.]+", first), f"a block of {kind} that is no file"
            (terminals.directory / first[2:]).write_text(terminals.translate(text))
    assert len(terminals.ids) >= 3


@pytest.mark.skipif(not is_privileged(), reason="network namespaces need root")
def test_readme_shows_a_mesh(tmp_path: Path) -> None:
    """Who has a cable to pull tries just that."""
    with lan(*sorted(set(re.findall(r"^([a-z]+)\$ ", LAN, re.MULTILINE)))) as machines:
        laptops = Laptops(tmp_path, machines)
        try:
            for transcript, deed, name in LAN_BLOCK.findall(LAN):
                if transcript:
                    laptops.follow(transcript)
                elif deed == "unplug":
                    laptops.machines[name].ports[0].unplug()
                else:
                    laptops.machines[name].ports[0].plug()
            assert len(laptops.machines) == 3
            assert len({laptops.root(name) for name in laptops.machines}) == 1
        finally:
            laptops.close()


def test_readme_opens_with_the_two_commands() -> None:
    """They are what a newcomer runs first, and what a build server runs."""
    commands = [line.split()[0] for line in README.splitlines() if line.startswith("    scripts/")]
    assert commands[:2] == ["scripts/demo", "scripts/test"]


def test_readme_names_what_exists() -> None:
    """A command that was renamed lives on in documents."""
    scripts = set(re.findall(r"scripts/[a-z]+", _WHOLE))
    assert {name for name in scripts if not os.access(ROOT / name, os.X_OK)} == set()
    files = re.findall(r"`((?:meshsync|requirements|topologies)/[\w./]+)`", _WHOLE)
    assert [name for name in files if not (ROOT / name).exists()] == []
    mentioned = set(re.findall(r"(?:`|\$ )meshsync ([a-z]+)", _WHOLE))
    assert mentioned
    assert mentioned <= set(group.list_commands(click.Context(group)))


def test_readme_has_the_exit_codes() -> None:
    """Scripts are written against this table."""
    table = README.partition("## Exit codes")[2].partition("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [int(code) for code in Exit]
