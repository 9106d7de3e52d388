"""
What the commands share: exit codes, the two output streams, and opening an index.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import IO, Any, TypeVar, overload

import click

from rowex.cli.text import Malformed, Side, argument, quote, shown
from rowex.errors import RowexError
from rowex.index import Index
from rowex.opening import open_raw

__all__ = [
    "ABSENT",
    "UNUSABLE",
    "USAGE",
    "Commands",
    "Output",
    "Unusable",
    "as_bytes",
    "describe",
    "item_line",
    "open_index",
    "raw_option",
    "sides",
    "tell",
    "to_nowhere",
]

ABSENT, USAGE, UNUSABLE, INTERRUPTED = 1, 2, 3, 130
F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """A message on stderr, and the exit status of its class."""

    def show(self, file: Any = None) -> None:
        tell(self.message)


class Unusable(Failure):
    """The index cannot be used."""

    exit_code = UNUSABLE


class Unwritten(Failure):
    """The output could not be written."""

    exit_code = ABSENT


class Interrupted(Failure):
    """Ctrl-C."""

    exit_code = INTERRUPTED


def tell(message: str) -> None:
    """
    Say something on stderr; nowhere, if nobody reads that.

    Args:
        message: A line or more; what a terminal would obey in it is escaped.
    """
    text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    try:
        click.echo(f"rowex: {text}", err=True)
    except (OSError, ValueError):
        to_nowhere(sys.stderr)


def to_nowhere(stream: Any) -> None:
    """Let what is still buffered for a closed pipe go, or it fails once more when Python ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass


def _flush() -> None:
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        to_nowhere(sys.stdout)
    except OSError as error:
        to_nowhere(sys.stdout)
        raise _unwritten(error) from None


def _unwritten(error: OSError) -> Unwritten:
    return Unwritten(f"the output could not be written: {error.strerror or error}")


class Commands(click.Group):
    """The group: turns exceptions into messages and exit codes, and a closed pipe into silence."""

    def invoke(self, ctx: click.Context) -> Any:
        code = 0
        try:
            super().invoke(ctx)
        except click.exceptions.Exit as done:
            code = done.exit_code
        except Malformed as error:
            raise click.UsageError(str(error)) from None
        except BrokenPipeError:
            to_nowhere(sys.stdout)
        except KeyboardInterrupt:
            _flush()
            raise Interrupted("interrupted") from None
        except (RowexError, OSError, MemoryError, ImportError) as error:
            _flush()
            raise Unusable(describe(error)) from None
        _flush()
        ctx.exit(code)


def describe(error: BaseException) -> str:
    """What an exception says, without the number of an OSError."""
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if error.filename else ""
        return error.strerror if name in error.strerror else f"{error.strerror}: {name}"
    return str(error) or type(error).__name__


class Output:
    """The data on stdout, as bytes."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        """
        Args:
            file: Another one than stdout.
        """
        self._file: IO[bytes] = sys.stdout.buffer if file is None else file

    def write(self, data: bytes) -> None:
        """
        Write some bytes, in time.

        Args:
            data: Any bytes.

        Raises:
            BrokenPipeError: Nobody reads them.
            Unwritten: They could not be written.
        """
        try:
            self._file.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            to_nowhere(self._file)
            raise _unwritten(error) from None

    def flush(self) -> None:
        """Write what is held back; raises as `write`."""
        try:
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            to_nowhere(self._file)
            raise _unwritten(error) from None

    def is_terminal(self) -> bool:
        """Whether somebody is looking."""
        return self._file.isatty()


@overload
def as_bytes(ctx: click.Context, param: click.Parameter, text: str) -> bytes: ...
@overload
def as_bytes(ctx: click.Context, param: click.Parameter, text: None) -> None: ...
def as_bytes(ctx: click.Context, param: click.Parameter, text: str | None) -> bytes | None:
    """The callback of a KEY or VALUE: as it is, or in double quotes with escapes."""
    if text is None:
        return None
    try:
        return argument(text)
    except Malformed as error:
        raise click.BadParameter(str(error), ctx, param) from None


def raw_option(command: F) -> F:
    """The option --raw of commands that read or write keys and values."""
    return click.option("--raw", is_flag=True, help="Keys and values are the stored bytes, whatever the codecs.")(
        command
    )


def open_index(path: str, mode: str) -> Index:
    """
    Open an index as bytes.

    Args:
        path: Of the data file.
        mode: As for `rowex.open`.

    Returns:
        The index.

    Raises:
        Unusable: It cannot be used; the message names it.
    """
    try:
        return open_raw(path, mode)
    except (RowexError, OSError, ValueError) as error:
        text = describe(error)
        raise Unusable(text if path in text else f"{path}: {text}") from None


def sides(index: Index, *, raw: bool = False) -> tuple[Side, Side]:
    """
    How the keys and the values of an index are written.

    Args:
        index: Open.
        raw: Whether as their stored bytes.

    Returns:
        The two sides.
    """
    told = index.info()
    return Side(told.keys_codec, raw=raw), Side(told.values_codec, values=True, raw=raw)


def item_line(key: bytes, value: bytes) -> bytes:
    """
    An item as it is printed: ``"KEY" => VALUE``.

    Args:
        key: Its text.
        value: Likewise.

    Returns:
        The line, with its newline.
    """
    return b"%b => %b\n" % (quote(key), shown(value))
