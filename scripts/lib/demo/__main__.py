"""scripts/demo: nodes as processes of the installed command, and each command shown with what it prints."""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import trio
from signals import Interrupted, leaves, run_until_signal

from demo import laptops, parts, ship
from demo.nodes import DemoFailed, say

STORIES = {"ship": ship.tell, "mesh": laptops.tell, "parts": parts.tell}


async def main(story: str) -> int:
    """Tell a story; 0 only if the roots are equal at the end."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="meshsync-demo-") as directory:
        equal_roots = await STORIES[story](Path(directory))
    verdict = "The three roots are equal" if equal_roots else "THE ROOTS DIFFER"
    say(f"{verdict}, after {time.monotonic() - began:.0f} s. Nothing is left of the nodes.")
    return 0 if equal_roots else 1


def run(story: str) -> int:
    """Run the demo; the exit code of the process."""
    failures: list[str] = []
    try:
        return trio.run(run_until_signal, partial(main, story))
    except* (DemoFailed, Interrupted) as group:
        failures += map(str, leaves(group))
    except* trio.TooSlowError:
        failures.append("a command took too long")
    print(f"scripts/demo: {'; '.join(failures)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
