"""
Arguments other than single keys and values: timeouts, pairs, and what an error of many items tells.
"""

from __future__ import annotations

import errno
import types
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import rowex
from doors import address_of


def timed_calls(index: Any) -> list[Callable[..., Any]]:
    """Calls beside the door that may wait."""

    def batch(timeout: Any) -> None:
        with index.batch(timeout=timeout) as changes:
            changes.put(b"k", b"v")

    return [
        lambda timeout: index.compare_and_set(b"k", None, b"v", timeout=timeout),
        lambda timeout: index.setdefault(b"k", b"v", timeout=timeout),
        lambda timeout: index.put_many([b"k"], [b"v"], timeout=timeout),
        batch,
        lambda timeout: index.pop(b"k", None, timeout=timeout),
        lambda timeout: index.remove_many([b"k"], timeout=timeout),
        lambda timeout: index.check(timeout=timeout),
        lambda timeout: index.compact(timeout=timeout),
        lambda timeout: index.wait_durable(0, timeout),
        lambda timeout: index.flush(timeout),
    ]


def test_timeouts_that_make_no_sense_are_refused(door: Any, index: Any) -> None:
    """Before anything is stored, by every call alike; numbers of all kinds are taken."""
    calls = [
        lambda timeout: door.put(b"k", b"v", timeout=timeout),
        lambda timeout: door.insert(b"k", b"v", timeout=timeout),
        lambda timeout: door.put_many({b"k": b"v"}, timeout=timeout),
        lambda timeout: door.discard(b"k", timeout=timeout),
        *timed_calls(index),
    ]
    for call in calls:
        for wrong in ("1", b"1", bytearray(b"1"), memoryview(b"1"), [1], object(), 1j):
            with pytest.raises(TypeError, match=f"timeout must be .* not {type(wrong).__name__}"):
                call(wrong)
        for number in (-1, -0.001, float("nan"), float("-inf"), 10**400, Decimal(-1)):
            with pytest.raises(ValueError, match="timeout"):
                call(number)
        assert b"k" not in door
    door.put(b"k", b"v")  # the first marks the file as in use
    for fine in (0, 0.0):
        door.put(b"k", b"v", timeout=fine)
    for fine in (None, 1, True, 1.5, 1e30, float("inf"), Decimal("1.5"), Fraction(3, 2)):
        for call in calls:
            index.discard(b"k")
            call(fine)


def test_a_reader_says_that_it_is_one(make_door: Callable[..., Any], index: Any) -> None:
    """The index that it is of may well be open to write; a handle that is not says another thing."""
    with index.reader() as reader:
        mine = make_door(address_of(reader._rx_thread), readonly=True)
        changes = [reader.compare_and_set, reader.setdefault]
        for door in (reader, mine):
            changes += [door.put, door.insert, door.__setitem__, door._try_put, door._try_insert]
            changes += [lambda key, value, door=door: door.put_many([(key, value)])]
            changes += [lambda key, value, door=door: door.remove(key)]
            changes += [lambda key, value, door=door: door.discard(key)]
            changes += [lambda key, value, door=door: door._try_remove(key)]
        for change in changes:
            with pytest.raises(
                rowex.ReadOnlyError, match=r"a reader changes nothing; use the index, or its writer"
            ) as caught:
                change(b"k", *([b"", b""] if change == reader.compare_and_set else [b""]))
            assert caught.value.errno == errno.EROFS
    other = make_door(readonly=True)
    for change in (other.put, other._try_put):
        with pytest.raises(rowex.ReadOnlyError, match="the index is open read-only"):
            change(b"k", b"v")


# ---- pairs -----------------------------------------------------------------------------


class Pairs:
    """What is not a Mapping, but gives pairs."""

    def __init__(self, pairs: list[Any]) -> None:
        self.pairs = pairs


class WithItems(Pairs):
    """By items()."""

    def items(self) -> Any:
        return iter(self.pairs)


