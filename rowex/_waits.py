"""
Waiting for others, in slices, so that signals are handled between them.

The core never waits longer than it is told; each slice ends in Python, where the interpreter runs
signal handlers, so Ctrl-C is answered within one slice.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from rowex._arguments import SLICE_NS, seconds
from rowex._native import lib
from rowex.errors import raise_result
from rowex.events import tell_interrupt

__all__ = ["ends", "left", "until_done"]

_OK = int(lib.RX_OK)
_AGAIN = (int(lib.RX_WOULD_WAIT), int(lib.RX_E_TIMEOUT))


def until_done(attempt: Callable[[int], int], timeout: float | None) -> int:
    """
    Call the core until it has an answer.

    Args:
        attempt: One call, which may wait for as many nanoseconds as it is told.
        timeout: Seconds to wait for others in all, >= 0; None: as long as it takes.

    Returns:
        The answer, >= 0.

    Raises:
        TimeoutError: The time is over; the message names who is waited for.
        BaseException: What a signal handler raised; the call may have been over by then.
        Exception: The core's error.
    """
    deadline = None if timeout is None else monotonic() + seconds(timeout, "timeout")
    while True:
        wait_ns = SLICE_NS
        if deadline is not None:
            wait_ns = int(min(SLICE_NS, max(0.0, (deadline - monotonic()) * 1e9)))
        code = attempt(wait_ns)
        if code in _AGAIN:
            if deadline is not None and monotonic() >= deadline:
                raise_result(int(lib.RX_E_TIMEOUT))
        elif code < _OK:
            raise_result(code)
        else:
            tell_interrupt()
            return code


def ends(timeout: float | None) -> float | None:
    """When a time that begins now is over, for `left`; None: never."""
    return None if timeout is None else monotonic() + seconds(timeout, "timeout")


def left(end: float | None) -> float | None:
    """The seconds until then, >= 0; None: as long as it takes."""
    return None if end is None else max(0.0, end - monotonic())
