"""
The command form of the async index: order, backpressure, ends, and workers that die.
"""

from __future__ import annotations

import gc
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
from test_stopped import NODE, stopped_holder
from tools import Child, make_value

Start = Callable[..., Child]
RunAsync = Callable[..., Any]


def test_commands_are_awaited_polled_and_dropped(path: Path, run_async: RunAsync) -> None:
    """Each kind of command, its result and its error; a dropped one happens too."""

    async def main() -> None:
        async with rowex.aio.serve(path) as service:
            put = service.put(b"a", b"1")
            assert put.is_running
            with pytest.raises(anyio.WouldBlock):
                put.result()
            ticket = await put
            assert not put.is_running
            assert put.result() == ticket == await put
            assert await service.insert(b"b", b"2", durable=True) <= service.index.durable
            duplicate = service.insert(b"b", b"3")
            for _ in range(2):
                with pytest.raises(rowex.DuplicateKeyError):
                    await duplicate
            assert await service.lookup(b"b") == b"2"
            with pytest.raises(KeyError):
                await service.lookup(b"x")
            assert (await service.exists(b"b"), await service.exists(b"x")) == (True, False)
            await service.remove(b"b")
            with pytest.raises(KeyError):
                await service.remove(b"b")
            with pytest.raises(TypeError):
                service.put("b", b"")  # type: ignore[arg-type]
            service.put(b"dropped", b"1")
            gc.collect()
        assert service.pending == 0
        with pytest.raises(rowex.ClosedError):
            service.put(b"late", b"")

    run_async(main)
    with rowex.open(path) as index:
        assert dict(index) == {b"a": b"1", b"dropped": b"1"}


def test_commands_of_one_key_keep_their_order(path: Path, run_async: RunAsync, rng: random.Random) -> None:
    """Whatever is asked of a key sees exactly what was asked before it, with many workers."""

    async def main() -> None:
        expected: dict[bytes, bytes] = {}
        checks: list[tuple[Any, bytes | None]] = []
        async with rowex.aio.serve(path, readers=4, writers=4, backlog=5000) as service:
            for number in range(4000):
                key, value = b"%d" % rng.randrange(20), b"%d" % number
                choice = rng.randrange(4)
                if choice == 0:
                    service.put(key, value)
                    expected[key] = value
                elif choice == 1:
                    service.remove(key)
                    expected.pop(key, None)
                else:
                    checks.append((service.lookup(key), expected.get(key)))
        assert len(checks) > 1000
        for command, wanted in checks:
            try:
                found = command.result()
            except KeyError:
                found = None
            assert found == wanted, command

    run_async(main)


@pytest.mark.parametrize("values", ["bytes", "msgpack"])
def test_command_takes_key_and_value_as_they_are_when_it_is_made(path: Path, run_async: RunAsync, values: Any) -> None:
    """What the caller's buffer or list becomes later is not stored, and what cannot be stored fails at once."""

    async def main() -> None:
        async with rowex.aio.serve(path, values=values) as service:
            key, value = bytearray(b"k"), bytearray(b"v1") if values == "bytes" else ["v1"]
            first = service.put(key, value)
            second = service.insert(bytearray(b"other"), value)
            found = service.lookup(key)
            key[:], value[:] = b"x", b"v2" if values == "bytes" else ["v2"]
            await first
            await second
            expected = b"v1" if values == "bytes" else ["v1"]
            assert await found == await service.lookup(b"k") == await service.lookup(b"other") == expected
            assert not await service.exists(b"x")
            for call in (service.put, service.insert):
                with pytest.raises(TypeError):
                    call(b"k", object())
                with pytest.raises(TypeError):
                    call("k", value)
                with pytest.raises(ValueError):
                    call(b"k", value, timeout=-1)
            with pytest.raises(TypeError):
                service.remove(1)
            assert service.pending == 0
        if values == "bytes":
            async with rowex.aio.serve(path.with_name("process"), durability="process") as service:
                with pytest.raises(rowex.DurabilityError):
                    service.put(b"k", b"v", durable=True)

    run_async(main)


