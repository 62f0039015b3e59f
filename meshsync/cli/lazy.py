"""Groups that import a command when it is asked for: most of the time of a short command is spent importing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

Places = Mapping[str, tuple[str, str]]
"""Where each command lives, in the group's package or where a name with dots says, and its line in the help."""


class LazyGroup(click.Group):
    """Knows its commands by name and imports the one that runs; its help imports none."""

    def __init__(self, *arguments: Any, package: str, places: Places, **attributes: Any) -> None:
        """The command NAME is `NAME_command` of its module."""
        super().__init__(*arguments, **attributes)
        self._package = package
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in self._places:
            return None
        place = self._places[cmd_name][0]
        module = importlib.import_module(place if "." in place else f"{self._package}.{place}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._places.items()])
