"""
One thread of fuzz/linear.py: what it does to the index, and how it is noted.
"""

from __future__ import annotations

import mmap
import random
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import rowex
from linear_history import BATCH, CAS, GET, INSERT, POP, PUT, REMOVE

PROCESSES, THREADS, OPERATIONS = 3, 2, 50
KEYS = 6
SLOT = 16  # words of a record: called, returned, kind, key, value, expected, result, keys, values...
CALLED, RETURNED, KIND, KEY, VALUE, EXPECTED, RESULT, MASK, FIRST = range(9)
READ_MANY, PUT_MANY = 20, 21  # records that stand for several operations

LONG = b"p" * 300
UNIVERSES: list[tuple[list[bytes], list[bytes]]] = [  # keys, and stable ones beside them
    ([b"", b"a", b"ab", b"abc", b"abcd", b"abd"], [b"abcde", b"b"]),
    ([b"n\x00", b"n\x01", b"n\x02", b"n\x03", b"n\x04", b"n\x05"], [b"n\x06" + b"deep" * 3]),
    ([b"n%c" % i for i in range(6)], [b"n%c" % i for i in range(100, 112)]),
    ([b"n%c" % i for i in range(6)], [b"n%c" % i for i in range(100, 144)]),
    ([b"path/to/a", b"path/to/b", b"path/x", b"pa", b"path/to/c/d", b"p"], [b"path/to/the/stable/one"]),
    ([b"\x00", b"\x00\x00", b"\x00\x01", b"k\x00", b"k\x00\x00", b"k"], [b"k\x00\x00\x00", b"\x00\x00\x00"]),
    ([LONG + b"1", LONG + b"2", LONG[:150] + b"x", LONG[:40], LONG[:290] + b"y", b"q"], [LONG + b"12"]),
]


def make(number: int) -> bytes:
    """The value of a number, of a size that follows from it."""
    size = 1500 if number % 61 == 0 else number % 7 * 11
    return struct.pack("<Q", number) + bytes([number & 255]) * size


def number_of(value: bytes | None) -> int:
    """The number of a value, 0 for none; a value that is not whole is a failure."""
    if value is None:
        return 0
    number = int(struct.unpack_from("<Q", value)[0])
    assert value == make(number), f"a torn value: {value[:40]!r}"
    return number


class Round:
    """What all processes of a round know."""

    def __init__(self, path: Path, seed: str, number: int) -> None:
        self.path, self.seed, self.number = path, seed, number
        rng = random.Random(f"{seed} {number}")
        self.keys, self.stable = UNIVERSES[rng.randrange(len(UNIVERSES))]
        self.batches = rng.random() < 0.7
        self.kills = rng.random() < 0.4
        self.hot = rng.choice([1, 2, KEYS])  # so many keys get all the point operations
        self.rng = rng
        clients = PROCESSES * THREADS
        self.bytes = mmap.mmap(-1, clients * OPERATIONS * SLOT * 8)
        self.words = memoryview(self.bytes).cast("Q")
        # go, unused, failed, and who is ready
        self.control = memoryview(mmap.mmap(-1, 8 * (3 + PROCESSES))).cast("Q")

    def at(self, client: int, i: int) -> int:
        """Where a record begins."""
        return (client * OPERATIONS + i) * SLOT


# ---- a client --------------------------------------------------------------------------------


