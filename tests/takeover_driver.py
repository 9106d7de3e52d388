"""
Scenarios of test_takeover.py, in the test build: a process stands still or dies at each of its
points in turn (crash.h), others work meanwhile and take over what it held, and it wakes.

    takeover_driver.py SCENARIO FOLDER          prints how many points the scenario met
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from tools import Child, as_somebody_else, assert_same, die_with_parent, leftovers, refusal

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_crash_count.restype = ctypes.c_uint64
_core.rx_fault_arm.argtypes = [ctypes.c_char_p]
_core.rx_crash_arm.restype = _core.rx_crash_stop.restype = _core.rx_fault_arm.restype = None

KEYS = {b"k%03d" % i: b"v%03d" % i for i in range(200)}
PLAIN: dict[str, Any] = {"durability": "process"}
REAPER_POINTS = 24  # until it has the proof of the death and looks at the generation
DEATHS = (12,)  # points of a put behind its commit, before it has disarmed
STATE_AT, CLEAN = 256, 1  # of the superblock


def wake(process: Child) -> Any:
    """Let it go on to its end; what it says."""
    process.go_on()
    answer = process.recv()
    process.finish()
    return answer


def fresh(folder: Path, **options: Any) -> Path:
    """A new index of KEYS, closed, alone in its folder."""
    shutil.rmtree(folder / "at", ignore_errors=True)
    path = folder / "at" / "index.rowex"
    path.parent.mkdir(mode=0o777)
    with rowex.open(path, **(options or PLAIN)) as index:
        index.put_many(KEYS.items())
    return path


def state_of(path: Path) -> int:
    """The state in the superblock, 1 for closed cleanly."""
    return path.read_bytes()[STATE_AT]


def sweep(one: Callable[[int], bool], first: int = 1) -> int:
    """Call it with 1, 2, ... until it says that there are not so many points; how many there are."""
    at = first
    while one(at):
        at += 1
    return at - 1


def last_points(folder: Path, before_last: int, more: dict[bytes, bytes] | None = None) -> int:
    """The number of the point of a compaction, after *more* was put, that has so many after it."""

    def count(pipe: Any) -> None:
        with rowex.open(path) as mine:
            mine.put_many((more or {}).items())
            _core.rx_crash_arm(0)
            mine.compact()
            pipe.send(_core.rx_crash_count())

    path = fresh(folder)
    process = Child(count)
    total: int = process.recv()
    process.finish()
    return max(1, total - before_last)


def compact(pipe: Any, path: Path, at: int) -> None:
    """Copy the file; stands still at point `at`. Says the exception's name."""
    with rowex.open(path) as mine:
        told = ""
        pipe.send("open")
        pipe.recv()
        _core.rx_crash_stop(at, 1)
        try:
            mine.compact()
        except rowex.RowexError as error:
            told = type(error).__name__
        _core.rx_crash_arm(0)
        pipe.send(told)
        with contextlib.suppress(rowex.RowexError):
            mine.close()


def start_compact(path: Path, at: int) -> tuple[Child, bool]:
    """A process that copies; whether it stands still at its point `at`."""
    process = Child(compact, path, at)
    assert process.recv() == "open"
    process.send("go")
    return process, process.stands_still()


# ---- scenarios: each answers how many points it met ------------------------------------


def step(folder: Path) -> int:
    """A copier that stands still, then dies, at each of its last points."""
    more = {b"m%d" % i: b"1" for i in range(50)}
    expected = {**KEYS, **more}

    def one(at: int) -> bool:
        path = fresh(folder)
        index = rowex.open(path)
        index.put_many(more.items())  # counted beside those that the file began with
        process, stopped = start_compact(path, at)
        assert len(index) == len(expected), f"beside a copier at point {at}"
        process.kill()
        assert len(index) == len(expected), f"after the death of a copier at point {at}"
        index.close()
        assert state_of(path) == CLEAN, f"not closed cleanly after a death at point {at}"
        assert leftovers(path) == set(), f"after a death at point {at}"
        with rowex.open(path) as again:
            assert_same(again, expected)
        process.cleanup()
        return stopped

    first = last_points(folder, 40, more)
    return sweep(one, first) - first


