"""
Objects that are not bytes, through a door: many keys that are encoded, items and values that are decoded.
"""

from __future__ import annotations

import gc
import itertools
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from doors import NAMES, door_module
from rowex import _forms, codecs

ITEMS, KEYS, VALUES = 0, 1, 2
ALL = (None, None, None, False, None)


def encode(key: int) -> bytes:
    return b"%06d" % key


def decode(data: bytes) -> int:
    return int(data)


def of_text(data: bytes) -> str:
    return data.decode()


@pytest.mark.parametrize("to_value", [of_text, codecs.decode_str, _forms.decode_str, codecs.decode_bytes])
def test_items_are_decoded(door: Any, to_value: Callable[[bytes], Any], rng: random.Random) -> None:
    """By functions of the package, of its doors, or of anybody; in batches of any size."""
    model = {number: "v" * rng.choice((0, 1, 30, 5000)) for number in rng.sample(range(10**6), 1500)}
    door.put_many((encode(key), value.encode()) for key, value in model.items())
    values = {key: to_value(value.encode()) for key, value in model.items()}
    wanted = sorted(values.items())
    assert list(door._scan(*ALL, ITEMS, decode, to_value)) == wanted
    assert list(door._scan(*ALL, KEYS, decode, to_value)) == [key for key, _ in wanted]
    assert list(door._scan(*ALL, VALUES, decode, to_value)) == [value for _, value in wanted]
    keys = [rng.choice([*model, -1]) for _ in range(2000)]
    nothing = object()
    assert door._get_each(keys, nothing, encode, to_value) == [values.get(key, nothing) for key in keys]


def test_values_larger_than_the_buffer_are_decoded(door: Any) -> None:
    """One that is fetched by itself is decoded like the others."""
    door.put_many({b"1": b"small", b"2": b"x" * 100_000, b"3": b"", b"4": b"y" * 70_000})
    wanted = ["small", "x" * 100_000, "", "y" * 70_000]
    assert door._get_each([1, 2, 3, 4], None, lambda key: b"%d" % key, of_text) == wanted
    assert list(door._scan(*ALL, VALUES, decode, of_text)) == wanted


def test_what_cannot_be_decoded_says_where(door: Any) -> None:
    """The error of a value tells of which item or key; a scan goes on behind it."""
    door.put_many({b"%02d" % number: b"%d" % number for number in range(30)} | {b"07": b"no number"})
    with pytest.raises(ValueError, match="no number") as failed:
        door._get_each([3, 7, 9], None, lambda key: b"%02d" % key, decode)
    assert failed.value.__notes__ == ["item 1, counted from 0"]
    scan = door._scan(*ALL, ITEMS, of_text, decode)
    found, errors = [], []
    while True:
        try:
            found.append(next(scan))
        except ValueError as error:
            errors.append(error.__notes__)
        except StopIteration:
            break
    assert errors == [["the value of key '07'"]]
    assert found == [(f"{number:02}", number) for number in range(30) if number != 7]


def test_what_cannot_be_encoded_says_which(door: Any) -> None:
    """Nothing is looked up then."""
    with pytest.raises(TypeError, match="expected int") as failed:
        door._get_each([1, 2, "3"], None, codecs.encode_int, codecs.decode_int)
    assert failed.value.__notes__ == ["item 2, counted from 0"]
    with pytest.raises(TypeError, match="bytes-like") as failed:
        door._get_each([1, 2], None, lambda key: key, codecs.decode_int)
    assert failed.value.__notes__ == ["item 0, counted from 0"]


def test_functions_may_use_the_door_and_close_it(door: Any) -> None:
    """Whatever they do, what comes of it is an answer or an exception."""
    door.put_many((encode(number), b"%d" % number) for number in range(5000))

    def meddle(data: bytes) -> int:
        door.put(b"more" + data, b"0")
        return int(data)

    assert list(door._scan(b"0", b"1", None, False, None, VALUES, decode, meddle)) == list(range(5000))
    assert door._get_each(range(5000), None, encode, meddle) == list(range(5000))

    def close(data: bytes) -> int:
        door._rebind(0, 0)
        return int(data)

    with pytest.raises(rowex.ClosedError):
        door._get_each(range(5000), None, encode, close)


