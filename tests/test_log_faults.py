"""
Faults of the disk: each system call on a file fails, once or from then on.  Failure model: `ioerror`.

What must hold is in fault_driver.py, which runs in the test build.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tools import TESTS, run_python

pytestmark = pytest.mark.limit(300)  # hundreds of cases, each a process
SCENARIOS = [
    "create",
    "open",
    "first write after a clean open",
    "clean file without its log",
    "durable puts",
    "several waiters",
    "removals",
    "segment switch",
    "growth",
    "checkpoint",
    "copy and rename",
    "clean close",
    "recovery",
    "rescue",
]
EINTR, EIO, ENOSPC, ENOLCK, EDQUOT = 4, 5, 28, 37, 122
CHANGES = ["open", "pwrite", "fallocate", "ftruncate", "fsync", "fdatasync", "msync", "rename", "unlink", "attribute"]
CALLS = [*CHANGES, "pread", "mmap", "stat", "statfs", "lock", "list", "madvise", "path", "close"]
# Besides EIO, what the manual pages name and a sound program may meet; what only a wrong argument gives is left out.
ERRORS = {
    "open": [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM, ENOSPC],
    "pwrite": [ENOSPC, EDQUOT, errno.EFBIG],
    "fallocate": [ENOSPC, EDQUOT, errno.EFBIG],
    "ftruncate": [errno.EPERM],
    "fsync": [ENOSPC, EDQUOT],
    "fdatasync": [ENOSPC, EDQUOT],
    "msync": [errno.ENOMEM],
    "rename": [ENOSPC, EDQUOT, errno.EACCES],
    "unlink": [errno.EACCES, errno.EPERM],
    "attribute": [ENOSPC, errno.EPERM],
    "mmap": [errno.ENOMEM, errno.EAGAIN, errno.ENFILE],
    "stat": [errno.ENOMEM],
    "statfs": [errno.ENOMEM],
    "lock": [ENOLCK],
    "list": [errno.ENOMEM],
    "madvise": [errno.ENOMEM],
    "path": [errno.ENOMEM, errno.EACCES, errno.ENAMETOOLONG],
    "close": [EINTR, ENOSPC, EDQUOT],
}


def drive(scenario: str, folder: Path, build: Path, plans: list[str]) -> None:
    """Each plan."""
    done = run_python(str(TESTS / "fault_driver.py"), scenario, str(folder), *plans, folder=build, timeout_s=1800)
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5000:]}"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_disk_that_fails_once_costs_at_most_one_call(scenario: str, folder: Path, variant: Path) -> None:
    """Nothing acknowledged is lost, nothing is told falsely; what failed in the log is rewritten and succeeds."""
    drive(scenario, folder, variant, [f"any:{EIO}"])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_disk_that_fails_for_good_refuses_writes_and_is_read(scenario: str, folder: Path, variant: Path) -> None:
    """DurabilityError for good where the log failed twice; reads go on; opened anew it all works again."""
    drive(scenario, folder, variant, [f"any+:{EIO}"])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_disk_without_room_refuses_and_goes_on_when_there_is_room(scenario: str, folder: Path, variant: Path) -> None:
    """From the n-th request for blocks on there are none, by the disk's or the user's limit."""
    drive(scenario, folder, variant, [f"fallocate+:{ENOSPC}", f"pwrite+:{EDQUOT}"])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_short_writes_and_signals_are_not_seen(scenario: str, folder: Path, variant: Path) -> None:
    """A write of a part is gone on with, an interrupted call is made again."""
    plans = [f"{call}:{EINTR}" for call in ("pwrite", "fsync", "fdatasync", "fallocate")]
    drive(scenario, folder, variant, ["pwrite:short", *plans])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_lock_that_is_not_told_is_an_error_and_nothing_is_believed(scenario: str, folder: Path, variant: Path) -> None:
    """The system cannot say who holds a lock, or cannot take one back, for want of memory."""
    drive(scenario, folder, variant, [f"lock:{ENOLCK}", f"lock+:{ENOLCK}"])


def test_mark_whose_sync_failed_is_stored_again_before_the_next(folder: Path, variant: Path) -> None:
    """The kernel tells of a failed sync once, and the page is clean then: sync_driver.py says how."""
    done = run_python(str(TESTS / "sync_driver.py"), str(folder), "mark", folder=variant)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("where", ["doubt", "rescue"])
def test_data_whose_sync_failed_comes_from_checkpoint_and_log(folder: Path, variant: Path, where: str) -> None:
    """Synced again it would only seem to be on the disk: sync_driver.py says how."""
    done = run_python(str(TESTS / "sync_driver.py"), str(folder), where, folder=variant)
    assert done.returncode == 0, done.stderr[-3000:]


def test_name_whose_maker_died_is_synced_by_who_finds_it(folder: Path, variant: Path) -> None:
    """Before its folder was: what is durable then needs the name.  sync_driver.py says how."""
    done = run_python(str(TESTS / "sync_driver.py"), str(folder), "names", folder=variant)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.long
@pytest.mark.limit(3600)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_call_fails_once_and_for_good_with_each_error(scenario: str, folder: Path, variant: Path) -> None:
    """One kind of call after the other, with each error that it may give."""
    plans = [f"{call}{on}:{code}" for call in CALLS for on in ("", "+") for code in (EIO, *ERRORS.get(call, ()))]
    drive(scenario, folder, variant, ["pwrite+:short", *plans])
