"""
A death at each point of the core: stores to shared memory, calls on files (promise P4).  Failure
model: `kill`.  All points of all scenarios: scripts/crashpoints.

Rows A1, A2, A3, A7 and A8 of the known bugs of such systems are about exactly this: half-done
inserts, counts that are off by one, creation, lock words of the dead, leaked space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import SEED
from crash_client import Driver
from crash_scenario import variants
from crash_scenarios import SCENARIOS

# Where one stands still for seconds: scripts/crashpoints.
CASES = [(name, how) for name, each in SCENARIOS.items() for how in variants(each) if each.patience_s < 1]
# Alone, and with few points, at every point; else a sample, of as many places as it can be.
WANTED = {"alone": 6, "held": 5, "busy": 3, "grandchild": 6}
WANTED_OF_TWO = 2
SMALL = {"alone": 32}
GRANDCHILD = ("insert into Node4", "grow 4 to 16", "split a path", "remove and merge a path", "compact")


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
        if wanted and SCENARIOS[name].role != "dies":
            wanted = WANTED_OF_TWO
        small = SMALL.get(variant, 0)
        plan = {"wanted": wanted, "small": small}
        reply = driver.ask(timeout_s, name=name, variant=variant, folder=str(work), seed=str(SEED), plan=plan)
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
