"""
What the processes of a round do, each in lives that may end at any instant.

Every life opens the file itself and checks all that it sees; what it counts lies in shared memory.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rowex
from churn import Churn
from tools import counted, make_value, read_value, uid_count

from .books import TALLY, Books

WORDS = 16
BEATS, STOPPED_NS, STALL_NS, OPERATIONS, READS, SCANS, COMPACTIONS, CHECKPOINTS, CHECKS, BACKUPS, FULL, LIVES = range(
    12
)
PATIENCE_S = 5  # with writers that were stopped inside an operation
FLOOD = b"flood/%d/"


class World:
    """One index and all that its processes share."""

    def __init__(self, path: Path, books: Books, slots: int, options: dict[str, Any], full: bool) -> None:
        self.path, self.books, self.options, self.full = path, books, options, full
        self.churn = Churn(path)
        self.boot = ""  # of the machine; "" is this one
        self._words = memoryview(mmap.mmap(-1, 8 * (1 + slots * WORDS))).cast("Q")
        self.slots = slots

    def count(self, slot: int, word: int, number: int = 1) -> None:
        """Add to a word of a slot; each has one process that does."""
        self._words[1 + slot * WORDS + word] += number

    def read(self, slot: int, word: int) -> int:
        """What was counted."""
        return int(self._words[1 + slot * WORDS + word])

    def sum(self, word: int) -> int:
        """Of all slots."""
        return sum(self.read(slot, word) for slot in range(self.slots))

    @property
    def ending(self) -> bool:
        """Whether all are asked to end."""
        return bool(self._words[0])

    def end(self) -> None:
        """Ask all to end."""
        self._words[0] = 1

    def open(self) -> Any:
        """A handle of the calling process's own, on the machine as it is now."""
        if self.boot:
            os.environ["ROWEX_BOOT_ID"] = self.boot
        return rowex.open(self.path, **self.options)

    @contextlib.contextmanager
    def timed(self, slot: int) -> Iterator[None]:
        """A call; the longest is kept, without the time for which its process was stopped."""
        began, stopped = time.monotonic_ns(), self.read(slot, STOPPED_NS)
        try:
            yield
        finally:
            took = time.monotonic_ns() - began - (self.read(slot, STOPPED_NS) - stopped)
            if took > self.read(slot, STALL_NS):
                self._words[1 + slot * WORDS + STALL_NS] = took


