"""
Several at once: two threads, two processes, a writer beside a reader, readers of a file that grows.
"""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .peers import Store

FORK = multiprocessing.get_context("fork")
LIMIT_S = 900
Open = Callable[[Path], Store]


def in_child(work: Callable[[], Any]) -> Any:
    """What work() returns, computed in a forked child; RuntimeError when that fails."""
    return together([work])[0]


def together(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each returns, run at the same time in forked children."""

    def run(pipe: Any, work: Callable[[], Any]) -> None:
        pipe.send(work())
        pipe.close()

    ends, children = [], []
    for work in works:
        here, there = FORK.Pipe(duplex=False)
        child = FORK.Process(target=run, args=(there, work))
        child.start()
        there.close()
        ends.append(here)
        children.append(child)
    results = []
    try:
        for end in ends:
            if not end.poll(LIMIT_S):
                raise RuntimeError(f"a child has not answered for {LIMIT_S} s")
            results.append(end.recv())
    except EOFError:
        raise RuntimeError("a child of the benchmark died") from None
    finally:
        for child in children:
            child.join(5 if len(results) == len(works) else 0)
            child.kill()
            child.join()
    return results


def threads(get_many: Callable[[list[Any]], object], keys: list[Any], budget_s: float) -> float:
    """Nanoseconds a key when two threads take batches of 1000 at once: elapsed time by all keys."""
    counts = [0, 0]
    barrier = threading.Barrier(3)

    def run(which: int) -> None:
        own = keys[which::2]
        batches = [own[at : at + 1000] for at in range(0, len(own) - 999, 1000)]
        barrier.wait()
        end = time.perf_counter() + budget_s
        for batch in itertools.cycle(batches):
            get_many(batch)
            counts[which] += 1000
            if time.perf_counter() > end:
                break

    workers = [threading.Thread(target=run, args=(which,)) for which in (0, 1)]
    for worker in workers:
        worker.start()
    barrier.wait()
    begin = time.perf_counter_ns()
    for worker in workers:
        worker.join()
    return (time.perf_counter_ns() - begin) / sum(counts)


Calls = tuple[int, int, int]  # how many, in how many ns; the longest in ns, where each was timed


def _timed(call: Callable[[Any], object], items: Sequence[Any], seconds: float, *, singly: bool, again: bool) -> Calls:
    clock, done, longest = time.perf_counter_ns, 0, 0
    begin = last = clock()
    end = begin + int(seconds * 1e9)
    while last < end and (again or done < len(items)):
        at = done % len(items)
        part = items[at : at + 1000]
        if singly:
            for item in part:
                call(item)
                now = clock()
                longest, last = max(longest, now - last), now
        else:
            for item in part:
                call(item)
            last = clock()
        done += len(part)
    return done, last - begin, longest


def _opened(open_: Open, folder: Path, items: list[Any]) -> Store:
    """
    The store, with all of its file read once, and all items touched.

    A child shares memory with its parent until it writes, and counting a reference is a write: without this the first
    look at each key would copy a page, and at each record of the file would map one, which no later one does.
    """
    for item in items:
        _ = item[0] if isinstance(item, tuple) else item
    store = open_(folder)
    store.loaded()
    deque(store.scan() if store.scan else (), maxlen=0)
    return store


def _gets(open_: Open, folder: Path, keys: list[Any], seconds: float, start: Any, *, singly: bool = False) -> Calls:
    store = _opened(open_, folder, keys)
    start.wait()
    result = _timed(store.get, keys, seconds, singly=singly, again=True)
    store.close()
    return result


def _puts(open_: Open, folder: Path, pairs: list[Any], seconds: float, start: Any, *, singly: bool = False) -> Calls:
    store = _opened(open_, folder, pairs)
    put = store.put
    start.wait()
    result = _timed(lambda pair: put(*pair), pairs, seconds, singly=singly, again=not singly) if put else (0, 0, 0)
    store.close()
    return result


def processes(open_: Open, folder: Path, keys: list[Any], budget_s: float) -> dict[str, float]:
    """One process that gets; two at once; two that put over what is there; one that gets and one that puts so."""
    row: dict[str, float] = {}
    start = FORK.Barrier(1)
    half = len(keys) // 2
    done, spent, _ = in_child(lambda: _gets(open_, folder, keys[:half], budget_s, start))
    row["process get"] = spent / done
    start = FORK.Barrier(2)
    both = together(
        [lambda part=part: _gets(open_, folder, part, budget_s, start) for part in (keys[:half], keys[half:])]
    )
    row["processes get"] = 1 / sum(done / spent for done, spent, _ in both)
    start = FORK.Barrier(2)
    pairs = [(key, b"replaced") for key in keys]
    both = together(
        [lambda part=part: _puts(open_, folder, part, budget_s, start) for part in (pairs[:half], pairs[half:])]
    )
    if not both[0][0]:  # a peer that only reads
        return row
    row["processes put"] = 1 / sum(done / spent for done, spent, _ in both)
    start = FORK.Barrier(2)
    gets, puts = together(
        [
            lambda: _gets(open_, folder, keys, budget_s, start),
            lambda: _puts(open_, folder, pairs, budget_s, start),
        ]
    )
    row["beside get"], row["beside put"] = gets[1] / gets[0], puts[1] / puts[0]
    return row


def growth(open_: Open, folder: Path, pairs: list[Any], budget_s: float) -> dict[str, float]:
    """One loads a new store key by key while another gets: the longest that each waited, in ns."""
    first = pairs[:1000]
    store = open_(folder)
    store.put_many(first)
    has_put = store.put is not None
    store.close()
    if not has_put:
        return {}
    start = FORK.Barrier(2)
    gets, puts = together(
        [
            lambda: _gets(open_, folder, [key for key, _ in first], budget_s, start, singly=True),
            lambda: _puts(open_, folder, pairs[1000:], budget_s, start, singly=True),
        ]
    )
    return {"stall get": gets[2], "stall put": puts[2]}
