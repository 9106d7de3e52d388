"""
Reuse under readers: a build that overwrites every cell as it becomes free.

A reader that follows a reference into a cell that was reused too early meets the poison, which no
value, key or node can look like.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tools import TESTS, run_python


@pytest.mark.limit(400)
def test_readers_never_meet_freed_cells(variant: Path, folder: Path, rng: random.Random, long_run: bool) -> None:
    """Threads and processes that read beside writers see whole values only, though freed cells are poisoned."""
    seconds = 600 if long_run else 8
    done = run_python(
        str(TESTS / "churn.py"),
        str(folder),
        str(seconds),
        str(rng.random()),
        folder=variant,
        timeout_s=seconds * 3 + 120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    reclaimed = int(done.stdout.split("reclaimed=")[1])
    assert reclaimed > 1000, "cells were used again while readers were at work"
