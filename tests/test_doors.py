"""
The two doors, `_hot` and `_slow`: the same calls, the same answers, the same exceptions.

Most tests go to a real index through a door of their own.  Those about waiting give the door a
core that is a few Python functions, since the real one waits only for others.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import inspect
import itertools
import mmap
import random
import signal
import sys
import threading
import time
import tracemalloc
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowex
from conftest import cannot_run
from rowex._native import ffi, lib
from rowex.errors import ClosedError, DuplicateKeyError, ReadOnlyError
from tools import run_python

NAMES = ("hot", "slow")
SIZES = (0, 1, 7, 8, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20)
ITEMS, KEYS, VALUES = 0, 1, 2
WRONG = (None, 1, 1.5, object(), ["a"], ("a", "b"))


def door_module(name: str) -> Any:
    """The module of a door, ready for use."""
    try:
        module = importlib.import_module(f"rowex._{name}")
    except ImportError as error:
        cannot_run(f"the extension is not built: {error}")
    if name == "hot":
        module.bind(address_of(lib.rx_hot_api()))
    return module


def address_of(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))


@pytest.fixture(params=NAMES)
def door_type(request: pytest.FixtureRequest) -> Any:
    """A class that derives from a door, as the index does."""
    base: Any = door_module(request.param).Door

    class OwnDoor(base):  # type: ignore[misc]
        pass

    return OwnDoor


@pytest.fixture
def make_door(door_type: Any, index: Any) -> Callable[..., Any]:
    """Another door to the same index."""
    return lambda *args, **options: door_type(address_of(index._rx), *args, **options)


@pytest.fixture
def door(make_door: Callable[..., Any]) -> Any:
    """A door to a new, empty index."""
    return make_door()


# ---- one key -------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_value_of_any_size_comes_back_whole(door: Any, size: int) -> None:
    """What was put is what every way of reading returns, as exact bytes."""
    value = random.Random(size).randbytes(size)
    assert isinstance(door.put(b"key", value), int)
    for got in (door.get(b"key"), door.lookup(b"key"), door[b"key"], door.get_many([b"key"])[0]):
        assert type(got) is bytes
        assert value == got
    assert [(b"key", value)] == list(door.scan())
    assert door.exists(b"key") is True
    assert b"key" in door


@pytest.mark.parametrize("key", [b"", b"\0", b"\0\0", b"a" * 300, b"\xff" * 5000])
def test_key_of_any_bytes_is_a_key(door: Any, key: bytes) -> None:
    """Empty keys, NUL and long ones are keys like others."""
    assert door.get(key) is None
    door[key] = b"value"
    assert door[key] == b"value"
    assert [key] == list(door._scan(None, None, None, False, None, KEYS))


def test_absent_key_gives_default_or_key_error(door: Any) -> None:
    """get() never raises for an absent key; lookup() and [] name the key."""
    default = object()
    assert door.get(b"k") is None
    assert door.get(b"k", default) is default
    assert door.get(b"k", default=default) is default
    assert door.get(key=b"k", default=default) is default
    assert door.exists(b"k") is False
    assert b"k" not in door
    for read in (door.lookup, door.__getitem__):
        with pytest.raises(KeyError) as caught:
            read(b"k")
        assert caught.value.args == (b"k",)


def test_insert_of_a_present_key_raises_and_changes_nothing(door: Any) -> None:
    """The exception is a KeyError and tells the key."""
    assert isinstance(door.insert(b"k", b"1"), int)
    with pytest.raises(DuplicateKeyError) as caught:
        door.insert(b"k", b"2")
    assert caught.value.key == b"k"
    assert door[b"k"] == b"1"


def test_removing_tells_whether_the_key_was_there(door: Any) -> None:
    """remove() and del raise KeyError for an absent key, discard() says so; each takes the key away."""

    def delete(key: bytes) -> None:
        del door[key]

    tickets = [door.put(b"k", b"v"), door.remove(b"k")]
    assert isinstance(tickets[1], int)
    assert tickets == sorted(tickets)
    for remove in (door.remove, delete):
        with pytest.raises(KeyError) as caught:
            remove(b"k")
        assert caught.value.args == (b"k",)
        door[b"k"] = b"v"
        remove(b"k")
        assert b"k" not in door
    assert door.discard(b"k") is False
    door[b"k"] = b"v"
    assert door.discard(bytearray(b"k"), timeout=1) is True
    assert b"k" not in door
    for wrong in (None, 1, "k"):
        for remove in (door.remove, door.discard, delete):
            with pytest.raises(TypeError):
                remove(wrong)


def test_every_contiguous_buffer_is_a_key_and_a_value(door: Any) -> None:
    """Buffers stand for the bytes that they hold, and are free again after the call."""
    with contextlib.closing(mmap.mmap(-1, 8)) as mapped:
        mapped[:] = b"12345678"
        whole = bytearray(b"xx12345678xx")

        class OwnBytes(bytes):
            pass

        kinds: list[Any] = [
            bytearray(b"12345678"),
            memoryview(whole)[2:-2],
            array.array("B", b"12345678"),
            array.array("I", b"12345678"),
            OwnBytes(b"12345678"),
            mapped,
        ]
        for buffer in kinds:
            door[b"12345678"] = b""
            door[buffer] = buffer
            assert b"12345678" == door[buffer] == door.get(buffer)
            assert buffer in door
            assert door.get_many([buffer]) == [b"12345678"]
            door.put_many([(buffer, buffer)])
            assert list(door.scan(buffer, prefix=buffer)) == [(b"12345678", b"12345678")]
    for empty in (bytearray(), memoryview(b""), array.array("I")):
        door[empty] = empty
        assert door[empty] == b""


def test_buffers_are_released_after_success_and_failure(door: Any) -> None:
    """A bytearray can be resized once the call is over, however it ended."""
    key, value = bytearray(b"key"), bytearray(100_000)
    door.put(key, value)
    for wrong in (
        lambda: door.insert(key, value),
        lambda: door.put(key, "wrong"),
        lambda: door.put("wrong", value),
        lambda: door.put_many([(key, value), (key, 1)]),
        lambda: door.get_many([key, 1]),
        lambda: door.scan(key, 1),
    ):
        with pytest.raises((DuplicateKeyError, TypeError)):
            wrong()
    key += b"more"
    value += b"more"


# ---- wrong arguments ------------------------------------------------------------


def key_calls(door: Any) -> dict[str, Callable[[Any], Any]]:
    """Every call with a key."""
    return {
        "get": door.get,
        "lookup": door.lookup,
        "exists": door.exists,
        "getitem": lambda key: door[key],
        "contains": lambda key: key in door,
        "put": lambda key: door.put(key, b""),
        "insert": lambda key: door.insert(key, b""),
        "setitem": lambda key: door.__setitem__(key, b""),
        "get_many": lambda key: door.get_many([b"1", key]),
        "put_many": lambda key: door.put_many([(b"1", b""), (key, b"")]),
    }


def value_calls(door: Any) -> dict[str, Callable[[Any], Any]]:
    """Every call with a value."""
    return {
        "put": lambda value: door.put(b"k", value),
        "insert": lambda value: door.insert(b"k", value),
        "setitem": lambda value: door.__setitem__(b"k", value),
        "put_many": lambda value: door.put_many({b"k": value}),
    }


def test_wrong_type_is_a_type_error_that_names_it(door: Any) -> None:
    """`in` included; str is told what to do."""
    for what, calls in (("key", key_calls(door)), ("value", value_calls(door))):
        for call in calls.values():
            for wrong in WRONG:
                with pytest.raises(TypeError, match=f"{what} must be bytes-like, not {type(wrong).__name__}"):
                    call(wrong)
            with pytest.raises(TypeError, match=f"not str: encode it, or open with {what}s='str'"):
                call("text")
            with pytest.raises(TypeError, match="contiguous"):
                call(memoryview(b"123456")[::2])
    for wrong in ("text", 1, 1.5, object()):
        for options in ({"start": wrong}, {"stop": wrong}, {"prefix": wrong}):
            with pytest.raises(TypeError, match=type(wrong).__name__):
                door.scan(**options)


def test_wrong_arguments_are_type_errors(door: Any) -> None:
    """Too few, too many, unknown and repeated ones."""
    wrong: list[Callable[[], Any]] = [
        lambda: door.get(),
        lambda: door.get(b"k", None, None),
        lambda: door.get(b"k", key=b"k"),
        lambda: door.get(b"k", other=1),
        lambda: door.lookup(),
        lambda: door.lookup(b"k", b"k"),
        lambda: door.put(b"k"),
        lambda: door.put(b"k", b"v", 1.0),
        lambda: door.put(b"k", b"v", value=b"v"),
        lambda: door.insert(b"k", value=b"v", other=1),
        lambda: door.get_many(),
        lambda: door.get_many(1),
        lambda: door.put_many(),
        lambda: door.put_many(1),
        lambda: door.put_many([1]),
        lambda: door.scan(None, None, b""),
        lambda: door.scan(limit="1"),
        lambda: door.scan(limit=1.0),
        lambda: door._scan(None),
        lambda: type(door)(),
        lambda: type(door)("1"),
        lambda: door._rebind(0),
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()
    for pair in ((b"k",), (b"k", b"v", b"v"), ()):
        with pytest.raises(ValueError, match=r"pairs \(key, value\)"):
            door.put_many([pair])
    with pytest.raises(ValueError, match="limit must not be negative"):
        door.scan(limit=-1)
    with pytest.raises(ValueError, match="limit must not be negative"):
        door.scan(limit=-(1 << 80))
    with pytest.raises(ValueError, match="what is"):
        door._scan(None, None, None, False, None, 3)


def test_timeouts_that_make_no_sense_are_refused(door: Any) -> None:
    """Before anything is stored."""
    for call in (door.put, door.insert, lambda key, value, **options: door.put_many({key: value}, **options)):
        for timeout in ("1", b"1", [1], object()):
            with pytest.raises(TypeError, match=f"timeout must be .* not {type(timeout).__name__}"):
                call(b"k", b"v", timeout=timeout)
        for number in (-1, -0.001, float("nan"), float("-inf"), 10**400):
            with pytest.raises(ValueError, match="timeout"):
                call(b"k", b"v", timeout=number)
        assert b"k" not in door
    for fine in (None, 0, 0.0, 1, True, 1.5, 1e30, float("inf")):
        door.put(b"k", b"v", timeout=fine)


def test_both_doors_have_the_same_signatures() -> None:
    """One set of type hints and documentation serves both."""
    hot, slow = (door_module(name).Door for name in NAMES)
    for name in ("get", "lookup", "exists", "put", "insert", "get_many", "put_many", "scan", "_scan", "_rebind"):
        shapes = [
            [(p.name, p.kind, p.default) for p in list(inspect.signature(getattr(door, name)).parameters.values())[1:]]
            for door in (hot, slow)
        ]
        assert shapes[0] == shapes[1], name


# ---- closed and read-only ---------------------------------------------------------


def test_closed_door_raises_closed_error_from_every_call(door: Any) -> None:
    """Also from a scan that is in progress."""
    door.put_many((b"%d" % i, b"") for i in range(100))
    scan = door.scan()
    next(scan)
    door._rebind(0, 0)
    calls = [*key_calls(door).values(), door.scan, lambda _: list(scan)]
    for call in calls:
        with pytest.raises(ClosedError):
            call(b"k")


def test_closed_index_raises_closed_error_from_every_call(door: Any, index: Any) -> None:
    """The core says so itself, to doors that were not told."""
    door[b"k"] = b"v"
    scan = door.scan()
    index.close()
    for call in [*key_calls(door).values(), lambda _: next(door.scan()), lambda _: next(scan)]:
        with pytest.raises(ClosedError):
            call(b"k")


def test_readonly_door_refuses_every_write(door: Any, make_door: Callable[..., Any]) -> None:
    """And reads as before."""
    door[b"k"] = b"v"
    other = make_door(readonly=True)
    for call in value_calls(other).values():
        with pytest.raises(ReadOnlyError):
            call(b"w")
    assert other[b"k"] == b"v"


def test_bind_refuses_another_table() -> None:
    """An extension of another version falls back to cffi instead of calling wild addresses."""
    hot = door_module("hot")
    table = bytearray(1024)
    address = ctypes.addressof(ctypes.c_char.from_buffer(table))
    with pytest.raises(ImportError, match="version"):
        hot.bind(address)
    for wrong in (0, "1", None):
        with pytest.raises(TypeError):
            hot.bind(wrong)


# ---- many keys ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 1023, 1024, 1025, 3000])
def test_get_many_keeps_order_and_repeats(door: Any, count: int, rng: random.Random) -> None:
    """Item i belongs to key i, whatever mixture of sizes, absent and repeated keys."""
    model = {b"%05d" % i: rng.randbytes(rng.choice((0, 1, 8, 100, 5000))) for i in range(0, count, 2)}
    assert isinstance(door.put_many(model), int)
    keys = [b"%05d" % rng.randrange(count) for _ in range(count)]
    default = object()
    expected = [model.get(key, default) for key in keys]
    for form in (list, tuple, iter):
        assert expected == door.get_many(form(keys), default)
    assert list(model.values()) == door.get_many(model)
    assert [model.get(key) for key in keys] == door.get_many(map(bytearray, keys))


def test_get_many_with_values_larger_than_its_buffer(door: Any) -> None:
    """Large values among small ones, at the edges of what fits."""
    sizes = [10, 65536, 0, 65537, 30000, 30000, 30000, 1 << 20, 1, 65535, 65536]
    model = {b"%d" % i: bytes([i]) * size for i, size in enumerate(sizes)}
    door.put_many(model)
    assert list(model.values()) == door.get_many(model)
    assert [model[b"7"]] * 3 + [None] == door.get_many([b"7", b"7", b"7", b"no"])


def test_get_many_leaves_the_callers_list_alone(door: Any) -> None:
    """It works on a list of its own."""
    keys: list[Any] = [b"a", bytearray(b"b")]
    door.get_many(keys)
    assert [b"a", bytearray(b"b")] == keys


@pytest.mark.parametrize("count", [0, 1, 63, 64, 1024, 1025, 3000])
def test_put_many_takes_mappings_and_pairs(door: Any, count: int) -> None:
    """A later pair of the same key wins."""
    model = {b"%d" % i: b"v%d" % i for i in range(count)}
    door.put_many(model)
    assert sorted(model.items()) == list(door.scan())
    door.put_many([key, bytearray(value * 2)] for key, value in model.items())
    assert sorted((key, value * 2) for key, value in model.items()) == list(door.scan())
    door.put_many(itertools.chain(types.MappingProxyType(model).items(), [(b"0", b"last")]))
    assert sorted((model | {b"0": b"last"}).items()) == list(door.scan())


@pytest.mark.parametrize("count", [0, 1, 100, 1024, 1500])
def test_put_many_applies_what_came_before_an_error(door: Any, count: int) -> None:
    """Of the iterable, or a wrong type in it."""

    def pairs(last: Any) -> Iterator[Any]:
        for i in range(count):
            yield b"%d" % i, b"v"
        if last is None:
            raise LookupError("from the iterable")
        yield last

    for last, error in ((None, LookupError), ((b"k", 1), TypeError), ((b"k",), ValueError)):
        with pytest.raises(error):
            door.put_many(pairs(last))
        assert count == len(list(door.scan()))


def test_put_many_with_large_buffers(door: Any) -> None:
    """More copies than one chunk may hold."""
    big = bytearray(3 << 20)
    door.put_many((b"%d" % i, big) for i in range(5))
    assert [bytes(big)] * 5 == door.get_many(b"%d" % i for i in range(5))


def test_put_many_from_its_own_scan(door: Any) -> None:
    """Reading and writing at once is allowed."""
    door.put_many((b"%04d" % i, b"1") for i in range(3000))
    door.put_many((key, value + b"2") for key, value in door.scan())
    assert {b"12"} == {value for _, value in door.scan()}


# ---- scans ------------------------------------------------------------------------------


def in_range(model: dict[bytes, bytes], start: Any, stop: Any, prefix: Any, reverse: bool, limit: Any) -> list[Any]:
    """What a scan must give."""
    found = [
        (key, value)
        for key, value in sorted(model.items(), reverse=reverse)
        if (start is None or key >= start)
        and (stop is None or key < stop)
        and (prefix is None or key.startswith(prefix))
    ]
    return found[:limit]


def test_scan_gives_what_a_sorted_dict_gives(door: Any, rng: random.Random) -> None:
    """Any combination of start, stop, prefix, direction and limit; all three kinds of result."""
    alphabet = b"\0a\xfe\xff"
    model = {bytes(rng.choices(alphabet, k=rng.randrange(6))): rng.randbytes(rng.randrange(20)) for _ in range(400)}
    door.put_many(model)

    def some() -> bytes | None:
        return bytes(rng.choices(alphabet, k=rng.randrange(5))) if rng.random() < 0.6 else None

    for _ in range(400):
        start, stop, prefix, reverse = some(), some(), some(), rng.random() < 0.5
        limit = rng.choice([None, None, 0, 1, 15, 16, 17, 1000, 1 << 70])
        expected = in_range(model, start, stop, prefix, reverse, limit if limit is None else min(limit, 1 << 60))
        assert expected == list(door.scan(start, stop, prefix=prefix, reverse=reverse, limit=limit))
        args = (start, stop, prefix, reverse, limit)
        assert [key for key, _ in expected] == list(door._scan(*args, KEYS))
        assert [value for _, value in expected] == list(door._scan(*args, VALUES))


def test_prefix_of_one_byte_leaves_the_interpreters_bytes_alone(door: Any) -> None:
    """The end of a prefix is computed in memory of its own."""
    for byte in range(256):
        list(door.scan(prefix=bytes([byte])))
    assert list(range(256)) == [bytes([byte])[0] for byte in range(256)]
    assert bytes([ord("a") + 1]) == b"b"


def test_scan_over_many_items_of_mixed_size(door: Any, rng: random.Random) -> None:
    """Batches end anywhere; a value may be larger than any batch."""
    model = {b"%06d" % i: rng.randbytes(rng.choice((0, 3, 50))) for i in range(5000)}
    for size in (4096, 65000, 65536, 70000, 2 << 20):
        model[b"%06d" % rng.randrange(5000)] = rng.randbytes(size)
    model[b"000000"] = bytes(300_000)
    door.put_many(model)
    assert sorted(model.items()) == list(door.scan())
    assert sorted(model.items(), reverse=True) == list(door.scan(reverse=True))
    assert sorted(model) == list(door._scan(None, None, None, False, None, KEYS))


def test_pairs_that_the_caller_keeps_never_change(door: Any) -> None:
    """The iterator uses a pair again only where nobody else has it."""
    model = {b"%04d" % i: b"v%d" % i for i in range(2000)}
    door.put_many(model)
    kept = list(door.scan())
    assert len({id(pair) for pair in kept}) == 2000
    assert sorted(model.items()) == kept
    scan, pairs = door.scan(), []
    for number, pair in enumerate(scan):
        if number % 3 == 0:
            pairs.append(pair)
        del pair
    assert [(b"%04d" % i, b"v%d" % i) for i in range(0, 2000, 3)] == pairs
    assert {(b"%04d" % i, b"v%d" % i) for i in range(2000)} == set(door.scan())


def test_finished_scan_stays_finished(door: Any) -> None:
    """Also when keys come after its end was met."""
    door[b"a"] = b""
    scan = door.scan()
    assert iter(scan) is scan
    assert list(scan) == [(b"a", b"")]
    door[b"b"] = b""
    assert list(scan) == []
    assert list(door.scan(b"z", b"a")) == []


def test_scan_sees_changes_between_batches(door: Any) -> None:
    """Changing while iterating is allowed; what is there throughout is given once."""
    door.put_many((b"%05d" % i, b"") for i in range(0, 4000, 2))
    seen = []
    for key, _ in door.scan():
        seen.append(key)
        door[b"%05d" % (int(key) | 1)] = b""
    assert sorted(set(seen)) == seen
    assert {b"%05d" % i for i in range(0, 4000, 2)} <= set(seen)


def test_scan_keeps_its_door_alive(door_type: Any, index: Any) -> None:
    """Nobody else has to hold the door while a scan of it goes on."""
    index.put_many((b"%d" % i, b"") for i in range(100))
    door = door_type(address_of(index._rx))
    scan = door.scan()
    gone = weakref.ref(door)
    del door
    assert len(list(scan)) == 100
    del scan
    assert gone() is None


def test_door_in_a_cycle_is_collected(door_type: Any, index: Any) -> None:
    """The garbage collector finds it through the scan that it holds."""
    door = door_type(address_of(index._rx))
    door[b"k"] = b"v"
    door.scan_of_mine = door.scan()
    next(door.scan_of_mine)
    gone = weakref.ref(door)
    del door
    gc.collect()
    assert gone() is None


# ---- nothing leaks ---------------------------------------------------------------------------


def leak_cases(door: Any) -> dict[str, Callable[[], Any]]:
    """Calls that succeed and calls that fail, each to be repeated."""
    large = bytes(100_000)
    door.put_many({b"the key": b"v", b"large": large, b"\xff": b""})
    door.put_many((b"many%04d" % i, b"%d" % i) for i in range(1100))
    keys = [b"many%04d" % i for i in range(1100)]

    def half() -> None:
        scan = door.scan()
        for _ in range(300):
            next(scan)

    return {
        "get": lambda: door.get(b"the key"),
        "get large": lambda: door.get(b"large"),
        "get absent": lambda: door.get(b"no"),
        "get buffer": lambda: door.get(bytearray(b"the key")),
        "get wrong": lambda: door.get(1),
        "get keyword": lambda: door.get(b"the key", wrong=1),
        "lookup absent": lambda: door.lookup(b"no"),
        "in": lambda: b"the key" in door,
        "in wrong": lambda: 1 in door,
        "put": lambda: door.put(b"the key", b"v"),
        "put large buffer": lambda: door.put(bytearray(b"large"), bytearray(large)),
        "put wrong": lambda: door.put(bytearray(b"the key"), 1),
        "put timeout": lambda: door.put(b"the key", b"v", timeout="1"),
        "insert present": lambda: door.insert(bytearray(b"the key"), bytearray(b"v")),
        "get_many": lambda: door.get_many(keys),
        "get_many large": lambda: door.get_many([b"large", b"no", bytearray(b"the key")], object()),
        "get_many wrong": lambda: door.get_many([*keys[:100], 1]),
        "put_many": lambda: door.put_many((key, b"v") for key in keys),
        "put_many wrong": lambda: door.put_many([(b"the key", b"v"), (bytearray(b"the key"), 1)]),
        "put_many pair": lambda: door.put_many([(b"the key", b"v"), (b"the key",)]),
        "scan": lambda: list(door.scan()),
        "scan some": half,
        "scan prefix": lambda: list(door.scan(bytearray(b"a"), prefix=bytearray(b"many"), limit=3)),
        "scan wrong": lambda: door.scan(bytearray(b"a"), 1, prefix=b"a"),
        "scan limit": lambda: door.scan(limit=-1),
    }


def grown_bytes(call: Callable[[], Any], times: int) -> int:
    """Bytes that are there after *times* calls and were not before."""
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(times):
        with contextlib.suppress(TypeError, ValueError, KeyError):
            call()
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


def test_no_call_leaks_memory(door: Any) -> None:
    """Neither on the way of success nor on that of any error."""
    cases = leak_cases(door)
    tracemalloc.start()
    try:
        for name, call in cases.items():
            # The interpreter's own free lists fill up first; any object is larger than 24 bytes.
            rounds = (20, 20, 50, 200, 2000, 2000)
            assert any(grown_bytes(call, times) < times * 24 for times in rounds), name
    finally:
        tracemalloc.stop()


def test_no_call_leaks_references(door: Any) -> None:
    """Keys, values and defaults are as much referenced after a call as before."""
    key, absent, value, default = b"a key", b"absent", b"a value", object()
    large = bytes(70_000)
    door[key] = value

    def calls() -> None:
        door.get(key), door.get(absent, default), door.exists(key), door.get_many([key, absent], default)
        door.put(key, large), door.put(key, value), door.put_many([(key, value), (key, large)])
        list(door.scan(key, prefix=key))
        for wrong in (lambda: door.lookup(absent), lambda: door.insert(key, value), lambda: door.put(key, 1)):
            with contextlib.suppress(KeyError, TypeError):
                wrong()

    things = (key, absent, value, default, large, door)
    calls()
    gc.collect()
    before = [sys.getrefcount(thing) for thing in things]
    for _ in range(50):
        calls()
    gc.collect()
    assert before == [sys.getrefcount(thing) for thing in things]


# ---- a core of a few Python functions ------------------------------------------------------------

ADDRESS, SIZE = ctypes.c_void_p, ctypes.c_size_t
SIZE_OUT, TICKET_OUT = ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_uint64)
STORE = ctypes.CFUNCTYPE(ctypes.c_int, ADDRESS, ADDRESS, ADDRESS, SIZE, ADDRESS, SIZE, ctypes.c_int64, TICKET_OUT)
PUT_MANY = ctypes.CFUNCTYPE(
    ctypes.c_int,
    *(ADDRESS, ADDRESS, SIZE, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ctypes.c_int64, SIZE_OUT, TICKET_OUT),
)
SCAN_NEXT = ctypes.CFUNCTYPE(
    ctypes.c_int,
    *(ADDRESS, ADDRESS, ADDRESS, ADDRESS, SIZE, SIZE, ctypes.c_int, SIZE_OUT, SIZE_OUT),
)
# The order of hot_api.h, after the word with version and size.
MEMBERS = ("get", "exists", "put", "insert", "remove", "get_many", "put_many", "scan_open", "scan_next")


class FakeCore:
    """Answers for put, put_many and scan_next, behind either door; the rest is the real core."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module, self.name, self.patch = door_module(name), name, monkeypatch
        self.kept: list[Any] = []

    def use(self, **functions: Callable[..., int]) -> None:
        """Replace functions of the core by Python ones with ctypes arguments."""
        kinds = {"put": STORE, "put_many": PUT_MANY, "scan_next": SCAN_NEXT}
        if self.name == "slow":
            self._replace_slow({name: _plain(kinds[name], function) for name, function in functions.items()})
        else:
            self._replace_hot({name: kinds[name](function) for name, function in functions.items()})

    def always_waiting(self) -> Any:
        """A door of whose core nothing is ever ready, without any Python code in it."""
        if self.name == "slow":
            self._replace_slow({"put": lambda *_: int(lib.RX_WOULD_WAIT)})
        else:
            # abs() of the handle is the handle.
            self._replace_hot({"put": ctypes.CDLL(None).abs})
        return self.module.Door(int(lib.RX_WOULD_WAIT))

    def _replace_slow(self, functions: dict[str, Callable[..., int]]) -> None:
        fake = types.SimpleNamespace(**{name: getattr(lib, name) for name in dir(lib)})
        for name, function in functions.items():
            setattr(fake, f"rx_{name}", function)
        self.patch.setattr(self.module, "lib", fake)

    def _replace_hot(self, functions: dict[str, Any]) -> None:
        real = address_of(lib.rx_hot_api())
        size = ctypes.c_uint32.from_address(real + 4).value
        table = (ctypes.c_uint64 * (size // 8)).from_buffer_copy(ctypes.string_at(real, size))
        for name, function in functions.items():
            table[1 + MEMBERS.index(name)] = ctypes.cast(function, ADDRESS).value or 0
        self.kept += [table, functions]
        self.module.bind(ctypes.addressof(table))


def _plain(kind: Any, function: Callable[..., int]) -> Callable[..., int]:
    """What cffi is given, as what ctypes gives."""

    def call(*args: Any) -> int:
        pairs = zip(args, kind._argtypes_, strict=True)
        return function(*(arg if isinstance(arg, int) else ctypes.cast(address_of(arg), of) for arg, of in pairs))

    return call


@pytest.fixture(params=NAMES)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCore]:
    """A door with replaceable functions behind it."""
    core = FakeCore(request.param, monkeypatch)
    yield core
    monkeypatch.undo()
    door_module(core.name)  # binds the real core


@pytest.fixture
def fake_door(fake: FakeCore, index: Any) -> Any:
    """A door that leads to the fake."""
    return fake.module.Door(address_of(index._rx))


def test_put_waits_in_slices_until_the_core_is_ready(fake: FakeCore, fake_door: Any) -> None:
    """The first call does not wait; the later ones do, for at most 50 ms each."""
    waits: list[int] = []

    def put(*args: Any) -> int:
        waits.append(args[6])
        if len(waits) < 4:
            return int(lib.RX_WOULD_WAIT)
        args[7][0] = 77
        return int(lib.RX_OK)

    fake.use(put=put)
    assert fake_door.put(b"k", b"v") == 77
    assert waits == [0, 50_000_000, 50_000_000, 50_000_000]
    waits.clear()
    fake_door[b"k"] = bytes(100_000)
    assert waits == [0, 50_000_000, 50_000_000, 50_000_000]


def test_put_that_waits_too_long_raises_timeout_error(fake: FakeCore, fake_door: Any) -> None:
    """timeout=0 asks once; a longer one bounds the last slice."""
    waits: list[int] = []

    def put(*args: Any) -> int:
        waits.append(args[6])
        time.sleep(args[6] / 1e9)
        return int(lib.RX_WOULD_WAIT)

    fake.use(put=put)
    with pytest.raises(TimeoutError):
        fake_door.put(b"k", b"v", timeout=0)
    assert waits == [0]
    waits.clear()
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        fake_door.put(b"k", b"v", timeout=0.07)
    assert time.monotonic() - begun >= 0.07
    assert 2 <= len(waits) <= 4
    assert 0 < waits[-1] < 50_000_000


def test_signal_ends_a_wait(fake: FakeCore) -> None:
    """The handler's exception comes out of put(), and its buffers are free."""

    class OwnError(Exception):
        pass

    def on_signal(number: int, frame: Any) -> None:
        raise OwnError

    value = bytearray(b"v")
    door = fake.always_waiting()
    before = signal.signal(signal.SIGALRM, on_signal)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(OwnError):
            door.put(b"k", value)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    value += b"more"


def test_close_during_a_wait_ends_it(fake: FakeCore, fake_door: Any) -> None:
    """The handle is read again after each slice."""

    def put(*args: Any) -> int:
        if args[6]:
            fake_door._rebind(0, 0)
        return int(lib.RX_WOULD_WAIT)

    fake.use(put=put)
    with pytest.raises(ClosedError):
        fake_door.put(b"k", b"v")


def test_put_many_goes_on_where_the_core_stopped(fake: FakeCore, fake_door: Any) -> None:
    """Each pair is handed over until it is done, in order."""
    counts: list[tuple[int, bool]] = []

    def put_many(*args: Any) -> int:
        n = args[2]
        counts.append((n, args[7] > 0))
        done = min(n, 40)
        args[8][0] = done
        args[9][0] = len(counts)
        return int(lib.RX_OK if done == n else lib.RX_WOULD_WAIT)

    fake.use(put_many=put_many)
    assert fake_door.put_many((b"%d" % i, b"") for i in range(100)) == 3
    assert counts == [(100, False), (60, True), (20, True)]


def test_scan_that_is_stepped_from_within_itself_raises(fake: FakeCore, fake_door: Any) -> None:
    """As a generator does: two threads cannot tear its state."""
    caught: list[str] = []
    scans: list[Iterator[Any]] = []

    def scan_next(*args: Any) -> int:
        try:
            next(scans[0])
        except ValueError as error:
            caught.append(str(error))
        return int(lib.RX_END)

    fake.use(scan_next=scan_next)
    scans.append(fake_door.scan())
    assert list(scans[0]) == []
    assert len(caught) == 1
    assert "already executing" in caught[0]


# ---- threads ---------------------------------------------------------------------------------


def test_threads_share_a_door(door: Any) -> None:
    """Large and small values, many at once, and scans: each thread finds what it put."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round_ in range(20):
                own = {b"%d/%04d" % (number, i): b"%d" % (round_ + i) for i in range(200)}
                door.put_many(own)
                assert list(own.values()) == door.get_many(own)
                door[b"%d/large" % number] = large = bytes([number]) * (70_000 + round_)
                assert large == door[b"%d/large" % number]
                assert [*sorted(own.items()), (b"%d/large" % number, large)] == list(door.scan(prefix=b"%d/" % number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_index_uses_the_door_that_is_asked_for(path: Path) -> None:
    """ROWEX_DOOR chooses; what one door wrote the other reads."""
    code = (
        "import sys, rowex, rowex._door as d\n"
        "with rowex.open(sys.argv[1]) as index:\n"
        "    index[d.name.encode()] = b'x'\n"
        "    print(d.name, d.Door.__module__, sorted(index))\n"
    )
    door_module("hot")
    for name in NAMES:
        done = run_python("-c", code, str(path), ROWEX_DOOR=name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{name} rowex._{name} ")
    with rowex.open(path, mode="r") as index:
        assert dict(index) == {b"hot": b"x", b"slow": b"x"}
