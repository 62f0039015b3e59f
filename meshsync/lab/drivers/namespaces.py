"""Labs in network namespaces: a namespace a node, virtual Ethernet, real processes of the installed command.

Everything that a lab made can be told from its folder: the names of its namespaces, and in `.lab` the processes' pids.
So one command brings it up, others look into it, and one takes it down, whatever became of those before.

A link that a scenario impairs or parts runs through a cable (`meshsync.lab.cable`), in a namespace of its own; every
other link is a plain pair of virtual interfaces.
"""

from __future__ import annotations

import shlex
import signal
import sys

from meshsync.lab import namespaces
from meshsync.lab.drivers.base import Lab, LabError
from meshsync.lab.drivers.cables import CABLES, Cables, cable_ends
from meshsync.lab.drivers.processes import LOG
from meshsync.lab.ownership import mark_of, run_of
from meshsync.lab.prepare import STATE, PreparedNode
from meshsync.lab.processes import ProcessFile
from meshsync.lab.topology import End
from meshsync.launch import CLOCK_OFFSET

MTU = 9500
"""containerlab's default for links."""


class NamespaceLab:
    """The kernel's side of a lab: what `up` makes and `down` removes.  See `meshsync.lab.drivers.built.BuiltLab`."""

    DRIVER = "namespaces"

    def __init__(self, lab: Lab, cable: str = "auto") -> None:
        self.lab = lab
        self.state = lab.folder / STATE
        # Two checkouts may hold labs of one name.
        self._prefix = f"mslab-{mark_of(lab.folder)}-{lab.name}"
        self.processes = {name: ProcessFile(self.state / name / "node.pid") for name in lab.scenario.nodes}
        self.cables = Cables(lab, self.state, self.inside, cable)
        self.cable_process = ProcessFile(self.state / "cables.pid")
        self.run = run_of(self.state)

    def namespace(self, node: str) -> str:
        """The namespace of a node; a bridge of the host has one of its own, a bridge inside a node that node's."""
        if (spec := self.lab.topology.nodes.get(node)) is not None and spec.is_bridge and spec.bridge[1]:
            return self.namespace(spec.bridge[1])
        return f"{self._prefix}-{node}"

    @property
    def is_up(self) -> bool:
        """Whether any of its namespaces is there."""
        return any(namespaces.exists(self.namespace(name)) for name in (*self.lab.topology.nodes, CABLES))

    def require(self) -> None:
        """See `BuiltLab.require`."""
        namespaces.require()

    def inside(self, node: str, *command: str) -> list[str]:
        """See `BuiltLab.inside`."""
        if command[0] == "meshsync" and node in self.processes:
            command = (*_MESHSYNC, "--data-dir", str(self.state / node), *command[1:])
        return namespaces.inside(self.namespace(node), *command)

    # Up

    def build(self) -> None:
        """Make namespaces, links and addresses; nothing runs yet but the cables.  LabError."""
        self.cables.prepare()
        topology = self.lab.topology
        for name in dict.fromkeys(map(self.namespace, topology.nodes)):
            namespaces.add(name)
        for node in topology.nodes.values():
            if node.is_bridge:
                bridge = node.bridge[0]
                namespaces.ip("-n", self.namespace(node.name), "link", "add", bridge, "type", "bridge")
                namespaces.ip("-n", self.namespace(node.name), "link", "set", bridge, "up")
        if self.cables.links:
            namespaces.add(self.namespace(CABLES))
        for number, link in enumerate(topology.links):
            if link in self.cables.links:
                near, far = cable_ends(self.lab, link)
                for end, cable in ((link.a, near), (link.b, far)):
                    self._lay(end, End(CABLES, cable), link.mtu, f"{number}")
            else:
                self._lay(link.a, link.b, link.mtu, f"{number}")
        for node in topology.machines:
            for name, value in node.sysctls.items():
                self._exec(node.name, shlex.join(["sysctl", "-qw", f"{name}={value}"]))
            for line in node.exec:
                self._exec(node.name, line)
        if self.cables.links:
            self._start_cables()

    def _lay(self, a: End, b: End, mtu: int | None, mark: str) -> None:
        """A pair of virtual interfaces, each in its node."""
        # Under names that nobody else uses, because both may be in one namespace, and then under their own.
        first, second = f"ms{mark}a", f"ms{mark}b"
        size = str(mtu or MTU)
        namespaces.ip(
            *("link", "add", first, "mtu", size, "netns", self.namespace(a.node), "type", "veth"),
            *("peer", "name", second, "mtu", size, "netns", self.namespace(b.node)),
        )
        for end, name in ((a, first), (b, second)):
            namespace = self.namespace(end.node)
            namespaces.ip("-n", namespace, "link", "set", name, "name", end.interface)
            spec = self.lab.topology.nodes.get(end.node)
            master = ("master", spec.bridge[0]) if spec is not None and spec.is_bridge else ()
            namespaces.ip("-n", namespace, "link", "set", end.interface, *master, "up")

    def _exec(self, node: str, line: str) -> None:
        try:
            namespaces.run(namespaces.inside(self.namespace(node), *shlex.split(line)))
        except (namespaces.CommandFailedError, ValueError) as error:
            raise LabError(f"{self.lab.topology.path}: node {node}, exec: {error}") from None

    def _start_cables(self) -> None:
        command = [*_MESHSYNC, *self.cables.command(self.cables.socket)]
        self.cable_process.start(namespaces.inside(self.namespace(CABLES), *command), self.cables.log)
        self.cables.lay(lambda: self.cable_process.is_running)

    def start(self, node: PreparedNode, clock_offset_seconds: float = 0.0) -> None:
        """Start the process of a node."""
        command = [*_MESHSYNC, "node", "--config", str(node.config), "--log-format", "json"]
        environ = dict(self.lab.topology.nodes[node.name].env)
        if clock_offset_seconds:
            environ[CLOCK_OFFSET] = str(clock_offset_seconds)
        log = node.directory / LOG
        self.processes[node.name].start(namespaces.inside(self.namespace(node.name), *command), log, environ)

    # Down

    def destroy(self) -> None:
        """End every process and remove every namespace; what is not there is no fault.

        LabError: something stays, the last that did; all else is gone.
        """
        processes = (*self.processes.values(), self.cable_process)
        for process in processes:
            process.signal(signal.SIGTERM)
        failed: LabError | None = None
        for process in processes:
            try:
                process.end()
            except LabError as error:
                failed = error
        for name in (*self.lab.topology.nodes, CABLES):
            try:
                namespaces.remove(self.namespace(name))
            except LabError as error:
                failed = error
        if failed is not None:
            raise failed
        self.run.forget()


_MESHSYNC = (sys.executable, "-P", "-m", "meshsync")
