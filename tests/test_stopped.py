"""
Processes that are stopped, not dead: SIGSTOP (promises P3 and P4, rules R8 to R10).
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from tools import TIME_SCALE, Child, assert_same, counted, eventually, leftovers, make_value, read_value

Start = Callable[..., Child]
NODE = [b"node/" + bytes([i]) for i in range(3)]


def write_for_ever(pipe: Any, path: Path) -> None:
    """Puts and removes in one small node, so that its lock is held for much of the time."""
    with rowex.open(path) as mine:
        items = [(NODE[0], make_value(NODE[0], i, 700)) for i in range(200)]
        pipe.send("ready")
        while not pipe.poll(0):
            mine.put_many(items)
            mine.remove_many([NODE[0], NODE[1]])
            mine.put_many([(NODE[1], make_value(NODE[1], 1, 10))])
            if mine.info().durability != "process":
                mine.flush()  # else the log may be full when it stands still, and nobody could put anything


def stopped_holder(path: Path, index: Any, child: Start, rng: random.Random) -> Child:
    """A writer that stands still while another wants what it holds."""
    index[NODE[2]] = make_value(NODE[2], 0)
    index[b"node/\xff"] = b""  # so that the node stays, and nothing above it is ever held
    process = child(write_for_ever, path)
    process.recv()
    for _ in range(3000):
        process.pipe.poll(rng.random() * 0.001)
        process.stop()
        try:
            index.put(NODE[2], make_value(NODE[2], 1), timeout=0.02)
        except TimeoutError:
            return process
        process.go_on()
    raise AssertionError("in 3000 stops the writer was never met inside")


def test_stopped_writer_holds_up_no_reader_and_is_not_robbed(
    path: Path, child: Start, rng: random.Random, index: Any
) -> None:
    """Readers go on; a writer that wants its node waits, is told who holds it, and gets it afterwards."""
    process = stopped_holder(path, index, child, rng)
    index[b"elsewhere entirely"] = b"1"
    for _ in range(2000):
        assert read_value(NODE[2], index[NODE[2]]) <= 1
        value = index.get(NODE[0])
        assert value is None or read_value(NODE[0], value) < 200
        assert index.first() is not None
    assert b"elsewhere entirely" in dict(index.scan())
    started = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        index.put(NODE[2], b"", timeout=0.5)
    assert 0.4 < time.monotonic() - started < 1.5 * TIME_SCALE
    assert str(process.pid) in str(caught.value), "the holder is named"
    takeovers = index.stats().takeovers
    process.go_on()
    index.put(NODE[2], make_value(NODE[2], 2), timeout=20)
    process.send("end")
    process.finish()
    assert index.stats().takeovers == takeovers
    assert read_value(NODE[2], index[NODE[2]]) == 2
    assert len(index) == counted(index)
    index.check()


def test_stopped_writer_that_is_killed_is_taken_over_at_once(
    path: Path, child: Start, rng: random.Random, index: Any
) -> None:
    """Whoever waited for it goes on within a second of its death."""
    process = stopped_holder(path, index, child, rng)
    process.signal(signal.SIGKILL)
    started = time.monotonic()
    process.wait()
    index[NODE[2]] = make_value(NODE[2], 3)
    assert time.monotonic() - started < 1.0 * TIME_SCALE
    assert index.stats().takeovers >= 1
    assert len(index) == counted(index)
    index.check()


def test_stopped_writer_delays_copying_which_gives_up_in_time(
    path: Path, child: Start, rng: random.Random, index: Any
) -> None:
    """compact() waits for who is inside, gives up after its timeout with nothing changed, writers go on."""
    process = stopped_holder(path, index, child, rng)
    generation = index.info().generation
    with pytest.raises(TimeoutError):
        index.compact(timeout=0.3)
    with pytest.raises(TimeoutError):
        index.check(timeout=0.3)
    index[b"written meanwhile"] = b"1"
    assert index.info().generation == generation
    process.go_on()
    process.send("end")
    process.finish()
    index.compact()
    assert index.info().generation == generation + 1
    index.check()


def test_stopped_reader_is_evicted_and_sees_no_wrong_value_when_it_wakes(
    path: Path, child: Start, rng: random.Random
) -> None:
    """Its garbage is used again while it stands still; what it then returns is right all the same."""
    size = 8 << 20
    keys = [b"big%d" % i for i in range(3)]

    def read(pipe: Any) -> None:
        with rowex.open(path, "r") as mine:
            pipe.send("ready")
            count = 0
            while not pipe.poll(0):
                for key in keys:
                    value = mine.get(key)
                    if value is not None:
                        read_value(key, value)
                for key, value in mine.scan():
                    read_value(key, value)
                count += 1
            pipe.send(count)

    with rowex.open(path) as index:
        for key in keys:
            index[key] = make_value(key, 0, size)
        process = child(read)
        process.recv()
        number = most = 0
        for _ in range(60):
            process.pipe.poll(rng.random() * 0.02)
            process.stop()
            before, first = index.stats().evictions, number
            deadline = time.monotonic() + 0.3
            while index.stats().evictions == before and time.monotonic() < deadline:
                number += 1
                for key in keys:
                    index[key] = make_value(key, number, size - number)
            process.go_on()
            if index.stats().evictions > before:  # it stood inside an operation and pinned what came meanwhile
                most = max(most, number - first)
            if index.stats().evictions >= 3:
                break
        assert index.stats().evictions >= 3, "a reader that stands still inside an operation is evicted"
        process.send("end")
        assert process.recv() > 0
        process.finish()
        reached = index.stats().file_bytes
        assert reached < (2 * most + 8) * len(keys) * size, "what one stop pinned was used again after it"
        for later in range(number + 1, number + 2 * most + 10):
            for key in keys:
                index[key] = make_value(key, later, size - later)
        assert index.stats().file_bytes <= reached + 3 * size, "with nobody inside, the space goes round"
        index.check()


def test_stopped_reader_holds_up_no_copy_and_wakes_in_the_new_file(
    path: Path, child: Start, rng: random.Random
) -> None:
    """Readers are not waited for by copy and rename; one that slept through it finds the new file."""

    def read(pipe: Any) -> None:
        with rowex.open(path, "r") as mine:
            pipe.send("ready")
            while not pipe.poll(0):
                for key, value in mine.scan():
                    read_value(key, value)
            pipe.recv()
            pipe.send(dict(mine.scan()))

    with rowex.open(path) as index:
        names = [b"%03d" % i for i in range(300)]
        index.put_many([(key, make_value(key, 0, 2000)) for key in names])
        process = child(read)
        process.recv()
        for number in range(1, 15):
            process.pipe.poll(rng.random() * 0.005)
            process.stop()
            started = time.monotonic()
            index.compact()
            index.put_many([(key, make_value(key, number, 2000 + number)) for key in names])
            index.compact()
            assert time.monotonic() - started < 3 * TIME_SCALE
            process.go_on()
        process.send("end")
        assert process.recv() == dict(index.scan())
        process.finish()
        assert_same(index, {key: make_value(key, 14, 2014) for key in names})


def test_stopped_copier_is_overtaken_and_cannot_harm_when_it_wakes(
    path: Path, child: Start, rng: random.Random
) -> None:
    """Who is held up by a stopped copier voids its copy; when it wakes, the old file is still the one."""
    keys = [b"%05d" % i for i in range(20_000)]

    def compact(pipe: Any) -> None:
        with rowex.open(path) as mine:
            pipe.send("ready")
            while not pipe.poll(0):
                with contextlib.suppress(rowex.RowexError):
                    mine.compact()

    with rowex.open(path) as index:
        index.put_many([(key, make_value(key, 0, 100)) for key in keys])
        process = child(compact)
        process.recv()
        held_up = 0
        for number in range(1, 60):
            process.pipe.poll(rng.random() * 0.02)
            process.stop()
            started = time.monotonic()
            index[b"%05d" % number] = make_value(b"%05d" % number, number)
            took = time.monotonic() - started
            assert took < 5 * TIME_SCALE, f"a stopped copier held a writer up for {took:.1f} s"
            held_up += took > 0.2
            process.go_on()
            if held_up >= 2:
                break
        process.send("end")
        process.finish()
        assert held_up >= 1
        expected = {key: make_value(key, 0, 100) for key in keys}
        expected.update({b"%05d" % i: make_value(b"%05d" % i, i) for i in range(1, number + 1)})
        assert_same(index, expected)
    assert eventually(lambda: leftovers(path) == set(), 5)


def test_stopped_opener_is_waited_for_with_an_interruptible_wait(path: Path, child: Start, rng: random.Random) -> None:
    """Opening and closing run one after the other; one that stands still in them is only waited for."""
    rowex.open(path).close()

    def come_and_go(pipe: Any) -> None:
        pipe.send("ready")
        while not pipe.poll(0):
            with rowex.open(path) as mine:
                mine[b"k"] = b"1"

    def use(pipe: Any) -> None:
        with rowex.open(path) as mine:
            mine[b"l"] = b"1"

    process = child(come_and_go)
    process.recv()
    for _ in range(10):
        process.pipe.poll(rng.random() * 0.01)
        process.stop()
        other = child(use)
        other.pipe.poll(0.05)
        process.go_on()
        other.finish(20)
    process.send("end")
    process.finish()
    with rowex.open(path) as index:
        assert_same(index, {b"k": b"1", b"l": b"1"})
