"""
The two doors, `_hot` and `_slow`: the same calls, the same answers, the same exceptions.

They go to a real index through a door of their own.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import inspect
import itertools
import mmap
import random
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowex
from doors import NAMES, door_module
from rowex._door_texts import TEXTS
from rowex.errors import ClosedError, DuplicateKeyError, ReadOnlyError
from tools import run_python

SIZES = (0, 1, 7, 8, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20)
ITEMS, KEYS, VALUES = 0, 1, 2
WRONG = (None, 1, 1.5, object(), ["a"], ("a", "b"))


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


CALLS = ("get", "lookup", "exists", "put", "insert", "remove", "discard", "get_many", "put_many", "scan")


def test_both_doors_have_the_same_signatures() -> None:
    """One set of type hints and documentation serves both."""
    hot, slow = (door_module(name).Door for name in NAMES)
    for name in (*CALLS, "_scan", "_try_put", "_try_insert", "_try_remove", "_rebind"):
        shapes = [
            [(p.name, p.kind, p.default) for p in list(inspect.signature(getattr(door, name)).parameters.values())[1:]]
            for door in (hot, slow)
        ]
        assert shapes[0] == shapes[1], name


def test_both_doors_have_the_same_texts(door_type: Any) -> None:
    """help() tells of each frequent call what it takes, returns, raises and promises, through either door."""
    assert set(TEXTS) == {name for name in vars(door_type.__base__) if not name.startswith("_")} == set(CALLS)
    for name in CALLS:
        text = inspect.getdoc(getattr(door_type, name))
        assert inspect.cleandoc(TEXTS[name]) == text, name
        parts = ("\nArgs:\n    ", "\nReturns:\n    ", "\nRaises:\n    ")
        assert all(part in text for part in parts), name
        for parameter in list(inspect.signature(getattr(door_type, name)).parameters)[1:]:
            assert f"\n    {parameter}: " in text, (name, parameter)


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
