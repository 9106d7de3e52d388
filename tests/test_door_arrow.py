"""
Arrow's arrays go in and come out: nothing copied that need not be, nothing taken that cannot be stored.
"""

from __future__ import annotations

import array
import itertools
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from conftest import cannot_run
from rowex._arguments import pairs_of

try:
    import nanoarrow
    import numpy as np
    import pyarrow as pa
except ImportError as missing:
    cannot_run(f"not installed: {missing.name}")


INTEGERS = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
TEXTS = [pa.string(), pa.large_string()]
BINARIES = [pa.binary(), pa.large_binary(), pa.binary(3)]


@pytest.mark.parametrize("kind", INTEGERS, ids=str)
def test_integers_go_in_as_numbers(memory_of: Callable[..., Any], kind: Any) -> None:
    """Of every width, also from the middle of an array."""
    numbers = list(range(100))
    array = pa.array([7, 7, *numbers, 7], kind)[2:102]
    index = memory_of(keys="int", values="int")
    index.put_many(array, array)
    assert list(index.items()) == list(zip(numbers, numbers, strict=True))
    assert index.get_many(array[3:5]) == [3, 4]
    values, found = index.get_many(pa.array([5, 101], kind), dtype="i8")
    assert (values.tolist(), found.tolist()) == ([5, 0], [True, False])


@pytest.mark.parametrize("kind", [*TEXTS, *BINARIES], ids=str)
@pytest.mark.parametrize("codec", ["bytes", "str"])
def test_strings_and_binary_go_in_as_their_bytes(
    memory_of: Callable[..., Any], kind: Any, codec: str, rng: random.Random
) -> None:
    """Of any length, in any slice; an index of str takes strings alone."""
    words = [bytes(rng.choices(b"abc", k=3)) for _ in range(500)]
    words = list(dict.fromkeys(words))
    rows = words if kind in BINARIES else [word.decode() for word in words]
    array = pa.array([rows[0], *rows, rows[0]], kind)[1:-1]
    index = memory_of(keys=codec, values=codec)
    if codec == "str" and kind in BINARIES:
        with pytest.raises(TypeError, match="expected strings"):
            index.put_many(array, array)
        return
    index.put_many(array, array)
    raw = getattr(index, "raw", index)
    assert dict(raw.items()) == {word: word for word in words}
    assert index.get_many(array[2:4]) == [raw.get(word) if codec == "bytes" else word.decode() for word in words[2:4]]
    index.put_many(array[:0], array[:0])
    assert index.get_many(pa.array([], kind)) == []
    lengths = [rng.randrange(2000) for _ in words]
    if kind != BINARIES[2]:
        long = pa.array([row * length for row, length in zip(rows, lengths, strict=True)], kind)
        index.put_many(array, long)
        assert [len(raw[word]) for word in words] == [3 * length for length in lengths]


def test_other_values_of_a_fixed_size_are_their_bytes(memory_of: Callable[..., Any]) -> None:
    """Numbers with a point and times are values of an index of bytes, as NumPy's are."""
    index = memory_of(keys="int")
    for values in (
        pa.array([1.5, 2.5]),
        pa.array([1.5, 2.5], pa.float32()),
        pa.array([1, 2], pa.timestamp("us")),
        pa.array([1, 2], pa.date32()),
    ):
        index.put_many(pa.array([1, 2]), values)
        assert b"".join(index.get_many([1, 2])) == bytes(
            memoryview(values.buffers()[1])[: 2 * values.type.bit_width // 8]
        )


@pytest.mark.parametrize(
    "array",
    [
        pa.array([True, False]),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.string_view()),
        pa.array([[1], [2]]),
        pa.array([None, None]),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([1, 2], pa.decimal128(5)),
    ],
    ids=lambda array: str(array.type)[:20],
)
@pytest.mark.parametrize("codec", ["bytes", "str", "int"])
def test_types_that_are_no_keys_are_refused(memory_of: Callable[..., Any], array: Any, codec: str) -> None:
    """By name, and before anything is stored."""
    index = memory_of(keys=codec)
    values = pa.array([b"x", b"y"])
    with pytest.raises(TypeError, match=r"keys of Arrow's format '.+': expected"):
        index.put_many(array, values)
    with pytest.raises(TypeError, match="keys of Arrow"):
        index.get_many(array)
    assert len(index) == 0


def test_codecs_that_arrays_cannot_give_are_refused(memory_of: Callable[..., Any]) -> None:
    """Numbers are no str, strings no int, and tuples nothing at all."""
    numbers, words = pa.array([1, 2]), pa.array(["a", "b"])
    for codec, keys in (("str", numbers), ("int", words), ("tuple", words), ("int", pa.array([1.5, 2]))):
        index = memory_of(keys=codec)
        with pytest.raises(TypeError, match="keys"):
            index.put_many(keys, pa.array([b"x", b"y"]))
    with pytest.raises(TypeError, match="keys"):
        memory_of().put_many(pa.array([1.5]), pa.array([b"x"]))
    with pytest.raises(ValueError, match="2 keys and 1 values"):
        memory_of().put_many(words, words[:1])


