"""
Opening an index: options and codecs in, a handle out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

from rowex._native import ffi, lib
from rowex.admin import raw_info
from rowex.codecs import CUSTOM, Codec, codec_name, key_codec, value_codec
from rowex.coded import CodedIndex
from rowex.errors import raise_result
from rowex.index import Index
from rowex.options import Path, as_path, core_options

__all__ = ["memory", "open", "open_raw"]

K = TypeVar("K")
V = TypeVar("V")
Mode = Literal["c", "r", "w", "n"]
Pair = tuple[Callable[[K], bytes], Callable[[bytes], K]]
AnyPair = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]
KeyCodec = Literal["bytes", "str", "int", "tuple"] | AnyPair
ValueCodec = Literal["bytes", "str", "int", "msgpack"] | AnyPair


@overload
def open(
    path: Path,
    mode: Mode = ...,
    *,
    durability: str | None = ...,
    flush_interval: float = ...,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: Literal["bytes"] | None = ...,
    values: Literal["bytes"] | None = ...,
    checksum: bool | None = ...,
) -> Index: ...
@overload
def open(
    path: Path,
    mode: Mode = ...,
    *,
    durability: str | None = ...,
    flush_interval: float = ...,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: Pair[K],
    values: Pair[V],
    checksum: bool | None = ...,
) -> CodedIndex[K, V]: ...
@overload
def open(
    path: Path,
    mode: Mode = ...,
    *,
    durability: str | None = ...,
    flush_interval: float = ...,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: KeyCodec | None = ...,
    values: ValueCodec | None = ...,
    checksum: bool | None = ...,
) -> CodedIndex[Any, Any]: ...
def open(
    path: Path,
    mode: str = "c",
    *,
    durability: str | None = None,
    flush_interval: float = 0.010,
    initial_size: int | None = None,
    capacity: int | None = None,
    max_size: int | None = None,
    keys: Any = None,
    values: Any = None,
    checksum: bool | None = None,
) -> Any:
    """
    Open an index, or create one.

    Args:
        path: Of the data file; NAME-lock beside it is made as needed.
        mode: "c" create it if missing, "w" it must exist, "r" read only, "n" replace it by a new one
            (which a file that is neither Rowex's nor empty is not).
        durability: What survives an operation that returned.  "process": the death of any process, but
            not the loss of power.  "batch": that, and the loss of power once its ticket is durable,
            which takes a flush interval at most.  "commit": the loss of power too, at once.  "pmem":
            likewise, on persistent memory (a filesystem mounted with DAX), by flushing cache lines.
            "batch" and "commit" are kinds of one file, and each handle's choice; "process" and "pmem"
            are files without a log.  None: as the file says, and "batch" for a new one.
        flush_interval: Seconds between flushes of the log, > 0; the shortest of a process's handles
            counts.  Without effect on a file without a log.
        initial_size: Bytes that a new file has, rounded up; None: 1 MiB, or less where the limits are
            less.  Without effect on a file that is there.
        capacity: Bytes to which the file grows in place at least, before it is copied and renamed, which
            never makes them less; None: as the file says, or the larger of 1 GiB and 16 times the size
            for a new one.
        max_size: Bytes that the file never exceeds; None: as the file says, or no limit for a new one.
        keys: Codec of the keys: "bytes", "str", "int" (signed, of any size), "tuple" (nested, of
            these), or a pair of functions (encode, decode); None: as the file says, or "bytes".
        values: Codec of the values: "bytes", "str", "int", "msgpack", or a pair of functions; None:
            as the file says, or "bytes".
        checksum: Whether values carry checksums; None: as the file says, or True.

    Returns:
        An `Index` where keys and values are bytes, else a `CodedIndex`.  Close it, or use `with`.

    Raises:
        FileNotFoundError: Mode "r" or "w", and there is no such file.
        PermissionError: The file, or its lock file, may not be opened.
        CorruptionError: The file is damaged, or was in use when the machine stopped.
        FormatError: Not a Rowex file, or one of a newer version.
        ValueError: An option that disagrees with the file or with another, both named; or is out of range.
        DurabilityError: "pmem", and the filesystem is no persistent memory.
        DiskFullError: No room for a new file.

    A file that was closed cleanly opens in constant time, whatever its size; after a kill its first
    opener scans it.  Any number of processes and handles may have it open.
    """
    full_path = as_path(path)
    options: dict[str, Any] = {
        "durability": durability,
        "flush_interval": flush_interval,
        "max_size": max_size,
        "keys": keys,
        "values": values,
        "checksum": checksum,
    }
    recipe = (_reopen, (full_path, {"mode": "r" if mode == "r" else "w", **options}))
    return _open(full_path, mode, recipe, initial_size=initial_size, capacity=capacity, **options)


def _reopen(path: str, options: dict[str, Any]) -> Any:
    return open(path, **options)


@overload
def memory(
    *,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: Literal["bytes"] | None = ...,
    values: Literal["bytes"] | None = ...,
    checksum: bool | None = ...,
) -> Index: ...
@overload
def memory(
    *,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: Pair[K],
    values: Pair[V],
    checksum: bool | None = ...,
) -> CodedIndex[K, V]: ...
@overload
def memory(
    *,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: KeyCodec | None = ...,
    values: ValueCodec | None = ...,
    checksum: bool | None = ...,
) -> CodedIndex[Any, Any]: ...
def memory(
    *,
    initial_size: int | None = None,
    capacity: int | None = None,
    max_size: int | None = None,
    keys: Any = None,
    values: Any = None,
    checksum: bool | None = None,
) -> Any:
    """
    An index on anonymous memory, shared with forked children; it goes with the last of them.

    Args:
        initial_size: Bytes to begin with; None: 1 MiB.
        capacity: Bytes to which it can grow; it is never copied to a larger one.
        max_size: Bytes that it never exceeds; None: none but the capacity.
        keys: Codec of the keys, as for `open`.
        values: Codec of the values, as for `open`.
        checksum: Whether values carry checksums; None: True.

    Returns:
        An `Index` where keys and values are bytes, else a `CodedIndex`.  It cannot be pickled.

    Raises:
        ValueError: An option out of range, or that disagrees with another.
        MemoryError: There is none.
    """
    return _open(
        None,
        "c",
        None,
        initial_size=initial_size,
        capacity=capacity,
        max_size=max_size,
        keys=keys,
        values=values,
        checksum=checksum,
    )


def open_raw(path: Path, mode: str = "w") -> Index:
    """
    Open an index as bytes, whatever codecs its file names.

    Args:
        path: Of the data file.
        mode: As for `open`.

    Returns:
        The index of the stored bytes; `info()` names the codecs.

    Raises:
        Exception: As `open`.

    For tools.  What is written must be what the codecs would have written.
    """
    full_path = as_path(path)
    handle = _open_handle(full_path, mode)
    return Index(handle, full_path, mode, (open_raw, (full_path, "r" if mode == "r" else "w")))


class _Inside(threading.local):
    open = False


_inside = _Inside()


def _open_handle(path: str | None, mode: str, **options: Any) -> Any:
    struct, path_memory = core_options(path, mode, **options)
    out = ffi.new("rx_index **")
    outermost = not _inside.open
    _inside.open = True
    try:
        # Whoever opens, closes or marks it works, or its lock would be gone; a large file takes them a while.
        # But a signal handler in the midst of an opening may wait for its own thread.
        while (code := lib.rx_open(struct, out)) == lib.RX_E_TIMEOUT and outermost:
            pass
    finally:
        _inside.open = not outermost
    del path_memory
    if code < 0:
        raise_result(code, paths=(path,))
    return out[0]


def _open(
    path: str | None, mode: str, recipe: tuple[Any, ...] | None, *, keys: Any, values: Any, **options: Any
) -> Any:
    key = None if keys is None else key_codec(keys)
    value = None if values is None else value_codec(values)
    handle = _open_handle(
        path,
        mode,
        key_code=key.code if key else 0,
        value_code=value.code if value else 0,
        **options,
    )
    try:
        told = raw_info(handle)
    except BaseException:  # no object has it yet that would close it
        lib.rx_close(handle)
        lib.rx_free(handle)
        raise
    wanted = options.get("durability")
    commit = wanted == "commit" or (wanted is None and told.durability == lib.RX_D_COMMIT)
    index = Index(handle, path, mode, recipe, commit=commit)
    try:
        key = _agreed("keys", key, told.key_codec, key_codec, path)
        value = _agreed("values", value, told.value_codec, value_codec, path)
    except BaseException:
        index.close()
        raise
    return index if key.plain and value.plain else CodedIndex(index, key, value)


def _agreed(
    what: str, wanted: Codec[Any] | None, stored: int, find: Callable[[str], Codec[Any]], path: str | None
) -> Codec[Any]:
    """The codec of the file, which must be the one that was asked for, if one was."""
    name = codec_name(stored)
    if wanted is None:
        if stored == CUSTOM:
            raise ValueError(
                f"{what} of {path} were stored with functions of a program's own; give them: {what}=(encode, decode)"
            )
        return find(name)
    if wanted.code != stored:
        raise ValueError(f"{what}={wanted.name!r} was asked for, but {path} was made with {what}={name!r}")
    return wanted
