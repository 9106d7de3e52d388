"""
Tasks that wait until their changes are durable: one descriptor, no thread a waiter.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import rowex
import rowex.aio
from tools import Child

Start = Callable[..., Child]
RunAsync = Callable[..., Any]


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
