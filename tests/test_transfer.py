"""
`rowex dump` and `rowex load`: what goes out comes in again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rowex
from commands import do, start
from conftest import _fast_folder
from rowex.opening import open_raw


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


HEAD = b'{"rowex": 1, "keys": "%b", "values": "%b", "checksum": true}\n'
DUMPS = [
    HEAD % (b"bytes", b"msgpack")
    + b'{"key": "a", "value": {"k": [1, null, "\\u00ff"]}}\n{"key": {"b64": "/w=="}, "value": 1}\n',
    HEAD % (b"str", b"int") + b'{"key": "a", "value": 1}\n{"key": "", "value": -2}\n',
    HEAD % (b"int", b"str") + b'{"key": -5, "value": "x"}\n{"key": 7, "value": ""}\n',
    HEAD % (b"tuple", b"bytes") + b'{"key": [], "value": {"b64": "AA=="}}\n{"key": ["a", [1]], "value": "v"}\n',
    b'["a", "b"]\n["c", {"b64": "AAA="}]\n',
]
WORDS = b'null true {} [] [[[[ "custom" "b64" -1 1e999 NaN 9999999999999999999999999999999999999999 " \\ud800'.split()


@settings(max_examples=150)
@given(
    st.sampled_from(DUMPS),
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 12), st.sampled_from(WORDS) | st.binary(max_size=6)), max_size=5
    ),
)
def test_damaged_dumps_are_loaded_or_refused_line_by_line(dump: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    """Whatever the bytes: status 0, or 2 with a reason, no other exception, and an index that is whole."""
    for at, length, put in edits:
        dump = dump[:at] + put + dump[at + length :]
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        path = Path(folder) / "loaded"
        result = do("load", path, stdin=dump)
        assert result.exit_code in (0, 2)
        assert result.stderr
        if not path.exists():
            assert result.exit_code == 2
            return
        with open_raw(str(path), "r") as index:
            assert index.check().keys == len(index)


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


@pytest.mark.parametrize("version", ["true", "1.0", json.dumps("v" * 5000), "[" * 300 + "]" * 300, '"\\u001b[2J"'])
def test_the_version_of_a_dump_is_the_number_one(path: Path, version: str) -> None:
    """Nothing that equals it; and what stands there instead is shown in part, for it may be long."""
    result = do("load", path, stdin=f'{{"rowex": {version}, "keys": "bytes", "values": "bytes"}}\n')
    assert result.exit_code == 2
    assert len(result.stderr) < 300
    assert "version" in result.stderr
    assert not path.exists()


@pytest.mark.parametrize("options", [(), ("--keys", "int")])
@pytest.mark.parametrize("name", ["\x1b[2J\ud800\n", "n" * 5000])
def test_names_of_codecs_in_a_dump_cannot_command_the_terminal(path: Path, name: str, options: tuple[str, ...]) -> None:
    """Nor fill it, when they are refused."""
    dump = json.dumps({"rowex": 1, "keys": name, "values": "bytes"})
    result = do("load", path, *options, stdin=dump, color=True)
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert len(result.stderr) < 400
    assert not path.exists()


@pytest.mark.parametrize("text", ["AAAA=", "AAAA====", "AA=", "AAA", "AB==", "AAB=", "A-A=", "AA==AA==", "AA\\n=="])
def test_base64_that_no_dump_holds_is_malformed(path: Path, text: str) -> None:
    """Neither too much padding, nor bits behind the last byte: one text for the same bytes."""
    result = do("load", path, stdin=f'["a", {{"b64": "{text}"}}]\n["b", {{"b64": "AAA="}}]\n')
    assert (result.exit_code, result.stderr.count("line 1: ")) == (2, 1)
    with open_raw(str(path), "r") as index:
        assert dict(index.items()) == {b"b": b"\0\0"}


def test_load_names_what_msgpack_cannot_hold(path: Path) -> None:
    """A number of more than eight bytes is a malformed line, as others are."""
    result = do("load", path, "-f", "tsv", "--values", "msgpack", stdin=f"a\t{2**64}\nb\t1\n")
    assert (result.exit_code, result.stderr.count("line 1: ")) == (2, 1)
    with open_raw(str(path), "r") as index:
        assert dict(index.items()) == {b"b": b"\x01"}


def test_a_refusal_without_words_is_told_by_its_name(path: Path) -> None:
    """As a MemoryError is, with which Python gives up on text that nests too deeply."""
    result = do("load", path, "-f", "tsv", "--keys", "tuple", stdin=b"-" * 9000 + b"1\tv\n")
    assert result.exit_code == 2
    assert "()" not in result.stderr


ARRAY = b"\x93NUMPY\x01\x00v\x00%-117b\n"  # of which no item is reached


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"PK\x03\x04 but no archive",
        ARRAY % b"{'descr': '<i8', 'fortran_order': False, 'shape': (3,), {",
        ARRAY % b'{"descr": """<i8',
    ],
)
def test_load_refuses_what_is_no_array(folder: Path, damaged: bytes) -> None:
    """Whatever NumPy's reading of it ends in."""
    numpy = pytest.importorskip("numpy")
    numpy.save(folder / "sound.npy", numpy.array([1, 2, 3]))
    (folder / "damaged.npy").write_bytes(damaged)
    for keys, values in (("damaged.npy", "sound.npy"), ("sound.npy", "damaged.npy")):
        result = do("load", folder / "new", folder / keys, "--npy", folder / values)
        assert result.exit_code == 2
        assert "format .npy" in result.stderr
        assert not (folder / "new").exists()


def test_load_refuses_an_archive_of_arrays(folder: Path) -> None:
    """Else the names of its members would be taken for the items."""
    numpy = pytest.importorskip("numpy")
    for name in ("keys.npz", "values.npz"):
        numpy.savez(folder / name, first=numpy.array([1]), second=numpy.array([2]))
    options = ("--npy", folder / "values.npz", "--keys", "str", "--values", "str")
    result = do("load", folder / "new", folder / "keys.npz", *options)
    assert result.exit_code == 2
    assert not (folder / "new").exists()


def test_a_key_that_is_too_large_is_named_and_the_rest_is_stored(path: Path) -> None:
    """Also in the middle of a batch."""
    text = "".join(f"k{i}\t{i}\n" for i in range(50)) + "x" * ((1 << 20) + 1) + "\t1\nlast\t1\n"
    result = do("load", path, "-f", "tsv", stdin=text)
    assert result.exit_code == 2
    with rowex.open(path, "r") as index:
        assert len(index) == 51
        assert b"last" in index


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


def test_dump_and_load_in_a_pipeline(path: Path, folder: Path) -> None:
    """As two processes."""
    with rowex.open(path) as index:
        index.put_many((b"key%03d" % i, b"value %d" % i) for i in range(100))
    target = folder / "target"
    with start("dump", path, cwd=folder) as first, start("load", target, cwd=folder, stdin=first.stdout) as second:
        out, err = second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert (out, err) == (b"", b"rowex: 100 item(s) stored\n")
    with rowex.open(target, "r") as one, rowex.open(path, "r") as other:
        assert dict(one.items()) == dict(other.items())
