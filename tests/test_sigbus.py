"""
SIGBUS: one that is not ours reaches whoever handled it before; a page of ours that is lost harms nobody else.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tools import TESTS, run_python

OTHER = """
import ctypes, faulthandler, os, signal, sys
import rowex

faulthandler.disable()
seen = []
KIND = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
told = KIND(lambda number, info, context: seen.append((number, bool(info))))


class Action(ctypes.Structure):
    _fields_ = [
        ("handler", KIND),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


if sys.argv[1] == "python":
    signal.signal(signal.SIGBUS, lambda number, frame: seen.append((number, True)))
else:
    action = Action(handler=told, flags=4)  # SA_SIGINFO
    assert ctypes.CDLL(None).sigaction(signal.SIGBUS, ctypes.byref(action), None) == 0
with rowex.memory() as index:
    index[b"k"] = b"1"
    os.kill(os.getpid(), signal.SIGBUS)
    assert index[b"k"] == b"1"
print(seen == [(signal.SIGBUS, True)])
"""

ALONE = """
import os, signal, sys
import rowex

signal.signal(signal.SIGBUS, signal.SIG_DFL)
with rowex.memory() as index:
    index[b"k"] = b"1"
    os.kill(os.getpid(), signal.SIGBUS)
print("it was swallowed")
"""


def test_signal_that_was_sent_reaches_who_handled_it_before() -> None:
    """Both kinds of handlers, with what they are told; the index works on."""
    for kind in ("python", "native"):
        done = run_python("-c", OTHER, kind)
        assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_signal_that_nobody_handled_ends_the_process() -> None:
    """As if there were no index."""
    done = run_python("-c", ALONE)
    assert (done.stdout, done.returncode) == ("", -7)


LOST = list(itertools.product(["process", "batch"], ["replace", "remove", "insert"], ["alive", "closed", "dead"]))
USUAL = [LOST[1], LOST[9], LOST[13], LOST[17]]  # each at least once


@pytest.mark.parametrize(
    ("durability", "change", "end"),
    [pytest.param(*each, marks=() if each in USUAL else pytest.mark.long) for each in LOST],
)
def test_page_that_is_lost_to_a_writer_takes_nothing_from_the_others(
    variant: Path, folder: Path, durability: str, change: str, end: str
) -> None:
    """Its change happened or did not, in the file and in the log; lost_page_driver.py says how it is lost."""
    arguments = [str(TESTS / "lost_page_driver.py"), durability, change, end, str(folder)]
    done = run_python(*arguments, folder=variant, timeout_s=80)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 5
