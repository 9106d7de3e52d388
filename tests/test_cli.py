"""
The commands of `rowex`, but for `run`, `dump`, `load` and `tour`: what they print, where, and how they exit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rowex
from commands import do, start
from rowex.cli.text import Malformed, Side, tokens

NAMES = "run get put delete scan load dump info stats inspect check compact backup recover rm mv cp".split()


@pytest.fixture
def filled(path: Path) -> Path:
    """A hundred items."""
    with rowex.open(path) as index:
        index.put_many((b"key%03d" % i, b"value %d" % i) for i in range(100))
    return path


# ---- help and mistakes ---------------------------------------------------------------------------


def test_every_command_has_help() -> None:
    """And is in the list of them."""
    listed = do("--help").stdout
    for name in NAMES:
        assert f"\n  {name} " in listed
        result = do(name, "--help")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("Usage: ")
    assert do("--version").stdout.strip().endswith(rowex.__version__)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fry"],
        ["get"],
        ["get", "INDEX"],
        ["put", "INDEX", "a"],
        ["scan", "INDEX", "--limit", "many"],
        ["scan", "INDEX", "a", "--prefix", "b"],
        ["inspect", "INDEX", "--offset", "x"],
        ["inspect", "INDEX", "--offset", "8", "--key", "a"],
        ["get", "INDEX", '"a'],
        ["put", "INDEX", '"\\q"', "1"],
        ["put", "INDEX", "a", '"1'],
        ["load", "INDEX", "no such file"],
        ["load", "INDEX", "--format", "xml"],
        ["run"],
    ],
)
def test_a_wrong_command_line_is_status_2_and_changes_nothing(filled: Path, arguments: list[str]) -> None:
    """It is told on stderr."""
    before = filled.read_bytes()
    result = do(*(str(filled) if a == "INDEX" else a for a in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr
    with rowex.open(filled, "r") as index:
        assert len(index) == 100
    assert len(filled.read_bytes()) == len(before)


@pytest.mark.parametrize(
    "arguments",
    "get INDEX a|delete INDEX a|scan INDEX|dump INDEX|info INDEX|stats INDEX|inspect INDEX|check INDEX|compact INDEX"
    "|rm INDEX|mv INDEX other|cp INDEX other".split("|"),
)
@pytest.mark.parametrize("kind", ["missing", "foreign", "folder"])
def test_an_index_that_cannot_be_used_is_status_3(folder: Path, arguments: str, kind: str) -> None:
    """The message names it, nothing is on stdout, and a foreign file is left alone."""
    path = folder / "thing"
    if kind == "foreign":
        path.write_bytes(b"not an index" * 1000)
    elif kind == "folder":
        path.mkdir()
    result = do(*(str(path) if a == "INDEX" else a.replace("other", str(folder / "other")) for a in arguments.split()))
    assert (result.exit_code, result.stdout) == (3, "")
    assert str(path) in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "other").exists()
    if kind == "foreign":
        assert path.read_bytes() == b"not an index" * 1000


# ---- items ---------------------------------------------------------------------------------------


def test_put_get_delete(path: Path) -> None:
    """The value of one key is printed as it is; an absent key is status 1."""
    assert do("put", path, "a", "hello world").exit_code == 0
    assert do("get", path, "a").stdout == "hello world\n"
    assert do("get", path, "a", "--raw").stdout == "hello world"
    assert do("delete", path, "a").exit_code == 0
    result = do("delete", path, "a")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", 'rowex: absent: "a"\n')
    result = do("get", path, "a")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", 'rowex: absent: "a"\n')


def test_binary_keys_and_values(path: Path) -> None:
    """A key in quotes holds escapes; a value comes from stdin as it is."""
    blob = bytes(range(256)) * 300
    assert do("put", path, '"a\\x00b"', "-", stdin=blob).exit_code == 0
    assert do("get", path, '"a\\x00b"', "--raw").stdout_bytes == blob
    assert do("get", path, '"a\\x00b"').stdout_bytes == blob + b"\n"
    assert do("put", path, '"\\x22"', '"\\xff"').exit_code == 0
    with rowex.open(path, "r") as index:
        assert dict(index.items()) == {b"a\0b": blob, b'"': b"\xff"}


def test_several_keys_and_those_on_stdin(filled: Path) -> None:
    """The present ones are printed as items, the absent one is told, status 1."""
    result = do("get", filled, "key001", "none", "-", stdin='key002\n\n"key003"\n')
    assert result.stdout == '"key001" => "value 1"\n"key002" => "value 2"\n"key003" => "value 3"\n'
    assert (result.exit_code, result.stderr) == (1, 'rowex: absent: "none"\n')
    assert do("delete", filled, "-", stdin="key002\nkey003\n").exit_code == 0
    result = do("get", filled, "-", stdin="key004\na b\n")
    assert result.exit_code == 2
    assert "line 2 of stdin" in result.stderr
    with rowex.open(filled, "r") as index:
        assert len(index) == 98


def test_scan_takes_bounds_prefix_limit_and_direction(filled: Path) -> None:
    """From START to before STOP."""

    def found(*options: str) -> list[int]:
        lines = do("scan", filled, *options).stdout_bytes.splitlines()
        return [int(tokens(line)[0][3:]) for line in lines]

    assert found() == list(range(100))
    assert found("key010", "key013") == [10, 11, 12]
    assert found("key097") == [97, 98, 99]
    assert found("--prefix", "key04", "--limit", "3") == [40, 41, 42]
    assert found("--reverse", "--limit", "2") == [99, 98]
    assert found("--limit", "0") == []
    assert do("scan", filled, "x").exit_code == 0
    assert json.loads(do("scan", filled, "--json", "-n", "1").stdout) == {"key": "key000", "value": "value 0"}


def test_codecs_are_spoken(path: Path) -> None:
    """int as digits, tuple as in Python; what is not one is a mistake in the command line."""
    with rowex.open(path, keys="tuple", values="int") as index:
        index["a", 1, b"\0"] = 10**30
    assert do("get", path, "('a', 1, b'\\x00')").stdout == f"{10**30}\n"
    assert do("put", path, "('b', (2, 'x'))", "-7").exit_code == 2  # -7 looks like an option
    assert do("put", path, "--", "('b', (2, 'x'))", "-7").exit_code == 0
    assert do("scan", path, "('b',)").stdout == "\"('b', (2, 'x'))\" => -7\n"
    assert do("scan", path, "--prefix", "('a',)").stdout.startswith("\"('a', 1, b'\\\\x00')\" => 1000")
    for bad in ("b", "'b'", "(1.5,)", "(", "__import__('os')"):
        assert do("get", path, bad).exit_code == 2
    assert do("put", path, "('b',)", "x").exit_code == 2
    with rowex.open(path) as index:
        assert index["b", (2, "x")] == -7


@given(st.recursive(st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.floats(), st.lists))
def test_a_value_is_shown_so_that_it_reads_back(item: Any) -> None:
    """As JSON where JSON can say it, else as the stored bytes."""
    msgpack = pytest.importorskip("msgpack")
    try:
        stored = msgpack.packb(item, use_bin_type=True)
    except UnicodeEncodeError:
        return
    side = Side("msgpack", values=True)
    text = side.show(stored)
    assert text == stored or side.parse(text) == stored
    assert side.from_json(json.loads(json.dumps(side.to_json(stored)))) == stored


@given(st.integers() | st.integers(0, 20000).map(lambda n: -(3**n)))
def test_an_int_of_any_size_is_shown_so_that_it_reads_back(number: int) -> None:
    """Beyond the length that Python converts, in hexadecimal."""
    side = Side("int")
    stored = rowex.codecs.encode_int(number)
    assert side.parse(side.show(stored)) == stored
    assert side.from_json(json.loads(json.dumps(side.to_json(stored)))) == stored


def test_text_that_no_codec_takes_is_malformed() -> None:
    """With the form that is expected."""
    for name, text in [("int", b"1_0"), ("int", b""), ("int", b"9" * 5000), ("str", b"\xff"), ("tuple", b"[1]")]:
        with pytest.raises(Malformed):
            Side(name).parse(text)


# ---- the index as a whole ------------------------------------------------------------------------


def test_info_and_stats_as_text_and_json(filled: Path) -> None:
    """The same numbers; nodes by kind, free space, obsolete and locked ones."""
    told = json.loads(do("info", filled, "--json").stdout)
    assert (told["keys"], told["leaves"], told["locked_nodes"], told["path"]) == (100, 100, 0, str(filled))
    assert set(told["nodes"]) == {"Node4", "Node16", "Node48", "Node256"}
    assert {"uuid", "generation", "file_bytes", "free_bytes", "retired_bytes", "dead_slots", "keys_codec"} <= set(told)
    numbers = json.loads(do("stats", filled, "--json").stdout)
    assert (numbers["keys"], sum(numbers["depths"])) == (100, 100)
    for command in ("info", "stats"):
        result = do(command, filled)
        assert (result.exit_code, result.stderr) == (0, "")
        rows = dict(line.rsplit(None, 1) for line in result.stdout.splitlines() if line)
        assert rows["keys"] == "100"
        assert int(rows["nodes Node256"]) >= 1


def test_info_shows_no_control_characters(folder: Path) -> None:
    """A name cannot command the terminal."""
    path = folder / "a\x1b[31m\n.rowex"
    rowex.open(path).close()
    assert "\x1b" not in do("info", path).stdout
    assert "\x1b" not in do("get", path, "\x1b").stderr


def test_inspect_by_key_path_and_by_offset(filled: Path) -> None:
    """The path leads from the root to the key's leaf; each of its nodes is found by its offset."""
    nodes = json.loads(do("inspect", filled, "--key", "key042", "--json").stdout)
    assert nodes[0]["kind"] == "Node256"
    assert (nodes[-1]["kind"], nodes[-1]["key"]) == ("leaf", "key042")
    for node, child in pairwise(nodes):
        assert child["offset"] in [one["offset"] for one in node["children"]]
        assert json.loads(do("inspect", filled, "--offset", hex(child["offset"]), "--json").stdout) == [child]
    assert json.loads(do("inspect", filled, "--json").stdout) == nodes[:1]
    text = do("inspect", filled, "-k", "key042").stdout
    assert len([line for line in text.splitlines() if line.startswith("0x")]) == len(nodes)
    assert 'leaf, key "key042"' in text
    result = do("inspect", filled, "-k", "key0xx")
    assert (result.exit_code, result.stderr) == (1, 'rowex: absent: "key0xx"\n')
    assert do("inspect", filled, "-o", "12345").exit_code == 1
    assert do("inspect", filled, "-o", hex(2**47)).exit_code == 1


