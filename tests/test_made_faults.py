"""
Faults while files are made, moved and removed, and while the index grows: each system call on a file fails, once or
from then on.  Failure model: `ioerror`.

The scenarios are those of alloc_driver.py, which runs in the test build; what must hold is there and in
fault_world.py: nothing happens to the index itself, what was to be made is there whole or not at all, no
descriptor stays, and once the disk works again the same call does what it should.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from test_allocations import drive
from test_log_faults import EIO, ENOSPC

EINVAL, EOPNOTSUPP = 22, 95
MAKING = ["backup", "copy, rename, destroy", "build", "salvage"]
LONG = [pytest.param("growth beyond the capacity", marks=pytest.mark.long)]
GROWING = ["growth beyond the capacity", "more uids"]
READING = ["reads", "stats and check"]


@pytest.mark.parametrize("scenario", [*MAKING, *GROWING, *READING])
def test_disk_that_fails_once_leaves_nothing_half_made(scenario: str, folder: Path, variant: Path) -> None:
    """One call on a file fails, wherever it is made."""
    drive(scenario, folder, variant, f"any:{EIO}")


@pytest.mark.parametrize("scenario", [*MAKING, "more uids", *READING, *LONG])
def test_disk_that_fails_for_good_leaves_nothing_half_made(scenario: str, folder: Path, variant: Path) -> None:
    """All calls on files fail from then on, also those that would clear up."""
    drive(scenario, folder, variant, f"any+:{EIO}")


@pytest.mark.parametrize("scenario", [*MAKING, *GROWING])
def test_disk_without_room_leaves_nothing_half_made(scenario: str, folder: Path, variant: Path) -> None:
    """From the n-th request for blocks on there are none."""
    drive(scenario, folder, variant, f"fallocate+:{ENOSPC}")


@pytest.mark.parametrize("scenario", ["copy, rename, destroy", "build"])
def test_filesystem_that_cannot_rename_without_replacing_is_served(scenario: str, folder: Path, variant: Path) -> None:
    """A link and a removal stand in for it."""
    drive(scenario, folder, variant, f"renameat2+:{EINVAL}")


@pytest.mark.parametrize("scenario", ["create", "growth", *GROWING, "checkpoint", "backup"])
def test_filesystem_without_fallocate_is_served(scenario: str, folder: Path, variant: Path) -> None:
    """Zeros are written in its stead, from the first or from the n-th time on."""
    drive(scenario, folder, variant, f"fallocate+:{EOPNOTSUPP}")
