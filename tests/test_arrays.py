"""
Arrays in and out: `get_many`, `put_many` and `scan_batches` for columns, against a dict.

Everything here runs through the door that is in use; one test runs all of it through the other.
"""

from __future__ import annotations

import array
import gc
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from conftest import cannot_run
from rowex import door
from tools import run_python

np = pytest.importorskip("numpy")

INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">i4", ">i8", ">u8"]


def extremes(dtype: str, rng: random.Random, count: int = 300) -> Any:
    """Numbers of a dtype, its ends and all lengths of bytes among them."""
    told = np.iinfo(dtype)
    some = {told.min, told.max, 0, told.max // 2}
    while len(some) < min(count, told.max - told.min):
        some.add(max(told.min, min(told.max, rng.randrange(-(2**64), 2**64) >> rng.randrange(64))))
    numbers = list(some)
    rng.shuffle(numbers)
    return np.array(numbers, dtype)


# ---- integers ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_what_the_int_codec_stores(path: Path, opened: Callable[..., Any], rng: Any, dtype: str) -> None:
    """Written as arrays, read as objects, and the other way round; the bytes are the same."""
    numbers = extremes(dtype, rng)
    index, other = opened(path, keys="int", values="int"), rowex.memory(keys="int", values="int")
    index.put_many(numbers, numbers[::-1].copy())
    expected = dict(zip(numbers.tolist(), numbers[::-1].tolist(), strict=True))
    assert dict(index.items()) == expected
    other.put_many(expected)
    assert list(index.raw.items()) == list(other.raw.items())
    values, found = other.get_many(numbers, dtype=dtype)
    assert values.dtype == np.dtype(dtype)
    assert found.all()
    assert values.tolist() == numbers[::-1].tolist()
    assert index.get_many(numbers) == numbers[::-1].tolist()
    assert [value for keys, _ in index.scan_batches(keys=dtype, values=dtype) for value in keys.tolist()] == sorted(
        expected
    )
    other.close()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_in_an_index_of_bytes_are_eight_big_endian_bytes(index: Any, rng: Any, dtype: str) -> None:
    """The same number is the same key, whatever dtype it comes in; the order is that of the numbers."""
    numbers = np.array([number for number in extremes(dtype, rng).tolist() if number >= 0], dtype)
    index.put_many(numbers, np.arange(len(numbers)))
    assert list(index) == [number.to_bytes(8) for number in sorted(numbers.tolist())]
    assert index.get_many(numbers, dtype="i8")[0].tolist() == list(range(len(numbers)))
    assert index.get_many(numbers.astype("u8"), dtype="i8")[1].all()
    assert [each for keys, _ in index.scan_batches(keys=dtype) for each in keys.tolist()] == sorted(numbers.tolist())


def test_a_negative_key_in_an_index_of_bytes_is_refused_before_anything_is_put(index: Any) -> None:
    """It has no place in the order of bytes."""
    with pytest.raises(ValueError, match="item 2 is negative"):
        index.put_many(np.array([5, 6, -1]), np.zeros(3, "i8"))
    assert len(index) == 0
    with pytest.raises(ValueError, match="negative"):
        index.get_many(np.array([-1]), dtype="i8")


def test_a_number_that_does_not_fit_the_dtype_is_refused(path: Path, opened: Callable[..., Any]) -> None:
    """With the number's place; those that fit come."""
    index = opened(path, keys="int", values="int")
    index.put_many({1: 127, 2: 128, 3: -128, 4: -129, 5: 2**64, 6: -(2**63) - 1})
    assert index.get_many([1, 3, 9], dtype="i1")[0].tolist() == [127, -128, 0]
    for key, dtype in ((2, "i1"), (4, "i1"), (3, "u1"), (5, "u8"), (5, "i8"), (6, "i8")):
        with pytest.raises(ValueError, match="item 1 "):
            index.get_many([1, key], dtype=dtype)
    with pytest.raises(ValueError, match="choose another dtype"):
        list(index.scan_batches(values="i2"))
    assert next(iter(index.raw.scan_batches())).values.tolist() == list(index.raw.values())


# ---- bytes -----------------------------------------------------------------------


def test_strings_are_what_their_list_is(index: Any, rng: Any) -> None:
    """`S` arrays: without the zeros at the end, which NumPy does not give either."""
    words = sorted({rng.randbytes(rng.randrange(12)).rstrip(b"\0") for _ in range(500)})
    rng.shuffle(words)
    keys = np.array(words, "S12")
    index.put_many(keys, keys[::-1].copy())
    expected = dict(zip(words, words[::-1], strict=True))
    assert dict(index.items()) == expected
    values, found = index.get_many(keys, dtype="S")
    assert (values.tolist(), found.all()) == (words[::-1], True)
    assert index.get_many(keys) == words[::-1]
    assert index.get_many(words, dtype="S12")[0].tolist() == words[::-1]
    assert index.get_many(keys, dtype=rowex.Packed)[0].tolist() == words[::-1]
    with pytest.raises(ValueError, match="the array holds 4"):
        index.get_many(keys, dtype="S4")
    scanned = [
        pair
        for keys, values in index.scan_batches(size=64, keys="S12", values="S")
        for pair in zip(keys, values, strict=True)
    ]
    assert scanned == sorted(expected.items())


def test_rows_of_bytes_are_keys_and_values_with_their_zeros(index: Any, rng: Any) -> None:
    """Two-dimensional arrays of uint8: what ends with a zero keeps it."""
    keys = np.frombuffer(b"".join(b"%03d%d\0" % (i, i % 10) for i in range(200)), "u1").reshape(200, 5)
    values = np.frombuffer(rng.randbytes(200 * 33), "u1").reshape(200, 33)
    index.put_many(keys, values)
    assert list(index.values()) == [row.tobytes() for row in values]
    got, found = index.get_many(keys, dtype=("u1", 33))
    assert (got == values).all()
    assert found.all()
    for batch, contents in index.scan_batches(keys=("u1", 5), values=("u1", 33), size=7):
        assert batch.shape[1:] == (5,)
        assert [index[row.tobytes()] for row in batch] == [row.tobytes() for row in contents]


def test_values_of_any_fixed_size_come_back_as_they_were(index: Any) -> None:
    """Floats, times, booleans, records."""
    keys = np.arange(4)
    for values in (
        np.array([0.5, -0.0, np.inf, 1e300]),
        np.array([True, False, True, True]),
        np.array(["2020-01-01", "NaT", "1970", "2400"], "M8[s]"),
        np.array(
            [(1, 2.5, b"x"), (2, 0, b""), (3, 1, b"yy"), (-4, 1, b"z")], [("a", "<i4"), ("b", "<f8"), ("c", "S2")]
        ),
        np.array([b"\0a\0", b"b", b"", b"\0"], "V3"),
        np.array([1j, 2, 3, 4]),
    ):
        index.put_many(keys, values)
        got, found = index.get_many(keys, dtype=values.dtype)
        assert got.tobytes() == values.tobytes()
        assert (got.dtype, found.tolist()) == (values.dtype, [True] * 4)
        assert next(iter(index.scan_batches(values=values.dtype))).values.tobytes() == values.tobytes()
    with pytest.raises(ValueError, match="item 0 has 16 bytes, the array holds 8"):
        index.get_many(keys, dtype="f8")


def test_absent_keys_are_zeros_or_the_default_and_masked(index: Any) -> None:
    """Empty arrays, empty values and repeats too."""
    index.put_many({b"a": b"1234", b"e": b""})
    for keys in (np.array([b"a", b"b", b"a"]), [b"a", b"b", b"a"], rowex.Packed.of([b"a", b"b", b"a"])):
        values, found = index.get_many(keys, dtype="S4")
        assert (values.tolist(), found.tolist()) == ([b"1234", b"", b"1234"], [True, False, True])
        assert index.get_many(keys, b"-", dtype="S4")[0].tolist() == [b"1234", b"-", b"1234"]
        assert index.get_many(keys, dtype="S")[0].tolist() == [b"1234", b"", b"1234"]
        packed, found = index.get_many(keys, dtype=rowex.Packed)
        assert ([packed[0], packed[-2], packed[0:2]], found.tolist()) == (
            [b"1234", b"", [b"1234", b""]],
            [True, False, True],
        )
        assert index.get_many(keys, b"-") == [b"1234", b"-", b"1234"]
    assert index.get_many([b"e"], b"-", dtype="S3")[0].tolist() == [b""]
    assert [each.tolist() for each in index.get_many(np.zeros(0, "i8"), dtype="f4")] == [[], []]
    assert index.get_many(np.zeros(0, "i8")) == []
    assert index.get_many([], dtype="S")[0].tolist() == []
    assert len(index.get_many([], dtype=rowex.Packed)[0]) == 0
    index.put_many(np.zeros(0, "i8"), np.zeros(0, "i8"))
    assert len(index) == 2


@pytest.mark.parametrize("dtype", ["S8", "V8", "S16", "S"])
def test_values_of_eight_bytes_stand_beside_others(index: Any, rng: Any, dtype: str) -> None:
    """Shorter ones, and absent ones, anywhere in a group of keys; a longer one is refused."""
    keys = [b"%06d" % number for number in range(500)]
    stored = {key: rng.randbytes(7) + b"." for key in keys if rng.random() < 0.9}
    if dtype != "V8":
        stored |= {key: b"short"[: rng.randrange(6)] for key in keys if rng.random() < 0.1}
    index.put_many(stored)
    values, found = index.get_many(np.array(keys), dtype=dtype)
    width = values.dtype.itemsize
    expected = [stored.get(key, b"").ljust(width, b"\0") for key in keys]
    assert [bytes(value).ljust(width, b"\0") for value in values.tolist()] == expected
    assert found.tolist() == [key in stored for key in keys]
    index.put_many(dict.fromkeys(keys[:77], b"8 bytes.") | {keys[77]: b"nine long"})
    with pytest.raises(ValueError, match="item 77 has 9 bytes, the array holds 8"):
        index.get_many(np.array(keys), dtype="V8")


def test_buffers_that_are_not_numpys_are_columns_too(path: Path, opened: Callable[..., Any]) -> None:
    """array.array and memoryviews; lists of objects beside them."""
    index = opened(path, keys="int", values="int")
    odd = memoryview(b"x" + struct.pack("=3i", 0, 1, 3))[1:].cast("i")  # at an odd address
    assert index.raw.get_many(rowex.Packed(b"abc", odd)) == [None, None]
    index.put_many(array.array("q", [3, -1, 2]), memoryview(array.array("B", [1, 2, 3])))
    index.put_many(array.array("h", [7]), [10**30])
    index.put_many([10**30], array.array("l", [8]))
    assert dict(index.items()) == {3: 1, -1: 2, 2: 3, 7: 10**30, 10**30: 8}
    assert index.get_many(array.array("q", [2, 5]), "no") == [3, "no"]
    assert index.raw.get_many(b"ab"[:0]) == []


def test_sizes_of_all_kinds_match_a_dict(index: Any, rng: Any) -> None:
    """Long keys and values, packed; batches of every size."""
    expected = {}
    for count in (1, 31, 32, 33, 1000):
        keys = [rng.randbytes(rng.choice([0, 1, 5, 60, 300, 5000])) for _ in range(count)]
        values = [rng.randbytes(rng.choice([0, 3, 8, 100, 70000 if count < 40 else 0])) for _ in range(count)]
        index.put_many(rowex.Packed.of(keys), rowex.Packed.of(values))
        expected.update(zip(keys, values, strict=True))
        assert dict(index.items()) == expected
    asked = [*expected, b"absent" * 9, b"absent" * 5000]
    packed, found = index.get_many(rowex.Packed.of(asked), dtype=rowex.Packed)
    assert packed.tolist() == [*expected.values(), b"", b""]
    assert found.tolist() == [True] * len(expected) + [False] * 2
    for size in (1, 7, 100000):
        got = [pair for batch in index.scan_batches(size=size) for pair in zip(*batch, strict=True)]
        assert got == sorted(expected.items())
    index.check()


def test_scan_batches_has_the_bounds_of_scan(index: Any, rng: Any) -> None:
    """start, stop and prefix, one by one and together."""
    index.put_many(
        (rng.choice(b"abc\xff".decode("latin-1")).encode("latin-1") * rng.randrange(4) + b"%d" % i, b"")
        for i in range(500)
    )
    bounds = [None, b"", b"a", b"b1", b"\xff", b"\xff\xff"]
    for start in bounds:
        for stop in bounds:
            for prefix in (None, b"", b"bb", b"\xff"):
                got = [key for keys, _ in index.scan_batches(start, stop, prefix=prefix, size=50) for key in keys]
                assert got == [key for key, _ in index.scan(start, stop, prefix=prefix)]
    coded = rowex.memory(keys="int", values="str")
    coded.put_many({i: str(i) for i in range(-50, 50)})
    ((keys, values),) = coded.scan_batches(-7, 3)
    assert (keys.tolist(), values.tolist()) == (list(range(-7, 3)), [b"%d" % i for i in range(-7, 3)])
    with pytest.raises(TypeError, match="prefix"):
        coded.scan_batches(prefix=1)
    coded.close()


# ---- what is refused -------------------------------------------------------------------


def test_what_is_no_column_is_refused_with_the_reason(index: Any) -> None:
    """Wrong types are TypeErrors, wrong shapes ValueErrors; nothing is changed."""
    eight = np.arange(8)
    keys: list[tuple[Any, type[Exception], str]] = [
        (eight.astype("f8"), TypeError, "expected integers, S, or rows of uint8"),
        (eight.astype("?"), TypeError, "expected integers"),
        (eight.astype("U3"), TypeError, "numpy.char.encode"),
        (eight.astype(object), TypeError, "objects"),
        (np.zeros(8, [("a", "i4")]), TypeError, "expected integers"),
        (eight[::2], ValueError, "ascontiguousarray"),
        (eight.reshape(2, 4), ValueError, "2 dimensions"),
        (np.zeros((2, 2, 2), "u1"), ValueError, "3 dimensions"),
        (np.zeros((8, 2), "u1").T, ValueError, "not contiguous"),
        (np.array(5), ValueError, "0 dimensions"),
        (rowex.Packed(b"abc", array.array("q", [0, 2, 1])), ValueError, "item 1 is said to lie from 2 to 1"),
        (rowex.Packed(b"abc", array.array("q", [0, 4])), ValueError, "of 3 bytes"),
        (rowex.Packed(b"abc", array.array("q", [-1, 1])), ValueError, "is said to lie"),
        (rowex.Packed(b"abc", array.array("q")), ValueError, "at least one"),
        (rowex.Packed(b"abc", array.array("d", [0])), TypeError, "offsets"),
        (rowex.Packed(eight, array.array("q", [0])), TypeError, "bytes"),
        (b"bytes", TypeError, "not int"),
        ([1], TypeError, "not int"),
    ]
    for wrong, kind, message in keys:
        with pytest.raises(kind, match=message):
            index.get_many(wrong, dtype="i8")
        with pytest.raises(kind, match=message):
            index.put_many(wrong, np.zeros(max(1, np.size(wrong)), "i8")[: len(wrong) if np.ndim(wrong) else 1])
    values: list[tuple[Any, type[Exception], str]] = [
        (eight.astype("U3"), TypeError, "numpy.char.encode"),
        (eight.astype(object), TypeError, "objects"),
        (np.arange(16)[::2], ValueError, "ascontiguousarray"),
        (eight[:7], ValueError, "8 keys and 7 values"),
        (5, TypeError, "int"),
    ]
    for wrong, kind, message in values:
        with pytest.raises(kind, match=message):
            index.put_many(eight, wrong)
    for dtype, message in (("U3", "no str"), ("O", "objects"), ("V", "fixed size"), ("nonsense", "nonsense")):
        with pytest.raises(TypeError, match=message):
            index.get_many(eight, dtype=dtype)
        with pytest.raises(TypeError, match=message):
            index.scan_batches(values=dtype)
    with pytest.raises(TypeError, match="expected integers, S, V or rows"):
        index.scan_batches(keys="f8")
    with pytest.raises(TypeError, match="default"):
        index.get_many(eight, b"", dtype=rowex.Packed)
    with pytest.raises(ValueError, match="at least 1"):
        index.scan_batches(size=0)
    assert len(index) == 0


def test_codecs_that_know_no_arrays_say_so(path: Path, opened: Callable[..., Any]) -> None:
    """And name the way that there is."""
    index = opened(path, keys="str", values="int")
    with pytest.raises(TypeError, match="`raw`"):
        index.get_many(np.array([b"a"]), dtype="i8")
    with pytest.raises(TypeError, match="expected integers"):
        index.put_many(["a"], np.array([b"a"]))
    with pytest.raises(TypeError, match="`raw`"):
        index.put_many(["a"], rowex.Packed.of([b"a"]))
    index.put_many(["a", "ü"], np.array([5, -6]))
    assert index.get_many(["ü", "b"], dtype="i4")[0].tolist() == [-6, 0]
    index.raw.put_many(np.array([b"c"]), array.array("B", [0x80]))
    assert index["c"] == 0


def test_keys_and_values_that_are_too_long_are_refused(index: Any) -> None:
    """As in any put; what came before is put."""
    long = b"x" * ((1 << 20) + 1)
    with pytest.raises(ValueError, match="limit"):
        index.put_many([b"a", long, b"b"], np.arange(3))
    assert list(index) == [b"a"]
    assert index.get_many([long], dtype="i8")[1].tolist() == [False]


def test_handles_that_are_closed_or_read_only_refuse(path: Path, opened: Callable[..., Any]) -> None:
    """With the exceptions of every call."""
    keys = np.arange(3)
    opened(path).close()
    reading = opened(path, "r")
    with pytest.raises(rowex.ReadOnlyError):
        reading.put_many(keys, keys)
    batches = reading.scan_batches()
    reading.close()
    with pytest.raises(rowex.ClosedError):
        list(batches)
    for call in (
        lambda: reading.get_many(keys, dtype="i8"),
        lambda: reading.put_many(keys, keys),
        reading.scan_batches,
    ):
        with pytest.raises(rowex.ClosedError):
            call()


def test_a_reader_and_a_writer_take_arrays(index: Any) -> None:
    """Under their own uid."""
    keys = np.arange(1000)
    with index.writer() as writer:
        writer.put_many(keys, keys)
    with index.reader() as reader:
        assert reader.get_many(keys, dtype="i8")[0].tolist() == keys.tolist()
        with pytest.raises(rowex.ReadOnlyError):
            reader.put_many(keys, keys)
        assert sum(len(found) for found, _ in reader.scan_batches(size=300)) == 1000


def test_the_ticket_of_an_array_is_that_of_its_last_item(path: Path, opened: Callable[..., Any]) -> None:
    """To wait for; a handle that commits waits by itself."""
    index = opened(path)
    ticket = index.put_many(np.arange(100), np.arange(100))
    assert ticket == index.position
    index.wait_durable(ticket)
    with rowex.open(path, durability="commit") as other:
        ticket = other.put_many(np.arange(100, 200), np.arange(100))
        assert other.durable >= ticket == other.position


def test_an_exception_that_is_kept_keeps_no_buffer(index: Any) -> None:
    """Also where it is part of a cycle that the collector finds: the memory is free again at once."""
    data = bytearray(struct.pack("=3q", 1, 2, -3))
    for wrong in (
        lambda: index.get_many(memoryview(data).cast("q"), dtype="i8"),
        lambda: index.put_many(memoryview(data).cast("q"), [b""] * 3),
    ):
        with pytest.raises(ValueError, match="negative") as caught:
            wrong()
        caught.value.myself = caught.value  # type: ignore[attr-defined]
        del caught
        gc.collect()
        data.append(0)
        data.pop()


# ---- the other door, and none -----------------------------------------------------------


def test_arrays_go_through_the_other_door_too() -> None:
    """All of the above."""
    other = "slow" if door == "hot" else "hot"
    if os.environ.get("ROWEX_DOOR"):
        pytest.skip("this is the other door")
    files = [str(path) for path in Path(__file__).parent.glob("test_array*.py")]
    done = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, timeout_s=80, ROWEX_DOOR=other)
    assert done.returncode == 0, done.stdout[-3000:]