def test_backlog_refuses_what_nobody_awaits_and_holds_back_who_does(path: Path, run_async: RunAsync) -> None:
    """WouldBlock beyond the backlog; awaited commands and accepted() are never refused."""

    async def main() -> None:
        async with rowex.aio.serve(path, readers=1, writers=1, backlog=10) as service:
            with pytest.raises(anyio.WouldBlock):  # noqa: PT012
                for number in range(1000):
                    service.put(b"%d" % number, b"")
            await service.close()
        async with rowex.aio.serve(path, readers=1, writers=1, backlog=10) as service:
            most = 0
            for number in range(1000):
                await service.put(b"%d" % number, b"").accepted()
                most = max(most, service.pending)
            assert most <= 10

            async def ask(number: int) -> None:
                assert await service.lookup(b"%d" % number) == b""

            async with anyio.create_task_group() as group:
                for number in range(1000):
                    group.start_soon(ask, number)

    run_async(main)


def test_workers_have_uids_that_stats_shows(path: Path, run_async: RunAsync) -> None:
    """Four readers and two writers, whose uids go with the service."""

    async def main() -> None:
        with rowex.open(path) as other:
            async with rowex.aio.serve(path, readers=4, writers=2) as service:
                await service.put(b"a", b"1")
                shown = {uid.uid: uid.kind for uid in (await service.stats()).uids}
                assert len(service.readers) == 4
                assert {shown[uid] for uid in service.readers} == {"reader"}
                assert len(service.writers) == 2
                assert {shown[uid] for uid in service.writers} == {"writer"}
            assert {uid.kind for uid in other.stats().uids} <= {"thread", "flusher"}

    run_async(main)


def test_readonly_service_has_no_writers(path: Path, run_async: RunAsync) -> None:
    """Mode "r": reads, and a write is an error."""
    with rowex.open(path) as index:
        index[b"a"] = b"1"

    async def main() -> None:
        async with rowex.aio.serve(path, "r") as service:
            assert await service.lookup(b"a") == b"1"
            with pytest.raises(rowex.ReadOnlyError):
                await service.put(b"a", b"2")
            assert service.writers == ()

    run_async(main)


def test_exception_in_the_block_drains_and_is_not_wrapped(path: Path, run_async: RunAsync) -> None:
    """It comes out as it was raised, and what was asked for before has happened."""

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with rowex.aio.serve(path) as service:
                commands = [service.put(b"%d" % number, b"") for number in range(100)]
                raise ZeroDivisionError
        assert all(command.result() for command in commands)

    run_async(main)


def test_cancelled_service_gives_up_what_waits_and_leaves_nothing(
    path: Path, run_async: RunAsync, child: Start, rng: random.Random, opened: Callable[..., Any]
) -> None:
    """A writer stuck at a held node is stopped; each command has its result or an error; no thread or descriptor."""
    index = opened(path, durability="process")  # closing need not wait for a log
    process = stopped_holder(path, index, child, rng)
    before = index[NODE[2]]

    async def main() -> None:
        await anyio.to_thread.run_sync(lambda: None)
        threads, descriptors = set(threading.enumerate()), set(os.listdir("/proc/self/fd"))
        with anyio.move_on_after(0.2) as scope:
            async with rowex.aio.serve(path, readers=2, writers=1) as service:
                commands = [service.put(NODE[2], b"%d" % number) for number in range(5)]
                commands += [service.put(b"elsewhere %d" % number, b"") for number in range(5)]
                await commands[0]
        assert scope.cancelled_caught
        for command in commands:
            with pytest.raises(rowex.ClosedError):
                command.result()
        assert not {t for t in set(threading.enumerate()) - threads if "rowex" in t.name}
        assert set(os.listdir("/proc/self/fd")) == descriptors

    run_async(main)
    process.go_on()
    process.send("end")
    process.finish()
    assert index[NODE[2]] == before
    assert not list(index.scan(prefix=b"elsewhere"))


