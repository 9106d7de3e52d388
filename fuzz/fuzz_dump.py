#!/usr/bin/env python3
"""
Loads damaged dumps: whatever the bytes, what they say is stored and what they do not say is refused.

    fuzz_dump.py [--seed N] [--count N] [--first N] [--duration S] [--corpus DIR] [--keep DIR] [--folder DIR]
                 [--blind] [--canary] [--replay FILE]

Takes a case of the corpus or a new valid dump, changes it (fuzz/dump_cases.py), loads it with what is
behind `rowex load`, or with the command itself, into an index that is there, a new one or a full one,
and compares status, message and all that the index then holds with another reading of the same bytes
(fuzz/dump_model.py).  Of every 32nd case, the index dumped and loaded again must be the same.
`check()` must find nothing; an index that is there and kept is checked after every fourth case.  Guided
by coverage: a case that reaches a new pair of lines of the package's Python, or one clearly more often,
joins the corpus.

The cases run in a child process, each with a limit of time.  A failing one is kept as failing.case, which
--replay repeats.  --keep writes the smallest corpus that reaches as much (with --count 0: of --corpus
alone).  --blind leaves the guidance out, to compare.  With the same corpus, a seed makes the same cases.
--canary takes out one check of the loader, whether the bytes of an int key are those of an int, and fails unless
that is found.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from dump_cases import BATCHES, TARGETS, an_array, from_bytes, mutated, stored, to_bytes, valid
from dump_coverage import Coverage
from dump_judge import OK, REFUSED, UNUSABLE, Different, check, expect, judge, judge_message, judge_new
from dump_model import Case, Reading, int_bytes, read, tuple_bytes

import rowex
from rowex import codecs
from rowex.cli import cli, text, transfer
from rowex.cli.console import tell
from rowex.cli.transfer import dump, load
from rowex.index import Index
from rowex.opening import open_raw

HANG_S = 30
CORPUS_BYTES_MAX = 3 << 10
ROUND_TRIPS, CHECKS = 32, 4  # every so many cases; what damages an index that is kept is seen at the next check
LOOK_AT_FILES = 1000
DONE, FOUND = 0, 1  # exit statuses of the child
GROWN_BYTES = 4 << 20  # of a file that is made anew, for check() looks at all of it

Target = tuple[Path, Index, dict[bytes, bytes]]  # with what it held before


# ---- indexes to load into ----------------------------------------------------------------------


def old_items(chosen: list[str]) -> dict[bytes, bytes]:
    """What was there before: keys that dumps have too, and one that they hardly have."""
    dice = random.Random(1)
    keys = {
        "int": [int_bytes(number) for number in (0, 7, -5, 99991)],
        "tuple": [tuple_bytes(item) for item in ((), ("a", 1), (99991,))],
    }.get(chosen[0], [b"", b"a", b"kept", b"key7"])
    return {key: stored(chosen[1], dice) for key in keys}


class Targets:
    """
    Indexes that are there: one for each pair of codecs, which this process holds open beside the loader.

    Attributes:
        folder: Where everything is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept = {name: self._make(name) for name in TARGETS}

    def _make(self, name: str) -> Target:
        chosen = name.split("+")
        path = self.folder / f"{name}.rowex"
        keys, values = ((bytes, bytes) if codec == "custom" else codec for codec in chosen)
        options: dict[str, Any] = {"keys": keys, "values": values, "durability": "process"}
        rowex.open(path, "n", initial_size=131072, **options).close()
        return path, open_raw(str(path), "w"), old_items(chosen)

    def there(self, name: str) -> Target:
        """One of them, as it was at first."""
        path, index, old = self._kept[name]
        if path.stat().st_size > GROWN_BYTES:
            index.close()
            self._kept[name] = path, index, old = self._make(name)
        index.clear()
        index.put_many(old)
        return path, index, old

    def full(self) -> Target:
        """One that has room for little."""
        path = self.folder / "full.rowex"
        index = rowex.open(path, "n", durability="process", initial_size=131072, max_size=262144)
        old = old_items(["bytes", "bytes"])
        index.put_many(old)
        with contextlib.suppress(rowex.DiskFullError):
            for number in range(10000):
                old[b"filling%d" % number] = b"x" * 900
                index[b"filling%d" % number] = b"x" * 900
        return path, index, {key: value for key, value in old.items() if key in index}

    def close(self) -> None:
        """All of them."""
        for _, index, _ in self._kept.values():
            index.close()


def remove(path: Path) -> None:
    """A file of an index, and what lies beside it."""
    for entry in path.parent.glob(path.name + "*"):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


# ---- loading -----------------------------------------------------------------------------------


def run_function(path: Path, case: Case, source: Any, other: str | None) -> int:
    """What is behind the command."""
    options = [None if option == "-" else option for option in (case.keys, case.values)]
    form = None if case.form == "npy" else case.form
    try:
        with click.Context(load, color=True):
            load.callback(str(path), source, form, *options, case.header, other, False)  # type: ignore[misc] # click: it may be None
    except click.exceptions.Exit as done:
        return done.exit_code
    except text.Malformed as error:  # which the group of commands makes a UsageError
        click.echo(str(error), err=True)
        return REFUSED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return OK


