"""
A page of the index is lost to one process at each point of a change in turn, in the test build: a
filesystem that shares blocks was full, say, and the page could not be made writable (SIGBUS).

    lost_page_driver.py DURABILITY CHANGE END FOLDER          prints how many points there were

The victim has a file of its own mapped in the root's place.  It stands still at its point, what it has
stored there goes into the index, that file is cut to nothing, and from then on the root cannot be
touched, by it alone.  Others go on, with the victim alive, closed or dead: nothing may be missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from power import recovered, without_power
from tools import Child, counted, die_with_parent

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_stop.restype = _core.rx_crash_arm.restype = None
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mmap.restype = ctypes.c_void_p

ROOT, PAGE = 8192, 4096
KEYS = {bytes([i]) + b"-key": bytes([i]) * 100 for i in range(200)}
KEY, FRESH, NEW = b"a-key", b"\xf0-key", b"n" * 100
CHANGES: dict[str, Callable[[Any], Any]] = {
    "replace": lambda mine: mine.put(KEY, NEW),
    "remove": lambda mine: mine.remove(KEY),
    "insert": lambda mine: mine.put(FRESH, NEW),
}
POSSIBLE: dict[str, list[tuple[bytes | None, bytes | None]]] = {  # KEY and FRESH, afterwards
    "replace": [(KEYS[KEY], None), (NEW, None)],
    "remove": [(KEYS[KEY], None), (None, None)],
    "insert": [(KEYS[KEY], None), (KEYS[KEY], NEW)],
}


def lend(path: Path, page: Path) -> None:
    """The root is now in a file of its own, for this process alone."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    base = next(int(line.split("-")[0], 16) for line in lines if line.endswith(str(path)) and " 00000000 " in line)
    page.write_bytes(ctypes.string_at(base + ROOT, PAGE))
    with page.open("r+b") as file:  # PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED
        assert _libc.mmap(base + ROOT, PAGE, 3, 0x11, file.fileno(), 0) == base + ROOT


def victim(pipe: Any, path: Path, page: Path, change: str, at: int, end: str) -> None:
    """Change something; stands still at its point `at`."""
    mine = rowex.open(path, "w")
    mine[b"a-key"] = KEYS[KEY]  # an arena
    lend(path, page)
    _core.rx_crash_stop(at, 1)
    with contextlib.suppress(OSError, rowex.RowexError):
        CHANGES[change](mine)
    _core.rx_crash_arm(0)
    if end == "closed":
        with contextlib.suppress(OSError, rowex.RowexError):
            mine.close()
    pipe.send("over")
    pipe.recv()


def others_go_on(index: Any) -> dict[bytes, bytes]:
    """They use again all that is free."""
    more = {b"\xfa%04d" % i: b"m" * 100 for i in range(300)}
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(index.writer()) for _ in range(4)]
        for number, (key, value) in enumerate(more.items()):
            writers[number % 4].put(key, value, timeout=10)
    return more


def one(folder: Path, durability: str, change: str, end: str, at: int) -> bool:
    """The page is lost at point `at`; whether there are so many."""
    shutil.rmtree(folder / "at", ignore_errors=True)
    path, page = folder / "at" / "index.rowex", folder / "page"
    path.parent.mkdir()
    with rowex.open(path, durability=durability) as index:
        index.put_many(KEYS.items())
        process = Child(victim, path, page, change, at, end)
        stopped = process.stands_still()
        with path.open("r+b") as file:
            file.seek(ROOT)
            file.write(page.read_bytes())
        os.truncate(page, 0)
        if stopped:
            process.go_on()
        assert process.recv() == "over"
        if end == "dead":
            process.kill()
        more = {} if end == "alive" else others_go_on(index)  # alive, it may hold the root
        where = f"lost at point {at} of {change}, the victim {end}"
        found = (index.get(KEY), index.get(FRESH))
        assert found in POSSIBLE[change], f"{where}: {found}"
        expected = {**KEYS, **more} | {key: value for key, value in zip((KEY, FRESH), found, strict=True) if value}
        if found[0] is None:
            del expected[KEY]
        assert dict(index.items()) == expected, where
        if durability == "batch":
            index.flush(timeout=10)
            assert recovered(without_power(path, folder / "off")) == expected, where
        process.cleanup()
        expected |= others_go_on(index)
        assert dict(index.items()) == expected, where
        assert len(index) == counted(index), where
        index.check()
    with rowex.open(path) as index:
        assert dict(index.items()) == expected, where
        index.check()
    return stopped


def main(durability: str, change: str, end: str, folder: str) -> None:
    die_with_parent(os.getppid())
    faulthandler.dump_traceback_later(75, exit=True)
    at = 1
    while one(Path(folder), durability, change, end, at):
        at += 1
    print(at - 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
