"""
`rowex.aio.open`, with the options of `rowex.open`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Generic, Literal, overload

from rowex.aio.index import SLOW_READ_S, WORKERS, Opening
from rowex.aio.service import Service
from rowex.opening import K, KeyCodec, Mode, Pair, V, ValueCodec
from rowex.options import Path

__all__ = ["Serving", "open", "serve"]


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
        ValueError: *workers* or *slow_read* is out of range.
        Exception: As `rowex.open`, when it is entered.

    It is opened in a worker thread, as a recovery takes its time; a task that is cancelled stops it.
    """
    return Opening(path, mode, workers, slow_read, options)


class Serving(Generic[K, V]):
    """What `rowex.aio.serve` returns: `async with` it."""

    def __init__(self, opening: Opening[K, V], readers: int, writers: int, backlog: int) -> None:
        """
        Nothing is opened yet.

        Args:
            opening: Of the index.
            readers: As for `serve`.
            writers: As for `serve`.
            backlog: As for `serve`.
        """
        if readers < 1 or writers < 0 or backlog < 1:
            raise ValueError(f"readers={readers}, writers={writers}, backlog={backlog}: 1 or more (writers: 0 or more)")
        self._opening, self._counts = opening, (readers, writers, backlog)
        self._service: Service[K, V] | None = None

    async def __aenter__(self) -> Service[K, V]:
        index = await self._opening
        readers, writers, backlog = self._counts
        self._service = Service(index, readers, 0 if index.mode == "r" else writers, backlog)
        return await self._service.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        assert self._service is not None
        return await self._service.__aexit__(kind, error, trace)


@overload
def serve(
    path: Path,
    mode: Mode = ...,
    *,
    readers: int = ...,
    writers: int = ...,
    backlog: int = ...,
    durability: str | None = ...,
    flush_interval: float = ...,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: Literal["bytes"] | None = ...,
    values: Literal["bytes"] | None = ...,
    checksum: bool | None = ...,
) -> Serving[bytes, bytes]: ...
@overload
def serve(
    path: Path,
    mode: Mode = ...,
    *,
    readers: int = ...,
    writers: int = ...,
    backlog: int = ...,
    durability: str | None = ...,
    flush_interval: float = ...,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: Pair[K],
    values: Pair[V],
    checksum: bool | None = ...,
) -> Serving[K, V]: ...
@overload
def serve(
    path: Path,
    mode: Mode = ...,
    *,
    readers: int = ...,
    writers: int = ...,
    backlog: int = ...,
    durability: str | None = ...,
    flush_interval: float = ...,
    initial_size: int | None = ...,
    capacity: int | None = ...,
    max_size: int | None = ...,
    keys: KeyCodec | None = ...,
    values: ValueCodec | None = ...,
    checksum: bool | None = ...,
) -> Serving[Any, Any]: ...
def serve(
    path: Path, mode: str = "c", *, readers: int = 4, writers: int = 2, backlog: int = 1024, **options: Any
) -> Any:
    """
    Open an index in the form of commands, with readers and writers of its own.

    ::

        async with rowex.aio.serve("users.rowex") as service:
            command = service.put(b"alice", b"1")     # begun; await it, poll it, or drop it
            assert await service.lookup(b"alice") == b"1"     # commands of one key keep their order

    Args:
        path: Of the data file.
        mode: As for `rowex.open`.
        readers: Threads that read, each with a uid of its own, >= 1.
        writers: Threads that write, likewise, >= 0; none in mode "r".
        backlog: Commands that may wait while nobody awaits them, >= 1; beyond it a command is refused
            with `anyio.WouldBlock`.  Await commands, or their `accepted()`, and it never is.
        **options: As for `rowex.open`.

    Returns:
        What opens it when it is entered.  The end of the block waits until every command is over.

    Raises:
        Exception: As `rowex.open`, when it is entered.
    """
    return Serving(Opening(path, mode, WORKERS, SLOW_READ_S, options), readers, writers, backlog)
