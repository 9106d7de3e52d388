"""
Ten thousand tasks beside processes that are killed; nothing leaks; forked children; lines of the log.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import rowex
import rowex.aio
from tools import Child, counted, eventually, make_value, read_value

Start = Callable[..., Child]
RunAsync = Callable[..., Any]
TASKS = 10_000


def disturb(pipe: Any, path: Path) -> None:
    """Change keys among those of the tasks, singly and in batches, until killed."""
    with rowex.open(path) as mine:
        number = 0
        while True:
            number += 1
            if number == 100:
                pipe.send("well in")
            key = b"%05d peer" % (number * 7 % TASKS)
            mine[key] = make_value(key, number)
            with mine.batch() as batch:
                for step in range(3):
                    near = b"%05d peer" % ((number * 7 + step) % TASKS)
                    batch.put(near, make_value(near, number))
            mine.discard(b"%05d peer" % (number * 11 % TASKS))


@pytest.mark.limit(300)
def test_ten_thousand_tasks_beside_peers_that_are_killed(
    path: Path, run_async: RunAsync, child: Start, rng: random.Random
) -> None:
    """Each task writes, reads, waits and removes; peers die in the middle of it; everything told is true."""

    async def main() -> None:
        over = 0
        async with rowex.aio.open(path) as index:

            async def work(number: int) -> None:
                nonlocal over
                key = b"%05d task" % number
                for turn in range(3):
                    ticket = await index.put(key, make_value(key, turn))
                    if number % 3 == turn:
                        await index.wait_durable(ticket)
                    assert read_value(key, await index.lookup(key)) == turn
                if number % 2:
                    await index.remove(key)
                over += 1

            async def kill() -> None:
                while over < TASKS:
                    process = child(disturb, path)
                    await anyio.to_thread.run_sync(process.recv)
                    await anyio.sleep(rng.random() * 0.1)
                    await anyio.to_thread.run_sync(process.cleanup)

            async with anyio.create_task_group() as group:
                group.start_soon(kill)
                for number in range(TASKS):
                    group.start_soon(work, number)
            expected = [b"%05d task" % number for number in range(0, TASKS, 2)]
            assert [key async for key in index if key.endswith(b"task")] == expected
            async for key, value in index.scan():
                read_value(key, value)
            assert len(index) == counted(index.sync)
            await index.check()

    run_async(main)


def count_uids(index: Any) -> int:
    """Live uids, but for that of the thread that flushes, which comes when it first has something to do."""
    return sum(uid.kind != "flusher" for uid in index.stats().uids)


def test_nothing_is_left_behind(path: Path, run_async: RunAsync, rng: random.Random) -> None:
    """Descriptors, threads and uids, after openings, services and cancellations at random moments."""
    with rowex.open(path) as other:
        other[b"a"] = b"1"

        async def once() -> None:
            with anyio.move_on_after(rng.random() * 0.02):
                async with rowex.aio.open(path) as index:
                    async with anyio.create_task_group() as group:
                        for number in range(50):
                            group.start_soon(index.wait_durable, await index.put(b"%d" % number, b""))
                    async for _ in index.scan():
                        await index.get(b"a", offload=True)
            with anyio.move_on_after(rng.random() * 0.02):
                async with rowex.aio.serve(path) as service:
                    while True:
                        await service.put(b"a", b"2", durable=rng.random() < 0.5).accepted()

        run_async(once)
        gc.collect()
        before = len(os.listdir("/proc/self/fd")), threading.active_count()
        uids = count_uids(other)
        for _ in range(25):
            run_async(once)
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before[0]
        # Idle threads of trio's cache live for ten seconds; the service's own are gone.
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("rowex")]
        eventually(lambda: count_uids(other) <= uids + 20, what="uids")  # of those idle threads
        assert {uid.kind for uid in other.stats().uids} <= {"thread", "flusher"}
        other.check()


def test_uids_go_with_the_index(path: Path, run_async: RunAsync, child: Start) -> None:
    """Seen from another process: an index that was closed leaves no uid, whatever its tasks did."""

    def watch(pipe: Any) -> None:
        with rowex.open(path) as mine:
            mine[b"watcher"] = b""
            pipe.send("ready")
            while pipe.recv() == "count":
                pipe.send(sum(uid.pid != os.getpid() for uid in mine.stats().uids))

    process = child(watch)
    process.recv()

    def count() -> int:
        process.send("count")
        return int(process.recv())

    async def main() -> None:
        for _ in range(3):
            async with rowex.aio.open(path) as index:
                async with anyio.create_task_group() as group:
                    for number in range(20):
                        group.start_soon(index.get_many, [b"%d" % number])
                        group.start_soon(index.stats)
                await index.put(b"a", b"1", durable=True)
                assert count() > 0
            assert count() == 0

    run_async(main)
    process.send("end")
    process.finish()


def in_the_child(pipe: Any, index: Any, backend: str) -> None:
    """Use what the parent opened, in a loop of one's own."""

    async def main() -> None:
        assert await index.get(b"parent") == b"1"
        for number in range(100):
            await index.put(b"child %d" % number, b"2", durable=number % 10 == 0)
        ticket = await index.put(b"child", b"2")
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(index.wait_durable, ticket)
        async with index.batch() as batch:
            batch.put(b"batch", b"3")
        pipe.send([key async for key in index])

    anyio.run(main, backend=backend)


def test_forked_child_goes_on_in_its_own_loop(path: Path, run_async: Any, child: Start) -> None:
    """An index that was used in the parent, with waiters of its own, is used in the child; then again here."""
    index = rowex.aio.Index(rowex.open(path))

    async def before() -> None:
        await index.wait_durable(await index.put(b"parent", b"1"))

    run_async(before)
    process = child(in_the_child, index, run_async.backend)
    assert process.recv()[:2] == [b"batch", b"child"]
    process.finish()

    async def after() -> None:
        await index.wait_durable(await index.put(b"parent", b"2"))
        assert await index.get(b"child") == b"2"
        await index.close()

    run_async(after)


def test_lines_of_the_log_say_which_task_it_was(
    path: Path, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    """What structlog bound in a task, and the task's name, are in the line of a file that grew for it in a worker."""
    import structlog

    async def main() -> None:
        async with rowex.aio.open(path, durability="process") as index:
            with structlog.contextvars.bound_contextvars(request=42):
                for number in range(300):
                    await index.put(b"%d" % number, bytes(50_000))

    with caplog.at_level(logging.INFO, "rowex"):
        run_async(main)
    lines = [record.getMessage() for record in caplog.records if "growth" in record.getMessage()]
    assert lines
    assert all("request=42" in line for line in lines), lines
    assert any("task=" in line for line in lines), lines
