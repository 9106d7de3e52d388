"""
One thread of fuzz/linear.py: what it does to the index, and how it is noted.
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from typing import Any

from linear_alarm import Alarm
from linear_round import (
    ANYTHING,
    ASKED,
    CALLED,
    CAUGHT,
    CHANGE,
    CHURN,
    EQUAL,
    EXPECTED,
    FAILED,
    FILLING,
    FIRST,
    KEY,
    KEYS,
    KIND,
    LARGE,
    MASK,
    OPERATIONS,
    PROGRESS,
    PUT_MANY,
    READ,
    READ_MANY,
    RESULT,
    RETURNED,
    STOPPED,
    STYLE,
    VALUE,
    WORDS,
    Round,
    make,
    number_of,
)

import rowex
from linear_history import BATCH, CAS, GET, INSERT, POP, PUT, REMOVE
from rowex.columns import Packed

# When calls that take long are at what matters: copying, between looking and locking, installing a batch.
MIDST_US = {READ_MANY: (1, 200), CAS: (1, 80), BATCH: (30, 230)}
FREED = 130  # changes: more than wait together for the readers, so the cells of the first come back


class Client:
    """One thread of one process."""

    def __init__(self, whole: Round, index: Any, client: int) -> None:
        self.round, self.index, self.client = whole, index, client
        self.rng = random.Random(f"{whole.seed} {whole.number} {client}")
        self.alarm = Alarm()
        self.value = (whole.number << 24 | client << 12) + 1

    def run(self) -> None:
        """All operations, or the failure told."""
        try:
            for i in range(OPERATIONS):
                if self.rng.random() < 0.01:
                    self.index.compact()
                self.one(self.round.at(self.client, i))
                stopped = self.round.control[STOPPED] & 255
                if stopped == CHURN or self.rng.random() < self.round.churn:
                    self.churn()
                if stopped:
                    self.round.control[PROGRESS] += 1  # one may be lost: it is no count
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            self.round.control[FAILED] = 1

    def fresh(self, style: int | None = None) -> int:
        """A number that nobody else uses."""
        self.value += 1
        return self.value | (self.round.style if style is None else style) << STYLE

    def one(self, at: int) -> None:
        """One operation, noted before and after."""
        dice = self.rng.random()
        key = self.rng.randrange(self.round.hot)
        stopped, wanted = self.round.control[STOPPED] & 255, self.round.control[STOPPED] >> 8
        asked = self.round.control[ASKED] if self.rng.random() < 0.7 else 0
        if stopped == CHANGE:
            result = self.put(at, wanted)
        elif stopped == CHURN and self.rng.random() < 0.5:
            result = self.put(at, self.rng.randrange(KEYS))
        elif asked == CAS + 1:
            result = self.compare(at, key)
        elif asked == BATCH + 1:
            result = self.batch(at)
        elif asked == READ_MANY + 1 or stopped == READ or (self.round.style == LARGE and self.rng.random() < 0.4):
            result = self.get_many(at)
        elif self.round.batches and self.rng.random() < 0.15:
            result = self.batch(at)
        elif dice < 0.32:
            self.note(at, GET, key)
            result = number_of(self.index.get(self.round.keys[key]))
        elif dice < 0.38:
            result = self.put(at, key)
        elif dice < 0.44:
            result = self.insert(at, key)
        elif dice < 0.50:
            self.note(at, REMOVE, key)
            result = int(self.index.discard(self.round.keys[key]))
        elif dice < 0.72:
            result = self.compare(at, key)
        elif dice < 0.76:
            self.note(at, POP, key)
            found = self.index.pop(self.round.keys[key], b"")
            result = number_of(found or None)
        elif dice < 0.83:
            result = self.put_many(at)
        elif dice < 0.90:
            result = self.get_many(at)
        elif dice < 0.93:
            result = self.edge(at)
        else:
            result = self.scan(at)
        self.round.words[at + RESULT] = result
        self.round.words[at + RETURNED] = time.monotonic_ns()

    def note(self, at: int, kind: int, key: int = 0, value: int = 0, expected: int = 0) -> None:
        """It is about to be called."""
        words, control = self.round.words, self.round.control
        words[at + KIND], words[at + KEY], words[at + VALUE], words[at + EXPECTED] = kind, key, value, expected
        words[at + CALLED] = time.monotonic_ns()
        if control[ASKED] in (kind + 1, ANYTHING):
            control[ASKED], control[CAUGHT] = 0, kind + 1 | key << 8
            self.alarm.set(self.rng.randrange(*MIDST_US.get(kind, (1, 20))))

    # ---- beside the history --------------------------------------------------------------------

    def churn(self) -> None:
        """
        Frees cells, so that they are used again, and splits and merges a path above a stable key.

        The key is ours alone, so we know what is there.  A stable one is looked at on the way.
        """
        own, large = self.round.own[self.client], self.round.style == LARGE
        values = [make(self.fresh(EQUAL))] * FREED + [make(self.fresh(FILLING))] * 3 * large
        self.index.put_many([(own, value) for value in values])
        assert self.index.get(own) == values[-1], f"{own!r} is not as it was put"
        stable = self.rng.choice(self.round.stable)
        assert self.index.get(stable) == self.round.fixed, f"the stable {stable!r} is missed"
        if self.rng.random() < 0.7:
            assert self.index.discard(own), f"{own!r} was put, and is not there"
            assert not self.index.exists(own), f"{own!r} was removed, and is there"

    # ---- changes -------------------------------------------------------------------------------

    def put(self, at: int, key: int) -> int:
        value = self.fresh()
        self.note(at, PUT, key, value)
        self.index.put(self.round.keys[key], make(value))
        return 0

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
        old, new = make(seen) if seen else None, make(value) if value else None
        self.note(at, CAS, key, value, seen)
        return int(self.index.compare_and_set(self.round.keys[key], old, new))

    def choose(self, at: int, *, removing: bool) -> list[tuple[int, int]]:
        """Some keys and what they shall be, noted."""
        chosen = self.rng.sample(range(KEYS), self.rng.randrange(2, KEYS))
        changes = [(key, 0 if removing and self.rng.random() < 0.3 else self.fresh()) for key in chosen]
        mask = 0
        for key, value in changes:
            mask |= 1 << key
            self.round.words[at + FIRST + key] = value
        self.round.words[at + MASK] = mask
        return changes

    def batch(self, at: int) -> int:
        """Most are made longer by keys of our own, so that they are met half done."""
        changes = {
            self.round.keys[key]: make(value) if value else None for key, value in self.choose(at, removing=True)
        }
        if self.rng.random() < 0.7:
            value = None if self.rng.random() < 0.5 else make(self.fresh(EQUAL))
            changes |= dict.fromkeys(self.round.extra[self.client], value)
        with self.index.batch() as batch:
            for name, value in changes.items():
                if value is None:
                    batch.remove(name)
                else:
                    batch.put(name, value)
            self.note(at, BATCH)
        return 0

    def put_many(self, at: int) -> int:
        """By all the ways of many keys; each is a change of its own."""
        removing = self.rng.random() < 0.2
        changes = self.choose(at, removing=False)
        if removing:
            for key, _ in changes:
                self.round.words[at + FIRST + key] = 0
        self.note(at, PUT_MANY)
        names, values = [self.round.keys[key] for key, _ in changes], [make(value) for _, value in changes]
        if removing:
            self.index.remove_many(names)
        else:
            way = self.rng.randrange(4)
            if way == 0:
                self.index.put_many(zip(names, values, strict=True))
            elif way == 1:
                self.index.put_many(Packed.of(names), Packed.of(values))
            elif way == 2:
                self.index.load(zip(names, values, strict=True))
            else:
                self.index.load(names, values)
        return 0

    # ---- reads ---------------------------------------------------------------------------------

    def read(self, at: int, found: dict[int, int]) -> int:
        """What was read, as a mask and values."""
        mask = 0
        for key, value in found.items():
            mask |= 1 << key
            self.round.words[at + FIRST + key] = value
        self.round.words[at + MASK] = mask
        return 0

    def get_many(self, at: int) -> int:
        """
        By all the ways of many keys, among them several threads that fill one array.

        Each key several times, so that the leaves are held for long; the last of each counts.
        """
        times = 2 if self.round.style == LARGE else 1
        wanted = [*self.round.keys * times, *self.round.stable]
        way = self.rng.randrange(3)
        self.note(at, READ_MANY)
        if way == 0 and self.round.style == WORDS:
            values, there = self.index.get_many(wanted, dtype="u8")
            got = [value.tobytes() if is_there else None for value, is_there in zip(values, there, strict=True)]
        elif way == 1:
            packed, there = self.index.get_many(wanted, dtype=Packed)
            got = [value if is_there else None for value, is_there in zip(packed, there, strict=True)]
        else:
            got = self.index.get_many(wanted)
        last = KEYS * times
        assert all(value == self.round.fixed for value in got[last:]), f"get_many missed a stable key: {got[last:]}"
        number_of(got[0])
        return self.read(at, dict(enumerate(map(number_of, got[last - KEYS : last]))))

    def edge(self, at: int) -> int:
        """The next key in either direction: what lies between is absent at some instant."""
        bound, down = self.rng.choice([*self.round.keys, *self.round.stable]), self.rng.random() < 0.5
        if self.rng.random() < 0.2:
            bound = None
        self.note(at, READ_MANY)
        if bound is None:
            found = self.index.last() if down else self.index.first()
        else:
            found = self.index.floor(bound) if down else self.index.ceiling(bound)
        assert found is not None or bound is not None, "a stable key is missed at an edge"
        name, value = found or (None, None)
        assert name is None or name in self.round.known, f"nobody wrote {name!r}"

        def passed(key: bytes) -> bool:
            behind = bound is None or (key <= bound if down else key >= bound)
            return behind and (name is None or (key > name if down else key < name))

        missed = [key for key in self.round.stable if passed(key)]
        assert not missed, f"an edge at {bound!r} missed the stable {missed}: {name!r}"
        reads = {i: 0 for i, key in enumerate(self.round.keys) if passed(key)}
        number = number_of(value)
        if name in self.round.keys:
            reads[self.round.keys.index(name)] = number
        return self.read(at, reads)

    def bounds(self) -> tuple[bytes | None, bytes | None]:
        """Of a scan: keys, what keys begin with, twice the same, and none."""
        names = [*self.round.keys, *self.round.stable]
        beginnings = [name[: self.rng.randrange(len(name) + 1)] for name in names]
        start, stop = self.rng.choice([None, *names]), self.rng.choice([None, *names, *beginnings])
        if self.rng.random() < 0.3:
            stop = start if self.rng.random() < 0.3 else None
        return start, stop

    def scan(self, at: int) -> int:
        """
        Order, bounds and stable keys are checked here; the rest is told as reads.

        Some are held open: the scan goes on where it was while its own thread changes the tree.
        """
        (start, stop), reverse = self.bounds(), self.rng.random() < 0.4
        prefix = stop if start is None and stop and self.rng.random() < 0.5 else None
        limit = self.rng.randrange(1, 8) if self.rng.random() < 0.2 else None
        own, held = self.round.own[self.client], self.rng.random() < 0.3
        if held:
            self.index.put(own, make(self.fresh(EQUAL)))
        self.note(at, READ_MANY)
        got = []
        if prefix is None:
            items = self.index.scan(start, stop, reverse=reverse, limit=limit)
        else:
            items = self.index.scan(prefix=prefix, reverse=reverse, limit=limit)
        for item in items:
            got.append(item)
            if held and len(got) % 4 == 1:
                self.churn_own(own)
        names = [key for key, _ in got]
        what = f"scan({start!r}, {stop!r}, prefix={prefix!r}, reverse={reverse}, limit={limit})"
        assert names == sorted(set(names), reverse=reverse), f"{what} is out of order: {names}"

        def within(key: bytes) -> bool:
            if prefix is not None:
                return key.startswith(prefix)
            return (start is None or key >= start) and (stop is None or key < stop)

        def reached(key: bytes) -> bool:
            return within(key) and (len(got) != limit or (key >= names[-1] if reverse else key <= names[-1]))

        assert all(map(within, names)), f"{what} yields {names}"
        assert self.round.known.issuperset(names), f"{what} yields what nobody wrote: {names}"
        there = [*self.round.stable, own] if held else self.round.stable
        missed = [key for key in there if reached(key) and key not in names]
        assert not missed, f"{what} missed the stable {missed}: {names}"
        found = {key: number_of(value) for key, value in got}
        return self.read(at, {i: found.get(key, 0) for i, key in enumerate(self.round.keys) if reached(key)})

    def churn_own(self, own: bytes) -> None:
        """Replaces it: it stays present."""
        self.index.put_many([(own, make(self.fresh(EQUAL)))] * (FREED // 4))
