"""
Runs one scenario of test_log_faults.py in the test build: an operation whose n-th system call on a
file fails, for growing n until it succeeds without having met the fault; every n where the environment
has ROWEX_EVERY_CASE (pytest --long).  A failure names its n.  Failure model: `ioerror`.

Each case is a child with a folder of its own; what must hold is in fault_world.py.

    fault_driver.py SCENARIO FOLDER PLAN...      a plan: CALL[+]:WHAT, as in disk.h without N
"""

from __future__ import annotations

import errno
import faulthandler
import os
import random
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import rowex
from fault_world import CASE_S, State, World, arm, calls
from power import without_power
from tools import die_with_parent, make_value

FAILURES_SHOWN = 5
EACH_OF_THE_FIRST = 6
WITHOUT_LOCK = shutil.ignore_patterns("*-lock")  # large, sparse, and made anew

# ---- scenarios ------------------------------------------------------------------------------


BASE = {b"%03d" % i: make_value(b"%03d" % i, i, 60) for i in range(300)}


def no_files(path: Path) -> State:
    """Nothing yet."""
    return {}


def clean_file(path: Path) -> State:
    """Closed."""
    with rowex.open(path, flush_interval=60) as index:
        index.put_many(BASE.items())
    return dict(BASE)


def logged_file(path: Path) -> State:
    """Closed, with a checkpoint, and a log behind it."""
    with rowex.open(path, flush_interval=60) as index:
        index.put_many(list(BASE.items())[:150])
        index.checkpoint()
        index.put_many(list(BASE.items())[150:])
    return dict(BASE)


def without_log(path: Path) -> State:
    """Closed, and somebody has removed the log."""
    state = clean_file(path)
    shutil.rmtree(f"{path}-log")
    return state


def switched_off(path: Path) -> State:
    """As a machine leaves it that stopped."""
    with rowex.open(path, flush_interval=60) as index:
        index.put_many(list(BASE.items())[:150])
        index.checkpoint()
        for i in range(5):  # more than one segment
            index.put(b"large %d" % i, b"%d" % i * 60_000)
            index.flush()
        index.put_many(list(BASE.items())[150:])
        index.flush()
        off = without_power(path, path.parent.with_name("made"))
    shutil.rmtree(path.parent)
    off.parent.rename(path.parent)
    os.environ["ROWEX_BOOT_ID"] = "the next boot"
    return {**BASE, **{b"large %d" % i: b"%d" % i * 60_000 for i in range(5)}}


def waits(world: World) -> None:
    """Changes that are waited for, one by one and several at once."""
    for i in range(3):
        world.put(b"wait %d" % i, b"x" * 100)
    world.put(b"later", b"1", wait=False)
    world.put(b"later still", b"1")


def waits_in_session(world: World) -> None:
    """In a session that has written already."""
    waits(world)


