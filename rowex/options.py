"""
The options of `rowex.open`, checked and as the core takes them.
"""

from __future__ import annotations

import math
import os
from typing import Any

from rowex._native import ffi, lib

__all__ = ["MODES", "Path", "as_path", "core_options", "durability_code"]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
MODES = ("c", "r", "w", "n")
LEVELS = ("process", "batch", "commit", "pmem")
AS_THE_FILE_SAYS = 2**64 - 1
SIZE_MAX = 2**62


def as_path(path: Path) -> str:
    """
    An absolute path, so that a handle means the same file after a `chdir` and in another process.

    Args:
        path: As the user wrote it; links are not read.

    Returns:
        The path, absolute.

    Raises:
        TypeError: Not a path.
        ValueError: Empty, or with a NUL.
    """
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise ValueError(f"not a path: {text!r}")
    return os.path.abspath(text)


def durability_code(durability: str | None) -> int:
    """
    The stored code of a level.

    Args:
        durability: None: as the file says, and "batch" for a new one.

    Returns:
        The code, 0 for None.

    Raises:
        ValueError: Not a level.
    """
    if durability is None:
        return 0
    if durability not in LEVELS:
        raise ValueError(f"durability={durability!r}: choose from {', '.join(LEVELS)}")
    return int(getattr(lib, f"RX_D_{durability.upper()}"))


def _size(name: str, value: int | None, *, absent: int = 0) -> int:
    if value is None:
        return absent
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is a number of bytes, not {type(value).__name__}")
    if not 0 < value <= SIZE_MAX:
        raise ValueError(f"{name}={value}: a number of bytes from 1 to {SIZE_MAX}")
    return value


def core_options(
    path: str | None,
    mode: str,
    *,
    durability: str | None = None,
    flush_interval: float = 0.010,
    initial_size: int | None = None,
    capacity: int | None = None,
    max_size: int | None = None,
    key_code: int = 0,
    value_code: int = 0,
    checksum: bool | None = None,
) -> tuple[Any, Any]:
    """
    A `struct rx_options`.

    Args:
        path: Absolute; None: an index in memory.
        mode: One of MODES.
        durability: A level, or None.
        flush_interval: Seconds, > 0.
        initial_size: Bytes, or None.
        capacity: Bytes, or None.
        max_size: Bytes, or None.
        key_code: Of the codec, 0: as the file says.
        value_code: Likewise.
        checksum: Whether values of a new file carry checksums; None: as the file says, or True.

    Returns:
        The struct, and what must live as long as it.

    Raises:
        ValueError: A value out of range.
        TypeError: A value of the wrong type.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: choose 'c' (create if missing), 'r', 'w' or 'n' (new)")
    if isinstance(flush_interval, bool) or not isinstance(flush_interval, (int, float)):
        raise TypeError(f"flush_interval is in seconds, not {type(flush_interval).__name__}")
    if not (flush_interval > 0 and math.isfinite(flush_interval)):
        raise ValueError(f"flush_interval={flush_interval!r}: seconds, more than 0")
    if checksum is not None and not isinstance(checksum, bool):
        raise TypeError(f"checksum is True, False or None, not {type(checksum).__name__}")
    c_path = ffi.NULL if path is None else ffi.new("char[]", os.fsencode(path))
    options = ffi.new("struct rx_options *")
    options.path = c_path
    options.mode = ord(mode)
    options.durability = durability_code(durability)
    options.key_codec, options.value_codec = key_code, value_code
    options.checksum = -1 if checksum is None else int(checksum)
    options.initial_size = _size("initial_size", initial_size)
    options.capacity = _size("capacity", capacity)
    options.max_size = _size("max_size", max_size, absent=AS_THE_FILE_SAYS)
    options.fences = int(os.environ.get("ROWEX_FENCES", "-1"))  # forced by tests
    options.umask_mode = 0o666
    options.flush_interval_ns = max(1, min(int(flush_interval * 1e9), 2**62))
    return options, c_path
