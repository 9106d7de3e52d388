#!/usr/bin/env python3
"""
Opens damaged files: whatever the bytes, an answer or an exception, never a crash, a hang or a loop.

    fuzz_open.py [--seed N] [--count N] [--folder DIR] [--keep FILE]

Takes a small valid index, closed cleanly or left in use by a process that died, changes some of it
(bits, words, references to elsewhere, pieces moved, the end cut off), seals the superblock's checksums
anew half of the time so that the changes get past them, and uses the file in a child process: open,
get, scan both ways, check, write.  A failing image is written to --keep and named by its number; the
same seed makes the same images.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
from pathlib import Path

import rowex
from rowex.opening import open_raw

HEAP, ROOT, IN_USE = 65536, 8192, 2
CHILD_S = 30
USED, REFUSED, WRONG = 0, 3, 5  # exit statuses of the child
EXPECTED = (rowex.RowexError, OSError, ValueError, KeyError, MemoryError)


def crc32c(data: bytes, seed: int = 0) -> int:
    """CRC-32C (Castagnoli), bit by bit from a table; as the core seals its superblock."""
    crc = ~seed & 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return ~crc & 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ 0x82F63B78 if number & 1 else number >> 1
        table.append(number)
    return table


TABLE = _table()


def claim(image: bytearray, path: Path) -> None:
    """An image in use says in which file it is (boot, device, inode): in the one at *path*."""
    if len(image) < HEAP or struct.unpack_from("<I", image, 256)[0] != IN_USE:
        return
    status = path.stat()
    struct.pack_into("<QQ", image, 288, status.st_dev, status.st_ino)
    seal(image)


def seal(image: bytearray) -> None:
    """Make the superblock's two checksums right (rowex/native/super.c)."""
    if len(image) < HEAP:
        return
    struct.pack_into("<I", image, 252, crc32c(image[:252]))
    state = struct.unpack_from("<I", image, 256)[0]
    covered = image[264:304] if state == IN_USE else image[304 : 512 + 16 * 208]
    struct.pack_into("<I", image, 260, crc32c(bytes(covered), state))


def fill(index: rowex.Index) -> None:
    """All node kinds, long prefixes, big values and free cells."""
    dice = random.Random(1)
    for number in range(400):
        index[dice.randbytes(dice.choice([1, 2, 3, 8]))] = dice.randbytes(dice.choice([0, 5, 40, 300]))
        index[b"mail/%d@example.org/%d" % (number % 60, number)] = b"value %d" % number
    for length in range(0, 400, 37):
        index[b"p" * length] = b"x" * 3000
    for key in [key for key, _ in index.scan()][::5]:
        del index[key]


def valid_images(path: Path) -> list[bytes]:
    """A file that was closed, and one whose user died."""
    images = []
    for dies in (False, True):
        pid = os.fork()
        if pid == 0:
            index = rowex.open(path, "n", durability="process", initial_size=131072)
            fill(index)
            if not dies:
                index.close()
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("a valid index could not be made")
        images.append(path.read_bytes())
    return images


def mutate(image: bytes, dice: random.Random) -> bytearray:
    """One damaged image."""
    out = bytearray(image)
    used = len(image.rstrip(b"\0")) + 64
    for _ in range(dice.choice([1, 1, 2, 3, 10])):
        low, high = dice.choice([(0, 512), (512, 512 + 16 * 208), (ROOT, ROOT + 2100), (HEAP, used), (HEAP, used)])
        at = dice.randrange(low, max(low + 1, min(high, len(out) - 8)))
        word = at & ~7
        action = dice.randrange(6)
        if action == 0:
            out[at] ^= 1 << dice.randrange(8)
        elif action == 1:
            out[at] = dice.choice([0, 1, 127, 255, dice.randrange(256)])
        elif action == 2:
            struct.pack_into("<Q", out, word, dice.randrange(HEAP, used) & ~7 | dice.randrange(8))
        elif action == 3:
            struct.pack_into("<Q", out, word, dice.choice([0, 1, 2**64 - 1, 2**63, 2**48 - 8, dice.getrandbits(64)]))
        elif action == 4:
            size, source = dice.randrange(1, 200), dice.randrange(0, used)
            piece = out[source : source + size]
            out[at : at + len(piece)] = piece
        else:
            a, b = dice.randrange(HEAP, used) & ~7, word
            out[a : a + 8], out[b : b + 8] = out[b : b + 8], out[a : a + 8]
    out = out[: len(image)]
    if dice.random() < 0.05:
        del out[dice.randrange(len(out)) :]
    if dice.random() < 0.5:
        seal(out)
    return out


