"""
Runs one scenario of test_crashpoints.py in the test build: an operation that dies at each of its
points in turn (stores to shared memory, calls on files), and what others find then.  The failure
model is `kill`.

A process holds the file open, or works on the same nodes all along (crash_busy.py), or nobody has
it open, and it is reopened: the startup scan.  A child does the prelude, arms the n-th point from
there, and performs the operation.  After its death the file must hold the state before or after
the step that was in flight, everything that was acknowledged, an exact length, and no fault; the
same keys and their neighbours can be written within a second; and when all is closed, every byte
below the break is in the tree or on a free list.

Requests come on stdin and answers go to stdout, as JSON, one a line.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from crash_actor import NEVER, Actor, fork, status_of
from crash_busy import Busy, beside, explain, outlive, without_busy
from crash_points import Plan, Target, choose, number_in
from crash_scenario import Scenario, State, Step
from crash_scenarios import SCENARIOS
from crash_steps import elsewhere, last_of, opens_itself, outcomes, touched
from power import other_boot, without_power
from tools import TIME_SCALE, assert_same, counted, leftovers, make_value, read_value

WITHIN_S = 1.0 * TIME_SCALE
WITHOUT_LOCK = shutil.ignore_patterns("*-lock")  # large, sparse, and made anew

# ---- one death ---------------------------------------------------------------------------


class Run:
    """One scenario in one folder."""

    def __init__(self, scenario: Scenario, variant: str, folder: Path) -> None:
        self.scenario = scenario
        self.variant = variant
        self.path = folder / "index.rowex"
        self.image = folder.parent / f"{folder.name}.image"
        self.creating = ("create",) in scenario.steps
        self.dying, self.other = Actor(), Actor()
        self.tell_child = folder.parent / "child"  # the pid of one that lives on
        self.deaths_at: Counter[int] = Counter()
        # With others at work the log is written too; alone, every store is the victim's own.
        logged = variant != "alone" if scenario.logged is None else scenario.logged
        self.durability = "batch" if logged else "process"
        os.environ.update(scenario.environment)
        if not self.creating:
            with rowex.open(self.path, durability=self.durability, **scenario.options) as index:
                index.put_many(list(scenario.base.items()))
            shutil.copytree(folder, self.image, ignore=WITHOUT_LOCK)

    def reset(self) -> None:
        """The folder as it was at first."""
        shutil.rmtree(self.path.parent)
        if self.creating:
            self.path.parent.mkdir()
        else:
            shutil.copytree(self.image, self.path.parent)
        shutil.rmtree(elsewhere(self.path).parent, ignore_errors=True)
        elsewhere(self.path).parent.mkdir()

    def start(self, actor: Actor, steps: list[Step], dies: Target = NEVER, stands: int = 0) -> None:
        """Have it do the prelude and the steps."""

        def last() -> None:
            if self.variant == "grandchild":
                self.tell_child.write_bytes(str(outlive()).encode())

        reaps = actor is self.dying and self.scenario.victim and self.scenario.role == "dies"  # from its first step on
        actor.start(self.path, [] if reaps else self.scenario.prelude, steps, dies=dies, stands=stands, last=last)

    def die(self, steps: list[Step], at: Target) -> bool:
        """A child does the steps, and dies; whether it did not."""
        self.start(self.dying, steps, at)
        return self.dead()

    def dead(self) -> bool:
        """Wait for the end of the one that dies; whether it survived."""
        over = self.dying.end() == 0
        if not over:
            self.deaths_at[self.dying.died_at()] += 1
        return over

    def one(self, at: Target, victim_at: int, look: int) -> bool:
        """Die, and look around in one of several ways; True when the operation was over before that point."""
        self.reset()
        busy = Busy(self.path, touched(self.scenario.steps)) if self.variant == "busy" else None
        holder = rowex.open(self.path) if self.variant in ("held", "grandchild") else None
        try:
            over, possible = self.deaths(at, victim_at)
            if busy:
                busy.end()
            self.inspect(holder, possible, look)
        finally:
            os.environ.pop("ROWEX_BOOT_ID", None)
            if busy:
                busy.cleanup()
            self.dying.cleanup()
            self.other.cleanup()
            if self.variant == "grandchild" and self.tell_child.exists():
                os.kill(int(self.tell_child.read_bytes()), signal.SIGKILL)
                self.tell_child.unlink()
        return over

    def deaths(self, at: Target, victim_at: int) -> tuple[bool, list[State]]:
        """The child's, after another's or with another in between; whether it survived, what may be seen."""
        scenario = self.scenario
        start = [dict(scenario.base)]
        if scenario.victim or not opens_itself(scenario.steps):
            start = self.seen(start, scenario.prelude, len(scenario.prelude))
        if scenario.role == "dies":
            if victim_at:
                self.start(self.other, scenario.victim, Target(victim_at))
                if self.other.end():
                    self.deaths_at[self.other.died_at()] += 1
                start = self.seen(start, scenario.victim, self.other.done)
            if scenario.other_boot:
                os.environ["ROWEX_BOOT_ID"] = "another"
            over = self.die(scenario.steps, at)
            return over, self.seen(start, scenario.steps, self.dying.done)
        over = self.beside(at, victim_at) if scenario.role == "stands" else self.between(at, victim_at)
        whole, done = self.other.done, self.dying.done
        first = self.seen(self.seen(start, scenario.victim, whole), scenario.steps, done)
        return over, first + self.seen(self.seen(start, scenario.steps, done), scenario.victim, whole)

    def beside(self, at: Target, stands: int) -> bool:
        """The other stands still at a point, until the one that dies has ended or has waited for a while."""
        self.start(self.other, self.scenario.victim, stands=stands)
        stopped = stands > 0 and self.other.stands_still()
        self.start(self.dying, self.scenario.steps, at)
        self.dying.ended(self.scenario.patience_s if stopped else 0)
        if stopped:
            self.other.go_on()
        over = self.dead()
        assert self.other.end() == 0
        return over

    def between(self, at: Target, victim_at: int) -> bool:
        """The one that dies stands still once, and the other does all it can meanwhile, or dies, too."""
        falls = self.scenario.role == "falls"
        self.start(self.dying, self.scenario.steps, at, 1 if falls else victim_at)
        stopped = victim_at > 0 and self.dying.stands_still()
        self.start(self.other, self.scenario.victim, Target(victim_at) if falls else NEVER)
        self.other.ended(self.scenario.patience_s if stopped else 0)
        if stopped:
            self.dying.go_on()
        over = self.dead()
        assert self.other.end() == 0 or falls
        return over

    def seen(self, states: list[State], steps: list[Step], acknowledged: int) -> list[State]:
        """after(), from any of several states."""
        return [state for start in states for state in self.after(start, steps, acknowledged)]

    def after(self, state: State, steps: list[Step], acknowledged: int) -> list[State]:
        """The states that may be seen when so many steps returned and the next may have begun."""
        states = [state]
        for step in steps[:acknowledged]:
            states = [s for each in states for s in last_of(each, step)]
        if acknowledged < len(steps):
            states = [s for start in states for s in outcomes(start, steps[acknowledged])]
        return states

    # ---- what the others find -------------------------------------------------------

    def inspect_copy(self) -> None:
        """A copy is there, and of one moment, or it is not there."""
        other = elsewhere(self.path)
        if not other.exists():
            return
        if not self.path.exists():  # it was on its way back
            rowex.rename(other, self.path)
            return
        begun = self.along([dict(self.scenario.base)], self.scenario.prelude)[-1:]
        steps, others = self.scenario.steps, self.scenario.victim
        start = self.along(self.along(begun, others), steps) + self.along(self.along(begun, steps), others)
        built = [
            dict(step[1][:i]) for step in self.scenario.steps if step[0] == "build" for i in range(len(step[1]) + 1)
        ]
        with rowex.open(other) as copy:
            copy.check()
            assert without_busy(dict(copy.scan())) in [*start, *built]

    def along(self, states: list[State], steps: list[Step]) -> list[State]:
        """All states on the way."""
        every = list(states)
        for step in steps:
            every += [after for state in states for after in outcomes(state, step)]
            states = [after for state in states for after in last_of(state, step)]
        return every

    def inspect(self, holder: Any, possible: list[State], look: int) -> None:
        """Everything that must hold after a death; *look* says what is done first, and what only now and then."""
        self.inspect_copy()
        started = time.monotonic()
        index = holder if holder is not None else rowex.open(self.path)
        if look % 2:
            state = self.recognise(index, possible)
            self.write(index, state)
        else:
            self.write_unseen(index, possible)
            state = self.recognise(index, [self.written(s) for s in possible])
        if look % 3 == 0:
            index.check()
        assert time.monotonic() - started < 20 * TIME_SCALE
        state = {**(self.written(state) if look % 2 else state), **self.worked(index)}
        if self.durability == "batch" and look % 4 == 1:
            self.lose_power(index, state)
        index.close()
        assert leftovers(self.path) == set()
        if look % 5 == 0:
            assert status_of(fork(self.leave_unclean)) == 0
        with rowex.open(self.path) as again:
            if look % 5 == 0:
                told = again.stats()
                assert told.scans == 1
                lost = told.unused_bytes + told.retired_bytes  # the end of an extent may be too small for a cell
                assert lost <= 8 * (told.file_bytes >> 16), f"{lost} bytes leaked"
            assert_same(again, state)  # its check() knows of every cell where it is

    def leave_unclean(self) -> None:
        """Write, and end without a close: the next to open it scans."""
        index = rowex.open(self.path)
        index.put(b"unclean", b"")
        index.remove(b"unclean")
        os._exit(0)

    def worked(self, index: Any) -> State:
        """What the worker has left: every key of its own, whole."""
        if self.variant != "busy":
            return {}
        keys = beside(touched(self.scenario.steps))
        found = dict(zip(keys, index.get_many(keys), strict=True))
        for key, value in found.items():
            assert value is not None, f"the worker's {key!r} is lost"
            read_value(key, value)
        return found

    def lose_power(self, index: Any, state: State) -> None:
        """What is durable, recovered on a machine that was switched on again."""
        index.flush()
        folder = self.path.parent.parent / "recovered"
        before = os.environ.get("ROWEX_BOOT_ID")
        off = without_power(self.path, folder)
        try:
            with other_boot(), rowex.open(off) as again:
                assert_same(again, state)
        finally:
            if before is not None:
                os.environ["ROWEX_BOOT_ID"] = before
            shutil.rmtree(folder)

    def recognise(self, index: Any, possible: list[State]) -> State:
        """Which of the possible states it is; the length is exact at once."""
        length = len(index)
        found = dict(index.scan())
        assert length == len(found) == counted(index), f"len {length}, scan {len(found)}"
        assert list(index.scan(reverse=True)) == sorted(found.items(), reverse=True)
        found = without_busy(found)
        assert found in possible, explain(found, possible)
        for key in touched(self.scenario.steps):
            assert index.get(key) == found.get(key)
        return found

    def neighbours(self) -> list[bytes]:
        """The same keys, and others that hang on the same nodes."""
        same = touched([*self.scenario.steps, *self.scenario.prelude])
        return [*same, *(key[:-1] + b"~" for key in same if key), *(key + b"~" for key in same)]

    def written(self, state: State) -> State:
        """The state after write()."""
        return {**state, **{key: make_value(key, 77) for key in self.neighbours()}}

    def write_unseen(self, index: Any, possible: list[State]) -> None:
        """Write first, look later: the writes meet what the dead left."""
        self.write(index, possible[0])

    def write(self, index: Any, state: State) -> None:
        """Every write comes back within a second."""
        for key in self.neighbours():
            started = time.monotonic()
            index.put(key, make_value(key, 77))
            took = time.monotonic() - started
            assert took < WITHIN_S, f"put({key[:40]!r}) took {took:.3f} s"
        assert len(index) == counted(index)


# ---- all deaths ------------------------------------------------------------------------------


def victims(run: Run, plan: Plan, rng: random.Random) -> list[int]:
    """Where the other dies, or one of the two stands still; without another there is one such run."""
    scenario = run.scenario
    if not scenario.victim:
        return [0]
    run.reset()
    holder = None if scenario.other_boot or opens_itself(scenario.victim) else rowex.open(run.path)
    run.start(run.other, scenario.steps if scenario.role == "comes" else scenario.victim)
    assert run.other.end() == 0
    if holder is not None:
        holder.close()
    trail = run.other.passed()
    return [number_in(trail, target) for target in choose(trail, plan.first(), Counter(), rng)]


def run_scenario(
    name: str, variant: str, folder: str, seed: str, plan: dict[str, int], before: list[tuple[int, int]] | None = None
) -> dict[str, Any]:
    """
    Die at many points of a scenario.

    Args:
        name: Of the scenario.
        variant: "held", "busy", "alone" or "grandchild".
        folder: An empty one.
        seed: Chooses points.
        plan: How many, the fields of a Plan.
        before: Places and deaths there in other scenarios, which count.

    Returns:
        Numbers of points (a victim's times those after it), of deaths that were tried and that
        came (an operation may be over before, when a flusher or a worker took a part of its
        work), the places in the core that were passed, and the deaths at each.
    """
    scenario = SCENARIOS[name]
    rng = random.Random(f"{seed} {name} {variant}")
    run = Run(scenario, variant, Path(folder))
    whole = Plan(**plan)
    first = victims(run, whole, rng)
    each = whole.share(len(first)) if scenario.victim else whole
    told: dict[str, Any] = {"points": 0, "tried": 0, "deaths": 0}
    passed: set[int] = set()
    others = Counter(dict(before or []))
    for victim_at in first:
        # A count first; after a victim the operation has the reaping to do as well.
        assert run.one(Target(0), victim_at, 0), "the operation did not survive unarmed"
        trail = run.dying.passed()
        passed.update(trail)
        told["points"] += len(trail)
        chosen = choose(trail, each, run.deaths_at + others, rng)
        if variant == "busy" and not before:  # it need not be as long next time: others wait for the same nodes
            chosen = [Target(1), *chosen]
        for at in chosen:
            told["tried"] += 1
            look = told["tried"] if at.place else at.number
            try:
                told["deaths"] += not run.one(at, victim_at, look)
            except BaseException as error:
                victim = f", another {scenario.role} at its point {victim_at}" if victim_at else ""
                where = f"{name!r}, {variant}: died at {at} of {len(trail)}{victim}, look {look}"
                raise AssertionError(where) from error
    return {**told, "passed": sorted(passed), "places": sorted(run.deaths_at.items())}


def answer(request: dict[str, Any]) -> None:
    """Run one request in a process of its own, which prints the answer."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            reply: dict[str, Any] = dict(run_scenario(**request))
        except BaseException:
            reply = {"failed": traceback.format_exc()}
        print(json.dumps(reply), flush=True)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        print(json.dumps({"failed": f"the driver ended with status {status}"}), flush=True)


def main() -> None:
    """Answer requests, one a line, until there are no more."""
    faulthandler.enable()
    gc.freeze()
    for line in sys.stdin:
        answer(json.loads(line))


if __name__ == "__main__":
    main()
