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
