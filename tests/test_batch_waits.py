"""
Batches and who is stopped: what waits for whom, and for how long (promise P4, T3 of transaction.c).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
from tools import Child

Start = Callable[..., Child]


def one_key_for_ever(pipe: Any, path: Path) -> None:
    """Batches of one key; tells how many."""
    with rowex.open(path) as own:
        number = 0
        pipe.send("ready")
        while not pipe.poll(0):
            with own.batch() as batch:
                batch.put(b"key", b"batch")
            number += 1
        pipe.send(number)


def test_batches_that_are_met_one_after_the_other_are_not_taken_for_one_that_stands_still(
    path: Path, child: Start, opened: Callable[..., Any], rng: random.Random
) -> None:
    """Each is met for a moment, none is aborted for the time that others were met before."""
    index = opened(path)
    index.put(b"key", b"0")
    before = index.position
    writer = child(one_key_for_ever, path)
    writer.recv()
    met = puts = 0
    for _ in range(4000):
        writer.pipe.poll(rng.random() * 0.001)
        writer.stop()
        try:
            index.put(b"key", b"single", timeout=0.01)
            puts += 1
        except TimeoutError:
            met += 1
        writer.go_on()
        if met == 15:
            break
    writer.send("end")
    batches = writer.recv()
    writer.finish()
    voids = (index.position - before) - puts - batches
    assert voids <= 2, f"{voids} batches were aborted, {met} were met"  # as many may have stood still: it is busy here
    assert met == 15
    index.check()
