"""
A round: processes at work on one file, and who kills, stops and cuts them off.

The round's own process never opens the file: what is looked at is looked at by processes that can be killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import rowex
from power import recovered, without_power
from tools import TIME_SCALE, Child, ChildError, assert_same, counted, leftovers, make_value, read_value

from . import roles
from .books import TALLY, Books
from .roles import World

LENGTH_S = 5.0
STUCK_S = 60 * TIME_SCALE
DISK_MIB = 160
SIZES = [(0, 8, 24, 100, 900, 3000), (0, 40, 700, 9000, 30_000), (24, 3000, 24, 150_000)]


@dataclass
class Figures:
    """What was done."""

    rounds: int = 0
    operations: int = 0
    reads: int = 0
    scans: int = 0
    processes: int = 0
    kills: int = 0
    killed_all: int = 0
    stops: int = 0
    power_cuts: int = 0
    compactions: int = 0
    checkpoints: int = 0
    checks: int = 0
    backups: int = 0
    growths: int = 0
    copies: int = 0
    disk_full: int = 0
    refused: int = 0
    not_durable: int = 0
    longest_stall_of_a_reader_ms: float = 0
    longest_stall_of_a_writer_ms: float = 0
    longest_stop_ms: float = 0
    lost: int = 0
    _titles: dict[str, str] = field(
        default_factory=lambda: {
            "killed_all": "times that all were killed at once",
            "growths": "growths seen",
            "copies": "copies and renames seen",
            "disk_full": "disk full",
            "refused": "recoveries refused for want of room, and made with more",
            "not_durable": "changes undone by power cuts, none of them told to be durable",
            "longest_stop_ms": "longest stop, ms",
            "longest_stall_of_a_reader_ms": "longest stall of a reader, its own stops left out, ms",
            "longest_stall_of_a_writer_ms": "longest stall of a writer, its own stops left out, ms",
        },
        repr=False,
    )

    def numbers(self) -> dict[str, float]:
        """By name."""
        return {name: number for name, number in asdict(self).items() if not name.startswith("_")}

    def table(self, without: Sequence[str] = ()) -> str:
        """For people."""
        numbers = [(name, number) for name, number in self.numbers().items() if name not in without]
        rows = [(self._titles.get(name, name.replace("_", " ")), number) for name, number in numbers]
        width = max(len(title) for title, _ in rows)
        return "\n".join(f"{title:<{width}}  {number:>12,.{int(isinstance(number, float))}f}" for title, number in rows)


class Disk:
    """Where a round's file lies: a folder, or a small file system where one can be mounted."""

    def __init__(self, folder: Path, small: bool) -> None:
        self.folder, self.mounted = folder, False
        self.ballast = folder / "ballast"
        folder.mkdir(parents=True)
        if small and os.geteuid() == 0:
            words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0755", "none", str(folder)]
            self.mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
        self.path = folder / "data" / "index.rowex"
        self.path.parent.mkdir()

    def fill(self, left: int) -> None:
        """Take all but so many bytes of it, or give it all back."""
        if self.ballast.exists():
            self.ballast.unlink()
            return
        with contextlib.suppress(OSError), open(self.ballast, "wb") as ballast:
            free = os.statvfs(self.folder)
            os.posix_fallocate(ballast.fileno(), 0, max(1, free.f_bavail * free.f_frsize - left))

    def empty(self) -> None:
        """Give it all back, and what is left of backups whose makers were killed."""
        self.ballast.unlink(missing_ok=True)
        for entry in self.folder.glob("backup*"):
            shutil.rmtree(entry)

    def enlarge(self) -> None:
        """Much more room than before."""
        subprocess.run(["mount", "-o", f"remount,size={4 * DISK_MIB}m", str(self.folder)], check=True)

    def remove(self) -> None:
        """Nothing is left."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)
        shutil.rmtree(self.folder)


@dataclass
class Actor:
    """One of the round's processes."""

    child: Child
    stopped_at: float = 0  # 0: it runs
    wakes_at: float = 0
    beats: int = 0
    beaten_at: float = 0


