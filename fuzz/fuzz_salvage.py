#!/usr/bin/env python3
"""
Salvages damaged indexes: whatever the bytes, a sound new index or an exception, never a crash or a hang.

    fuzz_salvage.py [--seed N] [--count N] [--folder DIR] [--keep DIR]

Takes a file without a log, or data file, checkpoint and log of an index with one, damages some of it as
fuzz_open.py does (and frames of the log, half of the time with their checksums made right again), and
salvages it in a child process, which then checks the new index.  The source must stay as it was; after
that it is opened too, as by another boot, which recovers it or refuses it.  What fails is left in --keep
and named by its number; the same seed makes the same files.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
from pathlib import Path

import fuzz_open

import rowex
from rowex.opening import open_raw

SEGMENT_HEAD = 4096
Files = dict[str, bytes]  # by name, relative to the folder; the data file is "x"
REFUSED_AS = (rowex.RowexError, OSError, ValueError)  # not MemoryError: no length may ask for that much


def logged_files(folder: Path) -> Files:
    """A data file, a checkpoint, and a log behind it, of a process that died."""
    pid = os.fork()
    if pid == 0:
        index = rowex.open(folder / "x", initial_size=131072)
        fuzz_open.fill(index)
        index.checkpoint()
        for number in range(300):
            index.put(b"mail/%d@example.org/%d" % (number % 60, number), b"later %d" % number)
            if number % 7 == 0:
                index.flush()
        with index.batch() as batch:
            for number in range(20):
                batch.put(b"batch %d" % number, bytes(number * 50))
        index.flush()
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("a valid index could not be made")
    found = [entry for entry in folder.rglob("*") if entry.is_file() and not entry.name.endswith("-lock")]
    return {str(entry.relative_to(folder)): entry.read_bytes() for entry in found if entry.name != "spare"}


def frames_of(segment: bytes) -> list[tuple[int, int]]:
    """Offset and size of each frame."""
    at, found = SEGMENT_HEAD, []
    while at + 16 <= len(segment):
        (shape,) = struct.unpack_from("<Q", segment, at + 8)
        if not shape & 0xFFFFFF or at + 16 + (shape >> 24) > len(segment):
            break
        found.append((at, 16 + (shape >> 24)))
        at += found[-1][1]
    return found


def seal_frame(segment: bytearray, at: int, size: int) -> None:
    """Make a frame's checksum right: of uuid, incarnation, place, and what follows it."""
    incarnation, begin = struct.unpack_from("<QQ", segment, 40)
    seed = fuzz_open.crc32c(bytes(segment[16:32]))
    seed = fuzz_open.crc32c(struct.pack("<QQ", incarnation, (begin + at - SEGMENT_HEAD) % (1 << 64)), seed)
    struct.pack_into("<I", segment, at, fuzz_open.crc32c(bytes(segment[at + 4 : at + size]), seed))


def mutate_segment(segment: bytes, dice: random.Random) -> bytearray:
    """One damaged segment."""
    out, frames = bytearray(segment), frames_of(segment)
    for _ in range(dice.choice([1, 1, 2, 5])):
        at, size = dice.choice([*frames, (0, 80), (SEGMENT_HEAD, len(segment) - SEGMENT_HEAD)])
        place = at + dice.randrange(size)
        action = dice.randrange(4)
        if action == 0:
            out[place] ^= 1 << dice.randrange(8)
        elif action == 1:
            word = min(place & ~7, len(out) - 8)
            struct.pack_into("<Q", out, word, dice.choice([0, 1, 2**64 - 1, 2**40, dice.getrandbits(64)]))
        elif action == 2:
            out[place : place + 512] = bytes(min(512, len(out) - place))
        else:
            other, length = dice.choice([*frames, (at, size)])
            piece = out[other : other + length]
            out[place : place + length] = piece
        if size < 1 << 16 and at >= SEGMENT_HEAD and dice.random() < 0.5:
            seal_frame(out, at, min(size, len(out) - at))
    out = out[: len(segment)]
    if dice.random() < 0.05:
        del out[dice.randrange(len(out)) :]
    if dice.random() < 0.3:
        struct.pack_into("<I", out, 12, fuzz_open.crc32c(bytes(out[16:SEGMENT_HEAD])))
    return out


