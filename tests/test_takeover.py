"""
Processes that stand still or die at chosen points of opening, copying and reaping, and what
others make of it (promises P3 to P5, rules R3, R4, R7 and R10); the drivers have the scenarios.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import TESTS, run_python

# What must have been met: points at which a process stood still or died, or the one that matters.
POINTS = {
    "stale_map": 24,
    "step": 10,
    "replaced": 10,
    "finished": 10,
    "readonly": 10,
    "mark": 10,
    "handler_put": 1,
    "handler_close": 1,
    "reused": 1,
}


OPENING = {  # likewise
    "opener": 20,
    "new_one": 10,
    "outgrown": 1,
    "checkpoint_waits": 1,
    "backed_up": 1,
    "recovery_outgrown": 2,
}


@pytest.mark.parametrize("scenario", [*POINTS, *OPENING])
def test_nobody_is_misled_by_who_stands_still_or_died(variant: Path, folder: Path, scenario: str) -> None:
    """Nothing is lost, counted twice or given up, and nobody hangs; each scenario says what it tries."""
    driver = "opening_driver.py" if scenario in OPENING else "takeover_driver.py"
    done = run_python(str(TESTS / driver), scenario, str(folder), folder=variant, timeout_s=80)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= {**POINTS, **OPENING}[scenario]
