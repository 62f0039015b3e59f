"""Which kind of cable carries: the kernel's netem, or this process."""

from __future__ import annotations

import random
from typing import Protocol

from meshsync.errors import LocalError
from meshsync.lab.cable.cable import Cable
from meshsync.lab.cable.ends import require_right
from meshsync.lab.cable.kernel import NetemCable, require_netem
from meshsync.lab.drivers.base import LabError
from meshsync.lab.impairments import LinkImpairment

AUTO = "auto"


class AnyCable(Protocol):
    """A cable between two interfaces."""

    KIND: str
    """What it is called."""

    def impair(self, impairment: LinkImpairment) -> None:
        """From now on do this to what goes in.  LabError, LocalError: it cannot, and does what it did."""

    def counts(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """How many frames were carried, and how many lost, in each direction."""

    async def run(self) -> None:
        """Carry frames until cancelled."""


def chosen(kind: str) -> str:
    """The kind of that name; `auto` is netem where this kernel has it, and otherwise user space.

    LocalError: there is no such kind here, or this process has no right to it.
    """
    if kind in {AUTO, NetemCable.KIND}:
        try:
            require_netem()
        except LabError as error:
            if kind != AUTO:
                raise LocalError(f"no netem here ({error}); choose {Cable.KIND} cables instead") from None
        else:
            return NetemCable.KIND
    require_right()
    return Cable.KIND


def make(kind: str, first: str, second: str, impairment: LinkImpairment, rng: random.Random) -> AnyCable:
    """A cable of a kind that was chosen; netem draws by itself.  LabError, LocalError: it cannot be laid."""
    if kind == NetemCable.KIND:
        return NetemCable(first, second, impairment)
    return Cable(first, second, impairment, rng)