def test_nulls_are_refused(memory_of: Callable[..., Any]) -> None:
    """In keys, in values and as rows; what a slice leaves out does not count."""
    index = memory_of(keys="int", values="int")
    holes, whole = pa.array([1, None, 3, 4]), pa.array([1, 2, 3, 4])
    for keys, values, side in ((holes, whole, "keys have 1"), (whole, holes, "values have 1")):
        with pytest.raises(ValueError, match=f"{side} nulls"):
            index.put_many(keys, values)
    with pytest.raises(ValueError, match="keys have 1 nulls"):
        index.get_many(holes)
    rows = pa.StructArray.from_arrays([whole, whole], names=["k", "v"], mask=pa.array([False, True, False, False]))
    with pytest.raises(ValueError, match="items have 1 nulls"):
        index.put_many(rows)
    gone = pa.array([None] * 12, pa.int64())
    for nothing in (gone, gone[9:], pa.array([None] * 8 + [7], pa.int64())[3:5]):
        count = len(nothing)
        with pytest.raises(ValueError, match=f"keys have {count} nulls"):
            index.put_many(nothing, pa.array(range(count)))
        with pytest.raises(ValueError, match=f"values have {count} nulls"):
            index.put_many(pa.array(range(count)), nothing)
        with pytest.raises(ValueError, match=f"keys have {count} nulls"):
            index.get_many(nothing, dtype="i8")
    with pytest.raises(ValueError, match="items have 4 nulls"):
        index.put_many(pa.StructArray.from_arrays([whole, whole], names=["k", "v"], mask=pa.array([True] * 4)))
    uncounted = nanoarrow.c_array_from_buffers(nanoarrow.int64(), 2, [b"\0", array.array("q", [1, 2])], null_count=-1)
    with pytest.raises(ValueError, match="keys have 2 nulls"):
        index.put_many(uncounted, whole[:2])
    assert len(index) == 0
    index.put_many(holes[2:], whole[2:])
    index.put_many(rows[2:])
    assert list(index.items()) == [(3, 3), (4, 4)]


def test_tables_are_keys_and_values(memory_of: Callable[..., Any], tmp_path: Path) -> None:
    """Record batches and structs, by put_many, load and build."""
    numbers = list(range(1000))
    batch = pa.record_batch([pa.array(numbers), pa.array([f"v{number}" for number in numbers])], names=["k", "v"])
    wanted = {number: f"v{number}" for number in numbers}
    struct = pa.StructArray.from_arrays(batch.columns, names=["k", "v"])
    for items in (batch, struct, nanoarrow.c_array(batch)):
        index = memory_of(keys="int", values="str")
        index.put_many(items)
        assert dict(index.items()) == wanted
        index.clear()
        index.load(items)
        assert dict(index.items()) == wanted
    path = tmp_path / "built"
    assert rowex.build(path, batch, codecs=("int", "str")) == 1000
    with rowex.open(path, "r") as built:
        assert dict(built.items()) == wanted
    index.clear()
    index.put_many(batch[10:20])
    index.put_many(struct[30:40])
    assert list(index) == [*range(10, 20), *range(30, 40)]
    for wrong in (batch.select(["k"]), pa.array([1, 2])):
        with pytest.raises(TypeError, match="two columns"):
            index.put_many(wrong)
    with pytest.raises(TypeError, match="the values are missing"):
        index.raw.put_many(rowex.Packed.of([b"a", b"b"]))


def test_what_may_lie_in_chunks_is_put_chunk_by_chunk(memory_of: Callable[..., Any]) -> None:
    """Tables too, also such as have no row."""
    index = memory_of(keys="int", values="int")
    two = pa.chunked_array([[1, 2], [3]])
    for chunk in two.chunks:
        index.put_many(chunk, chunk)
    for batch in pa.table({"k": two, "v": two}).to_batches():
        index.put_many(batch)
    assert dict(index.items()) == {1: 1, 2: 2, 3: 3}
    index.put_many(pa.record_batch([pa.array([], pa.int64()), pa.array([], pa.int64())], names=["k", "v"]))
    index.put_many(pa.array([], pa.int64()), pa.array([], pa.int64()))
    assert index.get_many(pa.array([], pa.int64())) == []
    for stream in (two, pa.table({"k": two, "v": two})):
        with pytest.raises((TypeError, ValueError)):
            index.put_many(stream)
    assert len(index) == 3


