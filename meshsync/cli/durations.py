"""Durations as people type them: 60s, 5m, 2h, 500ms, or a bare number of seconds."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")


class Duration(click.ParamType[float]):
    """Seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration.  Fails with what was expected."""
        found = _DURATION.fullmatch(str(value).strip())
        if found is None or found.group(2) not in _UNITS:
            self.fail(f"{value!r} is no duration; expected a number and a unit, such as 60s, 5m or 500ms", param, ctx)
        return float(found.group(1)) * _UNITS[found.group(2)]
