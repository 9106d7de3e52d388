"""
A death at each point of the core: stores to shared memory, calls on files (promise P4).  Failure
model: `kill`.  All points of all scenarios: scripts/crashpoints.

Rows A1, A2, A3, A7 and A8 of the known bugs of such systems are about exactly this: half-done
inserts, counts that are off by one, creation, lock words of the dead, leaked space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from conftest import SEED
from crash_client import Driver
from crash_operations import OPERATIONS, documented, scenarios_of
from crash_scenario import variants
from crash_scenarios import SCENARIOS

# Where one stands still for seconds: scripts/crashpoints.
CASES = [(name, how) for name, each in SCENARIOS.items() for how in variants(each) if each.patience_s < 1]
# Alone, and with few points, at every point; else a sample, of as many places as it can be.
WANTED = {"alone": 4, "held": 4, "busy": 2, "grandchild": 4}
WANTED_OF_TWO = 2
SMALL = {"alone": 24}
CHANCES = 3  # the rehearsal may have gone another way, or another thread come to all of the few places
GRANDCHILD = ("insert into Node4", "grow 4 to 16", "split a path", "remove and merge a path", "compact")

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "proof.md"
# What is asked for: a death at each store of each of these.
ASKED = """insert into each kind of node, growth and shrink of a node, split and merge of a path, replace, remove,
    compare-and-set, batch commit, settle, retire, reuse, extent taken, uid taken and returned, reaping,
    growth in place, copy and rename, checkpoint, compaction, clean close, first write after a clean open, recovery"""


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
        wanted, timeout_s = (0, 3000) if long_run else (WANTED[variant], 60)
        if wanted and SCENARIOS[name].role != "dies":
            wanted = WANTED_OF_TWO
        small = SMALL.get(variant, 0)
        plan = {"wanted": wanted, "small": small}
        lone = variant == "alone" and not SCENARIOS[name].logged  # nobody else does a part of the work
        for chance in range(CHANCES):
            work = folder / f"work{chance}"
            work.mkdir()
            seed = f"{SEED}.{chance}" if chance else str(SEED)
            reply = driver.ask(timeout_s, name=name, variant=variant, folder=str(work), seed=seed, plan=plan)
            assert "failed" not in reply, f"ROWEX_SEED={SEED}\n{reply['failed']}"
            # All but for what depends on chance, as the first look at a pool.
            enough = reply["deaths"] > 0 and (not lone or reply["deaths"] >= reply["tried"] - 2)
            if enough:
                break
        assert enough, reply
        print(f"{reply['points']} points, {reply['deaths']} deaths at {len(reply['places'])} places")
        if lone:
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


def test_every_operation_has_a_scenario_and_every_scenario_an_operation() -> None:
    """None of what is asked for is left out; none of the scenarios, and no pattern, is about nothing."""
    assert [each.strip() for each in ASKED.replace("\n", " ").split(",")] == list(OPERATIONS)[: ASKED.count(",") + 1]
    of = {operation: scenarios_of(operation) for operation in OPERATIONS}
    assert [operation for operation, names in of.items() if not names] == []
    assert set(SCENARIOS) - {name for names in of.values() for name in names} == set()
    patterns = [pattern for each in OPERATIONS.values() for pattern in each]
    assert [each for each in patterns if not any(fnmatchcase(name, each) for name in SCENARIOS)] == []


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the documents are not beside the tests")
def test_documented_table_of_scenarios_is_that_of_these() -> None:
    """Nobody has to remember it: after a change, `scripts/crashpoints --document`."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert documented(text) == text
