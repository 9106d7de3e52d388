"""
What is a key, what is a value: one answer from both doors, from the calls beside them, and from columns.
"""

from __future__ import annotations

import array
import ctypes
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex

np = pytest.importorskip("numpy")

Takes = Callable[[Any], Any]


class Own(bytes):
    """Bytes that claim to be others."""

    def __bytes__(self) -> bytes:
        return b"other"


def door_takes(door: Any, side: str) -> dict[str, Takes]:
    """Calls of a door that take one key or value."""
    if side == "value":
        return {
            "put": lambda value: door.put(b"k", value),
            "insert": lambda value: door.insert(b"k", value),
            "setitem": lambda value: door.__setitem__(b"k", value),
            "put_many": lambda value: door.put_many([(b"k", value)]),
            "put_many of a mapping": lambda value: door.put_many({b"k": value}),
            "_try_put": lambda value: door._try_put(b"k", value),
        }
    return {
        "get": door.get,
        "lookup": door.lookup,
        "exists": door.exists,
        "contains": lambda key: key in door,
        "put": lambda key: door.put(key, b""),
        "remove": door.remove,
        "discard": door.discard,
        "get_many": lambda key: door.get_many([key]),
        "put_many": lambda key: door.put_many([(key, b"")]),
        "scan": lambda key: door.scan(key),
        "prefix": lambda key: door.scan(prefix=key),
        "_try_remove": door._try_remove,
    }


def index_takes(index: Any, side: str) -> dict[str, Takes]:
    """Calls beside the door."""

    def batch(key: Any, value: Any) -> None:
        with index.batch() as changes:
            changes.put(key, value)

    if side == "value":
        return door_takes(index, side) | {
            "compare_and_set": lambda value: index.compare_and_set(b"k", b"none", value),
            "expected": lambda value: index.compare_and_set(b"k", value, b""),
            "setdefault": lambda value: index.setdefault(b"k", value),
            "batch": lambda value: batch(b"k", value),
            "update": lambda value: index.update({b"k": value}),
            "load": lambda value: index.load([(b"k", value)]),
            "list of values": lambda value: index.put_many([b"k"], [value]),
        }
    return door_takes(index, side) | {
        "compare_and_set": lambda key: index.compare_and_set(key, None, None),
        "pop": lambda key: index.pop(key, None),
        "setdefault": lambda key: index.setdefault(key, b""),
        "remove_many": lambda key: index.remove_many([key]),
        "floor": index.floor,
        "batch": lambda key: batch(key, b""),
        "load": lambda key: index.load([(key, b"")]),
        "list of keys": lambda key: index.put_many([key], [b""]),
        "scan_batches": index.scan_batches,
    }


def objects() -> dict[str, Any]:
    """Buffers whose bytes are addresses."""
    pair = np.zeros(2, [("number", "i4"), ("Other", "O")])
    return {
        "array": np.array([object()], dtype=object),
        "scalar": np.array(object(), dtype=object),
        "field": pair,
        "ctypes": (ctypes.py_object * 2)(1, 2),
    }


def refused(takes: dict[str, Takes], wrong: Any, match: str) -> None:
    """Each call raises a TypeError."""
    for name, take in takes.items():
        with pytest.raises(TypeError, match=match):
            pytest.fail(f"{name} took it: {take(wrong)!r}")


@pytest.mark.parametrize("side", ["key", "value"])
def test_str_of_numpy_is_str(door: Any, index: Any, side: str) -> None:
    """It is a buffer too, of four bytes a character, which nobody means."""
    for takes in (door_takes(door, side), index_takes(index, side)):
        for text in ("al", np.str_("al"), type("Mine", (str,), {})("al")):
            refused(takes, text, f"a {side} must be bytes-like, not str: encode it, or open with {side}s='str'")
    assert len(index) == 0


@pytest.mark.parametrize("side", ["key", "value"])
def test_objects_are_never_stored_as_their_addresses(door: Any, index: Any, side: str) -> None:
    """Arrays of objects, with objects among their fields, of ctypes."""
    for takes in (door_takes(door, side), index_takes(index, side)):
        for kind, wrong in objects().items():
            refused(takes, wrong, f"a {side} must be bytes-like, not objects")
            assert len(index) == 0, kind
    for wrong in (objects()["array"], objects()["field"]):
        with pytest.raises(TypeError, match="objects"):
            index.put_many([b"k"] * len(wrong), wrong)
        with pytest.raises(TypeError, match="objects"):
            index.put_many(wrong, [b""] * len(wrong))
    assert len(index) == 0


def test_names_of_fields_are_no_formats(door: Any, index: Any) -> None:
    """A field called O holds what its type says."""
    fine = np.array([(7, 1.5)], [("O", "i4"), ("POP", "f8")])
    for takes in (door_takes(door, "value"), index_takes(index, "value")):
        for name in ("put", "put_many", "batch", "setdefault", "load"):
            index.clear()
            takes.get(name, takes["setitem"])(fine)
            assert index[b"k"] == fine.tobytes(), name


