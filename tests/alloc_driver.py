"""
Runs one scenario of test_allocations.py or test_made_faults.py in the test build: an operation whose n-th
request for memory is refused, or n-th system call on a file fails, for growing n until it succeeds without having
met that.  Failure models: out of memory, `ioerror`.

What must hold is in fault_world.py, and here: MemoryError or success where memory is short, no descriptor and no
lock stays, what was to be made is there whole or not at all, and can be made once nothing fails any more.

    alloc_driver.py SCENARIO FOLDER PLAN...      as fault_driver.py
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

import fault_driver
import rowex
import rowex.aio
from fault_driver import BASE, clean_file, logged_file, nothing, opened, written
from fault_world import State, World
from rowex.cli.recover import explain
from tools import make_value

ITEMS = {b"%06d" % i: make_value(b"%06d" % i, i, 30) for i in range(2000)} | {b"z" * 9000: b"1"}
LONG = b"p" * 70_000  # keys that differ late: a chain of nodes, and room for them that must grow


def reads(world: World) -> None:
    """Every way to read."""
    index, state = world.index, world.states[-1]
    assert index is not None
    keys = sorted(state)
    assert index.get_many(keys) == [state[key] for key in keys]
    assert index.get(keys[3]) == state[keys[3]]
    assert list(index.scan()) == sorted(state.items())
    assert list(index.scan(reverse=True)) == sorted(state.items(), reverse=True)
    assert index.first() == (keys[0], state[keys[0]])
    assert index.floor(keys[9] + b"x") == (keys[9], state[keys[9]])
    assert len(index) == len(state)
    with index.reader() as reader:
        assert reader.exists(keys[0])


def long_keys(world: World) -> None:
    """A tree as deep as it gets, values that no buffer of ours holds, and batches of them."""
    index = world.index
    assert index is not None
    for i in range(40):
        world.put(LONG[: i * 1700] + b"%d" % i, b"x" * 10, wait=False)
    world.put(LONG, b"v" * 2_500_000)
    after = {key: value for key, value in world.states[-1].items() if not key.startswith(b"0")} | {LONG + b"1": b"2"}

    def batch() -> int:
        with index.batch() as b:
            for key in world.states[-1]:
                if key.startswith(b"0"):
                    b.remove(key)
            b.put(LONG + b"1", b"2")
        return index.position

    world.wait(world.change(after, batch))
    reads(world)


def looks(world: World) -> None:
    """stats, info, check."""
    assert world.index is not None
    assert world.index.stats().keys == len(world.states[-1])
    world.index.info()
    world.index.check()


def backs_up(world: World) -> None:
    """A backup while the index is in use, whole or not there."""
    assert world.index is not None
    target = world.path.parent.parent / "backup.rowex"
    with contextlib.suppress(FileNotFoundError):
        rowex.destroy(target)
    world.index.backup(target)
    _same(target, world.states[-1])


def copies(world: World) -> None:
    """Copy, rename and destroy, of files that nobody uses."""
    target = world.path.parent.parent / "copied.rowex"
    for path in (target, target.with_name("renamed.rowex")):
        with contextlib.suppress(FileNotFoundError):
            rowex.destroy(path)
    rowex.copy(world.path, target)
    _same(target, world.states[-1])
    rowex.rename(target, target.with_name("renamed.rowex"))
    rowex.destroy(target.with_name("renamed.rowex"))


def builds(world: World) -> None:
    """An index made of sorted items."""
    target = world.path.parent.parent / "built.rowex"
    with contextlib.suppress(FileNotFoundError):
        rowex.destroy(target)
    assert rowex.build(target, sorted(ITEMS.items())) == len(ITEMS)
    _same(target, ITEMS)


def salvages(world: World) -> None:
    """What is whole is found again."""
    target = world.path.parent.parent / "salvaged.rowex"
    with contextlib.suppress(FileNotFoundError):
        rowex.destroy(target)
    rowex.salvage(world.path, target)
    _same(target, world.states[-1])


def in_memory(world: World) -> None:
    """An index without a file."""
    with rowex.memory() as index:
        index.update(BASE)
        assert dict(index.items()) == BASE


MADE = ("backup", "copied", "renamed", "built", "salvaged")


def whole_or_absent(make: fault_driver.Part) -> fault_driver.Part:
    """What is there of what *make* makes is whole, and in nobody's way."""

    def after(world: World) -> None:
        expected = [state for state in world.states if b"works again" not in state][-1]
        targets = [world.path.parent.parent / f"{name}.rowex" for name in MADE]
        for target in filter(Path.exists, targets):
            with rowex.open(target, "w") as index:
                index.check()
                found = dict(index.items())
            assert found == ITEMS if target.name == "built.rowex" else found == expected
        with rowex.open(world.path, flush_interval=60) as world.index:
            world.states.append(dict(world.index.items()))
            if make is backs_up:
                make(world)
        if make is not backs_up:
            make(world)
        for target in filter(Path.exists, targets):
            rowex.destroy(target)
        for left in world.path.parent.parent.glob("*.rowex-*"):  # could not be removed; listing them is calls too
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    return after


