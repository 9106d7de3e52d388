#!/usr/bin/env python3
"""
What a drive may reorder: the power goes after any call of a recorded run, and of what was not synced
then, any part is kept.  Failure model: `power`.

    fuzz_reorder.py [--seed N] [--first ROUND] [--count IMAGES] [--duration SECONDS] [--keep FOLDER]

Several processes write to an index, in two sessions, with checkpoints, copies, batches and segments; a
build with ROWEX_FAULTS records their calls, and they record each change, with its ticket, and each
ticket that they were told to be durable.  After each record images of the disk are made as a drive may
have kept it, opened as by another boot, and must hold the changes up to some ticket, in order, that is
not before the last one told; check() must find no fault.  Some recoveries are recorded and cut again.
"""

from __future__ import annotations

import argparse
import bisect
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from traced_disk import OWN, Disk, File, append, forked, records, succeed

import rowex

CHANGED, DURABLE = OWN, OWN + 1
WRITERS, CHANGES = 3, 25
STATE_AT, IN_USE, SUPER = 256, 2, 8192
CHILD_S = 60


def in_child(body: Callable[[], Any], trace: Path | None = None) -> Any:
    """What *body* answers in a process of its own, recorded or not; RuntimeError with what it raised."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        answer: Any = {"failed": "it died"}
        try:
            signal.alarm(CHILD_S)
            if trace is not None:
                os.environ["ROWEX_TRACE"] = str(trace)
            answer = {"answer": body()}
        except BaseException:
            answer = {"failed": traceback.format_exc()}
        finally:
            os.write(send, json.dumps(answer).encode())
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    answer = json.loads(said) if said else {"failed": f"it ended with {status}"}
    if "failed" in answer:
        raise RuntimeError(answer["failed"])
    return answer["answer"]


# ---- the run that is recorded ----------------------------------------------------------------


class Writer:
    """One process."""

    def __init__(self, path: Path, trace: Path, name: int, dice: random.Random) -> None:
        self.trace = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.index = rowex.open(path, flush_interval=60, initial_size=1 << 17, capacity=1 << 19)
        self.name, self.dice, self.number = name, dice, 0

    def key(self, i: int) -> str:
        """One of its own."""
        return f"{self.name}/{i}"

    def changed(self, ticket: int, changes: dict[str, str | None]) -> None:
        """To be believed when it is told."""
        append(self.trace, CHANGED, ticket, data=json.dumps(changes).encode())

    def value(self) -> str:
        """Never twice the same."""
        self.number += 1
        size = self.dice.choice([0, 0, 10, 300, 3000, 20_000])
        return f"{os.getpid()} {self.number} {'x' * size}"

    def step(self) -> None:
        """One change, or something that is none."""
        what, key = self.dice.random(), self.key(self.dice.randrange(8))
        if what < 0.55:
            value = self.value()
            self.changed(self.index.put(key.encode(), value.encode()), {key: value})
        elif what < 0.7 and self.index.exists(key.encode()):
            self.changed(self.index.remove(key.encode()), {key: None})
        elif what < 0.8:
            changes: dict[str, str | None] = {self.key(i): self.value() for i in range(3)}
            changes[self.key(7)] = None
            with self.index.batch() as batch:
                for name, each in changes.items():
                    batch.remove(name.encode()) if each is None else batch.put(name.encode(), each.encode())
            self.changed(batch.ticket, changes)
        elif what < 0.84:
            with_busy(self.index.checkpoint)
        elif what < 0.86:
            self.index.compact()
        else:
            ticket = self.index.position
            self.index.wait_durable(ticket)
            append(self.trace, DURABLE, ticket)

    def run(self, changes: int) -> None:
        """All of its life."""
        for _ in range(changes):
            self.step()
        self.index.close()


def with_busy(call: Callable[[], object]) -> None:
    """Another may be making a checkpoint already."""
    try:
        call()
    except (OSError, rowex.RowexError) as error:
        if "checkpoint" not in str(error):
            raise


def record_run(folder: Path, trace: Path, dice: random.Random) -> None:
    """Two sessions of several processes, each closed."""
    for _ in range(2):
        pids = []
        for name in range(WRITERS):
            seed = dice.randrange(2**32)

            def body(name: int = name, seed: int = seed) -> None:
                os.environ["ROWEX_TRACE"] = str(trace)
                Writer(folder / "index.rowex", trace, name, random.Random(seed)).run(CHANGES)

            pids.append(forked(CHILD_S, body))
        succeed(pids)


# ---- what may be left ----------------------------------------------------------------------------


def mark(items: dict[str, str]) -> int:
    """Of a state; changed by one item at a time."""
    total = 0
    for key, value in items.items():
        total ^= item_mark(key, value)
    return total


def item_mark(key: str, value: str) -> int:
    """Of an item."""
    return int.from_bytes(hashlib.blake2b(f"{key}={value}".encode(), digest_size=8).digest(), "little")


def prefixes(changes: list[tuple[int, dict[str, str | None]]]) -> dict[int, int]:
    """The mark of the state after each ticket, in order, and the last such ticket."""
    state: dict[str, str] = {}
    now, found = 0, {0: 0}
    for ticket, items in sorted(changes, key=lambda change: change[0]):
        for key, value in items.items():
            if key in state:
                now ^= item_mark(key, state.pop(key))
            if value is not None:
                state[key] = value
                now ^= item_mark(key, value)
        found[now] = ticket
    return found


def look(path: Path, boot: str) -> dict[str, str] | None:
    """What another boot finds; None: there is no index yet."""
    os.environ["ROWEX_BOOT_ID"] = boot
    if not path.exists():
        return None
    with rowex.open(path, flush_interval=60) as index:
        index.check()
        state = {key.decode(): value.decode() for key, value in index.items()}
        if len(state) != len(index):
            raise AssertionError(f"{len(state)} keys, the length says {len(index)}")
        index.put(b"works", b"1", durable=True)
        index.remove(b"works")
    return state


def garble(disk: Disk, path: Path, dice: random.Random) -> None:
    """The data file while it is in use: mapped pages reach the disk in any order, or not at all."""
    thing = disk.root.now.get(path.name)
    if not isinstance(thing, File) or not path.exists():
        return
    with path.open("r+b") as file:
        file.seek(STATE_AT)
        if int.from_bytes(file.read(4), "little") != IN_USE:
            return
        size = path.stat().st_size
        for at in range(SUPER, size, 4096):
            if dice.random() < 0.3:
                file.seek(at)
                file.write(bytes(4096) if dice.random() < 0.5 else dice.randbytes(64) * 64)


class Cutter:
    """Cuts the power of recorded runs."""

    def __init__(self, work: Path, seed: int, count: int, until: float, keep: Path | None) -> None:
        self.work, self.seed, self.count, self.until, self.keep = work, seed, count, until, keep
        self.images = self.cut_twice = 0

    def over(self) -> bool:
        """Enough."""
        return self.images >= self.count or time.monotonic() > self.until

    def one(self, disk: Disk, dice: random.Random, allowed: dict[int, int], told: int, where: str, twice: bool) -> None:
        """One image: made, opened, compared; and perhaps its recovery cut."""
        folder, trace = self.work / f"image{int(twice)}", self.work / f"trace{int(twice)}"
        shutil.rmtree(folder, ignore_errors=True)
        trace.unlink(missing_ok=True)
        disk.image(folder, dice)
        path = folder / "index.rowex"
        garble(disk, path, dice)
        again = not twice and dice.random() < 0.03
        before = Disk.found(folder) if again else None
        if self.keep:
            shutil.rmtree(self.keep, ignore_errors=True)
            shutil.copytree(folder, self.keep)
        self.images += 1
        try:
            state = in_child(lambda: look(path, f"boot {self.images}"), trace if again else None)
            if state is None:
                if told:
                    raise AssertionError("the index is gone")
                return
            upto = allowed.get(mark(state))
            if upto is None:
                raise AssertionError(f"not a prefix of what was done: {sorted(state)}")
            if upto < told:
                raise AssertionError(f"ticket {told} was told to be durable, {upto} is the last that is there")
        except (AssertionError, RuntimeError) as error:
            raise SystemExit(f"seed {self.seed}, {where}: {error}") from None
        if before is not None:
            self.recovery(before, trace, dice, mark(state), where)

    def recovery(self, disk: Disk, trace: Path, dice: random.Random, left: int, where: str) -> None:
        """The same again, of what opened an image: it finds the same, or what was done then."""
        allowed = {left: 0, left ^ item_mark("works", "1"): 0}
        for number, record in enumerate(records(trace)):
            disk.take(record)
            if self.over():
                return
            if dice.random() > 0.1:
                continue
            self.one(disk, dice, allowed, 0, f"{where}, its recovery after record {number}", True)
            self.cut_twice += 1

    def round(self, number: int) -> None:
        """A run, cut after each record."""
        dice = random.Random(f"{self.seed} {number}")
        folder, trace = self.work / "run", self.work / "run.trace"
        shutil.rmtree(folder, ignore_errors=True)
        trace.unlink(missing_ok=True)
        folder.mkdir()
        root = folder.stat().st_ino
        os.environ["ROWEX_BOOT_ID"] = "the first boot"
        record_run(folder, trace, dice)
        everything = list(records(trace))
        changes = [(a, json.loads(data)) for kind, a, _, _, data in everything if kind == CHANGED]
        allowed, tickets = prefixes(changes), sorted(ticket for ticket, _ in changes)
        disk, told = Disk(root), 0
        for at, record in enumerate(everything):
            disk.take(record)
            if record[0] == DURABLE:
                changed = bisect.bisect_right(tickets, record[1])  # the last change up to there
                told = max(told, tickets[changed - 1] if changed else 0)
            if self.over():
                return
            if record[0] != CHANGED:
                self.one(disk, dice, allowed, told, f"round {number}, after record {at} of {len(everything)}", False)
        print(
            f"round {number}: {len(everything)} records; {self.images} images, {self.cut_twice} of recoveries",
            flush=True,
        )


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to go on with a run")
    parser.add_argument("--count", type=int, default=100_000, help="images (100000)")
    parser.add_argument("--duration", type=float, default=float("inf"), help="seconds, at most")
    parser.add_argument("--keep", type=Path, help="folder that holds the image, when one fails")
    options = parser.parse_args()
    print(f"fuzz_reorder: seed {options.seed}", flush=True)
    shm = Path("/dev/shm")
    work = Path(tempfile.mkdtemp(prefix="rowex-reorder-", dir=shm if os.access(shm, os.W_OK) else None))
    cutter = Cutter(work, options.seed, options.count, time.monotonic() + options.duration, options.keep)
    try:
        number = options.first
        while not cutter.over():
            cutter.round(number)
            number += 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{cutter.images} images, {cutter.cut_twice} of recoveries: each a prefix at or past what was told")
    return 0


if __name__ == "__main__":
    sys.exit(main())
