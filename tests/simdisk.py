"""The disks of the simulated mesh."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from meshsync.errors import StoreError
from meshsync.store.memory import MemoryStore


class Disk(MemoryStore):
    """A store that also fails now and then, for no reason that anyone sees."""

    rng: random.Random
    fail_rate = 0.0

    def _require_disk(self) -> None:
        super()._require_disk()
        if self.fail_rate and self.rng.random() < self.fail_rate:
            raise StoreError("I/O error")

    @contextmanager
    def sound(self) -> Iterator[None]:
        """For a moment it does what it should."""
        broken, rate = self.broken, self.fail_rate
        self.broken, self.fail_rate = "", 0.0
        yield
        self.broken, self.fail_rate = broken, rate


def disk(store: MemoryStore) -> Disk:
    """What the methods of a store that return another store return here."""
    assert isinstance(store, Disk)
    return store
