"""
Changes that are made although the call raises: in the test build a process stands still between taking
its number in the log and publishing the entry, so that nothing after it becomes durable; meanwhile
every way of changing something is tried, and must say that it happened, and what it would have returned.

Arguments: a folder, and who waits: "sync", "trio" or "asyncio".  Prints how many ways were tried.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio

import rowex
import rowex._native
import rowex.aio
from rowex.codecs import INT
from tools import Child, die_with_parent, eventually, refusal

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_crash_stop.restype = None
SHORT_S = 0.1
NOTE = "it is visible, but not known to be durable"


def write(pipe: Any, path: Path) -> None:
    """Puts in a node of its own, and stands still at each store."""
    with rowex.open(path, flush_interval=600) as mine:
        mine.put("held/1", 1)
        _core.rx_crash_stop(1, 1 << 20)
        mine.put("held/1", 2)
        _core.rx_crash_stop(0, 0)
        pipe.send("done")


@contextlib.contextmanager
def log_held_up(path: Path, index: Any) -> Iterator[None]:
    """A block in which nothing becomes durable."""
    process = Child(write, path)
    try:
        while not held(process, index):
            process.go_on()
        yield
        process.go_on()
        while process.stands_still():
            process.go_on()
        process.finish()
    finally:
        process.cleanup()


def held(process: Child, index: Any) -> bool:
    """Whether it stands where it holds up the log, and nothing else."""
    assert process.stands_still(), "it never stood still between number and entry"
    try:
        index.wait_durable(index.position, timeout=0.05)  # nothing is put: it would take the number
    except TimeoutError as error:
        return f"of process {process.pid} " in str(error)
    return False


def filled(path: Path) -> None:
    with rowex.open(path, keys="str", values="int") as index:
        index.put_many({f"{name}/{number}": number for name in ("held", "probe", "mine") for number in range(60)})


def check(index: Any, error: BaseException, before: int, result: Any, made: Any) -> None:
    """The error says what happened, and it did."""
    assert before < error.ticket <= index.position, error  # type: ignore[attr-defined]
    assert index.durable < error.ticket  # type: ignore[attr-defined]
    assert any(NOTE in note for note in error.__notes__), error.__notes__
    assert getattr(error, "result", None) == result, (error, result)
    assert made(index), error


# Ways of changing something; what the call would have returned where a ticket does not say it; what is then so.
Way = tuple[Callable[..., Any], Any, Callable[[Any], bool]]
WAYS: list[Way] = [
    (lambda index, **t: index.put("mine/0", 100, **t), None, lambda index: index["mine/0"] == 100),
    (lambda index, **t: index.insert("mine/x", 5, **t), None, lambda index: index["mine/x"] == 5),
    (lambda index, **t: index.put_many({"mine/2": 7}, **t), None, lambda index: index["mine/2"] == 7),
    (lambda index, **t: index.compare_and_set("mine/0", 100, 101, **t), True, lambda index: index["mine/0"] == 101),
    (lambda index, **t: index.setdefault("mine/y", 8, **t), 8, lambda index: index["mine/y"] == 8),
    (lambda index, **t: index.remove("mine/2", **t), None, lambda index: "mine/2" not in index),
    (lambda index, **t: index.discard("mine/3", **t), None, lambda index: "mine/3" not in index),
    (lambda index, **t: index.pop("mine/4", **t), 4, lambda index: "mine/4" not in index),
    (lambda index, **t: index.popitem(last=True, **t), ("probe/9", 9), lambda index: "probe/9" not in index),
    (lambda index, **t: index.remove_many(["mine/5", "no"], **t), None, lambda index: "mine/5" not in index),
]
RAW_WAYS: list[Way] = [
    (lambda raw, **t: raw.pop(b"mine/10", **t), INT.encode(10), lambda raw: b"mine/10" not in raw),
    (lambda raw, **t: raw.setdefault(b"mine/z", b"12345678", **t), b"12345678", lambda raw: b"mine/z" in raw),
]


class Batch:
    """The one way whose ticket is told otherwise."""

    batch: Any

    def __call__(self, index: Any, **options: Any) -> None:
        with index.batch(**options) as self.batch:
            self.batch.put("mine/b", 9)


def interrupted(index: Any, call: Callable[[], Any]) -> BaseException:
    """What it raises where Ctrl-C comes when its change is made."""
    before = index.position

    def interrupt() -> None:
        eventually(lambda: index.position > before)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    error = refusal(call, KeyboardInterrupt)
    thread.join()
    return error


def sync(path: Path) -> int:
    filled(path)
    batch = Batch()
    ways = [*WAYS, (batch, None, lambda index: index["mine/b"] == 9)]
    with rowex.open(path, durability="commit", flush_interval=600) as index, index.writer() as writer:
        with rowex.open(path, flush_interval=600) as probe, log_held_up(path, probe):
            for call, result, made in ways:
                before = index.position
                error = refusal(lambda call=call: call(index, timeout=SHORT_S), TimeoutError)
                check(index, error, before, result, made)
                assert "nothing was changed" not in str(error)
            assert batch.batch.ticket == index.position
            for call, result, made in RAW_WAYS:
                before = index.position
                error = refusal(lambda call=call: call(writer.raw, timeout=SHORT_S), TimeoutError)
                check(index.raw, error, before, result, made)
            for call, result, made in (
                (
                    lambda: index.raw.pop(b"mine/11"),
                    INT.encode(11),
                    lambda index: "mine/11" not in index,
                ),
                (lambda: index.pop("mine/12"), 12, lambda index: "mine/12" not in index),
                (lambda: index.put("mine/13", 0), None, lambda index: index["mine/13"] == 0),
                (lambda: index.raw.put_many([(b"mine/0", b"")]), None, lambda index: index.raw[b"mine/0"] == b""),
            ):
                before = index.position
                check(index, interrupted(index, call), before, result, made)
            last = index.position
        index.wait_durable(last, timeout=60)
    return len(ways) + 2 + 4


async def in_loop(path: Path) -> int:
    filled(path)
    ways = [way for way in WAYS if way[1] is not None]  # those that tell no ticket
    with rowex.open(path, flush_interval=600) as probe:
        async with rowex.aio.open(path, durability="commit", flush_interval=600) as index:
            await index.put("mine/0", 100)
            with log_held_up(path, probe):
                for call, result, made in ways:
                    before = index.position
                    error = None
                    try:
                        await call(index, timeout=SHORT_S)
                    except TimeoutError as caught:
                        error = caught
                    assert error is not None
                    check(index.sync, error, before, result, made)
                caught_at: Any = None
                try:
                    async with index.batch(timeout=SHORT_S) as batch:
                        batch.put("mine/b", 9)
                except TimeoutError as caught:
                    caught_at = caught
                assert batch.ticket == caught_at.ticket == index.position
            await index.flush()
    return len(ways) + 1


def main(folder: str, who: str) -> None:
    die_with_parent(os.getppid())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = Path(folder) / "index.rowex"
    print(sync(path) if who == "sync" else anyio.run(in_loop, path, backend=who))


if __name__ == "__main__":
    main(*sys.argv[1:])
