"""
Files, names, modes and sidecars.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from conftest import cannot_run
from tools import Child, as_somebody_else, assert_same, clean_environment, counted, leftovers, run_python

Start = Callable[..., Child]


def mode_of(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


# ---- modes and names --------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o000])
def test_new_file_has_mode_0666_less_the_umask_and_so_have_sidecars(
    path: Path, umask: Callable[[int], None], mask: int
) -> None:
    """Mode 0666 & ~umask; NAME-lock has the data file's mode."""
    umask(mask)
    with rowex.open(path) as index:
        index[b"k"] = b"1"
        assert mode_of(path) == 0o666 & ~mask
        assert mode_of(Path(f"{path}-lock")) == 0o666 & ~mask
        index.compact()
        assert mode_of(path) == 0o666 & ~mask


def test_sidecars_and_copies_take_mode_owner_and_group_of_the_file(path: Path, umask: Callable[[int], None]) -> None:
    """A data file whose mode, owner and group were changed passes them on."""
    umask(0o022)
    rowex.open(path).close()
    Path(f"{path}-lock").unlink(missing_ok=True)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    before = path.stat()
    with rowex.open(path) as index:
        index[b"k"] = b"1"
        for generation in range(2):
            lock = Path(f"{path}-lock").stat()
            now = path.stat()
            assert [stat.S_IMODE(s.st_mode) for s in (lock, now)] == [0o640, 0o640], generation
            assert [(s.st_uid, s.st_gid) for s in (lock, now)] == [(before.st_uid, before.st_gid)] * 2
            index.compact()
        assert path.stat().st_ino != before.st_ino


def test_closed_index_leaves_the_data_file_and_at_most_its_lock_file(path: Path) -> None:
    """Nothing else stays in the folder."""
    with rowex.open(path) as index:
        index[b"k"] = b"1"
        index.compact()
    assert leftovers(path) == set()
    rowex.destroy(path)
    assert list(path.parent.iterdir()) == []


def test_lock_file_of_another_index_is_never_used(path: Path, folder: Path) -> None:
    """A NAME-lock that carries another UUID, or nonsense, is set up anew (R6)."""
    other = folder / "other.rowex"
    with rowex.open(other) as index:
        index[b"other"] = b"1"
        foreign = Path(f"{other}-lock").read_bytes()[:100_000]
    with rowex.open(path) as index:
        index[b"k"] = b"1"
    for content in (foreign, b"", b"x" * 5000, bytes(100_000)):
        Path(f"{path}-lock").write_bytes(content)
        with rowex.open(path) as index:
            assert_same(index, {b"k": b"1"})
            index[b"l"] = b"2"
            del index[b"l"]


def test_symlink_is_resolved_once_and_stays_a_symlink(path: Path, folder: Path) -> None:
    """Opening by a link uses the file's own folder; copy and rename does not replace the link."""
    (folder / "links").mkdir()
    link = folder / "links" / "name"
    link.symlink_to(path)
    with rowex.open(link) as index, rowex.open(path) as direct:
        index[b"k"] = b"1"
        assert direct[b"k"] == b"1"
        index.compact()
        assert link.is_symlink()
        assert direct[b"k"] == b"1"
        link.unlink()
        index[b"l"] = b"2"
        index.compact()
        assert len(direct) == 2
    assert list((folder / "links").iterdir()) == []
    assert leftovers(path) == {"links"}


def test_link_to_nothing_creates_the_file_it_names(folder: Path) -> None:
    """Mode "c" by a dangling link makes the target; the link stays."""
    link = folder / "link"
    link.symlink_to(folder / "target.rowex")
    with rowex.open(link) as index:
        index[b"k"] = b"1"
    assert link.is_symlink()
    with rowex.open(folder / "target.rowex", "r") as index:
        assert index[b"k"] == b"1"


