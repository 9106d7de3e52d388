"""
Codecs: a stated order, a round trip, and clear refusals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import rowex
from doors import door_module
from rowex import _forms, codecs
from tools import Child

Start = Callable[..., Child]

texts = st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=30)
numbers = st.one_of(
    st.integers(),
    st.integers(-300, 300),
    st.builds(lambda e, d: 2**e + d, st.integers(0, 1100), st.integers(-2, 2)),
    st.builds(lambda e, d: -(2**e) + d, st.integers(0, 1100), st.integers(-2, 2)),
)
scalars = st.one_of(st.binary(max_size=12), texts, numbers)
tuples = st.recursive(
    st.lists(scalars, max_size=4).map(tuple),
    lambda inner: st.lists(inner | scalars, max_size=3).map(tuple),
    max_leaves=8,
)


@given(texts, texts)
@example("\ud7ff", "\ue000")
@example("\ud800", "\U00010000")
@example("", "\0")
def test_str_keys_sort_as_python_sorts_them(a: str, b: str) -> None:
    """The bytes of two strs compare as the strs do, by code point; the round trip is exact."""
    x, y = codecs.STR.encode(a), codecs.STR.encode(b)
    assert (x < y, x == y) == (a < b, a == b)
    assert codecs.STR.decode(x) == a


@given(numbers, numbers)
@example(-1, 0)
@example(256**119 - 1, 256**119)
@example(-(256**119), -(256**119) - 1)
@example(256**255, 256**256)
def test_int_keys_sort_as_numbers(a: int, b: int) -> None:
    """The bytes of two ints of any size compare as the ints do; the round trip is exact."""
    x, y = codecs.INT.encode(a), codecs.INT.encode(b)
    assert (x < y, x == y) == (a < b, a == b)
    assert codecs.INT.decode(x) == a


@given(st.tuples(texts, numbers, st.binary()), st.tuples(texts, numbers, st.binary()))
@example(("a", 1, b""), ("a", 1, b"\0"))
@example(("a", 1, b"\0"), ("a", 1, b"\0\xff"))
def test_tuples_of_like_elements_sort_as_python_sorts_them(a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
    """Element by element, as Python compares tuples."""
    x, y = codecs.TUPLE.encode(a), codecs.TUPLE.encode(b)
    assert (x < y, x == y) == (a < b, a == b)


@given(st.lists(st.integers() | st.none(), max_size=5), st.lists(st.integers() | st.none(), max_size=5))
def test_tuples_of_different_lengths_sort_as_python_sorts_them(a: list[Any], b: list[Any]) -> None:
    """A tuple sorts before those that it begins; nested ones too."""
    first = tuple(n for n in a if n is not None)
    second = tuple(n for n in b if n is not None)
    assert (codecs.TUPLE.encode(first) < codecs.TUPLE.encode(second)) == (first < second)
    nested = codecs.TUPLE.encode((first, 1)) < codecs.TUPLE.encode((second, 1))
    assert nested == ((first, 1) < (second, 1))


def rank(item: Any) -> tuple[int, Any]:
    """The stated order of elements of different types: bytes, str, int, tuple."""
    if isinstance(item, tuple):
        return 3, [rank(inner) for inner in item]
    return [bytes, str, int].index(type(item)), item


@given(tuples, tuples)
def test_mixed_tuples_sort_in_the_stated_order(a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
    """Elements of different types sort bytes, str, int, tuple; the round trip is exact, types included."""
    x, y = codecs.TUPLE.encode(a), codecs.TUPLE.encode(b)
    assert (x < y, x == y) == (rank(a) < rank(b), rank(a) == rank(b))
    assert rank(codecs.TUPLE.decode(x)) == rank(a)


FORMS = ("encode_key", "encode_bytes", "encode_str", "encode_int", "encode_tuple")
READ = ("decode_bytes", "decode_str", "decode_int", "decode_tuple")


class OwnInt(int):
    """An int that is none of the interpreter's own."""


class OwnStr(str):
    """Likewise a str."""

    __slots__ = ()


def answer(function: Any, argument: Any) -> tuple[Any, ...]:
    """What a function gives or raises, types included."""
    try:
        result = function(argument)
    except Exception as error:
        return type(error), str(error), getattr(error, "__notes__", None)
    return type(result), result, [type(item) for item in result] if isinstance(result, tuple) else None