class Client:
    """One thread of one process."""

    def __init__(self, whole: Round, index: Any, client: int) -> None:
        self.round, self.index, self.client = whole, index, client
        self.rng = random.Random(f"{whole.seed} {whole.number} {client}")
        self.value = (whole.number << 24 | client << 12) + 1

    def run(self) -> None:
        """All operations, or the failure told."""
        try:
            for i in range(OPERATIONS):
                if self.rng.random() < 0.01:
                    self.index.compact()
                self.one(self.round.at(self.client, i))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            self.round.control[2] = 1

    def fresh(self) -> int:
        """A number that nobody else uses."""
        self.value += 1
        return self.value

    def one(self, at: int) -> None:
        """One operation, noted before and after."""
        dice = self.rng.random()
        key = self.rng.randrange(self.round.hot)
        if self.round.batches and self.rng.random() < 0.15:
            result = self.batch(at)
        elif dice < 0.34:
            self.note(at, GET, key)
            result = number_of(self.index.get(self.round.keys[key]))
        elif dice < 0.40:
            value = self.fresh()
            self.note(at, PUT, key, value)
            self.index.put(self.round.keys[key], make(value))
            result = 0
        elif dice < 0.46:
            result = self.insert(at, key)
        elif dice < 0.52:
            self.note(at, REMOVE, key)
            result = int(self.index.discard(self.round.keys[key]))
        elif dice < 0.74:
            result = self.compare(at, key)
        elif dice < 0.78:
            self.note(at, POP, key)
            found = self.index.pop(self.round.keys[key], b"")
            result = number_of(found or None)
        elif dice < 0.86:
            result = self.put_many(at)
        elif dice < 0.93:
            result = self.get_many(at)
        else:
            result = self.scan(at)
        self.round.words[at + RESULT] = result
        self.round.words[at + RETURNED] = time.monotonic_ns()

    def note(self, at: int, kind: int, key: int = 0, value: int = 0, expected: int = 0) -> None:
        """It is about to be called."""
        words = self.round.words
        words[at + KIND], words[at + KEY], words[at + VALUE], words[at + EXPECTED] = kind, key, value, expected
        words[at + CALLED] = time.monotonic_ns()

    def insert(self, at: int, key: int) -> int:
        value = self.fresh()
        self.note(at, INSERT, key, value)
        try:
            self.index.insert(self.round.keys[key], make(value))
        except rowex.DuplicateKeyError:
            return 0
        return 1

    def compare(self, at: int, key: int) -> int:
        """Expects what it has just seen, so that it often succeeds; sometimes removes."""
        seen = number_of(self.index.get(self.round.keys[key]))
        value = 0 if seen and self.rng.random() < 0.2 else self.fresh()
        self.note(at, CAS, key, value, seen)
        old, new = make(seen) if seen else None, make(value) if value else None
        return int(self.index.compare_and_set(self.round.keys[key], old, new))

    def choose(self, at: int) -> list[tuple[int, int]]:
        """Some keys and what they shall be, noted."""
        chosen = self.rng.sample(range(KEYS), self.rng.randrange(2, KEYS))
        changes = [(key, 0 if self.rng.random() < 0.3 else self.fresh()) for key in chosen]
        mask = 0
        for key, value in changes:
            mask |= 1 << key
            self.round.words[at + FIRST + key] = value
        self.round.words[at + MASK] = mask
        return changes

    def batch(self, at: int) -> int:
        changes = self.choose(at)
        self.note(at, BATCH)
        with self.index.batch() as batch:
            for key, value in changes:
                if value:
                    batch.put(self.round.keys[key], make(value))
                else:
                    batch.remove(self.round.keys[key])
        return 0

    def put_many(self, at: int) -> int:
        changes = [(key, value or self.fresh()) for key, value in self.choose(at)]
        for key, value in changes:
            self.round.words[at + FIRST + key] = value
        self.note(at, PUT_MANY)
        self.index.put_many([(self.round.keys[key], make(value)) for key, value in changes])
        return 0

    def read(self, at: int, found: dict[int, int]) -> int:
        """What was read, as a mask and values."""
        mask = 0
        for key, value in found.items():
            mask |= 1 << key
            self.round.words[at + FIRST + key] = value
        self.round.words[at + MASK] = mask
        return 0

    def get_many(self, at: int) -> int:
        self.note(at, READ_MANY)
        found = self.index.get_many([*self.round.keys, *self.round.stable])
        assert None not in found[KEYS:], "get_many missed a stable key"
        return self.read(at, dict(enumerate(map(number_of, found[:KEYS]))))

    def scan(self, at: int) -> int:
        """Order, bounds and stable keys are checked here; the rest is told as reads."""
        every = [None, *self.round.keys, *self.round.stable]
        start, stop, reverse = self.rng.choice(every), self.rng.choice(every), self.rng.random() < 0.4
        if self.rng.random() < 0.3:
            stop = start if self.rng.random() < 0.3 else None
        self.note(at, READ_MANY)
        got = list(self.index.scan(start, stop, reverse=reverse))
        names = [key for key, _ in got]
        assert names == sorted(set(names), reverse=reverse), f"a scan out of order: {names}"

        def within(key: bytes) -> bool:
            return (start is None or key >= start) and (stop is None or key < stop)

        assert all(map(within, names)), f"scan({start!r}, {stop!r}) yields {names}"
        missed = [key for key in self.round.stable if within(key) and key not in names]
        assert not missed, f"scan({start!r}, {stop!r}, reverse={reverse}) missed the stable {missed}: {names}"
        found = {key: number_of(value) for key, value in got}
        return self.read(at, {i: found.get(key, 0) for i, key in enumerate(self.round.keys) if within(key)})
