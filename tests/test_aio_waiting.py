"""
Waiting in async programs: for others, for durability, for the disk; deadlines, and cancellation.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio
import trio.testing

import rowex
import rowex.aio
from rowex.aio import reading
from test_stopped import NODE, stopped_holder
from tools import Child, counted, make_value

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
            lambda: mine.put_many([(b"before", b"1"), (NODE[2], b"many"), (b"after", b"1")]),
            batch,
        ):
            with anyio.move_on_after(0.06) as scope:
                await work()
            assert scope.cancelled_caught

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


# ---- for durability ------------------------------------------------------------------------


def test_ten_thousand_waiters_take_one_thread_and_one_descriptor(index: Any, run_async: RunAsync) -> None:
    """Each waits for its own ticket, in any order."""

    async def main() -> None:
        mine = rowex.aio.Index(index)
        await mine.wait_durable(await mine.put(b"first", b""))
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        tasks = len(os.listdir("/proc/self/task"))
        done = 0

        async def write(number: int) -> None:
            nonlocal done
            ticket = await mine.put(b"%d" % number, b"v")
            await mine.wait_durable(ticket)
            assert ticket <= mine.durable
            done += 1

        async with anyio.create_task_group() as group:
            for number in range(10_000):
                group.start_soon(write, number)
            await anyio.sleep(0)
            assert threading.active_count() <= threads
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the listing itself
            assert len(os.listdir("/proc/self/task")) <= tasks + 1  # a checkpoint may be made
        assert done == 10_000
        assert len(mine._state().waiters(index._live_handle())) == 0

    run_async(main)


def test_waiter_that_is_cancelled_hands_the_descriptor_on(index: Any, run_async: RunAsync, rng: random.Random) -> None:
    """Waiters cancelled at random: the others are all told."""

    async def main() -> None:
        mine = rowex.aio.Index(index)
        told = []

        async def wait(number: int, cancelled: bool) -> None:
            ticket = await mine.put(b"%d" % number, b"v")
            with anyio.CancelScope() as scope:
                if cancelled:
                    group.start_soon(cancel_soon, scope)
                await mine.wait_durable(ticket)
                told.append(number)

        async def cancel_soon(scope: anyio.CancelScope) -> None:
            for _ in range(rng.randrange(3)):
                await anyio.sleep(0)
            scope.cancel()

        sure = set()
        for _ in range(20):
            async with anyio.create_task_group() as group:
                for number in range(100):
                    cancelled = rng.random() < 0.7
                    if not cancelled:
                        sure.add(number)
                    group.start_soon(wait, number, cancelled)
            assert sure <= set(told)
            told.clear()
            sure.clear()
        assert len(mine._state().waiters(index._live_handle())) == 0

    run_async(main)


def test_wait_has_a_deadline_and_refuses_what_is_no_ticket(index: Any, run_async: RunAsync) -> None:
    """TimeoutError, TypeError, ValueError, DurabilityError; a ticket of long ago is answered at once."""

    async def main() -> None:
        mine = rowex.aio.Index(index)
        old = await mine.put(b"a", b"1", durable=True)
        with pytest.raises(TimeoutError) as caught:  # noqa: PT012
            while True:  # until one is not durable by the time that it is asked about
                await mine.wait_durable(await mine.put(b"a", b"1"), timeout=0)
        assert "log" in str(caught.value)
        await mine.wait_durable(old)
        await mine.flush()
        with pytest.raises(TypeError):
            await mine.wait_durable("1")  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            await mine.wait_durable(-1)
        with pytest.raises(rowex.DurabilityError):
            await mine.wait_durable(mine.position + 10)
        with pytest.raises(ValueError):
            await mine.wait_durable(old, timeout=-1)

    run_async(main)


def test_change_cancelled_before_it_is_durable_tells_its_ticket(index: Any, run_async: RunAsync) -> None:
    """The exception of a cancelled durable put has its ticket, for the change has happened."""

    async def main() -> None:
        mine = rowex.aio.Index(index)
        await mine.put(b"a", b"0", durable=True)
        caught: list[BaseException] = []
        number = 0
        while not caught:  # until one is not durable at once
            number += 1
            with anyio.CancelScope() as scope:
                scope.cancel()
                try:
                    await mine.put(b"a", b"%d" % number, durable=True)
                except BaseException as error:
                    if hasattr(error, "ticket"):
                        caught.append(error)
                    raise
        assert index[b"a"] == b"%d" % number
        await mine.wait_durable(caught[0].ticket)  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError) as late:  # noqa: PT012
            while True:
                await mine.put(b"a", b"late", timeout=0, durable=True)
        assert late.value.ticket <= mine.position  # type: ignore[attr-defined]

    run_async(main)


def test_closing_tells_those_who_wait(index: Any, run_async: RunAsync, child: Start, rng: random.Random) -> None:
    """Closing the index while tasks wait for tickets: each has ClosedError or its answer, and none hangs."""

    async def main() -> None:
        mine = rowex.aio.Index(index)
        answers = []

        async def wait(number: int) -> None:
            try:
                await mine.wait_durable(await mine.put(b"%d" % number, b""))
                answers.append("durable")
            except rowex.ClosedError:
                answers.append("closed")

        async with anyio.create_task_group() as group:
            for number in range(500):
                group.start_soon(wait, number)
            await anyio.sleep(0)
            await mine.close()
        assert len(answers) == 500

    run_async(main)


def log_that_fails(pipe: Any, path: Path, backend: str) -> None:
    """Every write of the log fails, for a while."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    async def main() -> None:
        async with rowex.aio.open(path) as index:
            await index.put(b"before", b"", durable=True)
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            errors = []

            async def wait(number: int) -> None:
                try:
                    await index.wait_durable(await index.put(b"%d" % number, b""))
                except rowex.DiskFullError as error:
                    errors.append(error)

            async with anyio.create_task_group() as group:
                for number in range(200):
                    group.start_soon(wait, number)
            assert len(errors) == 200, len(errors)
            assert len({id(error) for error in errors}) == 200
            assert str(errors[0]).count("no room left") == 1, str(errors[0])
            with pytest.raises(rowex.DiskFullError):
                await index.put(b"after", b"", durable=True)
            assert await index.get(b"before") == b""
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            await index.flush()
            assert index.durable == index.position
            pipe.send("failed for all, then for nobody")

    anyio.run(main, backend=backend)


