"""
What concerns an index as a whole: stats, check, compact, info.
"""

from __future__ import annotations

from time import monotonic
from typing import Any
from uuid import UUID

from rowex import _door
from rowex._native import ffi, lib
from rowex._waits import until_done
from rowex.codecs import codec_name
from rowex.errors import (
    CorruptionError,
    make_error,
    pending_interrupt,
    raise_result,
    remember_interrupt,
)
from rowex.results import CheckReport, Info, Stats, UidInfo

__all__ = ["check", "compact", "info", "stats"]

_KINDS = {1: "thread", 2: "reader", 3: "writer", 4: "flusher"}  # format.h, enum rx_slot_kind
_NODES = ("Node4", "Node16", "Node48", "Node256")
_LEVELS = {
    int(lib.RX_D_PROCESS): "process",
    int(lib.RX_D_BATCH): "batch",
    int(lib.RX_D_COMMIT): "commit",
    int(lib.RX_D_PMEM): "pmem",
}


def _demand(code: int) -> None:
    if code < 0:
        raise_result(code)


def raw_info(handle: Any) -> Any:
    """
    The core's `struct rx_info` of a handle.

    Args:
        handle: A rx_index pointer.

    Returns:
        The struct.

    Raises:
        ClosedError: The handle is closed.
    """
    told = ffi.new("struct rx_info *")
    _demand(lib.rx_index_info(handle, told))
    return told


def info(handle: Any, path: str | None, mode: str) -> Info:
    """
    What an index is.

    Args:
        handle: A rx_index pointer.
        path: Of the data file; None in memory.
        mode: As the handle was opened.

    Returns:
        What the superblock says and what the handle knows.

    Raises:
        ClosedError: The handle is closed.
    """
    told = raw_info(handle)
    return Info(
        path=path,
        mode=mode,
        version=told.version,
        uuid=UUID(bytes=bytes(ffi.buffer(told.uuid))),
        generation=told.generation,
        session=told.session,
        keys_codec=codec_name(told.key_codec),
        values_codec=codec_name(told.value_codec),
        durability=_LEVELS.get(told.durability, f"unknown ({told.durability})"),
        checksum=bool(told.checksum),
        readonly=bool(told.readonly),
        lockless=bool(told.lockless),
        clean=bool(told.clean),
        fences=bool(told.fences),
        file_bytes=told.file_size,
        allocated_bytes=told.allocated,
        break_bytes=told.brk,
        capacity_bytes=told.capacity,
        max_size_bytes=told.max_size or None,
        door=_door.name,
        build=ffi.string(lib.rx_build_info()).decode("ascii", "replace"),
    )


def stats(handle: Any) -> Stats:
    """
    An index in numbers.

    Args:
        handle: A rx_index pointer.

    Returns:
        The numbers, taken while others may write.

    Raises:
        CorruptionError: A node that was met is damaged.
        ClosedError: The handle is closed.

    Walks the tree, without holding anybody up.  Cost: O(nodes).
    """
    told = ffi.new("struct rx_stats *")
    _demand(lib.rx_index_stats(handle, told))
    return Stats(
        keys=told.keys,
        nodes={name: told.nodes[i] for i, name in enumerate(_NODES)},
        leaves=told.leaves,
        used_bytes=told.used_bytes,
        free_bytes=told.free_bytes,
        retired_bytes=told.retired_bytes,
        unused_bytes=told.unused_bytes,
        file_bytes=told.file_size,
        capacity_bytes=told.capacity,
        depths=tuple(told.depth),
        locked_nodes=told.locked_nodes,
        dead_slots=told.dead_slots,
        generation=told.generation,
        epoch=told.epoch,
        growths=told.growths,
        copies=told.copies,
        takeovers=told.takeovers,
        evictions=told.evictions,
        reclaimed_bytes=told.reclaimed_bytes,
        reclaimed_cells=told.reclaimed_cells,
        scans=told.scans,
        uids=_uids(handle),
    )


