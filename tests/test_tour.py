"""
The tour: it shows what it says, tells a failure apart, and leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rowex.cli.tour_data import make_keys, make_value, rewritten_by, share_of, version_of
from tools import clean_environment, eventually

PROGRAM = "from rowex.cli.tour import tour; tour()"
# What a verification sees when an acknowledged key is gone, or has its older value again.
DAMAGED = """
import importlib
import rowex
tour = importlib.import_module("rowex.cli.tour")  # the package may have the command under this name
tour_data = importlib.import_module("rowex.cli.tour_data")
verify = tour._verify
def damage(run):
    key = run.keys[0]
    with rowex.open(run.path, "w") as index:
        {damage}
    verify(run)
tour._verify = damage
tour.tour()
"""
LOSES_A_KEY = DAMAGED.format(damage="index.remove(key)")
LOSES_A_VERSION = DAMAGED.format(damage="index.put(key, tour_data.make_value(key, 0))")


def _heed_interrupts() -> None:
    """A shell's background job ignores SIGINT, and so would everything that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder: Path, *args: str, program: str = PROGRAM) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        env=clean_environment(TMPDIR=str(folder)),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )


def run(folder: Path, *args: str, program: str = PROGRAM) -> tuple[int, str, str]:
    with start(folder, *args, program=program) as process:
        out, err = process.communicate(timeout=80)
    return process.returncode, out, err


def workers_in(session: int) -> list[int]:
    """The processes of a session that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def test_tour_kills_grows_reopens_and_verifies_every_acknowledged_key(tmp_path: Path) -> None:
    """The main job works, says so with rates, and cleans up."""
    status, out, err = run(tmp_path, "--keys", "20000", "--seed", "3")
    assert status == 0, out + err
    assert err == ""
    assert "by SIGKILL" in out
    assert re.search(r"[1-9]\d* by copy and rename", out)
    assert re.search(r"others took over [1-9]", out)
    assert re.search(r"[\d,]+ puts/s", out)
    assert re.search(r"[\d,]+ lookups/s", out)
    assert "20,000 of 20,000 acknowledged keys" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (LOSES_A_KEY, "1 acknowledged keys are missing, 0 have"),
        (LOSES_A_VERSION, "0 acknowledged keys are missing, 1 have"),
    ],
)
def test_tour_of_an_index_that_loses_something_fails(tmp_path: Path, program: str, message: str) -> None:
    """Exit status 0 means verified: the check can fail."""
    status, out, err = run(tmp_path, "--keys", "15000", program=program)
    assert status == 1
    assert message in err
    assert "verified" not in out
    assert list(tmp_path.iterdir()) == []


def test_interrupted_tour_leaves_no_file_and_no_process(tmp_path: Path) -> None:
    """Ctrl-C ends the workers too."""
    with start(tmp_path, "--keys", "100000") as process:
        eventually(lambda: list(tmp_path.glob("rowex-tour-*/*-lock")))
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 1
    assert list(tmp_path.iterdir()) == []
    eventually(lambda: not workers_in(process.pid))


def test_workers_of_a_killed_tour_end_by_themselves(tmp_path: Path) -> None:
    """Nobody is left running for ever."""
    with start(tmp_path, "--keys", "50000") as process:
        eventually(lambda: list(tmp_path.glob("rowex-tour-*/*-lock")))
        process.kill()
        process.communicate(timeout=60)
    eventually(lambda: not workers_in(process.pid))


def test_too_few_keys_are_a_usage_error(tmp_path: Path) -> None:
    """A tour that could show nothing does not begin."""
    status, _, err = run(tmp_path, "--keys", "10")
    assert status == 2
    assert "--keys" in err


def test_keys_are_distinct_repeatable_and_like_real_ones() -> None:
    """The data is what the tour says it is."""
    keys = make_keys(5, 20_000)
    assert keys == make_keys(5, 20_000)
    assert len(set(keys)) == 20_000
    known = set(keys)
    extending = sum(any(key[:at] in known for at in range(1, len(key))) for key in keys)
    assert extending > len(keys) * 0.015
    assert sum(b"@" in key for key in keys) > 5_000
    assert sum(key.startswith(b"https://") for key in keys) > 5_000


def test_values_tell_their_key_and_version() -> None:
    """A value of another key, another version or with another end is not taken for right."""
    assert version_of(b"a", make_value(b"a", 0)) == 0
    assert version_of(b"a", make_value(b"a", 1)) == 1
    assert version_of(b"b", make_value(b"a", 1)) == -1
    assert version_of(b"a", make_value(b"a", 1)[:-1]) == -1
    assert version_of(b"a", b"") == -1


def test_shares_cover_every_key_once_and_rewrites_follow_their_first_put() -> None:
    """What the writers do together is each key once and a third of them again."""
    assert sorted(number for writer in range(3) for number in share_of(100, 3, writer)) == list(range(100))
    again = [rewritten_by(step) for step in range(99)]
    assert [place for place in again if place is not None] == list(range(33))
    assert all(place is None or place < step for step, place in enumerate(again))
