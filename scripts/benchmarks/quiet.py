"""
What each timed load begins with.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOUCH = "import mmap, sys; size = int(sys.argv[1]); mmap.mmap(-1, size)[::4096] = bytes(-(-size // 4096))"


def quiet(size: int) -> None:
    """
    Let all peers begin alike: what earlier rows wrote is on the disk, and memory is there.

    Many a host takes back what its virtual machines have free, after seconds: the first touch of a page then takes
    ten times as long as usual, and who comes when there is much of it would pay for the others.  So a child touches
    some and leaves it to the kernel.

    Args:
        size: Bytes that the next row may want, at most.
    """
    os.sync()
    line = next(line for line in Path("/proc/meminfo").read_text("ascii").splitlines() if "MemAvailable" in line)
    subprocess.run([sys.executable, "-c", TOUCH, str(min(size, int(line.split()[1]) * 512))], check=True)
