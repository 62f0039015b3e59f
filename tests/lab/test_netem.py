from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from meshsync.errors import LocalError
from meshsync.lab.cable.netem import sending, travelling
from meshsync.lab.impairments import PROFILES, Impairment

FAST = "limit 50000 rate 0bit"
HERE = "limit 50000 delay 0us 0us"

# Of the forward direction: where it is sent, and where it travels.
SAID: Mapping[str, tuple[str, str]] = {
    "nominal": (FAST, "limit 50000 delay 10000us 0us"),
    "tactical-radio": ("limit 42 rate 500000bit", "limit 50000 delay 100000us 0us loss 5.000000%"),
    "degraded": ("limit 22 rate 256000bit", "limit 50000 delay 200000us 0us loss 10.000000%"),
    "contested-light": (FAST, "limit 50000 delay 200000us 0us loss 30.000000%"),
    "contested-heavy": (FAST, "limit 50000 delay 500000us 0us loss 50.000000%"),
    "bandwidth-limited": ("limit 9 rate 100000bit", HERE),
    "jtrs": ("limit 5 rate 56000bit", "limit 50000 delay 500000us 0us loss 5.000000%"),
    "satcom-low": ("limit 2 rate 19200bit", "limit 50000 delay 1000000us 0us loss 1.000000%"),
    "floor": ("limit 1 rate 9600bit", "limit 50000 delay 5000000us 0us loss 30.000000%"),
    "flap": (FAST, HERE),
    "one-way": (FAST, HERE),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_told_to_netem(name: str) -> None:
    """Otherwise a lab on another kernel is about another network."""
    impairment = PROFILES[name].forward
    sent = sending(impairment, is_down=impairment.is_down_after(0.0))
    assert (" ".join(sent), " ".join(travelling(impairment))) == SAID[name]


@pytest.mark.parametrize(
    ("impairment", "said"),
    [
        (Impairment(jitter_seconds=0.03), "delay 0us 30000us"),
        (Impairment(delay_seconds=0.1, jitter_seconds=0.03), "delay 100000us 30000us"),
        (Impairment(loss=0.1, burst_datagrams=5), "delay 0us 0us loss gemodel 2.222222% 20.000000%"),
        (Impairment(loss=0.9, burst_datagrams=2), "delay 0us 0us loss gemodel 100.000000% 50.000000%"),
        (Impairment(loss=1.0, burst_datagrams=5), "delay 0us 0us loss 100%"),
        (Impairment(duplication=0.01), "delay 0us 0us duplicate 1.000000%"),
        (Impairment(delay_seconds=0.1, reordering=0.25), "delay 100000us 0us reorder 25.000000%"),
        (Impairment(reordering=0.25), "delay 0us 0us"),
    ],
)
def test_what_befalls_frames_on_their_way_is_told_to_netem(impairment: Impairment, said: str) -> None:
    """Otherwise a scenario's keys do nothing, or netem refuses them."""
    assert " ".join(travelling(impairment)) == f"limit 50000 {said}"


def test_a_link_that_is_down_loses_what_is_not_yet_sent() -> None:
    """Otherwise a cut takes back what has left, or lets through later what should be lost."""
    flapping = Impairment(flap_seconds=(30.0, 10.0))
    said = [" ".join(sending(flapping, is_down=flapping.is_down_after(at))) for at in (0.0, 29.9, 30.0, 39.9, 40.0)]
    assert said == [FAST, FAST, f"{FAST} loss 100%", f"{FAST} loss 100%", FAST]


@pytest.mark.parametrize("queue_seconds", [0.0, 0.1, 1.0, 60.0])
def test_no_full_frame_waits_for_longer_than_the_queue_is(queue_seconds: float) -> None:
    """Otherwise a slow radio delays what it should drop, and the other way round."""
    impairment = Impairment(rate_bits_per_second=500e3, queue_seconds=queue_seconds)
    limit = int(sending(impairment, is_down=False)[1])
    frame_seconds = 1514 * 8 / 500e3
    assert (limit - 1) * frame_seconds <= queue_seconds < limit * frame_seconds


def test_a_rate_is_never_told_as_none() -> None:
    """To netem 0 bits per second is no limit at all."""
    for rate in (1e-9, 1.0, 7.9):
        assert "8bit" in sending(Impairment(rate_bits_per_second=rate), is_down=False)
    assert "0bit" in sending(Impairment(rate_bits_per_second=math.inf), is_down=False)


def test_what_netem_cannot_do_is_said() -> None:
    """The kernel would draw other delays than it was told, and say nothing."""
    with pytest.raises(LocalError, match=r"netem has jitter of at most 2 s, not 3 s; .*--cable user-space"):
        travelling(Impairment(delay_seconds=5.0, jitter_seconds=3.0))
