#!/usr/bin/env python3
"""
Counting: nobody is told that something is durable before it is.  Failure models: `power`, `ioerror`.

    count_durable.py [--count N] [--seed N] [--first ROUND] [--duration SECONDS]

Threads of several processes write a rising counter to their key and wait until it is durable; at that
instant a shadow of the disk must hold at least that counter.  The shadow is made of the calls that a
build with ROWEX_FAULTS records: it gets what was written to the log when the sync after it has
succeeded, and nothing else (the files themselves would be read from the page cache, and prove
nothing).  One of the processes has syncs of the log that fail, now and then; what they should have
written is lost to the shadow.  Its frames are read as recovery reads them; now and then the shadow is
opened as by another boot, too.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import shutil
import struct
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from traced_disk import FAILED, OWN, PAGE, SYNCED, ZEROS, Disk, File, Folder, append, forked, records, succeed

import rowex
import rowex._native

COUNTED = OWN
PROCESSES, THREADS, ROUND = 4, 8, 100_000
SAMPLES = 3  # of a round
CHILD_S = 600
FAILS = 0.01  # of the changes of a thread, how often a sync fails soon
EIO = 5
SYNC_US = 200  # of a disk that is not memory: a word that is given too early is given then
SEGMENT_HEAD = 4096
FRAME, SEGMENT = struct.Struct("<IIQ"), struct.Struct("<8sII16sQQQQQ")

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crc32c.argtypes = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_size_t]
_core.rx_crc32c.restype = ctypes.c_uint32
_core.rx_fault_arm.argtypes = [ctypes.c_char_p]
_core.rx_fault_arm.restype = None


def crc32c(crc: int, data: bytes) -> int:
    """Gone on with *data*."""
    return int(_core.rx_crc32c(crc, data, len(data)))


# ---- the run --------------------------------------------------------------------------------


def write(path: Path, trace: int, name: int, count: int, dice: random.Random) -> None:
    """One process: threads that count."""
    index = rowex.open(path, flush_interval=60)
    failed: list[str] = []

    def run(number: int) -> None:
        try:
            key = b"%d" % number
            for counter in range(1, count + 1):
                if number == 0 and dice.random() < FAILS:  # once; a second one would be for good
                    _core.rx_fault_arm(b"fdatasync:%d:%d" % (dice.randrange(3, 30), EIO))
                index.wait_durable(index.put(key, b"%d" % counter))
                append(trace, COUNTED, number, counter)
        except BaseException:
            failed.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(name * THREADS + i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index.close()
    if failed:
        raise RuntimeError(failed[0])


# ---- the shadow -------------------------------------------------------------------------------


def durable_bytes(file: File, at: int, size: int) -> bytes:
    """Of what was synced."""
    found = b""
    while size > 0 and at < file.size:
        number, start = divmod(at, PAGE)
        part = file.pages.get(number, ZEROS)[start : start + size]
        found, at, size = found + part, at + len(part), size - len(part)
    return found


class Shadow:
    """The counters that the durable part of the log holds."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.segments: dict[int, tuple[File, int, int, bytes]] = {}  # by id: bytes, incarnation, uuid
        self.bytes = 0
        self.counters: dict[int, int] = {}

    def look(self) -> None:
        """Something was synced: read on."""
        for name, thing in self.disk.root.names.items():
            if isinstance(thing, Folder) and name.endswith("-log"):
                for file in thing.names.values():
                    self.know(file)
        while self.frame():
            pass

    def know(self, file: File | Folder) -> None:
        """A segment, when its head is durable."""
        if not isinstance(file, File) or any(file is known[0] for known in self.segments.values()):
            return
        head = durable_bytes(file, 0, SEGMENT_HEAD)
        if len(head) < SEGMENT_HEAD or not head.startswith(b"ROWEXSEG"):
            return
        _, _, crc, uuid, identity, incarnation, begins, _, _ = SEGMENT.unpack_from(head)
        if crc == crc32c(0, head[16:]):
            self.segments[identity] = file, begins, incarnation, uuid
            self.bytes = min(self.bytes, begins)  # what was there before is void: it is written again

    def frame(self) -> bool:
        """The next one, if it is whole."""
        at = [identity for identity, segment in self.segments.items() if segment[1] <= self.bytes]
        if not at:
            return False
        file, begins, incarnation, uuid = self.segments[max(at)]
        where = SEGMENT_HEAD + self.bytes - begins
        head = durable_bytes(file, where, FRAME.size)
        if len(head) < FRAME.size:
            return False
        crc, _, shape = FRAME.unpack(head)
        count, size = shape & 0xFFFFFF, shape >> 24
        payload = durable_bytes(file, where + FRAME.size, size) if count else b""
        seed = crc32c(crc32c(0, uuid), struct.pack("<QQ", incarnation, self.bytes))
        if not count or len(payload) != size or crc != crc32c(crc32c(seed, head[4:]), payload):
            return False
        position = 0
        for _ in range(count):
            (entry,) = struct.unpack_from("<Q", payload, position)
            key_size, value_size = entry >> 3 & 0x1FFFFF, entry >> 24
            position += 8
            if key_size:
                key = int(payload[position : position + key_size])
                self.counters[key] = int(payload[position + key_size : position + key_size + value_size])
            position += key_size + value_size
        self.bytes += FRAME.size + size
        return True