class Round:
    """One round."""

    def __init__(self, folder: Path, options: Any, number: int, figures: Figures) -> None:
        self.name = f"{options.seed} {number}"
        self.rng = random.Random(self.name)
        self.figures = figures
        durability = self.rng.choice(["batch", "batch", "commit", "process"])
        self.durability = options.durability or durability
        self.full = self.rng.random() < 0.3
        self.cast = roles.cast(options.processes)
        self.disk = Disk(folder, self.full)
        create: dict[str, Any] = {"initial_size": 1 << 18}
        if self.rng.random() < 0.6:
            create["capacity"] = 1 << self.rng.choice([20, 21, 22])
        if self.full and not self.disk.mounted:
            create["max_size"] = 8 << 20
        sizes = self.rng.choice(SIZES)
        owners = sum(role is roles.own for role, _ in self.cast)
        books = Books(owners, 40, 8, sizes, self.durability)
        self.world = World(self.disk.path, books, len(self.cast), {}, self.full)
        self.create = {**create, "durability": self.durability}
        self.actors: list[Actor] = []
        self.seen = (0, 0)
        self.boots = 0

    def __str__(self) -> str:
        return f"{self.create}, values of {self.world.books.sizes}" + (", little room" if self.full else "")

    # ---- processes ---------------------------------------------------------------------------------

    def alone(self, function: Any, *args: Any, limit_s: float = 60) -> Any:
        """Have a process do something, and wait for its answer."""
        child = Child(function, *args)
        try:
            answer = child.recv(limit_s * TIME_SCALE)
            child.finish()
            return answer
        finally:
            child.cleanup()

    def start(self, slot: int) -> Actor:
        """A new process in a slot."""
        role, number = self.cast[slot]
        seed = f"{self.name} {slot} {self.rng.random()}"
        self.figures.processes += 1
        child = Child(roles.live, self.world, slot, role, number, seed)
        return Actor(child, beaten_at=time.monotonic())

    def kill(self, slot: int) -> None:
        """SIGKILL, also to one that is stopped; what it had found wrong before counts."""
        child = self.actors[slot].child
        child.kill()
        self.account(slot)
        if child.status != -signal.SIGKILL:
            child.finish()
            raise AssertionError("a process ended by itself")
        with contextlib.suppress(EOFError, ConnectionResetError):
            while child.pipe.poll(0):
                thing = child.pipe.recv()
                if isinstance(thing, ChildError):
                    raise thing
        child.cleanup()
        self.figures.kills += 1

    def stop(self, slot: int, seconds: float) -> None:
        """SIGSTOP; watch() wakes it."""
        actor = self.actors[slot]
        if not actor.stopped_at:
            actor.child.signal(signal.SIGSTOP)
            actor.stopped_at = time.monotonic()
            actor.wakes_at = actor.stopped_at + seconds
            self.figures.stops += 1

    def account(self, slot: int) -> None:
        """Its stop is over; it is not counted as a stall."""
        actor = self.actors[slot]
        if actor.stopped_at:
            took = time.monotonic() - actor.stopped_at
            self.world.count(slot, roles.STOPPED_NS, int(took * 1e9))
            self.figures.longest_stop_ms = max(self.figures.longest_stop_ms, round(took * 1e3, 1))
            actor.stopped_at = 0
            actor.beaten_at = time.monotonic()

    def wake(self, slot: int) -> None:
        """SIGCONT."""
        if self.actors[slot].stopped_at:
            self.account(slot)
            self.actors[slot].child.go_on()

    def halt(self) -> None:
        """All stand still; the dead do too."""
        for slot in range(len(self.actors)):
            if self.actors[slot].child.status is None:
                self.stop(slot, 1e9)
        for actor in self.actors:
            if actor.child.status is None:
                os.waitid(os.P_PIDFD, actor.child.descriptor, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def listen(self, actor: Actor) -> None:
        """Whatever ended by itself, or says that something is wrong, ends the round."""
        if actor.child.pipe.poll(0):
            actor.child.recv(0)

    def watch(self) -> None:
        """Nobody fails, nobody stands still for ever, and what sleeps is woken in time."""
        now = time.monotonic()
        for slot, actor in enumerate(self.actors):
            self.listen(actor)
            if actor.stopped_at and now > actor.wakes_at:
                self.wake(slot)
            beats = self.world.read(slot, roles.BEATS)
            if beats != actor.beats or actor.stopped_at:
                actor.beats, actor.beaten_at = beats, now
            elif now - actor.beaten_at > STUCK_S:
                actor.child.signal(signal.SIGUSR1)  # tells where it is
                actor.child.pipe.poll(2)
                role = self.cast[slot][0].__name__
                raise AssertionError(f"{role} of slot {slot} (pid {actor.child.pid}) stands still for {STUCK_S:.0f} s")
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self.disk.path)
            inode, size = self.seen
            self.figures.copies += inode not in (0, found.st_ino)
            self.figures.growths += inode == found.st_ino and found.st_size > size
            self.seen = (found.st_ino, found.st_size)

    # ---- what happens to them ----------------------------------------------------------------------

    def kill_one(self) -> None:
        """Another begins in its place at once."""
        slot = self.rng.randrange(len(self.actors))
        self.kill(slot)
        self.actors[slot] = self.start(slot)

    def stop_some(self) -> None:
        """One, or several, for a while."""
        for slot in self.rng.sample(range(len(self.actors)), self.rng.choice([1, 1, 1, 2, 3])):
            self.stop(slot, self.rng.expovariate(8))

    def kill_all(self) -> None:
        """Nobody is left to tidy up."""
        slots = self.rng.sample(range(len(self.actors)), len(self.actors))
        for slot in slots:
            self.actors[slot].child.signal(signal.SIGKILL)
        for slot in slots:
            self.kill(slot)
        self.figures.killed_all += 1

    def kill_everybody(self) -> None:
        """At once, and begin again."""
        self.kill_all()
        self.actors = [self.start(slot) for slot in range(len(self.cast))]

    def cut(self) -> None:
        """The power goes: the files as they are, another boot; what is found must be explained."""
        if self.durability == "process":
            return
        self.halt()
        after = self.disk.folder.parent / f"{self.disk.folder.name} after"
        looked_at = self.disk.folder.parent / f"{self.disk.folder.name} looked at"
        without_power(self.disk.path, after)
        self.kill_all()
        self.disk.empty()
        shutil.copytree(after, looked_at)
        self.figures.not_durable += self.world.books.judge_cut(self.alone(look_at, looked_at / self.disk.path.name))
        shutil.rmtree(looked_at)
        shutil.rmtree(self.disk.path.parent)
        shutil.copytree(after, self.disk.path.parent)
        shutil.rmtree(after)
        self.figures.power_cuts += 1
        self.boots += 1
        self.world.boot = f"boot {self.boots} of round {self.name}"
        self.actors = [self.start(slot) for slot in range(len(self.cast))]

    def fill(self) -> None:
        """Others take the room, or give it back."""
        if self.disk.mounted:
            self.disk.fill(self.rng.choice([0, 0, 1 << 16, 1 << 20]))

    # ---- the round ---------------------------------------------------------------------------------

    def play(self) -> None:
        """All of it; raises what is wrong."""
        self.world.options = self.create
        self.alone(prepared, self.world)
        self.world.options = {}
        self.actors = [self.start(slot) for slot in range(len(self.cast))]
        events = [(self.kill_one, 10), (self.stop_some, 16), (self.kill_everybody, 0.6), (self.cut, 1), (self.fill, 3)]
        chosen, weights = [event for event, _ in events], [weight for _, weight in events]
        until = time.monotonic() + LENGTH_S
        while time.monotonic() < until:
            self.let_go_on(self.rng.expovariate(25))
            event = self.rng.choices(chosen, weights)[0]
            event()
            if event in (self.cut, self.kill_everybody) and self.rng.random() < 0.5:
                self.let_go_on(self.rng.random() * 0.1)  # the file is being opened, scanned, recovered
                self.rng.choice([self.cut, self.kill_everybody, self.kill_one, self.stop_some])()
        self.finish()

    def let_go_on(self, seconds: float) -> None:
        """So long nothing happens to the processes."""
        pause = time.monotonic() + seconds
        while time.monotonic() < pause:
            time.sleep(0.002)
            self.watch()

    def finish(self) -> None:
        """All end, by themselves or killed; then all is looked at."""
        self.disk.ballast.unlink(missing_ok=True)
        killed = self.rng.random() < 0.5
        if killed:
            self.kill_all()
        else:
            self.world.end()
            limit = time.monotonic() + STUCK_S
            for slot in range(len(self.actors)):
                self.wake(slot)
            while any(actor.child.alive() for actor in self.actors):
                assert time.monotonic() < limit, "a process does not end"
                time.sleep(0.005)
            for actor in self.actors:
                actor.child.finish()
        self.disk.empty()
        try:
            self.alone(settled, self.world, killed, limit_s=120)
        except ChildError as error:
            if not self.disk.mounted or "DiskFullError" not in str(error):
                raise
            self.disk.enlarge()  # a recovery has its own file beside the old one, checkpoint and log
            self.figures.refused += 1
            self.alone(settled, self.world, killed, limit_s=120)
        assert leftovers(self.disk.path) == set(), f"left over: {leftovers(self.disk.path)}"

    def end(self, keep: Path | None) -> None:
        """Nothing goes on; nothing is left but what is to be kept."""
        if keep:
            keep.mkdir(parents=True)
            self.halt()
            for entry in self.disk.folder.parent.glob(f"{self.disk.folder.name}*"):
                shutil.copytree(entry, keep / entry.name, ignore=shutil.ignore_patterns("ballast"))
        for actor in self.actors:
            actor.child.cleanup()
        self.add_up()
        self.disk.remove()
        for entry in self.disk.folder.parent.glob(f"{self.disk.folder.name}*"):
            shutil.rmtree(entry)

    def add_up(self) -> None:
        """What the processes counted."""
        world, figures = self.world, self.figures
        for name, word in [
            ("operations", roles.OPERATIONS),
            ("reads", roles.READS),
            ("scans", roles.SCANS),
            ("compactions", roles.COMPACTIONS),
            ("checkpoints", roles.CHECKPOINTS),
            ("checks", roles.CHECKS),
            ("backups", roles.BACKUPS),
            ("disk_full", roles.FULL),
        ]:
            setattr(figures, name, getattr(figures, name) + world.sum(word))
        for slot, (role, _) in enumerate(self.cast):
            stall = round(world.read(slot, roles.STALL_NS) / 1e6, 1)
            if role is roles.read:
                figures.longest_stall_of_a_reader_ms = max(figures.longest_stall_of_a_reader_ms, stall)
            else:
                figures.longest_stall_of_a_writer_ms = max(figures.longest_stall_of_a_writer_ms, stall)


