"""
The whole API against a dict: hypothesis looks for a sequence of calls that tells them apart.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

import rowex
from conftest import _fast_folder
from model import Model
from tools import assert_same, counted

LONG = b"long shared prefix " * 20
short_keys = st.lists(st.sampled_from([0, 1, 97, 98, 254, 255]), max_size=6).map(bytes)
crowded_keys = st.integers(0, 255).map(lambda i: b"n" + bytes([i]))
deep_keys = st.tuples(st.integers(0, len(LONG)), short_keys).map(lambda t: LONG[: t[0]] + t[1])
keys = st.one_of(short_keys, crowded_keys, deep_keys, st.binary(max_size=12))
values = st.one_of(st.binary(max_size=40), st.integers(0, 6000).map(lambda n: bytes([n % 251]) * n))
bounds = st.one_of(st.none(), keys)


class IndexMachine(RuleBasedStateMachine):
    """Calls on an index and on the model give the same answers."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="rowex-machine-", dir=_fast_folder()))
        self.path = self.folder / "index.rowex"
        self.model = Model()
        self.index: Any = None
        self.other: Any = None

    @initialize(small=st.booleans(), checksum=st.booleans(), durability=st.sampled_from(["process", "batch", "pmem"]))
    def create(self, small: bool, checksum: bool, durability: str) -> None:
        options = {"initial_size": 1 << 17, "capacity": 1 << 18} if small else {}
        # The fences of "pmem" are made, though the disk is an ordinary one.
        if durability == "pmem":
            os.environ["ROWEX_FENCES"] = "1"
        self.index = rowex.open(self.path, checksum=checksum, durability=durability, **options)
        self.ticket, self.logged = 0, durability == "batch"

    def given(self, ticket: int) -> None:
        """Tickets rise; without a log there are none."""
        assert ticket > self.ticket if self.logged else ticket == 0
        self.ticket = ticket

    def teardown(self) -> None:
        try:
            if self.index is not None:
                assert_same(self.index, self.model.items)
        finally:
            os.environ.pop("ROWEX_FENCES", None)
            for handle in (self.index, self.other):
                if handle is not None:
                    handle.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    # ---- one key -----------------------------------------------------------------

    @rule(target=known, key=keys, value=values)
    def put(self, key: bytes, value: bytes) -> bytes:
        self.given(self.index.put(key, value))
        self.model.items[key] = value
        return key

    @rule(key=known, value=values)
    def replace(self, key: bytes, value: bytes) -> None:
        self.index[key] = value
        self.model.items[key] = value

    @rule(target=known, key=keys | known, value=values)
    def insert(self, key: bytes, value: bytes) -> bytes:
        if key in self.model.items:
            with pytest.raises(rowex.DuplicateKeyError):
                self.index.insert(key, value)
        else:
            self.index.insert(key, value)
            self.model.items[key] = value
        return key

    @rule(key=known | keys)
    def remove(self, key: bytes) -> None:
        if key in self.model.items:
            del self.index[key]
            del self.model.items[key]
        else:
            with pytest.raises(KeyError):
                self.index.remove(key)

    @rule(key=consumes(known))
    def discard(self, key: bytes) -> None:
        assert self.index.discard(key) == (self.model.items.pop(key, None) is not None)

    @rule(key=known | keys, default=st.none() | values)
    def pop(self, key: bytes, default: bytes | None) -> None:
        assert self.index.pop(key, default) == self.model.items.pop(key, default)

    @rule(last=st.booleans())
    def popitem(self, last: bool) -> None:
        expected = self.model.last() if last else self.model.first()
        if expected is None:
            with pytest.raises(KeyError):
                self.index.popitem(last)
        else:
            assert self.index.popitem(last) == expected
            del self.model.items[expected[0]]

    @rule(key=known | keys, value=values)
    def setdefault(self, key: bytes, value: bytes) -> None:
        assert self.index.setdefault(key, value) == self.model.items.setdefault(key, value)

    @rule(key=known | keys, right=st.booleans(), guess=st.none() | values, new=st.none() | values)
    def compare_and_set(self, key: bytes, right: bool, guess: bytes | None, new: bytes | None) -> None:
        expected = self.model.items.get(key) if right else guess
        assert self.index.compare_and_set(key, expected, new) == self.model.compare_and_set(key, expected, new)

    @rule(key=known | keys)
    def look(self, key: bytes) -> None:
        value = self.model.items.get(key)
        assert self.index.get(key) == value
        assert self.index.get(key, b"default") == (b"default" if value is None else value)
        assert (key in self.index) == self.index.exists(key) == (value is not None)
        if value is None:
            with pytest.raises(KeyError):
                self.index.lookup(key)
        else:
            assert self.index.lookup(key) == self.index[key] == value

    # ---- many keys ---------------------------------------------------------------------

    @rule(items=st.lists(st.tuples(keys, values), max_size=30))
    def put_many(self, items: list[tuple[bytes, bytes]]) -> None:
        self.index.put_many(items)
        self.model.items.update(items)

    @rule(names=st.lists(keys | known, max_size=30))
    def get_many(self, names: list[bytes]) -> None:
        assert self.index.get_many(names) == self.model.get_many(names)
        assert self.index.get_many(names, b"no") == self.model.get_many(names, b"no")

    @rule(names=st.lists(known | keys, max_size=30))
    def remove_many(self, names: list[bytes]) -> None:
        present = {name for name in names if name in self.model.items}
        ticket = self.index.remove_many(names)
        if present:
            self.given(ticket)
        else:
            assert ticket == 0
        for name in present:
            del self.model.items[name]

    @rule(lead=st.sampled_from([b"n", b"", LONG]), start=st.integers(0, 200), count=st.integers(1, 60))
    def crowd(self, lead: bytes, start: int, count: int) -> None:
        items = [(lead + bytes([i]), b"v%d" % i) for i in range(start, min(256, start + count))]
        self.index.update(items)
        self.model.items.update(items)

    @rule(lead=st.sampled_from([b"n", b"", LONG]), step=st.integers(1, 5))
    def thin_out(self, lead: bytes, step: int) -> None:
        for i in range(0, 256, step):
            key = lead + bytes([i])
            assert self.index.pop(key, None) == self.model.items.pop(key, None)

    @rule()
    def clear(self) -> None:
        self.index.clear()
        self.model.items.clear()

    # ---- order -------------------------------------------------------------------------------

    @rule(key=known | keys)
    def neighbours(self, key: bytes) -> None:
        assert self.index.floor(key) == self.model.floor(key)
        assert self.index.ceiling(key) == self.model.ceiling(key)
        assert self.index.first() == self.model.first()
        assert self.index.last() == self.model.last()

    @rule(start=bounds | known, stop=bounds | known, reverse=st.booleans(), limit=st.none() | st.integers(0, 20))
    def scan(self, start: bytes | None, stop: bytes | None, reverse: bool, limit: int | None) -> None:
        found = list(self.index.scan(start, stop, reverse=reverse, limit=limit))
        assert found == self.model.scan(start, stop, reverse=reverse, limit=limit)

    @rule(key=keys | known, cut=st.integers(0, 4), reverse=st.booleans(), limit=st.none() | st.integers(0, 20))
    def scan_prefix(self, key: bytes, cut: int, reverse: bool, limit: int | None) -> None:
        prefix = key[: max(0, len(key) - cut)]
        found = list(self.index.scan(prefix=prefix, reverse=reverse, limit=limit))
        assert found == self.model.scan(prefix=prefix, reverse=reverse, limit=limit)

    @rule()
    def views(self) -> None:
        pairs = self.model.pairs()
        assert list(self.index) == list(self.index.keys()) == [key for key, _ in pairs]
        assert list(self.index.values()) == [value for _, value in pairs]
        assert list(self.index.items()) == pairs
        assert list(reversed(self.index)) == [key for key, _ in reversed(pairs)]
        assert self.index == self.model.items

    # ---- the file ------------------------------------------------------------------------------

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = rowex.open(self.path, "w")

    @rule()
    def look_through_another_handle(self) -> None:
        if self.other is None:
            self.other = rowex.open(self.path, "r")
        assert list(self.other.scan()) == self.model.pairs()

    @rule()
    def close_the_other_handle(self) -> None:
        if self.other is not None:
            self.other.close()
            self.other = None

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def check(self) -> None:
        assert self.index.check().keys == len(self.model)

    @invariant()
    def same_length(self) -> None:
        if self.index is not None:
            assert len(self.index) == len(self.model)

    @rule()
    def length_is_what_a_scan_counts(self) -> None:
        assert counted(self.index) == len(self.index)


@pytest.mark.limit(240)
def test_any_sequence_of_calls_answers_as_a_dict_does(long_run: bool) -> None:
    """The index is a sorted dict: every call answers what the model answers, whatever came before."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        IndexMachine,
        settings=settings(
            max_examples=5000 if long_run else 200, stateful_step_count=80 if long_run else 40, deadline=None
        ),
    )
