"""
The commands of `rowex`, but for `run` and `tour`: what they print, where, and how they exit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import rowex
from conftest import _fast_folder
from rowex.cli import cli
from rowex.cli.text import Malformed, Side, tokens

NAMES = "run get put delete scan load dump info stats inspect check compact rm mv cp".split()


def do(*arguments: str | Path, stdin: bytes | str = b"") -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, catch_exceptions=False)


def start(*arguments: str | Path, cwd: Path, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rowex", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, **options)


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


# ---- dump and load -------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.dictionaries(st.binary(max_size=20), st.binary(max_size=40), max_size=30),
    st.booleans(),
    st.sampled_from([(None, None), ("custom", "custom")]),
)
def test_dump_and_load_round_trip_any_bytes(items: dict[bytes, bytes], checksum: bool, codecs: tuple[Any, Any]) -> None:
    """Items, codecs and whether values carry checksums."""
    same = (lambda item: item, lambda item: item)
    keys, values = (same if codec == "custom" else codec for codec in codecs)
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        source, target = Path(folder) / "source", Path(folder) / "target"
        with rowex.open(source, keys=keys, values=values, checksum=checksum) as index:
            index.put_many(items)
        dumped = do("dump", source)
        assert (dumped.exit_code, dumped.stderr) == (0, "")
        loaded = do("load", target, stdin=dumped.stdout_bytes)
        assert (loaded.exit_code, loaded.stderr) == (0, f"rowex: {len(items)} item(s) stored\n")
        with rowex.open(target, "r", keys=keys, values=values) as index:
            assert dict(index.items()) == items
            assert index.info().checksum is checksum
        assert do("dump", target).stdout_bytes == dumped.stdout_bytes


@pytest.mark.parametrize(
    ("keys", "values", "items"),
    [
        ("str", "str", {"": "", "a": "\0", "\ud800": "é\u2028\n", "b" * 5000: "\U0010ffff"}),
        ("int", "int", {0: 0, -1: 2**53, 2**53: -(2**53), -(10**5000): 10**5000, 200: -200}),
        ("tuple", "bytes", {(): b"", ("a", 1): b"\xff", (b"\0", (("x",), -5)): b"{}"}),
        ("bytes", "msgpack", {b"a": {"k": [1, None, b"\xff"]}, b"\xff": "text", b"c": 1.5}),
    ],
)
def test_dump_and_load_round_trip_the_codecs(folder: Path, keys: Any, values: Any, items: dict[Any, Any]) -> None:
    """A new index gets those of the dump; an old one with others is refused."""
    if values == "msgpack":
        pytest.importorskip("msgpack")
    source, target, other = folder / "source", folder / "target", folder / "other"
    with rowex.open(source, keys=keys, values=values) as index:
        index.put_many(items)
    dumped = do("dump", source).stdout_bytes
    head = json.loads(dumped.splitlines()[0])
    assert (head["keys"], head["values"]) == (keys, values)
    for _ in range(2):
        assert do("load", target, stdin=dumped).exit_code == 0
        with rowex.open(target, keys=keys, values=values) as index:
            assert dict(index.items()) == items
    rowex.open(other, keys="int" if keys != "int" else "str").close()
    result = do("load", other, stdin=dumped)
    assert result.exit_code == 2
    assert "keys=" in result.stderr
    assert do("load", folder / "new", "--values", "int" if values != "int" else "str", stdin=dumped).exit_code == 2
    assert not (folder / "new").exists()


def test_load_reads_tsv_csv_and_json_lines_by_suffix(folder: Path) -> None:
    """Each says the same two items."""
    wanted = {b"a": b"1", b"k, y": b'he said "no"\\n'}
    texts = {
        "items.tsv": 'a\t1\r\nk, y\the said "no"\\n\n',
        "items.csv": 'a,1\r\n"k, y","he said ""no""\\n"\r\n',
        "items.jsonl": '{"key": "a", "value": "1"}\n["k, y", "he said \\"no\\"\\\\n"]\n\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text, newline="")
        assert do("load", folder / f"{name}.rowex", folder / name).exit_code == 0
        with rowex.open(folder / f"{name}.rowex", "r") as index:
            assert dict(index.items()) == wanted
    csv = 'key,value\n\xff,"two\nlines"\n'.encode("latin-1")
    assert do("load", folder / "new", "-f", "csv", "--header", "-", stdin=csv).exit_code == 0
    with rowex.open(folder / "new", "r") as index:
        assert dict(index.items()) == {b"\xff": b"two\nlines"}


def test_load_into_a_new_index_with_codecs(path: Path) -> None:
    """Text becomes what the codec stores."""
    assert do("load", path, "--keys", "int", "--values", "str", "-f", "tsv", stdin="10\té\n9\tb\n").exit_code == 0
    with rowex.open(path, "r", keys="int", values="str") as index:
        assert list(index.items()) == [(9, "b"), (10, "é")]
    result = do("load", path, "-f", "tsv", "--keys", "str", stdin="x\ty\n")
    assert result.exit_code == 2


def test_load_names_malformed_lines_and_stores_the_rest(folder: Path) -> None:
    """Status 2."""
    cases = {
        "tsv": ("a\t1\nb\nc\t1\t2\nd\t4\n", [2, 3]),
        "csv": ("a,1\nb\nc,1,2\nd,4\n", [2, 3]),
        "jsonl": (
            '["a","1"]\nnothing\n{"key":"b"}\n["a",1]\n[{"b64":"?"},""]\n["\\ud800",""]\n["d","4"]\n',
            range(2, 7),
        ),
    }
    for form, (text, bad) in cases.items():
        result = do("load", folder / form, "-f", form, stdin=text)
        assert result.exit_code == 2
        *lines, last = result.stderr.splitlines()
        assert [line.split(":")[1].strip() for line in lines] == [f"line {n}" for n in bad]
        assert last == f"rowex: 2 item(s) stored; {len(bad)} malformed"
        with rowex.open(folder / form, "r") as index:
            assert dict(index.items()) == {b"a": b"1", b"d": b"4"}


def test_load_refuses_a_dump_of_another_version(path: Path) -> None:
    """Before it makes anything."""
    result = do("load", path, stdin='{"rowex": 99, "keys": "bytes", "values": "bytes"}\n')
    assert result.exit_code == 2
    assert not path.exists()


def test_a_key_that_is_too_large_is_named_and_the_rest_is_stored(path: Path) -> None:
    """Also in the middle of a batch."""
    text = "".join(f"k{i}\t{i}\n" for i in range(50)) + "x" * ((1 << 20) + 1) + "\t1\nlast\t1\n"
    result = do("load", path, "-f", "tsv", stdin=text)
    assert result.exit_code == 2
    with rowex.open(path, "r") as index:
        assert len(index) == 51
        assert b"last" in index


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


def test_dump_gives_what_can_be_read_of_a_damaged_file(path: Path) -> None:
    """The items before and behind the damage, and status 1."""
    with rowex.open(path) as index:
        index.put_many((b"%c%03d" % (letter, i), b"x") for letter in b"abc" for i in range(100))
    node = json.loads(do("inspect", path, "-k", "b050", "--json").stdout)[1]
    data = bytearray(path.read_bytes())
    data[node["offset"] : node["offset"] + 16] = b"\xee" * 16
    path.write_bytes(data)
    result = do("dump", path)
    assert result.exit_code == 1
    assert "damaged" in result.stderr
    found = {json.loads(line)["key"] for line in result.stdout.splitlines()[1:]}
    assert {key for key in found if key[0] == "a"} == {f"a{i:03}" for i in range(100)}
    assert {key for key in found if key[0] == "c"} == {f"c{i:03}" for i in range(100)}


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


def test_dump_and_load_in_a_pipeline(filled: Path, folder: Path) -> None:
    """As two processes."""
    target = folder / "target"
    with start("dump", filled, cwd=folder) as first, start("load", target, cwd=folder, stdin=first.stdout) as second:
        out, err = second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert (out, err) == (b"", b"rowex: 100 item(s) stored\n")
    with rowex.open(target, "r") as one, rowex.open(filled, "r") as other:
        assert dict(one.items()) == dict(other.items())


def test_python_m_rowex_exits_as_documented(filled: Path, folder: Path) -> None:
    """0, 1, 2 and 3."""
    cases = [("get", filled, "key001"), ("get", filled, "none"), ("get", filled), ("get", folder / "none", "a")]
    for expected, arguments in enumerate(cases):
        with start(*arguments, cwd=folder) as child:
            out, err = child.communicate()
        assert (child.returncode, bool(out), bool(err)) == (expected, expected == 0, expected != 0)
