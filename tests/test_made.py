"""
Changes that were made although the call raises: the exception says so (promise P5).
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from doors import NAMES
from tools import TESTS, Child, refusal, run_python

Start = Callable[..., Child]


@pytest.mark.parametrize("door", NAMES)
def test_change_that_cannot_be_known_to_be_durable_says_that_it_was_made(
    variant: Path, folder: Path, door: str
) -> None:
    """TimeoutError and KeyboardInterrupt have the ticket and what was taken; made_driver.py says how."""
    done = run_python(str(TESTS / "made_driver.py"), str(folder), "sync", folder=variant, timeout_s=80, ROWEX_DOOR=door)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == 17


@pytest.mark.parametrize("door", NAMES)
def test_change_that_is_interrupted_anywhere_says_whether_it_was_made(folder: Path, door: str) -> None:
    """At each place where the interpreter may run a signal handler; made_anywhere.py says which those are."""
    done = run_python(str(TESTS / "made_anywhere.py"), str(folder), timeout_s=80, ROWEX_DOOR=door)
    assert done.returncode == 0, done.stderr[-3000:]
    places, made = map(int, done.stdout.split())
    assert 50 < made < places


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_change_of_a_task_that_is_late_says_that_it_was_made(variant: Path, folder: Path, backend: str) -> None:
    """Of those that tell no ticket, what would have been returned is in the exception; of a batch, the ticket."""
    done = run_python(str(TESTS / "made_driver.py"), str(folder), backend, folder=variant, timeout_s=80)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == 5


def test_change_whose_log_finds_no_room_says_that_it_was_made(path: Path, child: Start) -> None:
    """Nothing that waits in the log is lost: when there is room again it becomes durable."""

    def change(pipe: Any) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with rowex.open(path, durability="commit", flush_interval=600) as index:
            index.put_many([(b"a", b"1"), (b"b", b"2")])
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            put = refusal(lambda: index.put(b"c", b"3"), rowex.DiskFullError)
            popped = refusal(lambda: index.pop(b"a"), rowex.DiskFullError)
            assert index.durable < put.ticket < popped.ticket == index.position  # type: ignore[attr-defined]
            assert popped.result == b"1"  # type: ignore[attr-defined]
            assert dict(index) == {b"b": b"2", b"c": b"3"}
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            index.wait_durable(popped.ticket)  # type: ignore[attr-defined]
        pipe.send("durable")

    process = child(change)
    assert process.recv() == "durable"
    process.finish()