def test_two_names_of_one_file_are_one_index(path: Path, folder: Path, opened: Any) -> None:
    """Handles by way of links and of . and .. share one mapping in a process."""
    index = opened(path)
    link = folder / "link"
    link.symlink_to(path.name)
    others = [opened(link), opened(folder / "." / path.name), opened(folder / ".." / folder.name / path.name)]
    index[b"k"] = b"1"
    assert [other[b"k"] for other in others] == [b"1"] * 3
    assert {other.info().uuid for other in others} == {index.info().uuid}
    assert [len(other.stats().uids) for other in others] == [1] * 3


def test_chdir_under_an_open_index_is_harmless(folder: Path, child: Start) -> None:
    """Folders are held by descriptor: a relative path goes on to mean the same file."""

    def wander(pipe: Any) -> None:
        os.chdir(folder)
        (folder / "elsewhere").mkdir()
        with rowex.open("index.rowex", initial_size=1 << 18, capacity=1 << 19) as index:
            os.chdir("elsewhere")
            for i in range(1000):
                index[b"%d" % i] = bytes(1000)
            index.compact()
            assert index.info().generation > 1
            assert len(index) == counted(index) == 1000
        assert list((folder / "elsewhere").iterdir()) == []
        with rowex.open("../index.rowex", "r") as index:
            assert len(index) == 1000

    child(wander).finish()


def test_folder_renamed_under_an_open_index_is_harmless(folder: Path) -> None:
    """The index goes on where its folder went."""
    (folder / "a").mkdir()
    with rowex.open(folder / "a" / "index.rowex") as index:
        index[b"k"] = b"1"
        (folder / "a").rename(folder / "b")
        index[b"l"] = b"2"
        index.compact()
        index[b"m"] = b"3"
    assert not (folder / "a").exists()
    with rowex.open(folder / "b" / "index.rowex") as index:
        assert len(index) == 3


# ---- permissions -----------------------------------------------------------------------


def test_who_may_only_read_the_data_file_reads_where_the_lock_file_may_be_written(
    path: Path, folder: Path, child: Start
) -> None:
    """Rights to read the data file and to write NAME-lock are enough for "r"; "w" is a PermissionError."""
    folder.chmod(0o777)
    with rowex.open(path) as index:
        index[b"k"] = b"1"
        path.chmod(0o444)
        Path(f"{path}-lock").chmod(0o666)

        def look(pipe: Any) -> None:
            as_somebody_else()
            with rowex.open(path, "r") as mine:
                assert mine[b"k"] == b"1"
            for mode in ("w", "c"):
                with pytest.raises(PermissionError):
                    rowex.open(path, mode)

        child(look).finish()
        assert index[b"k"] == b"1"


def test_who_may_not_write_the_lock_file_is_told_so(path: Path, folder: Path, child: Start) -> None:
    """Reading and copying take the right to write NAME-lock, and without it end in an error that names it."""
    folder.chmod(0o755)
    with rowex.open(path) as index:
        index[b"k"] = b"1"
        path.chmod(0o444)
        Path(f"{path}-lock").chmod(0o444)

        def look(pipe: Any) -> None:
            as_somebody_else()
            for call in (lambda: rowex.open(path, "r"), lambda: rowex.copy(path, folder / "copy")):
                with pytest.raises(PermissionError) as caught:
                    call()
                assert f"{path.name}-lock" in str(caught.value)

        child(look).finish()


def test_file_in_a_folder_that_may_not_be_written_is_a_permission_error(folder: Path, child: Start) -> None:
    """Creating where one may not is a PermissionError, not a crash."""
    folder.chmod(0o555)

    def create(pipe: Any) -> None:
        as_somebody_else()
        with pytest.raises(PermissionError):
            rowex.open(folder / "index.rowex")

    child(create).finish()
    folder.chmod(0o755)
    assert list(folder.iterdir()) == []


# ---- read-only media ----------------------------------------------------------------------


LOCKLESS = """
import sys, rowex
index = rowex.open(sys.argv[1], "r")
assert index.info().lockless
assert index[b"k"] == b"1" and list(index.scan()) == [(b"k", b"1")] and len(index) == 1
assert index.floor(b"z") == (b"k", b"1") and index.get_many([b"k", b"l"]) == [b"1", None]
index.check()
print("ready", flush=True)
if sys.stdin.readline():
    try:
        print("value", index.get(b"k"), flush=True)
    except (rowex.RowexError, OSError) as error:
        print("error", type(error).__name__, flush=True)
index.close()
"""


