"""
That what is timed begins alike for all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOUCH = "import mmap, sys; size = int(sys.argv[1]); mmap.mmap(-1, size)[::4096] = bytes(-(-size // 4096))"


def touch(size: int) -> None:
    """
    See to it that memory is there.

    Many a host takes back what its virtual machines have free, after seconds: the first touch of a page then takes
    ten times as long as usual, and who comes when there is much of it would pay for the others.  So a child touches
    some and leaves it to the kernel.

    Args:
        size: Bytes that the next row may want, at most.
    """
    line = next(line for line in Path("/proc/meminfo").read_text("ascii").splitlines() if "MemAvailable" in line)
    subprocess.run([sys.executable, "-c", TOUCH, str(min(size, int(line.split()[1]) * 512))], check=True)


def quiet(size: int) -> None:
    """
    Let all loads begin alike: what earlier rows wrote is on the disk, and memory is there.

    Not for rows that change what was loaded before: the first store to each page that a sync has cleaned is a page
    fault, which they would show instead of themselves.

    Args:
        size: As touch() has it.
    """
    os.sync()
    touch(size)
