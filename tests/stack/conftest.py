"""What the tests of whole nodes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshsync.core.limits import Limits
from meshsync.core.messages import Message, decode_untrusted
from meshsync.sync import exchange


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Everything that collections' streams carry between the nodes, as it leaves the transport."""
    carried: list[bytes] = []

    def tap(frame: bytes, limits: Limits) -> Message:
        carried.append(frame)
        return decode_untrusted(frame, limits)

    monkeypatch.setattr(exchange, "decode_untrusted", tap)
    yield carried
    assert carried
