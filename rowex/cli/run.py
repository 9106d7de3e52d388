"""
`rowex run`: commands from a file, one a line.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from typing import IO

import click

from rowex.cli.console import ABSENT, USAGE, Output, Unusable, describe, item_line, open_index, raw_option, sides, tell
from rowex.cli.text import BOM, Malformed, quote, shown, tokens
from rowex.errors import RowexError
from rowex.index import Index

__all__ = ["run"]


def _is_file(source: IO[bytes]) -> bool:
    try:
        return stat.S_ISREG(os.fstat(source.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return True


class Runner:
    """
    Commands on an index.

    Attributes:
        done: Actions by name.
        absent: Keys that were asked for and are not there.
        malformed: Lines that are not commands.
    """

    def __init__(self, index: Index, *, quiet: bool, raw: bool, prompt: bool) -> None:
        """
        Args:
            index: Open for writing.
            quiet: Whether absent keys go unreported.
            raw: Whether keys and values are the stored bytes.
            prompt: Whether each answer is shown at once, for somebody who waits for it.
        """
        self.done: Counter[str] = Counter()
        self.absent = 0
        self.malformed = 0
        self._index = index
        self._keys, self._values = sides(index, raw=raw)
        self._quiet, self._prompt = quiet, prompt
        self._output: Output | None = Output()
        # Name: least and most arguments, how to write them, what to do.
        self._commands: dict[bytes, tuple[int, int, str, Callable[[int, list[bytes]], None]]] = {
            b"insert": (2, 2, "insert KEY VALUE", self._put),
            b"put": (2, 2, "put KEY VALUE", self._put),
            b"find": (1, 1, "find KEY", self._find),
            b"lookup": (1, 1, "lookup KEY", self._find),
            b"remove": (1, 1, "remove KEY", self._remove),
            b"scan": (0, 2, "scan [START [STOP]]", self._scan),
            b"prefix": (1, 1, "prefix P", self._prefix),
        }

    def run(self, source: IO[bytes]) -> None:
        """
        Execute all lines.

        Args:
            source: The lines.

        Raises:
            Unusable: The index became unusable; the message names the line.
        """
        for number, line in enumerate(source, 1):
            try:
                self._line(number, line.removeprefix(BOM) if number == 1 else line)
            except (RowexError, OSError, MemoryError) as error:
                raise Unusable(f"line {number}: {describe(error)}") from None
            except ValueError as error:  # Malformed; the core's, of a key that is too large
                self.malformed += 1
                tell(f"line {number}: {error}")
        self._flush()

    def _line(self, number: int, line: bytes) -> None:
        words = [] if line.lstrip()[:1] == b"#" else tokens(line)
        if not words:
            return
        command = self._commands.get(words[0])
        if command is None:
            raise Malformed(f"unknown command {shown(words[0][:60]).decode()}")
        least, most, form, act = command
        if not least <= len(words) - 1 <= most:
            raise Malformed(f"{len(words) - 1} argument(s); expected: {form}")
        act(number, words[1:])
        self.done[words[0].decode()] += 1

    def _put(self, number: int, words: list[bytes]) -> None:
        self._index.put(self._keys.parse(words[0]), self._values.parse(words[1]))

    def _find(self, number: int, words: list[bytes]) -> None:
        key = self._keys.parse(words[0])
        value = self._index.get(key)
        if value is None:
            self._report(number, key)
        else:
            self._print([(key, value)])

    def _remove(self, number: int, words: list[bytes]) -> None:
        key = self._keys.parse(words[0])
        if not self._index.discard(key):
            self._report(number, key)

    def _scan(self, number: int, words: list[bytes]) -> None:
        start, stop = (*map(self._keys.parse, words), None, None)[:2]
        self._print(self._index.scan(start, stop))

    def _prefix(self, number: int, words: list[bytes]) -> None:
        self._print(self._index.scan(prefix=self._keys.parse_prefix(words[0])))

    def _report(self, number: int, key: bytes) -> None:
        self.absent += 1
        if not self._quiet:
            tell(f"line {number}: absent: {quote(self._keys.show(key)).decode()}")

    def _print(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in items:
            if self._output is None:
                return
            try:
                self._output.write(item_line(self._keys.show(key), self._values.show(value)))
            except BrokenPipeError:
                self._output = None  # nobody reads the answers; the changes are still wanted
        if self._prompt:
            self._flush()

    def _flush(self) -> None:
        try:
            if self._output is not None:
                self._output.flush()
        except BrokenPipeError:
            self._output = None

    def summary(self) -> str:
        """What was done, in a line."""
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(self.done.items()))
        total = self.done.total()
        text = f"{total} action{'' if total == 1 else 's'}" + (f" ({kinds})" if kinds else "")
        if self.absent:
            text += f"; {self.absent} absent"
        if self.malformed:
            text += f"; {self.malformed} malformed"
        return text


@click.command()
@click.option("-i", "--index", "path", required=True, metavar="INDEX", help="Data file; made if missing.")
@click.option(
    "-c",
    "--commands",
    "source",
    type=click.File("rb"),
    default="-",
    metavar="FILE",
    help="The commands; stdin where none is given, or for -.",
)
@click.option("-q", "--quiet", is_flag=True, help="No count of actions, and no report of absent keys.")
@raw_option
@click.pass_context
def run(ctx: click.Context, path: str, source: IO[bytes], quiet: bool, raw: bool) -> None:
    """
    Execute commands, one a line.

    \b
      insert KEY VALUE      store a value, replacing the one before
      put KEY VALUE         the same
      find KEY              print "KEY" => VALUE; also: lookup
      remove KEY
      scan [START [STOP]]   print all items from START to before STOP
      prefix P              print all items whose keys begin with P
      # comment

    White space separates; "in double quotes" it does not, and \\" \\\\ \\n \\t \\xNN are escapes.

    An absent key is reported and makes the exit status 1, a malformed line 2; the rest still runs.
    """
    failure: Unusable | None = None
    with open_index(path, "c") as index:
        runner = Runner(index, quiet=quiet, raw=raw, prompt=not _is_file(source))
        try:
            runner.run(source)
        except Unusable as error:
            failure = error
            tell(failure.message)
        finally:
            if not quiet:
                tell(runner.summary())
    if failure:
        ctx.exit(failure.exit_code)
    if runner.malformed:
        ctx.exit(USAGE)
    if runner.absent:
        ctx.exit(ABSENT)
