"""
Processes: forked, spawned, handed a pickled handle, sharing memory; one file for all.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from churn import Churn, in_processes
from tools import Child, assert_same, counted, eventually, make_value, read_value, uid_count

Start = Callable[..., Child]


def test_processes_beside_each_other_miss_nothing(path: Path, rng: random.Random, child: Start) -> None:
    """Two writing processes, a reading and a scanning one: P1 and P2 across processes."""
    churn = Churn(path)
    churn.prepare()
    in_processes(churn, 4, str(rng.random()), child)


def test_counter_by_compare_and_set_across_processes_loses_no_step(path: Path, child: Start, opened: Any) -> None:
    """compare_and_set is atomic across processes."""
    index = opened(path)
    index[b"counter"] = b"0"

    def count(pipe: Any) -> None:
        with rowex.open(path) as mine:
            pipe.recv()
            done = 0
            while done < 500:
                seen = mine[b"counter"]
                done += mine.compare_and_set(b"counter", seen, b"%d" % (int(seen) + 1))

    children = [child(count) for _ in range(4)]
    for process in children:
        process.send("go")
    for process in children:
        process.finish()
    assert int(index[b"counter"]) == 2000
    assert index.check().keys == 1


def test_tokens_pass_between_processes_without_loss(path: Path, child: Start, opened: Any) -> None:
    """popitem and pop hand each token to one process; put back elsewhere, all are there at the end."""
    index = opened(path)
    tokens = {b"bag0/%03d" % i: make_value(b"%03d" % i, i) for i in range(200)}
    index.update(tokens)

    def pass_on(pipe: Any, number: int) -> None:
        with rowex.open(path) as mine:
            pipe.recv()
            rng = random.Random(number)
            for _ in range(1500):
                key = mine.ceiling(b"bag%d/%03d" % (rng.randrange(3), rng.randrange(200)))
                if key is None:
                    continue
                value = mine.pop(key[0], None)
                if value is not None:
                    mine.insert(b"bag%d" % rng.randrange(3) + key[0][4:], value)

    children = [child(pass_on, n) for n in range(4)]
    for process in children:
        process.send("go")
    for process in children:
        process.finish()
    assert sorted(key[5:] for key in index) == sorted(key[5:] for key in tokens)
    assert sorted(index.values()) == sorted(tokens.values())
    index.check()


# ---- fork --------------------------------------------------------------------------


def test_inherited_handle_works_in_a_forked_child(path: Path, child: Start, opened: Any) -> None:
    """A child goes on with the parent's handle, has a uid of its own, and leaves the parent's alone."""
    index = opened(path)
    index[b"from the parent"] = b"1"
    my_uid = {info.uid for info in index.stats().uids if info.pid == os.getpid()}

    def use(pipe: Any) -> None:
        assert index[b"from the parent"] == b"1"
        index[b"from the child"] = b"2"
        mine = {info.uid for info in index.stats().uids if info.pid == os.getpid()}
        assert mine
        assert mine.isdisjoint(my_uid)
        assert list(index.scan())
        pipe.send(len(index))
        pipe.recv()
        index.close()

    process = child(use)
    assert process.recv() == 2
    assert index[b"from the child"] == b"2"
    index[b"from the parent"] = b"3"
    process.send("close")
    process.finish()
    assert index[b"from the parent"] == b"3"
    index[b"after"] = b""
    assert index.check().keys == 3


def test_child_that_exits_normally_leaves_the_parent_working(path: Path, opened: Any) -> None:
    """A multiprocessing child that inherits a handle runs its exit hooks without harm to the parent."""
    index = opened(path)
    index[b"k"] = b"1"
    context = multiprocessing.get_context("fork")
    for number in range(3):
        process = context.Process(target=_put_and_return, args=(index, number))
        process.start()
        process.join(30)
        assert process.exitcode == 0
        index[b"k"] = b"%d" % number
    assert len(index) == 4
    assert uid_count(index) <= 4
    index.check()


def _put_and_return(index: Any, number: int) -> None:
    index[b"child %d" % number] = b"x"


def test_fork_while_four_threads_write_gives_working_children(path: Path, child: Start) -> None:
    """Whatever locks threads held at the fork, the child can read, write and close."""

    def parent(pipe: Any) -> None:
        with rowex.open(path) as index:
            stop = threading.Event()
            failures: list[BaseException] = []
            counts = [0] * 4

            def write(number: int) -> None:
                rng = random.Random(number)
                try:
                    while not stop.is_set():
                        counts[number] += 1
                        key = b"t%d/%d" % (number, rng.randrange(200))
                        index[key] = make_value(key, counts[number], rng.randrange(500))
                        if rng.random() < 0.3:
                            index.discard(b"t%d/%d" % (number, rng.randrange(200)))
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for generation in range(25):
                use = Child(forked, index, generation)
                use.finish()
                use.cleanup()
            stop.set()
            for thread in threads:
                thread.join()
            assert not failures, failures
            assert len(index) == counted(index)
            for generation in range(25):
                assert index[b"child%d" % generation] == b"%d" % generation
            index.check()

    def forked(pipe: Any, index: Any, generation: int) -> None:
        key = b"child%d" % generation
        index[key] = b"%d" % generation
        assert index[key] == b"%d" % generation
        for name, value in index.scan(prefix=b"t"):
            read_value(name, value)
        if generation % 3 == 0:
            index.close()
        elif generation % 3 == 1:
            with rowex.open(path) as again:
                assert again[key] == b"%d" % generation

    child(parent).finish(80)


def test_fork_in_a_fork_in_a_fork_works(path: Path, child: Start, opened: Any) -> None:
    """Each generation goes on with the handle it inherited."""
    index = opened(path)
    index[b"0"] = b""

    def descend(pipe: Any, depth: int) -> None:
        index[b"%d" % depth] = b""
        assert len(index) == depth + 1
        if depth < 5:
            deeper = Child(descend, depth + 1)
            deeper.finish()
            deeper.cleanup()

    child(descend, 1).finish()
    assert list(index) == [b"%d" % n for n in range(6)]


def test_idle_child_that_inherited_a_handle_is_no_user_of_the_file(path: Path, child: Start) -> None:
    """A child that never uses the handle it inherited keeps neither the file in use nor its parent alive."""
    index = rowex.open(path)
    index[b"k"] = b"1"

    def idle(pipe: Any) -> None:
        pipe.recv()
        index[b"from the child"] = b"2"
        index.close()

    process = child(idle)
    index.close()
    with rowex.open(path, "r") as again:
        assert again.info().clean, "its last user closed it"
        assert again.stats().scans == 0
    process.send("use it")
    process.finish()
    with rowex.open(path, "r") as again:
        assert dict(again.scan()) == {b"k": b"1", b"from the child": b"2"}
    rowex.destroy(path)


def test_death_of_a_parent_is_noticed_though_its_child_lives(path: Path, child: Start, opened: Any) -> None:
    """What a process inherits by fork, mappings included, does not make its dead parent look alive."""
    index = opened(path)

    def parent(pipe: Any) -> None:
        mine = rowex.open(path)
        mine[b"k"] = b"1"
        heir = os.fork()
        if heir == 0:
            ctypes.CDLL(None).prctl(1, 0)
            signal.alarm(60)
            while True:
                signal.pause()
        pipe.send(heir)
        pipe.recv()

    process = child(parent)
    heir = process.recv()
    try:
        process.kill()
        index[b"l"] = b"2"
        index.reader().close()
        index.compact()
        assert eventually(lambda: process.pid not in {info.pid for info in index.stats().uids}, 5)
    finally:
        os.kill(heir, signal.SIGKILL)


def test_readers_and_writers_inherited_by_fork_say_that_they_are_the_parents(
    path: Path, child: Start, opened: Any
) -> None:
    """A child cannot work under its parent's uid; whatever it gets, the parent's is unharmed."""
    index = opened(path)
    index[b"k"] = b"1"
    reader, writer = index.reader(), index.writer()

    def use(pipe: Any) -> None:
        for call in (lambda: reader.get(b"k"), lambda: writer.put(b"k", b"2")):
            with contextlib.suppress(rowex.RowexError):
                call()
        index[b"child"] = b"1"

    child(use).finish()
    writer[b"k"] = b"3"
    assert reader[b"k"] == b"3"
    assert index[b"child"] == b"1"
    reader.close()
    writer.close()
    index.check()


# ---- pickling and spawning ---------------------------------------------------------


def _work_on(index: Any, number: int) -> int:
    for i in range(200):
        index[b"%d/%03d" % (number, i)] = b"%d" % i
    count = len(list(index.scan(prefix=b"%d/" % number)))
    index.close()
    return count


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_handle_given_to_a_pool_works_there(path: Path, opened: Any, method: str) -> None:
    """A pickled handle opens the same file in the other process, however that was started."""
    index = opened(path)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(_work_on, [(index, n) for n in range(4)]) == [200] * 4
    assert len(index) == 800
    index.check()


def test_pickled_handle_means_the_same_file_after_chdir(folder: Path, opened: Any, child: Start) -> None:
    """A relative path is resolved when it is opened, not when it is unpickled."""

    def elsewhere(pipe: Any) -> None:
        os.chdir(folder)
        index = rowex.open("relative.rowex")
        index[b"k"] = b"1"
        os.chdir("/")
        index[b"l"] = b"2"
        with pickle.loads(pickle.dumps(index)) as copy:
            assert copy[b"l"] == b"2"
        index.compact()
        assert index[b"k"] == b"1"
        index.close()
        assert not os.path.exists("/relative.rowex")

    child(elsewhere).finish()
    assert sorted(entry.name for entry in folder.iterdir())[0] == "relative.rowex"


# ---- memory shared by fork -------------------------------------------------------------


def test_memory_is_shared_with_forked_children(child: Start) -> None:
    """An index in memory is one for all processes that were forked from its maker."""
    with rowex.memory() as index:
        index[b"k"] = b"1"

        def write(pipe: Any, number: int) -> None:
            assert index[b"k"] == b"1"
            for i in range(1000):
                index[b"%d/%d" % (number, i)] = make_value(b"%d" % i, i, 100)
                index.discard(b"%d/%d" % (number, i - 500))
            pipe.send("done")
            pipe.recv()

        children = [child(write, n) for n in range(3)]
        for process in children:
            assert process.recv() == "done"
        assert len(index) == counted(index) == 1 + 3 * 500
        assert index[b"2/999"] == make_value(b"999", 999, 100)
        children[0].kill()
        index[b"0/more"] = b""
        for process in children[1:]:
            process.send("end")
            process.finish()
        index.check()


def test_memory_survives_the_death_of_a_child_that_writes(child: Start, rng: random.Random) -> None:
    """P4 without a file: a child killed anywhere leaves memory() whole."""
    with rowex.memory() as index:
        index.update([(b"s%d" % i, b"") for i in range(300)])

        def write(pipe: Any) -> None:
            pipe.send("ready")
            while True:
                for i in range(300):
                    index[b"k%d" % i] = make_value(b"k%d" % i, i, 200)
                index.remove_many([b"k%d" % i for i in range(300)])

        for number in range(15):
            process = child(write)
            process.recv()
            process.pipe.poll(rng.random() * 0.02)
            process.kill()
            index[b"after %d" % number] = b""
            assert len(index) == counted(index)
            index.check()
        for key, value in index.scan(prefix=b"k"):
            read_value(key, value)
        assert len(list(index.scan(prefix=b"s"))) == 300


# ---- opening beside others ------------------------------------------------------------------


def test_many_processes_that_create_at_once_agree_on_one_file(path: Path, child: Start) -> None:
    """Mode "c" by ten processes at once: one creates, the others join it."""

    def create(pipe: Any, number: int) -> None:
        pipe.recv()
        with rowex.open(path) as index:
            index[b"%d" % number] = b"here"
            pipe.send(str(index.info().uuid))
            pipe.recv()

    children = [child(create, n) for n in range(10)]
    for process in children:
        process.send("go")
    assert len({process.recv() for process in children}) == 1
    for process in children:
        process.send("close")
    for process in children:
        process.finish()
    with rowex.open(path, "r") as index:
        assert len(index) == 10
        index.check()


def test_opening_and_closing_beside_each_other_is_safe(path: Path, child: Start, rng: random.Random) -> None:
    """Last closers and first openers meet all the time: the file is clean or in use, never broken."""
    rowex.open(path).close()

    def come_and_go(pipe: Any, number: int) -> None:
        for i in range(60):
            with rowex.open(path) as index:
                index[b"%d/%d" % (number, i % 20)] = b"%d" % i
                if i:
                    assert index[b"%d/%d" % (number, (i - 1) % 20)] == b"%d" % (i - 1)

    children = [child(come_and_go, n) for n in range(4)]
    for process in children:
        process.finish(60)
    with rowex.open(path) as index:
        assert_same(index, {b"%d/%d" % (n, i): b"%d" % (40 + i) for n in range(4) for i in range(20)})
        assert index.stats().scans == 0


def test_killed_openers_do_not_hold_up_others(path: Path, child: Start, rng: random.Random) -> None:
    """Processes killed while they open and close leave the file usable at once."""
    with rowex.open(path) as index:
        index[b"k"] = b"1"

    def come_and_go(pipe: Any) -> None:
        pipe.send("ready")
        while True:
            with rowex.open(path) as index:
                index[b"k"] = b"1"

    for _ in range(25):
        pair = [child(come_and_go), child(come_and_go)]
        for process in pair:
            process.recv()
        pair[0].pipe.poll(rng.random() * 0.03)
        for process in pair:
            process.signal(signal.SIGKILL)
        for process in pair:
            process.wait()
        with rowex.open(path) as index:
            assert_same(index, {b"k": b"1"})
