"""
What is printed: the machine, and tables that are Markdown and readable as they are.
"""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from .core import LABELS
from .rounds import ROWS, Times

PACKAGES = ("rowex", "lmdb", "plyvel", "rocksdict", "diskcache", "sortedcontainers")


def machine(folder: Path) -> dict[str, str]:
    """What it runs on: processor, cores, kernel, Python, file system, load, versions."""
    model, system = platform.machine(), "unknown"
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    with contextlib.suppress(OSError):
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
        above = [(len(at), kind) for at, kind in mounts if folder.resolve().is_relative_to(at)]
        system = max(above)[1] if above else system
    versions = []
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "files on": system,
        "load at start": f"{os.getloadavg()[0]:.2f}",
        "packages": ", ".join(versions),
    }


def number(value: float) -> str:
    """Three digits or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def ratio(times: Times, name: str, row: str) -> str:
    """How many times Rowex's time the peer took, the median over rounds."""
    pairs = zip(times[name][row], times["rowex"][row], strict=True)
    return f"{statistics.median(theirs / ours for theirs, ours in pairs):.2f}x"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Markdown with aligned columns; the first line is the head."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    out = []
    for line in lines:
        name, *numbers = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        numbers = [cell.rstrip().rjust(len(cell)) for cell in numbers]
        out.append("| " + " | ".join([name, *numbers]) + " |")
    first, *rest = widths
    out.insert(1, "|" + "-" * (first + 2) + "|" + "".join("-" * (width + 1) + ":|" for width in rest))
    return "\n".join(out)


def python_table(times: Times) -> str:
    """A line a row, a column a peer; in brackets the peer's time in Rowex's."""
    lines = [["ns", *times]]
    for row, label in ROWS.items():
        cells = [label]
        for name, rows in times.items():
            if row not in rows:
                cells.append("-")
            elif name == "rowex" or row not in times.get("rowex", {}):
                cells.append(number(statistics.median(rows[row])))
            else:
                cells.append(f"{number(statistics.median(rows[row]))} ({ratio(times, name, row)})")
        lines.append(cells)
    return table(lines)


def spread_table(times: Times) -> str:
    """How far the rounds lie apart: the largest less the smallest, in percent of the median."""
    lines = [["spread, %", *times]]
    for row, label in ROWS.items():
        cells = [label]
        for rows in times.values():
            found = rows.get(row)
            cells.append(f"{100 * (max(found) - min(found)) / statistics.median(found):.0f}" if found else "-")
        lines.append(cells)
    return table(lines)


def native_table(figures: dict[str, float]) -> str:
    """A line a figure."""
    lines = [[f"core alone, {figures['keys']:,.0f} keys", "", ""]]
    for name, (label, unit) in LABELS.items():
        if name in figures:
            note = f" ({figures['open_killed_keys']:,.0f} keys)" if name == "open_killed_ms" else ""
            lines.append([label + note, number(figures[name]), unit])
    return table(lines)
