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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from meshsync.lab.namespaces import CommandFailedError, add, inside, ip, remove, run
from meshsync.lab.processes import started_at

_PREFIX = "meshsync"
_OURS = re.compile(rf"{_PREFIX}-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]+-\S+")


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
        ip("-n", self.switch.namespace, "link", "set", self._far, "down")

    def plug(self) -> None:
        """Put the cable back."""
        ip("-n", self.switch.namespace, "link", "set", self._far, "up")

    @property
    def _far(self) -> str:
        return f"{self.interface}-{self.machine.number}"

    def lay(self) -> None:
        """Lay the cable, and bring the interface up with its address."""
        inside, switch = self.machine.namespace, self.switch.namespace
        ip("link", "add", self.interface, "netns", inside, "type", "veth", "peer", "name", self._far, "netns", switch)
        ip("-n", switch, "link", "set", self._far, "master", "br0", "up")
        ip("-n", inside, "address", "add", f"{self.address}/24", "brd", "+", "dev", self.interface)
        ip("-n", inside, "link", "set", self.interface, "up")
        ip("-n", inside, "route", "add", "224.0.0.0/4", "dev", self.interface, "metric", str(len(self.machine.ports)))


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
        return inside(self.namespace, *arguments)

    def run(self, *arguments: str) -> str:
        """Run a command on this machine; what it printed.  CommandFailedError."""
        return run(self.command(*arguments))


class Network:
    """Switches and machines, all removed when the block of `network` ends."""

    def __init__(self) -> None:
        self._tag = f"{_PREFIX}-{os.getpid()}-{started_at(os.getpid())}-{secrets.token_hex(3)}"
        self._machines = 0
        self._switches = 0
        self._namespaces: list[str] = []

    def switch(self) -> Switch:
        """Another switch; without a cable between them, two switches are two networks."""
        self._switches += 1
        namespace = self._namespace(f"switch{self._switches}")
        ip("-n", namespace, "link", "add", "br0", "type", "bridge")
        ip("-n", namespace, "link", "set", "br0", "up")
        return Switch(namespace, self._switches)

    def machine(self, name: str) -> Machine:
        """A machine that is connected to nothing but itself."""
        namespace = self._namespace(name)
        self._machines += 1
        return Machine(name, namespace, self._machines)

    def _namespace(self, name: str) -> str:
        namespace = f"{self._tag}-{name}"
        add(namespace)
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


def remove_stale() -> None:
    """Remove the namespaces whose maker is gone.  Several processes may do so at once."""
    for namespace, (pid, started) in existing():
        if started_at(pid) != started:
            with contextlib.suppress(CommandFailedError):  # another process was faster
                remove(namespace)


def existing() -> list[tuple[str, tuple[int, int]]]:
    """The namespaces that this module made and that are there: name, and pid and start of the process that did."""
    names = [line.split()[0] for line in ip("netns", "list").splitlines() if line.strip()]
    return [(name, (int(found["pid"]), int(found["started"]))) for name in names if (found := _OURS.fullmatch(name))]