def test_without_numpy_lists_still_come_and_arrays_say_what_is_missing(folder: Path) -> None:
    """Importing rowex does not import it either."""
    (folder / "numpy.py").write_text("raise ImportError('not here')")
    program = (
        "import sys, array, rowex\n"
        "assert 'numpy' not in sys.modules\n"
        "with rowex.memory() as index:\n"
        "    keys = array.array('q', [1, 2])\n"
        "    index.put_many(keys, keys)\n"
        "    assert index.get_many(keys) == [bytes([n, 0, 0, 0, 0, 0, 0, 0]) for n in keys]\n"
        "    for call in (lambda: index.get_many(keys, dtype='i8'), index.scan_batches):\n"
        "        try:\n"
        "            call()\n"
        "        except ImportError as error:\n"
        "            assert 'rowex[arrays]' in str(error)\n"
        "        else:\n"
        "            raise SystemExit('no error')\n"
    )
    done = run_python("-c", program, folder=folder)
    assert done.returncode == 0, done.stderr


def examples() -> list[str]:
    """The programs of the manual."""
    manual = Path(__file__).parents[1] / "docs" / "arrays.md"
    if not manual.exists():
        cannot_run("the documents are not beside the tests")
    return [part.split("```")[0] for part in manual.read_text().split("```python\n")[1:]]


def test_the_example_of_the_manual_runs(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    """And prints what it says."""
    monkeypatch.chdir(folder)
    exec(examples()[0], {})
    assert capsys.readouterr().out.splitlines()[:2] == ["[2.5 1.5 0. ] [ True  True False]", f"10 {65555 * 16384}.0"]


def test_the_example_of_arrow_runs(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    """And prints what it says."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        cannot_run("pyarrow is not installed")
    monkeypatch.chdir(folder)
    exec(examples()[1], {})
    assert "".join(capsys.readouterr().out.split()) == "['ada','bob']" + '["ada",null]3'
