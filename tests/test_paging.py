"""
What a store has the disk write: pages, not more.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rowex
from conftest import cannot_run


def dirtied() -> int:
    """Bytes that this process has made the kernel write, now or later."""
    try:
        fields = Path("/proc/self/io").read_text().split()
    except OSError as error:
        cannot_run(f"the system does not count what is written: {error}")
    return int(fields[fields.index("write_bytes:") + 1])


@pytest.mark.parametrize("mode", ["r", "w"])
def test_few_stores_into_a_cold_file_write_few_pages(tmp_path: Path, mode: str) -> None:
    """
    Where the filesystem keeps files in large pieces (ext4 since Linux 6.16), advice for huge pages
    would have each store write 2 MiB; whoever reads may not bring that about either.
    """
    path = tmp_path / "index"
    keys = [number.to_bytes(8, "big") for number in range(600_000)]
    rowex.build(path, [(key, key) for key in keys], durability="process")
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if max(os.sysconf("SC_PAGESIZE"), os.statvfs(path).f_bsize) > 4096:
        pytest.skip("pages or blocks are larger than the bound is made for")
    some = keys[:: len(keys) // 40]
    with rowex.open(path, "w") as index, rowex.open(path, mode) as other:
        index[b"first"] = b""  # what opening and an arena of its own cost comes before
        for key in some:
            assert other[key] == key
        before = dirtied()
        for key in some:
            index[key] = b"another"
        written = dirtied() - before
    assert written <= 32 * 1024 * len(some) < path.stat().st_size / 8