def compare(names: tuple[str, ...], argument: Any) -> None:
    """All doors answer alike; the forms in Python are the definition."""
    hot, slow = door_module("hot"), _forms
    for name in names:
        assert answer(getattr(hot, name), argument) == answer(getattr(slow, name), argument), name


odd = st.one_of(
    tuples,
    scalars,
    st.sampled_from([None, True, 1.5, [], bytearray(b"x"), memoryview(b"ab"), OwnInt(7), OwnStr("s"), (True,), ([],)]),
    st.sampled_from([(OwnInt(7), OwnStr("s")), ("a\0b", b"c\0d"), ("\ud800",), tuple(range(16)), tuple(range(17))]),
    st.integers(-2, 2).flatmap(lambda d: st.sampled_from([2**63 + d, 2**64 + d, -(2**63) + d, -(2**64) + d])),
)


@given(odd)
@example(())
@example((2**63, -(2**63), 2**64 - 1, -(2**63) - 1))
@example(("x" * 70_000, b"y" * 70_000))
def test_both_doors_store_the_same_forms(value: Any) -> None:
    """What is plain is encoded in C, and everything else where the forms are defined: with one result."""
    compare(FORMS, value)


@given(odd, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=2), st.integers(0, 40))
@example((1, "a"), [], 1)  # a tag with nothing behind it
def test_both_doors_read_the_same_forms(value: Any, changes: list[tuple[int, int]], cut: int) -> None:
    """Whole ones, damaged ones and cut ones: the same objects, or the same errors in the same words."""
    for codec in (codecs.STR, codecs.INT, codecs.TUPLE):
        try:
            data = bytearray(codec.encode(value))
        except TypeError:
            continue
        compare(READ, bytes(data))
        compare(READ, bytes(data[:cut]))
        for at, byte in changes:
            if at < len(data):
                data[at] = byte
        compare(READ, bytes(data))
        compare(READ, data)  # no bytes


@given(st.binary(max_size=12))
@example(b"\x81\x00")  # leading zeros, of both signs, alone and in a tuple
@example(b"\x7e\xff")
@example(b"\x30\x82\x00\x01")
@example(b"\x80\x00")  # left over, and cut short
@example(b"\x82\x01")
@example(b"\x30")
@example(b"\x30\x80\x30")
@example(b"\x20a")
@example(b"\x20a\x00\xff\x00")  # an escape
@example(b"\x20\xc3\x00")  # no UTF-8
@example(b"\x40\x00")  # nested
@example(b"\x77" + b"\x7f" + b"\xff" * 7)  # -2**63, and one less
@example(b"\x77" + b"\x7f" + b"\xff" * 6 + b"\xfe")
@example(b"\x88" + b"\xff" * 8)
@example(b"\x30\x80" * 17)
def test_both_doors_read_the_same_of_any_bytes(data: bytes) -> None:
    """Nothing is taken for a form by one door and not by the other."""
    compare(READ, data)


@given(st.binary(max_size=40))
def test_bytes_that_no_codec_wrote_are_told_apart(data: bytes) -> None:
    """Decoding gives back what encodes to the same bytes, or CorruptionError; never anything else."""
    for codec in (codecs.STR, codecs.INT, codecs.TUPLE):
        try:
            value = codec.decode(data)
        except rowex.CorruptionError:
            continue
        assert codec.encode(value) == data
    with contextlib.suppress(rowex.CorruptionError):
        codecs.MSGPACK.decode(data)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("str", [b"bytes", 1, None, ("a",)]),
        ("int", ["1", 1.0, True, None, b"1"]),
        ("tuple", ["a", 1, ["a"], (1.5,), (None,), (True,), ("a", [1])]),
        ("bytes", ["a", 1, None]),
    ],
)
def test_wrong_type_of_key_is_a_type_error_in_every_call(path: Path, kind: Any, wrong: list[Any]) -> None:
    """`in` included: a key of another type is a mistake, not an absent key."""
    with rowex.open(path, keys=kind) as index:
        for key in wrong:
            for call in (
                lambda key=key: key in index,
                lambda key=key: index[key],
                lambda key=key: index.get(key),
                lambda key=key: index.put(key, b""),
                lambda key=key: index.pop(key, None),
                lambda key=key: index.discard(key),
                lambda key=key: index.get_many([key]),
                lambda key=key: index.put_many([(key, b"")]),
                lambda key=key: index.floor(key),
                lambda key=key: index.compare_and_set(key, None, b""),
            ):
                with pytest.raises(TypeError):
                    call()
        assert len(index) == 0


