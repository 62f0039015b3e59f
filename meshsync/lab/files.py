"""The files of a lab, read with the line of each value, and everything that is wrong with one reported together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from meshsync.config.document import Document, read_document
from meshsync.config.problems import Location, key_of, shown
from meshsync.errors import ConfigError


class LabFile:
    """One YAML file.  The readers note what is wrong and go on; `close` raises where anything is."""

    def __init__(self, path: Path) -> None:
        """ConfigError: it cannot be read, or is not YAML."""
        self.path = path
        self._document: Document = read_document(path)
        self.values: Mapping[str, object] = self._document.values
        self._problems: list[tuple[int, str]] = [
            (line, f"{key_of(problem.location)}: {problem.message}") for line, problem in self._document.problems
        ]

    def wrong(self, location: Location, message: str) -> None:
        """Note what is wrong with a value: what, and what was expected."""
        key = key_of(location)
        self._problems.append((self._document.line_of(location), f"{key}: {message}" if key else message))

    def close(self) -> None:
        """ConfigError: `FILE:LINE: KEY: what is wrong`, a line for each problem."""
        if self._problems:
            raise ConfigError("\n".join(f"{self.path}:{line}: {text}" for line, text in sorted(set(self._problems))))

    def mapping(self, value: object, location: Location, expected: str = "keys and values") -> Mapping[str, object]:
        """The value where it is a mapping; {} where it is not there or wrong."""
        if value is None or isinstance(value, dict):
            return value or {}
        self.wrong(location, f"{shown(value)} is not a mapping; expected {expected}")
        return {}

    def items(self, value: object, location: Location, expected: str = "a list") -> list[object]:
        """The value where it is a list; [] where it is not there or wrong."""
        if value is None or isinstance(value, list):
            return value or []
        self.wrong(location, f"{shown(value)} is not a list; expected {expected}")
        return []

    def text(self, value: object, location: Location, expected: str = "a text") -> str:
        """The value where it is a scalar; "" where it is not there or wrong."""
        if value is None or isinstance(value, str):
            return value or ""
        self.wrong(location, f"{shown(value)} is not a text; expected {expected}")
        return ""

    def texts(self, value: object, location: Location, expected: str = "a list of texts") -> tuple[str, ...]:
        """The items of a list of scalars, without those that are wrong."""
        items = self.items(value, location, expected)
        return tuple(
            text for number, item in enumerate(items) if (text := self.text(item, (*location, number), expected))
        )

    def known(self, value: Mapping[str, object], location: Location, keys: frozenset[str]) -> None:
        """Note the keys of a mapping that nobody reads."""
        for key in value.keys() - keys:
            self.wrong((*location, key), f"unknown key; expected one of {', '.join(sorted(keys))}")