def test_reader_without_a_lock_file_reads_a_clean_file_and_leaves_no_trace(path: Path) -> None:
    """On a read-only medium a clean image is read as it is: no lock file is made, nothing is written."""
    with rowex.open(path, durability="process") as index:
        index[b"k"] = b"1"
    Path(f"{path}-lock").unlink(missing_ok=True)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    done = run_python("-c", LOCKLESS, str(path), ROWEX_FORCE_LOCKLESS="1")
    assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_reader_without_a_lock_file_notices_that_somebody_writes(path: Path) -> None:
    """It rechecks the clean mark and the session before it returns anything."""
    with rowex.open(path) as index:
        index[b"k"] = b"1"
    reader = subprocess.Popen(
        [sys.executable, "-c", LOCKLESS, str(path)],
        env=clean_environment(ROWEX_FORCE_LOCKLESS="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        with rowex.open(path) as index:
            index[b"k"] = b"2"
        out, _ = reader.communicate("go on\n", timeout=30)
        assert out.startswith("error"), out
    finally:
        reader.kill()
        reader.wait()


def test_reader_without_a_lock_file_refuses_a_file_in_use(path: Path) -> None:
    """A file that is not clean cannot be read without its lock file."""
    with rowex.open(path) as index:
        index[b"k"] = b"1"
        done = run_python("-c", LOCKLESS, str(path), ROWEX_FORCE_LOCKLESS="1")
        assert done.returncode == 1
        assert "Error" in done.stderr.splitlines()[-1]


def test_read_only_mount_is_read_without_a_lock_file(tiny_disk: Callable[[str], Path], child: Start) -> None:
    """The real thing: a filesystem remounted read-only."""
    disk = tiny_disk("16m")
    with rowex.open(disk / "index.rowex", capacity=8 << 20) as index:
        index[b"k"] = b"1"
    (disk / "index.rowex-lock").unlink(missing_ok=True)
    done = subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True, text=True, check=False)
    if done.returncode:
        cannot_run(f"remounting failed: {done.stderr}")
    with rowex.open(disk / "index.rowex", "r") as index:
        assert index.info().lockless
        assert_same(index, {b"k": b"1"})
    for mode in ("w", "c", "n"):
        with pytest.raises(OSError):
            rowex.open(disk / "index.rowex", mode)


# ---- whole files -----------------------------------------------------------------------------


def test_destroy_removes_the_file_and_its_sidecars_unless_somebody_has_it_open(path: Path, child: Start) -> None:
    """destroy() refuses while the index is open here or elsewhere, and leaves a foreign file alone."""
    index = rowex.open(path)
    index[b"k"] = b"1"
    with pytest.raises(rowex.RowexError):
        rowex.destroy(path)
    assert index[b"k"] == b"1"
    index.close()

    def hold(pipe: Any) -> None:
        with rowex.open(path, "r"):
            pipe.send("open")
            pipe.recv()

    process = child(hold)
    process.recv()
    with pytest.raises(rowex.RowexError):
        rowex.destroy(path)
    process.send("close")
    process.finish()
    rowex.destroy(path)
    assert list(path.parent.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        rowex.destroy(path)
    path.write_bytes(b"not an index" * 1000)
    with pytest.raises(rowex.FormatError):
        rowex.destroy(path)
    assert path.exists()


def test_rename_moves_the_index_and_refuses_what_would_lose_something(path: Path, folder: Path) -> None:
    """rename() takes the sidecars along; an open source or an existing target is an error."""
    target = folder / "renamed.rowex"
    with rowex.open(path) as index:
        index[b"k"] = b"1"
        with pytest.raises(rowex.RowexError):
            rowex.rename(path, target)
    rowex.rename(path, target)
    assert not path.exists()
    assert not Path(f"{path}-lock").exists()
    with rowex.open(target, "r") as index:
        assert_same(index, {b"k": b"1"})
    rowex.open(path).close()
    with pytest.raises(FileExistsError):
        rowex.rename(path, target)
    with pytest.raises(FileNotFoundError):
        rowex.rename(folder / "none", folder / "nowhere")
    with rowex.open(target, "r") as index:
        assert index[b"k"] == b"1"


def test_copy_is_dense_has_its_own_uuid_and_may_be_made_of_a_file_in_use(path: Path, folder: Path) -> None:
    """copy() takes the keys that are there and the codecs; nothing is overwritten."""
    target = folder / "copy.rowex"
    with rowex.open(path, keys="str", values="int") as index:
        for i in range(3000):
            index[f"{i:05}"] = i
        for i in range(0, 3000, 3):
            del index[f"{i:05}"]
        rowex.copy(path, target)
        expected = {f"{i:05}": i for i in range(3000) if i % 3}
        assert dict(index.items()) == expected
        with rowex.open(target) as copy:
            assert dict(copy.items()) == expected
            assert copy.info().uuid != index.info().uuid
            assert (copy.info().keys_codec, copy.info().values_codec) == ("str", "int")
            copy["new"] = 1
            copy.check()
        assert "new" not in index
    with pytest.raises(FileExistsError):
        rowex.copy(path, target)
    with pytest.raises(FileNotFoundError):
        rowex.copy(folder / "none", folder / "nowhere")
    assert not (folder / "nowhere").exists()


def test_file_copied_by_other_means_is_an_index_of_its_own(path: Path, folder: Path) -> None:
    """A clean file copied with cp opens beside its original, though both carry one UUID."""
    with rowex.open(path) as index:
        index[b"k"] = b"1"
    twin = folder / "twin.rowex"
    shutil.copyfile(path, twin)
    with rowex.open(path) as index, rowex.open(twin) as other:
        index[b"k"] = b"original"
        other[b"k"] = b"twin"
        assert (index[b"k"], other[b"k"]) == (b"original", b"twin")
    for name, value in ((path, b"original"), (twin, b"twin")):
        with rowex.open(name) as index:
            assert_same(index, {b"k": value})


def test_close_and_open_again_is_clean_and_cheap(path: Path) -> None:
    """After a clean close there is no scan, and everything is as it was."""
    model = {b"%06d" % i: b"v%d" % i for i in range(20_000)}
    with rowex.open(path) as index:
        index.put_many(model)
        index.remove_many([b"%06d" % i for i in range(0, 20_000, 2)])
        free = index.stats().free_bytes + index.stats().retired_bytes
    for i in range(0, 20_000, 2):
        del model[b"%06d" % i]
    with rowex.open(path, "r") as index:
        assert index.info().clean
        assert_same(index, model)
    with rowex.open(path) as index:
        assert index.stats().scans == 0
        assert index.stats().free_bytes >= free * 0.9
        size = path.stat().st_size
        index.put_many([(b"x%06d" % i, b"v%d" % i) for i in range(9000)])
        assert path.stat().st_size == size, "free space is used after reopening"
        index.check()


def test_links_that_lead_too_far_are_an_error(path: Path, folder: Path) -> None:
    """As many as the system follows, in a row, and a name that would be too long; to nothing each."""
    for i in range(40):
        (folder / f"link{i}").symlink_to(folder / f"link{i + 1}" if i < 39 else path)
    with rowex.open(folder / "link1") as index:
        index[b"k"] = b"1"
    rowex.destroy(path)
    with pytest.raises(OSError, match=r"index|link") as caught:
        rowex.open(folder / "link0")
    assert caught.value.errno == errno.ELOOP
    deep = folder.joinpath(*["d" * 200] * 8)
    deep.mkdir(parents=True)
    (deep / "link").symlink_to("/".join(["n" * 200] * 18))
    with pytest.raises(OSError, match=r"d{99}") as caught:
        rowex.open(deep / "link")
    assert caught.value.errno == errno.ENAMETOOLONG
