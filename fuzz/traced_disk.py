"""
A disk that keeps what it must: rebuilt from what a build with ROWEX_FAULTS has recorded (ROWEX_TRACE,
rowex/native/disk.c), for fuzz_reorder.py and count_durable.py.

A file is what its last successful sync made durable, and the writes after that, of which a drive may
keep any, torn at sectors; a folder likewise, of names.  What was written before a sync that failed is
lost: no later one brings it to the disk.  Programs add records of their own.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

HEAD = struct.Struct("<IIQQQ")
MADE, WRITE, EXTEND, CUT, SYNCING, SYNCED, RENAMED, REMOVED, FAILED = range(1, 10)
OWN = 100  # records of the program's own: from here on
PAGE, SECTOR = 4096, 512
ZEROS = bytes(PAGE)

Record = tuple[int, int, int, int, bytes]  # kind, a, b, c, bytes


def append(trace: int, kind: int, a: int = 0, b: int = 0, c: int = 0, data: bytes = b"") -> None:
    """Add a record to the trace, open for appending."""
    os.write(trace, HEAD.pack(HEAD.size + len(data), kind, a, b, c) + data)


def records(trace: Path) -> Iterator[Record]:
    """Everything that was recorded, in order."""
    with trace.open("rb") as file:
        while head := file.read(HEAD.size):
            size, kind, a, b, c = HEAD.unpack(head)
            yield kind, a, b, c, file.read(size - HEAD.size)


class File:
    """Bytes: the durable ones, and what was written after them."""

    def __init__(self) -> None:
        self.size = 0
        self.pages: dict[int, bytes] = {}
        self.unsynced: list[tuple[int, str, int, bytes]] = []  # when, what, where or how long, bytes

    def apply(self, what: str, at: int, data: bytes) -> None:
        """One of them is durable."""
        if what == "cut":
            self.size = at
            self.pages = {number: page for number, page in self.pages.items() if number * PAGE < at}
        elif what == "extend":
            self.size = max(self.size, at)
        else:
            self.size = max(self.size, at + len(data))
            while data:
                number, start = divmod(at, PAGE)
                part, data = data[: PAGE - start], data[PAGE - start :]
                page = self.pages.get(number, ZEROS)
                self.pages[number] = page[:start] + part + page[start + len(part) :]
                at += len(part)

    def synced(self, began: int) -> None:
        """What was written before then is durable."""
        for when, what, at, data in self.unsynced:
            if when < began:
                self.apply(what, at, data)
        self.unsynced = [each for each in self.unsynced if each[0] >= began]

    def forget(self) -> None:
        """A sync has failed: the kernel takes the pages for written."""
        self.unsynced = [each for each in self.unsynced if each[1] != "write"]

    def seen(self, now: int, size: int, pages: dict[int, bytes]) -> None:
        """What a mapped file holds when its sync begins: the pages that differ were stored to."""
        view = self.kept(lambda: True)
        if size < view.size:
            self.unsynced.append((now, "cut", size, b""))
        for number in sorted(set(view.pages) | set(pages)):
            page = pages.get(number, ZEROS)
            if page != view.pages.get(number, ZEROS) and number * PAGE < size:
                self.unsynced.append((now, "write", number * PAGE, page[: size - number * PAGE]))
        if size > view.size:
            self.unsynced.append((now, "extend", size, b""))

    def kept(self, keep: Callable[[], bool]) -> File:
        """As a drive may have it: *keep* is asked for each sector and each change of the length."""
        image = File()
        image.size, image.pages = self.size, dict(self.pages)
        for _, what, at, data in self.unsynced:
            if what != "write":
                if keep():
                    image.apply(what, at, b"")
                continue
            while data:
                length = SECTOR - at % SECTOR
                if keep():
                    image.apply("write", at, data[:length])
                at, data = at + length, data[length:]
        return image

    def write_to(self, path: Path) -> None:
        """An ordinary file."""
        with path.open("wb") as file:
            file.truncate(self.size)
            for number, page in self.pages.items():
                if page != ZEROS:
                    file.seek(number * PAGE)
                    file.write(page[: self.size - number * PAGE])


class Folder:
    """Names: the durable ones, and what happened to them after that."""

    def __init__(self) -> None:
        self.names: dict[str, File | Folder] = {}
        self.now: dict[str, File | Folder] = {}
        self.unsynced: list[tuple[int, str, str, File | Folder | None]] = []  # when, what, name[s], of what

    @staticmethod
    def apply(names: dict[str, File | Folder], what: str, name: str, thing: File | Folder | None) -> None:
        """One of them."""
        if what == "made" and thing is not None:
            names[name] = thing
        elif what == "renamed" and thing is not None:
            before, after = name.split("/")
            names[after] = thing
            if names.get(before) is thing:
                del names[before]
        elif names.get(name) is thing:
            names.pop(name, None)

    def change(self, now: int, what: str, name: str, thing: File | Folder | None) -> None:
        """It was done, and may be lost."""
        self.unsynced.append((now, what, name, thing))
        self.apply(self.now, what, name, thing)

    def synced(self, began: int) -> None:
        """What was done before then is durable."""
        for when, what, name, thing in self.unsynced:
            if when < began:
                self.apply(self.names, what, name, thing)
        self.unsynced = [each for each in self.unsynced if each[0] >= began]

    def kept(self, keep: Callable[[], bool]) -> dict[str, File | Folder]:
        """As a drive may have it."""
        names = dict(self.names)
        for _, what, name, thing in self.unsynced:
            if keep():
                self.apply(names, what, name, thing)
        return names


class Disk:
    """One folder of an index and what is in it, after a number of records."""

    def __init__(self, root: int) -> None:
        self.root = Folder()
        self.things: dict[int, File | Folder] = {root: self.root}  # by inode number
        self.syncs: dict[int, tuple[File | Folder, int]] = {}
        self.now = 0

    @classmethod
    def found(cls, path: Path) -> Disk:
        """What lies in a folder now, all of it durable."""
        disk = cls(path.stat().st_ino)
        disk.find(path, disk.root)
        return disk

    def find(self, path: Path, folder: Folder) -> None:
        """One folder."""
        for entry in path.iterdir():
            if entry.name.endswith("-lock"):
                continue
            thing: File | Folder = Folder() if entry.is_dir() else File()
            self.things[entry.stat().st_ino] = thing
            folder.names[entry.name] = folder.now[entry.name] = thing
            if isinstance(thing, Folder):
                self.find(entry, thing)
            else:
                thing.apply("write", 0, entry.read_bytes())

    def take(self, record: Record) -> None:
        """The next record."""
        kind, a, b, c, data = record
        self.now += 1
        if kind >= OWN:
            return
        thing = self.things.get(a)
        if kind == MADE:
            self.made(thing, data.decode(), b)
        elif thing is None:
            return  # the lock file's, say
        elif isinstance(thing, Folder):
            if kind in (RENAMED, REMOVED):
                what = "renamed" if kind == RENAMED else "removed"
                thing.change(self.now, what, data.decode(), self.things.get(b))
            elif kind == SYNCING:
                self.syncs[b] = thing, self.now
        elif kind == FAILED:
            thing.forget()
        elif kind in (WRITE, EXTEND, CUT):
            what = {WRITE: "write", EXTEND: "extend", CUT: "cut"}[kind]
            thing.unsynced.append((self.now, what, b, data))
        elif kind == SYNCING:
            if c:
                pages = {
                    struct.unpack_from("<Q", data, at)[0]: data[at + 8 : at + 8 + PAGE]
                    for at in range(0, len(data), PAGE + 8)
                }
                thing.seen(self.now, c - 1, pages)
            self.syncs[b] = thing, self.now + 1
        if kind == SYNCED and b in self.syncs:
            synced, began = self.syncs.pop(b)
            synced.synced(began)

    def made(self, folder: File | Folder | None, name: str, inode: int) -> None:
        """A file, a folder, or another name of one."""
        if not isinstance(folder, Folder) or name.endswith("-lock"):
            return
        known = self.things.get(inode)
        if known is not None and folder.now.get(name) is known:
            return
        linked = any(known is each for place in self.folders() for each in place.now.values())
        if known is None or not linked:
            known = Folder() if name.endswith("-log") else File()
            self.things[inode] = known
        folder.change(self.now, "made", name, known)

    def folders(self) -> list[Folder]:
        """All of them."""
        return [thing for thing in self.things.values() if isinstance(thing, Folder)]

    def image(self, path: Path, dice: random.Random, odds: float | None = None) -> None:
        """Write what a drive may have kept to a new folder; *odds*: for each thing, None: by *dice*."""
        odds = dice.choice([0.0, 1.0, 0.5, 0.1, 0.9]) if odds is None else odds

        def keep() -> bool:
            return dice.random() < odds

        self.write_folder(self.root, path, keep)

    def write_folder(self, folder: Folder, path: Path, keep: Callable[[], bool]) -> None:
        """One folder."""
        path.mkdir()
        for name, thing in folder.kept(keep).items():
            if isinstance(thing, Folder):
                self.write_folder(thing, path / name, keep)
            else:
                thing.kept(keep).write_to(path / name)


# ---- recording ----------------------------------------------------------------------------------


def forked(limit_s: int, body: Callable[[], object]) -> int:
    """A child that does it within that time; its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.alarm(limit_s)
        body()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def succeed(pids: list[int]) -> None:
    """Wait for them all."""
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(statuses):
        raise SystemExit(f"processes ended with {statuses}")