def test_packed_goes_out_with_nulls_where_nothing_is(memory_of: Callable[..., Any]) -> None:
    """By the same memory, which lives as long as Arrow's array."""
    index = memory_of()
    index.put_many({b"a": b"", b"b": b"xyz", b"d": b"long" * 1000})
    packed, found = index.get_many([b"a", b"b", b"c", b"d"], dtype=rowex.Packed)
    assert found.tolist() == [True, True, False, True]
    found[:] = False  # the caller's own
    out = pa.array(packed)
    assert out.type == pa.large_binary()
    assert out.to_pylist() == [b"", b"xyz", None, b"long" * 1000]
    assert out.null_count == 1
    assert out.buffers()[2].address == packed.data.__array_interface__["data"][0]
    assert out.buffers()[1].address == packed.offsets.__array_interface__["data"][0]
    assert pa.array(packed, type=pa.large_binary()) == out
    del packed, found, index
    out.validate(full=True)
    assert out[3].as_py() == b"long" * 1000
    assert pa.array(rowex.Packed.of([b"a", b""])).to_pylist() == [b"a", b""]
    assert pa.array(rowex.Packed.of([])).to_pylist() == []


@pytest.mark.parametrize(
    ("offsets", "valid"),
    [
        ([0, 1 << 40, 3], None),
        ([0, 2, 1, 3], None),
        ([-1, 0, 3], None),
        ([0, 1, 4], None),
        ([0, 1, 3], [True]),
        ([0, 1, 3], [True] * 3),
    ],
)
def test_packed_that_contradicts_itself_does_not_go_out(offsets: list[int], valid: Any) -> None:
    """Arrow's libraries would believe it."""
    with pytest.raises(ValueError, match="this Packed"):
        pa.array(rowex.Packed(b"abc", array.array("q", offsets), valid))


@pytest.mark.parametrize(
    ("data", "offsets"),
    [
        (b"\xff\xfe", [0, 2]),
        ("\u00e9".encode(), [0, 1, 2]),
        (b"a\xc3", [0, 1, 2]),
        (b"abc", [0, 2, 1, 3]),
        (b"abc", [0, 1 << 30, 3]),
        (b"abc", [0, -7, 3]),
    ],
)
def test_strings_that_are_none_are_refused(memory_of: Callable[..., Any], data: bytes, offsets: list[int]) -> None:
    """Whoever made the array may have put anything into it."""
    buffers = [None, pa.py_buffer(array.array("i", offsets).tobytes()), pa.py_buffer(data)]
    wrong = pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)
    index = memory_of(keys="str", values="str")
    whole = pa.array([str(number) for number in range(len(wrong))])
    for call in (
        lambda: index.put_many(wrong, whole),
        lambda: index.put_many(whole, wrong),
        lambda: index.get_many(wrong),
    ):
        with pytest.raises(ValueError, match=r"."):
            call()
    assert len(index) == 0


def test_objects_that_answer_everything_are_no_arrays(memory_of: Callable[..., Any]) -> None:
    """Their class is asked."""

    class Attributes(dict[Any, Any]):
        __getattr__ = dict.__getitem__

    class Answers(dict[Any, Any]):
        def __getattr__(self, name: str) -> None:
            return None

    for kind in (Attributes, Answers):
        index = memory_of(keys="int", values="int")
        for call in (index.put_many, index.load, index.update):
            call(kind({1: 2}))
        assert dict(index.items()) == {1: 2}
        raw = memory_of()
        raw.put_many(kind({b"a": b"b"}))
        raw.load(kind({b"c": b"d"}))
        assert dict(raw.items()) == {b"a": b"b", b"c": b"d"}


@pytest.mark.parametrize("codecs", [("int", "str"), ("str", "bytes"), ("bytes", "int")], ids=str)
def test_scans_give_record_batches(memory_of: Callable[..., Any], codecs: tuple[str, str]) -> None:
    """Of the batch's own memory, with types that the codecs tell; and those go into another index as they are."""
    some = {
        "int": range(1000),
        "str": [f"{n:04}\u00e9" for n in range(1000)],
        "bytes": [b"%04d" % n for n in range(1000)],
    }
    kind = {"int": pa.int64(), "str": pa.large_string(), "bytes": pa.large_binary()}
    index, copy, other = (memory_of(keys=codecs[0], values=codecs[1]) for _ in range(3))
    index.put_many(zip(*(some[codec] for codec in codecs), strict=True))
    sizes = []
    for items in index.scan_batches(size=300):
        keys, values = items
        assert keys is items.keys
        assert values is items.values
        table = pa.record_batch(items)
        assert table.schema == pa.schema([("key", kind[codecs[0]]), ("value", kind[codecs[1]])])
        table.validate(full=True)
        sizes.append(table.num_rows)
        copy.put_many(table)
        other.load(items)
        del items, keys, values
        assert table.to_pylist()[0]["key"] == some[codecs[0]][sum(sizes) - table.num_rows]
    assert sizes == [300, 300, 300, 100]
    assert list(copy.items()) == list(other.items()) == list(index.items())
    assert list(index.scan_batches(start=some[codecs[0]][-1], stop=some[codecs[0]][0])) == []


