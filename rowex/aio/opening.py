"""
`rowex.aio.open`, with the options of `rowex.open`.
"""

from __future__ import annotations

from typing import Any, Literal, overload

from rowex.aio.index import SLOW_READ_S, WORKERS, Opening
from rowex.opening import K, KeyCodec, Mode, Pair, Path, V, ValueCodec

__all__ = ["open"]


@overload
def open(
    path: Path,
    mode: Mode = ...,
    *,
    workers: int = ...,
    slow_read: float = ...,
    durability: str | None = ...,
    flush_interval: float = ...,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: Literal["bytes"] | None = ...,
    values: Literal["bytes"] | None = ...,
    checksum: bool | None = ...,
) -> Opening[bytes, bytes]: ...
@overload
def open(
    path: Path,
    mode: Mode = ...,
    *,
    workers: int = ...,
    slow_read: float = ...,
    durability: str | None = ...,
    flush_interval: float = ...,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: Pair[K],
    values: Pair[V],
    checksum: bool | None = ...,
) -> Opening[K, V]: ...
@overload
def open(
    path: Path,
    mode: Mode = ...,
    *,
    workers: int = ...,
    slow_read: float = ...,
    durability: str | None = ...,
    flush_interval: float = ...,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: KeyCodec | None = ...,
    values: ValueCodec | None = ...,
    checksum: bool | None = ...,
) -> Opening[Any, Any]: ...
def open(path: Path, mode: str = "c", *, workers: int = WORKERS, slow_read: float = SLOW_READ_S, **options: Any) -> Any:
    """
    Open an index for async use, or create one: `async with rowex.aio.open(path) as index: ...`.

    Args:
        path: Of the data file.
        mode: As for `rowex.open`.
        workers: Calls that may be in threads at once, for each loop, >= 1.
        slow_read: Seconds from which a read that met the disk sends the next ones to a worker.
        **options: As for `rowex.open`.

    Returns:
        What opens it when it is entered, or awaited, and closes it at the end of the block.

    Raises:
        Exception: As `rowex.open`, when it is entered.

    It is opened in a worker thread, as a recovery takes its time; a task that is cancelled stops it.
    """
    return Opening(path, mode, workers, slow_read, options)
