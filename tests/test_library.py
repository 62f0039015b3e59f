"""meshsync as a library, in a program that knows nothing of its parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import trio, meshsync

def config(name, **settings):
    return meshsync.Config(data_dir=name, listen=["127.0.0.1:0"], discovery={"mdns": False}, **settings)

async def main():
    async with meshsync.open_node(config("first")) as first:
        peers = [f"{first.id}@{first.listen[0]}"]
        async with meshsync.open_node(config("second", peers=peers)):
            async for event in first.events.follow(1):
                if event.type == "pending":
                    print("somebody knocked")
                    return

trio.run(main)
"""


def test_logs_leave_standard_output_to_the_program(tmp_path: Path) -> None:
    """Otherwise whoever reads the program's output finds log lines in it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "somebody knocked\n"
    assert "meshsync peers accept" in done.stderr