def run_command(path: Path, case: Case, source: Path, other: str | None) -> int:
    """The command."""
    arguments = ["load", str(path), str(source)]
    for option, word in (("--keys", case.keys), ("--values", case.values), ("--npy", other or "-")):
        arguments += [] if word == "-" else [option, word]
    try:
        cli.main(arguments + ["--header"] * (case.header and case.form != "npy"), prog_name="rowex", color=True)
    except SystemExit as done:
        return int(done.code or 0)
    raise Different("the command returned without an exit status")


def run_load(path: Path, case: Case, folder: Path) -> tuple[int, str]:
    """Load a case; the exit status, and what was told."""
    source, other = folder / f"case.{case.form}", None
    if case.form == "npy" or case.way == "command":
        source.write_bytes(case.data)
    if case.form == "npy":
        beside = folder / "beside.npy"
        beside.write_bytes(an_array(random.Random(len(case.data) % 7)))
        source, other = (beside, str(source)) if case.header else (source, str(beside))
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        if case.way == "command":
            status = run_command(path, case, source, other)
        elif case.form == "npy":
            with source.open("rb") as stream:
                status = run_function(path, case, stream, other)
        else:
            status = run_function(path, case, io.BytesIO(case.data), None)
    return status, told.getvalue()


# ---- a case -------------------------------------------------------------------------------------


def round_trip(path: Path, folder: Path) -> None:
    """Dump an index, load that into a new one, and compare them and their dumps."""
    target, dumps = folder / "again.rowex", []
    for source in (path, target):
        out = io.BytesIO()
        with click.Context(dump):
            dump.callback(str(source), out)  # type: ignore[misc] # as above
        dumps.append(out.getvalue())
        if source == path:
            case = Case("jsonl", "-", "-", "new", "function", False, BATCHES[-1], dumps[0])
            status, told = run_load(target, case, folder)
            expect("status of a dump that is loaded again", (OK, ""), (status, "" if status == OK else told))
            with open_raw(str(path), "r") as one, open_raw(str(target), "r") as other:
                expect("items of a dump that is loaded again", dict(one.scan()), dict(other.scan()))
    expect("a dump's dump", dumps[0], dumps[1])
    remove(target)


def try_case(case: Case, targets: Targets, coverage: Coverage | None, number: int) -> None:
    """Load a case and judge what came of it; all the looks are taken at number 0."""
    reading = read(case) if case.form != "npy" else Reading()
    transfer.BATCH_ITEMS = case.batch  # so that few lines are several batches
    path = targets.folder / "new.rowex"
    old: dict[bytes, bytes] = {}
    index: Index | None = None
    if case.target != "new":
        path, index, old = targets.full() if case.target == "full" else targets.there(case.target)
    try:
        with coverage or contextlib.nullcontext():
            outcome = run_load(path, case, targets.folder)
        judge_message(*outcome)
        if outcome[0] == UNUSABLE and case.target != "full":
            raise Different(f"unusable: {outcome[1][:300]!r}")
        if index is None:
            judge_new(case, reading, outcome, path)
        else:
            judge(case, reading, outcome, old, index)
            if number % CHECKS == 0 or case.target == "full":
                check(index)
        if number % ROUND_TRIPS == 0 and path.exists():
            round_trip(path, targets.folder)
    finally:
        if case.target == "full" and index is not None:
            index.close()
        if case.target in ("new", "full"):
            remove(path)


# ---- the run -----------------------------------------------------------------------------------


class Guide:
    """
    The corpus, and what it reaches.

    Attributes:
        cases: The corpus.
    """

    def __init__(self, *, blind: bool) -> None:
        self.cases: list[Case] = []
        self._blind, self._seen = blind, set[int]()

    def next(self, dice: random.Random) -> Case:
        """A case to try."""
        if self._blind or not self.cases:
            return mutated(valid(dice), valid(dice), dice)
        if dice.random() < 0.5:
            return mutated(valid(dice), dice.choice(self.cases), dice)
        newest = max(0, len(self.cases) - 40) if dice.random() < 0.5 else 0
        first, other = (self.cases[dice.randrange(newest, len(self.cases))] for _ in range(2))
        return mutated(min(first, other, key=lambda case: len(case.data)), other, dice)

    def learn(self, case: Case, reached: set[int]) -> None:
        """Keep a case that reached what none before it did."""
        if reached <= self._seen:
            return
        self._seen |= reached
        if len(case.data) <= CORPUS_BYTES_MAX and not self._blind:
            self.cases.append(case)

    def pair_count(self) -> int:
        """Of pairs of lines that were reached."""
        return len({each >> 4 for each in self._seen})


