#!/usr/bin/env python3
"""
Records what threads of several processes do to a few keys, and asks whether it was linearizable.

    fuzz/linear.py [--seed N] [--count ROUNDS] [--duration SECONDS] [--first ROUND]

A round: processes with two threads each put, insert, remove, compare, take, read, scan, load and apply batches,
on keys that share nodes; now and then one compacts the file, is killed, or stops itself for some milliseconds in
the midst of a call, so that what it reads is replaced, freed and used again meanwhile.  Every call is noted in shared
memory before it is made and after it returned, by the one monotonic clock.  The checker (tests/linear_history.py)
then looks for an order that explains all results, promise P1.  What a scan yields of a key, and that it
yields nothing, are reads of that key at some instant of the scan: that is P2, whose order and bounds the
scanning thread checks itself.  Stable keys beneath the paths that split and merge must never be missed.

Each round is made from the seed and its number; `--first` begins with a later one.  The exit status is 1
for a violation, and if too little happened at the same time for the run to mean anything.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from linear_client import Client
from linear_round import (
    ANYTHING,
    ASKED,
    CALLED,
    CAUGHT,
    CHANGE,
    CHURN,
    CLIENTS,
    EXPECTED,
    FAILED,
    FIRST,
    GO,
    KEY,
    KEYS,
    KIND,
    LARGE,
    MASK,
    OPERATIONS,
    PROCESSES,
    PROGRESS,
    PUT_MANY,
    READ,
    READ_MANY,
    READY,
    RESULT,
    RETURNED,
    SLOT,
    STOPPED,
    THREADS,
    VALUE,
    WORDS,
    Round,
    make,
    number_of,
)

import rowex
import rowex.arrays
from linear_history import BATCH, CAS, GET, NEVER, PUT, Op, TooHardError, overlap, violation
from tools import die_with_parent

WAIT_S = 30
STOP_S, HELD_S = 0.06, 0.02
# In what calls processes are stopped; compare-and-sets of small values are too short for it.
STOPS_IN = ((ANYTHING - 1, READ_MANY, CAS, BATCH, BATCH, BATCH), (ANYTHING - 1, READ_MANY, READ_MANY, CAS, CAS, BATCH))
MEANWHILE = {CAS: (CHANGE, 3), BATCH: (READ, 12)}  # what the others do, and how often
PER_FILE = 5  # rounds
LEAST_OVERLAP = 0.05
LIMIT = 10_000  # states: some seconds


class Tally:
    """What a run has done."""

    def __init__(self) -> None:
        self.rounds = self.operations = self.overlapping = self.killed = self.stopped = self.hard = self.batches = 0

    def __str__(self) -> str:
        share = self.overlapping / max(1, self.operations)
        return (
            f"{self.rounds} rounds: {self.operations} operations, {self.batches} of them batches; {share:.1%} ran "
            f"while another changed their key; {self.killed} processes killed, {self.stopped} stopped for a while; "
            f"{self.hard} undecided"
        )


def work(whole: Round, process: int) -> None:
    """A process: its threads begin together with everybody's."""
    rowex.arrays.SHARE_ITEMS = rowex.arrays.GET_ITEMS = 4  # several threads for as few keys as there are
    index = rowex.open(whole.path)
    clients = [Client(whole, index, process * THREADS + i) for i in range(THREADS)]
    index.get(b"")
    threads = [threading.Thread(target=client.run) for client in clients]
    whole.control[READY + process] = 1
    while not whole.control[GO]:
        time.sleep(0)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index.close()


# ---- a round -----------------------------------------------------------------------------------


def history(whole: Round) -> list[Op]:
    """The operations of the records."""
    ops = []
    for client in range(CLIENTS):
        for i in range(OPERATIONS):
            at = whole.at(client, i)
            record = list(whole.words[at : at + SLOT])
            if record[CALLED]:
                ops += operations(client, record)
    return ops


