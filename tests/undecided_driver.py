"""
Writers that stand still between claiming an entry of the log and publishing it, and leaders that meet
it, in the test build.

Arguments: a folder, and what is tried, a function's name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from power import recovered, segments, without_power
from tools import Child, die_with_parent

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_fault_arm.argtypes = [ctypes.c_char_p]
_core.rx_crash_stop.restype = _core.rx_fault_arm.restype = None
NEVER = {"flush_interval": 600.0}
LOG_LEAD = 384  # in NAME-lock: who leads
EVERY = (1, 1 << 62)  # a stop before each store


def write(pipe: Any, path: Path, change: Callable[[rowex.Index], Any]) -> None:
    """One change, store by store."""
    with rowex.open(path, **NEVER) as mine:
        assert len(mine)
        _core.rx_crash_stop(*EVERY)
        change(mine)
        _core.rx_crash_stop(0, 0)
        pipe.send("done")
        pipe.recv()


def steps(process: Child, until: Callable[[], bool]) -> None:
    """Let one that stops before each store go on until something is so."""
    assert process.stands_still()
    while not until():
        process.go_on()
        assert process.stands_still()


def goes_on(process: Child) -> Any:
    """Let it go on to its end; what it says there."""
    process.go_on()
    while process.stands_still():
        process.go_on()
    return process.recv()


def changes(file: Path) -> Callable[[], bool]:
    """Whether it has other bytes by now."""
    before = file.read_bytes()
    return lambda: file.read_bytes() != before


def claims(path: Path, index: rowex.Index, change: Callable[[rowex.Index], Any]) -> Child:
    """A writer that has claimed its entry, and stands still."""
    before = index.position
    process = Child(write, path, change)
    steps(process, lambda: index.position > before)
    return process


# ---- frames of an attempt that failed -----------------------------------------------------------


def lead(pipe: Any, path: Path) -> None:
    """Write the log store by store, to a disk that is full at its sync; then, to one that is not, some more."""
    with rowex.open(path, **NEVER) as mine:
        mine.put(b"a", b"")
        pipe.send("put")
        pipe.recv()
        _core.rx_fault_arm(b"fdatasync:1:%d" % errno.ENOSPC)
        _core.rx_crash_stop(*EVERY)
        with contextlib.suppress(rowex.DiskFullError):
            mine.flush()
            raise AssertionError
        _core.rx_crash_stop(0, 0)
        pipe.send("full")
        pipe.recv()
        _core.rx_fault_arm(b"pwrite:2:%d" % errno.EIO)  # the frame's comes first; the witness is lost with the power
        mine.put(b"k3", b"later", durable=True)
        _core.rx_fault_arm(b"")
        pipe.send("durable")
        pipe.recv()


def leftover(folder: Path) -> None:
    """
    Three frames with an entry each were written and not synced; then one with these and a fourth entry, which ends
    where the third of them stands, still whole.  It must not be read after that one: it removes what the fourth put.
    """
    path = folder / "index.rowex"
    with rowex.open(path, **NEVER) as index:
        for key in (b"b1", b"b2", b"k1", b"k2", b"k3"):
            index[key] = b""
        index.flush()
        leader = Child(lead, path)
        leader.recv()
        second = claims(path, index, lambda mine: mine.put(b"b3", b""))
        third = claims(path, index, lambda mine: mine.remove(b"k3"))
        log = segments(path)[-1]
        first = log.read_bytes()
        leader.send("go on")
        for writer in (second, third):
            steps(leader, changes(log))
            goes_on(writer)
            leader.go_on()
        assert goes_on(leader) == "full"
        seen = log.read_bytes()
        begin = next(at for at in range(len(seen)) if seen[at] != first[at]) // 8 * 8
        assert any(seen[begin + 64 : begin + 80]), "the third frame is not where the test has it"
        leader.send("go on")
        assert leader.recv() == "durable"
        expected = dict(index.items())
        assert expected[b"k3"] == b"later"
        found = recovered(without_power(path, folder / "off"))
        assert found == expected, f"recovered {found}"
        for process in (leader, second, third):
            process.send("end")
            process.finish()


# ---- leaders that find nothing to write -------------------------------------------------------------


def turns(pipe: Any, path: Path) -> None:
    """Lead again and again, store by store, until all is durable."""
    with rowex.open(path, **NEVER) as mine:
        ticket = mine.put(b"c", b"")
        _core.rx_crash_stop(*EVERY)
        mine.wait_durable(ticket)
        _core.rx_crash_stop(0, 0)
        pipe.send("durable")
        pipe.recv()


def unmoved(folder: Path) -> None:
    """
    While a writer holds up what comes after its entry, a leader comes and goes and writes nothing.  Who meets it in
    one turn, and much later in another, has not seen it stand still.
    """
    path = folder / "index.rowex"

    def leads() -> bool:
        with open(f"{path}-lock", "rb") as lock:
            return os.pread(lock.fileno(), 8, LOG_LEAD) != bytes(8)

    def wait(timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            index.wait_durable(index.position, timeout=timeout_s)

    with rowex.open(path, **NEVER) as index:
        index.put(b"b1", b"", durable=True)
        index.put(b"b2", b"", durable=True)
        before = segments(path)
        writer = claims(path, index, lambda mine: mine.put(b"b3", b""))
        leader = Child(turns, path)
        for _ in range(2):
            steps(leader, leads)
            wait(0.0005)  # one look at it
            leader.go_on()
            steps(leader, lambda: not leads())
            wait(0.2)  # longer than a leader of the test build may stand still
            leader.go_on()
        assert segments(path) == before, "who takes a leader's place begins a segment"
        assert goes_on(writer) == "done"
        assert goes_on(leader) == "durable"
        for process in (writer, leader):
            process.send("end")
            process.finish()


def main(folder: str, what: str) -> None:
    """Run one."""
    die_with_parent(os.getppid())
    {"leftover": leftover, "unmoved": unmoved}[what](Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