KEYS: dict[str, list[Any]] = {
    "str": ["", "a", "a\0", "ab", "b", "\u00e9", "\U0001f600", "\ud800"],
    "int": [-(10**400), -70000, -256, -1, 0, 1, 255, 256, 10**400],
    "tuple": [(), ((),), (b"",), (b"a",), ("",), ("a", 1), ("a", 2), ("b",), (-1,), (1, ("x", b"y")), (1, ("x", b"z"))],
    "bytes": [b"", b"\0", b"a", b"aa", b"\xff"],
}


@pytest.mark.parametrize("kind", list(KEYS))
def test_index_of_coded_keys_answers_as_a_sorted_dict_of_them(path: Path, kind: Any) -> None:
    """Everything that an index of bytes can do, with keys of another type."""
    keys = sorted(KEYS[kind], key=rank)
    with rowex.open(path, keys=kind, values="int") as index:
        index.put_many({key: number for number, key in enumerate(keys)})
        assert list(index) == keys
        assert list(reversed(index)) == keys[::-1]
        assert dict(index.items()) == {key: number for number, key in enumerate(keys)}
        for number, key in enumerate(keys):
            assert index[key] == number
            assert index.floor(key) == index.ceiling(key) == (key, number)
            assert [k for k, _ in index.scan(key)] == keys[number:]
            assert [k for k, _ in index.scan(None, key, reverse=True)] == keys[:number][::-1]
        assert index.first() == (keys[0], 0)
        assert index.last() == (keys[-1], len(keys) - 1)
        assert index.get_many(keys) == list(range(len(keys)))
        assert index.compare_and_set(keys[0], 0, 100)
        assert index.pop(keys[0]) == 100
        assert index.setdefault(keys[0], 7) == 7
        assert index.popitem() == (keys[-1], len(keys) - 1)
        with pytest.raises(rowex.DuplicateKeyError) as caught:
            index.insert(keys[1], 0)
        assert caught.value.key == keys[1]
        with pytest.raises(KeyError) as missing:
            index.lookup(keys[-1])
        assert missing.value.args == (keys[-1],)
        assert index.remove_many(keys) == index.position
        assert len(index) == 0
    with rowex.open(path) as index:
        index[keys[1]] = 5
        assert list(index.items()) == [(keys[1], 5)]


def test_prefix_of_a_tuple_is_the_tuples_that_begin_with_it(path: Path) -> None:
    """prefix= with str is a text prefix, with tuple a leading part; int keys have none."""
    with rowex.open(path, keys="tuple") as index:
        keys = [("a",), ("a", 1), ("a", 1, "x"), ("a", 2), ("ab", 1), ("b",)]
        index.put_many([(key, b"") for key in keys])
        assert [key for key, _ in index.scan(prefix=("a",))] == keys[:4]
        assert [key for key, _ in index.scan(prefix=("a", 1))] == keys[1:3]
        assert [key for key, _ in index.scan(prefix=())] == keys
    with rowex.open(path.with_name("s"), keys="str") as index:
        index.put_many([(key, b"") for key in ("a", "ab", "\u00e9", "\u00e9a")])
        assert [key for key, _ in index.scan(prefix="a")] == ["a", "ab"]
        assert [key for key, _ in index.scan(prefix="\u00e9")] == ["\u00e9", "\u00e9a"]
    with rowex.open(path.with_name("i"), keys="int") as index, pytest.raises(TypeError):
        list(index.scan(prefix=1))


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.text(alphabet=st.characters(codec="utf-8"), max_size=8)
        | st.binary(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(alphabet=st.characters(codec="utf-8"), max_size=4), inner, max_size=4)
        ),
        max_leaves=10,
    )
)
def test_msgpack_values_come_back(value: Any) -> None:
    """Whatever msgpack can hold."""
    pytest.importorskip("msgpack")
    assert codecs.MSGPACK.decode(codecs.MSGPACK.encode(value)) == value


