"""
Runs one scenario of test_crashpoints.py in the test build: an operation that dies at each of its
stores to shared memory in turn, and what others find then.  The failure model is `kill`.

A process holds the file open (or nobody does, and the file is reopened: the startup scan).  A
child does the prelude, arms the n-th store from there, and performs the operation.  After its
death the file must hold the state before or after the step that was in flight, everything that
was acknowledged, an exact length, and no fault; the same keys and their neighbours can be written
within a second.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from crash_scenarios import SCENARIOS, Scenario, State, Step
from tools import TIME_SCALE, assert_same, counted, die_with_parent, leftovers, make_value

WITHIN_S = 1.0 * TIME_SCALE
WITHOUT_LOCK = shutil.ignore_patterns("*-lock")  # large, sparse, and made anew

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_arm.restype = None
_core.rx_crash_count.restype = ctypes.c_uint64


# ---- steps and the states that they may leave ---------------------------------------


def perform(index: Any, step: Step) -> Any:
    """Do one step; answers the index to go on with."""
    name, *args = step
    match name:
        case "remove":
            index.remove(args[0])
        case "cas":
            assert index.compare_and_set(*args)
        case "open" | "create":
            return rowex.open(args[0])
        case "batch":
            with index.batch() as batch:
                for key, value in args[0]:
                    batch.remove(key) if value is None else batch.put(key, value)
        case _:
            getattr(index, name)(*args)
    return index


def outcomes(state: State, step: Step) -> list[State]:
    """The states that the step goes through, the one before it first and the one after it last."""
    name, *args = step
    match name:
        case "put" | "insert" | "setdefault":
            return [state, {**state, args[0]: args[1]}]
        case "remove" | "pop":
            return [state, without(state, args[0])]
        case "popitem":
            return [state, *(without(state, key) for key in state)]
        case "cas":
            return [state, without(state, args[0]) if args[2] is None else {**state, args[0]: args[2]}]
        case "batch":
            changed = {**state, **dict(args[0])}
            return [state, {key: value for key, value in changed.items() if value is not None}]
        case "put_many":
            return [{**state, **dict(args[0][:i])} for i in range(len(args[0]) + 1)]
        case "remove_many":
            return [without(state, *args[0][:i]) for i in range(len(args[0]) + 1)]
        case _:
            return [state]


def without(state: State, *gone: bytes) -> State:
    """The state less some keys."""
    return {key: value for key, value in state.items() if key not in gone}


def touched(steps: list[Step]) -> list[bytes]:
    """The keys that the steps are about."""
    found: dict[bytes, None] = {}
    for _, *args in steps:
        for arg in args:
            for item in arg if isinstance(arg, list) else [arg]:
                key = item[0] if isinstance(item, tuple) else item
                if isinstance(key, bytes) and arg is args[0]:
                    found[key] = None
    return list(found)[:6]


# ---- one death ---------------------------------------------------------------------------


class Run:
    """One scenario in one folder."""

    def __init__(self, scenario: Scenario, variant: str, folder: Path) -> None:
        self.scenario = scenario
        self.variant = variant
        self.path = folder / "index.rowex"
        self.image = folder.parent / f"{folder.name}.image"
        self.creating = ("create",) in scenario.steps
        # Shared with the children: steps done, stores counted, pid of a grandchild.
        self.shared = memoryview(mmap.mmap(-1, 24)).cast("Q")
        # With others at work the log is written too; alone, every store is the victim's own.
        self.durability = "process" if variant == "alone" else "batch"
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

    def die_in(self, steps: list[Step], n: int) -> int:
        """A child does the prelude, then the steps, and dies at its n-th store from there."""
        opens = steps[0][0] in ("open", "create")
        steps = [(step[0], self.path) if step[0] in ("open", "create") else step for step in steps]

        def body() -> None:
            index = None if opens else rowex.open(self.path)
            if not opens:
                for step in self.scenario.prelude:
                    index = perform(index, step)
            if self.variant == "grandchild":
                self.shared[2] = outlive()
            _core.rx_crash_arm(n)
            for number, step in enumerate(steps):
                index = perform(index, step)
                self.shared[0] = number + 1
            self.shared[1] = _core.rx_crash_count()

        self.shared[0] = self.shared[1] = 0
        return self.fork(body)

    def one(self, n: int, victim_n: int = 0) -> bool:
        """Die at store *n*; True when the operation was over before it."""
        self.reset()
        holder = rowex.open(self.path) if self.variant != "alone" else None
        before = dict(self.scenario.base)
        possible = [before]
        if self.scenario.victim and victim_n:
            status = self.die_in(self.scenario.victim, victim_n)
            assert status in (0, -signal.SIGKILL), f"the victim ended with {status}"
            done = int(self.shared[0])
            possible = self.after(before, [*self.scenario.prelude], len(self.scenario.prelude))
            possible = [s for start in possible for s in self.after(start, self.scenario.victim, done)]
        status = self.die_in(self.scenario.steps, n)
        assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
        acknowledged = int(self.shared[0])
        possible = [
            state
            for start in possible
            for ready in self.after(start, self.scenario.prelude, len(self.scenario.prelude))
            for state in self.after(ready, self.scenario.steps, acknowledged)
        ]
        try:
            self.inspect(holder, possible, n)
        finally:
            if self.shared[2]:
                os.kill(self.shared[2], signal.SIGKILL)
                self.shared[2] = 0
        return status == 0

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

    def inspect(self, holder: Any, possible: list[State], n: int) -> None:
        """Everything that must hold after a death."""
        started = time.monotonic()
        index = holder if holder is not None else rowex.open(self.path)
        if n % 2:
            state = self.recognise(index, possible)
            self.write(index, state)
        else:
            self.write_unseen(index, possible)
            state = self.recognise(index, [self.written(s) for s in possible])
        if n % 3 == 0:
            index.check()
        assert time.monotonic() - started < 20 * TIME_SCALE
        if self.durability == "batch" and n % 4 == 1:
            self.lose_power(index, self.written(state) if n % 2 else state)
        index.close()
        assert leftovers(self.path) == set()
        with rowex.open(self.path) as again:
            assert_same(again, self.written(state) if n % 2 else state)

    def lose_power(self, index: Any, state: State) -> None:
        """What is durable, recovered on a machine that was switched on again."""
        index.flush()
        folder = self.path.parent.parent / "recovered"
        shutil.copytree(self.path.parent, folder, ignore=WITHOUT_LOCK)
        os.environ["ROWEX_BOOT_ID"] = "another"
        try:
            with rowex.open(folder / self.path.name) as again:
                assert_same(again, state)
                again.check()
        finally:
            del os.environ["ROWEX_BOOT_ID"]
            shutil.rmtree(folder)

    def recognise(self, index: Any, possible: list[State]) -> State:
        """Which of the possible states it is; the length is exact at once."""
        length = len(index)
        found = dict(index.scan())
        assert length == len(found) == counted(index), f"len {length}, scan {len(found)}"
        assert found in possible, explain(found, possible)
        assert list(index.scan(reverse=True)) == sorted(found.items(), reverse=True)
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


def outlive() -> int:
    """Fork a process that inherits all that this one holds, and lives on after it; its pid."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        while True:
            signal.pause()
    return pid


