"""
Damage in the log is told from a torn tail (promises P5, P7): what was durable is never lost without a word.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from power import recovered, segments
from rowex.cli.recover import explain
from tools import Child, crc32c, refusal

SEGMENT_HEAD, FRAME_HEAD = 4096, 16
COUNT = 2000


def model() -> dict[bytes, bytes]:
    """What the writer has put."""
    return {b"%05d" % i: b"value %d" % i for i in range(COUNT)}


def put_and_die(pipe: Any, path: Path) -> None:
    """Everything durable, nothing closed."""
    index = rowex.open(path)
    index.put_many(model())
    index.flush()
    pipe.send(index.durable)
    os._exit(0)


@pytest.fixture
def left(path: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """An index whose every change is durable, as another boot finds it; the last ticket."""

    def make() -> int:
        writer = child(put_and_die, path)
        ticket = int(writer.recv())
        writer.wait()
        monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
        return ticket

    return make


def end_of_frames(path: Path) -> int:
    """Where in the last segment's file the frames end."""
    told = explain(path)
    assert told.log_bytes is not None
    return SEGMENT_HEAD + told.log_bytes


def write(file: Path, offset: int, data: bytes) -> None:
    """Change bytes of a file."""
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def test_damaged_last_frames_are_no_torn_tail(path: Path, left: Callable[[], int], rng: random.Random) -> None:
    """One flipped bit anywhere in what was durable: refused, with what is lost; nothing was changed by that."""
    ticket = left()
    (file,) = segments(path)
    whole, end = file.read_bytes(), end_of_frames(path)
    places = [SEGMENT_HEAD, SEGMENT_HEAD + 7, SEGMENT_HEAD + FRAME_HEAD, end - 9]
    for at in [*places, *(rng.randrange(SEGMENT_HEAD, end - 8) for _ in range(20))]:
        write(file, at, bytes([whole[at] ^ 1 << rng.randrange(8)]))
        told = explain(path)
        assert (told.opening, told.log_end) == ("refuse", "damaged"), at
        assert (told.lost_from or 0) <= ticket
        damaged = file.read_bytes()
        error = refusal(lambda: rowex.open(path), rowex.CorruptionError)
        assert "durable" in str(error)
        assert "rowex salvage" in str(error)
        assert file.read_bytes() == damaged
        file.write_bytes(whole)
    assert recovered(path) == model()


def test_damaged_witness_alone_loses_nothing(path: Path, left: Callable[[], int]) -> None:
    """It says that nothing is missing; without it, everything is there all the same."""
    left()
    (file,) = segments(path)
    assert explain(path).log_end == "clean"
    write(file, end_of_frames(path), b"\xff")
    assert recovered(path) == model()


def test_unfinished_frame_after_a_sync_is_a_torn_tail(path: Path, left: Callable[[], int], rng: random.Random) -> None:
    """It takes the witness's place, in whole sectors or in part; what is before it stays."""
    left()
    (file,) = segments(path)
    end = end_of_frames(path)
    for size in (1, 8, 16, 500, 5000):
        write(file, end, rng.randbytes(size))
    assert explain(path).log_end == "torn"
    assert recovered(path) == model()


def test_last_frame_of_a_closed_session_is_known_to_the_next(path: Path, child: Callable[..., Child]) -> None:
    """A session that only marked the file, and died with the machine, still has a whole log before it."""

    def mark(pipe: Any) -> None:
        index = rowex.open(path, flush_interval=60)
        index.put(b"never durable", b"")
        pipe.send(explain(path).log_bytes)
        os._exit(0)

    with rowex.open(path) as index:
        index.put_many(model())
    writer = child(mark)
    end = SEGMENT_HEAD + int(writer.recv())
    writer.wait()
    (file,) = segments(path)
    byte = file.read_bytes()[end - 9]
    write(file, end - 9, bytes([byte ^ 1]))
    os.environ["ROWEX_BOOT_ID"] = "the next"
    try:
        refusal(lambda: rowex.open(path), rowex.CorruptionError)
    finally:
        del os.environ["ROWEX_BOOT_ID"]


def two_segments(pipe: Any, path: Path) -> None:
    """More than one segment holds."""
    index = rowex.open(path)
    for i in range(30):
        index.put(b"%05d" % i, bytes(1 << 14), durable=True)
    pipe.send(len(segments(path)))
    os._exit(0)


