"""
The Python part: what is measured for whom, in rounds that alternate between the peers, resumable.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .peers import PEERS
from .rows import one_unit
from .workloads import make_data

Times = dict[str, dict[str, list[float]]]  # of each peer, of each row, by round

SLOW = ("sqlite3", "dbm.gnu", "diskcache", "SortedDict")
CODECS = {"rowex str": ("mail", "url"), "rowex int": ("random8", "dense8")}
FAST = tuple(name for name in PEERS if name not in SLOW)
FASTEST = ("rowex", "rowex batch", "rowex int", "lmdb", "lmdb held", "plyvel", "rocksdict")


@dataclass(frozen=True)
class Part:
    """One table: a workload, who runs it, how often."""

    shape: str
    value: int
    count: int
    peers: tuple[str, ...]
    repeats: int

    @property
    def title(self) -> str:
        """For people."""
        shapes = {"random8": "random 8-byte keys", "dense8": "consecutive 8-byte keys", "mail": "mail addresses",
                  "url": "URLs"}  # fmt: skip
        return f"{self.count:,} {shapes[self.shape]}, values of {self.value} bytes"


def plan(form: str, repeats: int, count: int) -> list[Part]:
    """
    The tables of a form.

    Args:
        form: quick (under 10 minutes), usual, or full (under 2 hours; ten times the keys for the fastest, too).
        repeats: Rounds.
        count: Keys of the usual tables.
    """
    everybody = tuple(PEERS)
    if form == "quick":
        return [
            Part("random8", 8, count, everybody, repeats),
            Part("url", 100, count, ("rowex", "rowex batch", "rowex str", "lmdb", "plyvel", "rocksdict", "dict"), 1),
        ]
    parts = [Part("random8", 8, count, FAST, repeats)]
    if form == "full":
        parts.append(Part("random8", 8, 10 * count, FASTEST, min(repeats, 2)))
    parts.append(Part("random8", 8, min(count, 100_000), ("rowex", *SLOW), repeats))
    if form == "full":
        parts += [
            Part(shape, value, count, FAST, min(repeats, 2))
            for shape, value in (("url", 100), ("mail", 100), ("dense8", 8), ("random8", 100))
        ]
    return parts


def measure(
    parts: list[Part], folder: Path, budget_s: float, names: list[str], kept: Path | None, seed: int
) -> dict[str, Times]:
    """
    Every part, every peer that imports, in turn, so many times.

    Args:
        parts: What plan() says.
        folder: Where the files lie.
        budget_s: Seconds for each row of each round but the loads.
        names: Of the peers that are wanted; what does not import is named on stderr and left out.
        kept: Gets each figure as soon as it is there, and gives those of an earlier, broken run; None: nothing is kept.
        seed: For the choice of keys.

    Returns:
        Nanoseconds (or bytes) of every round, by part, peer and row.
    """
    state: dict[str, Any] = {}
    if kept and kept.exists():
        state = json.loads(kept.read_text(encoding="utf-8"))
    missing: set[str] = set()
    for part in parts:
        data = None
        for number in range(part.repeats):
            for name in part.peers:
                done = state.setdefault(part.title, {}).setdefault(name, [])
                if name not in names or name in missing or part.shape not in CODECS.get(name, (part.shape,)):
                    continue
                if len(done) > number:
                    continue
                data = data or make_data(part.shape, part.value, part.count, seed)
                room = folder / "unit"
                room.mkdir()
                begin = time.monotonic()
                try:
                    done.append(one_unit(name, room, data, budget_s))
                    print(
                        f"{part.title}: {name}, round {number + 1}: {time.monotonic() - begin:.0f} s", file=sys.stderr
                    )
                except ImportError as error:
                    print(f"{name}: left out ({error})", file=sys.stderr)
                    missing.add(name)
                finally:
                    shutil.rmtree(room)
                if kept:
                    kept.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    return {title: gathered(rounds) for title, rounds in state.items()}


def gathered(rounds: dict[str, list[dict[str, float]]]) -> Times:
    """By peer and row instead of by peer and round; peers without a figure are left out."""
    times: Times = {}
    for name, each in rounds.items():
        for row in each:
            for what, value in row.items():
                times.setdefault(name, {}).setdefault(what, []).append(value)
    return times
