from __future__ import annotations

import pytest

from meshsync.errors import LocalError
from meshsync.quantities import parse_duration, parse_rate, parse_share


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("60s", 60), ("5m", 300), ("2h", 7200), ("1.5", 1.5), ("10 us", 1e-5)]
)
def test_durations(text: str, seconds: float) -> None:
    """Otherwise a scenario takes a thousand times as long as it says."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "bits"), [("9600bit", 9600), ("256kbit", 256e3), ("1.5Mbit/s", 1.5e6)])
def test_rates_are_in_bits_and_powers_of_ten(text: str, bits: float) -> None:
    """Otherwise a radio of 256 kbit/s is eight times as fast."""
    assert parse_rate(text) == bits


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.3", 0.3), ("100%", 1.0), ("0", 0.0)])
def test_shares(text: str, share: float) -> None:
    """Otherwise 5 % of loss is 500 %."""
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "fast", "-1s", "5 parsecs", "1e3s", "5%", "٣s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Otherwise a slip becomes a time."""
    with pytest.raises(LocalError, match="expected a number and a unit"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "0bit", "256k", "256kB", "256 kibit"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    """Bytes and bits are not told apart by guessing."""
    with pytest.raises(LocalError, match="expected a number and a unit"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["", "101%", "1.5", "5s"])
def test_what_is_no_share_is_refused(text: str) -> None:
    """More than everything cannot be lost."""
    with pytest.raises(LocalError, match="expected a percentage"):
        parse_share(text)
