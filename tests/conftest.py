"""Settings for all tests: how Hypothesis draws, and nothing else."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# The same examples in every run, so that a red build is red for everyone; a failure prints what replays it.
# No deadlines: a loaded machine is no bug.
settings.register_profile(
    "deterministic",
    derandomize=True,
    print_blob=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# New examples in every run, and more of them: HYPOTHESIS_PROFILE=explore scripts/test --quick
settings.register_profile("explore", parent=settings.get_profile("deterministic"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "deterministic"))