def reopen(path: Path, told: dict[int, int], boot: str) -> None:
    """As another boot: nothing that was told is missing."""
    os.environ["ROWEX_BOOT_ID"] = boot
    with rowex.open(path) as index:
        index.check()
        for key, counter in told.items():
            found = int(index.get(b"%d" % key) or b"0")
            if found < counter:
                raise AssertionError(f"key {key}: {counter} was told to be durable, {found} is left")


def examine(work: Path, trace: Path, root: int, dice: random.Random, count: int) -> tuple[int, int]:
    """Every word that was given; how many, and how many syncs had failed."""
    disk = Disk(root)
    shadow = Shadow(disk)
    told: dict[int, int] = {}
    number = failed = 0
    samples = {dice.randrange(1, count + 1) for _ in range(SAMPLES)}
    for record in records(trace):
        disk.take(record)
        kind, key, counter, _, _ = record
        if kind == SYNCED:
            shadow.look()
        failed += kind == FAILED
        if kind != COUNTED:
            continue
        number += 1
        told[key] = counter
        if shadow.counters.get(key, 0) < counter:
            held = shadow.counters.get(key, 0)
            raise SystemExit(
                f"a miss, number {number}: key {key}, {counter} was told to be durable, the disk held {held}"
            )
        if number in samples:
            shutil.rmtree(work / "image", ignore_errors=True)
            disk.image(work / "image", dice, odds=0.0)
            succeed([forked(CHILD_S, lambda boot=f"boot {number}": reopen(work / "image" / "index.rowex", told, boot))])
    return number, failed


def count_round(work: Path, dice: random.Random, count: int) -> tuple[int, int]:
    """Write, then examine; how many words were given, and how many syncs had failed."""
    each = -(-count // (PROCESSES * THREADS))
    folder, trace = work / "run", work / "run.trace"
    shutil.rmtree(folder, ignore_errors=True)
    trace.unlink(missing_ok=True)
    folder.mkdir()
    os.environ.update(ROWEX_TRACE=str(trace), ROWEX_SYNC_US=str(SYNC_US), ROWEX_BOOT_ID="the first boot")
    appending = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    writers = [
        forked(CHILD_S, lambda name=name: write(folder / "index.rowex", appending, name, each, dice))
        for name in range(PROCESSES)
    ]
    succeed(writers)
    os.close(appending)
    del os.environ["ROWEX_TRACE"]
    found, failed = examine(work, trace, folder.stat().st_ino, dice, each * PROCESSES * THREADS)
    if found != each * PROCESSES * THREADS:
        raise SystemExit(f"{found} words were recorded")
    return found, failed


def main() -> int:
    """Run; another status where somebody was told too early."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000_000, help="words given (10000000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to go on with a run")
    parser.add_argument("--duration", type=float, default=float("inf"), help="seconds, at most")
    options = parser.parse_args()
    print(f"count_durable: seed {options.seed}", flush=True)
    number, done, failed, started = options.first, 0, 0, time.monotonic()
    shm = Path("/dev/shm")
    work = Path(tempfile.mkdtemp(prefix="rowex-count-", dir=shm if os.access(shm, os.W_OK) else None))
    try:
        while done < options.count and time.monotonic() - started < options.duration:
            dice = random.Random(f"{options.seed} {number}")
            words, failures = count_round(work, dice, min(ROUND, options.count - done))
            number, done, failed = number + 1, done + words, failed + failures
            took = time.monotonic() - started
            print(f"{done} words, {failed} syncs had failed, {took:.0f} s, no miss", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if done >= ROUND and not failed:
        print("no sync has failed, so nothing was tried there")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
