"""
Threads of one process on one handle.
"""

from __future__ import annotations

import _thread
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from churn import Churn, in_threads
from tools import TIME_SCALE, assert_same, counted, eventually, make_value, read_value, refusal, uid_count


def all_at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    """Run the jobs in threads that start together; their results, or the first failure."""
    barrier = threading.Barrier(len(jobs))
    results: list[Any] = [None] * len(jobs)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait()
            results[number] = jobs[number]()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


def test_readers_beside_writers_miss_nothing_and_see_whole_values(path: Path, rng: random.Random) -> None:
    """Stable keys beside churning writers are found by every get and every scan (P1, P2)."""
    churn = Churn(path)
    churn.prepare()
    with churn.open() as index:
        in_threads(churn, index, 4, str(rng.random()))
        stats = index.stats()
        assert stats.reclaimed_cells > 0


def test_readers_beside_writers_in_memory_miss_nothing(rng: random.Random) -> None:
    """The same without a file."""
    with rowex.memory() as index:
        churn = Churn(None, index)
        index.put_many([(key, make_value(key, 7)) for key in churn.stable])
        in_threads(churn, index, 2, str(rng.random()))


def test_inserts_of_one_key_by_many_threads_have_one_winner(index: Any) -> None:
    """insert is atomic: of eight, one succeeds and its value stays."""

    def attempt(number: int) -> list[bool]:
        won = []
        for i in range(300):
            try:
                index.insert(b"key%d" % i, b"%d" % number)
                won.append(True)
            except rowex.DuplicateKeyError:
                won.append(False)
        return won

    results = all_at_once([lambda n=n: attempt(n) for n in range(8)])
    for i in range(300):
        winners = [number for number in range(8) if results[number][i]]
        assert [b"%d" % number for number in winners] == [index[b"key%d" % i]]
    assert len(index) == 300


def test_counter_by_compare_and_set_loses_no_step(index: Any) -> None:
    """compare_and_set is atomic: every successful step is in the sum."""
    index[b"counter"] = b"0"

    def count() -> int:
        done = 0
        while done < 400:
            seen = index[b"counter"]
            done += index.compare_and_set(b"counter", seen, b"%d" % (int(seen) + 1))
        return done

    assert sum(all_at_once([count] * 6)) == int(index[b"counter"]) == 2400


def test_pop_setdefault_and_popitem_hand_out_each_thing_once(index: Any) -> None:
    """They are atomic: a token is in one hand only, and none is lost."""
    tokens = {b"token%04d" % i: make_value(b"token%04d" % i, i) for i in range(800)}
    index.update(tokens)

    def grab(number: int) -> list[bytes]:
        taken = []
        rng = random.Random(number)
        order = sorted(tokens)
        rng.shuffle(order)
        for key in order:
            if number % 2:
                if index.pop(key, None) is not None:
                    taken.append(key)
            else:
                try:
                    taken.append(index.popitem(last=bool(number % 4))[0])
                except KeyError:
                    break
        return taken

    taken = [key for got in all_at_once([lambda n=n: grab(n) for n in range(6)]) for key in got]
    assert sorted(taken) == sorted(tokens)
    assert len(index) == counted(index) == 0
    answers = all_at_once([lambda n=n: index.setdefault(b"one", b"%d" % n) for n in range(8)])
    assert set(answers) == {index[b"one"]}


def test_writers_of_distinct_keys_in_the_same_nodes_lose_nothing(index: Any) -> None:
    """Eight threads fill and thin out the same nodes; each finds its own keys as it left them."""

    def work(number: int) -> dict[bytes, bytes]:
        mine = {}
        rng = random.Random(number)
        for step in range(1500):
            key = b"shared/" + bytes([rng.randrange(256), rng.randrange(4)]) + b"%d" % number
            if rng.random() < 0.4:
                assert index.pop(key, None) == mine.pop(key, None)
            else:
                mine[key] = make_value(key, step, rng.randrange(60))
                index.put(key, mine[key])
        return mine

    expected: dict[bytes, bytes] = {}
    for mine in all_at_once([lambda n=n: work(n) for n in range(8)]):
        expected.update(mine)
    assert_same(index, expected)


