"""
Waiting in async programs: for others and for the disk; deadlines, and cancellation.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio
import trio.testing

import rowex
import rowex.aio
from rowex import events
from rowex.aio import reading, workers
from test_stopped import NODE, stopped_holder
from tools import TIME_SCALE, Child, counted, make_value

Start = Callable[..., Child]
RunAsync = Callable[..., Any]


async def ticks(every_s: float, into: list[int]) -> None:
    """Count, as long as the loop goes round."""
    while True:
        await anyio.sleep(every_s)
        into[0] += 1


# ---- for others -------------------------------------------------------------------------


def test_write_that_waits_stops_no_loop_and_tells_the_holder(
    path: Path, child: Start, rng: random.Random, index: Any, run_async: RunAsync
) -> None:
    """A node held by a stopped process: the loop goes on, the time is kept, the holder is named."""
    process = stopped_holder(path, index, child, rng)

    async def main() -> None:
        mine, turns = rowex.aio.Index(index), [0]
        async with anyio.create_task_group() as group:
            group.start_soon(ticks, 0.005, turns)
            with pytest.raises(TimeoutError, match=str(process.pid)):
                await mine.put(NODE[2], b"", timeout=0.3)
            with pytest.raises(TimeoutError, match=str(process.pid)):
                await mine.compare_and_set(NODE[2], index[NODE[2]], b"", timeout=0)
            with pytest.raises(TimeoutError):
                async with mine.batch(timeout=0.1) as batch:
                    batch.put(NODE[2], b"")
            assert turns[0] > 5
            assert await mine.get(NODE[2]) is not None
            group.cancel_scope.cancel()
        async with anyio.create_task_group() as group:
            group.start_soon(mine.put, NODE[2], make_value(NODE[2], 2))
            await anyio.sleep(0.05)
            process.go_on()

    run_async(main)
    process.send("end")
    process.finish()
    assert index[NODE[2]] == make_value(NODE[2], 2)
    index.check()


def test_cancelled_write_that_waits_has_not_happened(
    path: Path, child: Start, rng: random.Random, index: Any, run_async: RunAsync
) -> None:
    """Each kind of change, cancelled while a node is held: nothing happens, also later, and no thread stays in it."""
    process = stopped_holder(path, index, child, rng)
    before = index[NODE[2]]

    async def main() -> None:
        mine = rowex.aio.Index(index)

        async def batch() -> None:
            async with mine.batch() as batch:
                batch.put(NODE[2], b"batch")
                batch.put(b"elsewhere", b"batch")

        for work in (
            lambda: mine.put(NODE[2], b"put"),
            lambda: mine.remove(NODE[2]),
            lambda: mine.pop(NODE[2]),
            lambda: mine.compare_and_set(NODE[2], before, b"cas"),
            batch,
        ):
            with anyio.move_on_after(0.06) as scope:
                await work()
            assert scope.cancelled_caught
        async with anyio.create_task_group() as group:
            group.start_soon(mine.put_many, [(b"before", b"1"), (NODE[2], b"many"), (b"after", b"1")])
            with anyio.fail_after(20 * TIME_SCALE):
                while b"before" not in index:
                    await anyio.sleep(0.001)
            group.cancel_scope.cancel()

    run_async(main)
    process.go_on()
    process.send("end")
    process.finish()
    assert index[NODE[2]] == before
    assert (b"elsewhere" in index, b"before" in index, b"after" in index) == (False, True, False)
    assert len(index) == counted(index)
    index.check()


def test_asyncios_own_cancel_waits_for_the_thread(path: Path, child: Start, rng: random.Random, index: Any) -> None:
    """`Task.cancel()` and `asyncio.timeout()` leave no call behind, either."""
    process = stopped_holder(path, index, child, rng)
    before = index[NODE[2]]

    async def main() -> None:
        mine = rowex.aio.Index(index)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await mine.put(NODE[2], b"late")
        task = asyncio.create_task(mine.pop(NODE[2]))
        await asyncio.sleep(0.05)
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert not hasattr(caught.value, "ticket")
        early = asyncio.create_task(mine.put(NODE[2], b"early"))
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early

    asyncio.run(main())
    process.go_on()
    process.send("end")
    process.finish()
    assert index[NODE[2]] == before


def test_limit_of_threads_is_kept_and_can_be_waited_for(
    path: Path, child: Start, rng: random.Random, index: Any, run_async: RunAsync
) -> None:
    """A hundred writes that wait take as many threads as were asked for; the others' deadlines count too."""
    process = stopped_holder(path, index, child, rng)

    async def main() -> None:
        mine = rowex.aio.Index(index, workers=2)
        before = threading.active_count()
        late = []

        async def write() -> None:
            try:
                await mine.put(NODE[2], b"", timeout=0.1)
            except TimeoutError as error:
                late.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(write)
            await anyio.sleep(0.05)
            assert threading.active_count() <= before + 2
        assert len(late) == 100

    run_async(main)
    process.go_on()
    process.send("end")
    process.finish()


# ---- for the disk ----------------------------------------------------------------------------