def crowd(world: World) -> None:
    """Several threads wait at once: each is told the truth, and none is forgotten."""
    for i in range(4):
        world.put(b"crowd %d" % i, b"%d" % i, wait=False)
    index, told = world.index, {}
    assert index is not None
    first = len(world.states) - 4

    def wait(number: int, ticket: int) -> None:
        try:
            index.wait_durable(ticket, timeout=CASE_S / 2)
            told[number] = None
        except rowex.RowexError as error:
            told[number] = error

    threads = [threading.Thread(target=wait, args=each) for each in enumerate(world.tickets[-4:])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    durable = [number for number, error in told.items() if error is None]
    world.sure = max([world.sure, *(first + number for number in durable)])
    wrong = [error for error in told.values() if error is not None]
    assert len(told) == 4
    if wrong:
        assert all(isinstance(error, rowex.DurabilityError | rowex.DiskFullError) for error in wrong)  # or not yet
        raise wrong[0]


def first_write(world: World) -> None:
    """After a clean open."""
    world.put(b"first", b"1")
    world.put(b"second", b"2")


def opens(world: World) -> None:
    """From opening to closing."""
    world.open()
    world.put(b"opened", b"1")
    world.put(b"and closed", b"1", wait=False)
    world.close()


def switches(world: World) -> None:
    """Through more than one segment."""
    for i in range(5):
        world.put(b"switch %d" % i, b"%d" % i * 60_000, wait=i % 2 == 1)
    world.put(b"last", b"1")


def grows(world: World) -> None:
    """Through blocks that the file has not got yet."""
    for i in range(3):
        world.put(b"grow %d" % i, b"%d" % i * 300_000, wait=False)
    world.put(b"last", b"1")


def removes(world: World) -> None:
    """Keys go, one by one and as a batch."""
    index = world.index
    assert index is not None
    keys = sorted(BASE)
    after = {key: value for key, value in world.states[-1].items() if key != keys[0]}
    world.wait(world.change(after, lambda: index.remove(keys[0])))
    after = {key: value for key, value in after.items() if key not in keys[:5]}

    def batch() -> int:
        with index.batch() as b:
            for key in keys[1:5]:
                b.remove(key)
            b.put(b"batched", b"1")
        return index.position

    world.wait(world.change({**after, b"batched": b"1"}, batch))


def checkpoints(world: World) -> None:
    """A checkpoint between changes."""
    assert world.index is not None
    world.put(b"before", b"1", wait=False)
    world.index.checkpoint()
    world.sure = len(world.states) - 1
    world.put(b"after", b"1")


def compacts(world: World) -> None:
    """Copy and rename."""
    assert world.index is not None
    world.put(b"before", b"1", wait=False)
    world.index.compact()
    world.put(b"after", b"1")


def closes(world: World) -> None:
    """A clean close, with something left to write."""
    world.put(b"before", b"1", wait=False)
    world.close()


def opened(world: World) -> None:
    """Before the faults: open."""
    world.open()


def written(world: World) -> None:
    """Before the faults: a session that writes."""
    world.open()
    world.put(b"session", b"1")


def nothing(world: World) -> None:
    """Before the faults: nothing."""


def killed(world: World) -> None:
    """Before the faults: another process wrote and was killed, some of it not written out."""
    pid = os.fork()
    if pid == 0:
        index = rowex.open(world.path, flush_interval=60)
        index.put(b"flushed", b"1", durable=True)
        index.put(b"not flushed", b"1")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    world.states += [{**BASE, b"flushed": b"1"}, {**BASE, b"flushed": b"1", b"not flushed": b"1"}]
    world.sure = 1


Part = Callable[[World], None]
SCENARIOS: dict[str, tuple[Callable[[Path], State], Part, Part]] = {
    "create": (no_files, nothing, opens),
    "open": (logged_file, nothing, opens),
    "first write after a clean open": (logged_file, opened, first_write),
    "durable puts": (clean_file, written, waits),
    "several waiters": (clean_file, written, crowd),
    "removals": (clean_file, written, removes),
    "segment switch": (clean_file, written, switches),
    "growth": (clean_file, written, grows),
    "checkpoint": (logged_file, written, checkpoints),
    "copy and rename": (clean_file, written, compacts),
    "clean close": (clean_file, written, closes),
    "recovery": (switched_off, nothing, opens),
    "rescue": (clean_file, killed, opens),
    "clean file without its log": (without_log, nothing, opens),
}

# What must hold of what else was to be made, once nothing fails any more.
AFTER: dict[str, Part] = {}

# Of memory and of threads.
REQUESTS = {"malloc", "thread"}

# Advice that is not taken costs time alone.
ADVICE = "madvise"

# Nobody is told of a close that failed: all was synced before, and the descriptor is gone.
UNTOLD = {ADVICE, "close"}

# Nobody is told of these: EINTR, and what older kernels and other filesystems answer.
INVISIBLE = {"short", str(errno.EINTR), str(errno.EOPNOTSUPP), str(errno.EINVAL)}


# ---- cases -------------------------------------------------------------------------------------


def run_case(name: str, path: Path, state: State, plan: str) -> bool:
    """One fault; whether it was met."""
    _, before, during = SCENARIOS[name]
    world = World(path, state)
    before(world)
    arm(plan)
    failed: BaseException | None = None
    try:
        during(world)
    except (rowex.RowexError, OSError, MemoryError) as error:
        failed = error
        world.dead = isinstance(error, rowex.DurabilityError)
        if isinstance(error, rowex.CorruptionError):
            raise AssertionError("a call that failed is no damage") from error
        if world.index is None and world.dead:
            raise AssertionError("what could not be read is not lost") from error
        if getattr(error, "errno", None) == errno.ENOTRECOVERABLE:
            raise AssertionError("a close left this errno, not what failed") from error
    call, n, what = plan.split(":")
    met = calls() >= int(n.rstrip("+"))
    if call in REQUESTS:
        arm("")  # reading takes memory too
    once = not n.endswith("+")
    rewritten = once and what == "5" and call in ("pwrite", "fdatasync") and name in REWRITTEN
    if failed is not None and (not met or what in INVISIBLE or call in UNTOLD or rewritten):
        raise AssertionError("nothing was to be seen of this") from failed
    if call in REQUESTS and failed is not None and not isinstance(failed, MemoryError):
        raise AssertionError("it does not say that memory is short") from failed
    world.look(failed is None, not once)
    AFTER.get(name, nothing)(world)
    return met


# What fails once in writing the log is written to a fresh segment.
REWRITTEN = {"durable puts", "several waiters", "removals", "segment switch"}


def child(body: Callable[[], bool]) -> bool:
    """In a process of its own; what it answers, or AssertionError with what it raised."""
    receive, send = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        said = "it died"
        try:
            die_with_parent(parent)
            signal.alarm(CASE_S)
            said = "met" if body() else "not met"
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(send, said.encode()[:60_000])
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status or said not in ("met", "not met"):
        raise AssertionError(said or f"it ended with status {status}: does it hang?")
    return said == "met"


def chosen() -> Iterator[int]:
    """1, 2, 3, ...: all of them in long runs, else the first few and about two of seven after them."""
    dice = random.Random(os.environ.get("ROWEX_SEED"))
    n = 1
    while True:
        yield n
        n += 1 if n < EACH_OF_THE_FIRST or "ROWEX_EVERY_CASE" in os.environ else dice.randint(1, 6)


def run_plan(name: str, folder: Path, plan: str, image: Path, state: State) -> tuple[int, list[str]]:
    """Every n, or some; how many, and what went wrong."""
    call, what = plan.split(":")
    failures = []
    for n in chosen():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(image, folder, ignore=WITHOUT_LOCK)
        full = f"{call.rstrip('+')}:{n}{'+' * call.endswith('+')}:{what}"
        try:
            if not child(lambda full=full: run_case(name, folder / "index.rowex", dict(state), full)):
                return n - 1, failures
        except AssertionError as error:
            failures.append(f"---- {name}, {full}\n{error}")
            if len(failures) == FAILURES_SHOWN:
                return n, failures
    raise AssertionError


def main() -> int:
    """Run; 1 where something went wrong."""
    faulthandler.enable()
    name, work, plans = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    folder, image = work / "work", work / "image"
    folder.mkdir()
    state = SCENARIOS[name][0](folder / "index.rowex")
    shutil.copytree(folder, image, ignore=WITHOUT_LOCK)
    wrong = []
    for plan in plans:
        cases, failures = run_plan(name, folder, plan, image, state)
        print(f"{name}, {plan}: {cases} cases", flush=True)
        wrong += failures
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
