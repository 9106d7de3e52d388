#!/usr/bin/env python3
"""
Checks what no compiler checks: where words may stand, how long files may be, that sources are ASCII.

    scripts/tidy.py        prints each breach; the exit status is 1 if there is one

The limits are ratchets: a file that is named with a larger one may shrink, never grow.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
C_LINES, PYTHON_LINES = 500, 450
LONGER = {"change.c": 650}  # putting and removing share their steps

# Atomics live in persist.h.  These touch flags of the process itself: no file, no other process.
PROCESS_LOCAL = {
    "batch.c", "change.c", "check.c", "close.c", "copy.c", "core.h", "crash.h", "cursor.c",
    "duplicate.c", "epoch.c", "epoch.h",
    "error.c", "file.c", "fork.c", "guard.h", "index.c", "intent.c", "lock.h", "manage.c", "open.c", "persist.c",
    "persist.h", "registry.c", "sigbus.c", "uid.c", "walk.c", "claim.c", "scan.c", "verify.c", "gate.c",
}  # fmt: skip
# System calls on files.
FILE_CALLS = re.compile(r"\b(fallocate|ftruncate|msync|fsync|fdatasync|renameat|unlinkat|pwrite)\(")
FILES = {"file.c", "create.c", "close.c", "open.c", "registry.c", "manage.c", "duplicate.c", "fork.c"}


def breaches() -> list[str]:
    """Every breach, one a line."""
    found: list[str] = []
    for path in sorted((ROOT / "rowex").rglob("*.[ch]")):
        text, name = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
        if not text.isascii():
            found.append(f"{name}: not ASCII")
        lines, limit = text.count("\n"), LONGER.get(path.name, C_LINES)
        if lines > limit:
            found.append(f"{name}: {lines} lines, {limit} are allowed")
        if path.name.startswith("hot"):
            continue
        if "__atomic_" in text and path.name not in PROCESS_LOCAL:
            found.append(f"{name}: atomics belong into persist.h")
        if path.suffix == ".c" and path.name not in FILES and (call := FILE_CALLS.search(text)):
            found.append(f"{name}: {call.group(1)}() belongs into file.c and its neighbours")
        if "TODO" in text or "FIXME" in text:
            found.append(f"{name}: a loose end")
    for path in sorted((ROOT / "rowex").rglob("*.py")):
        lines, name = path.read_text("utf-8").count("\n"), path.relative_to(ROOT).as_posix()
        if lines > PYTHON_LINES:
            found.append(f"{name}: {lines} lines, {PYTHON_LINES} are allowed")
    return found


if __name__ == "__main__":
    problems = breaches()
    print("\n".join(problems) or "tidy")
    sys.exit(bool(problems))