def test_a_scan_may_be_stepped_and_dropped_by_its_own_function(door: Any) -> None:
    """A record that takes in the next one; an iterator that lets go of the scan in the middle of a step."""
    door.put_many({b"1": b"a", b"2": b"and", b"3": b"c", b"4": b"d"})

    def joined(data: bytes) -> Any:
        return (data, next(scan)) if data == b"and" else data

    scan = door._scan(*ALL, ITEMS, decode, joined)
    assert list(scan) == [(1, b"a"), (2, (b"and", (3, b"c"))), (4, b"d")]

    junk: list[Any] = []

    def dropping(data: bytes) -> bytes:
        if data == b"and":
            assert next(outer) == (3, b"c")
            list(outer)  # islice() lets go of what it reads at its end
            gc.collect()
            junk.extend(bytes(200) for _ in range(1000))
        return data

    outer = itertools.islice(door._scan(*ALL, ITEMS, decode, dropping), 4)
    assert list(outer) == [(1, b"a"), (2, b"and")]


def test_a_scan_keeps_nothing_that_it_gave(door: Any) -> None:
    """Neither at its end, nor in a cycle through a pair that was used before."""
    door.put_many({b"%d" % number: b"atom" if number < 3 else b"object" for number in range(6)})

    class Value:
        pair: Any

    kept = []

    def made(data: bytes) -> Any:
        if data == b"atom":
            return None
        value = Value()
        kept.append(weakref.ref(value))
        return value

    scan = door._scan(*ALL, ITEMS, decode, made)
    next(scan)
    gc.collect()  # which need not look at pairs of atoms any more
    for pair in scan:
        if pair[1] is not None:
            pair[1].pair = pair
    del pair
    gc.collect()
    assert [value() for value in kept] == [None] * 3


def test_a_codec_that_raises_stop_iteration_ends_nothing(memory_of: Callable[..., Any], tmp_path: Path) -> None:
    """It is told, by every call, and not taken for the end of the items."""

    def known(key: int) -> bytes:
        return next(b"%d" % number for number in (0, 1, 2, 4) if number == key)

    def read(data: bytes) -> int:
        return next(number for number in (0, 1, 2, 4) if number == int(data))

    codec = {"keys": (known, int), "values": (lambda value: b"%d" % value, read)}
    index = memory_of(**codec)
    pairs = [(number, number) for number in range(5)]
    for call in (
        lambda: index.put_many(pairs),
        lambda: index.load(pairs),
        lambda: rowex.build(tmp_path / "built", pairs, codecs=(codec["keys"], codec["values"])),
        lambda: index.put(3, 1),
        lambda: index.get_many([1, 3, 2]),
        lambda: index.remove_many([1, 3, 2]),
        lambda: index.batch().put(3, 1),
        lambda: 3 in index,
    ):
        with pytest.raises(RuntimeError, match="StopIteration"):
            call()
    index.put_many({0: 0, 1: 3, 2: 2})
    for call in (
        lambda: index[1],
        lambda: index.get_many([0, 1, 2]),
        lambda: list(index.items()),
        lambda: index.pop(1),
    ):
        with pytest.raises(RuntimeError, match="StopIteration"):
            call()
    assert list(index) == [0, 1, 2]

    class Odd:
        def __iter__(self) -> Any:
            raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        index.put_many([(0, 0), Odd(), (2, 2)])


def test_numbers_that_raise_stop_iteration_end_nothing(memory_of: Callable[..., Any], tmp_path: Path) -> None:
    """The codecs of the package run the caller's code too."""

    class Odd:
        def __index__(self) -> int:
            raise StopIteration

    index = memory_of(keys="int", values="int")
    pairs: list[Any] = [(1, 1), (Odd(), 2), (3, 3)]
    for call in (
        lambda: index.put_many(pairs),
        lambda: index.load(pairs),
        lambda: rowex.build(tmp_path / "built", pairs, codecs=("int", "int")),
        lambda: memory_of(keys="tuple").put_many([((1,), b""), ((Odd(),), b""), ((3,), b"")]),
    ):
        with pytest.raises(RuntimeError, match="StopIteration") as failed:
            call()
        assert isinstance(failed.value.__cause__, StopIteration)


