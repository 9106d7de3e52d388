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
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from crash_busy import Busy, beside, explain, outlive, without_busy
from crash_scenarios import SCENARIOS, Scenario, State, Step
from power import other_boot, without_power
from tools import TIME_SCALE, assert_same, counted, die_with_parent, leftovers, make_value, read_value

WITHIN_S = 1.0 * TIME_SCALE
WITHOUT_LOCK = shutil.ignore_patterns("*-lock")  # large, sparse, and made anew

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_arm.restype = None
_core.rx_crash_count.restype = ctypes.c_uint64
_core.rx_crash_tell.argtypes = [ctypes.c_void_p]
_core.rx_crash_tell.restype = None
# Where the core lies, so that lines are told by their place in the file.
_BASE = ctypes.cast(_core.rx_crash_count, ctypes.c_void_p).value or 0


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
        case "durable":
            index.put(*args, durable=True)
        case "reader":
            with index.reader() as reader:
                reader.get(args[0])
        case "writer":
            with index.writer() as writer:
                writer.put(*args)
        case "thread":
            thread = threading.Thread(target=index.put, args=args)
            thread.start()
            thread.join()
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
        case "put" | "insert" | "setdefault" | "durable" | "writer" | "thread":
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
        # Shared with the children: steps done, points counted, pid of a grandchild, where it died.
        self.buffer = mmap.mmap(-1, 32)
        self.shared = memoryview(self.buffer).cast("Q")
        _core.rx_crash_tell(ctypes.addressof(ctypes.c_uint64.from_buffer(self.buffer, 24)))
        self.places: set[int] = set()
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

    def die_in(self, steps: list[Step], n: int) -> int:
        """A child does the prelude, then the steps, and dies at its n-th point from there."""
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
            os._exit(0)  # not a close

        self.shared[0] = self.shared[1] = self.shared[3] = 0
        status = self.fork(body)
        if self.shared[3]:
            self.places.add(self.shared[3] - _BASE)
        assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
        return status

    def one(self, n: int, victim_n: int = 0) -> bool:
        """Die at point *n*; True when the operation was over before it."""
        self.reset()
        busy = Busy(self.path, touched(self.scenario.steps)) if self.variant == "busy" else None
        holder = rowex.open(self.path) if self.variant in ("held", "grandchild") else None
        try:
            over, possible = self.deaths(n, victim_n)
            if busy:
                busy.end()
            self.inspect(holder, possible, n)
        finally:
            os.environ.pop("ROWEX_BOOT_ID", None)
            if busy:
                busy.cleanup()
            if self.shared[2]:
                os.kill(self.shared[2], signal.SIGKILL)
                self.shared[2] = 0
        return over

    def deaths(self, n: int, victim_n: int) -> tuple[bool, list[State]]:
        """The victim's, if there is one, and then the child's; whether that survived, what may be seen."""
        possible = [dict(self.scenario.base)]
        if self.scenario.victim and victim_n:
            self.die_in(self.scenario.victim, victim_n)
            possible = self.seen(possible, self.scenario.prelude, len(self.scenario.prelude))
            possible = self.seen(possible, self.scenario.victim, int(self.shared[0]))
        if self.scenario.other_boot:
            os.environ["ROWEX_BOOT_ID"] = "another"
        over = self.die_in(self.scenario.steps, n) == 0
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
        state = {**(self.written(state) if n % 2 else state), **self.worked(index)}
        if self.durability == "batch" and n % 4 == 1:
            self.lose_power(index, state)
        index.close()
        assert leftovers(self.path) == set()
        if n % 5 == 0:
            self.fork(self.leave_unclean)
        with rowex.open(self.path) as again:
            if n % 5 == 0:
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


def points(total: int, wanted: int, rng: random.Random) -> list[int]:
    """Points to die at: all, or so many, spread evenly from a random start."""
    if wanted == 0 or total <= wanted:
        return list(range(1, total + 1))
    stride = total / wanted
    offset = rng.random() * stride
    return sorted({min(total, int(offset + i * stride) + 1) for i in range(wanted)})


def run_scenario(name: str, variant: str, folder: str, wanted: int, seed: str, small: int = 0) -> dict[str, Any]:
    """
    Die at many points of a scenario.

    Args:
        name: Of the scenario.
        variant: "held", "busy", "alone" or "grandchild".
        folder: An empty one.
        wanted: How many deaths to try, 0 for every one.
        seed: Chooses them.
        small: Where there are so many points or fewer, every one all the same.

    Returns:
        Numbers of points (a victim's times those after it), of deaths that were tried and that
        came (an operation may be over before, when a flusher or a worker took a part of its
        work), and the places in the core where they were.
    """
    scenario = SCENARIOS[name]
    rng = random.Random(f"{seed} {name} {variant}")
    run = Run(scenario, variant, Path(folder))
    victims = [0]
    if scenario.victim:
        run.reset()
        holder = rowex.open(run.path) if not scenario.other_boot else None
        run.die_in(scenario.victim, 0)
        total = int(run.shared[1])
        if holder is not None:
            holder.close()
        victims = points(total, wanted and max(4, wanted // 4), rng)
    told: dict[str, Any] = {"points": 0, "tried": 0, "deaths": 0}
    share = wanted and max(1, wanted // len(victims))
    for victim_n in victims:
        # A count first; after a victim the operation has the reaping to do as well.
        assert run.one(0, victim_n), "the operation did not survive unarmed"
        total = int(run.shared[1])
        told["points"] += total
        chosen = points(total, share if scenario.victim or total > small else 0, rng)
        if variant == "busy":  # it need not be as long next time: others wait for the same nodes
            chosen = sorted({1, *chosen})
        for n in chosen:
            told["tried"] += 1
            try:
                told["deaths"] += not run.one(n, victim_n)
            except BaseException as error:
                victim = f", after a victim that died at its point {victim_n}" if victim_n else ""
                place = f"{run.shared[3] - _BASE:#x} from rx_crash_count"
                where = f"{name!r}, {variant}: died at point {n} of {total}{victim}, {place}"
                raise AssertionError(where) from error
    told["places"] = sorted(run.places)
    return told


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
