"""
Durability: tickets, and what survives the loss of power (power.py).

That the log itself had reached the disk is what scripts/powercut is for.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from conftest import cannot_run
from doors import address_of
from power import other_boot, recovered, segments, without_power
from tools import TIME_SCALE, Child, assert_same, clean_environment, eventually, leftovers, make_value

Start = Callable[..., Child]


# ---- tickets ---------------------------------------------------------------------------


def test_tickets_rise_and_the_durable_one_follows(path: Path) -> None:
    """Every change has a greater ticket than the one before; waiting makes all up to it durable."""
    with rowex.open(path, flush_interval=60) as index:
        tickets = [index.put(b"a", b"1"), index.insert(b"b", b"2"), index.put_many([(b"c", b""), (b"d", b"")])]
        tickets += [index.remove(b"a"), index.remove_many([b"b", b"no"])]
        assert index.compare_and_set(b"c", b"", b"3") is True
        tickets.append(index.position)
        assert index.discard(b"d") is True
        tickets.append(index.position)
        assert tickets == sorted(set(tickets))
        index.wait_durable(tickets[2])
        assert tickets[2] <= index.durable
        index.flush()
        assert index.durable == index.position == tickets[-1]
        index.wait_durable(0)
        with pytest.raises(rowex.DurabilityError):
            index.wait_durable(index.position + 1)
        with pytest.raises(TypeError):
            index.wait_durable("1")  # type: ignore[arg-type]


def test_tickets_rise_across_threads_and_processes(path: Path, child: Start) -> None:
    """One sequence for all: no ticket is given twice, and each writer's own rise."""

    def write(pipe: Any, name: int) -> None:
        with rowex.open(path) as mine:
            given: list[list[int]] = [[] for _ in range(3)]

            def run(number: int) -> None:
                for i in range(300):
                    given[number].append(mine.put(b"%d %d %d" % (name, number, i % 50), b"%d" % i))

            threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            pipe.send(given)

    children = [child(write, name) for name in range(2)]
    everything: list[int] = []
    for process in children:
        for own in process.recv():
            assert own == sorted(own)
            everything += own
        process.finish()
    assert len(everything) == len(set(everything)) == 1800


def test_flusher_keeps_the_interval_though_nobody_waits(path: Path) -> None:
    """At "batch" a change becomes durable by itself."""
    with rowex.open(path, flush_interval=0.02) as index:
        for _ in range(5):
            ticket = index.put(b"k", b"v")
            eventually(lambda ticket=ticket: index.durable >= ticket, 2)


def test_flush_interval_is_the_shortest_of_a_process(path: Path, folder: Path) -> None:
    """A long one is kept, until another handle asks for a shorter one."""
    with rowex.open(path, flush_interval=600) as index, rowex.open(folder / "clock") as clock:
        ticket = index.put(b"k", b"v")
        for _ in range(5):
            tick = clock.put(b"k", b"v")
            eventually(lambda tick=tick: clock.durable >= tick, 5)
        assert index.durable < ticket
        with rowex.open(path, flush_interval=0.01):
            eventually(lambda: index.durable >= ticket, 5)


def test_close_makes_durable_and_ends_at_once(path: Path, folder: Path) -> None:
    """Not an interval later; and the handle that stays has nothing to wait for."""
    stays = rowex.open(path, flush_interval=60)
    with rowex.open(path, flush_interval=60) as index:
        ticket = index.put(b"k", b"v")
        started = time.monotonic()
    assert time.monotonic() - started < 2 * TIME_SCALE
    assert stays.durable >= ticket
    assert recovered(without_power(path, folder / "off")) == {b"k": b"v"}
    stays.close()


def test_commit_waits_for_every_change(path: Path, folder: Path) -> None:
    """Whatever returned is there after the loss of power, in every way of changing something."""
    with rowex.open(path, durability="commit", flush_interval=60) as index:
        steps: list[Callable[[], Any]] = [
            lambda: index.put(b"a", b"1"),
            lambda: index.insert(b"b", b"2"),
            lambda: index.__setitem__(b"c", b"3"),
            lambda: index.put_many([(b"d", b"4"), (b"e", b"5")]),
            lambda: index.compare_and_set(b"a", b"1", b"one"),
            lambda: index.setdefault(b"f", b"6"),
            lambda: index.remove(b"b"),
            lambda: index.discard(b"c"),
            lambda: index.pop(b"d"),
            lambda: index.popitem(),
            lambda: index.remove_many([b"e"]),
        ]
        for step in steps:
            step()
            assert index.durable == index.position
        assert recovered(without_power(path, folder / "off")) == dict(index.items()) == {b"a": b"one"}


