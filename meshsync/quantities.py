"""Quantities as people type them: 500ms, 5%, 256kbit.

Light to import: commands do.
"""

from __future__ import annotations

import re

from meshsync.errors import LocalError

_SECONDS = {"us": 1e-6, "ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BITS = {"bit": 1.0, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}
_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z%/]*)")


def parse_duration(text: str) -> float:
    """Seconds from 60s, 5m, 2h, 500ms or a bare number of seconds.  LocalError: anything else."""
    number, unit = _split(text)
    if unit not in _SECONDS:
        raise LocalError(f"{text!r} is no duration; expected a number and a unit, such as 60s, 5m or 500ms")
    return number * _SECONDS[unit]


def parse_rate(text: str) -> float:
    """Bits per second from 9600bit, 256kbit, 1.5Mbit or 1Gbit (powers of ten).  LocalError: anything else."""
    number, unit = _split(text)
    unit = unit.removesuffix("/s")
    if unit not in _BITS or not number:
        raise LocalError(f"{text!r} is no rate; expected a number and a unit, such as 9600bit, 256kbit or 10Mbit")
    return number * _BITS[unit]


def parse_share(text: str) -> float:
    """A share from 0 to 1, from 5% or 0.05.  LocalError: anything else."""
    number, unit = _split(text)
    share = number / 100 if unit == "%" else number
    if unit not in {"", "%"} or share > 1:
        raise LocalError(f"{text!r} is no share; expected a percentage, such as 5%, or a number from 0 to 1")
    return share


def _split(text: str) -> tuple[float, str]:
    found = _NUMBER.fullmatch(text.strip())
    return (float(found.group(1)), found.group(2)) if found else (0.0, "?")
