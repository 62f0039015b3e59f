"""The command line.  `main` runs it; each command lives in a module of its own, imported when it is asked for.

A command other than `node` is a client of the running node's API and never opens the database.  It imports
click and the standard library only, because most of the time of a short command is spent importing.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit.  The entry point of the package."""
    try:
        from meshsync.cli.main import run
    except KeyboardInterrupt:
        # Ctrl-C in a loop of a shell falls into the imports as likely as not.
        sys.exit(128 + signal.SIGINT)
    run()
