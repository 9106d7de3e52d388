"""
What Rowex set out to reach, beside what it reaches: from the figures of a run, losses included.

Each target is judged in every table of random 8-byte keys with values of 8 bytes that has what it
needs, against peers of the same table: those that keep a file.  lmdb is there twice, with a
transaction a call and with one held; the faster counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .report import best_peer, medians, number, table
from .rounds import Times

LMDB = ("lmdb", "lmdb held")
REACHED = "reached"
Found = tuple[float, str] | None  # our figure, and of what


@dataclass(frozen=True)
class Target:
    """
    A figure to reach.

    Attributes:
        what: The row, for people.
        goal: At least (ratios), or at most (units).
        unit: "x": a ratio, at least; else a unit, at most.
        find: Our figure in a table.
        least: Keys of the smallest table in which it is to be reached.
        most: Of the largest.
        why: What stands in the way where it is not reached.
    """

    what: str
    goal: float
    unit: str
    find: Callable[[Times], Found]
    least: int = 0
    most: int = 1 << 62
    why: str = ""


def against(row: str, *names: str) -> Callable[[Times], Found]:
    """The best of the peers named (none: of all that keep a file), in ours."""

    def find(times: Times) -> Found:
        best = best_peer({name: rows for name, rows in times.items() if not names or name in ("rowex", *names)}, row)
        return (best[1], best[0]) if best else None

    return find


def alone(row: str, name: str = "rowex", part: float = 1) -> Callable[[Times], Found]:
    """The figure itself; `part` of it."""

    def find(times: Times) -> Found:
        value = medians(times, name, row)
        return (value * part, name) if value else None

    return find


def rate(row: str, name: str) -> Callable[[Times], Found]:
    """Millions a second."""

    def find(times: Times) -> Found:
        value = medians(times, name, row)
        return (1000 / value, name) if value else None

    return find


def scaling(one: str, both: str, name: str = "rowex") -> Callable[[Times], Found]:
    """One row's figure in another's, both ours: how much faster two are than one."""

    def find(times: Times) -> Found:
        first, second = medians(times, name, one), medians(times, name, both)
        return (first / second, "of one") if first and second else None

    return find


OBJECTS = (
    "keys and values are Python's objects, which are read and made with the interpreter lock held; those of an array"
    " are not (the row below)"
)
FIRST_TOUCH = (
    "each page of a new file is touched, zeroed and written once, and ours has some more; key objects that lie"
    " anywhere in memory cost both the same"
)
PUT_BY_PUT = (
    "each put is atomic by itself, with a leaf, a lock and a store of its own, and nodes grow as they fill;"
    " `rowex.build`, which has a new file to itself, does without"
)
PLACES = (
    "the leaves lie where they were put, most of them in a page of its own, and lmdb's in order in a few. After"
    " `compact()` ours lie side by side"
)
MEMORY = (
    'a key takes several loads that no cache holds; what this machine takes for one is told below ("for'
    " comparison\"). The goals were set on one where lmdb's random get of 1,000,000 keys took 440 to 840 ns"
)
ONE_BY_ONE = (
    "the loads that no cache holds wait for each other, as one tells where the next is; put_many sends for those"
    " of many keys at once"
)
COPIES = "each key and value is checked against damage, and copied out: nothing of the file is looked at after the call"
TARGETS = (
    Target("get, one hot key", 90, "ns", alone("get hot")),
    Target("get, one hot key", 2.5, "x", against("get hot", *LMDB)),
    Target("get, random", 1.6, "x", against("get hit", *LMDB), least=1_000_000),
    Target("get_many of 100", 4, "x", against("get_many", *LMDB), least=1_000_000),
    Target("get_many of 1000", 4, "x", against("get_many 1000", *LMDB), least=1_000_000),
    Target("two threads on get_many", 1.7, "x", scaling("get_many 1000", "threads get_many"), why=OBJECTS),
    Target("two threads on get_many of an array", 1.7, "x", scaling("get_columns", "get_columns two", "rowex int")),
    Target("put, no wait", 2.5, "x", against("put"), least=1_000_000),
    Target("put_many in random order", 1, "x", against("put_many"), least=1_000_000, most=9_999_999),
    Target("put_many in random order", 2.5, "x", against("put_many"), least=10_000_000),
    Target("load in key order at once", 1.3, "x", against("bulk sorted"), why=FIRST_TOUCH),
    Target("load behind what is there", 1.3, "x", against("append"), why=PUT_BY_PUT),
    Target("delete", 2, "x", against("delete")),
    Target("full scan, an item", 1, "x", against("scan", *LMDB)),
    Target("range of 100", 1.3, "x", against("range", *LMDB), why=PLACES),
    Target("file, bytes a key", 56, "bytes", alone("disk"), least=10_000_000),
    Target("file after compact, bytes a key", 44, "bytes", alone("compacted"), least=10_000_000),
    Target("two processes on get", 1.9, "x", scaling("process get", "processes get")),
    Target("two processes on get, against two of lmdb's", 1, "x", against("processes get", "lmdb")),
    Target(
        "get_many of an array of integers, one core",
        12,
        "M/s",
        rate("get_columns", "rowex int"),
        least=10_000_000,
        why=MEMORY,
    ),
    Target("load of sorted integers, one core", 3, "M/s", rate("put_columns", "rowex int")),
)
NATIVE = (
    ("core: get_many of 32, a key", 45, "get_many_32_ns", MEMORY),
    ("core: insert, one by one", 220, "insert_ns", ONE_BY_ONE),
    ("core: insert by put_many of 32, a key", 220, "put_many_32_ns", ""),
    ("core: scan as it was put, a key", 15, "scan_ns", f"{PLACES}; and {COPIES}"),
    ("core: scan after compact, a key", 15, "compacted_scan_ns", COPIES),
)


def keys_of(title: str) -> int | None:
    """How many keys the table with this title is of; None: not one that targets speak of."""
    count, _, rest = title.partition(" ")
    return int(count.replace(",", "")) if rest == "random 8-byte keys, values of 8 bytes" else None


def line(what: str, keys: float, goal: float, unit: str, ours: float, of: str) -> list[str]:
    """One judgement.  Ratios and rates are to be reached, sizes and times to be kept below."""
    upward = unit in ("x", "M/s")
    good = ours >= goal if upward else ours <= goal
    space = "" if unit == "x" else " "
    shown = number(ours)
    if good != (float(shown) >= goal if upward else float(shown) <= goal):  # rounded across the goal
        shown = f"{ours:.5g}"
    told = f"{shown}{space}{unit}" + (f" {of}" if unit == "x" else "")
    return [what, f"{keys:,.0f}", f"{'>=' if upward else '<='} {number(goal)}{space}{unit}", told,
            REACHED if good else "not reached"]  # fmt: skip


def targets_table(tables: dict[str, Times], native: dict[str, float] | None) -> str:
    """
    A line for each target in each table that can tell; and why those are not reached that are not.

    Args:
        tables: Of rounds.measure().
        native: Of core.measure(), if it was run.

    Returns:
        Markdown.
    """
    lines = [["to reach", "keys", "goal", "measured", ""]]
    missed: dict[str, list[str]] = {}
    for target in TARGETS:
        for title, times in tables.items():
            keys = keys_of(title)
            if keys is None or not target.least <= keys <= target.most:
                continue
            if not set(LMDB) & set(times):  # the table of the slow peers
                continue
            if found := target.find(times):
                lines.append(line(target.what, keys, target.goal, target.unit, *found))
                if lines[-1][-1] != REACHED:
                    missed.setdefault(target.why, []).append(target.what)
    for what, goal, name, why in NATIVE:
        if native and name in native:
            lines.append(line(what, native["keys"], goal, "ns", native[name], ""))
            if lines[-1][-1] != REACHED:
                missed.setdefault(why, []).append(what)
    reasons = [f"- {'; '.join(dict.fromkeys(of))}: {why or 'not known'}." for why, of in missed.items()]
    return "\n\n".join([table(lines), *(["What stands in the way:", "\n".join(reasons)] if reasons else [])])