def _uids(handle: Any) -> tuple[UidInfo, ...]:
    capacity, count = 64, ffi.new("size_t *")
    while True:
        table = ffi.new("struct rx_uid_info[]", capacity)
        _demand(lib.rx_index_uids(handle, table, capacity, count))
        if count[0] <= capacity:
            break
        capacity = int(count[0]) + 64
    return tuple(
        UidInfo(
            uid=one.uid,
            pid=one.pid,
            tid=one.tid,
            kind=_KINDS.get(one.kind, f"unknown ({one.kind})"),
            inside=bool(one.inside),
            age_s=one.age_ns / 1e9 if one.inside else 0.0,
        )
        for one in table[0 : int(count[0])]
    )


def _keep_exception(kind: Any, exception: BaseException, traceback: Any) -> None:
    remember_interrupt(exception)


@ffi.def_extern(name="rowex_on_fault", onerror=_keep_exception)  # type: ignore[untyped-decorator] # cffi's
def _on_fault(context: Any, offset: int, text: Any) -> None:
    faults: list[tuple[int, str]] = ffi.from_handle(context)
    faults.append((offset, ffi.string(text).decode("utf-8", "backslashreplace")))


def check(handle: Any, path: str | None, timeout: float | None) -> CheckReport:
    """
    Walk everything: structure, order, reachability against allocation, checksums, length.

    Args:
        handle: A rx_index pointer.
        path: For the message.
        timeout: Seconds to wait for writers to pause, >= 0; None: as long as it takes.

    Returns:
        A report, where there is no fault.

    Raises:
        CorruptionError: With every fault found, in `faults`.
        TimeoutError: A writer did not pause.
        ClosedError: The handle is closed.

    Writers wait while it works where the handle may write.  Cost: O(file).
    """
    started = monotonic()
    faults: list[tuple[int, str]] = []
    context, count, keys = ffi.new_handle(faults), ffi.new("uint64_t *"), ffi.new("uint64_t *")

    def attempt(wait_ns: int) -> int:
        faults.clear()
        return int(lib.rx_check(handle, wait_ns, lib.rowex_on_fault, context, count))

    until_done(attempt, timeout)
    interrupted = pending_interrupt()
    if interrupted is not None:
        remember_interrupt(None)
        raise interrupted
    if faults or count[0]:
        raise _fault_error(faults, int(count[0]), path)
    _demand(lib.rx_count(handle, keys))
    return CheckReport(keys=int(keys[0]), seconds=monotonic() - started)


def _fault_error(faults: list[tuple[int, str]], count: int, path: str | None) -> CorruptionError:
    lines = "".join(f"\n  at offset {offset}: {text}" for offset, text in faults[:20])
    if len(faults) > 20:
        lines += f"\n  and {len(faults) - 20} more, in the attribute `faults`"
    hint = "restore a backup, or get out what can be had with `rowex salvage`"
    text = f"{path or 'the index in memory'} has {max(count, len(faults))} fault(s); {hint}:{lines}"
    error = make_error(CorruptionError, text)
    assert isinstance(error, CorruptionError)
    error.hint = hint
    error.faults = tuple(faults)
    error.offset = faults[0][0] if faults else 0
    return error


def compact(handle: Any, timeout: float | None) -> None:
    """
    Copy what is alive to a dense new file and rename it over the old one.

    Args:
        handle: A rx_index pointer.
        timeout: Seconds to wait for writers to pause, >= 0; None: as long as it takes.

    Raises:
        TimeoutError: A writer did not pause; nothing was changed.
        DiskFullError: No room for the copy; nothing was changed.
        ReadOnlyError: The index may only be read.
        ClosedError: The handle is closed.

    Readers go on, writers wait.  Cost: O(live data).
    """
    until_done(lambda wait_ns: lib.rx_compact(handle, wait_ns), timeout)
