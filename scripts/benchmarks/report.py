"""
What is printed: the machine, and tables that are Markdown and readable as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from .core import LABELS
from .rounds import Times
from .rows import ROWS

IN_MEMORY = ("dict", "SortedDict")
MILLISECONDS = ("open", "stall get", "stall put")
PACKAGES = ("rowex", "lmdb", "plyvel", "rocksdict", "diskcache", "sortedcontainers", "berkeleydb", "numpy")
INSTRUCTIONS = Path(__file__).with_name("instructions.json")


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


def medians(times: Times, name: str, row: str) -> float | None:
    """The median of a row's rounds; None where the peer has no such row."""
    found = times.get(name, {}).get(row)
    return statistics.median(found) if found else None


def best_peer(times: Times, row: str) -> tuple[str, float] | None:
    """Who of those that keep files, Rowex apart, took least; and how many times Rowex's time that is."""
    ours = medians(times, "rowex", row)
    theirs = [(value, name) for name in times if name not in IN_MEMORY and not name.startswith("rowex")
              and (value := medians(times, name, row))]  # fmt: skip
    if not ours or not theirs:
        return None
    value, name = min(theirs)
    return name, value / ours


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


def cell(row: str, value: float | None) -> str:
    """In the row's unit: ms for what takes long, else ns; bytes."""
    if value is None:
        return ""
    return f"{number(value / 1e6)} ms" if row in MILLISECONDS else number(value)


def python_table(times: Times) -> str:
    """A line a row, a column a peer; last, the best peer's figure in Rowex's: above 1 Rowex is ahead."""
    names = list(times)
    lines = [["ns", *names, "best peer"]]
    for row, label in ROWS.items():
        if not any(row in rows for rows in times.values()):
            continue
        best = best_peer(times, row)
        last = f"{best[1]:.2f}x {best[0]}" if best else ""
        lines.append([label, *(cell(row, medians(times, name, row)) for name in names), last])
    return table(lines)


def spread_table(times: Times) -> str:
    """How far the rounds lie apart: the largest less the smallest, in percent of the median."""
    lines = [["spread, %", *times]]
    for row, label in ROWS.items():
        if not any(row in rows for rows in times.values()):
            continue
        cells = [label]
        for rows in times.values():
            found = rows.get(row)
            many = found is not None and len(found) > 1
            cells.append(f"{100 * (max(found) - min(found)) / statistics.median(found):.0f}" if many else "")
        lines.append(cells)
    return table(lines)


def spread(times: Times) -> str:
    """spread_table(), where there is more than one round."""
    if max((len(found) for rows in times.values() for found in rows.values()), default=0) < 2:
        return "One round: how far another would have lain apart is not known."
    return f"How far the rounds lie apart:\n\n{spread_table(times)}"


def native_table(figures: dict[str, float]) -> str:
    """A line a figure."""
    lines = [[f"core alone, {figures['keys']:,.0f} keys", "", ""]]
    for name, (label, unit) in LABELS.items():
        if name in figures:
            note = f" ({figures['open_killed_keys']:,.0f} keys)" if name == "open_killed_ms" else ""
            lines.append([label + note, number(figures[name]), unit])
    return table(lines)


def instructions_table() -> str:
    """What scripts/instructions counted, as committed."""
    lines = [["core alone, an operation", "instructions", "last-level misses, simulated"]]
    for loop, figures in json.loads(INSTRUCTIONS.read_text(encoding="ascii")).items():
        lines.append([loop, number(figures["instructions"]), number(figures["misses"])])
    return table(lines)


def durable_table(figures: dict[str, Any]) -> str:
    """What scripts/bench-durable measured: a durable put, alone and in a crowd."""
    lines = [["durable put", "one thread, us", "a crowd, puts a second"]]
    for name, times in figures["alone_us"].items():
        crowd = figures["crowd_per_s"].get(name)
        lines.append([name, number(statistics.median(times)), f"{statistics.median(crowd):,.0f}" if crowd else ""])
    return table(lines)


def document(
    path: Path,
    machine: dict[str, str],
    tables: dict[str, Times],
    targets: str,
    native: dict[str, float] | None,
    durable: dict[str, Any] | None,
) -> None:
    """
    Write docs/benchmarks.md.

    Args:
        path: Of the document.
        machine: Of machine().
        tables: Of rounds.measure(), by title.
        targets: Of targets_table().
        native: Of the native part, if it was run.
        durable: What scripts/bench-durable --json wrote, if it was run.
    """
    out = [
        "# Benchmarks",
        "Made by `scripts/bench --document`, from what runs of `scripts/bench --keep` left; a table is of one run, and"
        " losses are in it. Durable puts are measured by `scripts/bench-durable`.",
        "\n".join(f"- {key}: {value}" for key, value in machine.items()),
        "Nanoseconds, medians of the rounds, unless a row says otherwise. `rowex` has no log, like its peers, none of"
        " which syncs here; `rowex batch` is the default, with one. The last column is the best peer that keeps a file:"
        " its figure in Rowex's of the same run, above 1 where Rowex is ahead. Longest waits are single worst cases,"
        " with the scheduler's whims. `lmdb held` reads in one transaction that is never given back: it sees no news."
        " A load at once is the peer's own best way: `rowex.build` and lmdb's append, which both sync what they made;"
        " where there is none, put_many. Before each load what was written is synced, and memory touched:"
        " where a host takes back what its virtual machine has free, a page's first touch takes ten times as long.",
        "![ratios to the best peer](benchmarks.svg)",
        "## What it set out to reach",
        "Ratios are how many times as fast as the peer named, in the same run; of lmdb's two ways the faster counts.",
        targets,
    ]
    for title, times in tables.items():
        out += [f"## {title}", python_table(times), spread(times)]
    if native:
        out += ["## The core from C", native_table(native)]
    out += [
        "Counted by callgrind (`scripts/instructions`), which no load of the machine changes:",
        instructions_table(),
    ]
    if durable:
        out += ["## Durable puts", durable_table(durable)]
    path.write_text("\n\n".join(out) + "\n", encoding="utf-8")
