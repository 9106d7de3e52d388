"""
Single items and ranges of them: `get`, `put`, `delete`, `scan`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from rowex.cli.console import ABSENT, Output, as_bytes, item_line, open_index, raw_option, sides, tell
from rowex.cli.text import Malformed, Side, argument, json_line, quote, tokens
from rowex.errors import RowexError
from rowex.index import Index

__all__ = ["delete", "get", "put", "scan"]


def _keys_of(arguments: tuple[str, ...], keys: Side) -> Iterator[bytes]:
    """The stored keys that the arguments name; ``-`` stands for those on stdin, one a line."""
    for text in arguments:
        if text != "-":
            yield keys.parse(argument(text))
            continue
        for number, line in enumerate(sys.stdin.buffer, 1):
            try:
                words = tokens(line)
                if len(words) > 1:
                    raise Malformed(f"{len(words)} tokens; expected one KEY")
                if words:
                    yield keys.parse(words[0])
            except Malformed as error:
                raise Malformed(f"line {number} of stdin: {error}") from None


def _report_absent(key: bytes, keys: Side) -> None:
    tell(f"absent: {quote(keys.show(key)).decode()}")


@click.command()
@click.argument("index_path", metavar="INDEX")
@click.argument("names", metavar="KEY...", nargs=-1, required=True)
@raw_option
@click.pass_context
def get(ctx: click.Context, index_path: str, names: tuple[str, ...], raw: bool) -> None:
    """
    Print values.

    The value of one KEY is printed as it is, with a newline behind it; with --raw, without. Of
    several KEYs, or those on stdin (-, one a line), the items are printed as "KEY" => VALUE.
    """
    output = Output()
    missing = False
    with open_index(index_path, "r") as index:
        keys, values = sides(index, raw=raw)
        alone = len(names) == 1 and names[0] != "-"
        for key in _keys_of(names, keys):
            value = index.get(key)
            if value is None:
                missing = True
                _report_absent(key, keys)
            elif alone:
                output.write(value if raw else values.show(value) + b"\n")
            else:
                output.write(item_line(keys.show(key), values.show(value)))
    if missing:
        ctx.exit(ABSENT)


@click.command()
@click.argument("index_path", metavar="INDEX")
@click.argument("key", callback=as_bytes)
@click.argument("value")
@raw_option
def put(index_path: str, key: bytes, value: str, raw: bool) -> None:
    """
    Store a value, replacing the one before.

    VALUE - is stdin, all of it, as it is. INDEX is made if missing.
    """
    text = sys.stdin.buffer.read() if value == "-" else argument(value)
    with open_index(index_path, "c") as index:
        keys, values = sides(index, raw=raw)
        _put(index, keys.parse(key), values.parse(text))


def _put(index: Index, key: bytes, value: bytes) -> None:
    try:
        index.put(key, value)
    except ValueError as error:
        if isinstance(error, RowexError):
            raise
        raise Malformed(str(error)) from None  # the key is too large


@click.command()
@click.argument("index_path", metavar="INDEX")
@click.argument("names", metavar="KEY...", nargs=-1, required=True)
@raw_option
@click.pass_context
def delete(ctx: click.Context, index_path: str, names: tuple[str, ...], raw: bool) -> None:
    """
    Remove keys.

    KEY - stands for the keys on stdin, one a line. An absent one is reported; the others go.
    """
    missing = False
    with open_index(index_path, "w") as index:
        keys, _ = sides(index, raw=raw)
        for key in _keys_of(names, keys):
            if not index.discard(key):
                missing = True
                _report_absent(key, keys)
    if missing:
        ctx.exit(ABSENT)


@click.command()
@click.argument("index_path", metavar="INDEX")
@click.argument("start", callback=as_bytes, required=False)
@click.argument("stop", callback=as_bytes, required=False)
@click.option("-p", "--prefix", callback=as_bytes, metavar="P", help="Only keys that begin with P.")
@click.option("-r", "--reverse", is_flag=True, help="From the last to the first.")
@click.option("-n", "--limit", type=click.IntRange(min=0), metavar="N", help="At most N items.")
@click.option("--json", "as_json", is_flag=True, help='JSON lines, {"key": ..., "value": ...}, as dump writes them.')
@raw_option
def scan(
    index_path: str,
    start: bytes | None,
    stop: bytes | None,
    prefix: bytes | None,
    reverse: bool,
    limit: int | None,
    as_json: bool,
    raw: bool,
) -> None:
    """
    Print items in key order, as "KEY" => VALUE.

    From START to before STOP; where one is left out, from the first or to the last.
    """
    if prefix is not None and start is not None:
        raise click.UsageError("give --prefix, or START and STOP, but not both")
    output = Output()
    with open_index(index_path, "r") as index:
        keys, values = sides(index, raw=raw)
        if prefix is not None:
            found = index.scan(prefix=keys.parse_prefix(prefix), reverse=reverse, limit=limit)
        else:
            bounds = [None if bound is None else keys.parse(bound) for bound in (start, stop)]
            found = index.scan(*bounds, reverse=reverse, limit=limit)
        for key, value in found:
            if as_json:
                output.write(json_line(keys, values, key, value))
            else:
                output.write(item_line(keys.show(key), values.show(value)))
