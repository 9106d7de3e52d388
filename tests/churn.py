"""
Readers, scanners and writers on one index, all checking what they see.

The keys are of three sorts: stable ones, put before anybody starts and never touched; churned
ones, which writers put, replace and remove around them, so that nodes grow, shrink, split and
merge; and ones that never exist.  Used by tests in threads and processes, and by itself in the
test build, where freed cells are poisoned:

    python churn.py FOLDER SECONDS SEED
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
from tools import Child, assert_same, counted, make_value, read_value

STEMS = [b"", b"a", b"ab", b"user:", b"user:1000", b"long" * 30, b"long" * 30 + b"\x00", b"\xff\xff"]


def stable_keys() -> list[bytes]:
    """Keys that are always there, some of them prefixes of others."""
    return sorted({stem + bytes([64 + i]) * (i % 3 + 1) for stem in STEMS for i in range(0, 24, 2)})


def never_keys() -> list[bytes]:
    """Keys that are never there, beside the others in the same nodes."""
    return [key[:-1] + b"\x02" for key in stable_keys()]


def churned_key(rng: random.Random, writer: int) -> bytes:
    """A key that only this writer touches: a child, an extension or a prefix of others."""
    stem = rng.choice(STEMS)
    lead = bytes([65 + 2 * rng.randrange(12)])
    tail = rng.choice([b"", b"", b"x", b"deeper/%d" % rng.randrange(4), bytes([rng.randrange(3, 250)])])
    return stem + lead + tail + b"|%d" % writer


class Churn:
    """One index under churn."""

    def __init__(self, path: Path | None, index: Any = None) -> None:
        self.path = path
        self.index = index
        self.stable = stable_keys()
        self.never = never_keys()

    def prepare(self) -> None:
        """Put the stable keys."""
        with self.open() as index:
            index.put_many([(key, make_value(key, 7)) for key in self.stable])

    def open(self) -> Any:
        """A handle of this process's own."""
        assert self.path is not None
        return rowex.open(self.path)

    def write(self, index: Any, writer: int, seed: str, more: Callable[[], bool]) -> dict[bytes, bytes]:
        """Put, replace and remove; its own keys are always as it left them."""
        rng = random.Random(seed)
        mine: dict[bytes, bytes] = {}
        number = 0
        while more():
            for _ in range(50):
                number += 1
                key = churned_key(rng, writer)
                assert index.get(key) == mine.get(key), f"{key!r} changed under its only writer"
                if rng.random() < 0.45:
                    assert index.pop(key, None) == mine.pop(key, None)
                else:
                    mine[key] = make_value(key, number, rng.choice([0, 8, 40, 300, 1500]))
                    index[key] = mine[key]
        return mine

    def read(self, index: Any, seed: str, more: Callable[[], bool]) -> int:
        """Stable keys are always there, absent ones never, and every value is whole."""
        rng = random.Random(seed)
        count = 0
        while more():
            for key in rng.sample(self.stable, 20):
                value = index.get(key)
                assert value is not None, f"stable key {key!r} was missed"
                assert read_value(key, value) == 7
            for key in rng.sample(self.never, 10):
                assert index.get(key) is None
            for _ in range(20):
                key = churned_key(rng, rng.randrange(3))
                value = index.get(key)
                if value is not None:
                    read_value(key, value)
            for key in rng.sample(self.stable, 3):
                assert index.floor(key)[0] == key
                assert index.ceiling(key)[0] == key
            count += 53
        return count

    def scan(self, index: Any, seed: str, more: Callable[[], bool]) -> int:
        """Scans yield each stable key, in strict order, and nothing that is never there."""
        rng = random.Random(seed)
        never = set(self.never)
        count = 0
        while more():
            reverse = rng.random() < 0.5
            low, high = sorted(rng.sample(self.stable, 2))
            bounds = rng.choice([(None, None), (low, None), (None, high), (low, high), (low[:-1], high + b"\x00")])
            found = list(index.scan(*bounds, reverse=reverse))
            self.judge(found, never, *bounds, reverse=reverse)
            stem = rng.choice(STEMS)
            found = list(index.scan(prefix=stem, reverse=reverse))
            assert all(key.startswith(stem) for key, _ in found)
            expected = [key for key in self.stable if key.startswith(stem)]
            assert set(expected) <= {key for key, _ in found}
            count += 2
        return count

    def judge(
        self,
        found: list[tuple[bytes, bytes]],
        never: set[bytes],
        start: bytes | None,
        stop: bytes | None,
        *,
        reverse: bool,
    ) -> None:
        """Whether one scan kept promise P2."""
        keys = [key for key, _ in found]
        ascending = keys[::-1] if reverse else keys
        assert all(x < y for x, y in itertools.pairwise(ascending)), "not strictly in order"
        assert start is None or not ascending or ascending[0] >= start
        assert stop is None or not ascending or ascending[-1] < stop
        must = [k for k in self.stable if (start is None or start <= k) and (stop is None or k < stop)]
        missed = set(must).difference(keys)
        assert not missed, f"{len(missed)} stable keys were missed, {min(missed)!r} the first"
        assert never.isdisjoint(keys)
        for key, value in found:
            read_value(key, value)

    def settle(self, index: Any, left: dict[bytes, bytes]) -> None:
        """When all is quiet, exactly what the writers left is there."""
        assert len(index) == counted(index)
        assert_same(index, {**{key: make_value(key, 7) for key in self.stable}, **left})


