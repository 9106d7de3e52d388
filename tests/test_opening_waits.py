"""
Who wants to open, or to change for the first time, while another opens, closes or does the same: waits
as long as it was told, and no shorter (promise P4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from test_interrupt_late import OPENING, locked
from tools import TIME_SCALE, Child, eventually, refusal

Start = Callable[..., Child]
CAP_S = 30.0  # of who might wait for itself

CALLS: dict[str, Callable[[Any], Any]] = {
    "put": lambda mine: mine.put(b"k", b"v", timeout=0.3),
    "large put": lambda mine: mine.put(b"k", bytes(200_000), timeout=0.3),
    "put_many": lambda mine: mine.put_many([(b"k", b"v")], timeout=0.3),
    "compare_and_set": lambda mine: mine.compare_and_set(b"k", None, b"v", timeout=0.3),
    "compact": lambda mine: mine.compact(timeout=0.3),
}


@pytest.mark.parametrize("what", CALLS)
def test_first_change_waits_for_an_opener_no_longer_than_it_may(
    path: Path, opened: Callable[..., Any], what: str
) -> None:
    """The opener may be stopped; the change has not happened, and does when there is nobody to wait for."""
    index = opened(path)
    with locked(path, OPENING):
        begun = time.monotonic()
        refusal(lambda: CALLS[what](index), TimeoutError)
        assert time.monotonic() - begun < 5 * TIME_SCALE
    assert len(index) == 0
    CALLS[what](index)


def test_first_change_waits_for_another_thread_no_longer_than_it_may(path: Path, opened: Callable[..., Any]) -> None:
    """One thread of a process waits for the opener, the others for that one."""
    index = opened(path)
    with locked(path, OPENING):
        patient = threading.Thread(target=index.put, args=(b"patient", b"1"))
        patient.start()
        for _ in range(3):
            begun = time.monotonic()
            refusal(lambda: index.put(b"k", b"v", timeout=0.3), TimeoutError)
            assert time.monotonic() - begun < 5 * TIME_SCALE
        assert patient.is_alive()
    patient.join()
    assert list(index) == [b"patient"]


@pytest.mark.long
def test_whoever_has_no_deadline_waits_until_the_opener_is_done(
    path: Path, opened: Callable[..., Any], child: Start
) -> None:
    """A checkpoint or a scan of a large file takes its time."""
    index = opened(path)

    def join(pipe: Any) -> None:
        pipe.recv()
        with rowex.open(path) as mine:
            pipe.send(mine.get(b"patient"))

    joiner = child(join)  # before: a child would share the lock
    with locked(path, OPENING):
        joiner.send("go")
        patient = threading.Thread(target=index.put, args=(b"patient", b"1"))
        patient.start()
        begun = time.monotonic()
        eventually(lambda: time.monotonic() - begun > CAP_S + 2, timeout_s=CAP_S + 10)
        assert patient.is_alive()
        assert not joiner.pipe.poll(0)
    patient.join()
    assert joiner.recv() in (None, b"1")
    joiner.finish()
