"""Runs a lab from its coming up to its being taken down, simulated or with real processes."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio
import trio.testing

from meshsync.groups import unwrapped
from meshsync.lab.drivers.base import Lab, OpenDriver
from meshsync.lab.drivers.built import BuiltLab
from meshsync.lab.drivers.lifecycle import open_built
from meshsync.lab.drivers.namespaces import NamespaceLab
from meshsync.lab.drivers.simulation import simulation
from meshsync.lab.interruption import tidy_at_the_end
from meshsync.lab.record import Record
from meshsync.lab.runner import Progress, Runner
from meshsync.lab.simulation._seam import order_tasks_by


def run_lab(
    lab: Lab,
    seed: int,
    progress: Progress,
    *,
    is_simulated: bool,
    kind: Callable[[Lab], BuiltLab] = NamespaceLab,
) -> Record:
    """Bring a lab up, run its scenario, and take it down; blocks.  A seed repeats a simulation.

    `kind`: what builds the lab that is not simulated.

    LabError: it cannot come up here.  Whatever ends this half-way, nothing stays.
    """
    rng = random.Random(seed)
    with tidy_at_the_end(), unwrapped():
        if not is_simulated:
            return trio.run(_run, lab, open_built(kind), rng, progress)
        order_tasks_by(seed)
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(_run, lab, simulation(rng), rng, progress, clock=clock)


async def _run(lab: Lab, open_driver: OpenDriver, rng: random.Random, progress: Progress) -> Record:
    async with open_driver(lab) as driver:
        return await Runner(lab, driver, rng, progress).run()
