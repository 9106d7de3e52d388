"""
A process of fuzz/linear.py stops itself some microseconds from now, in whatever call it is then.

A timer of the kernel does it: another process that wanted to stop it there would have to run at that instant.
"""

from __future__ import annotations

import ctypes
import signal
import time

_libc = ctypes.CDLL(None, use_errno=True)


class _Event(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),  # 0: by a signal to the process
        ("rest", ctypes.c_char * 48),
    )


class Alarm:
    """SIGSTOP to this process, later; whoever waits for it continues it."""

    def __init__(self) -> None:
        self._timer = ctypes.c_void_p()
        event = _Event(None, signal.SIGSTOP, 0, b"")
        failed = _libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer))
        assert not failed, f"timer_create: errno {ctypes.get_errno()}"

    def set(self, microseconds: int) -> None:
        """Once, so far from now; at least 1."""
        when = (ctypes.c_long * 4)(0, 0, 0, microseconds * 1000)
        _libc.timer_settime(self._timer, 0, ctypes.byref(when), None)