class WithKeys(Pairs):
    """By keys() and []; it cannot be iterated over."""

    __iter__ = None

    def keys(self) -> Any:
        return iter([key for key, _ in self.pairs])

    def __getitem__(self, key: Any) -> Any:
        return dict(self.pairs)[key]


PAIRS: list[Callable[[list[Any]], Any]] = [
    list,
    tuple,
    iter,
    dict,
    lambda pairs: types.MappingProxyType(dict(pairs)),
    WithItems,
    WithKeys,
    lambda pairs: [list(pair) for pair in pairs],
    lambda pairs: (iter(pair) for pair in pairs),
]


@pytest.mark.parametrize("form", PAIRS)
def test_pairs_of_every_form_are_pairs_for_every_call(
    door: Any, index: Any, path: Path, opened: Callable[..., Any], form: Callable[[list[Any]], Any]
) -> None:
    """Mappings, what is like them, and iterables."""
    plain, numbers = [(b"a", b"1"), (b"b", b"2")], [(1, 2), (3, 4)]
    coded = opened(path.with_name("coded"), keys="int", values="int")
    for put in (door.put_many, index.put_many, index.load, index.update):
        index.clear()
        put(form(plain))
        assert list(index.items()) == plain
    for put in (coded.put_many, coded.load, coded.update):
        coded.clear()
        put(form(numbers))
        assert list(coded.items()) == numbers
    assert rowex.build(path.with_name("built"), form(plain)) == 2
    assert rowex.build(path.with_name("numbers"), form(numbers), codecs=("int", "int")) == 2


def bulk_calls(door: Any, index: Any, path: Path) -> list[Callable[[Any], Any]]:
    """Calls that take many pairs of bytes."""
    return [
        door.put_many,
        index.put_many,
        index.load,
        index.update,
        lambda pairs: index.load(pairs, progress=lambda count: None),
        lambda pairs: rowex.build(path.with_name("built"), pairs),
    ]


def notes(caught: Any) -> list[str]:
    """What was added to an exception."""
    return list(getattr(caught.value, "__notes__", []))


@pytest.mark.parametrize("at", [0, 5, 700, 4500])
def test_error_of_many_items_tells_which_and_which_side_of_it(door: Any, index: Any, path: Path, at: int) -> None:
    """Pairs that are none, keys and values of wrong types, keys that are too long; one note, from every call."""
    pairs: list[Any] = [(b"%06d" % i, b"") for i in range(5000)]
    long = b"x" * ((1 << 20) + 1)
    wrong: list[tuple[Any, type[Exception], str, str]] = [
        (1, TypeError, r"expected pairs \(key, value\), not int", ""),
        ((b"a", b"b", b"c"), ValueError, r"expected pairs \(key, value\), not 3 items", ""),
        ([b"a"], ValueError, r"expected pairs \(key, value\), not 1 items", ""),
        ((1, b""), TypeError, "a key must be bytes-like, not int", "the key of "),
        ((b"a", "x"), TypeError, "a value must be bytes-like, not str", "the value of "),
        ((long, b""), ValueError, "the limit is 1048576", ""),
    ]
    for item, kind, match, side in wrong:
        mixed = [*pairs[:at], item, *pairs[at + 1 :]]
        for number, call in enumerate(bulk_calls(door, index, path)):
            for form in (list, iter):
                with pytest.raises(kind, match=match) as caught:
                    call(form(mixed))
                assert notes(caught) == [f"{side}item {at}, counted from 0"], (number, item)
    for many in (door.get_many, index.get_many, index.remove_many):
        with pytest.raises(TypeError, match="a key must be") as caught:
            many([*[key for key, _ in pairs[:at]], 1])
        assert notes(caught) == [f"item {at}, counted from 0"]
    with pytest.raises(TypeError, match="a value must be") as caught:
        index.put_many([key for key, _ in pairs[: at + 1]], [*[b""] * at, 1])
    assert notes(caught) == [f"item {at}, counted from 0"]


