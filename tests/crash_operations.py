"""
Which scenarios of test_crashpoints.py are about which operation: the table of docs/proof.md, which
`scripts/crashpoints --document` writes.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from crash_scenarios import SCENARIOS

BEGIN, END = "<!-- crash points -->\n", "<!-- end -->\n"
VARYING = re.compile(r"(?<=: another )(?:stands still|comes)$|(?<=call )\d+|(?<=read )\d+|(?<=sync )\d+")

# Patterns of names; a scenario may be about several.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "insert into each kind of node": ("insert*", "key that *", "the last slot: *", "many at once"),
    "growth and shrink of a node": ("grow [0-9]*", "grow a tight *", "grow, *", "shrink*", "use up dead slots"),
    "split and merge of a path": (
        "split a *",
        "merge a *",
        "make a chain *",
        "remove and merge *",
        "remove what a node hangs on",
    ),
    "replace": ("replace*", "big value*", "one key: *"),
    "remove": ("remove*", "replace, remove: *"),
    "compare-and-set": ("compare and *", "take*", "set a default"),
    "batch commit": ("batch of *", "batch, *", "*, batch: *", "a large batch", "a batch finds *"),
    "settle": ("batch after *", "batch over *", "finish *", "a batch stands *", "* batch falls", "reap a batch*"),
    "retire": ("retired *", "a reader stands still", "*, and many writes come", "reap one that retires*"),
    "reuse": ("freed cells *", "*idle lists are *", "big value in place *", "reap one that * free* cells"),
    "extent taken": ("extent*", "*one that takes *extent*", "eight bytes *", "a larger file"),
    "uid taken and returned": ("uid *", "many readers", "many writers"),
    "reaping": ("reap *", "*, and a writer falls", "*, and a batch falls", "startup scan*", "open after *"),
    "growth in place": ("grow in place", "growth on *", "a disk is full", "max_size is reached"),
    "copy and rename": (
        "grow by copy and rename",
        "copier, *",
        "a copier stands *",
        "*a copier comes",
        "*, another copies",
        "writers after a copy",
        "open after a copier's death",
        "a copy finds *",
        "a copy cannot be renamed",
        "a copy on *",
    ),
    "checkpoint": ("checkpoint*", "second checkpoint", "a checkpoint fails", "reap a checkpointer"),
    "compaction": ("compact", "reap a compacter"),
    "clean close": ("clean close*", "create and close", "last to close, *", "*, close"),
    "first write after a clean open": ("first write*", "* and first write", "a first write *"),
    "recovery": ("recovery*", "a recovery *", "startup scan*"),
    # ---- and besides
    "creation": ("create*",),
    "the log": (
        "commit to the log",
        "flush",
        "a segment is full",
        "no room for a segment",
        "a first log *",
        "a sync of the log fails",
        "the log fails *",
        "* the log is not to be had",
        "a leader *",
        "leader, *",
        "reap a leader *",
    ),
    "reading": ("*reading*", "explain", "a value of several MiB", "*, others look", "*a checker*"),
    "whole files": (
        "copy",
        "backup*",
        "copier of *",
        "a copy cannot be made",
        "salvage",
        "build*",
        "a build fails",
        "rename",
        "destroy",
        "open after a destroyer's death",
        "another file *",
    ),
    "other machines": ("*persistent memory", "without membarrier"),
}


def scenarios_of(operation: str) -> list[str]:
    """Those that are about it, in their order."""
    return [name for name in SCENARIOS if any(fnmatchcase(name, each) for each in OPERATIONS[operation])]


def _told(names: list[str]) -> str:
    """In one line; those that differ in who else is there, or in the number of a call, are one."""
    families: dict[tuple[str, str], list[str]] = {}
    for name in names:
        found = VARYING.search(name)
        around = (name[: found.start()], name[found.end() :]) if found else (name, "")
        families.setdefault(around, []).append(found.group() if found else "")
    return "; ".join(before + _span(each) + after for (before, after), each in families.items())


def _span(varying: list[str]) -> str:
    return f"{varying[0]} to {varying[-1]}" if varying[0].isdigit() else " or ".join(varying)


def table() -> str:
    """What stands between the marks."""
    rows = [f"| {operation} | {_told(scenarios_of(operation))} |" for operation in OPERATIONS]
    return "\n".join(["| operation | scenarios of the crash points |", "|---|---|", *rows, ""])


def documented(text: str) -> str:
    """The document, with the table as it is now."""
    before, rest = text.split(BEGIN, 1)
    return before + BEGIN + table() + END + rest.split(END, 1)[1]
