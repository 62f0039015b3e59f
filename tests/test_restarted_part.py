"""What a node shows of its part of a collection, before and after it was restarted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.test_part_following import Model


class Unfollowed(Model):
    """A node with a part that nobody follows."""

    def read(self) -> None:
        """Nobody does."""


def settled(model: Model) -> dict[str, dict[str, Any]]:
    """What is shown once all documents were looked at."""
    interest = model.notes.replica.interest
    while interest is not None and not interest.step():
        pass
    return dict(model.notes.bodies())


@pytest.mark.parametrize("is_followed", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_what_was_shown_before_a_restart_is_shown_after_it(seed: int, is_followed: bool) -> None:
    """Otherwise a restart in the middle of an update hides a document, or shows one of which half has come."""
    model = Model(seed) if is_followed else Unfollowed(seed)
    model.bare_rate = 0.6
    events = [model.deliver, model.deliver, model.write, model.fill, model.pass_time]
    events += [model.choose] * (seed % 3 == 0)
    for _ in range(60):
        model.rng.choice(events)()
        before = settled(model)
        if is_followed:
            model.notes.cursor()
        assert is_followed or not model.notes.replica.part_changes.is_kept
        if model.rng.random() < 0.3:
            model.store = model.store.kill()
            model.open()
            assert settled(model) == before
