"""
Leaders of the log that stand still at each of their stores in turn, in the test build, while
another takes over; then they wake.  Whatever was told to be durable must be in the log.

Arguments: a folder, and who leads before or after the one that stops.  "nobody"; "dead": who takes
over from the dead begins a segment of its own, and may be stopped there; "poor": who takes over has
no descriptor for a segment and fails, so that another leads without having deposed anybody.
Prints how many leaders stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from power import recovered, without_power
from tools import Child, die_with_parent

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_crash_arm.restype = _core.rx_crash_stop.restype = None
STOPS = 2  # one after the other: what was looked at before the second is old by then
NEVER = {"flush_interval": 600.0}


def lead(pipe: Any, path: Path, at: int, dies: bool) -> None:
    """Put a key and write the log; from then on every store counts."""
    with rowex.open(path, **NEVER) as mine:
        name = b"dies" if dies else b"stops"
        ticket = mine.put(name, b"1")
        _core.rx_crash_arm(at) if dies else _core.rx_crash_stop(at, STOPS)
        with contextlib.suppress(TimeoutError):
            mine.wait_durable(ticket, timeout=20)
        _core.rx_crash_arm(0)
        pipe.send(mine.durable >= ticket)
        pipe.recv()


def poor(pipe: Any, path: Path) -> None:
    """Deposes who leads, and cannot go on."""
    with rowex.open(path, **NEVER) as mine:
        ticket = mine.put(b"poor", b"1")
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        told = 0
        try:
            mine.wait_durable(ticket, timeout=20)
        except OSError as error:
            told = error.errno or 0
        pipe.send(told)
        for descriptor in taken:
            os.close(descriptor)
        pipe.recv()


def holder_is_named(index: rowex.Index, process: Child) -> None:
    """Who cannot wait for it is told of the process that stands still, and not of itself, whose entry is the next."""
    told = ""
    try:
        index.put(b"named", b"1", durable=True, timeout=0.05)
    except TimeoutError as error:
        told = str(error)
    assert not told or f"of process {process.pid}" in told, told


def one(folder: Path, at: int, others: str) -> bool:
    """One leader stops at its store `at`; whether it has so many."""
    path = folder / f"{at}" / "index.rowex"
    path.parent.mkdir()
    with rowex.open(path, **NEVER) as index:
        expected = {b"first": b"1"}
        index.put(b"first", b"1", durable=True)
        if others == "dead":
            victim = Child(lead, path, 3, True)
            victim.wait()
            expected[b"dies"] = b"1"
        process = Child(lead, path, at, False)
        expected[b"stops"] = b"1"
        stops = 0
        while process.stands_still():
            if others == "nobody" and stops == 0:
                holder_is_named(index, process)
                expected[b"named"] = b"1"
            if others == "poor" and stops == 0:
                helper = Child(poor, path)
                assert helper.recv() == errno.EMFILE
                expected[b"poor"] = b"1"
            for i in range(3):
                expected[b"%d %d" % (stops, i)] = b"1"
                index.put(b"%d %d" % (stops, i), b"1", durable=True, timeout=30)
            expected[b"%d loose" % stops] = b"1"
            index[b"%d loose" % stops] = b"1"  # for it to write when it wakes
            stops += 1
            process.signal(signal.SIGCONT)
        assert process.recv(), "what it waited for is durable"
        index.put(b"last", b"1", durable=True, timeout=30)
        expected[b"last"] = b"1"
        found = recovered(without_power(path, folder / "off"))
        assert found == expected, f"stopped at store {at}: {sorted(expected.keys() - found.keys())} are lost"
        process.send("end")
        process.finish()
        if b"poor" in expected:
            helper.send("end")
            helper.finish()
    return stops > 0


def main(folder: str, others: str) -> None:
    die_with_parent(os.getppid())
    at = 1
    while one(Path(folder), at, others):
        at += 1
    print(at - 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
