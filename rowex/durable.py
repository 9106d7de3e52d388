"""
Durability: tickets, waiting until what they stand for survives the loss of power, checkpoints.
"""

from __future__ import annotations

from typing import Any

from rowex._arguments import seconds
from rowex._native import ffi, lib
from rowex._waits import until_done
from rowex.errors import raise_result
from rowex.options import Path, as_path, core_options
from rowex.results import LogStatus

__all__ = ["Tickets", "backup", "checkpoint", "log_status", "wait_durable"]

_BUSY, _WOULD_WAIT = int(lib.RX_E_BUSY), int(lib.RX_WOULD_WAIT)
_FOREVER_NS = 2.0**62


def log_status(handle: Any) -> LogStatus:
    """
    Where the log stands.

    Args:
        handle: Of an open index.

    Returns:
        Its tickets, at this moment.

    Raises:
        DurabilityError: The file has no log.
        ClosedError: The index is closed.
    """
    told = ffi.new("struct rx_log_info *")
    code = lib.rx_log_status(handle, told)
    if code < 0:
        raise_result(code)
    return LogStatus(position=int(told.position), durable=int(told.durable))


def wait_durable(handle: Any, thread: Any, ticket: int, timeout: float | None) -> None:
    """
    Wait until what a ticket stands for survives the loss of power, writing the log if nobody does.

    Args:
        handle: Of an open index.
        thread: An explicit uid, or NULL.
        ticket: What an operation returned.
        timeout: Seconds, >= 0; None: as long as it takes.

    Raises:
        DurabilityError: It never will: the log could not be written, or there is none.
        DiskFullError: Not yet: the disk is full; wait again when there is room.
        TimeoutError: Not yet; the message names who holds it up.
        TypeError: *ticket* is not an int.
    """
    if isinstance(ticket, bool) or not isinstance(ticket, int):
        raise TypeError(f"a ticket is the int that an operation returned, not {type(ticket).__name__}")
    if not 0 <= ticket < 2**64:
        raise ValueError(f"{ticket} is no ticket")
    until_done(lambda ns: int(lib.rx_wait_durable(handle, thread, ticket, ns)), timeout)


def checkpoint(handle: Any, timeout: float | None) -> None:
    """
    Make a checkpoint; if one is being made already, that is enough.

    Args:
        handle: Of an open index that may be written.
        timeout: Seconds to wait for the log, >= 0; None: as long as it takes.

    Raises:
        TimeoutError: The log could not be written so far: the message names who holds it up.
        DurabilityError: The file has no log, or it could not be written.
        DiskFullError: No room; the checkpoint before and its log stay.
        ReadOnlyError: The index may only be read.
    """
    wait_ns = -1 if timeout is None else int(min(seconds(timeout, "timeout") * 1e9, _FOREVER_NS))
    code = lib.rx_checkpoint(handle, wait_ns)
    if code == _WOULD_WAIT:
        raise_result(int(lib.RX_E_TIMEOUT))
    if code < 0 and code != _BUSY:
        raise_result(code)


def backup(handle: Any, target: Path) -> int:
    """
    Make a copy that holds what the index holds at one instant, while others change it.

    Args:
        handle: Of an open index.
        target: Path of the copy; nothing may be there.

    Returns:
        The ticket of the last change that is in the copy; 0 without a log.

    Raises:
        FileExistsError: There is something at *target*.
        CorruptionError: A key or value is damaged.
        DiskFullError: No room for the copy or the log; nothing is left of the copy.
        DurabilityError: The log could not be written.
        ClosedError: The index is closed.
    """
    full_path = as_path(target)
    options: tuple[Any, Any] = core_options(full_path, "c")
    ticket = ffi.new("uint64_t *")
    code = lib.rx_backup(handle, options[0], ticket)
    if code < 0:
        raise_result(code, paths=(full_path,))
    return int(ticket[0])


class Tickets:
    """What every index, reader and writer knows of tickets."""

    _rx_thread: Any

    def _live_handle(self) -> Any:
        raise NotImplementedError

    @property
    def position(self) -> int:
        """
        The ticket of the last change that anybody made: wait for it after a read, and what was read is durable.

        Raises DurabilityError where the file has no log.
        """
        return log_status(self._live_handle()).position

    @property
    def durable(self) -> int:
        """The ticket up to which everything survives the loss of power; DurabilityError without a log."""
        return log_status(self._live_handle()).durable

    def wait_durable(self, ticket: int, timeout: float | None = None) -> None:
        """
        Wait until an operation would survive the loss of power.

        Args:
            ticket: What the operation returned, here or in any process.
            timeout: Seconds, >= 0; None: as long as it takes.

        Raises:
            DurabilityError: It never will, because the log could not be written; or there is no log;
                or the ticket is of a time before a recovery, and is not known to have been kept.
            DiskFullError: Not yet, because there is no room for the log.
            TimeoutError: Not yet; the message names who holds it up.
            ClosedError: The index is closed.

        All with smaller tickets survive too.  Whoever waits writes the log if nobody does, for all.
        """
        wait_durable(self._live_handle(), self._rx_thread, ticket, timeout)

    def flush(self, timeout: float | None = None) -> None:
        """
        Make everything up to now survive the loss of power.

        Args:
            timeout: Seconds, >= 0; None: as long as it takes.

        Raises:
            Exception: As `wait_durable`.
        """
        self.wait_durable(self.position, timeout)
