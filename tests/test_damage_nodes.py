"""
Damage to one node, one word or one file, and who tells of it how (promise P7): the same bytes in a file that was
closed, which is used and checked, and in one that was not, which the first opener scans.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from tools import Child, as_somebody_else, refusal, reseal

Start = Callable[..., Child]
ROOT, NODE4, BIG = 8192, 2, 6
CAPACITY = 48  # in the superblock
KEYS = {b"key/": b"here", b"key/1": b"one", b"key/2": b"two", b"other": b"far"}


def fill(path: Path) -> rowex.Index:
    """A few keys: a Node4 with a prefix and a key that ends at it."""
    index = rowex.open(path, durability="process", initial_size=1 << 17, capacity=1 << 22)
    index.put_many(KEYS.items())
    return index


def node_of(image: bytes) -> int:
    """Where the Node4 of the keys lies."""
    (reference,) = struct.unpack_from("<Q", image, ROOT + 24 + 8 * ord("k"))
    assert reference & 7 == NODE4
    return int(reference & 0x0000FFFFFFFFFFF8)


def obsolete(image: bytearray) -> None:
    """Its lock says that it was replaced."""
    struct.pack_into("<Q", image, node_of(image) + 8, 1)


def term_is_no_leaf(image: bytearray) -> None:
    """Where a key ends hangs a node."""
    node = node_of(image)
    struct.pack_into("<Q", image, node + 16, node | NODE4)


def other_leaf_at_term(image: bytearray) -> None:
    """Where a key ends hangs another one's leaf."""
    far = ROOT + 24 + 8 * ord("o")
    struct.pack_into("<8s", image, node_of(image) + 16, bytes(image[far : far + 8]))


DAMAGE = {
    "marked obsolete": obsolete,
    "what ends at the node is no leaf": term_is_no_leaf,
    "two references lead here": other_leaf_at_term,
}


def test_a_scan_sends_for_no_node_that_is_none(path: Path) -> None:
    """A reference of no kind, to the end of the file: nothing behind it is looked at, and the file stays readable."""
    with fill(path) as index:
        index.put_many({b"%c/%d" % (letter, number): b"" for letter in b"abc" for number in (1, 2)})
    image = bytearray(path.read_bytes())
    for back in (8, 64, 408, 1000, 2072):
        struct.pack_into("<Q", image, ROOT + 24 + 8 * ord("b"), len(image) - back)
        path.write_bytes(image)
        for mode in ("r", "w"):
            with rowex.open(path, mode) as index:
                for reverse in (False, True):
                    with pytest.raises(rowex.CorruptionError):
                        list(index.scan(stop=b"c", limit=100, reverse=reverse))
                assert [key for key, _ in index.scan(limit=2)] == [b"a/1", b"a/2"]
                assert [key for key, _ in index.scan(b"c", limit=100)][:2] == [b"c/1", b"c/2"]


def test_a_scan_of_few_reads_no_node_that_it_does_not_come_to(path: Path) -> None:
    """Who has a limit below what lies in lost pages does not send for it: nothing is told, nor the map given up."""
    near = [bytes([byte]) for byte in range(20)] + [bytes([20, 1]), bytes([20, 2])]
    with rowex.open(path, durability="process", initial_size=1 << 17) as index:
        index.put_many((key, b"") for key in near)
        index.put_many((b"\xff%d" % number, bytes(20_000)) for number in range(300))
        index.put_many((bytes([byte, low]), b"") for byte in range(21, 40) for low in (1, 2))
    with rowex.open(path) as index:
        os.truncate(path, 1 << 20)
        for limit in (1, 10, 22):
            assert [key for key, _ in index.scan(limit=limit)] == near[:limit]


@pytest.mark.parametrize("text", DAMAGE)
def test_damaged_node_is_told_by_check_and_no_wrong_value_is_read(text: str, path: Path) -> None:
    """check() says what it is; each key is read as it was, or refused."""
    fill(path).close()
    image = bytearray(path.read_bytes())
    DAMAGE[text](image)
    path.write_bytes(image)
    with rowex.open(path) as index:
        with pytest.raises(rowex.CorruptionError) as caught:
            index.check()
        assert any(text in fault for _, fault in caught.value.faults), caught.value.faults
        for key, value in KEYS.items():
            try:
                assert index.get(key) == value
            except rowex.CorruptionError:
                continue


