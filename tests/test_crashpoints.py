"""
A death at each point of the core: stores to shared memory, calls on files (promise P4).  Failure
model: `kill`.  All points of all scenarios: scripts/crashpoints.

Rows A1, A2, A3, A7 and A8 of the known bugs of such systems are about exactly this: half-done
inserts, counts that are off by one, creation, lock words of the dead, leaked space.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import SEED
from crash_scenarios import SCENARIOS, variants
from tools import TESTS, clean_environment

CASES = [(name, how) for name, scenario in SCENARIOS.items() for how in variants(scenario)]
# Alone, and with few points, at every point; else a sample.
WANTED = {"alone": 16, "held": 12, "busy": 6, "grandchild": 16}
SMALL = {"alone": 64}
GRANDCHILD = ("insert into Node4", "grow 4 to 16", "split a path", "remove and merge a path", "compact")


class Driver:
    """crash_driver.py, in the test build; started anew when it hung."""

    def __init__(self, build: Path) -> None:
        self.build = build
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        """The process that answers."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", str(TESTS / "crash_driver.py")],
                env=clean_environment(self.build),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        return self.process

    def stop(self) -> None:
        """End it and all that it forked."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            self.process = None

    def ask(self, timeout_s: float, **request: Any) -> dict[str, Any]:
        """Have it run a scenario."""
        process = self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        ready = select.select([process.stdout], [], [], timeout_s)[0]
        line = process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            return {"failed": "the driver is gone" if ready else f"no answer within {timeout_s} s"}
        return dict(json.loads(line))


@pytest.fixture(scope="module")
def driver(variant: Path) -> Iterator[Driver]:
    """One driver for all scenarios."""
    started = Driver(variant)
    yield started
    started.stop()


@pytest.fixture
def die(driver: Driver, folder: Path, long_run: bool) -> Callable[[str, str], None]:
    """Runs a scenario and fails with the driver's report."""

    def run(name: str, variant: str) -> None:
        work = folder / "work"
        work.mkdir()
        wanted, timeout_s = (0, 3000) if long_run else (WANTED[variant], 60)
        small = SMALL.get(variant, 0)
        reply = driver.ask(
            timeout_s, name=name, variant=variant, folder=str(work), wanted=wanted, seed=str(SEED), small=small
        )
        assert "failed" not in reply, f"ROWEX_SEED={SEED}\n{reply['failed']}"
        assert reply["deaths"] > 0
        print(f"{reply['points']} points, {reply['deaths']} deaths at {len(reply['places'])} places")
        if variant == "alone" and not SCENARIOS[name].logged:  # nobody else does a part of the work
            assert reply["deaths"] >= reply["tried"] - 2  # but for what depends on chance, as the first look at a pool
            assert reply["tried"] == reply["points"] or reply["points"] > small or SCENARIOS[name].victim

    return run


@pytest.mark.parametrize(("scenario", "how"), CASES)
def test_death_at_any_point_leaves_the_state_before_or_after(
    die: Callable[[str, str], None], scenario: str, how: str
) -> None:
    """Wherever a process dies, others find all that returned, the rest whole or not at all, and go on."""
    die(scenario, how)


@pytest.mark.parametrize("scenario", GRANDCHILD)
def test_death_of_a_process_with_a_living_child_is_noticed(die: Callable[[str, str], None], scenario: str) -> None:
    """A forked child inherits descriptors, not its parent's locks: what the parent held is free."""
    die(scenario, "grandchild")
