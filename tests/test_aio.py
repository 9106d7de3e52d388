"""
The async index: what it gives, on trio and on asyncio.
"""

from __future__ import annotations

import random
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import rowex
import rowex.aio
from rowex.aio.changing import LARGE_BYTES
from tools import clean_environment

RunAsync = Callable[..., Any]


def test_calls_give_what_those_of_the_index_give(path: Path, run_async: RunAsync) -> None:
    """Each call of one key, each answer of the edges."""

    async def main() -> None:
        async with rowex.aio.open(path) as index:
            assert (index.path, index.mode, index.closed) == (str(path), "c", False)
            first = await index.put(b"b", b"1")
            second = await index.insert(b"a", bytearray(b"0"))  # type: ignore[arg-type]
            assert second > first
            with pytest.raises(rowex.DuplicateKeyError) as caught:
                await index.insert(b"a", b"9")
            assert caught.value.key == b"a"
            assert await index.get(b"a") == b"0"
            assert await index.get(b"x") is None
            assert await index.get(b"x", b"d") == b"d"
            assert await index.lookup(b"b") == b"1"
            with pytest.raises(KeyError):
                await index.lookup(b"x")
            assert (await index.exists(b"a"), await index.exists(b"x")) == (True, False)
            assert await index.compare_and_set(b"a", b"0", b"2")
            assert not await index.compare_and_set(b"a", b"0", b"3")
            assert await index.setdefault(b"a", b"7") == b"2"
            assert await index.setdefault(b"c", b"7") == b"7"
            assert await index.get_many([b"a", b"x", b"c"], b"-") == [b"2", b"-", b"7"]
            assert (await index.first(), await index.last()) == ((b"a", b"2"), (b"c", b"7"))
            assert (await index.floor(b"bb"), await index.ceiling(b"bb")) == ((b"b", b"1"), (b"c", b"7"))
            assert await index.pop(b"c") == b"7"
            assert await index.pop(b"c", None) is None
            with pytest.raises(KeyError):
                await index.pop(b"c")
            assert await index.remove(b"b") > second
            with pytest.raises(KeyError):
                await index.remove(b"b")
            assert (await index.discard(b"b"), await index.discard(b"a")) == (False, True)
            with pytest.raises(KeyError):
                await index.popitem()
            assert len(index) == 0
            assert (await index.stats()).keys == 0
            assert (await index.info()).path == str(path)
            assert (await index.check()).keys == 0
        assert index.closed

    run_async(main)


def test_random_operations_agree_with_a_dict(path: Path, run_async: RunAsync, rng: random.Random) -> None:
    """The same operations on a dict give the same answers and contents."""

    async def main() -> None:
        expected: dict[bytes, bytes] = {}
        async with rowex.aio.open(path) as index:
            for number in range(3000):
                key, value = b"%d" % rng.randrange(300), b"v%d" % number
                choice = rng.randrange(6)
                if choice == 0:
                    assert await index.pop(key, None) == expected.pop(key, None)
                elif choice == 1:
                    assert await index.setdefault(key, value) == expected.setdefault(key, value)
                elif choice == 2:
                    assert await index.discard(key) == (expected.pop(key, None) is not None)
                elif choice == 3:
                    pairs = [(b"%d" % rng.randrange(300), value) for _ in range(rng.randrange(5))]
                    expected.update(pairs)
                    await index.put_many(pairs)
                elif choice == 4:
                    async with index.batch() as batch:
                        batch.put(key, value)
                        batch.remove(b"0")
                    expected[key] = value
                    expected.pop(b"0", None)
                else:
                    assert await index.get(key) == expected.get(key)
            pairs = sorted(expected.items())
            assert [item async for item in index.scan()] == pairs
            assert [item async for item in index.scan(reverse=True)] == pairs[::-1]
            assert [key async for key in index] == [key for key, _ in pairs]
            assert [value async for value in index.values(reverse=True)] == [value for _, value in pairs[::-1]]
            await index.remove_many([*expected, b"absent"])
            assert len(index) == 0
            await index.check()

    run_async(main)


