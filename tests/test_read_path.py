"""
What a read costs beside its instructions (promise P3), and what opening costs (P9).
"""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path

import pytest

import rowex
from tools import clean_environment, run_python

PACKAGE = Path(rowex.__file__).parents[1]
READS = """
import ctypes, gc, os, sys, rowex
PR_SET_SECCOMP, STRICT = 22, 1
index = rowex.open(sys.argv[1], sys.argv[2])
keys = [b"key %d" % i for i in range(500)]
made, none = [b"absent %d" % i for i in range(50)], object()

def read(index):
    total = sum(len(index[key]) for key in keys) + sum(key in index for key in keys)
    total += sum(index.get(key, none) is none for key in made)
    total += sum(len(value) for value in index.get_many(keys))
    return total + sum(len(value) for _, value in index.scan(b"key 1", limit=100)) + len(index.first()[0])

with index.reader() as reader:
    for _ in range(3):
        wanted = read(index), read(reader)
    gc.disable()
    prctl = ctypes.CDLL(None).prctl
    if prctl(PR_SET_SECCOMP, STRICT, 0, 0, 0) != 0:
        os.write(1, b"cannot")
    elif (read(index), read(reader)) == wanted:
        os.write(1, b"read")
    os._exit(0)  # a call too: this thread is killed, and others that there are stay
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
@pytest.mark.parametrize("durability", ["process", "batch"])
@pytest.mark.parametrize("mode", ["r", "w"])
def test_warm_reads_make_no_system_call(path: Path, folder: Path, durability: str, mode: str) -> None:
    """A thread that may only write to open files, and is killed at any other call, reads whatever it likes."""
    with rowex.open(path, durability=durability) as index:  # type: ignore[call-overload]
        index.put_many((b"key %d" % i, b"value %d" % i) for i in range(500))
        command = [sys.executable, "-c", READS, str(path), mode]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment(PACKAGE)) as process:
            assert process.stdout is not None
            try:
                assert select.select([process.stdout], [], [], 20)[0], "it was killed at a call"
                assert process.stdout.read(4) == b"read"
            finally:
                process.kill()


OPENS = """
import ctypes, resource, sys, rowex, rowex._native
core = ctypes.CDLL(rowex._native.__file__)
core.rx_fault_arm.argtypes, core.rx_fault_count.restype = [ctypes.c_char_p], ctypes.c_uint64
core.rx_fault_arm(b"any:1000000:5")
before = resource.getrusage(resource.RUSAGE_SELF)
rowex.open(sys.argv[1], "r")[b"key 0"]
after = resource.getrusage(resource.RUSAGE_SELF)
print(core.rx_fault_count(), after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt)
"""


@pytest.mark.parametrize("durability", ["process", "batch"])
def test_opening_after_a_clean_close_costs_the_same_at_any_size(folder: Path, variant: Path, durability: str) -> None:
    """But for a few as many calls on files, and as many pages touched: nothing is scanned."""
    costs = []
    for name, count in (("small", 100), ("large", 200_000)):
        with rowex.open(folder / name, durability=durability) as index:  # type: ignore[call-overload]
            index.put_many((b"key %d" % i, b"%d" % i) for i in range(count))
            if durability == "batch":
                index.checkpoint()  # the segments of the log are listed
        done = run_python("-c", OPENS, str(folder / name), folder=variant)
        assert done.returncode == 0, done.stderr
        costs.append([int(each) for each in done.stdout.split()])
    (few_calls, few_pages), (calls, pages) = costs
    assert calls <= few_calls + 8  # the checkpoint may have left a segment more
    assert pages <= few_pages + 64
