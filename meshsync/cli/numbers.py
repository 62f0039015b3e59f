"""Whole numbers on the command line, as a type of click's, which says what they are the number of."""

from __future__ import annotations

from typing import Any

import click

_DIGITS_MAX = 19


class WholeNumber(click.ParamType[int]):
    """A number from `least`, which is no less than 0, to `most`; `expected` ends the sentence "`x` is not …"."""

    name = "number"

    def __init__(self, expected: str, least: int = 0, most: int | None = None) -> None:
        self._expected = expected
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number.  Fails with what was expected."""
        text = str(value)
        number = int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX else -1
        if number < self._least or (self._most is not None and number > self._most):
            self.fail(f"{text!r:.40} is not {self._expected}", param, ctx)
        return number
