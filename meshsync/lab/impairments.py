"""What a link does to the datagrams that go through it, as data: per direction, and under names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from meshsync.errors import LocalError
from meshsync.quantities import parse_duration, parse_rate, parse_share


@dataclass(frozen=True)
class Impairment:
    """One direction of a link.  The default is a perfect one."""

    delay_seconds: float = 0.0
    """On the way, after the link took its time for sending."""
    jitter_seconds: float = 0.0
    """The delay varies evenly by so much, up and down; more than the gap between two datagrams reorders them."""
    loss: float = 0.0
    """The share of datagrams that is lost, from 0 to 1, in the long run."""
    burst_datagrams: float = 1.0
    """How many are lost in a row, on average (Gilbert's model); 1: each by itself."""
    rate_bits_per_second: float = math.inf
    """Of whole frames."""
    queue_seconds: float = 1.0
    """What waits for longer than this to be sent is dropped, and one datagram may always wait."""
    duplication: float = 0.0
    """The share that arrives twice."""
    reordering: float = 0.0
    """The share that overtakes the others: it arrives without the delay."""
    down: bool = False
    """Nothing arrives."""
    flap_seconds: tuple[float, float] | None = None
    """So long up, so long down, for ever."""

    def is_down_after(self, seconds: float) -> bool:
        """Whether nothing arrives, so long after the link began to do this."""
        if self.down or self.flap_seconds is None:
            return self.down
        up, down = self.flap_seconds
        return seconds % (up + down) >= up

    def as_json(self) -> dict[str, Any]:
        """What JSON can say of it; only what is not as on a perfect link."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Impairment:
        """The inverse of `as_json`.  LocalError: a field is unknown, or no number."""
        flap = value.get("flap_seconds")
        rest = {name: item for name, item in value.items() if name != "flap_seconds"}
        defaults = {one.name: one.default for one in fields(cls) if one.name != "flap_seconds"}
        for name, item in rest.items():
            if name not in defaults or isinstance(item, bool) != isinstance(defaults[name], bool):
                raise LocalError(f"{name!r} cannot be {item!r} on a link")
            is_bound = isinstance(item, int | float) and item >= 0 and (item > 0 or name != "rate_bits_per_second")
            if not is_bound:
                raise LocalError(f"{name!r} cannot be {item!r} on a link")
        return cls(**rest, flap_seconds=None if flap is None else _flapping(flap))


def _flapping(value: object) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(one, int | float) for one in value):
        raise LocalError(f"a link cannot flap {value!r}; expected how long up and how long down")
    if not min(value) > 0:
        raise LocalError(f"a link cannot flap {value!r}; expected both above 0")
    return value[0], value[1]


PERFECT = Impairment()
DOWN = Impairment(down=True)


@dataclass(frozen=True)
class LinkImpairment:
    """Both directions of a link between two ends, in the order in which the link names them."""

    forward: Impairment = PERFECT
    backward: Impairment = PERFECT

    @classmethod
    def both(cls, impairment: Impairment) -> LinkImpairment:
        """The same in both directions."""
        return cls(impairment, impairment)


def _radio(rate: float, delay: float, loss: float) -> LinkImpairment:
    return LinkImpairment.both(Impairment(rate_bits_per_second=rate, delay_seconds=delay, loss=loss))


PROFILES: Mapping[str, LinkImpairment] = {
    "nominal": LinkImpairment.both(Impairment(delay_seconds=0.010)),
    "tactical-radio": _radio(500e3, 0.100, 0.05),
    "degraded": _radio(256e3, 0.200, 0.10),
    "contested-light": _radio(math.inf, 0.200, 0.30),
    "contested-heavy": _radio(math.inf, 0.500, 0.50),
    "bandwidth-limited": _radio(100e3, 0.0, 0.0),
    "jtrs": _radio(56e3, 0.500, 0.05),
    "satcom-low": _radio(19.2e3, 1.0, 0.01),
    "floor": _radio(9.6e3, 5.0, 0.30),
    "flap": LinkImpairment.both(Impairment(flap_seconds=(30.0, 10.0))),
    "one-way": LinkImpairment(PERFECT, DOWN),
}
"""Named links.  Delay and loss are of each direction, so a round trip has twice the delay."""


def read_link_impairment(value: object) -> LinkImpairment:
    """Read what a scenario says of a link; LocalError: it says nothing that is known.

    A profile's name; or keys `delay`, `jitter`, `loss`, `burst`, `rate`, `queue`, `duplicate`, `reorder`, `down`,
    `flap`, over those of a `profile` where one is named; or `forward` and `backward`, each in one of these forms.
    """
    if isinstance(value, str):
        return _profile(value)
    if not isinstance(value, Mapping):
        raise LocalError(f"{value!r} is no impairment; expected a profile's name or keys such as delay and loss")
    directions = value.keys() & {"forward", "backward"}
    if directions:
        if extra := value.keys() - directions:
            raise LocalError(f"{_listed(extra)} beside {_listed(directions)}; expected each direction on its own")
        return LinkImpairment(
            _one(value["forward"], "forward") if "forward" in value else PERFECT,
            _one(value["backward"], "backward") if "backward" in value else PERFECT,
        )
    base = _profile(value["profile"]) if "profile" in value else LinkImpairment()
    rest = {key: item for key, item in value.items() if key != "profile"}
    return LinkImpairment(_changed(base.forward, rest), _changed(base.backward, rest))


def _one(value: object, direction: str) -> Impairment:
    if isinstance(value, Mapping) and value.keys() & {"forward", "backward"}:
        raise LocalError(f"{direction} within a direction; expected keys such as delay and loss")
    both = read_link_impairment(value)
    return both.forward if direction == "forward" else both.backward


def _profile(name: object) -> LinkImpairment:
    if not isinstance(name, str) or name not in PROFILES:
        raise LocalError(f"{name!r} is no profile; expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def _changed(base: Impairment, keys: Mapping[str, Any]) -> Impairment:
    changes = {}
    for key, text in keys.items():
        if key not in _FIELDS:
            raise LocalError(f"unknown key {key!r}; expected profile, forward, backward, {', '.join(_FIELDS)}")
        field, parse = _FIELDS[key]
        try:
            changes[field] = parse(str(text))
        except LocalError as error:
            raise LocalError(f"{key}: {error}") from None
    return replace(base, **changes)


def _at_least_one(text: str) -> float:
    try:
        mean = float(text)
    except ValueError:
        mean = math.nan
    if not 1 <= mean <= 1000:
        raise LocalError(f"{text!r} is no length of a burst; expected a number of datagrams from 1 to 1000")
    return mean


def _truth(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise LocalError(f"{text!r} is not a truth value; expected true or false")
    return text.lower() == "true"


def _flap(text: str) -> tuple[float, float]:
    up, slash, down = text.partition("/")
    if not slash:
        raise LocalError(f"{text!r} is no flapping; expected how long up and how long down, such as 30s/10s")
    seconds = parse_duration(up), parse_duration(down)
    if not all(seconds):
        raise LocalError(f"{text!r}: a link that flaps is up for a while and down for a while; expected both above 0")
    return seconds


_FIELDS: Mapping[str, tuple[str, Any]] = {
    "delay": ("delay_seconds", parse_duration),
    "jitter": ("jitter_seconds", parse_duration),
    "loss": ("loss", parse_share),
    "burst": ("burst_datagrams", _at_least_one),
    "rate": ("rate_bits_per_second", parse_rate),
    "queue": ("queue_seconds", parse_duration),
    "duplicate": ("duplication", parse_share),
    "reorder": ("reordering", parse_share),
    "down": ("down", _truth),
    "flap": ("flap_seconds", _flap),
}


def _listed(keys: object) -> str:
    return ", ".join(sorted(map(str, keys)))  # type: ignore[call-overload]
