"""
Whether what came of a dump is what its other reading (fuzz/dump_model.py) says: for fuzz/fuzz_dump.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dump_model import Case, Item, Reading

from rowex.index import Index
from rowex.opening import open_raw

MESSAGE_CHARS_MAX = 1000  # of a line: of what was refused, only a piece is repeated
OK, REFUSED, UNUSABLE = 0, 2, 3
STORED = re.compile(r"rowex: (\d+) item\(s\) stored(?:; (\d+) malformed)?$")
BROKEN_OFF = re.compile(r"; (\d+) items were stored, and perhaps some of the next (\d+)$")
LINE = re.compile(r"rowex: line (\d+): ")


class Different(Exception):
    """A finding."""


def expect(what: str, expected: Any, actual: Any) -> None:
    """A finding, if they differ."""
    if expected != actual:
        raise Different(f"{what}: expected {str(expected)[:600]}, found {str(actual)[:600]}")


def judge_message(status: int, told: str) -> None:
    """Every failure has a reason, which is short, and which a terminal does not obey."""
    if status not in (OK, REFUSED, UNUSABLE) or not told:
        raise Different(f"status {status}, told {told[:200]!r}")
    if not told.replace("\n", "").isprintable():
        raise Different(f"told what a terminal may obey: {told[:300]!r}")
    if max(map(len, told.splitlines())) > MESSAGE_CHARS_MAX:
        raise Different(f"a message of {len(told)} characters: {told[:300]!r}")


def judge_told(reading: Reading, status: int, told: str) -> None:
    """Of a dump that was loaded: the status, the lines that are named, and the counts."""
    malformed = len(reading.malformed) + reading.too_large
    expect("status", REFUSED if malformed else OK, status)
    *lines, last = told.splitlines()
    counts = STORED.match(last)
    expect("counts", (str(len(reading.items)), str(malformed) if malformed else None), counts and counts.groups())
    numbers = [int(found[1]) for found in map(LINE.match, lines) if found]
    expect("malformed lines", reading.malformed, numbers)
    expect("lines that are told", malformed, len(lines))


def broken_off(told: str, old: dict[bytes, bytes], items: list[Item], held: dict[bytes, bytes]) -> None:
    """Of an index that became full: what it says was stored is there, and of the next ones each or not."""
    counts = BROKEN_OFF.search(told.rstrip("\n"))
    if counts is None:
        raise Different(f"not told how much was stored: {told[-300:]!r}")
    done, perhaps = int(counts[1]), int(counts[2])
    sure = {**old, **dict(items[:done])}
    may: dict[bytes, set[bytes]] = {}
    for key, value in items[done : done + perhaps]:
        may.setdefault(key, set()).add(value)
    for key in held.keys() | sure.keys():
        if held.get(key) not in may.get(key, set()) | {sure.get(key)}:
            raise Different(f"after {done} items, of {key[:60]!r} there is {held.get(key, b'')[:60]!r}")


def check(index: Index) -> None:
    """The structure is sound."""
    expect("keys that check() meets", len(index), index.check().keys)


def judge(case: Case, reading: Reading, outcome: tuple[int, str], old: dict[bytes, bytes], index: Index) -> None:
    """
    Compare what came of a case with what should have.

    Args:
        case: The case.
        reading: What the model made of it.
        outcome: Exit status, and what was told.
        old: What the index held before.
        index: The index, open.
    """
    status, told = outcome
    held = dict(index.scan())
    if case.form == "npy" or not reading.certain:
        kept = [key for key in old if key not in held]
        expect("keys that are gone", [], kept)
        return
    if reading.codecs is None:
        expect("status", REFUSED, status)
        expect("items after a refusal", old, held)
    elif status == UNUSABLE and case.target == "full":
        broken_off(told, old, reading.items, held)
    else:
        judge_told(reading, status, told)
        expect("items", {**old, **dict(reading.items)}, held)


def judge_new(case: Case, reading: Reading, outcome: tuple[int, str], path: Path) -> None:
    """As `judge`, of an index that was not there."""
    if case.form != "npy" and reading.certain:
        expect("whether there is an index", reading.codecs is not None, path.exists())
    if path.exists():
        with open_raw(str(path), "r") as index:
            if case.form != "npy" and reading.certain:
                told = index.info()
                expect("codecs", reading.codecs, (told.keys_codec, told.values_codec))
                expect("checksum", reading.checksum, told.checksum)
            judge(case, reading, outcome, {}, index)
            check(index)
