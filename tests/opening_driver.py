"""
More scenarios of test_takeover.py, of takeover_driver.py's kind: who opens, and who makes a checkpoint.

    opening_driver.py SCENARIO FOLDER          prints how many points the scenario met
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from power import recovered, without_power
from takeover_driver import KEYS, PLAIN, fresh, last_points, start_compact, sweep
from tools import Child, assert_same, die_with_parent

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_crash_arm.restype = _core.rx_crash_stop.restype = None


def renamed_at(folder: Path) -> int:
    """The first point of a compaction behind its rename."""
    at = last_points(folder, 40)
    while True:
        path = fresh(folder)
        before = path.stat().st_ino
        with rowex.open(path):
            process, stopped = start_compact(path, at)
            assert stopped
            after = path.stat().st_ino
            process.cleanup()
        if after != before:
            return at
        at += 1


def start_open(path: Path, mode: str, at: int) -> tuple[Child, bool]:
    """A process that opens it; whether it stands still at its point `at`."""

    def work(pipe: Any) -> None:
        _core.rx_crash_stop(at, 1)
        mine = rowex.open(path, mode, **(PLAIN if mode == "n" else {}))
        _core.rx_crash_arm(0)
        pipe.send(dict(mine))
        mine.close()

    process = Child(work)
    return process, process.stands_still()


def opener(folder: Path) -> int:
    """A copier died behind its rename, who opens stands still at each of its points: those on the old file go on."""
    dies_at = renamed_at(folder)

    def one(at: int) -> bool:
        path = fresh(folder)
        with rowex.open(path) as index:
            assert index[b"k001"] == KEYS[b"k001"]
            copier, _ = start_compact(path, dies_at)
            copier.kill()
            process, stopped = start_open(path, "w", at)
            assert index[b"k001"] == KEYS[b"k001"], f"the opener stands still at point {at}"
            assert_same(index, KEYS)
            if stopped:
                process.go_on()
            assert process.recv() == KEYS
            process.finish()
            process.cleanup()
            copier.cleanup()
        return stopped

    return sweep(one)


def new_one(folder: Path) -> int:
    """Mode "n" stands still at each of its points, a copier right before its rename; that one wakes first."""
    stands_at = renamed_at(folder) - 1

    def one(at: int) -> bool:
        path = fresh(folder)
        copier, copies = start_compact(path, stands_at)
        assert copies
        process, stopped = start_open(path, "n", at)
        copier.go_on()
        copier.recv()
        if stopped:
            process.go_on()
        assert process.recv() == {}, f"the one with mode n stood still at point {at}"
        process.finish()
        process.cleanup()
        copier.finish()
        copier.cleanup()
        with rowex.open(path) as again:
            assert dict(again) == {}, f"the one with mode n stood still at point {at}"
        return stopped

    return sweep(one)


def outgrown(folder: Path) -> int:
    """Who makes a checkpoint stands still while the index outgrows its capacity; then the power fails."""
    path = folder / "outgrown" / "index.rowex"
    path.parent.mkdir()
    with rowex.open(path, capacity=2 << 20) as index:
        index.put_many((b"k%05d" % i, bytes(1000)) for i in range(1200))

        def work(pipe: Any) -> None:
            with rowex.open(path) as mine:
                _core.rx_crash_stop(2000, 1)
                mine.checkpoint()
                _core.rx_crash_arm(0)

        process = Child(work)
        assert process.stands_still()
        index.put_many((b"\xff%05d" % i, bytes(1000)) for i in range(8000))
        process.go_on()
        process.finish()
        process.cleanup()
        index.flush()
        state = dict(index)
        assert recovered(without_power(path, folder / "off")) == state
    return 1


SCENARIOS: dict[str, Callable[[Path], int]] = {one.__name__: one for one in (opener, new_one, outgrown)}


def main(scenario: str, folder: str) -> None:
    die_with_parent(os.getppid())
    faulthandler.dump_traceback_later(75, exit=True)
    print(SCENARIOS[scenario](Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
