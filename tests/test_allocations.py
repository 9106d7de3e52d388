"""
Memory that is short: each request of the core for some is refused, once or from then on.  Failure model:
out of memory.

What must hold is in fault_world.py and alloc_driver.py, which run in the test build.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from test_log_faults import SCENARIOS as DISK_SCENARIOS
from tools import TESTS, run_python

EAGAIN, ENOMEM = 11, 12
SCENARIOS = [
    *DISK_SCENARIOS,
    "reads",
    "long keys",
    "stats and check",
    "backup",
    "copy, rename, destroy",
    "build",
    "salvage",
    "memory",
    "growth beyond the capacity",
    "more uids",
    "explain",
    "a wait in a loop",
    "replace",
]


def drive(scenario: str, folder: Path, build: Path, plan: str) -> None:
    """One plan."""
    done = run_python(str(TESTS / "alloc_driver.py"), scenario, str(folder), plan, folder=build, timeout_s=1800)
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5000:]}"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_memory_that_is_short_once_is_told_and_costs_one_call(scenario: str, folder: Path, variant: Path) -> None:
    """MemoryError or success; nothing is lost or left behind, and the index works on."""
    drive(scenario, folder, variant, f"malloc:{ENOMEM}")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_memory_that_stays_short_is_told_and_nothing_is_lost(scenario: str, folder: Path, variant: Path) -> None:
    """The same while all further requests are refused as well."""
    drive(scenario, folder, variant, f"malloc+:{ENOMEM}")


@pytest.mark.parametrize(
    "scenario", ["open", "first write after a clean open", "checkpoint", "copy and rename", "a wait in a loop"]
)
def test_thread_that_cannot_be_started_is_told_or_not_needed(scenario: str, folder: Path, variant: Path) -> None:
    """MemoryError or success: an index never stays open without what writes its log."""
    drive(scenario, folder, variant, f"thread:{EAGAIN}")
    again = folder / "again"
    again.mkdir()
    drive(scenario, again, variant, f"thread+:{EAGAIN}")
