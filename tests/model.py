"""
The oracle: what an index must answer, computed with a dict and sorted().

Slow and obvious on purpose; it shares no code with the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Pair = tuple[bytes, bytes]


class Model:
    """A dict of bytes to bytes that answers the ordered questions too."""

    def __init__(self, items: Iterable[Pair] = ()) -> None:
        self.items: dict[bytes, bytes] = dict(items)

    def __len__(self) -> int:
        return len(self.items)

    def pairs(self) -> list[Pair]:
        """All pairs, in key order."""
        return sorted(self.items.items())

    def scan(
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        prefix: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Pair]:
        """The pairs with start <= key < stop that begin with the prefix, in either direction."""
        found = [
            (key, value)
            for key, value in self.pairs()
            if (start is None or start <= key)
            and (stop is None or key < stop)
            and (prefix is None or key.startswith(prefix))
        ]
        if reverse:
            found.reverse()
        return found if limit is None else found[:limit]

    def first(self) -> Pair | None:
        """The pair with the smallest key."""
        return self.pairs()[0] if self.items else None

    def last(self) -> Pair | None:
        """The pair with the largest key."""
        return self.pairs()[-1] if self.items else None

    def floor(self, key: bytes) -> Pair | None:
        """The pair with the largest key that is <= *key*."""
        return max((pair for pair in self.items.items() if pair[0] <= key), default=None)

    def ceiling(self, key: bytes) -> Pair | None:
        """The pair with the smallest key that is >= *key*."""
        return min((pair for pair in self.items.items() if pair[0] >= key), default=None)

    def compare_and_set(self, key: bytes, expected: bytes | None, new: bytes | None) -> bool:
        """Replace *expected* by *new*, None being absent; tells whether it was there."""
        if self.items.get(key) != expected:
            return False
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = new
        return True

    def get_many(self, keys: Sequence[bytes], default: bytes | None = None) -> list[bytes | None]:
        """The value of each key, or *default*."""
        return [self.items.get(key, default) for key in keys]
