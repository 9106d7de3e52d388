"""
A disk that takes longer for a sync than a leader of the log may stand still in the test build, and nobody
who waits: the processes' flushers lead.  The environment says how slow the disk is (disk.c).

Argument: a folder.  Prints how many segments the log has.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import rowex
from power import segments
from tools import Child, die_with_parent, eventually

PUTS = 3


def look_after(pipe: Any, path: Path) -> None:
    """Have the index open, and change it when told to."""
    with rowex.open(path, flush_interval=0.001) as mine:
        mine.put(os.urandom(8), b"", durable=True)
        pipe.send("ready")
        while pipe.recv() == "put":
            ticket = mine.put(os.urandom(8), b"")
            eventually(lambda ticket=ticket: mine.durable >= ticket, what="the log is written")
            pipe.send("durable")


def main(folder: str) -> None:
    """Run."""
    die_with_parent(os.getppid())
    path = Path(folder) / "index.rowex"
    children = [Child(look_after, path) for _ in range(2)]
    for child in children:
        assert child.recv() == "ready"
    for _ in range(PUTS):
        children[0].send("put")
        assert children[0].recv() == "durable"
    print(len(segments(path)))
    for child in children:
        child.send("end")
        child.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
