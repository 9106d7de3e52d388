"""
The exceptions of the package, and the one place where a result of the core becomes one.

Each class is also a builtin kind, so that code that knows nothing of Rowex can catch it.  Data is
in attributes; the message says what happened, where, and what to do.  The texts are the core's
(errors.h); this file knows the results by name only.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator
from typing import NoReturn

from rowex._native import ffi, lib

__all__ = [
    "ClosedError",
    "CorruptionError",
    "DiskFullError",
    "DuplicateKeyError",
    "DurabilityError",
    "FormatError",
    "ReadOnlyError",
    "RowexError",
]


class RowexError(Exception):
    """
    The base of the others; raised itself where no builtin kind fits.

    Attributes:
        hint: What to do about it, as a sentence; also part of the message.
    """

    hint: str = ""


class CorruptionError(RowexError, ValueError):
    """
    The file, or a key or value in it, is damaged.

    Attributes:
        offset: Byte in the file where it was met, 0 where there is none to name.
        faults: From `check()`: every fault found, as (offset, text).
    """

    offset: int = 0
    faults: tuple[tuple[int, str], ...] = ()


class FormatError(RowexError, ValueError):
    """The file is not one that this version can use: foreign, newer, or not a Rowex file."""


class ClosedError(RowexError, ValueError):
    """The index, reader or writer is closed."""


class DiskFullError(RowexError, OSError):
    """There was no room: disk, quota, or `max_size`.  Nothing was changed, unless it has a `ticket` (see `rowex`)."""


class DurabilityError(RowexError, OSError):
    """What was asked for cannot be promised to survive a power cut."""


class ReadOnlyError(RowexError, PermissionError):
    """A write through a handle, or to a file, that may only be read."""


class DuplicateKeyError(RowexError, KeyError):
    """
    `insert()` met the key.

    Attributes:
        key: The key, as it was given.
    """

    key: object = None

    def __str__(self) -> str:
        # KeyError would show the repr() of the message.
        return str(self.args[0]) if self.args else ""


_CLASSES: dict[str, type[Exception]] = {
    "RX_PRESENT": DuplicateKeyError,
    "RX_WOULD_WAIT": TimeoutError,
    "RX_E_CORRUPT": CorruptionError,
    "RX_E_FORMAT": FormatError,
    "RX_E_CLOSED": ClosedError,
    "RX_E_FULL": DiskFullError,
    "RX_E_READONLY": ReadOnlyError,
    "RX_E_DURABILITY": DurabilityError,
    "RX_E_OS": OSError,
    "RX_E_PERMISSION": PermissionError,
    "RX_E_NOT_FOUND": FileNotFoundError,
    "RX_E_KEY_SIZE": ValueError,
    "RX_E_MEMORY": MemoryError,
    "RX_E_TIMEOUT": TimeoutError,
    "RX_E_CONFLICT": ValueError,
    "RX_E_REPLACED": FormatError,
    "RX_E_IO": OSError,
    "RX_E_POWER": CorruptionError,
    "RX_E_ITEM": ValueError,
    "RX_E_NO_FOLDER": FileNotFoundError,
    "RX_E_EXISTS": FileExistsError,
    "RX_E_ARGUMENT": ValueError,
}

_ERRNO: dict[str, int] = {
    "RX_WOULD_WAIT": errno.ETIMEDOUT,
    "RX_E_FULL": errno.ENOSPC,
    "RX_E_READONLY": errno.EROFS,
    "RX_E_DURABILITY": errno.EINVAL,
    "RX_E_OS": errno.EIO,
    "RX_E_PERMISSION": errno.EACCES,
    "RX_E_NOT_FOUND": errno.ENOENT,
    "RX_E_TIMEOUT": errno.ETIMEDOUT,
    "RX_E_IO": errno.EIO,
    "RX_E_NO_FOLDER": errno.ENOENT,
    "RX_E_EXISTS": errno.EEXIST,
}

# Results that are also answered without a text of their own: what theirs begins with, so that one
# left over from an earlier error is never shown for them.
_TEXTS: dict[str, str] = {
    "RX_PRESENT": "the key is already present",
    "RX_E_CLOSED": "the index is closed",
    "RX_E_READONLY": "the index is open read-only",
}


class _Pending(threading.local):
    exception: BaseException | None = None


_pending = _Pending()
_kept: set[int] = set()  # ids of what is remembered, of all threads


def remember_interrupt(exception: BaseException | None) -> None:
    """
    Keep what a signal handler raised while the core was running, for this thread.

    Args:
        exception: What it raised; None forgets.
    """
    if _pending.exception is not None:
        _kept.discard(id(_pending.exception))
    if exception is not None:
        _kept.add(id(exception))
    _pending.exception = exception


def pending_interrupt() -> BaseException | None:
    """What `remember_interrupt` keeps for this thread, or None."""
    exception = _pending.exception
    return exception if exception is not None and id(exception) in _kept else None


def take_interrupt(exception: BaseException) -> bool:
    """Forget *exception*, from any thread; whether it was still kept, that is, raised by nobody."""
    try:
        _kept.remove(id(exception))
    except KeyError:
        return False
    return True


def _text(pointer: object) -> str:
    raw: bytes = ffi.string(pointer)
    return raw.decode("utf-8", "backslashreplace")


def make_error(kind: type[Exception], text: str, *, hint: str = "", os_errno: int = 0) -> Exception:
    """
    Build an exception with the attributes of its class.

    Args:
        kind: The class.
        text: What happened and where.
        hint: What to do; appended to the text.
        os_errno: For an OSError.

    Returns:
        The exception, not raised.
    """
    message = f"{text}; {hint}" if hint else text
    error = kind(os_errno, message) if issubclass(kind, OSError) else kind(message)
    if isinstance(error, RowexError):
        error.hint = hint
    return error


_NO_RESULT: object = object()


def made(error: BaseException, ticket: int, result: object = _NO_RESULT) -> None:
    """
    Say on an exception that the change was made all the same.

    Args:
        error: What ended the wait until it is durable; it gets the attribute `ticket`, and a note.
        ticket: Of the change; 0 without a log.
        result: What the call would have returned, where the ticket does not say it: the attribute `result`.
    """
    told = hasattr(error, "ticket")
    with contextlib.suppress(AttributeError):
        error.ticket = ticket  # type: ignore[attr-defined] # any exception may carry it
        if result is not _NO_RESULT:
            error.result = result  # type: ignore[attr-defined] # likewise
    if not told:
        error.add_note(f"the change was made: it is visible, but not known to be durable (ticket {ticket})")


@contextlib.contextmanager
def returning(result: object) -> Iterator[None]:
    """
    Say on what is raised although a change was made what the call would have returned.

    Args:
        result: That.

    Returns:
        A context manager.
    """
    try:
        yield
    except BaseException as error:
        if hasattr(error, "ticket"):
            made(error, error.ticket, result)
        raise


def raise_result(code: int, key: object = None, *, paths: tuple[str | None, ...] = ()) -> NoReturn:
    """
    Raise the exception of a result of the core.

    Args:
        code: What a function of index.h returned in this thread; the last one that it called.
        key: The key that the call was about, if there was one.
        paths: Of the files that the call was about; an OSError has the one that its text names as filename.

    Raises:
        KeyError: The key is absent; DuplicateKeyError: it is present.
        BaseException: For an interrupted call, what the signal handler raised.
        RowexError: Or another exception, by the code.
    """
    name = _text(lib.rx_result_name(code))
    if name == "RX_ABSENT":
        raise KeyError(key)
    if name == "RX_E_INTERRUPTED":
        exception = pending_interrupt() or KeyboardInterrupt()
        remember_interrupt(None)
        raise exception
    text = _text(lib.rx_error_text()) or f"the core answered {name} ({code})"
    if not text.startswith(_TEXTS.get(name, "")):
        text = _TEXTS[name]
    if name == "RX_PRESENT" and key is not None:
        text = f"{text}: {key!r:.200}"
    kind = _CLASSES.get(name, RowexError)
    os_errno = int(lib.rx_error_errno()) if code < 0 and name not in _TEXTS else 0
    error = make_error(
        kind, text, hint=_text(lib.rx_result_hint(code)), os_errno=os_errno or _ERRNO.get(name, errno.EIO)
    )
    files = [path for path in paths if path is not None]
    if isinstance(error, OSError) and files:  # the longest: one path may begin as the other does
        error.filename = max((path for path in files if path in text), key=len, default=files[0])
    if isinstance(error, CorruptionError):
        error.offset = int(lib.rx_error_offset())
    if isinstance(error, DuplicateKeyError):
        error.key = key
    raise error


def raise_reader() -> NoReturn:
    """What a reader answers to a change: another thing than an index that is open read-only."""
    hint = "use the index, or its writer(), where that may write"
    raise make_error(ReadOnlyError, "a reader changes nothing", hint=hint, os_errno=errno.EROFS)
