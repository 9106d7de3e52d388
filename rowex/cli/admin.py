"""
An index as a whole: `info`, `stats`, `inspect`, `check`, `compact`, `backup`, `rm`, `mv`, `cp`.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import click

import rowex
from rowex._native import ffi, lib
from rowex.cli.console import ABSENT, Output, as_bytes, open_index, sides, tell
from rowex.cli.text import Side, quote
from rowex.errors import CorruptionError, raise_result
from rowex.index import Index
from rowex.opening import open_raw
from rowex.results import CheckReport

__all__ = ["backup", "check", "compact", "cp", "info", "inspect", "mv", "print_json", "print_table", "rm", "stats"]

_json_option = click.option("--json", "as_json", is_flag=True, help="As one line of JSON.")
_timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="To wait for writers; else as long as it takes."
)

LEAF, NODE4, NODE16, NODE48, NODE256, BIG = 1, 2, 3, 4, 5, 6  # format.h, enum rx_kind
_KINDS = {LEAF: "leaf", NODE4: "Node4", NODE16: "Node16", NODE48: "Node48", NODE256: "Node256", BIG: "big leaf"}
OFFSET_MASK, KIND_MASK = 0x0000_FFFF_FFFF_FFF8, 7  # of a reference


def _plain(item: Any) -> Any:
    return str(item) if not isinstance(item, (dict, list, tuple)) else item


def print_json(item: Any) -> None:
    """One line of JSON."""
    Output().write(json.dumps(item, default=_plain).encode() + b"\n")


def print_table(rows: dict[str, Any]) -> None:
    """Names and numbers, one a line, the numbers below each other."""
    width = max(map(len, rows), default=0) + 2
    output = Output()
    for name, item in rows.items():
        if isinstance(item, bool):
            item = "yes" if item else "no"
        text = "none" if item is None else str(item)
        output.write(b"%b%b\n" % (name.ljust(width).encode(), quote(text.encode("utf-8", "surrogateescape"))[1:-1]))


def _nodes_rows(nodes: dict[str, int]) -> dict[str, int]:
    return {f"nodes {kind}": count for kind, count in nodes.items()}


# Of the statistics, what `info` shows: nodes by kind, the obsolete and the locked, free space.
_INFO_STATS = ("keys", "nodes", "leaves", "locked_nodes", "dead_slots")
_INFO_SPACE = ("used_bytes", "free_bytes", "retired_bytes", "unused_bytes")


@click.command()
@click.argument("index_path", metavar="INDEX")
@_json_option
def info(index_path: str, as_json: bool) -> None:
    """
    Show what an index is: superblock, sizes, nodes, free space.

    Retired bytes are obsolete nodes and values that wait for readers; dead slots are places in
    nodes whose child is gone.
    """
    with open_index(index_path, "r") as index:
        told = dataclasses.asdict(index.info())
        told["open_uids"] = None
        try:
            numbers: dict[str, Any] | None = dataclasses.asdict(index.stats())
        except CorruptionError as error:
            numbers, damage = None, error
        own = os.getpid()
        if numbers is None:
            del told["open_uids"]
        else:
            told["open_uids"] = sum(one["pid"] != own for one in numbers["uids"])
            told |= {name: numbers[name] for name in (*_INFO_STATS, *_INFO_SPACE)}
    if as_json:
        print_json(told)
    else:
        nodes = told.pop("nodes", {})
        rows: dict[str, Any] = {}
        for name, item in told.items():
            if name == "leaves":
                rows |= _nodes_rows(nodes)
            rows[name.replace("_", " ")] = item
        print_table(rows)
    if numbers is None:
        raise damage


@click.command()
@click.argument("index_path", metavar="INDEX")
@_json_option
def stats(index_path: str, as_json: bool) -> None:
    """
    Show an index in numbers.

    Walks the tree, without holding anybody up.
    """
    with open_index(index_path, "r") as index:
        numbers = dataclasses.asdict(index.stats())
    if as_json:
        print_json(numbers)
        return
    nodes, depths, uids = numbers.pop("nodes"), numbers.pop("depths"), numbers.pop("uids")
    rows: dict[str, Any] = {}
    for name, item in numbers.items():
        rows[name.replace("_", " ")] = item
        if name == "keys":
            rows |= _nodes_rows(nodes)
    last = len(depths) - 1
    rows |= {
        f"leaves at depth {depth}{'+' if depth == last else ''}": count for depth, count in enumerate(depths) if count
    }
    for one in uids:
        busy = f", in an operation for {one['age_s']:.3f} s" if one["inside"] else ""
        rows[f"uid {one['uid']}"] = f"{one['kind']} of pid {one['pid']}, tid {one['tid']}{busy}"
    print_table(rows)


# ---- inspect -------------------------------------------------------------------------------------


def _as_offset(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """The callback of an offset in the file, decimal or 0x."""
    if text is None:
        return None
    try:
        offset = int(text, 0)
    except ValueError:
        offset = -1
    if not 0 <= offset < 2**48:
        raise click.BadParameter(f"{text!r} is not an offset: decimal or 0x, from 0 to 2^48", ctx, param)
    return offset


def _node_at(index: Index, offset: int) -> dict[str, Any] | None:
    """The node or leaf at an offset; None if none begins there."""
    out = ffi.new("struct rx_node_info *")
    code = lib.rx_inspect(index._live_handle(), offset, out)
    if code < 0:
        raise_result(code)
    if code != lib.RX_OK:
        return None
    text = bytes(ffi.buffer(out.prefix))[: min(out.prefix_len, len(out.prefix))]
    node: dict[str, Any] = {"offset": out.offset, "kind": _KINDS.get(out.kind, f"kind {out.kind}")}
    if out.kind in (LEAF, BIG):
        return node | {"key": text, "key_len": out.prefix_len}
    return node | {
        "level": out.level,
        "prefix": text,
        "prefix_len": out.prefix_len,
        "lock": out.lock,
        "slots": out.slots,
        "given": out.given,
        "live": out.live,
        "term": _reference(out.term),
        "children": [{"byte": out.child_byte[i], **(_reference(out.child_ref[i]) or {})} for i in range(out.children)],
    }


def _reference(ref: int) -> dict[str, Any] | None:
    if ref == 0:
        return None
    return {"offset": ref & OFFSET_MASK, "kind": _KINDS.get(ref & KIND_MASK, f"kind {ref & KIND_MASK}")}


def _path_offsets(index: Index, key: bytes) -> list[int]:
    """Where the nodes from the root to a key are, and the leaf in which they end."""
    capacity, count = 64, ffi.new("size_t *")
    while True:
        offsets = ffi.new("uint64_t[]", capacity)
        code = lib.rx_inspect_path(index._live_handle(), key, len(key), offsets, capacity, count)
        if code < 0:
            raise_result(code)
        if code == lib.RX_OK:
            return list(offsets[0 : int(count[0])])
        capacity = int(count[0]) + 64


def _prefix_text(data: bytes, size: int) -> bytes:
    return quote(data) + (b"... (%d bytes)" % size if size > len(data) else b"")


def _print_node(output: Output, node: dict[str, Any]) -> None:
    place = b"%#x %b" % (node["offset"], node["kind"].encode())
    if "key" in node:
        output.write(b"%b, key %b\n" % (place, _prefix_text(node["key"], node["key_len"])))
        return
    lock = b", lock word %#x" % node["lock"] if node["lock"] else b""
    prefix = _prefix_text(node["prefix"], node["prefix_len"])
    numbers = node["level"], prefix, node["live"], node["given"], node["slots"]
    output.write(place + b", level %d, prefix %b, %d children in %d given slots of %d%b\n" % (*numbers, lock))
    if node["term"]:
        output.write(b"  ends here: %b\n" % _reference_text(node["term"]))
    for child in node["children"]:
        output.write(b"  %b: %b\n" % (quote(bytes((child["byte"],))), _reference_text(child)))


def _reference_text(ref: dict[str, Any]) -> bytes:
    return b"%#x %b" % (ref["offset"], ref["kind"].encode()) if "offset" in ref else b"nothing"


def _json_node(node: dict[str, Any]) -> dict[str, Any]:
    stored = Side("bytes")
    return {name: stored.to_json(item) if isinstance(item, bytes) else item for name, item in node.items()}


@click.command()
@click.argument("index_path", metavar="INDEX")
@click.option("-o", "--offset", callback=_as_offset, metavar="OFFSET", help="The node or leaf there, decimal or 0x.")
@click.option("-k", "--key", callback=as_bytes, metavar="KEY", help="All nodes from the root to KEY.")
@click.option("--raw", is_flag=True, help="KEY is the stored bytes, whatever the codec.")
@_json_option
@click.pass_context
def inspect(
    ctx: click.Context, index_path: str, offset: int | None, key: bytes | None, raw: bool, as_json: bool
) -> None:
    """
    Show nodes as they are stored; the root, where neither offset nor key is given.

    Take an offset from this command's own output, or from that of check.  Keys are shown as their
    stored bytes.
    """
    if offset is not None and key is not None:
        raise click.UsageError("give --offset or --key, but not both")
    with open_index(index_path, "r") as index:
        if key is None:
            stored, offsets = None, [offset or 0]
        else:
            stored = sides(index, raw=raw)[0].parse(key)
            offsets = _path_offsets(index, stored)
        nodes = [node for at in offsets if (node := _node_at(index, at)) is not None]
        missing = not nodes if stored is None else not index.exists(stored)
    if as_json:
        print_json([_json_node(node) for node in nodes])
    else:
        output = Output()
        for node in nodes:
            _print_node(output, node)
    if missing:
        tell(f"no node or leaf begins at {offset:#x}" if stored is None else f"absent: {quote(stored).decode()}")
        ctx.exit(ABSENT)


# ---- check, compact, files -----------------------------------------------------------------------


def _open_for_check(index_path: str) -> Index:
    """For writing, so that no writer is at work during the check; else for reading."""
    try:
        return open_raw(index_path, "w")
    except OSError:  # PermissionError, a read-only medium; if it is another, this says so
        return open_index(index_path, "r")
    except ValueError:
        return open_index(index_path, "w")  # says it in the way of the other commands


@click.command()
@click.argument("index_path", metavar="INDEX")
@_timeout_option
@_json_option
@click.pass_context
def check(ctx: click.Context, index_path: str, timeout: float | None, as_json: bool) -> None:
    """
    Walk everything and report every fault: structure, order, space, checksums, length.

    Exit status 0: none found, 1: some.
    """
    faults: tuple[tuple[int, str], ...] = ()
    report: CheckReport | None = None
    with _open_for_check(index_path) as index:
        try:
            report = index.check(timeout=timeout)
        except CorruptionError as error:
            faults = error.faults or ((error.offset, str(error)),)
    keys, seconds = (report.keys, report.seconds) if report else (None, None)
    if as_json:
        named = [{"offset": offset, "text": text} for offset, text in faults]
        print_json({"path": index_path, "ok": not faults, "keys": keys, "seconds": seconds, "faults": named})
    elif report:
        Output().write(b"no faults; %d keys\n" % report.keys)
    else:
        output = Output()
        for offset, text in faults:
            output.write(b"%#x: %b\n" % (offset, quote(text.encode("utf-8", "surrogateescape"))[1:-1]))
        tell(f"{len(faults)} fault(s); restore a backup, or get out what can be had with `rowex salvage`")
    if faults:
        ctx.exit(ABSENT)


@click.command()
@click.argument("index_path", metavar="INDEX")
@_timeout_option
@click.option("-q", "--quiet", is_flag=True, help="Do not say what was gained.")
def compact(index_path: str, timeout: float | None, quiet: bool) -> None:
    """
    Copy what is alive to a dense new file and rename it over the old one.

    Readers go on, writers wait.
    """
    with open_index(index_path, "w") as index:
        before = index.info()
        index.compact(timeout=timeout)
        after = index.info()
    if not quiet:
        tell(f"{before.file_bytes} bytes before, {after.file_bytes} after")


@click.command()
@click.argument("paths", metavar="INDEX...", nargs=-1, required=True)
def rm(paths: tuple[str, ...]) -> None:
    """
    Remove indexes and their sidecars.

    One that somebody has open is left alone.
    """
    for path in paths:
        rowex.destroy(path)


def _target_path(source: str, target: str) -> str:
    """In a folder, the name stays, as with mv and cp."""
    return os.path.join(target, os.path.basename(source)) if os.path.isdir(target) else target


@click.command()
@click.argument("source")
@click.argument("target")
def mv(source: str, target: str) -> None:
    """
    Rename an index and its sidecars; TARGET may be a folder.

    Nothing is overwritten, and one that somebody has open is left alone.
    """
    rowex.rename(source, _target_path(source, target))


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--capacity", type=click.IntRange(min=1), metavar="BYTES", help="To which the copy grows in place.")
@click.option("--max-size", type=click.IntRange(min=1), metavar="BYTES", help="That the copy never exceeds.")
@click.option("--checksum/--no-checksum", default=None, help="Whether values of the copy carry checksums.")
def cp(source: str, target: str, capacity: int | None, max_size: int | None, checksum: bool | None) -> None:
    """
    Copy an index, dense and in key order; TARGET may be a folder.

    Others may be using it. Nothing is overwritten.
    """
    rowex.copy(source, _target_path(source, target), capacity=capacity, max_size=max_size, checksum=checksum)


@click.command()
@click.argument("index_path", metavar="INDEX")
@click.argument("target")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what was made.")
def backup(index_path: str, target: str, quiet: bool) -> None:
    """
    Copy an index as it is at one instant, while others write; TARGET may be a folder.

    The copy is one clean file that needs no sidecars. Nothing is overwritten.
    """
    path = _target_path(index_path, target)
    with open_index(index_path, "r") as index:
        ticket = index.backup(path)
    if not quiet:
        tell(f"{path} holds everything up to ticket {ticket}" if ticket else f"{path} is made")