@pytest.mark.parametrize("at", [0, 5, 700, 4500])
def test_error_of_a_codec_tells_which_item_and_side(path: Path, opened: Callable[..., Any], at: int) -> None:
    """The types of keys and values may be the same."""
    index = opened(path, keys="int", values="int")
    pairs = [(i, i) for i in range(5000)]
    for item, side in (((1, "x"), "value"), (("x", 1), "key")):
        mixed = [*pairs[:at], item, *pairs[at + 1 :]]
        for call in bulk_calls(index, index, path)[:-1]:
            with pytest.raises(TypeError, match="expected int, not str") as caught:
                call(mixed)
            assert notes(caught) == [f"the {side} of item {at}, counted from 0"]
        with pytest.raises(TypeError) as caught:
            rowex.build(path.with_name("built"), mixed, codecs=("int", "int"))
        assert notes(caught) == [f"the {side} of item {at}, counted from 0"]
    for many in (index.get_many, index.remove_many):
        with pytest.raises(TypeError, match="expected int") as caught:
            many([*range(at), "x", *range(at)])
        assert notes(caught) == [f"item {at}, counted from 0"]


def test_value_that_cannot_be_decoded_is_named_by_its_key(path: Path, opened: Callable[..., Any]) -> None:
    """In whatever call it is met."""
    index = opened(path, keys="str", values="int")
    index.update({"a": 1, "bad": 2, "c": 3})
    index.raw[b"bad"] = b"\xc1"
    reads: list[Callable[[], Any]] = [
        lambda: index["bad"],
        lambda: index.get("bad"),
        lambda: list(index.items()),
        lambda: index.floor("bad"),
        lambda: index.setdefault("bad", 1),
    ]
    for read in reads:
        with pytest.raises(rowex.CorruptionError, match="not an int that Rowex stored") as caught:
            read()
        assert notes(caught) == ["the value of key 'bad'"]
    with pytest.raises(rowex.CorruptionError) as caught:
        index.get_many(["a", "none", "bad", "c"])
    assert notes(caught) == ["item 2, counted from 0"]


# ---- sources that fail -----------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 99, 513, 3002, 4500, 9000])
def test_load_and_build_keep_what_came_before_the_source_failed(
    door: Any, index: Any, path: Path, opened: Callable[..., Any], count: int
) -> None:
    """As put_many() does; build from the first on that is out of order, before it leaves nothing."""

    def source(make: Callable[[int], Any], last: Any, *, ascending: bool = True) -> Any:
        for i in range(count):
            yield make(i if ascending else i ^ 1)
        if last is None:
            raise LookupError("from the source")
        yield last

    def plain(i: int) -> tuple[bytes, bytes]:
        return b"%06d" % i, b"v"

    for last, kind in ((None, LookupError), ((b"k", 1), TypeError), (1, TypeError), ((b"k",), ValueError)):
        for call in bulk_calls(door, index, path)[:-1]:
            index.clear()
            with pytest.raises(kind):
                call(source(plain, last))
            assert len(index) == count
        built = path.with_name("built")
        with pytest.raises(kind):
            rowex.build(built, source(plain, last))
        assert not built.exists()
        with pytest.raises(kind):
            rowex.build(built, source(plain, last, ascending=False))
        assert built.exists() == (count > 1)
        if built.exists():
            with rowex.open(built) as found:
                assert len(found) == count
            rowex.destroy(built)
    coded = opened(path.with_name("coded"), keys="int", values="int")
    for call in (coded.put_many, coded.load):
        coded.clear()
        with pytest.raises(TypeError, match="expected int, not str"):
            call(source(lambda i: (i, i), (1, "x")))
        assert len(coded) == count


def test_load_that_is_interrupted_keeps_what_came_before(index: Any) -> None:
    """And tells the interrupt."""

    def source() -> Any:
        yield from ((b"%d" % i, b"") for i in range(500))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.load(source())
    assert len(index) == 500
