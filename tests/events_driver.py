"""
Scenarios of test_events.py, in the test build: what a program's own code, called by the core in the
midst of a call, may do there.

    events_driver.py SCENARIO FOLDER
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from power import other_boot, recovered, without_power
from tools import Child, die_with_parent, leftovers, refusal

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_crash_arm.restype = _core.rx_crash_stop.restype = None
NEVER: dict[str, Any] = {"flush_interval": 600.0}
LEADS = 3  # the point at which who waits for its own entry is the leader


def listen(function: Callable[[str], None]) -> None:
    """Have a function called with each event that is told."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            function(record.getMessage())

        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
            raise AssertionError(record)

    logging.getLogger("rowex").addHandler(Listener())
    logging.getLogger("rowex").setLevel("INFO")


def lead(pipe: Any, path: Path, dies: bool) -> None:
    """Becomes the leader of the log, and stands still there, or dies."""
    with rowex.open(path, **NEVER) as mine:
        ticket = mine.put(b"leader", b"1")
        _core.rx_crash_arm(LEADS) if dies else _core.rx_crash_stop(LEADS, 1)
        mine.wait_durable(ticket, timeout=20)


def leads_and_stands_still(index: rowex.Index) -> Child:
    """A process in the midst of leading the log, which begins before it."""
    index.put(b"first", b"1", durable=True)
    leader = Child(lead, Path(str(index.path)), False)
    assert leader.stands_still()
    return leader


def handler_puts_while_a_copy_waits_for_the_log(folder: Path) -> None:
    """The gate is closed by the handler's own process, which is not seen to move while the handler runs."""
    path = folder / "index.rowex"
    handled: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if any("-copy-" in name for name in leftovers(path)):
            handled.append(index.put(b"from the handler", b"1", timeout=10))
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.005)

    with rowex.open(path, **NEVER) as index:
        leader = leads_and_stands_still(index)
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        index.compact()
        assert handled, "the handler did not run behind the gate"
        assert sorted(index) == [b"first", b"from the handler", b"leader"]
        leader.cleanup()


def handler_puts_while_the_log_is_begun(folder: Path) -> None:
    """The first change of a copied file makes a checkpoint; one within it would begin the log twice."""
    refusals: list[str] = []
    keys = {b"%06d" % i: bytes(100) for i in range(300_000)}  # the checkpoint takes a while
    with rowex.open(folder / "source.rowex", durability="process") as source:
        source.put_many(keys.items())
    path = folder / "index.rowex"
    rowex.copy(folder / "source.rowex", path, durability="batch")

    def handle(number: int, frame: Any) -> None:
        if any("-checkpoint-new-" in name for name in leftovers(path)):
            refusals.append(str(refusal(lambda: index.put(b"from the handler", b"1"), rowex.RowexError, OSError)))
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.001)

    with rowex.open(path) as index:
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        index.put(b"first", b"1", durable=True)
        assert len(refusals) == 1, "the handler did not run within the first change"
        index.put(b"second", b"2", durable=True)
        assert recovered(without_power(path, folder / "off")) == {**keys, b"first": b"1", b"second": b"2"}


def child_that_a_handler_forks_does_not_go_on_in_the_call(folder: Path) -> None:
    """It returns from the handler into a wait of its parent's."""
    path = folder / "index.rowex"
    statuses: list[int] = []

    def handle(number: int, frame: Any) -> None:
        forked = os.fork()
        if forked:
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]))

    with rowex.open(path, **NEVER) as index:
        leader = leads_and_stands_still(index)
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        index.flush(timeout=20)
        assert statuses == [-signal.SIGABRT]
        index.put(b"last", b"1", durable=True, timeout=20)
        leader.cleanup()
        assert sorted(index) == [b"first", b"last", b"leader"]


def listener_writes(folder: Path, call: Callable[[Any], Any]) -> None:
    path = folder / "index.rowex"
    told: list[str] = []

    def write(event: str) -> None:
        index.put(b"from the listener", b"1", durable=True, timeout=10)
        told.append(event)

    with rowex.open(path, **NEVER) as index:
        index.put(b"first", b"1", durable=True)
        leader = Child(lead, path, True)
        assert leader.wait() == -signal.SIGKILL
        listen(write)
        call(index)
        assert any("takeover" in event for event in told), told
        assert index.durable == index.position
        assert sorted(index) == [b"first", b"from the listener", b"leader"]
        leader.cleanup()


def listener_writes_when_a_leader_is_succeeded(folder: Path) -> None:
    """It would wait for its own thread, which is about to lead."""
    listener_writes(folder, lambda index: index.flush(timeout=20))


def listener_writes_when_a_copier_succeeds_a_leader(folder: Path) -> None:
    """It would wait for its own process's gate."""
    listener_writes(folder, lambda index: index.compact())


def listener_opens_what_is_recovered(folder: Path) -> None:
    """It would wait for who opens it."""
    path = folder / "index.rowex"
    found: list[dict[bytes, bytes]] = []

    def look(event: str) -> None:
        if "recovery" in event:
            with rowex.open(lost) as again:
                found.append(dict(again.items()))

    with rowex.open(path) as index:
        index.put(b"k", b"v", durable=True)
        lost = without_power(path, folder / "off")
    listen(look)
    with other_boot(), rowex.open(lost):
        assert found == [{b"k": b"v"}]


SCENARIOS: dict[str, Callable[[Path], None]] = {
    one.__name__: one
    for one in (
        handler_puts_while_a_copy_waits_for_the_log,
        handler_puts_while_the_log_is_begun,
        child_that_a_handler_forks_does_not_go_on_in_the_call,
        listener_writes_when_a_leader_is_succeeded,
        listener_writes_when_a_copier_succeeds_a_leader,
        listener_opens_what_is_recovered,
    )
}


def main(scenario: str, folder: str) -> None:
    die_with_parent(os.getppid())
    faulthandler.dump_traceback_later(55, exit=True)
    SCENARIOS[scenario](Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
