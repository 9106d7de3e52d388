"""
Files that are truncated, foreign, newer, damaged, or cut short under a mapping (promises P6, P7).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from tools import Child, assert_same, make_value, refusal, reseal

Start = Callable[..., Child]
MAGIC = b"ROWEX\r\n\x1a"
REFUSED = (rowex.CorruptionError, rowex.FormatError, rowex.DiskFullError, OSError, rowex.RowexError)


def contents() -> dict[bytes, bytes]:
    """Keys of all kinds of nodes, big values among them."""
    model = {b"n" + bytes([i]): make_value(b"n%d" % i, i) for i in range(200)}
    model.update({b"m" + bytes([i]): make_value(b"m%d" % i, i) for i in range(30)})
    model.update({b"prefix" * 40 + b"%03d" % i: make_value(b"p%d" % i, i, i * 10) for i in range(150)})
    model.update({b"big%d" % i: make_value(b"b%d" % i, i, 5000 * i) for i in range(5)})
    model[b""] = b"empty"
    return model


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytearray:
    """The bytes of a file that was closed cleanly."""
    path = tmp_path_factory.mktemp("image") / "index.rowex"
    with rowex.open(path, durability="process", initial_size=1 << 18, capacity=1 << 22) as index:
        index.put_many(contents())
        index.remove_many([b"n" + bytes([i]) for i in range(0, 200, 2)])
    return bytearray(path.read_bytes())


def expected() -> dict[bytes, bytes]:
    """What the image holds."""
    return {k: v for k, v in contents().items() if not (k[:1] == b"n" and len(k) == 2 and k[1] % 2 == 0)}


def use_everything(path: Path, *, write: bool) -> str:
    """Open, look at everything, perhaps change something; how that ended."""
    try:
        with rowex.open(path, "w" if write else "r") as index:
            outcomes = []
            for call in (
                lambda: len(list(index.scan())),
                lambda: len(list(index.scan(reverse=True))),
                lambda: len(index.get_many(list(contents()))),
                lambda: [index.floor(key) for key in list(contents())[::7]],
                lambda: index.stats(),
                lambda: index.check(),
                *((lambda: change(index),) if write else ()),
            ):
                try:
                    call()
                except REFUSED as error:
                    outcomes.append(type(error).__name__)
            if not outcomes:
                found = dict(index.scan())
                model = {**expected(), **(changed() if write else {})}
                if found != model:
                    wrong = sorted(k for k in {*found, *model} if found.get(k) != model.get(k))
                    raise AssertionError(f"check() found nothing, but {len(wrong)} keys are wrong: {wrong[:3]!r}")
            return "used" if not outcomes else "refused"
    except REFUSED:
        return "refused"


def changed() -> dict[bytes, bytes]:
    """What change() adds."""
    return {b"added%03d" % i: bytes([i]) * (i * 20) for i in range(100)}


def change(index: Any) -> None:
    """Take cells from the free lists, and give some back."""
    index.put_many([(b"temporary%03d" % i, bytes(i * 9)) for i in range(100)])
    index.put_many(changed())
    index.remove_many([b"temporary%03d" % i for i in range(100)])


def judge(
    child: Start, path: Path, images: list[tuple[str, Callable[[], bytes]]], *, write: bool = False
) -> dict[str, int]:
    """
    Use each image in a process that may crash.

    Args:
        child: Starts a process.
        path: Where the image is put.
        images: Name and maker of each.
        write: Whether to change the index too.

    Returns:
        How often each outcome came.
    """
    at = memoryview(mmap.mmap(-1, 8)).cast("Q")
    counts = {"used": 0, "refused": 0}

    def work(pipe: Any) -> None:
        found = {"used": 0, "refused": 0}
        while at[0] < len(images):
            name, make = images[at[0]]
            for entry in path.parent.glob(path.name + "*"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            path.write_bytes(make())
            try:
                found[use_everything(path, write=write)] += 1
            except BaseException as error:
                raise AssertionError(f"image {name}") from error
            at[0] += 1
        pipe.send(found)

    process = child(work)
    try:
        for outcome, count in process.recv(80).items():
            counts[outcome] += count
    except AssertionError as error:
        number = int(at[0])
        raise AssertionError(f"image {images[number][0] if number < len(images) else number}: {error}") from error
    process.finish()
    return counts


def test_image_itself_is_right(image: bytearray, path: Path) -> None:
    """The undamaged image holds what was put."""
    path.write_bytes(image)
    with rowex.open(path) as index:
        assert_same(index, expected())


def test_truncated_file_is_an_error_wherever_it_was_cut(image: bytearray, path: Path, child: Start) -> None:
    """A file cut at any length gives an exception, or, past all that matters, the right answers."""
    rng = random.Random(5)
    size = len(image)
    cuts = {0, 1, 7, 8, 100, 255, 256, 511, 512, 4095, 4096, 8191, 8192, 10_000, 65_535, 65_536, 65_537, size - 1}
    cuts |= {size // 2, size - 4096, size - 65_536, *(rng.randrange(size) for _ in range(40))}
    images = [(f"cut at {cut}", lambda cut=cut: bytes(image[:cut])) for cut in sorted(cuts) if 0 <= cut < size]
    counts = judge(child, path, images)
    assert counts["refused"] >= 18


def test_truncated_file_is_never_written_over(image: bytearray, path: Path) -> None:
    """Even mode "c" leaves what it cannot use as it is."""
    for cut in (1, 100, 8000, 70_000):
        path.write_bytes(image[:cut])
        with pytest.raises(REFUSED), rowex.open(path, "c") as index:
            index.check()
        assert path.read_bytes() == image[:cut]


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"hello, world\n" * 10_000,
        bytes(1 << 17),
        b"\xff" * (1 << 17),
        b"SQLite format 3\x00" + bytes(100_000),
        b"ROWEX\r\n\x1a" + b"\xaa" * 100_000,
        b"ROWEX\n\x1a" + bytes(100_000),
        random.Random(6).randbytes(1 << 17),
    ],
    ids=["byte", "text", "zeros", "ones", "sqlite", "magic", "mangled", "random"],
)
def test_foreign_file_is_a_format_error_and_stays_as_it_is(path: Path, content: bytes) -> None:
    """Not a Rowex file: FormatError (or CorruptionError) names it, and it is neither used nor replaced."""
    path.write_bytes(content)
    for mode in ("r", "w", "c", *("n" if content[:8] != MAGIC else "")):
        with pytest.raises((rowex.FormatError, rowex.CorruptionError)) as caught:
            rowex.open(path, mode)
        assert path.name in str(caught.value)
        assert path.read_bytes() == content


def test_n_replaces_an_index_or_an_empty_file_and_nothing_else(path: Path) -> None:
    """Also an index that cannot be opened; a folder or a pipe is none."""
    for content in (b"", MAGIC + b"\xaa" * 100_000):
        path.write_bytes(content)
        with rowex.open(path, "n") as index:
            index[b"k"] = b"1"
            assert_same(index, {b"k": b"1"})
    folder, pipe = path.with_name("folder"), path.with_name("pipe")
    folder.mkdir()
    os.mkfifo(pipe)
    for other, kind in ((folder, IsADirectoryError), (pipe, rowex.FormatError)):
        refusal(lambda other=other: rowex.open(other, "n"), kind)
    assert (folder.is_dir(), pipe.is_fifo()) == (True, True)


@pytest.mark.parametrize(
    ("offset", "value", "word"),
    [
        (8, struct.pack("<I", 3), "version 3, this library knows version 2"),
        (8, struct.pack("<I", 1), "its format has version 1, this library knows version 2"),
        (12, struct.pack(">I", 0x01020304), "endian"),
        (16, struct.pack("<I", 4), "word"),
        (20, struct.pack("<I", 4096), "header"),
    ],
    ids=["newer", "older", "big-endian", "32-bit", "header"],
)
def test_file_of_another_version_or_machine_says_what_it_is(
    image: bytearray, path: Path, offset: int, value: bytes, word: str
) -> None:
    """A well-formed file that this build cannot use gives a FormatError that says why."""
    other = bytearray(image)
    other[offset : offset + 4] = value
    reseal(other)
    path.write_bytes(other)
    with pytest.raises(rowex.FormatError, match=f"(?i){word}"):
        rowex.open(path)


def test_damaged_superblock_is_noticed_in_each_of_its_fields(image: bytearray, path: Path, child: Start) -> None:
    """Any byte of the fixed and of the state part that is changed is refused, or makes no difference."""
    images = []
    for offset in [*range(320), *range(504, 1100, 13)]:
        for flip in (0x01, 0x80):

            def make(offset: int = offset, flip: int = flip) -> bytes:
                other = bytearray(image)
                other[offset] ^= flip
                return bytes(other)

            images.append((f"byte {offset} ^ {flip:#x}", make))
    counts = judge(child, path, images)
    assert counts["refused"] >= 256 * 2 + 2 * 40


@pytest.mark.parametrize("write", [False, True], ids=["reading", "writing"])
def test_flipped_bits_never_crash_and_never_pass_a_check(
    image: bytearray, path: Path, child: Start, rng: random.Random, write: bool, long_run: bool
) -> None:
    """Random damage: exceptions, or right answers; a check() that passes means that all is right."""
    end = len(image.rstrip(b"\x00")) + 64
    count = 20_000 if long_run else 300
    images = []
    for number in range(count):
        seed = rng.random()

        def make(seed: float = seed, number: int = number) -> bytes:
            other, dice = bytearray(image), random.Random(seed)
            for _ in range(dice.choice([1, 1, 1, 2, 8])):
                at = dice.randrange(8192, end) if number % 4 else dice.randrange(8192, 8192 + 2100)
                what = dice.randrange(4)
                if what == 0:
                    other[at] ^= 1 << dice.randrange(8)
                elif what == 1:
                    other[at] = dice.choice([0, 255, dice.randrange(256)])
                elif what == 2:
                    at &= ~7
                    other[at : at + 8] = dice.choice(
                        [bytes(8), b"\xff" * 8, dice.randbytes(8), image[at + 64 : at + 72]]
                    )
                else:
                    other[at & ~7 : (at & ~7) + 8] = struct.pack("<Q", dice.randrange(0, end, 8) | dice.randrange(8))
            return bytes(other[: len(image)])

        images.append((f"number {number}, seed {seed}", make))
    counts = judge(child, path, images, write=write)
    assert counts["refused"] > count // 10


def test_damaged_free_lists_are_noticed_when_used(image: bytearray, path: Path, child: Start) -> None:
    """Heads of free lists in the superblock that point anywhere never lead to a crash."""
    images = []
    dice = random.Random(8)
    for number in range(80):
        seed = dice.random()

        def make(seed: float = seed) -> bytes:
            other, mine = bytearray(image), random.Random(seed)
            for _ in range(6):
                at = 512 + 8 * mine.randrange(2 * 208)
                value = mine.choice([mine.randrange(0, len(image), 8), mine.getrandbits(64), 8192, len(image)])
                other[at : at + 8] = struct.pack("<Q", value)
            return bytes(other)

        images.append((f"lists {number}", make))
    judge(child, path, images, write=True)


def test_loops_in_the_tree_are_noticed(image: bytearray, path: Path, child: Start) -> None:
    """A node that refers to itself, to the root, or to another's subtree never makes a call hang."""
    slots = [8192 + 24 + 8 * byte for byte in range(256)]
    filled = [at for at in slots if image[at : at + 8] != bytes(8)]
    images = []
    for at in filled:
        (reference,) = struct.unpack_from("<Q", image, at)
        inner = (reference & 0x0000FFFFFFFFFFF8) + 24
        for target, name in ((reference, "itself"), (8192 | 5, "the root")):

            def make(inner: int = inner, target: int = target) -> bytes:
                other = bytearray(image)
                for slot in range(4):
                    struct.pack_into("<Q", other, inner + 8 * slot, target)
                return bytes(other)

            images.append((f"slot {at} to {name}", make))
    judge(child, path, images)
    judge(child, path, images, write=True)


