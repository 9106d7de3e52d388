"""
What can be had of an index that is refused: `salvage`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from threading import Event, Thread
from typing import Any

import click
from tqdm import tqdm

from rowex._native import ffi
from rowex.cli.admin import print_json, print_table
from rowex.cli.console import ABSENT, tell
from rowex.files import salvage_told
from rowex.options import as_path, core_options
from rowex.results import Salvaged

__all__ = ["salvage"]

LOSSES_SHOWN = 20


@contextmanager
def _watched(told: Any, hidden: bool | None) -> Iterator[None]:
    """A progress bar for as long as the core works."""
    over = Event()
    with tqdm(unit="B", unit_scale=True, disable=hidden, file=sys.stderr, leave=False) as bar:

        def follow() -> None:
            while not over.wait(0.1):
                bar.total = max(int(told.total), int(told.done))
                bar.update(int(told.done) - bar.n)

        watcher = Thread(target=follow, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _tree_text(state: str, items: int, lost: int) -> str:
    if state in ("missing", "not needed"):
        return state
    name = "doubtful, of no one moment" if state == "doubtful" else state
    return f"{name}: {items} item(s)" + (f", {lost} place(s) in its tree lead to nothing sound" if lost else "")


def _log_text(told: Salvaged) -> str:
    if told.log in ("missing", "not needed"):
        return told.log
    gaps = f", {told.log_gaps} gap(s)" if told.log_gaps else ""
    return f"{told.log}: {told.log_entries} change(s)" + gaps


def _orphans_text(told: Salvaged) -> str:
    if not told.orphans:
        return "none"
    if told.orphans_taken:
        return f"{told.orphans} key(s) taken from items that nothing leads to: they may be old, or removed"
    return f"{told.orphans} key(s) left out, of items that nothing leads to: --all takes them, old or removed ones too"


def _print(told: Salvaged) -> None:
    rows = {
        "data file": _tree_text(told.data_file, told.data_file_items, told.data_file_lost),
        "checkpoint": _tree_text(told.checkpoint, told.checkpoint_items, told.checkpoint_lost),
        "log": _log_text(told),
        "orphans": _orphans_text(told),
        "kept": f"{told.keys} key(s), in {told.target}",
    }
    if not told.options_known:
        rows["codecs"] = "nothing tells them: keys and values are bytes"
    print_table(rows)
    for text in told.losses[:LOSSES_SHOWN]:
        tell(text)
    if len(told.losses) > LOSSES_SHOWN:
        tell(f"and {len(told.losses) - LOSSES_SHOWN} losses more; --json names them")


@click.command()
@click.argument("index_path", metavar="INDEX")
@click.argument("target")
@click.option("--all", "orphans", is_flag=True, help="Also items that nothing leads to: old or removed ones too.")
@click.option("--replace", is_flag=True, help="An index at TARGET is replaced.")
@click.option("--json", "as_json", is_flag=True, help="As one line of JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@click.pass_context
def salvage(
    ctx: click.Context, index_path: str, target: str, orphans: bool, replace: bool, as_json: bool, quiet: bool
) -> None:
    """
    Get out what can be had of an index that is refused, into a fresh one.

    INDEX and its sidecars are only read, and may be damaged or missing. What is sound in the
    checkpoint and the log is taken, and what the data file leads to where they lack something, or
    where there is no log. The exit status is 1 where something is lost, or may be. TARGET may be a
    folder.
    """
    path = os.path.join(target, os.path.basename(index_path)) if os.path.isdir(target) else target
    told = ffi.new("struct rx_salvaged *")
    options, _alive = core_options(as_path(path), "n" if replace else "c")
    with _watched(told, True if quiet or as_json else None):  # None: unless stderr is a terminal
        result = salvage_told(index_path, options, orphans, told)
    if as_json:
        print_json(asdict(result) | {"complete": result.complete})
    else:
        _print(result)
    if not result.complete:
        ctx.exit(ABSENT)
