"""
Backups: one instant of an index, while others write.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from commands import do
from tools import Child, as_somebody_else, assert_same, eventually, refusal

PAIRS = 16


def churn(pipe: Any, path: Path, name: bytes, seed: int) -> None:
    """Write rising counters to pairs of keys, first the left one, and noise beside them; until told to stop."""
    rng = random.Random(seed)
    with rowex.open(path) as index:
        pipe.send("begun")
        number = 0
        while not pipe.poll(0):
            number += 1
            which = b"%02d" % (number % PAIRS)
            index[b"left/" + name + which] = b"%d" % number
            index[b"right/" + name + which] = b"%d" % number
            key = b"noise/" + name + b"%04d" % rng.randrange(3000)
            if rng.random() < 0.4:
                index.discard(key)
            else:
                index[key] = bytes(rng.randrange(600))


def assert_one_instant(copy: Any, name: bytes) -> int:
    """All that one writer wrote up to some point is there, and nothing after it; the point."""
    left = {which: int(copy.get(b"left/" + name + b"%02d" % which, b"0")) for which in range(PAIRS)}
    right = {which: int(copy.get(b"right/" + name + b"%02d" % which, b"0")) for which in range(PAIRS)}
    last = max(left.values())
    for which in range(PAIRS):
        newest = last - (last - which) % PAIRS
        assert left[which] == max(newest, 0), f"{name!r}: left {which} is not of the instant {last}"
        older = newest - PAIRS if newest == last else newest
        assert right[which] in {max(newest, 0), max(older, 0)}, f"{name!r}: right {which} is not of the instant {last}"
    return last


def test_backup_while_writers_work_holds_one_instant(
    path: Path, child: Callable[..., Child], rng: random.Random
) -> None:
    """Of each writer a prefix of what it wrote; the copy is sound, alone, and its ticket was given."""
    names = [b"a", b"b", b"c"]
    with rowex.open(path) as index:
        index.put_many((b"still/%05d" % i, b"%d" % i) for i in range(20_000))
        writers = [child(churn, path, name, rng.randrange(2**32)) for name in names]
        for writer in writers:
            writer.recv()
        seen = dict.fromkeys(names, 0)
        eventually(lambda: all(b"left/" + name + b"01" in index for name in names), what="every writer's first write")
        before = index.position
        for turn in range(6):
            target = path.with_name(f"copy{turn}")
            ticket = index.backup(target)
            assert before <= ticket <= index.position
            assert index.durable >= ticket, "what is in a backup survives the loss of power"
            before = ticket
            assert {entry.name for entry in path.parent.iterdir() if entry.name.startswith("copy")} == {target.name}
            with rowex.open(target, "r") as copy:
                copy.check()
                assert [int(value) for _, value in copy.scan(prefix=b"still/")] == list(range(20_000))
                for name in names:
                    point = assert_one_instant(copy, name)
                    assert point >= seen[name], "a later backup is not older"
                    seen[name] = point
            rowex.destroy(target)
        assert all(seen.values())
        for writer in writers:
            writer.send("stop")
            writer.finish()


def test_backup_is_a_clean_file_of_its_own(path: Path) -> None:
    """Same codecs and durability, another UUID; it is written to, and recovered, as any other."""
    target = path.with_name("copy")
    with rowex.open(path, keys="str", values="int", durability="commit") as index:
        index["one"] = 1
        ticket = index.backup(target)
        index["two"] = 2
        assert ticket + 1 == index.position
        told = index.info()
    with rowex.open(target, keys="str", values="int") as copy:
        info = copy.info()
        assert (info.keys_codec, info.values_codec, info.durability) == ("str", "int", "commit")
        assert info.uuid != told.uuid
        assert info.clean
        assert dict(copy.items()) == {"one": 1}
        copy["three"] = 3
        copy.flush()
        again = copy.backup(path.with_name("copy of the copy"))
        assert again == copy.position
    with rowex.open(path.with_name("copy of the copy"), keys="str", values="int") as copy:
        assert dict(copy.items()) == {"one": 1, "three": 3}


def test_backup_before_the_first_write_of_a_session(path: Path) -> None:
    """A file that was only opened, or is open to read, is copied as it is."""
    with rowex.open(path) as index:
        model = {b"%d" % i: b"v" * i for i in range(300)}
        index.update(model)
        last = index.position
    for mode in ("c", "r"):
        target = path.with_name(f"copy-{mode}")
        with rowex.open(path, mode) as index:
            assert index.backup(target) == last
        with rowex.open(target, "r") as copy:
            assert_same(copy, model)
    rowex.open(path.with_name("empty")).close()
    with rowex.open(path.with_name("empty"), "r") as index:
        assert index.backup(path.with_name("copy-empty")) >> 44 == 0
    with rowex.open(path.with_name("copy-empty")) as copy:
        assert len(copy) == 0
        copy[b"a"] = b"b"


def test_backup_without_a_log_is_a_copy(path: Path) -> None:
    """A file without a log, and an index in memory."""
    with rowex.open(path, durability="process") as index:
        index[b"a"] = b"1"
        assert index.backup(path.with_name("copy")) == 0
    with rowex.open(path.with_name("copy"), "r") as copy:
        assert copy.info().durability == "process"
        assert_same(copy, {b"a": b"1"})
    with rowex.memory() as index:
        index[b"m"] = b"2"
        assert index.backup(path.with_name("kept")) == 0
    assert path.with_name("kept").stat().st_mode & 0o111 == 0
    with rowex.open(path.with_name("kept")) as kept:
        assert_same(kept, {b"m": b"2"})


def test_backup_never_overwrites(path: Path) -> None:
    """Whatever is at the target stays, and nothing is left of the attempt."""
    target = path.with_name("taken")
    target.write_bytes(b"mine")
    with rowex.open(path) as index:
        index[b"a"] = b"1"
        refusal(lambda: index.backup(target), FileExistsError)
        refusal(lambda: index.backup(path), FileExistsError)
        refusal(lambda: index.backup(path.parent / "nowhere" / "copy"), FileNotFoundError)
        assert target.read_bytes() == b"mine"
        assert not [entry.name for entry in path.parent.iterdir() if "-copy-" in entry.name]


def test_backup_on_a_full_disk_leaves_nothing(path: Path, tiny_disk: Callable[[str], Path]) -> None:
    """No room for the copy: DiskFullError, and the source goes on."""
    disk = tiny_disk("2m")
    with rowex.open(path) as index:
        index.put_many((b"%05d" % i, bytes(1000)) for i in range(5000))
        refusal(lambda: index.backup(disk / "copy"), rowex.DiskFullError)
        assert list(disk.iterdir()) == []
        index[b"a"] = b"1"


def test_backup_keeps_checkpoints_off_and_they_come_after(path: Path, child: Callable[..., Child]) -> None:
    """Checkpoints asked for while backups are made take no segment away from them."""

    def checkpoints(pipe: Any) -> None:
        with rowex.open(path) as index:
            pipe.send("begun")
            while not pipe.poll(0):
                index[b"more"] = bytes(5000)
                index.checkpoint()

    with rowex.open(path) as index:
        index.put_many((b"%05d" % i, bytes(300)) for i in range(5000))
        other = child(checkpoints)
        other.recv()
        for turn in range(8):
            index[b"turn"] = b"%d" % turn
            index.backup(path.with_name(f"copy{turn}"))
            with rowex.open(path.with_name(f"copy{turn}"), "r") as copy:
                assert copy[b"turn"] == b"%d" % turn
                assert len(copy) == 5002 or b"more" not in copy
        other.send("stop")
        other.finish()


def test_killed_backup_leaves_the_index_as_it_was(path: Path, child: Callable[..., Child]) -> None:
    """A process that dies in the middle of a backup holds nobody up."""

    def make(pipe: Any) -> None:
        with rowex.open(path) as index:
            pipe.send("begun")
            for turn in range(1000):
                index.backup(path.with_name(f"copy{turn}"))

    with rowex.open(path) as index:
        index.put_many((b"%05d" % i, bytes(300)) for i in range(20_000))
        maker = child(make)
        maker.recv()
        eventually(lambda: any("-copy-" in entry.name for entry in path.parent.iterdir()), what="a backup begun")
        maker.signal(signal.SIGKILL)
        maker.wait()
        index[b"a"] = b"1"
        index.checkpoint()
        index.backup(path.with_name("mine"))
    with rowex.open(path.with_name("mine"), "r") as copy:
        assert len(copy) == 20_001


def test_backup_command_makes_a_copy_or_says_why_not(path: Path) -> None:
    """`rowex backup INDEX TARGET`: 0 and a copy, 3 and the target as it was; a folder keeps the name."""

    with rowex.open(path) as index:
        index[b"a"] = b"1"
        done = do("backup", path, path.with_name("copy"))
        assert (done.exit_code, done.stdout) == (0, ""), done.stderr
        assert str(index.position) in done.stderr
        assert do("backup", path, path.with_name("copy")).exit_code == 3
        path.with_name("folder").mkdir()
        assert do("backup", path, path.with_name("folder"), "--quiet").stderr == ""
    for place in (path.with_name("copy"), path.parent / "folder" / path.name):
        with rowex.open(place, "r") as copy:
            assert_same(copy, {b"a": b"1"})


@pytest.mark.parametrize("level", ["batch", "commit"])
def test_backup_after_a_kill_of_all_writers_holds_what_they_wrote(
    path: Path, child: Callable[..., Child], level: str
) -> None:
    """The log of a session that nobody closed is gone on with; a backup holds what is visible."""

    def write(pipe: Any) -> None:
        index = rowex.open(path, durability=level)
        for i in range(500):
            index[b"%d" % i] = b"%d" % i
        pipe.send("written")
        pipe.recv()

    writer = child(write)
    writer.recv()
    writer.kill()
    with rowex.open(path) as index:
        index.backup(path.with_name("copy"))
    with rowex.open(path.with_name("copy"), "r") as copy:
        assert_same(copy, {b"%d" % i: b"%d" % i for i in range(500)})


@pytest.mark.parametrize("make", ["backup", "copy"])
def test_copy_that_is_written_to_survives_the_loss_of_power(
    path: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch, make: str
) -> None:
    """What a copy held when it was made was in no log of its own: its first write makes a checkpoint."""
    model = {b"%d" % i: b"v" * i for i in range(300)}
    target = path.with_name("copy")
    with rowex.open(path) as index:
        index.update(model)
        if make == "backup":
            index.backup(target)
        else:
            rowex.copy(path, target)

    def write(pipe: Any) -> None:
        index = rowex.open(target)
        index.wait_durable(index.put(b"new", b"1"))
        pipe.send("written")
        pipe.recv()

    writer = child(write)
    writer.recv()
    writer.kill()
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    with rowex.open(target) as copy:
        assert_same(copy, model | {b"new": b"1"})


def test_backup_by_who_may_not_write_waits_for_who_writes_the_log(
    path: Path, folder: Path, child: Callable[..., Child]
) -> None:
    """What it has read must be durable in the copy's log; a reader cannot see to that itself."""
    out = folder / "out"
    out.mkdir()
    for place in (folder, out):
        place.chmod(0o777)
    target = out / "backup.rowex"

    def back_up(pipe: Any) -> None:
        as_somebody_else()
        with rowex.open(path, "r") as mine:
            mine.backup(target)
            pipe.send(dict(mine.items()))

    with rowex.open(path, flush_interval=600) as index:
        index.put(b"durable", b"1", durable=True)
        index.put(b"not yet", b"2")
        path.chmod(0o444)
        path.with_name(path.name + "-lock").chmod(0o666)
        for place in (path.with_name(path.name + "-log"), *path.with_name(path.name + "-log").iterdir()):
            place.chmod(0o755)
        process = child(back_up)
        eventually(lambda: list(out.iterdir()) or not process.alive())
        stat = Path(f"/proc/{process.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] in "SZ")  # it naps
        index.flush()
        found = process.recv()
        process.finish()
    assert found == {b"durable": b"1", b"not yet": b"2"}
    assert target.stat().st_mode & 0o777 == 0o444
    with rowex.open(target) as copy:
        copy.check()
        assert dict(copy.items()) == found


def test_copy_of_a_file_that_may_only_be_read_is_made_and_has_its_mode(
    path: Path, folder: Path, child: Callable[..., Child]
) -> None:
    """Its owner may not write it, but builds it."""
    with rowex.open(path) as index:
        index[b"k"] = b"1"
    path.chmod(0o444)
    path.with_name(path.name + "-lock").touch()
    path.with_name(path.name + "-lock").chmod(0o666)
    folder.chmod(0o777)

    def copy(pipe: Any) -> None:
        as_somebody_else()
        rowex.copy(path, folder / "copy.rowex")

    child(copy).finish()
    with rowex.open(folder / "copy.rowex") as made:
        assert dict(made.items()) == {b"k": b"1"}
    assert (folder / "copy.rowex").stat().st_mode & 0o777 == 0o444
