"""
Ctrl-C: a real SIGINT to a real process, in everything that may take long.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowex
from doors import NAMES, address_of, door_module
from test_stopped import NODE, stopped_holder
from tools import TIME_SCALE, Child, counted, eventually, leftovers, refusal

Start = Callable[..., Child]
ATTEMPTS = 4
KEYS = 300_000


def interrupt(
    child: Start, path: Path, call: Callable[[Any], Any], begun: Callable[[Child], None], repair: Callable[[], None]
) -> None:
    """
    Interrupt a call, several times, and see that it ends soon and that the index goes on.

    Args:
        child: Starts a process.
        path: Of the index.
        call: What is interrupted.
        begun: Returns when the call is in progress.
        repair: Undoes what the call did, for the next attempt.
    """

    def work(pipe: Any) -> None:
        with rowex.open(path) as mine:
            mine.get(b"")
            pipe.send("begin")
            try:
                call(mine)
                pipe.send(None)
            except KeyboardInterrupt:
                pipe.send(time.monotonic())
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            mine[b"still usable"] = b"1"
            assert mine[b"still usable"] == b"1"
            assert mine.first() is not None
            assert mine.pop(b"still usable") == b"1"

    delays = []
    for _ in range(ATTEMPTS * 3):
        process = child(work)
        process.recv()
        begun(process)
        sent = time.monotonic()
        process.signal(signal.SIGINT)
        ended = process.recv(60)
        process.finish()
        repair()
        if ended is not None:
            delays.append(ended - sent)
        if len(delays) == ATTEMPTS:
            break
    assert len(delays) == ATTEMPTS, "the call was over before it could be interrupted"
    assert min(delays) < 0.1 * TIME_SCALE, delays
    assert max(delays) < 1.0 * TIME_SCALE, delays


def soon(process: Child) -> None:
    """A moment in which the call gets on its way; when it is over already, another attempt follows."""
    process.pipe.poll(0.02)


@pytest.fixture
def large(path: Path, opened: Callable[..., Any]) -> Iterator[Any]:
    """An index over which a walk takes a while."""
    index = opened(path)
    index.put_many([(b"key/%08d" % (i * 2654435761 % 2**31), b"value of %d" % i) for i in range(KEYS)])
    yield index
    assert len(index) == counted(index) == KEYS
    index.check()
    index.close()
    assert leftovers(path) == set()


def test_put_many_is_interrupted_soon(path: Path, child: Start, opened: Callable[..., Any]) -> None:
    """The items before the interruption are there, and no others."""
    index = opened(path)
    items = [(b"%08d" % i, b"value") for i in range(1_500_000)]

    def begun(process: Child) -> None:
        eventually(lambda: len(index) > 1000)

    def repair() -> None:
        count = len(index)
        assert [key for key, _ in index.scan()] == [key for key, _ in items[:count]]
        index.clear()

    interrupt(child, path, lambda mine: mine.put_many(items), begun, repair)
    index.check()


def test_put_many_of_an_endless_iterator_is_interrupted_soon(
    path: Path, child: Start, opened: Callable[..., Any]
) -> None:
    """An iterator of Python's own is as interruptible as a list."""
    index = opened(path)

    def endless() -> Iterator[tuple[bytes, bytes]]:
        number = 0
        while True:
            number += 1
            yield b"%d" % (number % 1000), b"v"

    interrupt(child, path, lambda mine: mine.put_many(endless()), soon, index.clear)


def test_get_many_is_interrupted_soon(path: Path, child: Start, large: Any) -> None:
    """Also where nothing is written."""
    keys = list(large)  # a longer result would take its time to be thrown away

    def get_for_ever(mine: Any) -> None:
        while True:
            mine.get_many(keys)

    interrupt(child, path, get_for_ever, soon, lambda: None)


def test_remove_many_and_clear_are_interrupted_soon(path: Path, child: Start, opened: Callable[..., Any]) -> None:
    """Some keys are gone, the others are there."""
    index = opened(path)

    def refill() -> None:
        index.put_many([(b"%08d" % i, b"value") for i in range(KEYS)])

    refill()

    def begun(process: Child) -> None:
        eventually(lambda: len(index) < KEYS)

    interrupt(child, path, lambda mine: mine.clear(), begun, refill)
    index.check()


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_is_interrupted_soon(path: Path, child: Start, large: Any, reverse: bool) -> None:
    """A loop over everything ends when the user wants it to."""

    def walk(mine: Any) -> None:
        while True:
            for _ in mine.scan(reverse=reverse):
                pass

    interrupt(child, path, walk, soon, lambda: None)


def test_check_is_interrupted_soon_and_lets_writers_go_on(path: Path, child: Start, large: Any) -> None:
    """The gate is open again afterwards."""

    def repair() -> None:
        large[b"key/"] = b""
        del large[b"key/"]

    interrupt(child, path, lambda mine: [mine.check() for _ in range(20)], soon, repair)


def test_compact_is_interrupted_soon_and_leaves_no_copy(path: Path, child: Start, large: Any) -> None:
    """The old file goes on, or the new one, and nothing is left beside it."""

    def repair() -> None:
        large[b"key/"] = b""
        del large[b"key/"]
        assert leftovers(path) == set()

    interrupt(child, path, lambda mine: [mine.compact() for _ in range(20)], soon, repair)


def test_stats_is_interrupted_soon(path: Path, child: Start, large: Any) -> None:
    """It walks everything too."""
    interrupt(child, path, lambda mine: [mine.stats() for _ in range(100)], soon, lambda: None)


