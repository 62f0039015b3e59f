"""What ends a command half-way ends it tidily: SIGTERM and SIGHUP are what SIGINT is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def tidy_at_the_end() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt in the block, and SystemExit(128 + number) at its end.

    trio delivers a KeyboardInterrupt where it disturbs nothing of its own, so clean-ups are run.  One that comes while
    a lab is taken down waits until that is done.
    """
    received = signal.SIGINT

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number)
        # A closing terminal sends two of them: the second one would interrupt the clean-up.
        for one in _ENDING:
            signal.signal(one, signal.SIG_IGN)
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in _ENDING}
    # A script's background jobs are born ignoring SIGINT, and trio heeds it only with Python's own handler.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(128 + received) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