def test_put_many_by_several_threads_and_a_reader_keep_their_own(index: Any) -> None:
    """The looping calls run beside each other; get_many sees whole values only."""
    names = [[b"%d-%05d" % (w, i) for i in range(3000)] for w in range(3)]

    def write(w: int) -> None:
        for number in range(1, 4):
            index.put_many([(key, make_value(key, number, i % 90)) for i, key in enumerate(names[w])])

    def read() -> None:
        for _ in range(12):
            for w in range(3):
                for key, value in zip(names[w], index.get_many(names[w]), strict=True):
                    if value is not None:
                        assert 1 <= read_value(key, value) <= 3

    all_at_once([*(lambda w=w: write(w) for w in range(3)), read])
    assert_same(index, {key: make_value(key, 3, i % 90) for group in names for i, key in enumerate(group)})


@pytest.mark.limit(200)
def test_100000_short_lived_threads_give_their_slots_back(index: Any) -> None:
    """A thread's slot comes back when it ends, so that threads may come and go for ever."""
    total, together = 100_000, 20
    failures: list[BaseException] = []
    done = threading.Semaphore(0)

    def once(number: int) -> None:
        try:
            if number % 10 == 0:
                index[b"%d" % (number % 1000)] = b"%d" % number
            else:
                index.get(b"%d" % (number % 1000))
        except BaseException as error:
            failures.append(error)
        finally:
            done.release()

    started = 0
    while started < total and not failures:
        for _ in range(together):
            _thread.start_new_thread(once, (started,))
            started += 1
        for _ in range(together):
            assert done.acquire(timeout=30)
    assert not failures, failures[0]
    assert eventually(lambda: uid_count(index) <= 4, 20 * TIME_SCALE, "uids come back")
    assert len(index) == 100
    index.check()


@pytest.mark.limit(200)
def test_full_table_of_uids_is_a_clear_error_and_passes(index: Any) -> None:
    """When all slots are taken, the next one is told why; when some come back, all goes on."""
    index[b"k"] = b"1"
    readers = []
    error = refusal(lambda: [readers.append(index.reader()) for _ in range(5000)], rowex.RowexError)
    assert "uid" in str(error)
    assert 4000 <= len(readers) < 4096
    assert index[b"k"] == b"1"
    errors = []

    def newcomer() -> None:
        try:
            index.get(b"k")
        except BaseException as met:
            errors.append(met)

    thread = threading.Thread(target=newcomer)
    thread.start()
    thread.join()
    assert [type(met) for met in errors] == [type(error)]
    assert readers[17][b"k"] == b"1"
    readers.pop().close()
    index.reader().close()
    for reader in readers:
        reader.close()
    assert eventually(lambda: uid_count(index) <= 2)
    with index.writer() as writer:
        writer[b"k"] = b"2"
    assert index[b"k"] == b"2"
    index.check()


def test_close_lets_running_calls_finish(path: Path) -> None:
    """While threads work, close() waits for the calls in progress; later ones get ClosedError."""
    for _ in range(10):
        index = rowex.open(path)
        index.put_many([(b"%d" % i, bytes(200)) for i in range(2000)])
        started = threading.Barrier(5)

        def work(number: int, index: Any = index, started: threading.Barrier = started) -> str:
            started.wait()
            try:
                for i in range(10**9):
                    if number % 2:
                        assert index.get(b"%d" % (i % 2000)) is not None
                    else:
                        index.put(b"%d" % (i % 2000), bytes(200))
            except rowex.ClosedError:
                return "closed"
            return "never"

        def close(index: Any = index, started: threading.Barrier = started) -> str:
            started.wait()
            index.close()
            return "closed"

        assert all_at_once([*(lambda n=n: work(n) for n in range(4)), close]) == ["closed"] * 5
        with rowex.open(path) as again:
            assert again.stats().scans == 0, "it was closed cleanly"
            assert len(again) == counted(again) == 2000


def test_reader_used_by_two_threads_at_once_is_refused_not_broken(index: Any) -> None:
    """A reader serves one thread at a time: a second one is told, and both see right values."""
    index.update([(b"%d" % i, make_value(b"%d" % i, i, 5000)) for i in range(50)])
    with index.reader() as reader:

        def read() -> int:
            answered = 0
            for i in range(4000):
                key = b"%d" % (i % 50)
                try:
                    value = reader.get(key)
                except rowex.RowexError:
                    continue
                assert read_value(key, value) == i % 50
                answered += 1
            return answered

        assert sum(all_at_once([read, read, read])) > 0
        assert reader[b"7"] == index[b"7"]
