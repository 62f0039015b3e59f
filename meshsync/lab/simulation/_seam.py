"""The one place that touches private names of trio: the order in which it runs tasks.

trio shuffles on purpose the tasks that are ready at one time.  A simulation that is to repeat needs the shuffling to
follow its seed; Hypothesis does the same for its tests.
"""

from __future__ import annotations

from trio._core import _run


def order_tasks_by(seed: int) -> None:
    """From now on trio's runs in this process repeat: the same seed, the same order of tasks."""
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _run._r.seed(seed)