def test_damaged_value_is_found_by_check_copy_and_compact(image: bytearray, path: Path, folder: Path) -> None:
    """A bit of a value: check(), copy() and compact() notice, and say where; reading others goes on."""
    value = contents()[b"big3"]
    at = bytes(image).index(value)
    other = bytearray(image)
    other[at + 10] ^= 4
    path.write_bytes(other)
    with rowex.open(path) as index:
        with pytest.raises(rowex.CorruptionError) as caught:
            index.check()
        assert caught.value.faults
        assert any(abs(offset - at) < 4096 for offset, _ in caught.value.faults)
        with pytest.raises(rowex.CorruptionError) as caught:
            index.compact()
        assert index[b"big2"] == contents()[b"big2"]
        assert index.info().generation == 1
        index[b"k"] = b"1"
    with pytest.raises(rowex.CorruptionError):
        rowex.copy(path, folder / "copy.rowex")
    assert not (folder / "copy.rowex").exists()


def test_check_reports_every_fault(image: bytearray, path: Path) -> None:
    """Two damaged values are two faults of one CorruptionError."""
    other = bytearray(image)
    for name in (b"big2", b"big4"):
        other[bytes(image).index(contents()[name]) + 8] ^= 1
    path.write_bytes(other)
    with rowex.open(path, "r") as index, pytest.raises(rowex.CorruptionError) as caught:
        index.check()
    assert len(caught.value.faults) >= 2
    assert all(text for _, text in caught.value.faults)


