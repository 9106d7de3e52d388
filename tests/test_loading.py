"""
`rowex.build` and `Index.load`: many items at once.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowex
from commands import do
from tools import Child, assert_same, eventually, leftovers

np = pytest.importorskip("numpy")

Start = Callable[..., Child]


def random_items(rng: Any, count: int) -> dict[bytes, bytes]:
    """Short and long, with shared prefixes, ends of others among them."""
    items = {}
    while len(items) < count:
        key = rng.choice([b"", b"a", b"deep/" * 70, b"\0", b"\xff"]) + rng.randbytes(rng.choice([0, 1, 2, 8, 300]))
        items[key] = rng.randbytes(rng.choice([0, 8, 100, 3000, 100_000 if rng.random() < 0.02 else 1]))
    return items


@pytest.mark.parametrize("count", [0, 1, 2, 31, 33, 5000])
@pytest.mark.parametrize("durability", ["process", "batch"])
def test_sorted_items_are_built(path: Path, rng: Any, count: int, durability: str) -> None:
    """The file is what puts would have made, dense and clean; it can be written, and recovered, as any other."""
    items = random_items(rng, count)
    assert rowex.build(path, sorted(items.items()), durability=durability) == count
    assert leftovers(path) == set()
    with rowex.open(path) as index:
        assert_same(index, items)
        index.check()
        assert index.info().durability == durability
        index[b"more"] = b"1"
        index.update(items)
        index.compact()
        assert_same(index, {b"more": b"1", **items})


@pytest.mark.parametrize("order", ["shuffled", "last", "repeated"])
def test_items_out_of_order_are_put(path: Path, rng: Any, order: str) -> None:
    """All come in, whatever their order; of equal keys the last counts; as pairs and as arrays."""
    pairs = sorted(random_items(rng, 3000).items())
    if order == "shuffled":
        rng.shuffle(pairs)
    elif order == "last":
        pairs.append(pairs.pop(5))
    else:
        pairs = [(key, b"%d" % i) for i, (key, _) in enumerate(pairs) for _ in range(2)]
    told: list[int] = []
    built = rowex.build(path, iter(pairs), progress=told.append)
    assert built == (len(pairs) - 1 if order == "last" else built)
    assert told[-1] == len(pairs)
    with rowex.open(path, "r") as index:
        assert_same(index, dict(pairs))
    rowex.destroy(path)
    keys, values = (rowex.Packed.of(side) for side in zip(*pairs, strict=True))
    assert rowex.build(path, keys, values) == built
    with rowex.open(path, "r") as index:
        assert_same(index, dict(pairs))


def test_arrays_are_built_with_codecs(path: Path, rng: Any) -> None:
    """Signed numbers, sorted and not."""
    keys = np.array(sorted({rng.randrange(-(2**62), 2**62) for _ in range(20000)}))
    told: list[int] = []
    assert rowex.build(path, keys, keys[::-1].copy(), codecs=("int", "int"), progress=told.append) == len(keys)
    assert told[-1] == len(keys)
    with rowex.open(path, "r") as index:
        assert dict(index.items()) == dict(zip(keys.tolist(), keys[::-1].tolist(), strict=True))
    rowex.destroy(path)
    assert 0 < rowex.build(path, {"b": 1, "c": 2, "a": 3}, codecs=("str", "msgpack")) == 2
    with rowex.open(path, "r") as index:
        assert list(index.items()) == [("a", 3), ("b", 1), ("c", 2)]


def test_what_is_like_bytes_is_built(path: Path) -> None:
    """Pairs and lists of what put() takes, beside exact bytes; codecs of one's own that give a class of bytes."""

    class Mine(bytes):
        pass

    pairs = [(b"a", b"1"), [bytearray(b"b"), memoryview(b"22")], (b"c", array("B", [51]))]
    whole = {b"a": b"1", b"b": b"22", b"c": b"3"}
    mine = (Mine, bytes), (Mine, bytes)
    for codecs in (("bytes", "bytes"), mine):
        assert rowex.build(path, pairs, codecs=codecs) == 3
        with rowex.open(path, "r", keys=codecs[0], values=codecs[1]) as index:
            assert dict(index.items()) == whole
        rowex.destroy(path)
        assert rowex.build(path, [key for key, _ in pairs], [value for _, value in pairs], codecs=codecs) == 3
        with rowex.open(path, "r", keys=codecs[0], values=codecs[1]) as index:
            assert dict(index.items()) == whole
        rowex.destroy(path)


