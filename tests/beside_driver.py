"""
Runs one scenario of test_beside_faults.py in the test build: an index that other processes use too, or have
used, while the n-th system call on a file of this one fails, for growing n until it succeeds without having met
that.  Failure model: `ioerror`.

What must hold is in fault_world.py, and here: "could not ask" is neither "nobody is there" nor "is dead".  Who
lives keeps its uid and what it holds, a -lock file from before the loss of power is not believed, and what others
made of the file (grown, renamed) is no damage.

    beside_driver.py SCENARIO FOLDER PLAN...      as fault_driver.py
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_driver
import rowex
import rowex._native
from fault_driver import BASE, Part, clean_file, opens, written
from fault_world import State, World, arm
from tools import Child, make_value

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_count.restype = ctypes.c_uint64
_core.rx_crash_arm.restype = None
HEAP = 65536
KEY = sorted(BASE)[7]
WAIT_S = 3  # for what a dead one holds, where nothing proves its death


# ---- others -------------------------------------------------------------------------------------


def lives(pipe: Any, path: Path) -> None:
    """Has it open, is a writer, and writes again when it is told to."""
    with rowex.open(path, flush_interval=60) as index, index.writer() as writer:
        writer.put(b"beside", b"1", durable=True)
        pipe.send(writer.uid)
        pipe.recv()
        assert writer.uid in {each.uid for each in index.stats().uids}, "it was taken for dead"
        writer.put(b"beside", b"2", durable=True)
        assert index[b"beside"] == b"2"
    pipe.send("closed")


def grows(pipe: Any, path: Path) -> None:
    """Makes the file grow."""
    with rowex.open(path, flush_interval=60) as index:
        for key, value in LARGE.items():
            index.put(key, value, durable=True)
    pipe.send("grown")


def renames(pipe: Any, path: Path) -> None:
    """Puts a copy in the file's place; forked when the plan was armed already."""
    arm("")
    with rowex.open(path, flush_interval=60) as index:
        index.compact()
    pipe.send("renamed")


def dies(pipe: Any, path: Path) -> None:
    """Half-way in a change."""
    index = rowex.open(path, flush_interval=60)
    index.put(KEY, b"counted")
    _core.rx_crash_arm(0)
    index.put(KEY, b"counted")
    points = _core.rx_crash_count()
    index.flush()
    pipe.send("ready")
    _core.rx_crash_arm(points // 2)
    index.put(KEY, b"dies")


LARGE = {b"large %d" % i: make_value(b"large %d" % i, i, 400_000) for i in range(4)}


def ends(function: Callable[..., None], path: Path, status: int = 0) -> None:
    """Run it in a process to its end."""
    process = Child(function, path)
    process.recv()
    assert process.wait() == status
    process.cleanup()


# ---- scenarios ------------------------------------------------------------------------------------


peers: list[Child] = []


def peer(world: World) -> None:
    """Before the faults: another process is a writer."""
    peers.append(Child(lives, world.path))
    peers[0].recv()
    world.states[-1] = {**world.states[-1], b"beside": b"1"}


def peer_and_session(world: World) -> None:
    """Before the faults: another process is a writer, and this one has written too."""
    peer(world)
    written(world)


def peer_after(world: World) -> None:
    """It was not harmed, and can go on."""
    peers[0].send("go on")
    assert peers[0].recv() == "closed"
    peers[0].finish()
    with rowex.open(world.path) as index:
        assert index[b"beside"] == b"2"
        index.check()


def grown(world: World) -> None:
    """Before the faults: this process has it open, and another makes the file grow."""
    written(world)
    ends(grows, world.path)
    world.states.append({**world.states[-1], **LARGE})
    world.sure = len(world.states) - 1


def is_renamed(world: World) -> None:
    """Another puts a copy in the file's place, and this process, also its flusher, meets that."""
    ends(renames, world.path)
    reads_and_writes(world)


def reads_and_writes(world: World) -> None:
    """What others did is met."""
    index = world.index
    assert index is not None
    assert dict(index.items()) == world.states[-1]
    world.put(b"met", b"1")
    assert index[b"met"] == b"1"
    world.close()


def half_dead(world: World) -> None:
    """Before the faults: another process died within a change."""
    written(world)
    ends(dies, world.path, -9)
    assert world.index is not None
    world.states += [{**world.states[-1], KEY: b"counted"}]
    world.sure = len(world.states) - 1
    if world.index[KEY] == b"dies":
        world.states.append({**world.states[-1], KEY: b"dies"})


def takes_over(world: World) -> None:
    """What the dead one holds is wanted."""
    index, state = world.index, world.states[-1]
    assert index is not None
    world.wait(world.change({**state, KEY: b"mine"}, lambda: index.put(KEY, b"mine", timeout=WAIT_S)))
    world.put(b"after", b"1")


def torn(world: World) -> None:
    """Before the faults: the power went in a session, but the -lock file is as it was; of the data file only the
    superblock was on the disk."""
    process = Child(session, world.path)
    process.recv()
    process.kill()
    process.cleanup()
    world.states.append({**world.states[-1], b"session": b"1"})
    world.sure = len(world.states) - 1
    with world.path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(HEAP)
        file.write(bytes(size - HEAP))
    os.environ["ROWEX_BOOT_ID"] = "the next boot"


def session(pipe: Any, path: Path) -> None:
    """Is killed in it."""
    index = rowex.open(path, flush_interval=60)
    index.put(b"session", b"1", durable=True)
    pipe.send("written")
    pipe.recv()


EXTRA: dict[str, tuple[Callable[[Path], State], Part, Part]] = {
    "open beside another": (clean_file, peer, opens),
    "clean close beside another": (clean_file, peer_and_session, fault_driver.closes),
    "checkpoint beside another": (clean_file, peer_and_session, fault_driver.checkpoints),
    "copy and rename beside another": (clean_file, peer_and_session, fault_driver.compacts),
    "grown by another": (clean_file, grown, reads_and_writes),
    "renamed by another": (clean_file, written, is_renamed),
    "dead one's change": (clean_file, half_dead, takes_over),
    "power loss beside a -lock file": (clean_file, torn, opens),
}
AFTER: dict[str, Part] = {name: peer_after for name in EXTRA if name.endswith("beside another")}


if __name__ == "__main__":
    faulthandler.enable()
    fault_driver.SCENARIOS.update(EXTRA)
    fault_driver.AFTER.update(AFTER)
    sys.exit(fault_driver.main())