def test_check_finds_a_flipped_bit(path: Path) -> None:
    """Status 0 before and 1 after, with the fault on stdout; the dump still has the other items."""
    with rowex.open(path) as index:
        index.put_many((b"key%03d" % i, b"value of %03d" % i) for i in range(100))
    result = do("check", path)
    assert (result.exit_code, result.stdout) == (0, "no faults; 100 keys\n")
    assert json.loads(do("check", path, "--json").stdout)["ok"] is True
    data = bytearray(path.read_bytes())
    data[data.index(b"value of 042")] ^= 1
    path.write_bytes(data)
    result = do("check", path)
    assert result.exit_code == 1
    assert result.stdout.startswith("0x")
    assert "1 fault" in result.stderr
    result = do("check", path, "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["ok"], len(told["faults"])) == (1, False, 1)
    assert do("inspect", path, "-o", str(told["faults"][0]["offset"])).exit_code == 0


def test_compact_makes_the_file_small_again(path: Path) -> None:
    """And says so on stderr."""
    with rowex.open(path) as index:
        index.put_many((b"%d" % i, b"x" * 1000) for i in range(5000))
        index.remove_many(b"%d" % i for i in range(4999))
    before = path.stat().st_size
    result = do("compact", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"{before} bytes before" in result.stderr
    assert path.stat().st_size < before
    assert do("compact", path, "-q").stderr == ""
    assert do("get", path, "4999").stdout == "x" * 1000 + "\n"


def test_rm_mv_cp_take_the_sidecars_along(filled: Path, folder: Path) -> None:
    """Nothing is overwritten; a folder as target keeps the name."""
    copy, moved = folder / "copy", folder / "moved"
    (folder / "sub").mkdir()
    assert do("cp", filled, copy).exit_code == 0
    assert do("cp", filled, copy).exit_code == 3
    assert do("mv", copy, moved).exit_code == 0
    assert do("mv", moved, filled).exit_code == 3
    assert do("cp", moved, folder / "sub", "--no-checksum").exit_code == 0
    with rowex.open(folder / "sub" / "moved", "r") as index:
        assert len(index) == 100
        assert index.info().checksum is False
    assert do("rm", moved, folder / "sub" / "moved").exit_code == 0
    assert os.listdir(folder / "sub") == []
    assert not list(folder.glob("copy*"))
    assert not list(folder.glob("moved*"))


def test_rm_leaves_an_index_that_is_open_alone(filled: Path) -> None:
    """Status 3, and it says so."""
    with rowex.open(filled) as index:
        result = do("rm", filled)
        assert result.exit_code == 3
        assert "open" in result.stderr
        assert index[b"key001"] == b"value 1"


# ---- as a process --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["scan", "dump"])
def test_a_closed_pipe_is_quiet(path: Path, folder: Path, command: str) -> None:
    """As before `| head`: nothing on stderr, and no failure."""
    with rowex.open(path) as index:
        index.put_many((b"key %06d" % i, b"v" * 100) for i in range(20000))
    with start(command, path, cwd=folder) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() == 0


def test_a_full_disk_under_stdout_is_told(filled: Path, folder: Path) -> None:
    """Not passed over, and not taken for a fault of the index."""
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    for command in ("scan", "dump", "info"):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "rowex", command, str(filled)],
                stdout=full,
                stderr=subprocess.PIPE,
                cwd=folder,
                check=False,
            )
        assert done.returncode == 1
        assert done.stderr.startswith(b"rowex: the output could not be written: ")
        assert b"Traceback" not in done.stderr


def test_python_m_rowex_exits_as_documented(filled: Path, folder: Path) -> None:
    """0, 1, 2 and 3."""
    cases = [("get", filled, "key001"), ("get", filled, "none"), ("get", filled), ("get", folder / "none", "a")]
    for expected, arguments in enumerate(cases):
        with start(*arguments, cwd=folder) as child:
            out, err = child.communicate()
        assert (child.returncode, bool(out), bool(err)) == (expected, expected == 0, expected != 0)


def test_closed_streams_are_no_reason_to_fail(filled: Path, folder: Path) -> None:
    """As a service is started: the index does not become somebody's stdout."""
    for command in ("get $0 key001 none", "run -i $0", "put $0 new 1", "delete $0 new"):
        script = f'exec "$1" -m rowex {command} <&- >&- 2>&-'
        done = subprocess.run(["sh", "-c", script, str(filled), sys.executable], cwd=folder, check=False)
        assert done.returncode == (1 if "none" in command else 0)
    with rowex.open(filled, "r") as index:
        index.check()
        assert len(index) == 100