def test_what_cannot_be_built_leaves_nothing_behind(path: Path, folder: Path) -> None:
    """An exception of the items, a key that is too long, a size that is too small, a file that is there."""

    def broken() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b"1"
        raise LookupError("no more")

    long = b"x" * ((1 << 20) + 1)
    calls: list[tuple[type[BaseException], Callable[[], Any]]] = [
        (LookupError, lambda: rowex.build(path, broken())),
        (ValueError, lambda: rowex.build(path, [(b"a", b""), (long, b"")])),
        (ValueError, lambda: rowex.build(path, [(b"a", b"", b"")])),
        (ValueError, lambda: rowex.build(path, [(b"a", b""), [b"b", b"", b""]])),
        (ValueError, lambda: rowex.build(path, [(b"a", b""), (b"b",)])),
        (TypeError, lambda: rowex.build(path, [(b"a", b""), None])),
        (TypeError, lambda: rowex.build(path, [(b"a", b""), (b"b", 1)])),
        (TypeError, lambda: rowex.build(path, [b"a", b"b"], [b"", 1])),
        (ValueError, lambda: rowex.build(path, np.arange(3), np.arange(2))),
        (TypeError, lambda: rowex.build(path, [("a", b"")])),
        (TypeError, lambda: rowex.build(path, np.zeros(3), np.zeros(3))),
        (rowex.DiskFullError, lambda: rowex.build(path, np.arange(99999), np.arange(99999), max_size=1 << 20)),
        (FileNotFoundError, lambda: rowex.build(folder / "no" / "such", [])),
        (KeyboardInterrupt, lambda: rowex.build(path, np.arange(9), np.arange(9), progress=interrupted)),
    ]
    for kind, call in calls:
        with pytest.raises(kind):
            call()
        assert os.listdir(folder) == []
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        rowex.build(path, [])
    assert os.listdir(folder) == [path.name]
    assert path.read_bytes() == b"mine"


def interrupted(count: int) -> None:
    """A progress that is stopped."""
    raise KeyboardInterrupt


def test_a_process_killed_while_it_builds_leaves_no_index(path: Path, child: Start, folder: Path) -> None:
    """Only a file under another name, which nobody takes for the index."""

    def work(pipe: Any) -> None:
        def endless() -> Iterator[tuple[bytes, bytes]]:
            for i in range(10**9):
                yield i.to_bytes(8), b"value"

        rowex.build(path, endless(), progress=pipe.send)

    process = child(work)
    process.recv()
    process.kill()
    eventually(lambda: os.listdir(folder))
    assert not path.exists()
    assert rowex.build(path, [(b"a", b"1")]) == 1
    with rowex.open(path) as index:
        assert dict(index) == {b"a": b"1"}


def test_load_puts_into_what_is_there(path: Path, opened: Callable[..., Any], rng: Any) -> None:
    """Pairs, mappings and arrays; progress tells of all of them."""
    index = opened(path, keys="int", values="int")
    told: list[int] = []
    numbers = np.array([rng.randrange(-(2**62), 2**62) for _ in range(3000)])
    ticket = index.load(numbers, numbers, progress=told.append)
    assert ticket == index.position
    index.load({1: 2, 3: 4}, progress=told.append)
    index.load(iter([(5, 6), (1, 7)]), progress=told.append)
    index.load([], progress=told.append)
    assert told == [3000, 2, 2]
    assert dict(index.items()) == {**{n: n for n in numbers.tolist()}, 1: 7, 3: 4, 5: 6}
    with index.writer() as writer:
        writer.load([8], [9])
    assert index[8] == 9
    with pytest.raises(ValueError):
        index.load([1], [2, 3])
    index.raw.load([b"\x80"], [b"\x80"])
    assert index[0] == 0


def test_nothing_to_load_is_refused_where_something_would_be(path: Path, opened: Callable[..., Any]) -> None:
    """A handle that is closed, or only reads, says so whatever there is to load."""
    index = opened(path)
    index.load([])
    with index.reader() as reader, rowex.open(path, "r") as other:
        for handle in (reader, other):
            for empty in (lambda handle=handle: handle.load([]), lambda handle=handle: handle.load([], [])):
                with pytest.raises(rowex.ReadOnlyError):
                    empty()
    index.close()
    for empty in (lambda: index.load([]), lambda: index.load([], []), lambda: index.load({})):
        with pytest.raises(rowex.ClosedError):
            empty()


def test_the_command_loads_arrays(path: Path, folder: Path) -> None:
    """A new index is built, one that is there is added to; what is wrong is said, with status 2."""
    for name, numbers in {"keys": np.arange(-3, 2000), "values": np.arange(2003) * 2, "few": np.zeros(3, "i8")}.items():
        np.save(folder / f"{name}.npy", numbers)
    files = [folder / "keys.npy", "--npy", folder / "values.npy"]
    for extra in (["--keys", "int", "--values", "int"], []):
        result = do("load", path, *files, *extra)
        assert (result.exit_code, result.stderr) == (0, "rowex: 2003 item(s) stored\n")
        with rowex.open(path, "r") as index:
            assert dict(index.items()) == {i - 3: i * 2 for i in range(2003)}
    assert do("load", path, *files, "-q").stderr == ""
    for wrong in (
        [folder / "new", folder / "keys.npy", "--npy", folder / "few.npy"],
        [folder / "new", *files],  # negative numbers in an index of bytes
        [folder / "new", folder / "keys.npy", "--npy", folder / "none.npy"],
        [folder / "new", path, "--npy", folder / "few.npy"],
        [path, *files, "--keys", "str"],
    ):
        assert do("load", *wrong).exit_code == 2
        assert not (folder / "new").exists()
