"""
The native part: compiles native.c with the core of this checkout, and runs it.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
from pathlib import Path

from .quiet import quiet

ROOT = Path(__file__).resolve().parents[2]
KILLED_KEYS = 1_000_000
OPENS = 5
ROOM = 256  # bytes of memory and disk for a key, at most

LABELS = {
    "insert_ns": ("insert, growth included", "ns"),
    "put_many_32_ns": ("put_many of 32 in random order, growth included, a key", "ns"),
    "lookup_hit_ns": ("lookup, random, present", "ns"),
    "lookup_miss_ns": ("lookup, random, absent", "ns"),
    "lookup_hot_key_ns": ("lookup, one hot key", "ns"),
    "get_many_32_ns": ("get_many of 32, a key", "ns"),
    "scan_ns": ("full scan, an item", "ns"),
    "disk_bytes_per_key_at_half": ("disk blocks at 1/2 of the keys, a key", "bytes"),
    "disk_bytes_per_key_at_three_quarters": ("disk blocks at 3/4, a key", "bytes"),
    "disk_bytes_per_key_at_all": ("disk blocks at all, a key", "bytes"),
    "disk_bytes_per_key_worst": ("disk blocks, the worst of these, a key", "bytes"),
    "open_clean_ms": ("open after a clean close, to the first get", "ms"),
    "open_killed_ms": ("open after SIGKILL, to the first get", "ms"),
    "compact_ms": ("compact", "ms"),
    "compacted_lookup_hit_ns": ("after compact: lookup, random, present", "ns"),
    "compacted_scan_ns": ("after compact: full scan, an item", "ns"),
    "compacted_put_many_32_ns": ("after compact: put_many of 32 new keys, a key", "ns"),
    "compacted_disk_bytes_per_key": ("after compact: disk blocks, a key", "bytes"),
    "build_sorted_ns": ("build of sorted integers, synced, a key", "ns"),
    "built_disk_bytes_per_key": ("after build: disk blocks, a key", "bytes"),
    "put_sorted_ns": ("put of sorted integers into an empty index, a key", "ns"),
    "replace_many_32_ns": ("put_many of 32 present keys, a key", "ns"),
    "remove_ns": ("remove", "ns"),
    "memory_load_ns": ("for comparison: a load that no cache holds, one after the other", "ns"),
    "memory_load_32_ns": ("for comparison: such loads, 32 chains of them at once", "ns"),
}


def compile_native(folder: Path, source: str = "native.c", *flags: str) -> Path:
    """
    Compile a program of this folder and the core, without the extension for Python.

    The core is compiled as the package is, all of it as one; the program is not, lest the calls between them vanish.

    Args:
        folder: Gets the program.
        source: Its name.
        flags: More of the compiler's, for the core.

    Returns:
        The program.

    Raises:
        CalledProcessError: gcc failed; it has said why on stderr.
    """
    program, objects = folder / Path(source).stem, folder / "objects"
    objects.mkdir()
    sources = [path for part in ("native", "gc") for path in sorted((ROOT / "rowex" / part).glob("*.c"))]
    sources = [path for path in sources if not path.name.startswith("hot")]
    compiler = ["gcc", "-std=gnu11", "-pthread"]
    subprocess.run([*compiler, "-O2", "-flto=auto", *flags, "-c", *sources], check=True, cwd=objects)
    subprocess.run([*compiler, "-O2", "-c", ROOT / "scripts" / "benchmarks" / source], check=True, cwd=objects)
    subprocess.run([*compiler, "-O2", "-flto=auto", "-o", program, *sorted(objects.glob("*.o"))], check=True)
    return program


def run(program: Path, *arguments: str | Path) -> dict[str, float]:
    """The figures that one command of the program prints."""
    done = subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def remove(path: Path) -> None:
    """Remove an index and its sidecars, so that the next one begins with nothing."""
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def measure(count: int, folder: Path) -> dict[str, float]:
    """
    Run every command.

    Args:
        count: Keys, at least 4.
        folder: Where the files lie; needs 200 bytes a key.

    Returns:
        Figures by the names in LABELS, and "keys" and "open_killed_keys".

    Raises:
        CalledProcessError: The program found a wrong answer, or did not compile.
    """
    program, path = compile_native(folder), folder / "core.rowex"
    quiet(count * ROOM)
    figures = run(program, "measure", path, str(count))
    figures["open_clean_ms"] = statistics.median(run(program, "open", path)["open_ms"] for _ in range(OPENS))
    remove(path)
    quiet(count * ROOM)
    figures |= run(program, "changes", path, str(count))
    remove(path)
    figures |= run(program, "memory")
    quiet(count * ROOM)
    figures |= run(program, "sorted", path, str(count))
    remove(path)
    killed = min(count, KILLED_KEYS)
    times = []
    for _ in range(OPENS):
        died = subprocess.run([program, "die", path, str(killed)], check=False)
        if died.returncode != -signal.SIGKILL:
            raise subprocess.CalledProcessError(died.returncode, "native die")
        times.append(run(program, "open", path)["open_ms"])
        remove(path)
    figures["open_killed_keys"], figures["open_killed_ms"] = killed, statistics.median(times)
    return figures
