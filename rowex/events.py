"""
What the core tells while it works: events for the log, and the question whether to go on.

Events are rare (a file grew, a dead writer's work was taken over, a stopped reader was evicted, a
file was scanned or copied).  They go through structlog to the standard logger ``rowex`` at level
INFO, so a program that says nothing about logging sees none of them;
``logging.basicConfig(level="INFO")`` or ``logging.getLogger("rowex")`` shows them.
"""

from __future__ import annotations

import logging
import threading
from _thread import interrupt_main
from collections.abc import Callable
from functools import cache
from typing import Any

from rowex._native import ffi, lib
from rowex.errors import pending_interrupt, remember_interrupt, take_interrupt

__all__ = ["install", "interrupt_soon", "logger", "stop_when", "tell_interrupt"]

_standard = logging.getLogger("rowex")
_standard.addHandler(logging.NullHandler())


@cache
def logger() -> Any:
    """
    The structlog logger of the package, made at the first event that is shown.

    Returns:
        A bound logger over the standard logger ``rowex``.

    Importing structlog takes longer than all of this package: a program that shows no events is
    spared it.
    """
    import structlog

    return structlog.wrap_logger(
        _standard,
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


# The names of the two numbers of each event; others are told as a and b.
_FIELDS: dict[str, tuple[str, str]] = {
    "recovery": ("entries", "upto"),
    "eviction": ("uid", "pid"),
    "takeover": ("pid", "process"),
}


def _keep_exception(kind: Any, exception: BaseException, traceback: Any) -> int:
    # Signal handlers run where Python code is entered, so they also raise before the first line
    # of a callback, where no `try` of its own can catch it.
    remember_interrupt(exception)
    if isinstance(exception, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        timer = threading.Timer(_LOST_S, _raise_again, (exception,))
        timer.daemon = True
        timer.start()
    return 1


# A call that was nearly over may succeed all the same; then nobody asks what was kept.
_LOST_S = 1.0


def _raise_again(exception: BaseException) -> None:
    if take_interrupt(exception):
        interrupt_main()


class _Asked(threading.local):
    check: Callable[[], None] | None = None


_asked = _Asked()


def stop_when(check: Callable[[], None] | None) -> None:
    """
    Have this thread's calls asked whether to go on.

    Args:
        check: Called about every 20 ms by a call that waits or works long; what it raises ends the
            call, whose change has not happened then.  None: no more.
    """
    _asked.check = check
    remember_interrupt(None)


def tell_interrupt() -> None:
    """
    After a call that did its work although it was interrupted, just before it was over: say so now.

    Raises:
        BaseException: What a signal handler of this thread raised.  What a check of `stop_when` raised
            is not told: that stops only what has not happened.
    """
    exception = pending_interrupt()
    if exception is not None and _asked.check is None:
        remember_interrupt(None)
        raise exception


@ffi.def_extern(name="rowex_on_interrupt", error=1, onerror=_keep_exception)  # type: ignore[untyped-decorator] # cffi's
def _on_interrupt() -> int:
    # To be here is all it takes: the interpreter runs pending signal handlers on the way in.
    if _asked.check is not None:
        _asked.check()
    return 1 if pending_interrupt() is not None else 0


def interrupt_soon() -> None:
    """Ctrl-C once more, for the main thread, when it is out of where it cannot be told."""
    timer = threading.Timer(0.01, interrupt_main)
    timer.daemon = True
    timer.start()


def _deliver_later(kind: Any, exception: BaseException, traceback: Any) -> None:
    # An event has no result through which the core could be stopped.
    if not isinstance(exception, Exception):
        interrupt_soon()


@ffi.def_extern(name="rowex_on_event", onerror=_deliver_later)  # type: ignore[untyped-decorator] # cffi's
def _on_event(name: Any, a: int, b: int) -> None:
    if not _standard.isEnabledFor(logging.INFO):
        return
    event = ffi.string(name).decode("ascii", "replace")
    first, second = _FIELDS.get(event, ("a", "b"))
    logger().info(event, **{first: a, second: b})


def install() -> None:
    """Give the callbacks to the core, once for the process and, by way of fork, for its children."""
    lib.rx_set_interrupt(lib.rowex_on_interrupt)
    lib.rx_set_event(lib.rowex_on_event)
