"""
A process of the test build that does the steps of a scenario, and dies or stands still at a chosen point.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import rowex
import rowex._native
from crash_points import ROOM, Target
from crash_scenario import Step
from crash_steps import opens_itself, perform
from tools import die_with_parent

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_arm.argtypes = _core.rx_crash_halt.argtypes = [ctypes.c_uint64]
_core.rx_crash_only.argtypes = [ctypes.c_int64]
_core.rx_crash_trail.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
_core.rx_fault_arm.argtypes = [ctypes.c_char_p]
_core.rx_crash_arm.restype = _core.rx_crash_halt.restype = _core.rx_crash_only.restype = None
_core.rx_crash_trail.restype = _core.rx_fault_arm.restype = None

LIMIT_S = 120.0  # of one run: a hang is a failure
NEVER = Target(0)


def fork(body: Callable[[], None]) -> int:
    """Run *body* in a child; its pid."""
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
    return pid


def status_of(pid: int) -> int:
    """How a child ended, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Actor:
    """One such process after the other, with one memory for what they tell."""

    def __init__(self) -> None:
        # Steps done, points counted; the places of these.
        buffer = mmap.mmap(-1, 16 + 4 * ROOM)
        self.words = memoryview(buffer)[:16].cast("Q")
        self.places = memoryview(buffer)[16:].cast("i")
        self.address = ctypes.addressof(ctypes.c_uint64.from_buffer(buffer, 8))
        self.pid = 0
        self.target = NEVER

    @property
    def done(self) -> int:
        """Steps that returned."""
        return int(self.words[0])

    def passed(self) -> list[int]:
        """The places of the points, in order."""
        count = int(self.words[1])
        assert count <= ROOM, f"{count} points, their places have room for {ROOM}"
        return self.places[:count].tolist()

    def start(
        self,
        path: Path,
        prelude: list[Step],
        steps: list[Step],
        *,
        dies: Target = NEVER,
        stands: int = 0,
        last: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Fork it.

        Args:
            path: Of the index.
            prelude: Steps that are done before points are counted, unless the first step opens the file.
            steps: What it is about.
            dies: Where it dies.
            stands: At which point of any place it stands still, 0: at none.
            last: Is called before points are counted.
        """
        opens = opens_itself(steps)
        self.words[0] = self.words[1] = 0
        self.target = dies

        def body() -> None:
            index = None if opens else rowex.open(path)
            for step in prelude if not opens else []:
                index = perform(index, step, path)
            last()
            _core.rx_crash_trail(self.address, ROOM)
            _core.rx_crash_only(dies.place)
            _core.rx_crash_halt(stands)
            _core.rx_crash_arm(dies.number)
            for number, step in enumerate(steps):
                if step[0] == "fault":
                    _core.rx_fault_arm(step[1].encode())
                else:
                    index = perform(index, step, path)
                self.words[0] = number + 1
            os._exit(0)  # not a close

        self.pid = fork(body)

    def stands_still(self) -> bool:
        """Wait until it does; False when it has ended first."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        return found is not None and found.si_code == os.CLD_STOPPED

    def ended(self, within_s: float) -> bool:
        """Wait that long at most; whether it has ended."""
        descriptor = os.pidfd_open(self.pid)
        try:
            return bool(select.select([descriptor], [], [], within_s)[0])
        finally:
            os.close(descriptor)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> int:
        """Wait for its end, 0 or a death at the target: then the place of that is in died_at()."""
        assert self.ended(LIMIT_S), f"it did not end within {LIMIT_S} s, at step {self.done}"
        pid, self.pid = self.pid, 0
        status = status_of(pid)
        assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
        return status

    def died_at(self) -> int:
        """The place where it died."""
        return int(self.places[self.target.number - 1])

    def cleanup(self) -> None:
        """Whatever happened, let nothing remain of it."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
