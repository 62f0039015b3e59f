"""What is wrong with a configuration: in which key, and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from meshsync.errors import ConfigError

Location = tuple[str | int, ...]
"""The way to a value: keys, and positions in lists."""


class Problem(NamedTuple):
    """One thing that is wrong."""

    location: Location
    message: str
    """What is wrong; what was expected."""


class InvalidConfigError(ConfigError):
    """A configuration has problems; the message has a line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "\n".join(f"{key_of(one.location) or 'configuration'}: {one.message}" for one in self.problems)
        )


def key_of(location: Location) -> str:
    """A location as people write it: `peers[0].id`."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            # A key that nobody declared may hold anything, and an error is shown on a terminal.
            text += f".{step if step.isprintable() and len(step) <= 80 else shown(step)}"
    return text.removeprefix(".")


def shown(value: object) -> str:
    """A value for a message: whole when it is short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Say in this program's words what pydantic found."""
    return [Problem(tuple(one["loc"]), _message(one, model)) for one in error.errors(include_url=False)]


def _message(error: Any, model: type[BaseModel]) -> str:
    location: Location = error["loc"]
    value = shown(error["input"])
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            return _unknown_key(str(location[-1]), sorted(_model_at(model, location[:-1]).model_fields))
        case "missing":
            description = _model_at(model, location[:-1]).model_fields[str(location[-1])].description
            return f"is missing; expected as {location[-1]}: {description}"
        case "literal_error":
            return f"{value} is not one of the choices; expected {context['expected']}"
        case "tuple_type":
            return f"{value} is not a list; expected a list, such as [first, second]"
        case "model_type":
            known = ", ".join(sorted(_model_at(model, location).model_fields))
            return f"{value} is not a mapping; expected keys and values, of {known}"
        case "string_type":
            return f"{value} is not a text; expected a text"
        case "greater_than_equal":
            return f"{value} is too small; expected at least {context['ge']}"
        case _:
            return f"{value}: {error['msg']}"


def _unknown_key(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown key; {hint}expected one of {', '.join(known)}"


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel]:
    """The model that describes the mapping at `location`."""
    for step in location:
        if isinstance(step, str):
            annotation: Any = model.model_fields[step].annotation
            # tuple[PeerConfig, ...]: the position that follows leads to its first argument.
            model = annotation if isinstance(annotation, type) else annotation.__args__[0]
    return model
