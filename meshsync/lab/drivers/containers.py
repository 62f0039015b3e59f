"""Labs in containers: containerlab deploys the topology, and each node is a child of its container's process 1.

What is deployed is a file in the lab's `.lab`, derived from the lab's own: links that a scenario impairs or parts run
through one more node, `cables`.  The nodes are reached over the Unix sockets in the directories that they are bound to.
The image has to have `supervise` as process 1 (topologies/image), which keeps a node down while there is a file `hold`.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import yaml

from meshsync.datadir import DataDir
from meshsync.lab import containers
from meshsync.lab.drivers.base import Lab, LabError
from meshsync.lab.drivers.cables import CABLES, Cables
from meshsync.lab.namespaces import CommandFailedError, run
from meshsync.lab.ownership import run_of
from meshsync.lab.prepare import STATE, PreparedNode
from meshsync.lab.topology import SUFFIX
from meshsync.lab.waiting import wait_for
from meshsync.launch import CLOCK_OFFSET

_HOLD = "hold"
_ENVIRONMENT = "environment"
_LOG = "containerlab.log"
_DEPLOY_SECONDS_MAX = 300
_END_SECONDS = 10.0
_QUIET = {"CLAB_VERSION_CHECK": "disable"}


class ContainedProcess:
    """The process of a node in a container, under `supervise`.  See `meshsync.lab.drivers.built.Process`."""

    def __init__(self, container: str, directory: Path) -> None:
        self._container = container
        self._directory = directory
        self._hold = directory / _HOLD

    @property
    def is_running(self) -> bool:
        """Whether it is to run: one that ends by itself ends its container, and no longer answers."""
        return not self._hold.exists()

    def hold(self) -> None:
        """Have it not started from now on."""
        self._hold.touch()

    def start(self, environ: Mapping[str, str]) -> None:
        """Have it started."""
        text = "".join(f"{name}={value}\n" for name, value in environ.items())
        (self._directory / _ENVIRONMENT).write_text(text, encoding="ascii")
        self._hold.unlink(missing_ok=True)

    def forget(self) -> None:
        """Leave nothing behind that the next container would heed."""
        self._hold.unlink(missing_ok=True)
        (self._directory / _ENVIRONMENT).unlink(missing_ok=True)

    def kill(self) -> None:
        """End it at once (SIGKILL); blocks until it has ended.  LabError: it does not end."""
        self.hold()
        run(["docker", "kill", "--signal", "USR1", self._container])
        if not wait_for(self._has_ended, _END_SECONDS):
            raise LabError(f"the node in {self._container} does not end")

    def _has_ended(self) -> bool:
        """Whether no process has the node's directory; the kernel takes it away with the process."""
        try:
            with DataDir(self._directory).lock_file.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        return True


class ContainerLab:
    """The engine's side of a lab.  See `meshsync.lab.drivers.built.BuiltLab`."""

    DRIVER = "containerlab"

    def __init__(self, lab: Lab, cable: str = "auto") -> None:
        self.lab = lab
        self.state = lab.folder.resolve() / STATE
        self.cables = Cables(lab, self.state / CABLES, partial(containers.inside, lab.name), cable)
        self.topology = self.state / f"{lab.name}{SUFFIX}"
        """The derived one; it is there only while the lab is up."""
        self.run = run_of(self.state)
        self.processes = {
            name: ContainedProcess(containers.container(lab.name, name), self.state / name)
            for name in lab.scenario.nodes
        }

    @property
    def is_up(self) -> bool:
        """Whether any of its containers is there; those that somebody deployed from its own topology count, too."""
        return self._deployed is not None

    @property
    def _deployed(self) -> Path | None:
        """The topology that it was deployed from."""
        paths = (self.topology, self.lab.topology.path.resolve())
        return next((path for path in paths if containers.of_topology(path)), None)

    def require(self) -> None:
        """See `BuiltLab.require`."""
        containers.require(node.image for node in self.lab.topology.machines)

    # Up

    def build(self) -> None:
        """See `BuiltLab.build`."""
        if containers.of_lab(self.lab.name):
            raise LabError(
                f"a lab {self.lab.name} is deployed already; look: containerlab inspect --all, "
                f"take it down: containerlab destroy --name {self.lab.name} --cleanup"
            )
        self.cables.prepare()
        for process in self.processes.values():
            process.hold()
        derived = yaml.safe_dump(containers.derive(self.lab, self.cables), sort_keys=False)
        self.topology.write_text(derived, encoding="utf-8")
        self._deploy()
        if self.cables.links:
            self.cables.lay(partial(containers.is_running, self.lab.name, CABLES))

    def _deploy(self) -> None:
        log = self.state / _LOG
        try:
            said = self._containerlab("deploy", self.topology)
        except CommandFailedError as error:
            log.write_text(str(error), encoding="utf-8")
            raise LabError(
                f"containerlab does not deploy {self.lab.name}: {_last_line(str(error))}; see {log}"
            ) from None
        log.write_text(said, encoding="utf-8")
        # A command of `exec` that fails is told of, and does not fail the deployment.
        failed = [line for line in said.splitlines() if "Failed to execute command" in line]
        if failed:
            raise LabError(f"{self.lab.topology.path}: exec: {failed[0].partition('command=')[2]}")

    def _containerlab(self, command: str, topology: Path, *flags: str) -> str:
        arguments = ["containerlab", command, "--topo", str(topology), *flags]
        return run(arguments, seconds_max=_DEPLOY_SECONDS_MAX, environ=_QUIET, with_errors=True)

    def start(self, node: PreparedNode, clock_offset_seconds: float = 0.0) -> None:
        """See `BuiltLab.start`."""
        environ = {CLOCK_OFFSET: str(clock_offset_seconds)} if clock_offset_seconds else {}
        self.processes[node.name].start(environ)

    # While it is up

    def inside(self, node: str, *command: str) -> list[str]:
        """See `BuiltLab.inside`."""
        is_typed = sys.stdin.isatty() and sys.stdout.isatty()
        return containers.inside(self.lab.name, node.partition("|")[2] or node, *command, has_terminal=is_typed)

    # Down

    def destroy(self) -> None:
        """See `BuiltLab.destroy`."""
        if (topology := self._deployed) is not None:
            try:
                self._containerlab("destroy", topology, "--cleanup")
            except CommandFailedError as error:
                raise LabError(
                    f"containerlab does not take {self.lab.name} down: {_last_line(str(error))}; "
                    f"again: containerlab destroy --cleanup --topo {topology}"
                ) from None
            # Of a deployment that was broken off, containerlab may not know all.
            if left := containers.of_topology(topology):
                run(["docker", "rm", "--force", "--volumes", *left])
        shutil.rmtree(self.state / f"clab-{self.lab.name}", ignore_errors=True)
        self.topology.unlink(missing_ok=True)
        for process in self.processes.values():
            process.forget()
        self.run.forget()


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
