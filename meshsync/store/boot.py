"""Which run of the machine this is: the one question to the operating system that a store depends upon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def boot_id() -> bytes | None:
    """Bytes that change exactly when the kernel starts anew, None where they are not to be had.

    While they stay the same the kernel still has everything that any process wrote to a file, synced or not.
    """
    try:
        if sys.platform == "darwin":
            answer = subprocess.run(
                ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, check=True, timeout=5
            )
            return answer.stdout.strip() or None
        # random(4), "/proc interfaces"; containers see that of their host, which is the kernel in question.
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