def explain(found: State, possible: list[State]) -> str:
    """How the state differs from the nearest one that was allowed."""

    def difference(state: State) -> list[str]:
        return [
            f"{key[:40]!r}: {found.get(key, b'absent')[:24]!r}, not {state.get(key, b'absent')[:24]!r}"
            for key in sorted({*found, *state})
            if found.get(key) != state.get(key)
        ]

    nearest = min((difference(state) for state in possible), key=len)
    return f"{len(possible)} states were possible; against the nearest: " + "; ".join(nearest[:5])


# ---- all deaths ------------------------------------------------------------------------------


def points(total: int, wanted: int, rng: random.Random) -> list[int]:
    """Store numbers to die at: all, or so many spread evenly from a random start."""
    if wanted == 0 or total <= wanted:
        return list(range(1, total + 1))
    stride = total / wanted
    offset = rng.random() * stride
    return sorted({min(total, int(offset + i * stride) + 1) for i in range(wanted)})


def run_scenario(name: str, variant: str, folder: str, wanted: int, seed: str) -> dict[str, int]:
    """
    Die at many stores of a scenario.

    Args:
        name: Of the scenario.
        variant: "held", "alone" or "grandchild".
        folder: An empty one.
        wanted: How many deaths to try, 0 for every store.
        seed: Chooses them.

    Returns:
        The number of deaths and of stores.
    """
    scenario = SCENARIOS[name]
    rng = random.Random(f"{seed} {name} {variant}")
    run = Run(scenario, variant, Path(folder))
    victims = [0]
    if scenario.victim:
        run.reset()
        holder = rowex.open(run.path)
        assert run.die_in(scenario.victim, 0) == 0
        total = int(run.shared[1])
        holder.close()
        victims = points(total, wanted // 4, rng)
    deaths = 0
    for victim_n in victims:
        # A count first; after a victim the operation has the reaping to do as well.
        assert run.one(0, victim_n), "the operation did not survive unarmed"
        total = int(run.shared[1])
        for n in points(total, wanted and max(1, wanted // len(victims)), rng):
            try:
                deaths += not run.one(n, victim_n)
            except BaseException as error:
                victim = f", after a victim that died at its store {victim_n}" if victim_n else ""
                where = f"{name!r}, {variant}: died at store {n} of {total}{victim}"
                raise AssertionError(where) from error
    return {"deaths": deaths, "stores": total}


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