def test_record_batches_of_a_scan_have_the_dtypes_that_arrow_has(memory_of: Callable[..., Any]) -> None:
    """Numbers and fixed bytes go out; padded, named and swapped ones, times and rows of bytes do not."""
    index = memory_of()
    index.put_many({b"%08d" % number: bytes(8) for number in range(10)})
    for dtype, kind in (("i8", pa.int64()), ("u8", pa.uint64()), ("f8", pa.float64()), ("V8", pa.binary(8)),
                        ("q", pa.int64()), ("L", pa.uint64())):  # fmt: skip
        for items in index.scan_batches(values=dtype):
            assert pa.record_batch(items).schema.field("value").type == kind
    for dtype in ("S16", ">i8", "M8[s]", "g", "?", [("a", "i8")], ("u1", 8)):
        index.put_many(
            {b"%08d" % number: bytes({"S16": 16, "g": 16, "?": 1}.get(str(dtype), 8)) for number in range(10)}
        )
        for items in index.scan_batches(values=dtype):
            with pytest.raises(TypeError, match="values of dtype"):
                pa.record_batch(items)


def test_items_that_contradict_themselves_do_not_go_out(memory_of: Callable[..., Any]) -> None:
    """Arrow's libraries would believe them; nothing is stored."""
    few, many = np.arange(3), np.arange(1000)
    index = memory_of(keys="int", values="int")
    for items in (rowex.Items(many, few), rowex.Items(few, many), rowex.Items(few, rowex.Packed.of([b"a"]))):
        for call in (pa.record_batch, index.put_many, index.load):
            with pytest.raises(ValueError, match="keys and"):
                call(items)
    with pytest.raises(TypeError, match="expected pairs"):
        pairs_of(rowex.Items(few[:2], few[:2]))  # as rowex.aio does; they would pass for two pairs
    assert not index
    for dtype in ("i8", "V3", "f4"):
        table = pa.record_batch(rowex.Items(np.zeros(0, dtype), np.zeros(9, dtype)[::3][:0]))
        assert (table.num_rows, table.num_columns) == (0, 2)
    index.put_many(rowex.Items(few[:0], few[:0]))
    index.put_many(rowex.Items(many[::2], many[1::2]))
    assert list(index.items()) == [(number, number + 1) for number in range(0, 1000, 2)]


def test_text_that_is_none_does_not_go_out(memory_of: Callable[..., Any]) -> None:
    """What was stored past the codec is no string; the bytes are there by raw."""
    index = memory_of(values="str")
    index.raw.put_many({b"a": b"\xff"})
    packed, _ = index.get_many([b"a"], dtype=rowex.Packed)
    with pytest.raises(ValueError, match="no UTF-8"):
        pa.array(packed)
    packed, _ = index.raw.get_many([b"a"], dtype=rowex.Packed)
    assert pa.array(packed).to_pylist() == [b"\xff"]


def test_what_offers_itself_wrongly_is_refused(memory_of: Callable[..., Any]) -> None:
    """Neither capsules that are none, nor errors of the array itself, end in anything but an exception."""

    class Wrong:
        def __init__(self, answer: Callable[[], Any]) -> None:
            self.answer = answer

        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            return self.answer()

    for answer in (lambda: (1, 2), lambda: None, lambda: 1 / 0):
        for call in (memory_of().get_many, memory_of().put_many):
            with pytest.raises((TypeError, ValueError, ZeroDivisionError)):
                call(Wrong(answer))


def test_without_nanoarrow_the_message_says_what_to_do(
    memory_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is stored."""
    monkeypatch.setitem(sys.modules, "nanoarrow", None)
    index = memory_of(keys="int")
    for call in (
        lambda: index.put_many(pa.array([1]), pa.array([b"x"])),
        lambda: index.get_many(pa.array([1])),
        lambda: pa.array(rowex.Packed.of([b"a"])),
    ):
        with pytest.raises(ImportError, match=r'pip install "rowex\[arrow\]"'):
            call()
    assert len(index) == 0


def test_collections_of_objects_are_no_arrays(memory_of: Callable[..., Any]) -> None:
    """Generators, mappings and sets go their way as ever."""
    index = memory_of(keys="int", values="int")
    index.put_many((number, number) for number in range(3))
    index.put_many(itertools.zip_longest([3], [3]))
    index.put_many({4: 4})
    assert index.get_many({0}) == [0]
    assert index.get_many(number for number in range(5)) == [0, 1, 2, 3, 4]
