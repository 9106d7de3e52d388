"""
Who writes the log: leaders that stand still anywhere, die, or lack the means (promises P4, P5).
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from power import recovered, without_power
from tools import TESTS, Child, run_python

Start = Callable[..., Child]


@pytest.mark.parametrize("others", ["nobody", "dead", "poor"])
def test_leader_that_stood_still_at_any_store_harms_nothing(variant: Path, folder: Path, others: str) -> None:
    """Others take over, and when it goes on what was told to be durable still is; leader_driver.py says how."""
    done = run_python(str(TESTS / "leader_driver.py"), str(folder), others, folder=variant, timeout_s=80)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 10


def test_writer_that_makes_room_in_the_log_meets_a_new_generation(variant: Path, folder: Path) -> None:
    """It stood still at any store while it wrote the log out; room_driver.py says how."""
    done = run_python(str(TESTS / "room_driver.py"), str(folder), folder=variant, timeout_s=80)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 5


def test_frames_of_an_attempt_that_failed_are_not_read_behind_those_of_the_next(variant: Path, folder: Path) -> None:
    """The next one, which succeeds, is shorter: its frames are fewer.  undecided_driver.py says how."""
    done = run_python(str(TESTS / "undecided_driver.py"), str(folder), "leftover", folder=variant)
    assert done.returncode == 0, done.stderr[-3000:]


def test_leaders_that_find_nothing_decided_do_not_depose_each_other(variant: Path, folder: Path) -> None:
    """A writer stands still between claim and publishing: undecided_driver.py says how."""
    done = run_python(str(TESTS / "undecided_driver.py"), str(folder), "unmoved", folder=variant)
    assert done.returncode == 0, done.stderr[-3000:]


def test_disk_slower_than_a_leader_may_be_does_not_keep_the_log_from_being_written(variant: Path, folder: Path) -> None:
    """A turn that is broken off has the next one left in peace for longer: slow_driver.py says how."""
    slow = {"ROWEX_SYNC_US": "120000", "ROWEX_TRACE": "/dev/null"}  # without a trace no time is taken
    done = run_python(str(TESTS / "slow_driver.py"), str(folder), folder=variant, timeout_s=80, **slow)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) < 20, "each leader that is deposed costs a segment"


def test_leader_without_descriptors_fails_alone(path: Path, folder: Path, child: Start) -> None:
    """It is told so; the log is written by others, and by it once it has some."""

    def exhaust(pipe: Any) -> None:
        with rowex.open(path, flush_interval=600) as mine:
            mine[b"first"] = b"1"
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            taken: list[int] = []
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            ticket = mine.put(b"second", b"2")
            try:
                mine.wait_durable(ticket, timeout=20)
            except OSError as error:
                pipe.send(error.errno)
            pipe.recv()
            for descriptor in taken:
                os.close(descriptor)
            mine.put(b"third", b"3", durable=True)
            pipe.send("done")

    with rowex.open(path, flush_interval=600) as index:
        index.put(b"zeroth", b"0", durable=True)
        process = child(exhaust)
        assert process.recv() == errno.EMFILE
        index.put(b"other", b"1", durable=True)
        process.send("go on")
        assert process.recv() == "done"
        process.finish()
        assert recovered(without_power(path, folder / "off")) == dict(index.items())


def test_a_reader_that_closes_while_others_write_the_log_waits_for_it(path: Path, child: Start, long_run: bool) -> None:
    """A log that somebody writes is not held up: nobody is told so, and least of all who only read."""

    def write(pipe: Any) -> None:
        with rowex.open(path) as mine:
            pipe.send("writes")
            while not pipe.poll(0):
                mine.put(b"key", b"value", durable=True)

    process = child(write)
    process.recv()
    for _ in range(2000 if long_run else 200):
        rowex.open(path, "r").close()
    process.send("end")
    process.finish()
