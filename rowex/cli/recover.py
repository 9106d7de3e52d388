"""
After the loss of power: `recover`.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from uuid import UUID

import click

from rowex._native import ffi, lib
from rowex.cli.admin import print_json, print_table
from rowex.cli.console import ABSENT, open_index, tell
from rowex.errors import raise_result
from rowex.options import as_path

__all__ = ["Explained", "explain", "recover"]

_STATES = ("unreadable", "clean", "in use, on this boot", "in use, on another boot", "a copy of an index in use")
_LEVELS = {
    int(lib.RX_D_PROCESS): "process",
    int(lib.RX_D_BATCH): "batch",
    int(lib.RX_D_COMMIT): "commit",
    int(lib.RX_D_PMEM): "pmem",
}
_UNLOGGED = (None, "process", "pmem")
_VERDICTS = {
    int(lib.RX_X_REFUSE): "refuse",
    int(lib.RX_X_USE): "use",
    int(lib.RX_X_JOIN): "join",
    int(lib.RX_X_SCAN): "scan",
    int(lib.RX_X_RECOVER): "recover",
}
_CHECKPOINTS = ("none", "whole", "damaged")
_ENDS = ("clean", "torn", "damaged")


@dataclass(frozen=True)
class Explained:
    """
    What opening an index would do, and from what.

    Attributes:
        opening: "use" it as it is, "join" those who have it open, "scan" it for what the dead have
            left, "recover" it from checkpoint and log, or "refuse".
        why: Where it would be refused, the reason.
        state: Of the data file.
        open_now: Whether somebody has it open.
        durability: Of the data file; None where that is unreadable.
        uuid: Likewise.
        generation: Likewise.
        session: Likewise.
        file_bytes: Size of the data file.
        keys: In it, where it is clean; else None.
        position: The ticket with which it ends, where it is clean and has a log; else None.
        unwritten_entries: Of a session on this boot that nobody closed: changes that are in memory
            and not yet in the log; None where that is not known.
        checkpoint: "none", "whole" or "damaged".
        checkpoint_ticket: The last one that a whole checkpoint holds.
        checkpoint_keys: How many keys it has.
        log_segments: Files of the log; None where there is no log.
        log_from: The log is read from behind this ticket; None where it does not hold that.
        log_upto: It holds all up to this one.
        log_bytes: Between the two.
        log_entries: Changes between the two.
        log_end: What is behind that: "clean", nothing; "torn", something that was not finished and
            so was never durable; "damaged", something that was.
        damaged_byte: Where in the log's stream the damage begins.
        damaged_segment: In which of its files.
        lost_from: The first ticket that is lost by the damage.
        lost_upto: At least up to this one it is known to have been durable.
        readable_entries_behind: Changes behind the damage that `rowex salvage` can read.
    """

    opening: str
    why: str | None
    state: str
    open_now: bool
    durability: str | None
    uuid: UUID | None
    generation: int | None
    session: int | None
    file_bytes: int
    keys: int | None
    position: int | None
    unwritten_entries: int | None
    checkpoint: str
    checkpoint_ticket: int | None
    checkpoint_keys: int | None
    log_segments: int | None
    log_from: int | None
    log_upto: int | None
    log_bytes: int | None
    log_entries: int | None
    log_end: str | None
    damaged_byte: int | None
    damaged_segment: str | None
    lost_from: int | None
    lost_upto: int | None
    readable_entries_behind: int | None


def explain(path: str | os.PathLike[str]) -> Explained:
    """
    Look at an index and its sidecars, changing nothing.

    Args:
        path: Of the data file.

    Returns:
        What opening it would do and why.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.

    Reads all of the checkpoint and of the log.
    """
    told = ffi.new("struct rx_explained *")
    code = lib.rx_explain(os.fsencode(as_path(path)), told)
    if code < 0:
        raise_result(code)
    readable, begins, damaged = told.state != 0, bool(told.begins), told.end == 2
    logged = readable and told.durability in (lib.RX_D_BATCH, lib.RX_D_COMMIT)
    clean, whole = told.state == 1, told.checkpoint == 1
    return Explained(
        opening=_VERDICTS[int(told.verdict)],
        why=ffi.string(told.why).decode("utf-8", "backslashreplace") or None,
        state=_STATES[told.state],
        open_now=bool(told.open_now),
        durability=_LEVELS.get(told.durability) if readable else None,
        uuid=UUID(bytes=bytes(ffi.buffer(told.uuid))) if readable else None,
        generation=told.generation if readable else None,
        session=told.session if readable else None,
        file_bytes=told.file_bytes,
        keys=told.keys if clean else None,
        position=told.position if clean and logged else None,
        unwritten_entries=told.ring_entries if logged and told.ring and told.state == 2 else None,
        checkpoint=_CHECKPOINTS[told.checkpoint],
        checkpoint_ticket=told.checkpoint_ticket if whole else None,
        checkpoint_keys=told.checkpoint_keys if whole else None,
        log_segments=told.segments if told.log else None,
        log_from=told.log_from if begins else None,
        log_upto=told.log_upto if begins else None,
        log_bytes=told.log_bytes if begins else None,
        log_entries=told.entries if begins else None,
        log_end=_ENDS[told.end] if begins else None,
        damaged_byte=told.damaged_byte if damaged else None,
        damaged_segment=f"{told.damaged_segment:016x}" if damaged else None,
        lost_from=told.lost_from if damaged else None,
        lost_upto=told.lost_upto if damaged else None,
        readable_entries_behind=told.entries_behind if damaged else None,
    )


# ---- in words ------------------------------------------------------------------------------------


def _state_text(told: Explained) -> str:
    if told.open_now:
        return "open now"
    return {
        "unreadable": "its superblock cannot be used",
        "clean": f"closed cleanly, {told.keys} key(s)",
        "in use, on this boot": "not closed, on this boot: what is in memory is the truth",
        "in use, on another boot": "in use when the machine stopped: its own bytes cannot be trusted",
        "a copy of an index in use": "a copy of a file in use: its own bytes cannot be trusted",
    }[told.state]


def _checkpoint_text(told: Explained) -> str:
    if told.checkpoint != "whole":
        return told.checkpoint
    return f"up to ticket {told.checkpoint_ticket}, {told.checkpoint_keys} key(s)"


def _log_text(told: Explained) -> str:
    if told.log_segments is None:
        return "none"
    segments = f"{told.log_segments} segment(s)"
    if told.log_from is None:
        return f"{segments}, but not from {'the checkpoint' if told.checkpoint == 'whole' else 'the first change'} on"
    upto = f"up to ticket {told.log_upto}" if told.log_upto != told.log_from else "nothing"
    return f"{segments}; behind ticket {told.log_from}: {told.log_entries} change(s), {upto}"


def _end_text(told: Explained) -> str:
    if told.log_end == "torn":
        return "torn: a last write was not finished, and was never durable"
    if told.log_end == "clean":
        return "nothing behind it"
    return (
        f"damaged at byte {told.damaged_byte}, in segment {told.damaged_segment}: tickets {told.lost_from} to "
        f"{told.lost_upto} at least are lost; behind that, {told.readable_entries_behind} change(s) can be read"
    )


def _verdict_text(told: Explained, path: str) -> str:
    if told.opening == "recover":
        begin = "the checkpoint" if told.checkpoint == "whole" else "an empty index"
        changes = f"{told.log_entries} change(s) of the log"
        return f"recovers it: {begin} and then {changes} make a new file, which is renamed over it"
    lost = " and begins the log anew with a checkpoint" if told.durability not in _UNLOGGED else ""
    if told.opening == "scan":
        if told.unwritten_entries is not None:
            lost = f" and writes {told.unwritten_entries} change(s) to the log"
        return f"uses it, brings back the space of the dead{lost}"
    if told.opening == "use":
        return "uses it as it is"
    if told.opening == "join":
        return "joins those who have it open"
    return f"is refused: {told.why}; `rowex salvage {path} TARGET` gets out what can be had"


def _rows(told: Explained, path: str) -> dict[str, str]:
    rows = {"state": _state_text(told)}
    if told.durability not in _UNLOGGED:
        rows |= {"checkpoint": _checkpoint_text(told), "log": _log_text(told)}
        if told.log_end is not None:
            rows["log end"] = _end_text(told)
    return rows | {"opening it": _verdict_text(told, path)}


@click.command()
@click.argument("index_path", metavar="INDEX")
@click.option("--explain", "only_explain", is_flag=True, help="Change nothing: say what opening would do, and why.")
@click.option("--json", "as_json", is_flag=True, help="As one line of JSON.")
@click.pass_context
def recover(ctx: click.Context, index_path: str, only_explain: bool, as_json: bool) -> None:
    """
    Open an index once, so that it is recovered if it needs to be, and tell what was done.

    After the loss of power an index is made anew from its checkpoint and its log by whoever opens
    it first; this does it now. With --explain the exit status is 1 where opening would be refused.
    """
    told = explain(index_path)
    if only_explain:
        if as_json:
            print_json(asdict(told))
        else:
            print_table(_rows(told, index_path))
        if told.opening == "refuse":
            ctx.exit(ABSENT)
        return
    numbers = [ffi.new("uint64_t *") for _ in range(3)]
    lib.rx_last_recovery(*numbers)
    with open_index(index_path, "w") as index:
        lib.rx_last_recovery(*numbers)
        keys = len(index)
    first, upto, entries = (int(number[0]) for number in numbers)
    recovered = told.opening == "recover" and upto >= first
    if as_json:
        print_json(
            {"path": index_path, "recovered": recovered, "entries": entries, "keys": keys, "before": asdict(told)}
        )
    elif recovered:
        tell(f"{index_path} is recovered: {entries} change(s) of the log replayed, {keys} key(s)")
    else:
        tell(f"{index_path} needed no recovery: {_verdict_text(told, index_path)}; {keys} key(s)")
