"""
Signal handlers and listeners run in the midst of calls, and may use the index: nothing that their
own thread holds is waited for (promises P4 and P8).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import TESTS, run_python

SCENARIOS = [
    "handler_puts_while_a_copy_waits_for_the_log",
    "handler_puts_while_the_log_is_begun",
    "child_that_a_handler_forks_does_not_go_on_in_the_call",
    "listener_writes_when_a_leader_is_succeeded",
    "listener_writes_when_a_copier_succeeds_a_leader",
    "listener_opens_what_is_recovered",
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_program_that_is_called_by_the_core_does_not_wait_for_itself(
    variant: Path, folder: Path, scenario: str
) -> None:
    """events_driver.py says what each does."""
    done = run_python(str(TESTS / "events_driver.py"), scenario, str(folder), folder=variant, timeout_s=60)
    assert done.returncode == 0, done.stderr[-3000:]
