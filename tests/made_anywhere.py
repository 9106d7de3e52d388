"""
Changes that are interrupted wherever the interpreter may run a signal handler: at the begin of each
Python function of the package, and behind each of its calls of what is no Python function.  Whatever was
made by then, the exception says so; and nothing says so that was not.

Arguments: a folder.  Prints at how many places a change was interrupted, and how often it was made.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import rowex
from rowex.codecs import INT

PACKAGE = str(Path(rowex.__file__).parent)
ONE = INT.encode(1)


def over(frame: FrameType | None) -> bool:
    """Whether nothing is left but to return: to the caller it is the same as an interrupt behind the call."""
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        for step in dis.get_instructions(frame.f_code):
            if step.offset < frame.f_lasti or (step.offset == frame.f_lasti and step.opname.startswith("CALL")):
                continue
            if step.opname.startswith("RETURN"):
                break
            if step.opname not in ("CACHE", "NOP", "POP_TOP", "LOAD_CONST"):
                return False
        frame = frame.f_back
    return True


class Interrupt:
    """Raises KeyboardInterrupt at the place of that number."""

    def __init__(self, at: int) -> None:
        self.at, self.places = at, 0
        self._last: dict[FrameType, int] = {}

    def _place(self, frame: FrameType) -> None:
        if over(frame):
            return
        self.places += 1
        if self.places > self.at:
            sys.settrace(None)
            raise KeyboardInterrupt

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        """As sys.settrace() has it."""
        if event == "call":
            if frame.f_back is not None:
                self._last.pop(frame.f_back, None)  # behind a Python function's return nothing is asked
            if not frame.f_code.co_filename.startswith(PACKAGE):
                return None
            frame.f_trace_opcodes = True
            self._place(frame)
        elif event == "opcode":
            before = self._last.pop(frame, None)
            self._last[frame] = frame.f_lasti
            if before is not None:
                name = dis.opname[frame.f_code.co_code[before]]
                if name.startswith("CALL") and "INTRINSIC" not in name:
                    self._place(frame)
        return self


class Batch:
    """Its ticket is told otherwise."""

    def __call__(self, index: Any, n: int) -> None:
        with index.batch() as batch:
            batch.put(f"key/{n}", 9)


# Each is interrupted at all its places; n is another one each time, and "key/n" and "raw/n" are there.
WAYS: list[Callable[[Any, int], object]] = [
    lambda index, n: index.put(f"key/{n}", 1),
    lambda index, n: index.insert(f"new/{n}", 1),
    lambda index, n: index.compare_and_set(f"key/{n}", 0, 1),
    lambda index, n: index.remove(f"key/{n}"),
    lambda index, n: index.discard(f"key/{n}"),
    lambda index, n: index.__setitem__(f"key/{n}", 1),
    lambda index, n: index.__delitem__(f"key/{n}"),
    lambda index, n: index.raw.put(b"raw/%d" % n, ONE),
    lambda index, n: index.raw.pop(b"key/%d" % n),
    lambda index, n: index.raw.popitem(),
    lambda index, n: index.raw.setdefault(b"new/%d" % n, ONE),
    Batch(),
]
# What decodes what it has taken out, or changes several keys one after the other (how many), may be interrupted
# when all is made, and not know it; it never says that all was made where it was not.
LESS: list[tuple[Callable[[Any, int], object], int]] = [
    (lambda index, n: index.pop(f"key/{n}"), 1),
    (lambda index, n: index.popitem(), 1),
    (lambda index, n: index.setdefault(f"new/{n}", 1), 1),
    (lambda index, n: index.put_many({f"key/{n}": 2, f"new/{n}": 2}), 2),
    (lambda index, n: index.remove_many([f"key/{n}", "no", f"raw/{n}"]), 2),
    (lambda index, n: index.raw.put_many([(b"raw/%d" % n, ONE), (b"key/%d" % n, ONE)]), 2),
]


def interrupted(
    index: Any, way: Callable[[Any, int], object], n: int, at: int, changes: int
) -> tuple[bool, bool] | None:
    """Whether all was made when it was interrupted at that place, and whether it was told; None: no such place."""
    index.put_many({f"key/{n}": 0, f"raw/{n}": 0})
    before = index.position
    tracer = Interrupt(at)
    try:
        sys.settrace(tracer)
        try:
            way(index, n)
        finally:
            sys.settrace(None)
    except KeyboardInterrupt as error:
        ticket = getattr(error, "ticket", None)
        assert ticket is None or before < ticket <= index.position
        return index.position - before == changes, ticket is not None
    return None


def main(folder: str) -> None:
    places = all_made = n = 0
    ways = [(way, 1, True) for way in WAYS] + [(way, changes, False) for way, changes in LESS]
    for durability in ("commit", "batch"):
        with rowex.open(Path(folder) / f"{durability}.rowex", keys="str", values="int", durability=durability) as index:
            for way, changes, always in ways:
                at = 0
                while (happened := interrupted(index, way, n, at, changes)) is not None:
                    made, told = happened
                    where = f"place {at} of {ways.index((way, changes, always))}, {durability}"
                    assert made or not told, f"{where}: it says that it was made, and it was not"
                    assert told or not made or not always, f"{where}: it was made, and does not say so"
                    places, all_made, at, n = places + 1, all_made + made, at + 1, n + 1
                n += 1
            index.check()
    print(places, all_made)


if __name__ == "__main__":
    main(*sys.argv[1:])
