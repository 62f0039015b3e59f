"""The cables of a lab: which links run through them, and what a driver asks of the process that has them.

They are in a machine of their own, wherever the driver has it.  All that asks something blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from meshsync.lab.cable.control import order_cable
from meshsync.lab.drivers.base import Lab, LabError
from meshsync.lab.impairments import LinkImpairment
from meshsync.lab.last_words import last_words
from meshsync.lab.namespaces import run
from meshsync.lab.scenario import Cut, Impair, Unplug
from meshsync.lab.topology import LinkSpec
from meshsync.lab.waiting import wait_for

CABLES = "cables"
"""The machine of the cables, among the nodes of the topology."""
SOCKET = "cables.sock"
_SOCKET_SECONDS = 10.0


def cabled(lab: Lab) -> tuple[LinkSpec, ...]:
    """The links that a scenario does something to."""
    named = set(lab.scenario.links)
    for step in lab.scenario.steps:
        if isinstance(step.action, Cut | Unplug | Impair):
            named |= set(step.action.links)
    return tuple(link for link in lab.topology.links if link.name in named)


def cable_ends(lab: Lab, link: LinkSpec) -> tuple[str, str]:
    """The interfaces of a link's cable, in the machine of the cables."""
    number = lab.topology.links.index(link)
    return f"l{number}a", f"l{number}b"


class Cables:
    """Those of one lab."""

    def __init__(self, lab: Lab, folder: Path, inside: Callable[..., list[str]], kind: str) -> None:
        """`folder` is where their socket and their log are, `kind` as `meshsync lab cable --with` has it.

        `inside`, as `BuiltLab.inside`: the arguments of a process that runs a command on a machine, without a terminal.
        """
        self.links = cabled(lab)
        """All that something can be done to."""
        self.socket = folder / SOCKET
        self.log = folder / "cables.log"
        self._kind = folder / "cables.kind"
        self._chosen = kind
        self._lab = lab
        self._inside = inside

    @property
    def kind(self) -> str | None:
        """The kind of those that are laid, which may be another than was asked for; None where none is."""
        try:
            return self._kind.read_text(encoding="ascii")
        except FileNotFoundError:
            return None

    def command(self, socket: Path) -> tuple[str, ...]:
        """The arguments of `meshsync` for their process, with the path of their socket as it is there."""
        return "lab", "cable", "--with", self._chosen, "--control", str(socket)

    def prepare(self) -> None:
        """Before anything is built: nothing stays that their process would be taken for before it runs.

        LabError: a node of the topology is called as their machine is.
        """
        topology = self._lab.topology
        if self.links and CABLES in topology.nodes:
            raise LabError(f"{topology.path}: a node is called {CABLES}, as the machine of the cables is; rename it")
        self.socket.parent.mkdir(exist_ok=True)
        self.socket.unlink(missing_ok=True)
        self._kind.unlink(missing_ok=True)

    def lay(self, is_running: Callable[[], bool]) -> None:
        """Lay all of them, once their process listens.  LabError: it does not, or has ended."""
        wait_for(lambda: self.socket.exists() or not is_running(), _SOCKET_SECONDS)
        if not self.socket.exists():
            raise LabError(f"the cables do not start; their last words: {last_words(self.log)}")
        for link in self.links:
            self.impair(link, self._lab.scenario.links.get(link.name, LinkImpairment()))

    def impair(self, link: LinkSpec, impairment: LinkImpairment) -> None:
        """Have a link's cable do this.  LabError: it has none, or the process does not answer."""
        if link not in self.links:
            raise LabError(f"{link.name} has no cable: only links that the scenario names can be impaired")
        reply = order_cable(self.socket, f"{link.a}-{link.b}", cable_ends(self._lab, link), impairment)
        self._kind.write_text(reply["kind"], encoding="ascii")

    def plug(self, link: LinkSpec, *, plugged: bool) -> None:
        """Give both interfaces of a link their carrier, or take it.  LabError."""
        near, far = (f"ip link set {end} {'up' if plugged else 'down'}" for end in cable_ends(self._lab, link))
        run(self._inside(CABLES, "sh", "-c", f"{near} && {far}"))