def use(path: Path, dice: random.Random) -> None:
    """Everything that a user might do with it; each may fail with an expected exception."""
    try:
        index = open_raw(str(path), dice.choice("rww"))  # the codecs may be other ones now
    except EXPECTED:
        os._exit(REFUSED)
    calls = [
        lambda: [index.get(dice.randbytes(n)) for n in (0, 1, 2, 3, 8)],
        lambda: [index.get(b"mail/%d@example.org/%d" % (n % 60, n)) for n in range(0, 400, 7)],
        lambda: sum(1 for _ in index.scan()),
        lambda: sum(1 for _ in index.scan(reverse=True)),
        lambda: (index.floor(b"mail/3"), index.ceiling(b"p" * 100), index.first(), index.last()),
        lambda: index.stats(),
        lambda: index.check(),
        lambda: index.put_many([(b"mail/%d@example.org/%d" % (n % 60, n), b"new") for n in range(100)], timeout=5),
        lambda: index.remove_many([b"mail/%d@example.org/%d" % (n % 60, n) for n in range(0, 400, 3)]),
        lambda: [index.discard(b"p" * n) for n in range(400)],
        lambda: index.compact(timeout=5),
        lambda: sum(1 for _ in index.scan()),
    ]
    for call in calls:
        with contextlib.suppress(*EXPECTED):
            call()
    index.close()


def child(path: Path, seed: str) -> None:
    """Never returns."""
    signal.alarm(CHILD_S)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        with contextlib.suppress(*EXPECTED):
            use(path, random.Random(seed))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(WRONG)
    os._exit(USED)


def empty(folder: Path) -> None:
    """Without what the one before left: of a file whose level was changed, a log as well."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def try_image(path: Path, images: list[bytes], seed: str, keep: Path) -> int:
    """Make the image of *seed* and use it; the child's status, negative when a signal ended it."""
    dice = random.Random(seed)
    damaged = mutate(dice.choice(images), dice)
    empty(path.parent)
    path.touch()
    if dice.random() < 0.9:
        claim(damaged, path)
    path.write_bytes(damaged)
    pid = os.fork()
    if pid == 0:
        child(path, seed)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status not in (USED, REFUSED):
        keep.write_bytes(damaged)
    return status


def read_arguments(text: str | None, keep: str) -> argparse.Namespace:
    """Of a program that damages files."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first one, to go on with a run")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None)
    parser.add_argument("--keep", type=Path, default=Path(keep))
    return parser.parse_args()


def main() -> int:
    """Run; 1 at the first image that does harm."""
    arguments = read_arguments(__doc__, "failing.rowex")
    print(f"seed {arguments.seed}, {arguments.count} images", flush=True)
    refused = 0
    with tempfile.TemporaryDirectory(prefix="rowex-fuzz-", dir=arguments.folder) as name:
        path = Path(name) / "index.rowex"
        images = valid_images(path)
        for number in range(arguments.first, arguments.first + arguments.count):
            status = try_image(path, images, f"{arguments.seed} {number}", arguments.keep)
            if status not in (USED, REFUSED):
                what = "hung" if status == -signal.SIGALRM else f"ended with {status}"
                print(f"image {number} of seed {arguments.seed} {what}; kept as {arguments.keep}")
                return 1
            refused += status == REFUSED
    print(f"{arguments.count} images, {refused} of them refused; no crash, no hang")
    if arguments.count >= 1000 and not 0.05 < refused / arguments.count < 0.95:
        print("the images are too much alike: nearly all of them were refused, or nearly none")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