class Run:
    """One run, in the child process."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments, self._folder = arguments, folder
        self._targets, self._coverage = Targets(folder), Coverage()
        vars(transfer)["tell"] = self._coverage.unwatched(tell)
        files = sorted(path for path in arguments.corpus.glob("*.case")) if arguments.corpus else []
        self._cases = [from_bytes(path.read_bytes()) for path in files]
        self._guide = Guide(blind=arguments.blind)
        self._tried = 0

    def try_one(self, case: Case, number: int) -> set[int]:
        """Try a case, which lies in a file meanwhile; what it reached."""
        (self._folder / "current.case").write_bytes(to_bytes(case))
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try_case(case, self._targets, self._coverage, number)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._tried += 1
        return self._coverage.reached()

    def run(self) -> None:
        """The corpus, then new cases."""
        arguments = self._arguments
        ends = time.monotonic() + arguments.duration
        for number, case in enumerate(self._cases):
            self._guide.learn(case, self.try_one(case, number))
        files = open_files()
        number = arguments.first
        while number < arguments.first + arguments.count and time.monotonic() < ends:
            case = self._guide.next(random.Random(f"{arguments.seed} {number}"))
            self._guide.learn(case, self.try_one(case, number))
            number += 1
            if number % LOOK_AT_FILES == 0:
                expect("open files", files, open_files())
            if number % 20000 == 0:
                print(f"{number} cases, {self._guide.pair_count()} pairs of lines", flush=True)
        expect("open files", files, open_files())
        self._targets.close()
        print(
            f"{number - arguments.first} cases; {self._guide.pair_count()} pairs of lines reached, "
            f"{len(self._guide.cases)} in the corpus; no difference, no crash, no hang"
        )
        if arguments.keep:
            self.keep(arguments.keep)

    def keep(self, folder: Path) -> None:
        """Write the smallest corpus that reaches as much; nearly: the smallest cases first."""
        folder.mkdir(parents=True, exist_ok=True)
        pairs: list[tuple[Case, set[int]]] = []
        self._targets = Targets(self._folder)
        for case in sorted(self._guide.cases, key=lambda case: len(case.data)):
            pairs.append((case, self.try_one(case, 1)))
        left, chosen = set().union(*(reached for _, reached in pairs)), []
        while left:
            case, reached = max(pairs, key=lambda pair: len(pair[1] & left) / (len(pair[0].data) + 200))
            chosen.append(case)
            left -= reached
        for path in folder.glob("*.case"):
            path.unlink()
        for number, case in enumerate(chosen):
            (folder / f"{number:03}.case").write_bytes(to_bytes(case))
        print(f"{len(chosen)} cases kept")


def open_files() -> list[str]:
    """Those of this process."""
    gc.collect()  # an exception may have held an array, and that its file
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the folder itself
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(found)


def break_loader() -> None:
    """The canary: any bytes pass for an int key as the codec stores it."""
    codecs._KEYS["int"] = replace(codecs.INT, decode=lambda _: text.JSON_INT_MAX)


def child(arguments: argparse.Namespace, folder: Path) -> int:
    """The run; its exit status."""
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)
    warnings.simplefilter("ignore")  # NumPy's and the parser's, of what is damaged
    if arguments.canary:
        break_loader()
    try:
        if arguments.replay:
            try_case(from_bytes(arguments.replay.read_bytes()), Targets(folder), None, 0)
            print("no difference")
        else:
            Run(arguments, folder).run()
    except Different as difference:
        print(f"found: {difference}")
        return FOUND
    except BaseException:
        traceback.print_exc()
        print("found: an exception")
        return FOUND
    return DONE


def read_arguments() -> argparse.Namespace:
    """Of this program."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--count", type=int, help="10000, or with --duration any number")
    parser.add_argument("--first", type=int, default=0, help="number of the first one, to go on with a run")
    parser.add_argument("--duration", type=float, help="seconds")
    parser.add_argument("--corpus", type=Path, default=here / "corpus-dump")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None)
    parser.add_argument("--blind", action="store_true")
    parser.add_argument("--canary", action="store_true")
    parser.add_argument("--replay", type=Path)
    arguments = parser.parse_args()
    if arguments.count is None:
        arguments.count = 10000 if arguments.duration is None else sys.maxsize
    if arguments.duration is None:
        arguments.duration = float("inf")
    return arguments


def main() -> int:
    """Run; 1 at the first case that is not as it should be."""
    arguments = read_arguments()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="rowex-fuzz-", dir=arguments.folder) as name:
        pid = os.fork()
        if pid == 0:
            status = child(arguments, Path(name))
            sys.stdout.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        current = Path(name) / "current.case"
        if status != DONE and current.exists() and not arguments.canary:
            shutil.copy(current, "failing.case")
            print("the case is kept as failing.case")
    if status < 0:
        print("it hung" if status == -signal.SIGALRM else f"it ended with {status}")
    if arguments.canary:
        print("the canary was caught" if status == FOUND else "the canary was not caught")
        return int(status != FOUND)
    return int(status != DONE)


if __name__ == "__main__":
    sys.exit(main())