def damage(files: Files, dice: random.Random) -> Files:
    """Some of the files changed, or gone."""
    out = dict(files)
    for name in dice.sample(sorted(out), dice.randrange(1, len(out) + 1)):
        if len(out) > 1 and dice.random() < 0.15:
            del out[name]
        elif "-log/" in name:
            out[name] = bytes(mutate_segment(out[name], dice))
        else:
            out[name] = bytes(fuzz_open.mutate(out[name], dice))
    return out


def write(folder: Path, files: Files, *, claims: bool) -> None:
    """Into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        if name == "x" and claims:
            image = bytearray(data)
            fuzz_open.claim(image, folder / name)
            (folder / name).write_bytes(image)


def use(folder: Path, dice: random.Random) -> int:
    """Salvage it; an exit status."""
    target = folder / "target"
    try:
        told = rowex.salvage(folder / "x", target, orphans=dice.random() < 0.5)
    except REFUSED_AS:
        return fuzz_open.REFUSED if not list(folder.glob("target*")) else fuzz_open.WRONG
    with open_raw(str(target), "r") as index:  # the codecs may be other ones now
        index.check()
        if sum(1 for _ in index.scan()) != told.keys:
            raise AssertionError(f"{told.keys} keys were told")
    return fuzz_open.USED


def recover(folder: Path) -> None:
    """Open the source too, as another boot, which recovers it or refuses it."""
    os.environ["ROWEX_BOOT_ID"] = "the next"
    with contextlib.suppress(*fuzz_open.EXPECTED), open_raw(str(folder / "x"), "w") as index:
        index.check()
        index.put(b"new", b"value", durable=index.info().durability != "process")


def child(folder: Path, seed: str) -> None:
    """Never returns."""
    signal.alarm(fuzz_open.CHILD_S)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    status = fuzz_open.WRONG
    try:
        before = {entry: entry.read_bytes() for entry in folder.rglob("*") if entry.is_file()}
        status = use(folder, random.Random(seed))
        if any(entry.read_bytes() != data for entry, data in before.items()):
            raise AssertionError("the source was changed")
        recover(folder)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(fuzz_open.WRONG)
    os._exit(status)


def main() -> int:
    """Run; 1 at the first that does harm."""
    arguments = fuzz_open.read_arguments(__doc__, "failing-salvage")
    print(f"seed {arguments.seed}, {arguments.count} indexes", flush=True)
    refused = 0
    with tempfile.TemporaryDirectory(prefix="rowex-fuzz-", dir=arguments.folder) as name:
        folder = Path(name) / "work"
        folder.mkdir()
        sources = [{"x": image} for image in fuzz_open.valid_images(folder / "x")]
        fuzz_open.empty(folder)
        sources += [logged_files(folder)] * 2
        for number in range(arguments.first, arguments.first + arguments.count):
            seed = f"{arguments.seed} {number}"
            dice = random.Random(seed)
            write(folder, damage(dice.choice(sources), dice), claims=dice.random() < 0.3)
            pid = os.fork()
            if pid == 0:
                child(folder, seed)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status not in (fuzz_open.USED, fuzz_open.REFUSED):
                with contextlib.suppress(OSError):
                    shutil.copytree(folder, arguments.keep, dirs_exist_ok=True)
                what = "hung" if status == -signal.SIGALRM else f"ended with {status}"
                print(f"index {number} of seed {arguments.seed} {what}; kept in {arguments.keep}")
                return 1
            refused += status == fuzz_open.REFUSED
    print(f"{arguments.count} indexes, {refused} of them refused; no crash, no hang")
    if arguments.count >= 1000 and refused / arguments.count > 0.5:
        print("the indexes are too much damaged: most of them were refused")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
