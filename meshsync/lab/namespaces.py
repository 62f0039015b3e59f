"""Network namespaces of this machine: made, entered and removed.  Needs root and iproute2.

Links are made from namespace to namespace: nothing shows outside, and removing the namespaces removes all.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from meshsync.lab.drivers.base import LabError

_CAPABILITIES = 1 << 12 | 1 << 21  # linux/capability.h: CAP_NET_ADMIN, CAP_SYS_ADMIN
_NAMES = Path("/run/netns")
_COMMAND_SECONDS_MAX = 60


class CommandFailedError(LabError):
    """A command ended with another exit code than 0; the message has the command and what it said."""


def require() -> None:
    """LabError: this machine or this user cannot make namespaces; what is missing."""
    if not Path("/proc/self/ns/net").exists():
        raise LabError("labs in network namespaces need Linux; elsewhere: meshsync lab run --sim")
    if shutil.which("ip") is None:
        raise LabError("labs in network namespaces need the command `ip`: install iproute2")
    if not is_privileged():
        raise LabError(
            "labs in network namespaces need root: sudo meshsync lab …, or meshsync lab run --sim for a simulation"
        )


def is_privileged() -> bool:
    """Whether this process may make namespaces and give them interfaces."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return found is not None and int(found[1], 16) & _CAPABILITIES == _CAPABILITIES


def add(namespace: str) -> None:
    """Make a namespace; its loopback interface is up.  LabError: it is there already, or cannot be made."""
    ip("netns", "add", namespace)
    ip("-n", namespace, "link", "set", "lo", "up")


def remove(namespace: str) -> None:
    """Remove a namespace, and kill what runs in it; nothing where there is none."""
    path = _NAMES / namespace
    try:
        inode = path.stat().st_ino
    except FileNotFoundError:
        return
    # The name first: whoever is about to enter finds no way in, and ends by itself.
    try:
        ip("netns", "delete", namespace)
    except CommandFailedError:
        if exists(namespace):  # else another process was faster
            raise
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if (process / "ns" / "net").stat().st_ino == inode:
                os.kill(int(process.name), signal.SIGKILL)


def exists(namespace: str) -> bool:
    """Whether there is such a namespace."""
    return (_NAMES / namespace).exists()


def inside(namespace: str, *command: str) -> list[str]:
    """The arguments of a process that runs a command in a namespace; it replaces itself with the command."""
    return ["ip", "netns", "exec", namespace, *command]


def ip(*arguments: str) -> str:
    """Run `ip`.  CommandFailedError."""
    return run(["ip", *arguments])


def run(
    command: Sequence[str],
    *,
    seconds_max: float = _COMMAND_SECONDS_MAX,
    environ: Mapping[str, str] | None = None,
    with_errors: bool = False,
    given: str = "",
) -> str:
    """Run a command, and return what it printed; `with_errors`, what it printed to standard error, too.

    `given` is its standard input.

    CommandFailedError.
    """
    try:
        # In a session of its own: what a terminal sends must not break off half a clean-up.
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds_max,
            check=False,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailedError(f"`{' '.join(command)}` cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise CommandFailedError(f"`{' '.join(command)}` did not end in {seconds_max:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise CommandFailedError(f"`{' '.join(command)}` ended with {done.returncode}: {said}")
    return done.stderr + done.stdout if with_errors else done.stdout
