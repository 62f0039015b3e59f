"""Nodes of the installed command as processes, and commands that are shown as they run."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import trio

_COMMAND_SECONDS_MAX = 60
_STOP_SECONDS_MAX = 10
_RULE = 78


class DemoFailed(Exception):
    """A command did not do what it should; the message says which."""


def chapter(title: str, text: str) -> None:
    """A heading and some lines that say what happens next."""
    print(f"\n{f'== {title} ':=<{_RULE}}\n\n{text}\n", flush=True)


def say(text: str) -> None:
    """Some lines for the reader."""
    print(f"\n{text}\n", flush=True)


def free_port() -> int:
    """A UDP port that nobody uses at present."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Shell:
    """Runs `meshsync` in one directory; prints each command, and what it answers, as a terminal would show them."""

    def __init__(
        self,
        directory: Path,
        *,
        owner: str = "",
        prefix: Sequence[str] = (),
        mdns: bool = False,
        variables: dict[str, str] | None = None,
    ) -> None:
        """`owner`: whose terminal it is; their data directory has the same name.  `prefix` of every command.

        `variables`: those of another shell, to share.
        """
        self.directory = directory
        self.owner = owner
        self._prefix = prefix
        own = {name: value for name, value in os.environ.items() if not name.startswith("MESHSYNC_")}
        self._environment = own | {"NO_COLOR": "1", "COLUMNS": "100", "MESHSYNC_MDNS": str(mdns).lower()}
        if owner:
            self._environment["MESHSYNC_DATA_DIR"] = owner
        self._variables = {} if variables is None else variables

    async def run(self, *arguments: str, exit_code: int = 0) -> str:
        """Run a command and show its output.  DemoFailed: it ended with another exit code."""
        self._show(arguments)
        done = await self._run(arguments)
        shown = (done.stdout + done.stderr).decode().rstrip("\n")
        if shown:
            print(shown, flush=True)
        if done.returncode != exit_code:
            raise DemoFailed(f"`meshsync {shlex.join(arguments)}` ended with exit code {done.returncode}")
        if exit_code:
            print(f"(exit code {exit_code})", flush=True)
        return done.stdout.decode()

    async def keep(self, variable: str, *arguments: str) -> str:
        """Run a command whose answer is kept in a shell variable, and show that."""
        value = (await self._run(arguments)).stdout.decode().strip()
        self._variables[variable] = value
        print(f"{self.owner}$ {variable}=$(meshsync {self._text(arguments)}); echo ${variable}\n{value}", flush=True)
        return value

    async def system(self, command: str) -> None:
        """Run a command of the shell and show it."""
        print(f"$ {command}", flush=True)
        await trio.run_process(["sh", "-c", command], cwd=self.directory)

    @asynccontextmanager
    async def streaming(self, *arguments: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """A command that goes on for the block; calling what is yielded waits for its next line and shows it."""
        self._show(arguments, " &")
        process = await self._open(arguments)
        assert process.stdout is not None
        lines = process.stdout

        async def next_line() -> None:
            print(await _line_of(lines), end="", flush=True)

        async with _ended(process):
            yield next_line

    async def show_root(self) -> str:
        """Print the root of the one collection that this node has, and return it."""
        [collection] = (await self.ask("status"))["collections"]
        root: str = collection["root"]
        print(f"{self.owner:8} {collection['documents']:6,} documents  root {root}", flush=True)
        return root

    async def listed(self, *arguments: str) -> list[str]:
        """The lines of `ls --json`, without showing them."""
        return (await self._run(("ls", *arguments, "--json"))).stdout.decode().splitlines()

    async def ask(self, *arguments: str) -> dict[str, Any]:
        """What a command says in JSON, without showing it."""
        answer: dict[str, Any] = json.loads((await self._run((*arguments, "--json"))).stdout)
        return answer

    async def _run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        with trio.fail_after(_COMMAND_SECONDS_MAX):
            return await trio.run_process(
                self._command(arguments),
                cwd=self.directory,
                env=self._environment,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [*self._prefix, sys.executable, "-P", "-m", "meshsync", *arguments]

    def _show(self, arguments: Sequence[str], end: str = "", extra: Mapping[str, str] = MappingProxyType({})) -> None:
        variables = "".join(f"{name}={value} " for name, value in extra.items())
        print(f"{self.owner}$ {variables}meshsync {self._text(arguments)}{end}", flush=True)

    def _text(self, arguments: Sequence[str]) -> str:
        """Arguments as one would type them, with the variables that were set before."""
        words = []
        for argument in arguments:
            name = next((name for name, value in self._variables.items() if value == argument), None)
            words.append(f"${name}" if name else shlex.quote(argument))
        return " ".join(words)

    @asynccontextmanager
    async def node(self, name: str, *options: str, key_log: str = "") -> AsyncIterator[None]:
        """A node in the background for the block; `key_log` takes its secrets.  DemoFailed: it did not start."""
        data_dir = () if self.owner else ("--data-dir", name)
        arguments = (*data_dir, "node", "--name", name, *options)
        extra = {"SSLKEYLOGFILE": key_log} if key_log else {}
        self._show(arguments, " &", extra)
        log = self.directory / f"{name}.log"
        with log.open("ab") as errors:
            process = await self._open(arguments, errors, extra)
        assert process.stdout is not None
        async with _ended(process):
            ready = await _line_of(process.stdout)
            if not ready:
                raise DemoFailed(f"node {name} did not start:\n{log.read_text()}")
            print(ready.rstrip(), flush=True)
            yield

    async def _open(
        self,
        arguments: Sequence[str],
        errors: IO[bytes] | None = None,
        extra: Mapping[str, str] = MappingProxyType({}),
    ) -> trio.Process:
        return await trio.lowlevel.open_process(
            self._command(arguments),
            cwd=self.directory,
            env=self._environment | dict(extra),
            stdout=subprocess.PIPE,
            stderr=errors,
        )


async def _line_of(stream: trio.abc.ReceiveStream) -> str:
    """What a process prints until the end of its line; less where it ends before."""
    line = b""
    with trio.fail_after(_COMMAND_SECONDS_MAX):
        while not line.endswith(b"\n") and (chunk := await stream.receive_some()):
            line += chunk
    return line.decode()


@asynccontextmanager
async def _ended(process: trio.Process) -> AsyncIterator[None]:
    """The process has ended after the block, whatever happens in it."""
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            with trio.move_on_after(_STOP_SECONDS_MAX):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
