"""What must hold in a lab, as sentences: `converged within 60s`, `latency p99 < 1s`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from meshsync.errors import LocalError
from meshsync.quantities import parse_duration


@dataclass(frozen=True)
class Converged:
    """All nodes have equal roots, and say that they are synced, so soon after the last step."""

    within_seconds: float


@dataclass(frozen=True)
class NothingLost:
    """Every entry whose write was acknowledged is on every node in the end."""


@dataclass(frozen=True)
class Latency:
    """From a write to its being seen on every other node; over the writes that were made while all were connected."""

    percentile: float
    below_seconds: float


@dataclass(frozen=True)
class BytesPerEntry:
    """UDP payload that all nodes sent, over entries written times nodes that had yet to get them."""

    below: float


@dataclass(frozen=True)
class Delivered:
    """The share of all (write, other node) pairs that arrived by the end, in per cent."""

    at_least: float


@dataclass(frozen=True)
class OneConnection:
    """Between two nodes there is never more than one connection for longer than a moment."""


@dataclass(frozen=True)
class NeverFalselySynced:
    """No node says that it is synced with another one while their roots differ."""


Expectation = Converged | NothingLost | Latency | BytesPerEntry | Delivered | OneConnection | NeverFalselySynced

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_SENTENCES: tuple[tuple[str, Callable[[re.Match[str]], Expectation]], ...] = (
    (r"converged within (\S+)", lambda found: Converged(parse_duration(found[1]))),
    (r"no acknowledged entry lost", lambda _: NothingLost()),
    (rf"latency p{_NUMBER} < (\S+)", lambda found: Latency(_percentile(found[1]), parse_duration(found[2]))),
    (rf"bytes per entry < {_NUMBER}", lambda found: BytesPerEntry(float(found[1]))),
    (rf"delivered >= {_NUMBER}%", lambda found: Delivered(_percent(found[1]))),
    (r"only one connection per pair", lambda _: OneConnection()),
    (r"never synced while roots differ", lambda _: NeverFalselySynced()),
)
FORMS = (
    "converged within 60s",
    "no acknowledged entry lost",
    "latency p99 < 1s",
    "bytes per entry < 400",
    "delivered >= 99.5%",
    "only one connection per pair",
    "never synced while roots differ",
)


def read_expectation(text: str) -> Expectation:
    """Read one sentence.  LocalError: it is none of FORMS."""
    plain = " ".join(text.split())
    for pattern, make in _SENTENCES:
        if (found := re.fullmatch(pattern, plain)) is not None:
            return make(found)
    raise LocalError(f"{text!r} is no expectation; expected one like {', '.join(map(repr, FORMS))}")


def _percentile(text: str) -> float:
    if not 0 < float(text) <= 100:
        raise LocalError(f"p{text} is no percentile; expected p1 to p100")
    return float(text)


def _percent(text: str) -> float:
    if float(text) > 100:
        raise LocalError(f"{text}% is more than all; expected at most 100%")
    return float(text)