def test_file_of_another_boot_that_was_in_use_is_refused(path: Path, child: Start, monkeypatch: Any) -> None:
    """A file without a log that was in use when the machine stopped is an error that says so."""

    def use(pipe: Any) -> None:
        index = rowex.open(path, durability="process")
        index[b"k"] = b"1"
        pipe.send("written")
        pipe.recv()

    process = child(use)
    process.recv()
    process.kill()
    done = Child(open_under_another_boot, path)
    try:
        assert done.recv() == "CorruptionError"
    finally:
        done.cleanup()
    with rowex.open(path) as index:
        assert index[b"k"] == b"1"
    again = Child(open_under_another_boot, path)
    try:
        assert again.recv() == "opened", "a clean file is good after any reboot"
    finally:
        again.cleanup()


def open_under_another_boot(pipe: Any, path: Path) -> None:
    """Open as after a reboot."""
    os.environ["ROWEX_BOOT_ID"] = "00000000-1111-2222-3333-444444444444"
    try:
        with rowex.open(path) as index:
            assert index[b"k"] == b"1"
        pipe.send("opened")
    except rowex.RowexError as error:
        pipe.send(type(error).__name__)


def test_in_use_file_copied_elsewhere_is_refused(path: Path, folder: Path) -> None:
    """A copy taken of a file in use is torn: it is another inode, and the mark says so."""
    with rowex.open(path) as index:
        index[b"k"] = b"1"
        shutil.copyfile(path, folder / "torn.rowex")
        with pytest.raises((rowex.CorruptionError, rowex.DurabilityError)):
            rowex.open(folder / "torn.rowex")
        assert index[b"k"] == b"1"