def operations(client: int, record: list[int]) -> list[Op]:
    """Those that one record stands for."""
    called, returned = record[CALLED], record[RETURNED] or NEVER
    values = tuple((key, record[FIRST + key]) for key in range(KEYS) if record[MASK] >> key & 1)
    if record[KIND] == BATCH:
        return [Op(BATCH, called, returned, changes=values, client=client)]
    if record[KIND] == PUT_MANY:
        return [Op(PUT, called, returned, key, value, client=client) for key, value in values]
    if record[KIND] == READ_MANY:
        known = [] if returned == NEVER else values
        return [Op(GET, called, returned, key, result=value, client=client) for key, value in known]
    key, value, expected, result = (record[i] for i in (KEY, VALUE, EXPECTED, RESULT))
    return [Op(record[KIND], called, returned, key, value, expected, result, client=client)]


def final_reads(whole: Round, index: Any) -> list[Op]:
    """What is left is part of the history; length and structure are right."""
    called = time.monotonic_ns()
    state = dict(index.scan())
    returned = time.monotonic_ns()
    assert len(index) == len(state), f"len {len(index)}, scan {len(state)}"
    assert whole.known.issuperset(state), "keys that nobody wrote"
    assert all(state.get(key) == whole.fixed for key in whole.stable), "a stable key is lost"
    return [
        Op(GET, called, returned, key, result=number_of(state.get(name)), client=99)
        for key, name in enumerate(whole.keys)
    ]


def create(whole: Round, rng: random.Random) -> None:
    """
    A new file: logged or not, large or so small that it is copied all the time, empty or built.

    Most are not logged: where there is a log, cells wait for it before they are used again.
    """
    durability = rng.choice(["process", "process", "process", "batch"])
    small = {"capacity": 1 << 20} if rng.random() < 0.5 else {}
    if rng.random() < 0.5:
        rowex.open(whole.path, durability=durability, initial_size=1 << 20 if small else None, **small).close()
        return
    items = {key: make(i + 1) for i, key in enumerate([*whole.keys, *whole.stable])}
    order = sorted(items)
    if rng.random() < 0.3:
        rng.shuffle(order)
    rowex.build(whole.path, [(key, items[key]) for key in order], durability=durability, **small)
    with rowex.open(whole.path) as index:
        assert list(index.scan()) == sorted(items.items()), "not what was built"


def begin(whole: Round, index: Any) -> dict[int, int]:
    """Only the round's own keys, the stable ones among them; what the others are."""
    wanted = set() if whole.style == WORDS else {*whole.keys}  # words are all of one size
    index.remove_many([key for key in index if key not in wanted])
    index.put_many([(key, whole.fixed) for key in whole.stable])
    return {i: number_of(index.get(key)) for i, key in enumerate(whole.keys)}