@pytest.mark.parametrize("make", [lambda path: rowex.open(path, durability="process"), lambda path: rowex.memory()])
def test_durable_without_a_log_is_refused_before_anything_is_stored(
    folder: Path, door: Any, door_type: Any, make: Any
) -> None:
    """By both doors, and by writers; where there is a log it is not."""
    with make(folder / "without") as index:
        other = door_type(address_of(index._rx))
        with index.writer() as writer:
            for call in (other.put, other.insert, index.put, index.insert, writer.put, writer.insert):
                with pytest.raises(rowex.DurabilityError) as caught:
                    call(b"k", b"v", durable=True)
                assert not hasattr(caught.value, "ticket")
                assert len(index) == 0
    assert door.put(b"k", b"v", durable=True) > 0


def test_batch_and_commit_are_one_kind_of_file(path: Path) -> None:
    """Each handle chooses; a file without a log is another kind, and the error names both."""
    with rowex.open(path, durability="commit") as index:
        assert index.info().durability == "commit"
        with rowex.open(path, durability="batch", flush_interval=60) as other:
            other[b"k"] = b"1"
            index[b"l"] = b"2"
            assert index.durable == other.position
    with pytest.raises(ValueError, match=r"commit.*process"):
        rowex.open(path, durability="process")


def test_changes_of_nothing_wait_for_nothing(path: Path) -> None:
    """What is to be absent and is absent, also before the first change that is logged."""
    with rowex.open(path, durability="commit") as index:
        assert index.compare_and_set(b"k", None, None)
        with index.batch() as batch:
            batch.remove(b"k")
        assert index.remove_many([b"k"]) == 0
        index[b"k"] = b"1"
        assert index.compare_and_set(b"other", None, None)


def test_ticket_of_before_a_recovery_is_kept_or_refused(path: Path, folder: Path) -> None:
    """Never taken for durable because a later one has a greater number."""
    with rowex.open(path, flush_interval=60) as index:
        kept = index.put(b"kept", b"1", durable=True)
        off = without_power(path, folder / "off")
        lost = index.put(b"lost", b"1")
    with other_boot(), rowex.open(off) as index:
        assert set(index) == {b"kept"}
        for _ in range(10):
            assert index.put(b"new", b"1") > lost
        index.wait_durable(kept)
        with pytest.raises(rowex.DurabilityError):
            index.wait_durable(lost)
    for changes in range(2):  # sessions later it still counts where the incarnation began
        with rowex.open(off) as index:
            if changes:
                index[b"newer"] = b"1"
            index.wait_durable(kept)
            with pytest.raises(rowex.DurabilityError):
                index.wait_durable(lost)


# ---- the loss of power --------------------------------------------------------------------


def write_and_tell(pipe: Any, path: Path, name: int, seed: int) -> None:
    """Rising counters; what is durable is told."""
    dice = random.Random(seed)
    index = rowex.open(path, flush_interval=0.002)
    pipe.send("ready")
    counter = 0
    while True:
        counter += 1
        index.put(b"counter %d" % name, b"%d" % counter)
        index.put(b"%d/%d" % (name, counter % 40), make_value(b"%d" % counter, counter, dice.choice([8, 100, 3000])))
        if dice.random() < 0.3:
            other = index.get(b"counter %d" % (1 - name)) or b"0"
            index.put(b"saw %d" % name, b"%d" % int(other))  # decided from what the other had written
        if dice.random() < 0.1:
            index.discard(b"%d/%d" % (name, dice.randrange(40)))
        if dice.random() < 0.2:
            index.flush()
            pipe.send(counter)


