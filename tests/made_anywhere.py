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

PACKAGE = str(Path(rowex.__file__).parent)


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


# Each is interrupted at all its places; n is another one each time, and "key/n" is there.  What decodes what it has
# taken out, or changes several keys one after the other, may be interrupted when all is made, and not know it.
WAYS: list[Callable[[Any, int], object]] = [
    lambda index, n: index.put(f"key/{n}", 1),
    lambda index, n: index.insert(f"new/{n}", 1),
    lambda index, n: index.compare_and_set(f"key/{n}", 0, 1),
    lambda index, n: index.remove(f"key/{n}"),
    lambda index, n: index.discard(f"key/{n}"),
    lambda index, n: index.__setitem__(f"key/{n}", 1),
    lambda index, n: index.__delitem__(f"key/{n}"),
    lambda index, n: index.raw.put(b"raw/%d" % n, b""),
    lambda index, n: index.raw.pop(b"key/%d" % n),
    lambda index, n: index.raw.popitem(),
    lambda index, n: index.raw.setdefault(b"raw/%d" % n, b"x"),
    Batch(),
]


def interrupted(index: Any, way: Callable[[Any, int], object], n: int, at: int) -> bool | None:
    """Whether the change was made that was interrupted at that place; None: there is no such place."""
    index.put(f"key/{n}", 0)
    before = index.position
    tracer = Interrupt(at)
    try:
        sys.settrace(tracer)
        try:
            way(index, n)
        finally:
            sys.settrace(None)
    except KeyboardInterrupt as error:
        made = index.position > before
        ticket = getattr(error, "ticket", None)
        assert (ticket is not None) == made, f"place {at} of {WAYS.index(way)}: made {made}, ticket {ticket}"
        assert ticket is None or before < ticket <= index.position
        return bool(made)
    return None


def main(folder: str) -> None:
    places = made = n = 0
    for durability in ("commit", "batch"):
        with rowex.open(Path(folder) / f"{durability}.rowex", keys="str", values="int", durability=durability) as index:
            for way in WAYS:
                at = 0
                while (happened := interrupted(index, way, n, at)) is not None:
                    places, made, at, n = places + 1, made + happened, at + 1, n + 1
                n += 1
            index.check()
    print(places, made)


if __name__ == "__main__":
    main(*sys.argv[1:])