@pytest.mark.parametrize("keep", [0, 4096, 8192, 65_536, 200_000])
def test_file_cut_short_under_a_mapping_is_an_exception(path: Path, child: Start, keep: int) -> None:
    """A page that is gone raises instead of ending the process with SIGBUS; the handle can be closed."""

    def use(pipe: Any) -> None:
        index = rowex.open(path)
        index.put_many([(b"%05d" % i, bytes(3000)) for i in range(400)])
        os.truncate(path, keep)
        outcomes = set()
        for call in (
            lambda: list(index.scan()),
            lambda: all_there([index.get(b"%05d" % i) for i in range(400)]),
            lambda: all_there(index.get_many([b"%05d" % i for i in range(400)])),
            lambda: index.put(b"new", bytes(100)),
            lambda: index.remove(b"00001"),
            lambda: index.check(),
            lambda: index.compact(),
            lambda: index.put_many([(b"x%05d" % i, bytes(3000)) for i in range(400)]),
        ):
            try:
                call()
                outcomes.add("answered")
            except (rowex.RowexError, OSError) as error:
                outcomes.add(type(error).__name__)
        with contextlib.suppress(rowex.RowexError, OSError):
            index.close()
        with rowex.open(path.parent / "other.rowex") as other:
            other[b"k"] = b"1"
        pipe.send(outcomes)

    assert child(use).recv() - {"answered"}


def all_there(values: list[bytes | None]) -> None:
    """What cannot be read is never reported as absent, nor as other bytes."""
    assert values == [bytes(3000)] * len(values)


def test_other_faults_still_end_the_process(child: Start) -> None:
    """The handler for SIGBUS is chained: a fault outside our mappings is not swallowed."""

    def fault(pipe: Any) -> None:
        import signal
        import tempfile

        with rowex.memory() as index:
            index[b"k"] = b"1"
            with tempfile.TemporaryFile() as file:
                file.truncate(mmap.PAGESIZE)
                data = mmap.mmap(file.fileno(), mmap.PAGESIZE)
                file.truncate(0)
                signal.alarm(20)
                print(data[0])

    assert child(fault).wait() == -7
