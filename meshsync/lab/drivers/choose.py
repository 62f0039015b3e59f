"""Which driver builds a lab, and which one built it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from meshsync.lab import containers
from meshsync.lab.drivers.base import Lab
from meshsync.lab.drivers.built import BuiltLab
from meshsync.lab.drivers.containers import ContainerLab
from meshsync.lab.drivers.namespaces import NamespaceLab

AUTO = "auto"
DRIVERS: Mapping[str, type[NamespaceLab | ContainerLab]] = {
    NamespaceLab.DRIVER: NamespaceLab,
    ContainerLab.DRIVER: ContainerLab,
}


def chosen(driver: str, cable: str = AUTO) -> Callable[[Lab], BuiltLab]:
    """The driver of a name; `auto` is containerlab where it is installed, and otherwise network namespaces.

    `cable` is the kind of its cables, as `meshsync lab cable --with` has it.
    """
    if driver == AUTO:
        driver = ContainerLab.DRIVER if containers.is_installed() else NamespaceLab.DRIVER
    return partial(DRIVERS[driver], cable=cable)


def found(lab: Lab) -> BuiltLab:
    """A lab as the driver built it that did; as in namespaces where it is not up."""
    built: list[BuiltLab] = [kind(lab) for kind in DRIVERS.values()]
    return next((one for one in built if one.is_up), built[0])
