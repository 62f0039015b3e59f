"""A new store of each kind, for the suite that all must pass."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshsync.store.base import Store
from meshsync.store.memory import MemoryStore
from meshsync.store.sqlite import SqliteStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new store of each kind."""
    made: Store
    if request.param == "memory":
        made = MemoryStore(random_bytes=random.Random(1).randbytes)
    else:
        made = SqliteStore.open(tmp_path / "store.db", boot_id=b"boot", random_bytes=random.Random(1).randbytes)
    yield made
    made.close()