def replaced(folder: Path) -> int:
    """Mode "n" beside a copier that stands still at each of its last points, and wakes then."""
    new = {b"n%d" % i: b"2" for i in range(50)}

    def one(at: int) -> bool:
        path = fresh(folder)
        process, stopped = start_compact(path, at)
        with rowex.open(path, "n", **PLAIN) as index:
            index.put_many(new.items())
            if stopped:
                process.go_on()
            process.recv()
            process.finish()
            assert_same(index, new)
        process.cleanup()
        with rowex.open(path) as again:
            assert dict(again.scan()) == new, f"the copier stood still at point {at}"
        assert leftovers(path) == set(), f"the copier stood still at point {at}"
        return stopped

    first = last_points(folder, 30)
    return sweep(one, first) - first


def finished(folder: Path) -> int:
    """A copier that stands still at each of its last points while another opens: one copy is enough."""

    def one(at: int) -> bool:
        path = fresh(folder)
        with rowex.open(path) as index:
            process, stopped = start_compact(path, at)
            other = Child(join, path)
            other.finish()
            other.cleanup()
            if stopped:
                process.go_on()
            assert process.recv() == "", f"it stood still at point {at}"
            process.finish()
            process.cleanup()
            assert index.stats().generation == 2, f"the copier stood still at point {at}"
            assert_same(index, KEYS)
        return stopped

    first = last_points(folder, 30)
    return sweep(one, first) - first


def join(pipe: Any, path: Path) -> None:
    """Open it and read."""
    with rowex.open(path, "w") as mine:
        assert mine[b"k001"] == KEYS[b"k001"]


def readonly(folder: Path) -> int:
    """A writer dies at each of its points; who may only read opens, counts and closes."""
    folder.chmod(0o777)

    def look(pipe: Any, path: Path) -> None:
        as_somebody_else()
        with rowex.open(path, "r") as mine:
            assert mine[b"k001"] == KEYS[b"k001"]
            assert len(mine) in (len(KEYS), len(KEYS) + 1)

    def one(at: int) -> bool:
        path = fresh(folder)
        path.parent.chmod(0o777)
        with rowex.open(path) as index:
            index[b"k000"] = KEYS[b"k000"]
            victim = Child(put_and_die, path, at)
            died = victim.wait() == -signal.SIGKILL
            path.chmod(0o444)
            Path(f"{path}-lock").chmod(0o666)
            reader = Child(look, path)
            reader.finish()
            index[b"k002"] = KEYS[b"k002"]
            index.check()
            victim.cleanup()
            reader.cleanup()
        return died

    return sweep(one)


def put_and_die(pipe: Any, path: Path, at: int) -> None:
    """Put a new key."""
    with rowex.open(path, "w") as mine:
        mine[b"k000"] = KEYS[b"k000"]
        _core.rx_crash_arm(at)
        mine[b"new"] = b"1"
        _core.rx_crash_arm(0)


def mark(folder: Path) -> int:
    """Who marks the file "in use" dies at each of its points; the next, for whom no sync succeeds, changes nothing."""

    def begin(pipe: Any, path: Path, at: int) -> None:
        with rowex.open(path) as mine:
            _core.rx_crash_arm(at)
            mine[b"new"] = b"1"
            _core.rx_crash_arm(0)

    def go_on(pipe: Any, path: Path) -> None:
        _core.rx_fault_arm(b"msync:1+:%d" % errno.EIO)
        refusal(lambda: rowex.open(path).put(b"more", b"1"), OSError)

    def one(at: int) -> bool:
        path = fresh(folder)
        first = Child(begin, path, at)
        died = first.wait() == -signal.SIGKILL
        first.cleanup()
        before = counted_plainly(path)
        second = Child(go_on, path)
        second.finish()
        second.cleanup()
        assert counted_plainly(path) == before, f"changed after a death at point {at}"
        return died

    return sweep(one)


def counted_plainly(path: Path) -> bytes:
    """All bytes behind the superblock's page."""
    return path.read_bytes()[4096:]


def handler(folder: Path, what: str) -> int:
    """A signal handler that runs in the midst of a copy, and uses the index."""
    path = fresh(folder)
    large = {b"l%06d" % i: bytes(2000) for i in range(30_000)}

    def work(pipe: Any) -> None:
        during: list[bool] = []

        def handle(number: int, frame: Any) -> None:
            during.append(any("-copy-" in name for name in leftovers(path)))
            if what == "put":
                mine.put(b"from the handler", b"1")
            else:
                mine.get(b"k001")
                with contextlib.suppress(rowex.RowexError):
                    mine.close()

        with rowex.open(path) as mine:
            mine.put_many(large.items())
            signal.signal(signal.SIGUSR1, handle)
            _core.rx_crash_stop(2000, 1)
            with contextlib.suppress(rowex.RowexError):
                mine.compact()
        pipe.send(during)

    process = Child(work)
    assert process.stands_still()
    process.signal(signal.SIGUSR1)
    process.go_on()
    assert process.recv(20) == [True]
    process.finish()
    process.cleanup()
    with rowex.open(path) as index:
        assert_same(index, {**KEYS, **large, **({b"from the handler": b"1"} if what == "put" else {})})
    return 1


