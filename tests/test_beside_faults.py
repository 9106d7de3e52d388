"""
Faults of the disk in one process, while others use the index too or have left something behind: each system call
on a file fails, once or from then on.  Failure model: `ioerror`.

What must hold is in beside_driver.py, which runs in the test build.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from test_log_faults import EIO, ENOLCK
from tools import TESTS, run_python

pytestmark = pytest.mark.limit(300)  # hundreds of cases, each a process
SCENARIOS = [
    "open beside another",
    "clean close beside another",
    "checkpoint beside another",
    "copy and rename beside another",
    "grown by another",
    "renamed by another",
    "dead one's change",
]
POWER = "power loss beside a -lock file"  # other calls than locks: as in test_log_faults.py


def drive(scenario: str, folder: Path, build: Path, *plans: str) -> None:
    """Each plan."""
    done = run_python(str(TESTS / "beside_driver.py"), scenario, str(folder), *plans, folder=build, timeout_s=1800)
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5000:]}"


@pytest.mark.parametrize("scenario", [*SCENARIOS, POWER])
def test_lock_that_is_not_told_is_neither_free_nor_a_dead_ones(scenario: str, folder: Path, variant: Path) -> None:
    """The system is asked for a lock and cannot say: OSError or later, and nobody is harmed."""
    drive(scenario, folder, variant, f"lock:{ENOLCK}", f"lock+:{ENOLCK}")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_disk_that_fails_once_harms_no_other_process(scenario: str, folder: Path, variant: Path) -> None:
    """One call on a file fails, wherever it is made."""
    drive(scenario, folder, variant, f"any:{EIO}")


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if "beside" not in name])
def test_disk_that_fails_for_good_makes_no_damage_of_others_work(scenario: str, folder: Path, variant: Path) -> None:
    """
    All calls on files fail from then on.

    Beside a living process not: a log that failed for good has failed for all, until the last has closed.
    """
    drive(scenario, folder, variant, f"any+:{EIO}")
