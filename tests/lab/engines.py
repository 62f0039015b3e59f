"""What tests with containers need, and whether it is here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = "meshsync-base"
_SECONDS_MAX = 300


def docker(*arguments: str) -> str:
    """Run `docker`, and return what it printed."""
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _lacking() -> str:
    """Why there can be no containers here; "": there can."""
    if shutil.which("docker") is None:
        return "Docker is not installed"
    ask = ["docker", "image", "inspect", BASE]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=False)
    if "connect" in done.stderr:
        return "Docker's daemon does not run"
    return "" if done.returncode == 0 else f"there is no image {BASE}; scripts/image builds it"


LACKING = _lacking()
needs_engine = pytest.mark.skipif(bool(LACKING), reason=LACKING)
needs_containerlab = pytest.mark.skipif(
    bool(LACKING) or shutil.which("containerlab") is None or os.geteuid() != 0,
    reason=LACKING or "containerlab is not installed, or this is not root",
)


def built_image(tag: str) -> Iterator[str]:
    """The image of this checkout under a name of its own, for as long as it is used."""
    done = subprocess.run(
        [ROOT / "scripts" / "image", "--base", BASE, "--tag", tag],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield tag
    docker("image", "rm", "--force", tag)