def outgrows(world: World) -> None:
    """Past the address range of the file's generation: a copy with a larger one is renamed over it."""
    index = world.index
    assert index is not None
    for i in range(4):
        world.put(b"outgrown %d" % i, make_value(b"outgrown %d" % i, i, 700_000), wait=False)
    world.put(b"last", b"1")


def crowds(world: World) -> None:
    """More readers at once than the -lock file has blocks for."""
    index = world.index
    assert index is not None
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(index.reader()) for _ in range(600)]
        assert len({reader.uid for reader in readers}) == len(readers)
        assert readers[-1].exists(b"000")
        world.put(b"beside them", b"1")


def explains(world: World) -> None:
    """What opening it would do, and why."""
    assert explain(world.path).state == "clean"


def waits_in_a_loop(world: World) -> None:
    """For durability, with many others in mind."""
    assert world.index is not None
    ticket = world.change({**world.states[-1], b"in a loop": b"1"}, partial(world.index.put, b"in a loop", b"1"))
    trio.run(rowex.aio.Index(world.index).wait_durable, ticket)
    world.sure = len(world.states) - 1


def replaces(world: World) -> None:
    """By an empty one."""
    world.maybe = {}
    world.index = rowex.open(world.path, "n", flush_interval=60)
    world.inode = world.path.stat().st_ino
    world.states.append({})
    world.maybe, world.sure = None, len(world.states) - 1
    world.put(b"new", b"1")


def small_file(path: Path) -> State:
    """Closed, and with an address range that a few large values fill."""
    with rowex.open(path, capacity=2 << 20, flush_interval=60) as index:
        index.put_many(BASE.items())
    return dict(BASE)


def _same(path: Path, state: State) -> None:
    """It opens, and holds that."""
    with rowex.open(path, "w") as index:
        index.check()
        assert dict(index.items()) == state


EXTRA: dict[str, tuple[Callable[[Path], State], fault_driver.Part, fault_driver.Part]] = {
    "reads": (clean_file, opened, reads),
    "long keys": (clean_file, written, long_keys),
    "stats and check": (clean_file, written, looks),
    "backup": (logged_file, written, backs_up),
    "copy, rename, destroy": (logged_file, nothing, copies),
    "build": (logged_file, nothing, builds),
    "salvage": (logged_file, nothing, salvages),
    "memory": (logged_file, nothing, in_memory),
    "growth beyond the capacity": (small_file, written, outgrows),
    "more uids": (clean_file, written, crowds),
    "explain": (logged_file, nothing, explains),
    "a wait in a loop": (clean_file, written, waits_in_a_loop),
    "replace": (logged_file, nothing, replaces),
}


MAKING = {"backup": backs_up, "copy, rename, destroy": copies, "build": builds, "salvage": salvages}
AFTER = {name: whole_or_absent(make) for name, make in MAKING.items()}


def tracked(run_case: Callable[..., bool]) -> Callable[..., bool]:
    """The same, and no descriptor stays."""

    def case(name: str, path: Path, state: State, plan: str) -> bool:
        before = _descriptors()
        met = run_case(name, path, state, plan)
        stay = [name for name in _descriptors() if name not in before]
        assert not stay, f"descriptors stay: {stay}"
        return met

    return case


def _descriptors() -> list[str]:
    """What this process has open, by name."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(name for name in names if ".rowex" in name or name.endswith("/work"))


if __name__ == "__main__":
    faulthandler.enable()
    fault_driver.SCENARIOS.update(EXTRA)
    fault_driver.AFTER.update(AFTER)
    fault_driver.run_case = tracked(fault_driver.run_case)
    sys.exit(fault_driver.main())