def test_task_that_is_cancelled_leaves_its_command_to_itself(path: Path, run_async: RunAsync) -> None:
    """The command goes on, and can be awaited again."""

    async def main() -> None:
        async with rowex.aio.serve(path) as service:
            with anyio.CancelScope() as scope:
                scope.cancel()
                command = service.put(b"a", b"1")
                await command
            assert scope.cancelled_caught
            assert await command == service.index.position

    run_async(main)


class Deadly:
    """Codecs one of whose values ends the thread that reads it."""

    @staticmethod
    def encode(text: str) -> bytes:
        return text.encode()

    @staticmethod
    def decode(data: bytes) -> str:
        if data == b"unreadable":
            raise SystemExit("unreadable")
        return data.decode()


def test_worker_that_dies_fails_its_command_and_is_replaced(path: Path, run_async: RunAsync) -> None:
    """Twenty deaths of readers and writers: each costs one command, and the uids are others afterwards."""
    codec = (Deadly.encode, Deadly.decode)

    def deadly(session: Any) -> int:
        raise SystemExit("deadly")

    async def main() -> None:
        async with rowex.aio.serve(path, readers=2, writers=2, keys="str", values=codec) as service:
            await service.put("bad", "unreadable")
            uids = {*service.readers, *service.writers}
            for _ in range(10):
                dead = [service.lookup("bad"), service._submit("put", "a", b"a", deadly)]
                alive = service.put("a", "1"), service.lookup("a")
                for command in dead:
                    with pytest.raises(RuntimeError, match="died"):
                        await command
                assert await alive[1] == "1"
            await service.put("last", "1")
            while len(service.readers) < 2 or len(service.writers) < 2:
                await anyio.sleep(0.001)
            assert not uids & {*service.readers, *service.writers}
            assert {uid.uid for uid in (await service.stats()).uids}.isdisjoint(uids)

    run_async(main)


def test_workers_that_cannot_live_end_the_service(path: Path, run_async: RunAsync) -> None:
    """When no reader can be opened any more, the service says so instead of trying for ever."""

    def refuse() -> Any:
        raise OSError("no more descriptors")

    async def main() -> None:
        with pytest.raises(rowex.RowexError, match="workers"):  # noqa: PT012
            async with rowex.aio.serve(path, keys="str", values=(Deadly.encode, Deadly.decode)) as service:
                await service.put("bad", "unreadable")
                service._open["reader"] = refuse
                with pytest.raises(RuntimeError):
                    await service.lookup("bad")
                await anyio.sleep_forever()

    run_async(main)


def test_fork_leaves_the_service_to_the_parent(path: Path, run_async: RunAsync, child: Start) -> None:
    """In the child it refuses; the parent's goes on."""

    def refuse(pipe: Any, service: Any) -> None:
        try:
            service.put(b"a", b"child")
        except rowex.ClosedError as error:
            pipe.send(str(error))

    async def main() -> None:
        async with rowex.aio.serve(path) as service:
            await service.put(b"a", b"1")
            process = child(refuse, service)
            assert "parent" in process.recv()
            process.finish()
            assert await service.lookup(b"a") == b"1"

    run_async(main)


def test_commands_see_the_context_of_their_task(path: Path, run_async: RunAsync) -> None:
    """What a codec logs in a worker carries what structlog bound in the task that asked."""
    import structlog

    seen: list[dict[str, Any]] = []

    def decode(data: bytes) -> bytes:
        seen.append(structlog.contextvars.get_contextvars())
        return data

    async def main() -> None:
        async with rowex.aio.serve(path, keys="bytes", values=(bytes, decode)) as service:

            async def ask(number: int) -> None:
                with structlog.contextvars.bound_contextvars(request=number):
                    await service.put(b"%d" % number, make_value(b"", number))
                    await service.lookup(b"%d" % number)

            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(ask, number)

    run_async(main)
    assert sorted(context["request"] for context in seen) == list(range(20))