def test_scan_in_batches_and_beside_changes(path: Path, run_async: RunAsync) -> None:
    """A batch at a time, in order; bounds, prefix and limit; changing while iterating."""

    async def main() -> None:
        async with rowex.aio.open(path) as index:
            keys = [b"%04d" % number for number in range(2000)]
            await index.put_many((key, key) for key in keys)
            seen = []
            async for key, value in index.scan(b"0100", b"1900"):
                assert key == value
                seen.append(key)
                await index.discard(key)
            assert seen == keys[100:1900]
            assert [key async for key, _ in index.scan(prefix=b"19", limit=3)] == keys[1900:1903]
            scan = index.keys()
            sizes = []
            while batch := await scan.batch():
                sizes.append(len(batch))
            assert sum(sizes) == 200
            assert await scan.batch() == []
            with pytest.raises(ValueError, match="limit"):
                index.scan(limit=-1)

    run_async(main)


def test_batch_takes_effect_whole_or_not_at_all(path: Path, run_async: RunAsync) -> None:
    """Nothing of a batch whose block raises; all of one that ends."""

    async def main() -> None:
        async with rowex.aio.open(path) as index:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async with index.batch() as batch:
                    batch.put(b"a", b"1")
                    raise ZeroDivisionError
            assert batch.ticket == 0
            assert not await index.exists(b"a")
            async with index.batch(durable=True) as batch:
                for number in range(500):
                    batch.put(b"%d" % number, b"1")
            assert len(batch) == 500
            assert index.durable >= batch.ticket > 0
            assert len(index) == 500
            with pytest.raises(ValueError, match="over"):
                batch.put(b"a", b"1")

    run_async(main)


def test_codecs_name_keys_as_they_were_given(path: Path, run_async: RunAsync) -> None:
    """An index of coded objects."""

    async def main() -> None:
        async with rowex.aio.open(path, keys="str", values="int") as index:
            await index.put_many({"b": 2, "a": 1})
            await index.put("c", 3, durable=True)
            with pytest.raises(rowex.DuplicateKeyError, match="'c'"):
                await index.insert("c", 4)
            with pytest.raises(KeyError, match="'x'"):
                await index.remove("x")
            with pytest.raises(TypeError):
                await index.get(1)
            assert [item async for item in index.scan()] == [("a", 1), ("b", 2), ("c", 3)]
            assert await index.get_many(["a", "z"]) == [1, None]
            async with index.batch() as batch:
                batch.put("d", 4)
                batch.remove("a")
            assert await index.popitem() == ("d", 4)
            assert await index.compare_and_set("b", 2, None)
            assert [key async for key in index.keys(reverse=True)] == ["c"]

    run_async(main)


def test_level_commit_makes_every_change_durable(path: Path, run_async: RunAsync) -> None:
    """On a handle that commits, what returned is durable, without asking for it."""

    async def main() -> None:
        async with rowex.aio.open(path, durability="commit") as index:
            assert await index.put(b"a", b"1") <= index.durable
            assert await index.compare_and_set(b"a", b"1", b"2")
            assert index.position == index.durable
            await index.setdefault(b"b", b"1")
            assert index.position == index.durable
            async with index.batch() as batch:
                batch.put(b"c", b"1")
            assert batch.ticket <= index.durable
            await index.pop(b"c")
            assert index.position == index.durable
            assert await index.put_many([(b"%d" % number, b"") for number in range(300)]) <= index.durable
            await index.discard(b"b")
            assert index.position == index.durable

    run_async(main)


def test_index_without_a_log_and_in_memory(path: Path, run_async: RunAsync) -> None:
    """Tickets are 0, waiting is refused; an index in memory is wrapped."""

    async def main() -> None:
        async with rowex.aio.open(path, durability="process") as index:
            assert await index.put(b"a", b"1") == 0
            with pytest.raises(rowex.DurabilityError):
                await index.wait_durable(0)
        async with rowex.aio.Index(rowex.memory()) as index:
            await index.put(b"a", b"1")
            assert [item async for item in index.scan()] == [(b"a", b"1")]

    run_async(main)


