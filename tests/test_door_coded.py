"""
Objects that are not bytes, through a door: many keys that are encoded, items and values that are decoded.
"""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
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


@pytest.fixture
def memory_of() -> Any:
    """Opens indexes in memory and closes them."""
    opened = []

    def make(**options: Any) -> Any:
        opened.append(rowex.memory(**options))
        return opened[-1]

    yield make
    for index in opened:
        index.close()