def in_threads(churn: Churn, index: Any, seconds: float, seed: str, *, writers: int = 2) -> None:
    """Writers, readers and a scanner in threads of this process, on one handle."""
    deadline = time.monotonic() + seconds
    left: dict[bytes, bytes] = {}
    failures: list[BaseException] = []

    def more() -> bool:
        return not failures and time.monotonic() < deadline

    def run(job: Callable[..., Any], *args: Any) -> None:
        try:
            result = job(*args)
            if isinstance(result, dict):
                left.update(result)
        except BaseException as error:
            failures.append(error)

    jobs = [(churn.write, index, w, f"{seed} w{w}", more) for w in range(writers)]
    jobs += [(churn.read, index, f"{seed} r{r}", more) for r in range(2)]
    jobs += [(churn.scan, index, f"{seed} s", more)]
    threads = [threading.Thread(target=run, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    churn.settle(index, left)


def in_processes(
    churn: Churn, seconds: float, seed: str, start: Callable[..., Child] = Child, *, readers: int = 1
) -> None:
    """Two writers, readers and a scanner, each a process with a handle of its own."""
    deadline = time.monotonic() + seconds

    def more() -> bool:
        return time.monotonic() < deadline

    def write(pipe: Any, writer: int) -> None:
        with churn.open() as index:
            pipe.send(churn.write(index, writer, f"{seed} w{writer}", more))

    def read(pipe: Any, number: int) -> None:
        with churn.open() as index:
            pipe.send(churn.read(index, f"{seed} r{number}", more))

    def scan(pipe: Any) -> None:
        with churn.open() as index:
            pipe.send(churn.scan(index, f"{seed} s", more))

    with churn.open() as index:
        writers = [start(write, w) for w in range(2)]
        watchers = [*(start(read, r) for r in range(readers)), start(scan)]
        left: dict[bytes, bytes] = {}
        for process in writers:
            left.update(process.recv(seconds + 30))
        for process in watchers:
            assert process.recv(seconds + 30) > 0
        for process in (*writers, *watchers):
            process.finish()
        churn.settle(index, left)


def main() -> None:
    """Everything at once, in the test build."""
    folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    churn = Churn(folder / "index.rowex")
    churn.prepare()
    with churn.open() as index:
        in_threads(churn, index, seconds / 2, seed)
        reclaimed = index.stats().reclaimed_cells
        index.remove_many([key for key in index if key not in set(churn.stable)])
    in_processes(churn, seconds / 2, seed)
    print(f"reclaimed={reclaimed}")


if __name__ == "__main__":
    main()
