"""Durations as people type them, as a type of click's."""

from __future__ import annotations

from typing import Any

import click

from meshsync.errors import LocalError
from meshsync.quantities import parse_duration


class Duration(click.ParamType[float]):
    """Seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration.  Fails with what was expected."""
        try:
            return parse_duration(str(value))
        except LocalError as error:
            self.fail(str(error), param, ctx)
