"""How much of the past is kept, as people type it."""

from __future__ import annotations

import pytest

from meshsync.core.retention import ALL, LATEST, Retention
from meshsync.errors import LocalError


@pytest.mark.parametrize(
    ("text", "retention"),
    [
        ("all", ALL),
        ("latest", LATEST),
        ("30d", Retention(30 * 86400, 0)),
        ("12h", Retention(12 * 3600, 0)),
        ("90s", Retention(90, 0)),
        ("10000 entries", Retention(0, 10_000)),
    ],
)
def test_what_is_typed_is_what_is_shown(text: str, retention: Retention) -> None:
    """Otherwise status names another retention than the owner asked for."""
    assert Retention.parse(f" {text} ") == retention
    assert str(retention) == text


@pytest.mark.parametrize(
    "text",
    ["", "30", "0d", "-1d", "0.5s", "500ms", "soon", "10000", "0 entries", "1.5 entries", "entries", "9" * 15 + "d"],
)
def test_what_may_be_meant_otherwise_is_refused(text: str) -> None:
    """Dropping cannot be taken back: 30 may be meant as days, and what is rounded to nothing drops everything."""
    with pytest.raises(LocalError, match="expected all, latest, 30d, 12h or 10000 entries"):
        Retention.parse(text)


def test_of_two_wishes_all_is_kept_that_either_keeps() -> None:
    """Otherwise one program on a node drops what another one of it reads."""
    assert Retention.parse("30d").or_else(LATEST) == Retention.parse("30d")
    assert Retention.parse("30d").or_else(ALL).keeps_all
    both = Retention.parse("12h").or_else(Retention.parse("90s")).or_else(Retention.parse("500 entries"))
    assert both == Retention(12 * 3600, 500)
    assert str(both) == "12h or 500 entries"