def test_killed_and_switched_off_keeps_what_was_durable(
    path: Path, folder: Path, child: Start, rng: random.Random, long_run: bool
) -> None:
    """Everything told is there; each writer's changes are a prefix; nobody saw what is lost."""
    for number in range(60 if long_run else 6):
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        writers = [child(write_and_tell, path, name, rng.randrange(2**32)) for name in range(2)]
        told = [0, 0]
        for writer in writers:
            writer.recv()
        until = time.monotonic() + 0.05 + rng.random() * 0.3
        while time.monotonic() < until:
            for name, writer in enumerate(writers):
                if writer.pipe.poll(0.005):
                    told[name] = writer.recv()
        for writer in writers:
            writer.stop()  # a copy is one instant only when nobody moves
        off = without_power(path, folder / "off") if number % 2 else None
        for name, writer in enumerate(writers):
            writer.kill()
            with contextlib.suppress(EOFError):
                while off is None:  # what it was told before it died counts too
                    told[name] = writer.pipe.recv()
        state = recovered(off or path)
        for name in range(2):
            counter = int(state.get(b"counter %d" % name, b"0"))
            assert counter >= told[name], f"writer {name} was told {told[name]}, {counter} is left"
            assert int(state.get(b"saw %d" % name, b"0")) <= int(state.get(b"counter %d" % (1 - name), b"0"))
            versions = [int(key.split(b"/")[1]) for key in state if key.startswith(b"%d/" % name)]
            assert len(versions) <= 40


def test_recovery_repeats_until_it_succeeds(path: Path, folder: Path, child: Start, rng: random.Random) -> None:
    """Dying in the middle of a recovery, any number of times, leaves what it began with."""
    keys = {b"%05d" % i: make_value(b"%05d" % i, i, 60) for i in range(20_000)}
    with rowex.open(path) as index:
        index.put_many(list(keys.items())[:10_000])
        index.checkpoint()
        index.put_many(list(keys.items())[10_000:])
        index.flush()
        off = without_power(path, folder / "off")

    def recover(pipe: Any) -> None:
        with other_boot():
            pipe.send("begin")
            rowex.open(off).close()
            pipe.send("done")

    for _ in range(8):
        process = child(recover)
        process.recv()
        process.pipe.poll(rng.random() * 0.05)
        process.kill()
    with other_boot(), rowex.open(off) as index:
        assert_same(index, keys)
    names = {entry.name for entry in off.parent.iterdir()}
    assert names <= {off.name + side for side in ("", "-lock", "-log", "-checkpoint")}


def test_all_who_open_at_once_after_a_power_cut_get_in(path: Path, folder: Path, child: Start) -> None:
    """One recovers the file, the others wait for it: nobody meets what it has only half set up."""
    keys = {b"%03d" % i: b"v" * i for i in range(300)}
    with rowex.open(path) as index:
        index.put_many(keys.items())
        index.flush()
        off = without_power(path, folder / "off")

    def open_it(pipe: Any, again: Path) -> None:
        os.environ["ROWEX_BOOT_ID"] = "the boot after the cut"
        pipe.send("ready")
        pipe.recv()
        with rowex.open(again) as index:
            pipe.send(len(index))

    for number in range(10):
        again = Path(shutil.copytree(off.parent, folder / f"again {number}")) / off.name
        openers = [child(open_it, again) for _ in range(4)]
        for process in openers:
            process.recv()
        for process in openers:
            process.send("go")
        assert [process.recv() for process in openers] == [len(keys)] * len(openers)
        for process in openers:
            process.finish()


def test_copy_that_a_power_cut_interrupts_is_removed(
    path: Path, folder: Path, child: Start, rng: random.Random
) -> None:
    """Whoever recovers the file takes away what was half copied: nobody else would."""

    def keep_compacting(pipe: Any) -> None:
        with rowex.open(path) as index:
            index.put_many([(b"%05d" % i, make_value(b"%05d" % i, i, 400)) for i in range(5000)])
            index.flush()
            pipe.send("ready")
            while True:
                index.compact()

    process = child(keep_compacting)
    process.recv()
    for _ in range(300):
        process.pipe.poll(rng.random() * 0.01)
        process.stop()
        if leftovers(path):
            break
        process.go_on()
    off = without_power(path, folder / "off")
    assert any("-copy-" in name for name in leftovers(off)), "in 300 stops none was within a copy"
    assert len(recovered(off)) == 5000
    assert leftovers(off) == set()


