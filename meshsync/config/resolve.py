"""Lays the sources over each other: flag over environment over file over default.

A source replaces what the sources below it say about a key, lists included: `--peer` does not add to the peers of
the file.  Variables that are not listed here are left alone: container systems make up some of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from meshsync.config.document import Document, read_document
from meshsync.config.models import Config
from meshsync.config.problems import InvalidConfigError, Location, Problem, key_of, shown
from meshsync.errors import ConfigError
from meshsync.ids import EndpointId


class _Setting(NamedTuple):
    location: Location
    flag: str
    """The flag's name in code; on the command line it has dashes."""
    variable: str
    many: bool = False
    """Whether the flag may be given again, and the variable is a list with commas."""
    prefix: str = ""
    """What each item begins with on the command line and in the variable; the key says it in a file."""


_SETTINGS = (
    _Setting(("name",), "name", "MESHSYNC_NAME"),
    _Setting(("data_dir",), "data_dir", "MESHSYNC_DATA_DIR"),
    _Setting(("listen",), "listen", "MESHSYNC_LISTEN", many=True),
    _Setting(("interfaces",), "interface", "MESHSYNC_INTERFACES", many=True),
    _Setting(("trust",), "trust", "MESHSYNC_TRUST"),
    _Setting(("durability",), "durability", "MESHSYNC_DURABILITY"),
    _Setting(("mesh_key_file",), "mesh_key_file", "MESHSYNC_MESH_KEY_FILE"),
    _Setting(("discovery", "mdns"), "mdns", "MESHSYNC_MDNS"),
    _Setting(("discovery", "dns"), "discover", "MESHSYNC_DISCOVER", many=True, prefix="dns:"),
    _Setting(("discovery", "exchange"), "exchange", "MESHSYNC_EXCHANGE"),
    _Setting(("peers",), "peer", "MESHSYNC_PEERS", many=True),
    _Setting(("collections",), "collection", "MESHSYNC_COLLECTIONS", many=True),
    _Setting(("relay",), "relay", "MESHSYNC_RELAY"),
    _Setting(("limits", "relay_bytes"), "relay_bytes", "MESHSYNC_RELAY_BYTES"),
    _Setting(("limits", "root_check_s"), "root_check_s", "MESHSYNC_ROOT_CHECK_S"),
    _Setting(("limits", "rate_bytes_per_s"), "rate_bytes_per_s", "MESHSYNC_RATE_BYTES_PER_S"),
    _Setting(("http",), "http", "MESHSYNC_HTTP"),
    _Setting(("log_format",), "log_format", "MESHSYNC_LOG_FORMAT"),
    _Setting(("log_level",), "log_level", "MESHSYNC_LOG_LEVEL"),
)
FLAGS = frozenset(setting.flag for setting in _SETTINGS)

# Paths in a file are relative to the file: it can then be moved with what it names.
_PATHS = ("data_dir", "mesh_key_file")


@dataclass(frozen=True)
class Resolved:
    """A configuration that remembers where each value came from."""

    config: Config
    document: Document | None = None
    """The file, where there was one."""
    origins: Mapping[Location, str] = field(default_factory=dict)
    """The flag or variable, for what did not come from the file."""

    def refuse_self(self, own: EndpointId) -> None:
        """Check that no peer is this node itself.  ConfigError: one is, and where that is said."""
        try:
            self.config.refuse_self(own)
        except InvalidConfigError as error:
            raise _located(error.problems, self.document, self.origins) from None


def load_config(path: Path) -> Config:
    """Read a configuration file and nothing else.  ConfigError: a line for each problem, `FILE:LINE: KEY: …`."""
    return resolve_settings({}, {}, path).config


def resolve_settings(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None) -> Resolved:
    """Lay flags over variables over a file.

    `flags` has the names of `FLAGS`; None and an empty list mean "not given".  An empty variable is unset.
    ConfigError: a line for each problem; it begins with `FILE:LINE: KEY`, the variable or the flag.
    """
    if unknown := flags.keys() - FLAGS:
        raise TypeError(f"no such flags: {sorted(unknown)}")
    document = read_document(file) if file is not None else None
    values = _values_of(document) if document is not None else {}
    origins: dict[Location, str] = {}
    problems: list[Problem] = []
    for setting in _SETTINGS:
        value = _list_or_value(flags.get(setting.flag), many=setting.many)
        origin = f"--{setting.flag.replace('_', '-')}"
        if value is None:
            text = environ.get(setting.variable, "").strip()
            value = _list_or_value(text.split(",") if setting.many else text, many=setting.many)
            origin = setting.variable
        if value is not None:
            origins[setting.location] = origin
            if isinstance(value, list) and setting.prefix:
                problems += _unprefixed(setting, value)
                # Of the others the models say what is wrong with the name itself.
                value = [
                    str(item).removeprefix(setting.prefix) for item in value if str(item).startswith(setting.prefix)
                ]
            _place(values, setting.location, value)
    # A problem of form is reported together with the problems of content.
    form = [] if document is None else document.problems
    try:
        config = Config.model_validate(values)
    except InvalidConfigError as error:
        raise _located([*error.problems, *problems], document, origins, form) from None
    if form or problems:
        raise _located(problems, document, origins, form)
    return Resolved(config, document, origins)


def _values_of(document: Document) -> dict[str, object]:
    values = dict(document.values)
    for key in _PATHS:
        text = values.get(key)
        if isinstance(text, str) and text and not text.startswith("~"):
            values[key] = str(document.path.parent.absolute() / text)
    return values


def _list_or_value(value: object, *, many: bool) -> object:
    """The value of a flag or variable, None where it is not given."""
    if not many:
        return None if value == "" else value
    if value is None:
        return None
    items = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    stripped = [item.strip() if isinstance(item, str) else item for item in items]
    return [item for item in stripped if item != ""] or None


def _unprefixed(setting: _Setting, items: Iterable[object]) -> Iterator[Problem]:
    for item in items:
        if not str(item).startswith(setting.prefix):
            message = f"{shown(item)} does not say how to look; expected {setting.prefix}NAME"
            yield Problem(setting.location, message)


def _place(values: dict[str, object], location: Location, value: object) -> None:
    *way, last = (str(step) for step in location)
    for step in way:
        below = values.get(step, {})
        if not isinstance(below, dict):
            return  # the models report it
        # A copy, so that the document stays as it was read.
        values[step] = inner = dict(below)
        values = inner
    values[last] = value


def _located(
    problems: Iterable[Problem],
    document: Document | None,
    origins: Mapping[Location, str],
    form: Iterable[tuple[int, Problem]] = (),
) -> ConfigError:
    """One error that says where each problem is, the file's by line, then variables and flags."""
    lines: list[tuple[int, str]] = []
    if document is not None:
        lines += [(line, f"{document.path}:{line}: {_text(problem)}") for line, problem in form]
    for problem in problems:
        origin = next((text for at, text in origins.items() if problem.location[: len(at)] == at), None)
        if origin is not None:
            lines.append((1 << 30, f"{origin}: {problem.message}"))
        elif document is not None:
            line = document.line_of(problem.location)
            lines.append((line, f"{document.path}:{line}: {_text(problem)}"))
        else:
            lines.append((0, _text(problem)))
    return ConfigError("\n".join(text for _, text in sorted(lines, key=lambda one: one[0])))


def _text(problem: Problem) -> str:
    key = key_of(problem.location)
    return f"{key}: {problem.message}" if key else problem.message