@pytest.mark.parametrize("side", ["key", "value"])
def test_what_does_not_lie_in_one_piece_is_refused(door: Any, index: Any, side: str) -> None:
    """Steps, columns first, and what its own type cannot describe; nobody guesses the order of the bytes."""
    square = np.arange(4, dtype="u1").reshape(2, 2)
    for takes in (door_takes(door, side), index_takes(index, side)):
        for wrong in (memoryview(b"123456")[::2], square.T, np.arange(8)[::2], np.asfortranarray(square)):
            refused(takes, wrong, f"a {side} must be a contiguous buffer, which this {type(wrong).__name__} is not")
        closed = mmap.mmap(-1, 8)
        closed.close()
        for wrong in (np.array(["2020"], "M8[D]"), closed):
            refused(takes, wrong, f"a {side} must be bytes-like, which this {type(wrong).__name__} is not")
    assert len(index) == 0


def test_bytes_of_a_class_are_the_bytes_that_they_hold(path: Path, door: Any, index: Any) -> None:
    """Whatever way they come in; what the class makes of them is another thing."""
    for takes in (door_takes(door, "value"), index_takes(index, "value")):
        for name, take in takes.items():
            index.clear()
            if name == "compare_and_set":
                index[b"k"] = b"none"
            take(Own(b"v"))
            assert index.get(b"k") == (None if name == "expected" else b"v"), name
    for take in ("put", "put_many", "load", "list of keys", "batch", "setdefault"):
        index.clear()
        index_takes(index, "key")[take](Own(b"k"))
        assert list(index) == [b"k"], take
    built_path = path.with_name("built")
    rowex.build(built_path, [(Own(b"k"), Own(b"v"))])
    with rowex.open(built_path, "r") as built:
        assert list(built.items()) == [(b"k", b"v")]


def test_buffers_are_given_back_after_success_and_failure(door: Any) -> None:
    """Also where the exception is kept."""
    kept = []
    for wrong in (bytearray(8), array.array("q", [1, 2])):
        for view in (memoryview(wrong), memoryview(wrong)[::2]):
            for take in [*door_takes(door, "key").values(), *door_takes(door, "value").values()]:
                try:
                    take(view)
                except (TypeError, KeyError) as error:
                    kept.append(error)
            view.release()
        wrong.extend([1])
    assert kept


def test_a_single_number_is_no_key_of_bytes(door: Any, index: Any) -> None:
    """Its memory is not what an array of it stores; the message says what is.  As a value it is its memory."""
    times = np.array(["2020"], "M8[D]")
    for takes in (door_takes(door, "key"), index_takes(index, "key")):
        for number in (np.int64(5), np.uint8(5), np.float64(5), np.array(5), np.True_, ctypes.c_int(5), times[0]):
            refused(takes, number, r"not a single \w+: .*to_bytes\(8, 'big'\).*keys='int'")
    assert len(index) == 0
    index.put_many(np.array([5]), np.array([7]))
    assert index[int(np.int64(5)).to_bytes(8, "big")] == np.int64(7).tobytes()
    for takes in (door_takes(door, "value"), index_takes(index, "value")):
        takes["setitem"](np.float64(1.5))
        assert index[b"k"] == np.float64(1.5).tobytes()


def test_items_of_arrays_of_bytes_are_the_keys_that_the_arrays_are(door: Any, index: Any) -> None:
    """S and V, one by one and at once."""
    for keys in (np.array([b"a", b"bc"]), np.frombuffer(b"12345678", "V4")):
        index.put_many(keys, np.arange(2))
        for number, key in enumerate(keys):
            assert door[key] == index[key] == np.int64(number).tobytes()
            assert index.pop(key) == np.int64(number).tobytes()
        assert len(index) == 0


def test_integers_of_other_types_are_the_integers_that_they_are(path: Path, opened: Callable[..., Any]) -> None:
    """In keys, values and tuples: what an array of them stores, and what int() gives of them; bool is none."""
    index = opened(path, keys="int", values="int")
    numbers = np.array([5, -7, 2**40])
    index.put_many(numbers, numbers)
    for number in numbers:
        assert index[number] == index.get(number) == int(number)
        assert number in index
    assert index.get_many(list(numbers)) == numbers.tolist()
    index[np.uint8(9)] = np.int16(-9)
    assert index.compare_and_set(np.array(9), np.int64(-9), np.int64(10))
    assert list(index.items())[2] == (9, 10)
    for wrong in (True, np.True_, np.float64(5), np.array([5]), 5.0, "5"):
        with pytest.raises(TypeError, match="expected int, not"):
            index.put(wrong, 1)
        with pytest.raises(TypeError, match="expected int, not"):
            index.put(1, wrong)
    tuples = opened(path.with_name("tuples"), keys="tuple")
    tuples[("a", np.int64(5))] = b""
    assert list(tuples) == [("a", 5)]
    for wrong in (np.True_, np.float64(5), np.array([5])):
        with pytest.raises(TypeError, match="a tuple may hold bytes, str, int and tuples, not"):
            tuples[(wrong,)] = b""
