"""
Writers that may be killed at any instant, and the books about what they were told.

Each key goes through numbered states: write s puts a value that says s, every fourth removes the
key.  A writer notes s in shared memory after the call returned, so that whoever survives knows:
the key is in the noted state or in the next.  Failure model: `kill`.
"""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
from tools import make_value, read_value

SIZES = (0, 8, 24, 100, 900, 3000)


class Ledger:
    """What every writer has been told, in memory that outlives them all."""

    def __init__(self, writers: int, keys_each: int, sizes: tuple[int, ...] = SIZES) -> None:
        self.writers, self.keys_each, self.sizes = writers, keys_each, sizes
        cells = writers * keys_each + writers + 1
        self._cells = memoryview(mmap.mmap(-1, 8 * cells)).cast("Q")

    def key(self, writer: int, i: int) -> bytes:
        """Neighbours belong to different writers, and some keys extend others."""
        stem = b"account/%04d" % (i // 3)
        return stem + (b"", b"/x", b"/xy" * 20)[i % 3] + b"%d" % writer

    def noted(self, writer: int, i: int) -> int:
        """The last state that the writer was told of."""
        return int(self._cells[writer * self.keys_each + i])

    def note(self, writer: int, i: int, state: int) -> None:
        """The call returned."""
        self._cells[writer * self.keys_each + i] = state

    def steps(self, writer: int) -> int:
        """How many calls returned to the writer; tells that it goes on."""
        return int(self._cells[self.writers * self.keys_each + writer])

    def pause(self, on: bool) -> None:
        """Ask all writers to stand still between two calls, or to go on."""
        self._cells[len(self._cells) - 1] = int(on)

    def value(self, writer: int, i: int, state: int) -> bytes | None:
        """What the key holds in a state; None: it is absent."""
        if state % 4 == 0:
            return None
        return make_value(self.key(writer, i), state, self.sizes[(state + i) % len(self.sizes)])

    def write(self, pipe: Any, open_index: Callable[[], Any], writer: int, seed: str) -> None:
        """The life of a writer: until it is killed, or told to end."""
        rng = random.Random(seed)
        paused = len(self._cells) - 1
        count = self.writers * self.keys_each + writer
        with open_index() as index:
            pipe.send("ready")
            while not pipe.poll(0):
                if self._cells[paused]:
                    pipe.send("paused")
                    if pipe.recv() == "end":
                        return
                for _ in range(20):
                    i = rng.randrange(self.keys_each)
                    self.step(index, writer, i)
                    self._cells[count] += 1

    def step(self, index: Any, writer: int, i: int) -> None:
        """Bring a key to its next state."""
        state = self.noted(writer, i) + 1
        key, value = self.key(writer, i), self.value(writer, i, state)
        if value is None:
            index.remove(key)
        elif state % 3 == 0:
            assert index.compare_and_set(key, self.value(writer, i, state - 1), value)
        else:
            index[key] = value
        self.note(writer, i, state)

    def audit(self, index: Any, writer: int) -> int:
        """
        After the writer's death: each key is as it was told, at most one of them a step further.

        Returns:
            How many were a step further, 0 or 1; the books are brought up to date.
        """
        further = 0
        for i in range(self.keys_each):
            state = self.noted(writer, i)
            found = index.get(self.key(writer, i))
            if found == self.value(writer, i, state):
                continue
            shown = "absent" if found is None else f"state {read_value(self.key(writer, i), found)}"
            assert found == self.value(writer, i, state + 1), f"{self.key(writer, i)!r}: {shown}, noted {state}"
            self.note(writer, i, state + 1)
            further += 1
        assert further <= 1, f"{further} keys are ahead of what their writer was told"
        return further

    def contents(self) -> dict[bytes, bytes]:
        """All that must be in the index."""
        found = {}
        for writer in range(self.writers):
            for i in range(self.keys_each):
                value = self.value(writer, i, self.noted(writer, i))
                if value is not None:
                    found[self.key(writer, i)] = value
        return found


def opener(path: Path, **options: Any) -> Callable[[], Any]:
    """Opens the file in the process that calls it."""
    return lambda: rowex.open(path, **options)