@pytest.mark.parametrize("how", ["flipped", "zeroed", "cut"])
def test_damaged_last_segment_is_noticed(
    path: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Its head is damaged, or lost, or its end is: all that it held was durable."""
    writer = child(two_segments, path)
    assert int(writer.recv()) >= 2
    writer.wait()
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    file = segments(path)[-1]
    if how == "flipped":
        write(file, 50, b"\xff")
    elif how == "zeroed":
        write(file, 0, bytes(SEGMENT_HEAD))
    else:
        os.truncate(file, SEGMENT_HEAD + 100)
    assert explain(path).opening == "refuse"
    error = refusal(lambda: rowex.open(path), rowex.CorruptionError)
    assert file.name in str(error)


def test_clean_file_says_that_its_log_is_damaged(path: Path) -> None:
    """Not that it is another's, or older; without the log it is used as it is."""
    with rowex.open(path) as index:
        for i in range(30):
            index.put(b"%05d" % i, bytes(1 << 14), durable=True)
    write(segments(path)[-1], 50, b"\xff")
    with pytest.raises(rowex.DurabilityError, match="segment of its log is damaged"):
        rowex.open(path)
    shutil.rmtree(f"{path}-log")
    with rowex.open(path) as index:
        assert len(index) == 30


def test_segment_that_was_being_made_is_nothing(path: Path, left: Callable[[], int]) -> None:
    """The machine stopped while it was made: it has blocks, perhaps, but holds nothing."""
    left()
    (file,) = segments(path)
    made = file.with_name(f"{int(file.name, 16) + 1:016x}")
    made.write_bytes(b"")
    assert explain(path).opening == "recover"
    made.write_bytes(bytes(1 << 16))
    assert recovered(path) == model()


def test_value_full_of_heads_of_frames_does_not_take_for_ever(
    path: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each word of it could begin a frame of megabytes; behind a damaged one they are not all read."""

    def write_it(pipe: Any) -> None:
        index = rowex.open(path)
        index.put(b"aligned!", struct.pack("<Q", 1 | 4_000_000 << 24) * 1_000_000, durable=True)
        pipe.send("written")
        os._exit(0)

    writer = child(write_it)
    writer.recv()
    writer.wait()
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    file = segments(path)[-1]
    write(file, SEGMENT_HEAD, b"\xff\xff\xff\xff")
    assert explain(path).opening == "refuse"
    refusal(lambda: rowex.open(path), rowex.CorruptionError)
    told = rowex.salvage(path, path.with_name("target"))
    assert told.log == "damaged"


def test_segment_of_another_version_is_refused_by_its_number(path: Path) -> None:
    """It says which version it is; nothing is made of it."""
    with rowex.open(path) as index:
        index[b"k"] = b"v"
    (file,) = segments(path)
    head = bytearray(file.read_bytes()[:SEGMENT_HEAD])
    struct.pack_into("<I", head, 8, 1)
    struct.pack_into("<I", head, 12, crc32c(bytes(head[16:])))
    write(file, 0, bytes(head))
    with pytest.raises(rowex.FormatError, match="version 1"):
        rowex.open(path)


def checkpoint_beside_writers(pipe: Any, path: Path) -> None:
    """A checkpoint that has seen changes behind the place from which the log is replayed."""
    index = rowex.open(path, flush_interval=0.001)
    index.put_many([(b"%06d" % i, b"old") for i in range(20_000)])
    with index.writer() as writer:
        for _ in range(100):
            maker = threading.Thread(target=index.checkpoint)
            maker.start()
            for i in range(2000):
                writer.put(b"%06d" % i, b"new")
            maker.join()
            position, least = checkpoint_points(path)
            if least > position:
                break
    index.flush()
    pipe.send((position, least))
    os._exit(0)


def checkpoint_points(path: Path) -> tuple[int, int]:
    """With which entry the log goes on behind the checkpoint, and up to which it must."""
    image = Path(f"{path}-checkpoint").read_bytes()[:512]
    return struct.unpack_from("<Q", image, 320)[0], struct.unpack_from("<Q", image, 360)[0]


def test_log_that_ends_before_its_checkpoint_needs_it_is_damaged(
    path: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read while others wrote, a checkpoint alone may be a state that never was."""
    writer = child(checkpoint_beside_writers, path)
    position, least = writer.recv()
    writer.wait()
    assert least > position
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    (at,) = struct.unpack_from("<Q", Path(f"{path}-checkpoint").read_bytes(), 344)
    for file in segments(path):
        (begin,) = struct.unpack_from("<Q", file.read_bytes(), 48)
        if begin > at:
            file.unlink()
        else:
            size = file.stat().st_size
            os.truncate(file, SEGMENT_HEAD + at - begin)
            os.truncate(file, size)
    told = explain(path)
    assert (told.opening, told.log_end) == ("refuse", "damaged")
    assert "checkpoint" in str(refusal(lambda: rowex.open(path), rowex.CorruptionError))
