"""
What all processes of a round of fuzz/linear.py know: the keys, the values, where operations are noted.

Values tell whether they are whole: a number, again and again, in a length that follows from it.
"""

from __future__ import annotations

import mmap
import random
import struct
from collections.abc import Callable
from pathlib import Path

PROCESSES, THREADS, OPERATIONS = 3, 2, 50
CLIENTS = PROCESSES * THREADS
KEYS = 6
SLOT = 16  # words of a record: called, returned, kind, key, value, expected, result, keys, values...
CALLED, RETURNED, KIND, KEY, VALUE, EXPECTED, RESULT, MASK, FIRST = range(9)
READ_MANY, PUT_MANY = 20, 21  # records that stand for several operations
# Words of Round.control: of READY one for each process.  ASKED: a kind of calls + 1; who makes one next stops in it.
# CAUGHT: this, and above it the key of that call.  STOPPED: what the others do now, and above it the key to change.
GO, FAILED, ASKED, CAUGHT, STOPPED, PROGRESS, READY = range(7)
ANYTHING = 255  # ASKED: any kind of call
CHURN, CHANGE, READ = 1, 2, 3
EXTRA = 48

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

# ---- values ------------------------------------------------------------------------------------

STYLE = 48  # the bits of a number from here on say what sizes such values have
MIXED, WORDS, EQUAL, LARGE, FILLING = range(5)
STYLES = (MIXED, LARGE, WORDS, LARGE, EQUAL)  # of one round after the other
SIZES: tuple[Callable[[int], int], ...] = (
    lambda number: 1508 if number % 61 == 0 else 8 + number % 7 * 11,
    lambda _: 8,  # what several threads fetch into one array
    lambda _: 64,  # any cell may become any other key's
    lambda number: (32 if number % 4 else 128) << 10,  # read for so long that it is replaced meanwhile
    lambda _: 31 << 10,  # lies in the cell of a large one, whatever its key
)


def make(number: int) -> bytes:
    """The value of a number."""
    size = SIZES[number >> STYLE](number & (1 << STYLE) - 1)
    return (struct.pack("<Q", number) * (size // 8 + 1))[:size]


def number_of(value: bytes | None) -> int:
    """The number of a value, 0 for none; a value that is not whole is a failure."""
    if value is None:
        return 0
    number = int.from_bytes(value[:8], "little")
    whole = number >> STYLE < len(SIZES) and value == make(number)
    assert whole, f"a torn value: {value[:40]!r}"
    return number


# ---- a round -----------------------------------------------------------------------------------


class Round:
    """
    What all processes of a round know.

    Attributes:
        keys: Those whose operations are recorded.
        stable: Those that are there all the time.
        own: One for each client, which puts and removes it in the path of a stable one.
        extra: Some for each client, in the midst of the others, which make its batches longer.
        known: All keys that somebody may write.
        style: Of the values.
        batches: Are there any?
        kills: Is anybody killed?
        stops: Is anybody stopped for a while?
        churn: How often a client lets cells be freed and used again.
        hot: So many keys get all the point operations.
    """

    def __init__(self, path: Path, seed: str, number: int) -> None:
        self.path, self.seed, self.number = path, seed, number
        self.rng = rng = random.Random(f"{seed} {number}")
        self.keys, self.stable = UNIVERSES[rng.randrange(len(UNIVERSES))]
        self.style = STYLES[number % len(STYLES)]
        self.own = [self._beside(self.stable[0], client) for client in range(CLIENTS)]
        midst = sorted(self.keys)[KEYS // 2 - 1] + b"\x00\xfe"
        self.extra = [[midst + bytes([client, i]) for i in range(EXTRA)] for client in range(CLIENTS)]
        self.known = {*self.keys, *self.stable, *self.own}.union(*self.extra)
        self.batches = rng.random() < 0.8
        self.kills = rng.random() < 0.4
        self.stops = rng.random() < 0.6
        self.churn = rng.choice([0.0, 0.1, 0.4])
        self.hot = rng.choice([1, 2, KEYS])
        self.bytes = mmap.mmap(-1, CLIENTS * OPERATIONS * SLOT * 8)
        self.words = memoryview(self.bytes).cast("Q")
        self.control = memoryview(mmap.mmap(-1, 8 * (READY + PROCESSES))).cast("Q")

    def _beside(self, stable: bytes, client: int) -> bytes:
        return stable[: self.rng.randrange(len(stable) + 1)] + b"\xfe%c" % client

    @property
    def fixed(self) -> bytes:
        """The value of the stable keys."""
        return make((WORDS if self.style == WORDS else EQUAL) << STYLE | 7)

    def at(self, client: int, i: int) -> int:
        """Where a record begins."""
        return (client * OPERATIONS + i) * SLOT