def test_torn_tail_is_cut_and_never_returns(path: Path, folder: Path, rng: random.Random) -> None:
    """A prefix of what was written; what comes after it is not continued by what the torn tail held."""
    with rowex.open(path, flush_interval=60) as index:
        ends = []
        for i in range(200):
            index.put(b"%03d" % i, b"x" * rng.randrange(300), durable=True)
            ends.append(i)
        off = without_power(path, folder / "off")
    for _ in range(12):
        torn = folder / "torn"
        shutil.rmtree(torn, ignore_errors=True)
        shutil.copytree(off.parent, torn)
        last = segments(torn / path.name)[-1]
        data = bytearray(last.read_bytes())
        used = len(bytes(data).rstrip(b"\0"))
        at = rng.randrange(max(4096, used - 6000), used)
        if rng.random() < 0.5:
            data[at:] = bytes(len(data) - at)
        else:
            end = min(used, at + 512)
            data[at:] = rng.randbytes(end - at) + bytes(len(data) - end)
        last.write_bytes(data)
        state = recovered(torn / path.name)
        assert sorted(state) == [b"%03d" % i for i in range(len(state))]
        with other_boot(), rowex.open(torn / path.name) as index:
            index.put(b"after", b"", durable=True)
            again = without_power(torn / path.name, folder / "again")
        assert recovered(again) == {**state, b"after": b""}


def test_damage_below_a_durable_ticket_is_refused(path: Path, folder: Path) -> None:
    """Not a torn tail: what was told to be durable is lost, and that is said."""
    with rowex.open(path, flush_interval=60) as index:
        for i in range(50):
            index.put(b"%03d" % i, b"x" * 100, durable=True)
        off = without_power(path, folder / "off")
    last = segments(off)[-1]
    data = bytearray(last.read_bytes())
    data[4096 + 700] ^= 1
    last.write_bytes(data)
    before = {entry.name for entry in off.parent.iterdir()}
    with other_boot(), pytest.raises(rowex.CorruptionError, match="durable"):
        rowex.open(off)
    assert {entry.name for entry in off.parent.iterdir()} - {off.name + "-lock"} == before


def test_waiting_begins_with_the_file_as_it_is_now(path: Path, child: Start) -> None:
    """Another thread has moved on to a new generation, and unmapped the one that this thread used last."""

    def wait(pipe: Any) -> None:
        with rowex.open(path) as index:

            def move_on() -> None:
                index.compact()
                assert index[b"k"] == b"1"

            ticket = index.put(b"k", b"1")
            other = threading.Thread(target=move_on)
            other.start()
            other.join()
            assert index.position >= ticket
            index.wait_durable(ticket)
            pipe.send(index.durable >= ticket)

    process = child(wait)
    assert process.recv() is True
    process.finish()


def test_large_values_go_through_the_log(path: Path, folder: Path) -> None:
    """Larger than a segment, a frame, or the ring."""
    with rowex.open(path) as index:
        for i, size in enumerate([0, 1, 70_000, 200_000, 3 << 20, 20 << 20]):
            index.put(b"%d" % i, make_value(b"%d" % i, i, size), durable=True)
        index.put(b"k" * 1_000_000, b"long key", durable=True)
        index.put(b"2", b"small again", durable=True)
        off = without_power(path, folder / "off")
        assert recovered(off) == dict(index.items())


def test_more_changes_than_the_ring_holds_are_written_out_by_who_makes_them(path: Path, folder: Path) -> None:
    """Nobody waits for any, and nothing is due: what is durable then is a beginning of them."""
    keys = [b"%05d" % i for i in range(70_000)]
    with rowex.open(path, flush_interval=600) as index:
        for key in keys:
            index.put(key, b"")
        found = list(recovered(without_power(path, folder / "off")))
        assert 0 < len(found) <= len(keys)
        assert found == keys[: len(found)]
        assert dict(index.items()) == dict.fromkeys(keys, b"")


def test_boot_that_cannot_be_told_from_another_is_an_error(path: Path) -> None:
    """With an identity that was made up, what the loss of power left would be taken for the truth."""
    with rowex.open(path) as index:
        index.put(b"k", b"1", durable=True)
    hide = 'mount --bind /dev/null /proc/sys/kernel/random/boot_id || exit 77; exec "$@"'
    code = "import rowex, sys; print(dict(rowex.memory())); print(dict(rowex.open(sys.argv[1])))"
    command = ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, "-c", code, str(path)]

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        variables = clean_environment(None, **environment)
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 77 or "unshare" in done.stderr:
            cannot_run(f"mounting over a file of /proc needs root: {done.stderr}")
        return done

    refused = run()
    assert refused.stdout == "{}\n"
    assert "one boot of the machine cannot be told from another" in refused.stderr
    named = run(ROWEX_BOOT_ID="this one")
    assert named.stdout == "{}\n{b'k': b'1'}\n", named.stderr