def test_startup_scan_is_interrupted_soon(path: Path, child: Start) -> None:
    """An opener that has to scan a large file gives up when asked to; the next one scans it again."""
    with rowex.open(path) as index:
        index.put_many([(b"key/%08d" % (i * 2654435761 % 2**31), b"value of %d" % i) for i in range(1_000_000)])

    def leave_dirty(pipe: Any) -> None:
        index = rowex.open(path)
        index[b"dirty"] = b"1"
        pipe.send("dirty")
        pipe.recv()

    def scan(pipe: Any) -> None:
        try:
            pipe.send("begin")
            rowex.open(path)
            pipe.send(None)
        except KeyboardInterrupt:
            pipe.send(time.monotonic())

    delays: list[float] = []
    for attempt in range(20):
        process = child(leave_dirty)
        process.recv()
        process.kill()
        process = child(scan)
        process.recv()
        process.pipe.poll(0.002 * (attempt % 8))
        sent = time.monotonic()
        process.signal(signal.SIGINT)
        ended = process.recv()
        process.wait()
        if ended is not None:
            delays.append(ended - sent)
        if len(delays) == 3:
            break
    assert len(delays) == 3
    assert min(delays) < 0.1 * TIME_SCALE, delays
    with rowex.open(path) as index:
        assert len(index) == 1_000_001
        index.check()


@pytest.mark.parametrize("what", ["put", "remove", "compare_and_set", "put_many", "compact", "check", "setdefault"])
def test_waiting_for_a_stopped_writer_is_interrupted_soon(
    path: Path, child: Start, index: Any, rng: Any, what: str
) -> None:
    """Whoever waits without a timeout can still be interrupted, and nothing was changed."""
    holder = stopped_holder(path, index, child, rng)
    before = index[NODE[2]]
    calls: dict[str, Callable[[Any], Any]] = {
        "put": lambda mine: mine.put(NODE[2], b"new"),
        "remove": lambda mine: mine.remove(NODE[2]),
        "compare_and_set": lambda mine: mine.compare_and_set(NODE[2], before, b"new"),
        "put_many": lambda mine: mine.put_many([(NODE[2], b"new")]),
        "compact": lambda mine: mine.compact(),
        "check": lambda mine: mine.check(),
        "setdefault": lambda mine: mine.setdefault(NODE[2] + b"x", b"new"),
    }

    def wait(pipe: Any) -> None:
        mine = rowex.open(path)
        pipe.send("begin")
        try:
            calls[what](mine)
        except KeyboardInterrupt:
            pipe.send(time.monotonic())
        assert mine[NODE[2]] == before
        pipe.send("usable")

    waiter = child(wait)
    waiter.recv()
    assert not waiter.pipe.poll(0.3), "it waits"
    sent = time.monotonic()
    waiter.signal(signal.SIGINT)
    assert waiter.recv() - sent < 0.3 * TIME_SCALE
    assert waiter.recv() == "usable"
    waiter.finish()
    assert index[NODE[2]] == before
    holder.go_on()
    holder.send("end")
    holder.finish()
    index.put(NODE[2], b"after", timeout=20)
    assert len(index) == counted(index)
    index.check()


def test_exception_of_a_signal_handler_comes_through(path: Path, child: Start, large: Any) -> None:
    """Not only KeyboardInterrupt: whatever a handler raises ends the call."""

    class Enough(Exception):
        pass

    def work(pipe: Any) -> None:
        def handler(number: int, frame: Any) -> None:
            raise Enough

        signal.signal(signal.SIGALRM, handler)
        with rowex.open(path) as mine:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            refusal(lambda: [mine.check() for _ in range(1000)], Enough)
            assert mine.check().keys == KEYS

    child(work).finish()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["interrupted", "in time", "for ever"])
def test_put_many_whose_iterable_raises_tells_that_and_not_what_it_waited_for(
    path: Path, child: Start, index: Any, rng: Any, name: str, what: str
) -> None:
    """What was taken before waits for a stopped writer; that takes nobody's exception away, nor his Ctrl-C."""
    holder = stopped_holder(path, index, child, rng)
    before = index[NODE[2]]

    def pairs(error: type[BaseException]) -> Iterator[tuple[bytes, bytes]]:
        yield NODE[2], b"new"
        raise error

    def put(pipe: Any) -> None:
        mine = rowex.open(path)
        door = door_module(name).Door(address_of(mine._rx))
        pipe.send("begin")
        if what == "interrupted":
            refusal(lambda: door.put_many(pairs(KeyboardInterrupt)), KeyboardInterrupt)
        elif what == "in time":
            refusal(lambda: door.put_many(pairs(LookupError), timeout=0.1), LookupError)
        else:
            refusal(lambda: door.put_many(pairs(LookupError)), KeyboardInterrupt)
        pipe.send(time.monotonic())

    waiter = child(put)
    waiter.recv()
    sent = time.monotonic()
    if what == "for ever":
        assert not waiter.pipe.poll(0.3), "it waits"
        sent = time.monotonic()
        waiter.signal(signal.SIGINT)
    assert waiter.recv() - sent < 0.3 * TIME_SCALE
    waiter.finish()
    assert index[NODE[2]] == before
    holder.go_on()
    holder.send("end")
    holder.finish()
    index.put(NODE[2], b"after", timeout=20)
    index.check()
