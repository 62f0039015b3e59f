"""Machines on Ethernet, made of network namespaces: each has its own interfaces, addresses and ports.

Needs root and iproute2.  Nothing shows in the namespace of whoever runs it: a switch is a bridge in a namespace of its
own, so that removing the namespaces removes everything.  A machine shares the files of the host: the Unix socket of a
node can be reached from outside.

    with lan("anna", "boris") as (anna, boris):
        anna.run("ping", "-c1", boris.address)
        boris.ports[0].unplug()
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_PREFIX = "meshsync"
_OURS = re.compile(rf"{_PREFIX}-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]+-\S+")
_CAPABILITIES = 1 << 12 | 1 << 21  # linux/capability.h: CAP_NET_ADMIN, CAP_SYS_ADMIN
_NAMES = Path("/run/netns")
_COMMAND_SECONDS_MAX = 60


class CommandFailed(Exception):
    """A command ended with another exit code than 0; the message has what it said."""


def is_privileged() -> bool:
    """Whether this process may make namespaces and give them interfaces."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return found is not None and int(found[1], 16) & _CAPABILITIES == _CAPABILITIES


@dataclass
class Switch:
    """What cables are plugged into."""

    namespace: str
    number: int
    """It makes the third byte of the addresses."""


@dataclass
class Port:
    """A machine's interface and its cable."""

    machine: Machine
    interface: str
    address: str
    """Its IPv4 address; an IPv6 address comes with the link."""
    switch: Switch

    def unplug(self) -> None:
        """Pull the cable: the machine sees that the carrier is gone, and keeps its IPv4 address."""
        _ip("-n", self.switch.namespace, "link", "set", self._far, "down")

    def plug(self) -> None:
        """Put the cable back."""
        _ip("-n", self.switch.namespace, "link", "set", self._far, "up")

    @property
    def _far(self) -> str:
        return f"{self.interface}-{self.machine.number}"

    def lay(self) -> None:
        """Lay the cable, and bring the interface up with its address."""
        inside, switch = self.machine.namespace, self.switch.namespace
        _ip("link", "add", self.interface, "netns", inside, "type", "veth", "peer", "name", self._far, "netns", switch)
        _ip("-n", switch, "link", "set", self._far, "master", "br0", "up")
        _ip("-n", inside, "address", "add", f"{self.address}/24", "brd", "+", "dev", self.interface)
        _ip("-n", inside, "link", "set", self.interface, "up")
        _ip("-n", inside, "route", "add", "224.0.0.0/4", "dev", self.interface, "metric", str(len(self.machine.ports)))


@dataclass
class Machine:
    """A namespace that programs run in."""

    name: str
    namespace: str
    number: int
    """It makes the last byte of the addresses."""
    ports: list[Port] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The IPv4 address of the first interface."""
        return self.ports[0].address

    def join(self, switch: Switch) -> Port:
        """Plug another interface into a switch: eth0 is the first, its address 10.77.SWITCH.MACHINE."""
        port = Port(self, f"eth{len(self.ports)}", f"10.77.{switch.number}.{self.number}", switch)
        port.lay()
        self.ports.append(port)
        return port

    def command(self, *arguments: str) -> list[str]:
        """The arguments of a process that runs a command on this machine; it replaces itself with the command."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def run(self, *arguments: str) -> str:
        """Run a command on this machine; what it printed.  CommandFailed."""
        return _run(self.command(*arguments))


class Network:
    """Switches and machines, all removed when the block of `network` ends."""

    def __init__(self) -> None:
        self._tag = f"{_PREFIX}-{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(3)}"
        self._machines = 0
        self._switches = 0
        self._namespaces: list[str] = []

    def switch(self) -> Switch:
        """Another switch; without a cable between them, two switches are two networks."""
        self._switches += 1
        namespace = self._namespace(f"switch{self._switches}")
        _ip("-n", namespace, "link", "add", "br0", "type", "bridge")
        _ip("-n", namespace, "link", "set", "br0", "up")
        return Switch(namespace, self._switches)

    def machine(self, name: str) -> Machine:
        """A machine that is connected to nothing but itself."""
        namespace = self._namespace(name)
        _ip("-n", namespace, "link", "set", "lo", "up")
        self._machines += 1
        return Machine(name, namespace, self._machines)

    def _namespace(self, name: str) -> str:
        namespace = f"{self._tag}-{name}"
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        return namespace

    def close(self) -> None:
        """Kill what still runs in the namespaces, and remove them."""
        while self._namespaces:
            remove(self._namespaces.pop())


@contextmanager
def network() -> Iterator[Network]:
    """A network for the block.  Removes first what a run left that was killed."""
    remove_stale()
    made = Network()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def lan(*names: str) -> Iterator[tuple[Machine, ...]]:
    """Machines with these names, all plugged into one switch."""
    with network() as made:
        switch = made.switch()
        machines = tuple(made.machine(name) for name in names)
        for machine in machines:
            machine.join(switch)
        yield machines


def remove(namespace: str) -> None:
    """Remove a namespace, and kill what runs in it."""
    inode = (_NAMES / namespace).stat().st_ino
    # The name first: whoever is about to enter finds no way in, and ends by itself.
    _ip("netns", "delete", namespace)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if (process / "ns" / "net").stat().st_ino == inode:
                os.kill(int(process.name), signal.SIGKILL)


def remove_stale() -> None:
    """Remove the namespaces whose maker is gone.  Several processes may do so at once."""
    for namespace, (pid, started) in existing():
        if _started(pid) != started:
            with contextlib.suppress(CommandFailed, FileNotFoundError):  # another process was faster
                remove(namespace)


def existing() -> list[tuple[str, tuple[int, int]]]:
    """The namespaces that this module made and that are there: name, and pid and start of the process that did."""
    names = [line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()]
    return [(name, (int(found["pid"]), int(found["started"]))) for name in names if (found := _OURS.fullmatch(name))]


def _started(pid: int) -> int | None:
    """When a process began, in ticks since boot; None: it has ended.  Pids come again, pairs of both do not."""
    try:
        # proc_pid_stat(5): the command's name, in brackets, may hold anything; these are fields 3 and 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _ip(*arguments: str) -> str:
    return _run(["ip", *arguments])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS_MAX, check=False)
    if done.returncode:
        raise CommandFailed(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