@pytest.mark.parametrize("back", [2504, 2072, 2064, 16])
@pytest.mark.parametrize("size", [0, 8])
def test_a_leaf_smaller_than_any_cell_is_refused_wherever_it_lies(size: int, back: int, path: Path) -> None:
    """Also where a look at its bounds alone would let it pass for an empty key."""
    fill(path).close()
    image = bytearray(path.read_bytes())
    struct.pack_into("<Q", image, ROOT + 16, len(image) - back + 1)
    struct.pack_into("<Q", image, len(image) - back, 1 | (size // 8) << 18)
    path.write_bytes(image)
    with rowex.open(path) as index:
        for read in (lambda: index.get(b""), lambda: index.get_many([b"", b"other"]), lambda: list(index.scan())):
            with pytest.raises(rowex.CorruptionError, match="expected a leaf"):
                read()
        assert index.get(b"other") == b"far"


def test_scan_refuses_where_a_key_ends_without_a_leaf(path: Path, folder: Path) -> None:
    """Forward, backward, and what is made of a scan: no key after the damage is passed off as all there is."""
    fill(path).close()
    image = bytearray(path.read_bytes())
    term_is_no_leaf(image)
    path.write_bytes(image)
    with rowex.open(path) as index:
        for reverse in (False, True):
            with pytest.raises(rowex.CorruptionError, match="no leaf"):
                list(index.scan(reverse=reverse))
        with pytest.raises(rowex.CorruptionError, match="no leaf"):
            index.compact()
    with pytest.raises(rowex.CorruptionError, match="no leaf"):
        rowex.copy(path, folder / "copy.rowex")
    assert not (folder / "copy.rowex").exists()


@pytest.mark.parametrize("text", ["what ends at the node is no leaf", "two references lead here"])
def test_startup_scan_of_damaged_nodes_refuses_and_changes_nothing(text: str, path: Path, child: Start) -> None:
    """A file whose users died is scanned when it is opened; what cannot be is told, and stays as it is."""

    def leave(pipe: Any) -> None:
        index = fill(path)
        pipe.send(len(index))
        os._exit(0)  # not a close

    child(leave).finish()
    image = bytearray(path.read_bytes())
    DAMAGE[text](image)
    with path.open("r+b") as file:  # the same inode
        file.write(image)
    for _ in range(2):
        with pytest.raises(rowex.CorruptionError, match=text):
            rowex.open(path)


def test_root_with_a_prefix_is_refused_at_once(path: Path) -> None:
    """Every other node would be looked for at a wrong depth."""
    fill(path).close()
    image = bytearray(path.read_bytes())
    struct.pack_into("<H", image, ROOT + 2, 1)
    path.write_bytes(image)
    with pytest.raises(rowex.CorruptionError, match="the root is not a root"):
        rowex.open(path)


def test_file_larger_than_its_capacity_is_an_error(path: Path) -> None:
    """The address range is what every process maps: what lies behind it could not be reached."""
    fill(path).close()
    image = bytearray(path.read_bytes())
    struct.pack_into("<Q", image, CAPACITY, 1 << 17)
    reseal(image)
    path.write_bytes(image + bytes(1 << 17))
    with pytest.raises(rowex.CorruptionError, match="larger than its capacity"):
        rowex.open(path)


# ---- files beside it, and of other kinds -----------------------------------------------------


def test_pipe_is_no_index(path: Path) -> None:
    """Neither opening nor salvaging waits for somebody to write into it."""
    os.mkfifo(path)
    for call in (lambda: rowex.open(path), lambda: rowex.salvage(path, path.with_name("salvaged"))):
        assert "no regular file" in str(refusal(call, rowex.FormatError))
    assert list(path.parent.glob("salvaged*")) == []


def make_fifo(path: Path) -> None:
    """A pipe with a name."""
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    """What a server leaves behind."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(path))


def make_newer(path: Path) -> None:
    """An index of a version to come."""
    rowex.open(path, durability="process").close()
    image = bytearray(path.read_bytes())
    struct.pack_into("<I", image, 8, 99)
    reseal(image)
    path.write_bytes(image)
    path.with_name(path.name + "-lock").unlink()


REFUSED = {
    "pipe": (make_fifo, rowex.FormatError),
    "socket": (make_socket, OSError),
    "folder": (Path.mkdir, IsADirectoryError),
    "empty": (Path.touch, rowex.FormatError),
    "short": (lambda path: path.write_bytes(b"ROWEX"), rowex.FormatError),
    "cut": (lambda path: path.write_bytes(b"ROWEX\r\n\x1a" + bytes(100)), rowex.FormatError),
    "newer": (make_newer, rowex.FormatError),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_usable_index_gets_no_lock_file(path: Path, what: str) -> None:
    """Who mistypes a name leaves nothing beside it."""
    make, kind = REFUSED[what]
    make(path)
    for mode in ("r", "w", "c", *("n" if what in ("pipe", "socket", "folder", "short") else "")):
        refusal(lambda mode=mode: rowex.open(path, mode), kind)
        assert list(path.parent.iterdir()) == [path], mode


def test_device_is_no_index_and_its_folder_is_left_alone() -> None:
    """Opening /dev/null makes nothing in /dev."""
    litter = Path("/dev/null-lock")
    try:
        for mode in ("r", "w", "c", "n"):
            assert "no regular file" in str(refusal(lambda mode=mode: rowex.open("/dev/null", mode), rowex.FormatError))
        assert not litter.exists()
    finally:
        litter.unlink(missing_ok=True)


def test_lock_file_that_was_removed_or_is_foreign_keeps_others_out(path: Path, child: Start) -> None:
    """Without it nobody knows of the users: who comes is told, and who is there works on."""
    lock = path.with_name(path.name + "-lock")

    def come(pipe: Any) -> None:
        pipe.send(str(refusal(lambda: rowex.open(path), rowex.RowexError)))

    with rowex.open(path) as index:
        index[b"k"] = b"1"
        with lock.open("r+b") as file:
            file.seek(8)
            version = file.read(4)
            file.seek(8)
            file.write(struct.pack("<I", 99))
        assert "foreign, or in use by another version" in child(come).recv()
        with lock.open("r+b") as file:
            file.seek(8)
            file.write(version)
        lock.unlink()
        assert "its -lock file was removed or replaced" in child(come).recv()
        assert index[b"k"] == b"1"


@pytest.mark.parametrize("boot", ["", "another"])
def test_file_of_the_dead_is_not_read_by_who_may_not_write_it(path: Path, child: Start, boot: str) -> None:
    """It must be put in order first, by somebody who may; then it is read."""

    def leave(pipe: Any) -> None:
        index = rowex.open(path, flush_interval=60)
        index.put(b"k", b"1", durable=True)
        os._exit(0)

    def read(pipe: Any) -> None:
        if boot:
            os.environ["ROWEX_BOOT_ID"] = boot
        as_somebody_else()
        pipe.send(str(refusal(lambda: rowex.open(path, "r"), PermissionError)))

    child(leave).finish()
    path.chmod(0o444)
    path.with_name(path.name + "-lock").chmod(0o666)
    assert "must once be opened for writing" in child(read).recv()
    with rowex.open(path) as index:
        assert index[b"k"] == b"1"


@pytest.mark.parametrize("mode", ["r", "w"])
def test_a_byte_that_a_node_has_twice_is_told(path: Path, mode: str) -> None:
    """One of the two leaves cannot be reached: also where check() takes no part in the file, and only counts."""
    fill(path).close()
    image = bytearray(path.read_bytes())
    image[node_of(image) + 25] = image[node_of(image) + 24]
    path.write_bytes(image)
    with rowex.open(path, mode) as index, pytest.raises(rowex.CorruptionError):
        index.check()


@pytest.mark.parametrize(
    "look",
    [lambda index: index.first(), lambda index: index.ceiling(b"\0\3"), lambda index: list(index.scan(limit=1))],
    ids=["first", "ceiling", "scan"],
)
def test_who_wants_one_key_needs_no_other_nodes_page(path: Path, look: Callable[[rowex.Index], Any]) -> None:
    """Wherever the file is cut off behind the first of three nodes, which lie in different pages."""
    with rowex.open(path, durability="process") as index:
        for first in range(3):
            index.put_many((bytes([first, second]), b"value") for second in range(10))
            index.put_many((bytes([200 + first]) + number.to_bytes(2, "big"), b"f" * 200) for number in range(1000))
    image = path.read_bytes()
    for cut in range(131072, len(image), 65536):
        with rowex.open(path, "r") as index:
            os.truncate(path, cut)
            try:
                look(index)
            finally:
                path.write_bytes(image)


def test_of_a_large_leaf_at_the_very_end_nothing_behind_the_file_is_read(path: Path) -> None:
    """Its cell is less than its own head: no page is lost for it, so the index goes on."""
    fill(path).close()
    image = bytearray(path.read_bytes())
    end = len(image)
    struct.pack_into("<Q", image, end - 16, BIG | 2 << 8)
    struct.pack_into("<Q", image, ROOT + 24 + 8 * ord("o"), (end - 16) | BIG)
    path.write_bytes(image)
    with rowex.open(path, "r") as index:
        for _ in range(2):
            with pytest.raises(rowex.CorruptionError, match="lengths exceed"):
                index.get(b"other")
            with pytest.raises(rowex.CorruptionError, match="lengths exceed"):
                list(index.scan(b"m"))
        assert index[b"key/1"] == b"one"
