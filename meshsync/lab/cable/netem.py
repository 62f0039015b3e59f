"""What the kernel's netem is told, so that it does to frames what an impairment says (tc-netem(8)).

A direction has two places: frames are first *sent*, one after the other at the link's rate, and then *travel*.  One
netem could do both, but it loses frames before they take up the rate, counts those that travel against the queue, and
keeps its rate from those that overtake.  In two places a profile is what it is on a cable in user space.
"""

from __future__ import annotations

import math

from meshsync.errors import LocalError
from meshsync.lab.impairments import Impairment

_FRAMES_MAX = 50_000
"""What a place holds at most: 64 MiB of frames of 1342 bytes."""
_FRAME_BYTES = 1514
"""Ethernet's longest, at its usual MTU."""
_JITTER_SECONDS_MAX = 2.0
"""The kernel draws jitter as a signed 32-bit number of nanoseconds."""
_RATE_MIN = 8.0
"""Bits per second: the kernel counts whole bytes, and 0 is no limit."""


def sending(impairment: Impairment, *, is_down: bool) -> list[str]:
    """The arguments for where frames are sent; what is not said here is as on a perfect link.

    A link that is down loses frames here, so that what has left is still under way.
    """
    rate = impairment.rate_bits_per_second
    if math.isinf(rate):
        limit, bits = _FRAMES_MAX, 0
    else:
        bits = round(max(_RATE_MIN, rate))
        limit = min(_FRAMES_MAX, _queue_frames(impairment))
    # A change keeps the rate that it does not name.
    return ["limit", str(limit), "rate", f"{bits}bit", *(("loss", "100%") if is_down else ())]


def _queue_frames(impairment: Impairment) -> int:
    """How many frames are being sent or wait.

    The kernel counts frames, not time.  Of full ones, the last that is let in waits for `queue_seconds` at most, and
    one is always let in.  Shorter ones wait for less.
    """
    frame_seconds = _FRAME_BYTES * 8 / impairment.rate_bits_per_second
    return math.floor(impairment.queue_seconds / frame_seconds) + 1


def travelling(impairment: Impairment) -> list[str]:
    """The arguments for where frames travel.  LocalError: netem cannot do it."""
    if impairment.jitter_seconds > _JITTER_SECONDS_MAX:
        raise LocalError(
            f"netem has jitter of at most {_JITTER_SECONDS_MAX:g} s, not {impairment.jitter_seconds:g} s; "
            "a cable in user space has more: --cable user-space"
        )
    arguments = ["limit", str(_FRAMES_MAX)]
    # Without a distribution netem draws evenly, as we do; a frame whose delay would be negative does not wait.
    arguments += ["delay", _time(impairment.delay_seconds), _time(impairment.jitter_seconds)]
    arguments += _loss(impairment)
    if impairment.duplication:
        arguments += ["duplicate", _share(impairment.duplication)]
    if impairment.reordering and impairment.delay_seconds:
        # What has no delay cannot be overtaken, and netem refuses it.
        arguments += ["reorder", _share(impairment.reordering)]
    return arguments


def _loss(impairment: Impairment) -> list[str]:
    """Gilbert's model, as `meshsync.lab.wire` has it: netem's bad state loses all unless it is told otherwise."""
    loss, burst = impairment.loss, impairment.burst_datagrams
    if loss <= 0:
        return []
    if loss >= 1:
        return ["loss", "100%"]
    if burst <= 1:
        return ["loss", _share(loss)]
    return ["loss", "gemodel", _share(min(1.0, loss / (burst * (1 - loss)))), _share(1 / burst)]


def _time(seconds: float) -> str:
    return f"{round(seconds * 1e6)}us"


def _share(share: float) -> str:
    return f"{share * 100:.6f}%"
