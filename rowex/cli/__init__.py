"""
The command line, `rowex`.

Exit status: 0 done, 1 a key was absent or faults were found, 2 the command line or a line of input
was wrong, 3 the index cannot be used.  Data goes to stdout, all else to stderr.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

import rowex
from rowex.cli.admin import backup, check, compact, cp, info, inspect, mv, rm, stats
from rowex.cli.console import Commands
from rowex.cli.data import delete, get, put, scan
from rowex.cli.recover import recover
from rowex.cli.run import run
from rowex.cli.salvage import salvage
from rowex.cli.transfer import dump, load

__all__ = ["cli", "main"]

STDOUT_BUFFER_BYTES = 1 << 16


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(rowex.__version__, prog_name="rowex")
def cli() -> None:
    """
    An ordered key-value index in one memory-mapped file.

    INDEX is the path of its data file. A KEY or VALUE in double quotes of its own may hold the
    escapes \\" \\\\ \\n \\t \\xNN: '"a\\x00b"'. Keys and values of indexes with codecs are written as:
    int, digits; tuple, as in Python; msgpack, JSON.

    Exit status: 0 done, 1 absent or faults found, 2 usage, 3 index unusable.
    """


def main() -> None:
    """The entry point of the program `rowex` and of `python -m rowex`."""
    _open_missing_streams()
    _widen_stdout()
    cli(prog_name="rowex")


def _open_missing_streams() -> None:
    """Where a stream was closed by the caller, else the data file would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - to the end of the process


def _widen_stdout() -> None:
    """
    Give stdout a large buffer.

    A pipe wakes its reader at each write; and where Python was told not to buffer
    (PYTHONUNBUFFERED), a write may take a part of the bytes only.
    """
    old = sys.stdout
    if not isinstance(old, io.TextIOWrapper):
        return
    encoding, errors, is_terminal = old.encoding, old.errors, old.isatty()
    inner: Any = old.detach()
    raw = inner if isinstance(inner, io.RawIOBase) else inner.detach()
    buffer = io.BufferedWriter(raw, STDOUT_BUFFER_BYTES)
    sys.stdout = io.TextIOWrapper(buffer, encoding=encoding, errors=errors, line_buffering=is_terminal)


for command in (
    run,
    get,
    put,
    delete,
    scan,
    load,
    dump,
    info,
    stats,
    inspect,
    check,
    compact,
    backup,
    recover,
    salvage,
    rm,
    mv,
    cp,
):
    cli.add_command(command)

try:
    from rowex.cli.tour import tour
except ModuleNotFoundError as _error:
    if not (_error.name or "").startswith("rowex.cli"):
        raise
else:
    cli.add_command(tour)
