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

import ctypes
import faulthandler
import gc
import json
import mmap
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from crash_busy import Busy, beside, explain, outlive, without_busy
from crash_points import ROOM, Plan, Target, choose
from crash_scenarios import SCENARIOS, Scenario, State, Step
from crash_steps import outcomes, perform, touched
from power import other_boot, without_power
from tools import TIME_SCALE, assert_same, counted, die_with_parent, leftovers, make_value, read_value

WITHIN_S = 1.0 * TIME_SCALE
WITHOUT_LOCK = shutil.ignore_patterns("*-lock")  # large, sparse, and made anew

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_arm.restype = None
_core.rx_crash_count.restype = ctypes.c_uint64
_core.rx_crash_only.argtypes = [ctypes.c_int64]
_core.rx_crash_only.restype = None
_core.rx_crash_trail.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
_core.rx_crash_trail.restype = None


# ---- one death ---------------------------------------------------------------------------


class Run:
    """One scenario in one folder."""

    def __init__(self, scenario: Scenario, variant: str, folder: Path) -> None:
        self.scenario = scenario
        self.variant = variant
        self.path = folder / "index.rowex"
        self.image = folder.parent / f"{folder.name}.image"
        self.creating = ("create",) in scenario.steps
        # Shared with the children: steps done, pid of a grandchild, points counted; the places of these.
        buffer = mmap.mmap(-1, 24 + 4 * ROOM)
        self.shared = memoryview(buffer)[:24].cast("Q")
        self.trail = memoryview(buffer)[24:].cast("i")
        _core.rx_crash_trail(ctypes.addressof(ctypes.c_uint64.from_buffer(buffer, 16)), ROOM)
        self.deaths_at: Counter[int] = Counter()
        # With others at work the log is written too; alone, every store is the victim's own.
        self.durability = "process" if variant == "alone" and not scenario.logged else "batch"
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

    def fork(self, body: Callable[[], None]) -> int:
        """Run *body* in a child and wait; the exit status, negative for a signal."""
        parent = os.getpid()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            try:
                die_with_parent(parent)
                body()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def passed(self) -> list[int]:
        """The places of the points of the last run, in order."""
        count = int(self.shared[2])
        assert count <= ROOM, f"{count} points, their places have room for {ROOM}"
        return self.trail[:count].tolist()

    def die_in(self, steps: list[Step], at: Target) -> int:
        """A child does the prelude, then the steps, and dies at a point from there on."""
        opens = steps[0][0] in ("open", "create")
        steps = [(step[0], self.path) if step[0] in ("open", "create") else step for step in steps]

        def body() -> None:
            index = None if opens else rowex.open(self.path)
            if not opens:
                for step in self.scenario.prelude:
                    index = perform(index, step)
            if self.variant == "grandchild":
                self.shared[1] = outlive()
            _core.rx_crash_only(at.place)
            _core.rx_crash_arm(at.number)
            for number, step in enumerate(steps):
                index = perform(index, step)
                self.shared[0] = number + 1
            os._exit(0)  # not a close

        self.shared[0] = self.shared[2] = 0
        status = self.fork(body)
        assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
        if status:
            self.deaths_at[self.trail[at.number - 1]] += 1
        return status

    def one(self, at: Target, victim_at: Target, look: int) -> bool:
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
            if self.shared[1]:
                os.kill(self.shared[1], signal.SIGKILL)
                self.shared[1] = 0
        return over

    def deaths(self, at: Target, victim_at: Target) -> tuple[bool, list[State]]:
        """The victim's, if there is one, and then the child's; whether that survived, what may be seen."""
        possible = [dict(self.scenario.base)]
        if self.scenario.victim and victim_at.number:
            self.die_in(self.scenario.victim, victim_at)
            possible = self.seen(possible, self.scenario.prelude, len(self.scenario.prelude))
            possible = self.seen(possible, self.scenario.victim, int(self.shared[0]))
        if self.scenario.other_boot:
            os.environ["ROWEX_BOOT_ID"] = "another"
        over = self.die_in(self.scenario.steps, at) == 0
        if self.scenario.steps[0][0] not in ("open", "create"):
            possible = self.seen(possible, self.scenario.prelude, len(self.scenario.prelude))
        return over, self.seen(possible, self.scenario.steps, int(self.shared[0]))

    def seen(self, states: list[State], steps: list[Step], acknowledged: int) -> list[State]:
        """after(), from any of several states."""
        return [state for start in states for state in self.after(start, steps, acknowledged)]

    def after(self, state: State, steps: list[Step], acknowledged: int) -> list[State]:
        """The states that may be seen when so many steps returned and the next may have begun."""
        states = [state]
        for step in steps[:acknowledged]:
            last = [outcomes(s, step) for s in states]
            states = [s for o in last for s in (o[1:] if step[0] == "popitem" else o[-1:])]
        if acknowledged < len(steps):
            states = [s for start in states for s in outcomes(start, steps[acknowledged])]
        return states

    # ---- what the others find -------------------------------------------------------

    def inspect(self, holder: Any, possible: list[State], look: int) -> None:
        """Everything that must hold after a death; *look* says what is done first, and what only now and then."""
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
            self.fork(self.leave_unclean)
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


def victims(run: Run, plan: Plan, rng: random.Random) -> list[Target]:
    """Where the victim dies; a scenario without one has one death that does not come."""
    if not run.scenario.victim:
        return [Target(0)]
    run.reset()
    holder = rowex.open(run.path) if not run.scenario.other_boot else None
    run.die_in(run.scenario.victim, Target(0))
    if holder is not None:
        holder.close()
    return choose(run.passed(), Plan(plan.wanted and max(4, plan.wanted // 4), 0, plan.places), Counter(), rng)


def run_scenario(name: str, variant: str, folder: str, seed: str, plan: dict[str, int]) -> dict[str, Any]:
    """
    Die at many points of a scenario.

    Args:
        name: Of the scenario.
        variant: "held", "busy", "alone" or "grandchild".
        folder: An empty one.
        seed: Chooses points.
        plan: How many, the fields of a Plan.

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
    for victim_at in first:
        # A count first; after a victim the operation has the reaping to do as well.
        assert run.one(Target(0), victim_at, 0), "the operation did not survive unarmed"
        trail = run.passed()
        passed.update(trail)
        told["points"] += len(trail)
        chosen = choose(trail, each, run.deaths_at, rng)
        if variant == "busy":  # it need not be as long next time: others wait for the same nodes
            chosen = [Target(1), *chosen]
        for at in chosen:
            told["tried"] += 1
            look = told["tried"] if at.place else at.number
            try:
                told["deaths"] += not run.one(at, victim_at, look)
            except BaseException as error:
                victim = f", after a victim that died at {victim_at}" if victim_at.number else ""
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
