"""
Faults while files are made, moved and removed, and while the index grows: each system call on a file fails, once or
from then on.  Failure model: `ioerror`.

The scenarios are those of alloc_driver.py, which runs in the test build; what must hold is there and in
fault_world.py: nothing happens to the index itself, what was to be made is there whole or not at all, no
descriptor stays, and once the disk works again the same call does what it should.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

import rowex
from conftest import cannot_run
from test_allocations import drive
from test_log_faults import EIO, ENOSPC
from tools import run_python

pytestmark = pytest.mark.limit(300)  # hundreds of cases, each a process
EPERM, EINVAL, EOPNOTSUPP = 1, 22, 95
MAKING = ["backup", "copy, rename, destroy", "build", "salvage"]
LONG = [pytest.param("growth beyond the capacity", marks=pytest.mark.long)]
GROWING = ["growth beyond the capacity", "more uids"]
READING = ["reads", "stats and check", "explain"]


@pytest.mark.parametrize("scenario", [*MAKING, *GROWING, *READING, "replace"])
def test_disk_that_fails_once_leaves_nothing_half_made(scenario: str, folder: Path, variant: Path) -> None:
    """One call on a file fails, wherever it is made."""
    drive(scenario, folder, variant, f"any:{EIO}")


@pytest.mark.parametrize("scenario", [*MAKING, "more uids", *READING, "replace", *LONG])
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


ACL = "system.posix_acl_access"
OWNER, USER, GROUP, MASK, OTHERS, NOBODY = 1, 2, 4, 16, 32, 0xFFFFFFFF
COMPACTS = """
import contextlib, sys, rowex
from fault_world import arm
with rowex.open(sys.argv[1]) as index:
    index.put(b"written", b"1")
    arm(sys.argv[2])
    with contextlib.suppress(OSError):
        index.compact()
    arm("")
"""


def somebody_else() -> bytes:
    """An ACL: a named user may write, the group may not."""
    entries = [(OWNER, 6, NOBODY), (USER, 6, 12345), (GROUP, 0, NOBODY), (MASK, 6, NOBODY), (OTHERS, 0, NOBODY)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def set_acl(path: Path, name: str, acl: bytes) -> None:
    """Where there are any."""
    try:
        os.setxattr(path, name, acl)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            cannot_run("this filesystem has no ACLs")
        raise


@pytest.mark.parametrize("code", [EIO, EPERM])
def test_copy_without_the_acl_of_the_file_lets_nobody_else_in(code: int, folder: Path, variant: Path) -> None:
    """The group's bits are the ACL's mask, and without one they mean the group."""
    path = folder / "index.rowex"
    with rowex.open(path) as index:
        index.put(b"key", b"value")
    acl = somebody_else()
    for n in range(1, 6):
        set_acl(path, ACL, acl)
        inode = path.stat().st_ino
        done = run_python("-c", COMPACTS, str(path), f"attribute:{n}:{code}", folder=variant)
        assert done.returncode == 0, done.stderr
        whole = ACL in os.listxattr(path) and os.getxattr(path, ACL) == acl
        assert whole or not path.stat().st_mode & 0o070, n
        assert whole or path.stat().st_ino != inode, n
    assert whole
    assert path.stat().st_ino != inode


def test_copy_in_a_folder_that_gives_acls_has_the_file_s_own(folder: Path) -> None:
    """What the owner has taken from the file does not come back with a compaction."""
    path = folder / "index.rowex"
    set_acl(folder, "system.posix_acl_default", somebody_else())
    with rowex.open(path) as index:
        index.put(b"key", b"value")
        os.removexattr(path, ACL)
        path.chmod(0o640)
        index.compact()
        index.checkpoint()
    for made in (path, Path(f"{path}-checkpoint")):
        assert ACL not in os.listxattr(made)
        assert made.stat().st_mode & 0o777 == 0o640