def spawn(whole: Round, process: int) -> int:
    """Fork one of the round's processes."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            die_with_parent(parent)
            work(whole, process)
            status = int(whole.control[FAILED])
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            whole.control[FAILED] = 1
        finally:
            os._exit(status)
    return pid


def play(whole: Round, tally: Tally) -> None:
    """The processes do their work, some of them stopped now and then, some killed."""
    running = {spawn(whole, process): process for process in range(PROCESSES)}
    deadline = time.monotonic() + WAIT_S
    while sum(whole.control[READY : READY + PROCESSES]) < PROCESSES:
        assert not whole.control[FAILED] or kill_all(running), "a process failed before it began"
        assert time.monotonic() < deadline or kill_all(running), "the processes do not begin"
        time.sleep(0.0002)
    whole.control[GO] = 1
    victims = list(running)[: whole.rng.randrange(1, PROCESSES)] if whole.kills else []
    while running:
        assert time.monotonic() < deadline or kill_all(running), "the processes do not end"
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            meanwhile(whole)
            os.kill(pid, signal.SIGCONT)
            tally.stopped += 1
        elif pid:
            del running[pid]
            whole.control[CAUGHT] = 0  # it may have been this one
            assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL) or kill_all(running), "a process failed"
            continue
        if victims:
            time.sleep(whole.rng.random() * 0.004)
            if (victim := victims.pop()) in running:
                os.kill(victim, signal.SIGKILL)
                tally.killed += 1
        if whole.stops and len(running) > 1 and not whole.control[ASKED] and not whole.control[CAUGHT]:
            kind = whole.rng.choice(STOPS_IN[whole.style == LARGE])
            whole.control[ASKED] = CAS + 1 if kind == BATCH and not whole.batches else kind + 1
        time.sleep(0.0002)


def meanwhile(whole: Round) -> None:
    """
    A process stands still, often in a call that takes long, and the others do what may harm it, or show what it did.

    If it compares they change its key; if it applies a batch they read; else they write, free and use again.  It is
    never for so long that a reader would be evicted.
    """
    kind, key = (whole.control[CAUGHT] & 255) - 1, whole.control[CAUGHT] >> 8
    whole.control[CAUGHT] = 0
    what, enough = MEANWHILE.get(kind, (CHURN, 4))
    whole.control[PROGRESS], whole.control[STOPPED] = 0, what | key << 8
    began, progress = time.monotonic(), 0
    # No progress at all: they wait for what it holds.
    while progress < enough and time.monotonic() < began + (STOP_S if progress else HELD_S):
        time.sleep(0.0001)
        progress = whole.control[PROGRESS]
    whole.control[STOPPED] = 0


def kill_all(pids: dict[int, int]) -> bool:
    """Leave nothing behind; False."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    pids.clear()
    return False


def one_round(folder: Path, seed: str, number: int, tally: Tally) -> str | None:
    """The violation that a round shows, or None."""
    # A file serves for some rounds, so that it is closed and opened, after deaths too, and what is free comes back.
    first = number - number % PER_FILE
    path = folder / f"index{first}.rowex"
    whole = Round(path, seed, number)
    if not path.exists():
        create(whole, random.Random(f"{seed} {first} file"))
    with rowex.open(path) as index:
        initial = begin(whole, index)
    play(whole, tally)
    ops = history(whole)
    with rowex.open(path) as index:
        ops += final_reads(whole, index)
        index.check()
    tally.rounds += 1
    tally.operations += len(ops)
    tally.batches += sum(op.kind == BATCH for op in ops)
    tally.overlapping += overlap(ops)
    try:
        return violation(ops, initial, KEYS, LIMIT)
    except TooHardError:
        tally.hard += 1
        return None


def run(options: argparse.Namespace, folder: Path) -> int:
    """Rounds until it is enough."""
    tally, number = Tally(), options.first
    until = time.monotonic() + (options.duration or 1e9)
    while time.monotonic() < until and (not options.count or tally.rounds < options.count):
        try:
            wrong = one_round(folder, options.seed, number, tally)
        except (AssertionError, rowex.RowexError, OSError, MemoryError) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            again = f"--seed {options.seed} --first {number - number % PER_FILE}"
            print(f"round {number}: {wrong}\nseed {options.seed}: {again}")
            print(tally)
            return 1
        number += 1
        if number % PER_FILE == 0:
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    print(tally, f"(seed {options.seed}, the next round is {number})")
    if tally.overlapping < LEAST_OVERLAP * tally.operations:
        print("too little happened at the same time: this run shows nothing")
        return 1
    if tally.hard * 10 > tally.rounds:
        print("too many histories could not be decided")
        return 1
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(2**32)))
    parser.add_argument("--count", type=int, default=0, help="rounds, 0: no limit")
    parser.add_argument("--duration", type=float, default=0, help="seconds, 0: no limit")
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="rowex-linear-", dir=base) as made:
        return run(options, Path(made))


if __name__ == "__main__":
    sys.exit(main())