def test_log_that_cannot_be_written_fails_for_all_who_wait(path: Path, child: Start, run_async: Any) -> None:
    """Each waiter has an error of its own; reads go on, and waiting too once there is room."""
    process = child(log_that_fails, path, run_async.backend)
    assert process.recv() == "failed for all, then for nobody"
    process.finish()


def durable_by_others(pipe: Any, path: Path, backend: str) -> None:
    """Puts and waits, in a crowd of processes that all lead now and then."""

    async def main() -> None:
        async with rowex.aio.open(path, flush_interval=60) as index:
            pipe.send("ready")
            pipe.recv()

            async def work(number: int) -> None:
                for turn in range(30):
                    key = b"%d %d %d" % (os.getpid(), number, turn)
                    ticket = await index.put(key, key)
                    await index.wait_durable(ticket)
                    assert index.durable >= ticket

            async with anyio.create_task_group() as group:
                for number in range(50):
                    group.start_soon(work, number)

    anyio.run(main, backend=backend)


def test_others_may_write_the_log(path: Path, child: Start, run_async: Any) -> None:
    """Three processes wait for each other's syncs as for their own."""
    with rowex.open(path) as index:
        crowd = [child(durable_by_others, path, run_async.backend) for _ in range(3)]
        for process in crowd:
            process.recv()
        for process in crowd:
            process.send("go")
        for process in crowd:
            process.finish(60)
        assert len(index) == 3 * 50 * 30


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