def live(pipe: Any, world: World, slot: int, role: Callable[..., None], number: int, seed: str) -> None:
    """A process of a round: opens the file and does its part until it is told to end, or killed."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    rng = random.Random(seed)
    while not world.ending:
        world.count(slot, BEATS)
        try:
            with world.open() as index, beside(world, index, slot, rng):
                role(world, index, slot, number, rng)
        except rowex.DiskFullError:
            assert world.full, "the disk is not full"
            world.count(slot, FULL)
            pipe.poll(0.005)


@contextlib.contextmanager
def beside(world: World, index: Any, slot: int, rng: random.Random) -> Iterator[None]:
    """Half of the lives have another thread, which reads with the same handle."""
    if rng.random() < 0.5:
        yield
        return
    dice, ended, wrong = random.Random(rng.random()), threading.Event(), []

    def watch() -> None:
        try:
            while not ended.is_set():
                look_on(world, index, slot, dice, 20)
        except BaseException as error:
            wrong.append(error)

    other = threading.Thread(target=watch)
    other.start()
    try:
        yield
    finally:
        ended.set()
        other.join()
    if wrong:
        raise wrong[0]


def look_on(world: World, index: Any, slot: int, rng: random.Random, times: int) -> None:
    """Read units while their owners may be writing them."""
    books = world.books
    for _ in range(times):
        # One in two is of a group: what is looked at while it is written shows most.
        first = books.singles if rng.random() < 0.5 else 0
        books.observe(index, rng.randrange(books.writers), rng.randrange(first, books.keys_each), rng)
    world.count(slot, READS, times)


def beating(world: World, slot: int, seconds: float = 1e9) -> Callable[[], bool]:
    """Whether to go on."""
    until = time.monotonic() + seconds

    def more() -> bool:
        world.count(slot, BEATS)
        return not world.ending and time.monotonic() < until

    return more


def own(world: World, index: Any, slot: int, number: int, rng: random.Random) -> None:
    """Bring its units from state to state, count, and make it durable now and then."""
    books, more = world.books, beating(world, slot, rng.expovariate(0.5))
    books.audit_owner(index, number)
    while more():
        try:
            for _ in range(rng.randrange(1, 60)):
                with contextlib.suppress(TimeoutError), world.timed(slot):
                    books.step_unit(index, number, rng.randrange(books.keys_each))
                    world.count(slot, OPERATIONS)
            if rng.random() < 0.3 or books.must_wait(number):
                books.make_durable(index, number)
            for _ in range(rng.choice([2, 5, 300])):
                books.count_up(index, number)
                world.count(slot, OPERATIONS)
        except rowex.DiskFullError:
            assert world.full, "the disk is not full"
            world.count(slot, FULL)


def read(world: World, index: Any, slot: int, number: int, rng: random.Random) -> None:
    """Read what owners write, what nobody touches, and what never was."""
    more = beating(world, slot, rng.expovariate(0.5))
    while more():
        for _ in range(200):
            with world.timed(slot):
                look_on(world, index, slot, rng, 1)
        world.count(slot, READS, world.churn.read(index, str(rng.random()), once()))


def scan(world: World, index: Any, slot: int, number: int, rng: random.Random) -> None:
    """Scan, forwards and backwards."""
    more = beating(world, slot, rng.expovariate(0.5))
    while more():
        world.count(slot, SCANS, world.churn.scan(index, str(rng.random()), once()))


def once() -> Callable[[], bool]:
    """True the first time."""
    left = [True]
    return lambda: bool(left) and left.pop()


def churn(world: World, index: Any, slot: int, number: int, rng: random.Random) -> None:
    """Put and remove around the stable keys, and flood the file so that it grows; after another's death begin anew."""
    mine = FLOOD % number
    index.remove_many([key for key in index if key.endswith(b"|%d" % number) or key.startswith(mine)])
    world.churn.write(index, number, str(rng.random()), beating(world, slot, rng.random()))
    names = [mine + b"%05d" % i for i in range(rng.choice([200, 2000]))]
    size = rng.choice([40, 400, 2000])
    for start in range(0, len(names), 100):
        with world.timed(slot):
            index.put_many([(key, make_value(key, start, size)) for key in names[start : start + 100]])
        world.count(slot, BEATS)
    world.count(slot, OPERATIONS, len(names))
    found = list(index.scan(prefix=mine))
    assert [key for key, _ in found] == names, f"{len(names)} keys were put, {len(found)} are there"
    for key, value in found:
        read_value(key, value)
    index.remove_many(names)
    assert not list(index.scan(prefix=mine)), "not all is removed that its only writer removed"
    world.count(slot, OPERATIONS, len(names))


def tend(world: World, index: Any, slot: int, number: int, rng: random.Random) -> None:
    """Come, compact, make a checkpoint or a copy, look at the whole, and go."""
    for _ in range(rng.randrange(1, 4)):
        world.count(slot, BEATS)
        with contextlib.suppress(TimeoutError):
            what = rng.choice([compact, compact, checkpoint, checkpoint, check, copy, look])
            what(world, index, slot)


def compact(world: World, index: Any, slot: int) -> None:
    """Copy and rename."""
    index.compact(timeout=PATIENCE_S)
    world.count(slot, COMPACTIONS)


def checkpoint(world: World, index: Any, slot: int) -> None:
    """Where there is a log."""
    if world.books.logged:
        index.checkpoint()
        world.count(slot, CHECKPOINTS)


def check(world: World, index: Any, slot: int) -> None:
    """No fault, while all others work."""
    index.check(timeout=PATIENCE_S)
    world.count(slot, CHECKS)


def look(world: World, index: Any, slot: int) -> None:
    """Figures, from outside."""
    assert uid_count(index) >= 1
    assert len(index) > 0


def copy(world: World, index: Any, slot: int) -> None:
    """A backup is sound, and has all that is always there."""
    target = world.path.parent.parent / f"backup{slot}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    try:
        index.backup(target / "index.rowex")
        with rowex.open(target / "index.rowex", "r") as made:
            made.check()
            assert len(made) == counted(made)
            assert all(key in made for key in world.churn.stable), "a stable key is not in a backup"
        world.count(slot, BACKUPS)
    finally:
        shutil.rmtree(target)


def prepare(pipe: Any, world: World) -> None:
    """A new file with the keys that are always there."""
    with world.open() as index:
        index.put_many([(key, make_value(key, 7)) for key in world.churn.stable])
        index[TALLY] = make_value(TALLY, 0)
        if world.books.logged:
            index.flush()


def cast(processes: int) -> list[tuple[Callable[..., None], int]]:
    """Who plays what: roles, and numbers in them."""
    order = [own, read, tend, own, scan, churn, own, read]
    roles = [order[i % len(order)] for i in range(processes)]
    return [(role, roles[:i].count(role)) for i, role in enumerate(roles)]
