"""
Batches and who is stopped: what waits for whom, and for how long (promise P4, T3 of transaction.c).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowex
from tools import TIME_SCALE, Child, counted, eventually

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


NODE = [b"node/" + bytes([i]) for i in range(4)]


def large_batch(pipe: Any, path: Path) -> None:
    """Begins with a key of the node, and does not come to its end soon."""
    with rowex.open(path) as own:
        own.put(b"warm", b"1")
        with own.batch() as batch:
            batch.put(NODE[2], b"batch")
            for i in range(300_000):
                batch.put(b"x%d" % i, b"batch")
            pipe.send("now")
        pipe.send("over")
        pipe.recv()  # who is stopped must be there


def single_for_ever(pipe: Any, path: Path) -> None:
    """Changes one key of the node."""
    with rowex.open(path) as own:
        own.put(NODE[0], b"0")
        pipe.send("ready")
        while not pipe.poll(0):
            own.put_many([(NODE[0], b"value" * 100)] * 100)


@pytest.fixture
def left_behind(path: Path, child: Start, index: Any, rng: random.Random) -> Iterator[Child]:
    """A dead writer's batch that nobody can finish now: a stopped writer, which is yielded, holds a node of it."""
    index.put_many([(key, b"before") for key in NODE])
    holder = child(single_for_ever, path)
    holder.recv()
    holder.stop()
    for _ in range(20):
        victim = child(large_batch, path)
        assert victim.recv() == "now"
        eventually(lambda victim=victim: not is_free(index, NODE[2]) or victim.pipe.poll())
        victim.stop()
        if not victim.pipe.poll() and index.get(NODE[2]) == b"before":
            break
        victim.kill()  # it was faster than we: all has happened
    else:
        raise AssertionError("of 20 batches all were over before we saw them begun")
    holder.go_on()
    for _ in range(5000):
        holder.pipe.poll(rng.random() * 0.001)
        holder.stop()
        if not is_free(index, NODE[3]) and not is_free(index, NODE[3], 0.1) and log_is_free(index):
            break
        holder.go_on()
    else:
        raise AssertionError("in 5000 stops the writer was never met inside")
    victim.kill()
    index.stats()  # reaps it
    yield holder
    holder.go_on()
    holder.send("end")
    holder.finish()
    with index.batch() as batch:
        batch.put(b"now it can be", b"finished")
    assert [index.get(key) for key in NODE[2:]] == [b"before", b"before"]
    assert len(index) == counted(index)
    index.check()


def is_free(index: Any, key: bytes, timeout: float = 0.005) -> bool:
    """Whether a change of the key need not wait."""
    try:
        index.put(key, b"before", timeout=timeout)
    except TimeoutError:
        return False
    return True


def log_is_free(index: Any) -> bool:
    """Whether what is stopped does not hold the log up; if it wrote the log out, that is ours to do now."""
    try:
        index.put(b"elsewhere", b"", durable=True, timeout=5)
    except TimeoutError:
        return False
    return True


def test_batch_does_not_wait_for_what_keeps_another_from_being_finished(index: Any, left_behind: Child) -> None:
    """It wants no node of the stopped writer, so it is not delayed by it."""
    for number in range(3):
        started = time.monotonic()
        with index.batch() as batch:
            batch.put(b"elsewhere", b"%d" % number)
        assert time.monotonic() - started < 0.5 * TIME_SCALE


def killed_inside(path: Path, child: Start, opened: Callable[..., Any], durability: str) -> tuple[Any, int]:
    """An index with a batch half-way in it, whose writer is dead, and how many nodes there were before."""
    for attempt in range(20):
        own = path.with_name(f"{attempt}.rowex")
        index = opened(own, durability=durability)
        index.put(NODE[2], b"before")
        nodes = sum(index.stats().nodes.values())
        victim = child(large_batch, own)
        assert victim.recv() == "now"
        eventually(lambda index=index: sum(index.stats().nodes.values()) > 20_000)
        victim.kill()
        if index.get(NODE[2]) == b"before":
            return index, nodes
        index.close()  # it was faster than we: all has happened
    raise AssertionError("of 20 batches all were over before we saw them begun")


@pytest.mark.parametrize("durability", ["process", "batch"])
def test_large_batch_of_a_dead_writer_is_cleared_away_bit_by_bit(
    path: Path, child: Start, opened: Callable[..., Any], durability: str
) -> None:
    """Nobody who comes by is held up for long, and in the end nothing of it is left."""
    index, nodes = killed_inside(path, child, opened, durability)
    assert index.stats().takeovers >= 1
    rounds = 0
    while sum(index.stats().nodes.values()) > nodes + 2:
        rounds += 1
        assert rounds < 3000, "it never comes to an end"
        with index.batch() as batch:
            batch.put(b"elsewhere", b"v")
    assert rounds > 1, "who came first did it all"
    assert dict(index.scan()) == {NODE[2]: b"before", b"elsewhere": b"v", b"warm": b"1"}
    assert len(index) == 3
    index.check()
