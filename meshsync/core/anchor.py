"""Places in the DAG: entries that others build upon, and how a store packs the parents of an entry."""

from __future__ import annotations

import struct
from typing import NamedTuple

PARENT = struct.Struct(">IQ")
"""How a store packs one parent: (branch, seq)."""


class Anchor(NamedTuple):
    """An entry that others build upon.  Before the first entry of a log: branch 0, seq 0, and an empty id."""

    branch: int
    seq: int
    id: bytes
    hlc: int
    height: int


ORIGIN = Anchor(0, 0, b"", 0, 0)


class Place(NamedTuple):
    """Where an entry stands, and when it was written."""

    branch: int
    seq: int
    hlc: int