def test_pairs_may_be_dropped_in_the_middle() -> None:
    """By an encoder that exhausts what steps them; generators, which the other door has, do not survive that."""
    junk: list[Any] = []

    def dropping(number: int) -> bytes:
        if number == 2:
            list(outer)
            gc.collect()
            junk.extend(bytes(40 + i % 64) for i in range(5000))
        return b"%d" % number

    pairs = door_module("hot").encoded([(i, i) for i in range(6)], dropping, lambda number: b"v")
    outer = itertools.islice(pairs, 6)
    del pairs
    assert (b"0", b"v") in list(outer)


def test_a_scan_keeps_its_functions_alive_and_no_longer(door: Any) -> None:
    """Also where they refer to it."""
    door.put(b"1", b"2")

    class Reader:
        def __call__(self, data: bytes) -> int:
            return int(data)

    reader: Any = Reader()
    kept = weakref.ref(reader)
    scan = door._scan(*ALL, ITEMS, reader, reader)
    reader.scan = scan
    del reader
    gc.collect()
    assert kept() is not None
    assert list(scan) == [(1, 2)]
    del scan
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("kind", ["str", "int", "tuple"])
def test_an_index_of_objects_survives_what_others_stored(memory_of: Callable[..., Any], kind: str) -> None:
    """Keys that no codec wrote are told as damage by every call that meets them."""
    index = memory_of(keys=kind)
    index.raw.put(b"\xff\x00", b"v")
    for call in (lambda: list(index), lambda: list(index.scan()), index.first, index.last):
        with pytest.raises(rowex.CorruptionError, match="not a"):
            call()


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_encoded(name: str) -> None:
    """Of lists, tuples, iterators; an error tells which item and which side, and is the end."""
    encoded = door_module(name).encoded
    pairs = [(1, "a"), [2, "b"], iter((3, "c"))]
    wanted = [(codecs.encode_int(number), text.encode()) for number, text in ((1, "a"), (2, "b"), (3, "c"))]
    assert list(encoded(pairs, codecs.encode_int, codecs.encode_str)) == wanted
    assert list(encoded([], int, int)) == []
    for wrong, note in (
        (("no", "c"), "the key of item 9, counted from 0"),
        ((3, b"c"), "the value of item 9, counted from 0"),
        ((3,), "item 9, counted from 0"),
        (3, "item 9, counted from 0"),
    ):
        rest = encoded([(1, "a"), (2, "b"), wrong, (4, "d")], codecs.encode_int, codecs.encode_str, 7)
        assert [next(rest), next(rest)] == wanted[:2]
        with pytest.raises((TypeError, ValueError)) as failed:
            next(rest)
        assert failed.value.__notes__ == [note]
        assert list(rest) == []

    def broken() -> Any:
        yield 1, "a"
        raise OSError("of the source")

    rest = encoded(broken(), codecs.encode_int, codecs.encode_str)
    assert next(rest) == wanted[0]
    with pytest.raises(OSError, match="of the source") as failed:
        next(rest)
    assert not hasattr(failed.value, "__notes__")
    assert list(rest) == []


def test_arguments_of_the_short_door_are_looked_at() -> None:
    """Wrong ones are refused, not read."""
    hot = door_module("hot")
    for arguments in ((), ([], int), ([], int, int, "x"), (1, int, int), ([], int, int, 1, 2)):
        with pytest.raises((TypeError, OverflowError)):
            hot.encoded(*arguments)
    door = hot.Door(0)
    with pytest.raises(TypeError):
        door._get_each([], None, int)
    with pytest.raises(rowex.ClosedError):
        door._get_each([], None, int, int)