def test_value_codecs_work_through_the_index(path: Path) -> None:
    """Values of another type in every call that takes or gives one."""
    pytest.importorskip("msgpack")
    with rowex.open(path, values="msgpack") as index:
        index[b"k"] = {"a": [1, 2.5, None, b"x"]}
        assert index[b"k"] == {"a": [1, 2.5, None, b"x"]}
        assert list(index.values()) == [{"a": [1, 2.5, None, b"x"]}]
        assert index.compare_and_set(b"k", {"a": [1]}, 1) is False
        assert index.compare_and_set(b"k", {"a": [1, 2.5, None, b"x"]}, [2]) is True
        assert index[b"k"] == [2]
        with pytest.raises(TypeError):
            index[b"l"] = object()
        assert b"l" not in index


def test_pair_of_functions_is_a_codec_that_must_be_given_again(path: Path) -> None:
    """The file only knows that it is custom; opening without the functions says so."""
    pair = (lambda n: b"%05d" % n, lambda data: int(data))
    with rowex.open(path, keys=pair) as index:
        index[17] = b"x"
        index[5] = b"y"
        assert list(index) == [5, 17]
        with pytest.raises(TypeError):
            index["17"] = b""
    with pytest.raises(ValueError, match="function"):
        rowex.open(path)
    with rowex.open(path, keys=pair) as index:
        assert index[17] == b"x"
    bad = (lambda n: "text", lambda data: data)
    with rowex.open(path.with_name("bad"), keys=bad) as index, pytest.raises(TypeError):
        index[1] = b""


def test_damaged_coded_value_is_a_corruption_error(path: Path) -> None:
    """Bytes that the codec cannot have written are damage, not a UnicodeDecodeError."""
    from rowex.opening import open_raw

    with rowex.open(path, keys="str", values="str") as index:
        index["k"] = "v"
        with open_raw(path) as raw:
            raw[b"k"] = b"\xff\xfe"
            raw[b"\xff"] = b"x"
        with pytest.raises(rowex.CorruptionError):
            index["k"]
        with pytest.raises(rowex.CorruptionError):
            list(index.items())


def test_item_that_cannot_be_decoded_is_not_popped(path: Path) -> None:
    """It stays where it is, as does one whose key no codec wrote; what can be decoded is popped beside it."""
    with rowex.open(path, keys="int", values="msgpack") as index:
        index.put_many({1: "one", 2: "two"})
        index.raw[index._key(3)] = b"\xc1"
        index.raw[b"no key"] = index._value("a value")
        before = dict(index.raw.items())
        for call in (lambda: index.pop(3), lambda: index.popitem(last=False)):
            with pytest.raises(rowex.CorruptionError):
                call()
        assert dict(index.raw.items()) == before
        del index.raw[b"no key"]
        assert index.popitem(last=False) == (1, "one")
        assert index.pop(2) == "two"
        assert index.pop(2, None) is None
        with pytest.raises(KeyError):
            index.pop(2)
        assert index.raw.pop(index._key(3)) == b"\xc1"
        with pytest.raises(KeyError):
            index.popitem()


def test_items_popped_by_many_at_once_go_to_one_each(path: Path, child: Start) -> None:
    """Popping by key and from both ends, in several processes: every item once."""

    def take(pipe: Any, number: int) -> None:
        with rowex.open(path) as mine:
            taken = []
            pipe.send("ready")
            pipe.recv()
            with contextlib.suppress(KeyError):
                for key in range(0, 900, 3):
                    if (value := mine.pop(key, None)) is not None:
                        taken.append((key, value))
                    taken.append(mine.popitem(last=bool(number % 2)))
            pipe.send(taken)

    with rowex.open(path, keys="int", values="msgpack") as index:
        index.put_many((key, f"value {key}") for key in range(900))
        crowd = [child(take, number) for number in range(3)]
        for process in crowd:
            process.recv()
        for process in crowd:
            process.send("go")
        found = [item for process in crowd for item in process.recv()]
        for process in crowd:
            process.finish()
        found += index.items()
        assert sorted(found) == [(key, f"value {key}") for key in range(900)]


def test_deeply_nested_tuple_is_a_key(path: Path) -> None:
    """Nothing recurses by depth."""
    key: tuple[Any, ...] = ("end",)
    for _ in range(50_000):
        key = (key,)
    data = codecs.TUPLE.encode(key)
    back = codecs.TUPLE.decode(data)
    depth = 0
    while back != ("end",):
        back = back[0]
        depth += 1
    assert depth == 50_000