def handler_put(folder: Path) -> int:
    """It puts: the copy is given up, and made anew."""
    return handler(folder, "put")


def handler_close(folder: Path) -> int:
    """It closes: that is refused, or done when the copy is."""
    return handler(folder, "close")


def reused(folder: Path) -> int:
    """A copier stands still among the leaves; its gate is taken, and the cells it is to read are reused."""
    path = fresh(folder)
    process, stopped = start_compact(path, 100)
    assert stopped
    expected = {}
    with rowex.open(path) as index:
        for turn in range(5):
            for key in sorted(KEYS, reverse=turn % 2 == 0):
                index.discard(key)
            for i in reversed(range(200)):
                expected[b"k%03d" % (199 - i)] = b"w%03d" % i
                index[b"k%03d" % (199 - i)] = b"w%03d" % i
        told = wake(process)
        assert told != "CorruptionError"
        assert_same(index, expected)
    process.cleanup()
    return 1


def stale_map(folder: Path) -> int:
    """
    Who is about to reap stands still at each of its points; meanwhile its victim compacts,
    writes in the new generation and dies there.
    """

    def victim(pipe: Any, path: Path, at: int) -> None:
        mine = rowex.open(path, "w")
        mine[b"q"] = b"1"
        pipe.send("ready")
        pipe.recv()
        mine.compact()
        mine[b"q"] = b"2"
        _core.rx_crash_arm(at)
        mine[b"new"] = b"1"
        os._exit(0)

    def reaper(pipe: Any, path: Path, at: int, early: bool) -> None:
        mine = rowex.open(path, "w") if early else None
        _core.rx_crash_stop(at, 1)
        if mine is None:
            mine = rowex.open(path, "w")
        mine.stats()
        _core.rx_crash_arm(0)
        pipe.send("reaped")
        pipe.recv()
        os._exit(0)

    def one(at: int, dies_at: int, early: bool) -> bool:
        path = fresh(folder)
        where = f"the reaper at point {at}, the victim at {dies_at}, opened before: {early}"
        with rowex.open(path) as index:
            index[b"k000"] = KEYS[b"k000"]
            dead = Child(victim, path, dies_at)
            dead.recv()
            other = Child(reaper, path, at, early)
            stopped = other.stands_still()
            dead.send("go")
            died = dead.wait() == -signal.SIGKILL
            assert died, "the victim has not so many points"
            if stopped:
                other.go_on()
            assert other.recv() == "reaped", where
            expected = {**KEYS, b"q": b"2"}
            if b"new" in index:
                expected[b"new"] = b"1"
            for i in range(60):
                expected[b"n%02d" % i] = b"1"
                index[b"n%02d" % i] = b"1"
            with contextlib.ExitStack() as stack:
                writers = [stack.enter_context(index.writer()) for _ in range(3)]
                for i in range(60):
                    expected[b"o%02d" % i] = b"1"
                    writers[i % 3].put(b"o%02d" % i, b"1")
            try:
                assert_same(index, expected)
            except (AssertionError, rowex.RowexError) as error:
                raise AssertionError(where) from error
        for process in (dead, other):
            process.cleanup()
        return stopped

    for dies_at in DEATHS:
        for early in (False, True):
            for at in range(1, REAPER_POINTS + 1):
                assert one(at, dies_at, early)
    return REAPER_POINTS


SCENARIOS: dict[str, Callable[[Path], int]] = {
    one.__name__: one
    for one in (step, replaced, finished, readonly, mark, handler_put, handler_close, reused, stale_map)
}


def main(scenarios: dict[str, Callable[[Path], int]], scenario: str, folder: str) -> None:
    """Run one of them."""
    die_with_parent(os.getppid())
    faulthandler.dump_traceback_later(75, exit=True)
    print(scenarios[scenario](Path(folder)))


if __name__ == "__main__":
    main(SCENARIOS, *sys.argv[1:])
