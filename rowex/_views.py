"""
What every index, of bytes or of coded objects, does as a mapping in key order.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any, TypeVar

from rowex._ranges import ITEMS, KEYS, VALUES

__all__ = ["OrderedMapping"]

K = TypeVar("K")
V = TypeVar("V")


class OrderedMapping(MutableMapping[K, V]):
    """Iteration, views, equality and bulk changes, over scans and the `_many` calls."""

    @abstractmethod
    def _scan(
        self, start: Any, stop: Any, prefix: Any, reverse: bool, limit: int | None, what: int
    ) -> Iterator[Any]: ...

    @abstractmethod
    def put_many(self, items: Any, values: Any = None, *, timeout: float | None = None) -> int: ...

    @abstractmethod
    def remove_many(self, keys: Iterable[Any], *, timeout: float | None = None) -> int: ...

    def _scan_all(self, what: int, *, reverse: bool = False) -> Iterator[Any]:
        return self._scan(None, None, None, reverse, None, what)

    def __iter__(self) -> Iterator[K]:
        return self._scan_all(KEYS)

    def __reversed__(self) -> Iterator[K]:
        return self._scan_all(KEYS, reverse=True)

    def keys(self) -> OrderedKeys[K]:
        """A view of the keys, in order; it can be reversed."""
        return OrderedKeys(self)

    def values(self) -> OrderedValues[V]:
        """A view of the values, in the order of their keys; it can be reversed."""
        return OrderedValues(self)

    def items(self) -> OrderedItems[K, V]:
        """A view of the (key, value) pairs, in the order of the keys; it can be reversed."""
        return OrderedItems(self)

    def __eq__(self, other: object) -> bool:
        """Equal to a mapping with the same items, compared one by one, not at one instant."""
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        if len(self) != len(other):
            return False
        missing = object()
        return all(other.get(key, missing) == value for key, value in self._scan_all(ITEMS))

    __hash__ = None  # type: ignore[assignment] # as Python marks what changes

    def update(self, other: Any = (), /, **named: Any) -> None:
        """
        Put every item of a mapping or of an iterable of pairs.

        Args:
            other: The items.
            **named: More items, with str keys; only for an index whose keys are str.

        Raises:
            TypeError: A key or value of the wrong type; what came before it was put.
            DiskFullError: No room; what came before it was put.

        Not atomic as a whole; each put is.
        """
        self.put_many(other)
        if named:
            self.put_many(named)

    def clear(self) -> None:
        """
        Remove every key that is present during the whole call.

        Each removal is atomic, the whole is not.  Cost: O(bytes of all keys).
        """
        self.remove_many(self)


class OrderedKeys(KeysView[K]):
    """The keys of an index, in order; a Set, live."""

    _mapping: OrderedMapping[K, Any]

    def __iter__(self) -> Iterator[K]:
        return iter(self._mapping)

    def __reversed__(self) -> Iterator[K]:
        return reversed(self._mapping)


class OrderedValues(ValuesView[V]):
    """The values of an index, in the order of their keys, live."""

    _mapping: OrderedMapping[Any, V]

    def __iter__(self) -> Iterator[V]:
        return self._mapping._scan_all(VALUES)

    def __reversed__(self) -> Iterator[V]:
        return self._mapping._scan_all(VALUES, reverse=True)

    def __contains__(self, value: object) -> bool:
        return any(found == value for found in self)


class OrderedItems(ItemsView[K, V]):
    """The (key, value) pairs of an index, in the order of the keys; a Set, live."""

    _mapping: OrderedMapping[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._scan_all(ITEMS)

    def __reversed__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._scan_all(ITEMS, reverse=True)
