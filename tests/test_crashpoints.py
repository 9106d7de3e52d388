"""
A death at each store of the core (promise P4).  Failure model: `kill`.

Rows A1, A2, A3, A7 and A8 of the known bugs of such systems are about exactly this: half-done
inserts, counts that are off by one, creation, lock words of the dead, leaked space.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import SEED
from crash_scenarios import SCENARIOS
from tools import TESTS, clean_environment

VARIANTS = ("held", "alone")
GRANDCHILD = ("insert into Node4", "grow 4 to 16", "split a path", "remove and merge a path", "compact")


@pytest.fixture(scope="module")
def ask(variant: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Asks the driver, which runs in the test build."""
    driver = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", str(TESTS / "crash_driver.py")],
        env=clean_environment(variant),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdin is not None
    assert driver.stdout is not None

    def request(timeout_s: float, **arguments: Any) -> dict[str, Any]:
        driver.stdin.write(json.dumps(arguments) + "\n")
        driver.stdin.flush()
        if not select.select([driver.stdout], [], [], timeout_s)[0]:
            driver.kill()
            raise AssertionError(f"no answer within {timeout_s} s: {arguments}")
        return dict(json.loads(driver.stdout.readline() or '{"failed": "the driver is gone"}'))

    yield request
    driver.kill()
    driver.wait()
    driver.stdin.close()
    driver.stdout.close()


@pytest.fixture
def die(ask: Callable[..., dict[str, Any]], folder: Path, long_run: bool) -> Callable[[str, str], None]:
    """Runs a scenario and fails with the driver's report."""

    def run(name: str, variant: str) -> None:
        work = folder / "work"
        work.mkdir()
        wanted = 0 if long_run else 24
        reply = ask(
            3000 if long_run else 60, name=name, variant=variant, folder=str(work), wanted=wanted, seed=str(SEED)
        )
        assert "failed" not in reply, f"ROWEX_SEED={SEED}\n{reply['failed']}"
        assert reply["deaths"] > 0

    return run


@pytest.mark.parametrize("how", VARIANTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_death_at_any_store_leaves_the_state_before_or_after(
    die: Callable[[str, str], None], scenario: str, how: str
) -> None:
    """Wherever a process dies, others find all that returned, the rest whole or not at all, and go on."""
    die(scenario, how)


@pytest.mark.parametrize("scenario", GRANDCHILD)
def test_death_of_a_process_with_a_living_child_is_noticed(die: Callable[[str, str], None], scenario: str) -> None:
    """A forked child inherits descriptors, not its parent's locks: what the parent held is free."""
    die(scenario, "grandchild")
