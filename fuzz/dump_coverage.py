"""
Which lines of the package's Python follow which, and how often: what guides fuzz/fuzz_dump.py.

A pair of lines counts as reached anew when it was passed clearly more often than before: once, two or three
times, four to fifteen times, or more often.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

import rowex

PACKAGE = str(Path(rowex.__file__).parent)
LINES_MAX = 1 << 12  # of a file
CLASSES = [0, 1, 2, 2, *[3] * 12, 4]


class Coverage:
    """A context: what runs in it is watched."""

    def __init__(self) -> None:
        self._bases: dict[str, int] = {}
        self._tracers: dict[str, Any] = {}
        self._counts: dict[int, int] = {}
        self._last = [0]
        self._watching = False
        if sys.version_info >= (3, 12):
            tool = sys.monitoring.COVERAGE_ID
            sys.monitoring.use_tool_id(tool, "fuzz_dump")
            sys.monitoring.register_callback(tool, sys.monitoring.events.LINE, self._on_line)
            sys.monitoring.set_events(tool, sys.monitoring.events.LINE)  # for good, as each change is slow

    def reached(self) -> set[int]:
        """Pairs of lines, each with its class of counts, of what ran last."""
        return {pair << 4 | CLASSES[min(count, 16)] for pair, count in self._counts.items()}

    def __enter__(self) -> None:
        self._counts.clear()
        self._last[0] = 0
        self._watching = True
        if sys.version_info < (3, 12):
            sys.settrace(self._on_call)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._watching = False
        if sys.version_info < (3, 12):
            sys.settrace(None)

    @staticmethod
    def unwatched(function: Callable[[str], None]) -> Callable[[str], None]:
        """The function, of whose calls nothing is seen; for one that takes most of the time, a step a character."""
        if sys.version_info >= (3, 12):
            return function

        def call(argument: str) -> None:
            trace = sys.gettrace()
            sys.settrace(None)
            function(argument)
            sys.settrace(trace)

        return call

    def _base(self, name: str) -> int:
        """Where the lines of a file begin among all; 0 of one that is not looked at."""
        base = self._bases.get(name)
        if base is None:
            base = (len(self._bases) + 1) * LINES_MAX if name.startswith(PACKAGE) else 0
            self._bases[name] = base
        return base

    def _on_line(self, code: CodeType, line: int) -> Any:
        base = self._base(code.co_filename)
        if not base:
            return sys.monitoring.DISABLE  # type: ignore[attr-defined] # of Python 3.12
        if not self._watching:
            return None
        pair = self._last[0] << 24 | base + line
        self._counts[pair] = self._counts.get(pair, 0) + 1
        self._last[0] = base + line
        return None

    def _on_call(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in self._tracers:
            self._tracers[name] = self._tracer(self._base(name), self._counts, self._last)
        return self._tracers[name]

    @staticmethod
    def _tracer(base: int, counts: dict[int, int], last: list[int]) -> Any:
        """Of the frames of a file; it takes most of a run's time, so all is at hand."""
        if not base:
            return None

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if event == "line":
                line = base + frame.f_lineno
                pair = last[0] << 24 | line
                counts[pair] = counts.get(pair, 0) + 1
                last[0] = line
            return trace

        return trace