def test_slow_read_that_met_the_disk_sends_the_next_ones_to_a_worker(
    index: Any, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fault the reads leave the loop's thread, and come back when enough were fast."""
    threads: list[int] = []
    faults = [0]
    monkeypatch.setattr(reading, "major_faults", lambda: faults[0])

    async def main() -> None:
        mine = rowex.aio.Index(index, slow_read=0.0)
        calls = mine._calls

        class Watched:
            def get(self, *args: Any) -> Any:
                threads.append(threading.get_ident())
                return calls.get(*args)

        mine._calls = Watched()
        here = threading.get_ident()
        await mine.put(b"a", b"1")
        assert await mine.get(b"a") == b"1"
        assert threads.pop() == here, "slow, but it was not the disk"
        faults[0] += 1
        assert await mine.get(b"a") == b"1"
        assert threads.pop() == here, "this one met the disk"
        for _ in range(reading.COLD_READS):
            assert await mine.get(b"a") == b"1"
            assert threads.pop() != here
        await mine.get(b"a")
        assert threads.pop() == here
        assert await mine.get(b"a", offload=True) == b"1"
        assert threads.pop() != here

    run_async(main)


def test_read_of_cold_pages_is_noticed(tmp_path: Path, run_async: RunAsync) -> None:
    """A file whose pages were dropped: real faults, noticed by the kernel's count."""
    path = tmp_path / "cold.rowex"
    with rowex.open(path, durability="process") as index:
        for number in range(2000):
            index[b"%d" % number] = os.urandom(4096)
        index.compact()
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    async def main() -> None:
        async with rowex.aio.open(path, "r", slow_read=0.0) as index:
            before = reading.major_faults()
            for number in range(0, 2000, 100):
                assert len(await index.get(b"%d" % number) or b"") == 4096
                if index._cold:
                    return
            if reading.major_faults() == before:
                pytest.skip("here pages are not dropped when that is asked for")
            raise AssertionError("the faults were not noticed")

    run_async(main)


# ---- trio's own tools ---------------------------------------------------------------------------


def test_deadlines_are_those_of_the_loops_clock(index: Any) -> None:
    """With a clock that jumps, a scope's deadline of an hour ends a wait at once."""

    async def main() -> None:
        mine = rowex.aio.Index(index)
        gate = trio.Event()

        async def wait() -> None:
            with trio.move_on_after(3600) as scope:
                await anyio.to_thread.run_sync(lambda: None)
                await mine.wait_durable(await mine.put(b"a", b"1"))
                await gate.wait()
            assert scope.cancelled_caught

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
        assert trio.current_time() >= 3600

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.05))


def test_calls_are_checkpoints_now_and_then(index: Any) -> None:
    """Those that wait are checkpoints; those that return at once are one in so many."""

    async def main() -> None:
        mine = rowex.aio.Index(index)
        await mine.put(b"a", b"1")
        with trio.testing.assert_checkpoints():
            await mine.get(b"a", offload=True)
        with trio.testing.assert_checkpoints():
            for _ in range(reading.TURN):
                await mine.get(b"a")
        with trio.testing.assert_checkpoints():
            assert [key async for key in mine] == [b"a"]

    trio.run(main)


def test_wait_that_gets_no_descriptor_is_told_and_can_be_tried_again(path: Path, child: Start) -> None:
    """OSError with the system's reason; nothing is lost."""

    def poor(pipe: Any) -> None:
        with rowex.open(path, flush_interval=600) as index:
            ticket = index.put(b"k", b"1")

            async def main() -> None:
                mine, taken = rowex.aio.Index(index), list[int]()
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(os.dup(0))
                with pytest.raises(OSError, match="descriptor") as caught:
                    await mine.wait_durable(ticket)
                assert caught.value.errno == errno.EMFILE
                for descriptor in taken:
                    os.close(descriptor)
                await mine.wait_durable(ticket)

            resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
            trio.run(main)
            assert index.durable >= ticket

    child(poor).finish()


def ctrl_c_comes() -> None:
    """To this worker thread, in a call that is nearly over, and takes no notice of it."""
    os.kill(os.getpid(), signal.SIGINT)
    until = monotonic() + 30
    while monotonic() < until:
        try:
            assert events._asked.check is not None
            events._asked.check()
        except KeyboardInterrupt:
            return
        sleep(0.001)


def test_ctrl_c_that_comes_too_late_for_a_call_is_told_behind_it(index: Any) -> None:
    """trio tells of it once, in the thread; a call that is nearly over goes on to its end all the same."""

    def nearly_over() -> int:
        ticket = index.put(b"change", b"made")
        ctrl_c_comes()
        return int(ticket)

    lates: list[tuple[BaseException, int]] = []

    async def main() -> None:
        await workers.run(nearly_over, late=lambda error, ticket: lates.append((error, ticket)))

    with pytest.raises(KeyboardInterrupt) as caught:
        trio.run(main)
    assert index[b"change"] == b"made"
    assert lates == [(caught.value, index.position)]


@pytest.mark.parametrize("made", [False, True])
def test_ctrl_c_that_comes_while_a_call_fails_is_told_unless_a_change_was_made(made: bool) -> None:
    """What was made is told by the error's ticket, and by nothing else."""
    failed = TimeoutError("too late")
    if made:
        failed.ticket = 1  # type: ignore[attr-defined] # as rowex.errors.made() does

    def fails() -> None:
        ctrl_c_comes()
        raise failed

    with pytest.raises(TimeoutError if made else KeyboardInterrupt) as caught:
        trio.run(workers.run, fails)
    assert failed in (caught.value, caught.value.__cause__)
