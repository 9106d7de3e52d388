#!/usr/bin/env python3
"""
Checks what no compiler checks: which way includes point, where words may stand, how long files may
be, that sources are ASCII.

    scripts/tidy.py [FOLDER]      prints each breach; the exit status is 1 if there is one

The limits are ratchets: a file that is named with a larger one may shrink, never grow; a name that is
no longer needed in a list is a breach too.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

C_LINES, PYTHON_LINES = 500, 450
LONGER = {
    "tests/test_transactions.py": 477,
}

# The order in which the core is read: a header includes only what stands before it.
FLOOR = """allocate.h bytes.h errors.h format.h trace.h persist.h crash.h disk.h core.h index.h log.h cell.h node.h
    tree.h lock.h window.h cursor.h gather.h file.h manage.h fileio.h segment.h flush.h frames.h checkpoint.h
    recovery.h durable.h""".split()
MIDDLE = "bits.h epoch.h uid.h alloc.h cells.h intent.h settle.h scan.h build.h gate.h".split()
ROOF = "image.h guard.h change.h transaction.h batch.h column.h attach.h hot_api.h hot.h".split()
ORDER = FLOOR + MIDDLE + ROOF
# Sources of the floor know its headers alone; those of gc/ nothing of the roof.
FLOOR_SOURCES = """crc.c cursor.c disk.c error.c file.c fork.c gather.c log.c manage.c map.c node.c persist.c replay.c
    segment.c sigbus.c super.c trace.c tree.c window.c""".split()
UPWARD = {("uid.c", "guard.h")}  # the thread's own uid is cached where a call begins

# Atomics live in persist.h.  These touch flags and pointers of the process itself, in no file.
PROCESS_LOCAL = """checkpoint.c close.c copy.c core.h disk.c duplicate.c durable.c epoch.c epoch.h
    error.c file.c flush.c gate.c gather.c guard.h index.c intent.c persist.c scan.c sigbus.c
    trace.c uid.c verify.c walk.c""".split()

# System calls that change files: only under the names that disk.h gives them, and only in these.
FILE_CALLS = re.compile(
    r"\b(rx_sys_)?(fallocate|ftruncate|msync|fsync|fdatasync|linkat|renameat|unlinkat|pwrite)\((?!2\))"
)
FILES = "backup.c building.c checkpoint.c create.c file.c manage.c open.c recovery.c segment.c".split()

# Those that find, look at, lock and read files have their names there too, but stand anywhere.
FILE_LOOKS = re.compile(
    r"(?<![\w.])(open|openat|pread|mkdirat|f?stat|fstatat|f?statfs|fdopendir|opendir|readdir|fchown|fchmod"
    r"|fgetxattr|fsetxattr|fremovexattr|flock|madvise|realpath|readlink|close|closedir|fcntl(?=\([^;]*LK))\((?!\))"
)

# Memory and threads of the process: only under the names of allocate.h.
ALLOCATIONS = re.compile(
    r"(?<!\w)(malloc|calloc|realloc|strdup|strndup|asprintf|aligned_alloc|posix_memalign|pthread_create)\("
)

LOOSE_END = re.compile(r"\b(TODO|FIXME|XXX)\b")


def check_length(name: str, text: str) -> list[str]:
    """Files fit on a desk."""
    lines = text.count("\n")
    usual = PYTHON_LINES if name.endswith(".py") else C_LINES
    limit = LONGER.get(name, usual)
    if lines > limit:
        return [f"{name}: {lines} lines, {limit} are allowed"]
    if name in LONGER and lines <= usual:
        return [f"{name}: {lines} lines, it need not be named in LONGER"]
    return []


def check_words(name: str, text: str) -> list[str]:
    """Atomics and file calls stand where they belong."""
    found = []
    base = Path(name).name
    if base.startswith("hot") and name.endswith(".c"):
        return []  # objects of Python's, nothing of a file's
    atomic = "__atomic_" in text
    if atomic and base != "persist.h" and base not in PROCESS_LOCAL:
        found.append(f"{name}: atomics belong into persist.h")
    if not atomic and base in PROCESS_LOCAL:
        found.append(f"{name}: without atomics, it need not be named in PROCESS_LOCAL")
    calls = list(FILE_CALLS.finditer(text)) if name.endswith(".c") and base != "disk.c" else []
    if bare := [call.group(2) for call in calls if not call.group(1)]:
        found.append(f"{name}: {bare[0]}() is called rx_sys_{bare[0]}() here")
    if calls and base not in FILES:
        found.append(f"{name}: {calls[0].group(2)}() belongs into file.c and its neighbours")
    if not calls and base in FILES:
        found.append(f"{name}: without calls on files, it need not be named in FILES")
    if name.endswith(".c") and base != "disk.c" and (look := FILE_LOOKS.search(text)):
        found.append(f"{name}: {look.group(1)}() has another name here (disk.h)")
    if base not in ("disk.c", "allocate.h") and (bare := ALLOCATIONS.search(text)):
        found.append(f"{name}: {bare.group(1)}() has another name here (allocate.h)")
    return found


def check_includes(name: str, text: str) -> list[str]:
    """No include points upward."""
    base = Path(name).name
    included = [Path(each).name for each in re.findall(r'^#include "([^"]+)"', text, re.MULTILINE)]
    if base.endswith(".h"):
        if base not in ORDER:
            return [f"{name}: a header that is not in the order of reading"]
        allowed = ORDER[: ORDER.index(base)]
    elif base in FLOOR_SOURCES:
        allowed = FLOOR
    elif "/gc/" in name:
        allowed = FLOOR + MIDDLE
    else:
        allowed = ORDER
    return [
        f"{name}: includes {each}, which stands above it"
        for each in included
        if each not in allowed and (base, each) not in UPWARD
    ]


def breaches(root: Path) -> list[str]:
    """
    Every breach, one a line.

    Args:
        root: The checkout.

    Returns:
        What is wrong, by file; empty when all is tidy.
    """
    found: list[str] = []
    for folder in ("rowex", "fuzz", "tests", "scripts"):
        for path in sorted((root / folder).rglob("*.*")):
            if path.suffix not in (".c", ".h", ".py") or "build" in path.relative_to(root).parts:
                continue
            text, name = path.read_text("utf-8"), path.relative_to(root).as_posix()
            found += check_length(name, text)
            if path.suffix != ".py":
                if not text.isascii():
                    found.append(f"{name}: not ASCII")
                if folder == "rowex":
                    found += check_words(name, text) + check_includes(name, text)
            if name != "scripts/tidy.py" and (end := LOOSE_END.search(text)):
                found.append(f"{name}: a loose end, {end.group()}")
    return found


def main() -> int:
    """Print every breach; 1 if there is one."""
    problems = breaches(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
    print("\n".join(problems) or "tidy")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
