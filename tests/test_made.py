"""
Changes that were made although the call raises: the exception says so (promise P5).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from doors import NAMES
from tools import TESTS, run_python


@pytest.mark.parametrize("door", NAMES)
def test_change_that_cannot_be_known_to_be_durable_says_that_it_was_made(
    variant: Path, folder: Path, door: str
) -> None:
    """TimeoutError and KeyboardInterrupt have the ticket and what was taken; made_driver.py says how."""
    done = run_python(str(TESTS / "made_driver.py"), str(folder), "sync", folder=variant, timeout_s=80, ROWEX_DOOR=door)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == 17


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_change_of_a_task_that_is_late_says_that_it_was_made(variant: Path, folder: Path, backend: str) -> None:
    """Of those that tell no ticket, what would have been returned is in the exception; of a batch, the ticket."""
    done = run_python(str(TESTS / "made_driver.py"), str(folder), backend, folder=variant, timeout_s=80)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == 5