# ---- in processes of their own ---------------------------------------------------------------------


def prepared(pipe: Any, world: World) -> None:
    """A new file."""
    roles.prepare(pipe, world)
    pipe.send("ready")


def look_at(pipe: Any, path: Path) -> None:
    """What another boot finds."""
    pipe.send(recovered(path))


def settled(pipe: Any, world: World, killed: bool) -> None:
    """With all gone: exactly what was told is there, nothing leaks, and a clean close needs no scan."""
    books = world.books
    with world.open() as index:
        scans = index.stats().scans
        assert killed or scans == 0, "the last to close did not leave it clean"
        index.check()
        if scans:
            assert index.stats().retired_bytes == 0, "what was garbage is not free after the scan"
        for owner in range(books.writers):
            books.audit_owner(index, owner)
        found = dict(index.scan())
        expected = {key: make_value(key, 7) for key in world.churn.stable} | books.everything()
        expected[TALLY] = found[TALLY]
        more = found.keys() - expected.keys()
        assert all(key.startswith(b"flood/") or b"|" in key for key in more), f"nobody put {sorted(more)[:5]}"
        for key in more:
            read_value(key, found[key])
        assert len(index) == counted(index) == len(found), f"len() {len(index)}, {len(found)} keys"
        index.remove_many(more)
        assert_same(index, expected)
    with rowex.open(world.path) as index:
        assert index.stats().scans == 0, "closed, and not clean"
        assert_same(index, expected)
    pipe.send(len(expected))
