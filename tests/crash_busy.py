"""
The process of crash_driver.py that holds the file open and works while another dies beside it; and
what else it needs.

It writes keys of its own that hang on the nodes that the dying one is about, so that both lock,
copy, split and reap the same nodes.  Every call must come back within the promised second.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import rowex
from tools import TIME_SCALE, die_with_parent, make_value

WITHIN_S = 1.0 * TIME_SCALE
MARK = b"\x01busy"


def beside(names: list[bytes]) -> list[bytes]:
    """Keys that nobody else uses, each below or beside one of *names*."""
    return sorted({key for name in names for key in (name[:-1] + MARK, name + MARK)})


def without_busy(found: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """What is not the worker's."""
    return {key: value for key, value in found.items() if not key.endswith(MARK)}


class Busy:
    """The worker, from its first operation to its end."""

    def __init__(self, path: Path, names: list[bytes]) -> None:
        self.keys = beside(names)
        self.shared = memoryview(mmap.mmap(-1, 24)).cast("Q")  # stop, rounds done, failed
        parent = os.getpid()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                die_with_parent(parent)
                self._work(path)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                self.shared[2] = 1
                os._exit(1)
        self.until(2)

    def _work(self, path: Path) -> None:
        """Put, compare, remove, again and again; the last round leaves every key there."""
        number = 0
        with rowex.open(path) as index:
            while True:
                last = bool(self.shared[0])
                for key in self.keys:
                    started = time.monotonic()
                    index.put(key, make_value(key, number))
                    assert index.get(key) == make_value(key, number), f"{key!r} is lost"
                    assert index.compare_and_set(key, make_value(key, number), make_value(key, number + 1))
                    if not last:
                        index.remove(key)
                        assert index.get(key) is None, f"{key!r} is still there"
                    took = time.monotonic() - started
                    assert took < WITHIN_S, f"the worker waited {took:.3f} s for {key!r}"
                number += 2
                self.shared[1] += 1
                if last:
                    return

    def until(self, rounds: int) -> None:
        """Wait until it has gone round so often; it has a time limit."""
        deadline = time.monotonic() + 20 * TIME_SCALE
        while self.shared[1] < rounds:
            assert not self.shared[2], "the worker failed"
            assert time.monotonic() < deadline, "the worker does not get on"
            time.sleep(0.0002)  # between two looks

    def end(self) -> None:
        """It gets on after the death, and ends with every key of its own there."""
        self.until(self.shared[1] + 2)
        self.shared[0] = 1
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        assert status == 0, f"the worker ended with {status}"

    def cleanup(self) -> None:
        """Whatever happened, let nothing remain of it."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


def outlive() -> int:
    """Fork a process that inherits all that this one holds, and lives on after it; its pid."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        while True:
            signal.pause()
    return pid


def explain(found: dict[bytes, bytes], possible: list[dict[bytes, bytes]]) -> str:
    """How the state differs from the nearest one that was allowed."""

    def difference(state: dict[bytes, bytes]) -> list[str]:
        return [
            f"{key[:40]!r}: {found.get(key, b'absent')[:24]!r}, not {state.get(key, b'absent')[:24]!r}"
            for key in sorted({*found, *state})
            if found.get(key) != state.get(key)
        ]

    nearest = min((difference(state) for state in possible), key=len)
    return f"{len(possible)} states were possible; against the nearest: " + "; ".join(nearest[:5])