def test_closed_index_refuses_and_readonly_writes_nothing(path: Path, run_async: RunAsync) -> None:
    """ClosedError after closing, which is idempotent; ReadOnlyError in mode "r"; FileNotFoundError on the way in."""

    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            async with rowex.aio.open(path, "r"):
                pass
        index = await rowex.aio.open(path)
        await index.put(b"a", b"1")
        await index.close()
        await index.close()
        for refused in (index.get(b"a"), index.put(b"a", b"1"), index.pop(b"a"), index.wait_durable(1)):
            with pytest.raises(rowex.ClosedError):
                await refused
        with pytest.raises(rowex.ClosedError):
            index.batch()
        async with rowex.aio.open(path, "r") as index:
            assert await index.get(b"a") == b"1"
            for refused in (index.put(b"a", b"2"), index.insert(b"b", b""), index.remove(b"a"), index.pop(b"a")):
                with pytest.raises(rowex.ReadOnlyError):
                    await refused
            with pytest.raises(rowex.ReadOnlyError):
                index.batch()

    run_async(main)


def test_arguments_are_looked_at_before_anything_is_done(path: Path, run_async: RunAsync) -> None:
    """Values, timeouts, durability and limits are refused as the sync API refuses them; a closed index, always."""

    async def main() -> None:
        for wrong in ({"workers": 0}, {"slow_read": -1}):
            with pytest.raises(ValueError):
                rowex.aio.open(path, **wrong)
        async with rowex.aio.open(path, durability="process") as index:
            for call in (index.put, index.insert):
                for value in (None, 3, "v"):
                    with pytest.raises(TypeError, match="bytes-like"):
                        await call(b"k", value)
            for error, options in (
                (TypeError, {"timeout": "x"}),
                (ValueError, {"timeout": -1}),
                (rowex.DurabilityError, {"durable": True}),
            ):
                for refused in (
                    index.put(b"k", b"v", **options),
                    index.insert(b"k", b"v", **options),
                    index.remove(b"k", **options),
                    index.discard(b"k", **options),
                    index.put_many([], **options),
                    index.remove_many([], **options),
                ):
                    with pytest.raises(error):
                        await refused
                with pytest.raises(error):
                    index.batch(**options)
            with pytest.raises(ValueError):
                await index.compare_and_set(b"k", None, b"v", timeout=-1)
            assert len(index) == 0
            value = memoryview(array("d", [3.0]))
            await index.put(b"array", value)
            assert await index.get(b"array") == value.tobytes()
        for refused in (index.put_many([]), index.remove_many([]), index.get_many([])):
            with pytest.raises(rowex.ClosedError):
                await refused

    run_async(main)


def test_large_value_of_few_items_is_copied_by_a_worker(path: Path, run_async: RunAsync) -> None:
    """What counts is its bytes."""

    async def main() -> None:
        async with rowex.aio.open(path) as index:
            tried: list[bytes] = []
            index._plain._try_put = lambda *pair: tried.append(pair[0])  # None: it would have to wait
            value = array("d", bytes(2 << 20))
            assert len(value) < LARGE_BYTES < value.itemsize * len(value)
            await index.put(b"large", value)
            assert tried == []
            assert await index.get(b"large") == bytes(value)

    run_async(main)


def test_busy_task_gives_others_a_turn(path: Path, run_async: RunAsync) -> None:
    """Reads and writes that return at once do not starve the loop, and are cancelled."""

    async def main() -> None:
        async with rowex.aio.open(path) as index:
            await index.put(b"a", b"1")
            for work in (lambda: index.get(b"a"), lambda: index.put(b"a", b"2")):
                with anyio.CancelScope() as scope:

                    async def forever(work: Any = work) -> None:
                        while True:
                            await work()

                    async def other(scope: Any = scope) -> None:
                        await anyio.sleep(0)
                        scope.cancel()

                    async with anyio.create_task_group() as group:
                        group.start_soon(forever)
                        group.start_soon(other)
                assert scope.cancelled_caught

    run_async(main)


def test_several_indexes_and_loops_share_a_process(path: Path, run_async: RunAsync) -> None:
    """An index made in one loop is used in the next, also for waiting."""
    index = rowex.aio.Index(rowex.open(path))

    async def main(number: int) -> None:
        await index.wait_durable(await index.put(b"%d" % number, b""))

    for number in range(3):
        run_async(main, number)
    assert len(index) == 3
    run_async(index.close)


def test_without_anyio_the_message_says_what_to_install(folder: Path) -> None:
    """Importing the package without its extra names the extra."""
    (folder / "anyio.py").write_text("raise ModuleNotFoundError('No module named anyio', name='anyio')")
    environment = clean_environment(folder)
    done = subprocess.run(
        [sys.executable, "-c", "import rowex.aio"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "rowex[aio]" in done.stderr
