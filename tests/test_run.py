"""
`rowex run` against a dict, and its words on absent keys and malformed lines.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rowex
from conftest import _fast_folder
from rowex.cli import cli
from rowex.cli.text import Malformed, argument, quote, shown, tokens

keys = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([b"a", b"ab", b"abc", b"", b"\0", b'"', b"\\", b"#", "é".encode(), b"\xff", b"-", b"=>", b"a b"]),
    st.text(max_size=6).map(lambda s: s.encode("utf-8", "surrogatepass")),
)
values = st.one_of(st.binary(max_size=12), st.just(b"v" * 3000))
commands = st.one_of(
    st.tuples(st.sampled_from(["insert", "put"]), keys, values),
    st.tuples(st.sampled_from(["find", "lookup", "remove", "prefix"]), keys),
    st.tuples(st.just("scan")),
    st.tuples(st.just("scan"), keys),
    st.tuples(st.just("scan"), keys, keys),
    st.tuples(st.just("# insert a comment")),
    st.tuples(
        st.sampled_from(["bogus a", "find", "put a", "find a b", 'find "a', 'find "\\q"', 'find a"b', 'find "a"b'])
    ),
    st.tuples(st.just("")),
)
ALIASES = {"lookup": "find", "insert": "put"}


def run(path: Path | str, text: bytes | str, *options: str) -> Result:
    return CliRunner().invoke(cli, ["run", "-i", str(path), *options], input=text, catch_exceptions=False)


def line_of(command: tuple[Any, ...]) -> bytes:
    name, *words = command
    assert isinstance(name, str)
    return b" ".join([name.encode(), *(shown(word) for word in words if isinstance(word, bytes))]) + b"\n"


def expected_of(steps: list[tuple[Any, ...]]) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]], int, int]:
    """What a dict makes of it: its items, what is printed, absent keys, malformed lines."""
    model: dict[bytes, bytes] = {}
    printed: list[tuple[bytes, bytes]] = []
    absent = malformed = 0
    for name, *words in steps:
        assert isinstance(name, str)
        if name in ("insert", "put") and words:
            model[words[0]] = words[1]
        elif name in ("find", "lookup") and words:
            if words[0] in model:
                printed.append((words[0], model[words[0]]))
            else:
                absent += 1
        elif name == "remove":
            absent += model.pop(words[0], None) is None
        elif name == "prefix":
            printed += [(k, model[k]) for k in sorted(model) if k.startswith(words[0])]
        elif name == "scan":
            start, stop = (*words, b"", None)[:2] if words else (b"", None)
            stop = words[1] if len(words) == 2 else None
            printed += [(k, model[k]) for k in sorted(model) if k >= start and (stop is None or k < stop)]
        elif name and not name.startswith("#"):
            malformed += 1
    return model, printed, absent, malformed


@settings(max_examples=150)
@given(st.lists(commands, max_size=40))
@example([("insert", b"a", b"1"), ("insert", b"a", b"2"), ("find", b"a"), ("remove", b"a"), ("remove", b"a")])
def test_any_commands_do_to_an_index_what_they_do_to_a_dict(steps: list[tuple[Any, ...]]) -> None:
    """What is printed, what is in the file, the counts and the exit status are those of a dict."""
    model, printed, absent, malformed = expected_of(steps)
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        path = Path(folder) / "index.rowex"
        result = run(path, b"".join(map(line_of, steps)))
        with rowex.open(path, "r") as index:
            assert dict(index.items()) == model
            index.check()
    lines = [tokens(line) for line in result.stdout_bytes.splitlines()]
    assert [(line[0], line[2]) for line in lines] == printed
    assert all(line[1] == b"=>" for line in lines)
    assert result.exit_code == (2 if malformed else 1 if absent else 0)
    assert result.stderr.count(": absent: ") == absent
    *_, summary = result.stderr.splitlines()
    actions = len([s for s in steps if s[0] and not str(s[0]).startswith("#")]) - malformed
    assert re.match(rf"rowex: {actions} actions?\b", summary)


@given(st.one_of(st.binary(), st.text().map(lambda s: s.encode("utf-8", "surrogatepass"))))
def test_whatever_is_printed_reads_back_as_the_same_bytes(data: bytes) -> None:
    """`quote` and `shown` give one printable line, of which `tokens` and `argument` make the bytes."""
    for text in (quote(data), shown(data)):
        assert text.decode().isprintable()
        assert tokens(text) == [data]
        assert tokens(b"  %b\t%b\n" % (text, text)) == [data, data]
    assert argument(os.fsdecode(quote(data))) == data


@given(st.binary(max_size=30), st.text('"\\x0an \t', max_size=12))
def test_any_line_is_split_or_refused(data: bytes, text: str) -> None:
    """No line makes the tokenizer do anything else than answer or raise Malformed."""
    for line in (data, text.encode(), b'"' + data, b'"' + text.encode() + b'"'):
        try:
            assert all(isinstance(token, bytes) for token in tokens(line))
        except Malformed:
            continue


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'find "a b"', [b"find", b"a b"]),
        (b'find "\\"\\\\\\n\\t\\x00\\xFF"', [b"find", b'"\\\n\t\x00\xff']),
        (b"find a\\n", [b"find", b"a\\n"]),
        (b'find ""', [b"find", b""]),
        ("find é".encode(), [b"find", "é".encode()]),
        (b" \tfind\x0ba\r\n", [b"find", b"a"]),
        (b'find "a\nb"', [b"find", b"a\nb"]),
    ],
)
def test_tokens_are_as_documented(line: bytes, expected: list[bytes]) -> None:
    """White space separates, quotes hold escapes, and a bare token has none."""
    assert tokens(line) == expected


@pytest.mark.parametrize("line", [b'"a', b'a"', b'"a"b', b'a"b"', b'"\\q"', b'"\\x0"', b'"\\xgg"', b'"a\\"', b'"""'])
def test_malformed_tokens_are_refused(line: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(Malformed):
        tokens(line)


def test_an_absent_key_is_named_and_the_rest_still_runs(path: Path) -> None:
    """Status 1, the line and the key on stderr."""
    result = run(path, "find nobody\nremove nobody\ninsert a 1\nfind a\n")
    assert (result.exit_code, result.stdout) == (1, '"a" => 1\n')
    assert result.stderr.splitlines() == [
        'rowex: line 1: absent: "nobody"',
        'rowex: line 2: absent: "nobody"',
        "rowex: 4 actions (2 find, 1 insert, 1 remove); 2 absent",
    ]


def test_a_malformed_line_is_named_with_its_number_and_the_rest_still_runs(path: Path) -> None:
    """Status 2, even where a key was absent too."""
    result = run(path, 'insert a\n\n# fine\nfry a\ninsert "a 1\nfind x\nput a 1\nfind a\n')
    assert (result.exit_code, result.stdout) == (2, '"a" => 1\n')
    lines = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines[:4]] == ["line 1", "line 4", "line 5", "line 6"]
    assert lines[4] == "rowex: 3 actions (2 find, 1 put); 1 absent; 3 malformed"


def test_a_key_that_is_too_large_is_a_malformed_line(path: Path) -> None:
    """The limit of the index is told like any other mistake in a line."""
    result = run(path, b"insert " + b"k" * (1 << 20) + b"x 1\ninsert a 1\nfind a\n")
    assert (result.exit_code, result.stdout) == (2, '"a" => 1\n')
    assert result.stderr.startswith("rowex: line 1: the key or value is too large")


def test_quiet_says_nothing_but_keeps_the_status(path: Path) -> None:
    """-q leaves out the count and the absent keys; answers are data and stay."""
    result = run(path, "insert a 1\nfind a\nfind b\n", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (1, '"a" => 1\n', "")


def test_commands_come_from_a_file_or_from_stdin(path: Path, folder: Path) -> None:
    """-c FILE, -c -, and nothing."""
    script = folder / "commands"
    script.write_bytes(b"\xef\xbb\xbfinsert a 1\r\nfind a\r\n")
    assert run(path, "", "-c", str(script)).stdout == '"a" => 1\n'
    assert run(path, "find a", "-c", "-").stdout == '"a" => 1\n'
    assert run(path, "find a").stdout == '"a" => 1\n'
    assert run(path, "", "-c", str(folder / "missing")).exit_code == 2


def test_an_index_that_cannot_be_used_is_status_3(folder: Path) -> None:
    """A file of another kind is left as it is, and no command runs."""
    path = folder / "letter"
    path.write_bytes(b"Dear reader," * 1000)
    result = run(path, "insert a 1\n")
    assert (result.exit_code, result.stdout) == (3, "")
    assert str(path) in result.stderr
    assert path.read_bytes() == b"Dear reader," * 1000


def test_a_full_file_ends_the_run_with_status_3_and_the_line(path: Path) -> None:
    """What was stored before stays."""
    rowex.open(path, initial_size=1 << 17, capacity=1 << 20, max_size=1 << 20).close()
    result = run(path, "insert a 1\n" + f"insert b {'x' * (2 << 20)}\n" + "insert c 1\n")
    assert result.exit_code == 3
    failure, summary = result.stderr.splitlines()
    assert failure.startswith("rowex: line 2: ")
    assert summary == "rowex: 1 action (1 insert)"
    with rowex.open(path, "r") as index:
        assert dict(index.items()) == {b"a": b"1"}


def test_keys_and_values_follow_the_codecs_of_the_file(path: Path) -> None:
    """int keys are digits, msgpack values are JSON, in and out; --raw is the stored bytes."""
    pytest.importorskip("msgpack")
    with rowex.open(path, keys="int", values="msgpack") as index:
        index[-5] = {"a": [1, None, "é"]}
    result = run(path, 'insert 300 "[1, 2]"\nfind 300\nscan -5 300\ninsert x 1\nprefix 3\nfind 7\n')
    assert result.stdout_bytes.splitlines() == [
        b'"300" => "[1, 2]"',
        '"-5" => "{\\"a\\": [1, null, \\"é\\"]}"'.encode(),
    ]
    assert result.exit_code == 2
    assert 'line 6: absent: "7"' in result.stderr
    assert run(path, 'find "\\x82\\x01\\x2c"', "--raw").stdout == '"\\x82\\x01," => "\\x92\\x01\\x02"\n'
    with rowex.open(path) as index:
        assert index[300] == [1, 2]


def test_a_closed_pipe_does_not_stop_the_changes(path: Path, folder: Path) -> None:
    """Nobody reads the answers: no complaint, and every command is still done."""
    script = folder / "commands"
    script.write_text("".join(f"insert {i:05} {'v' * 50}\nfind {i:05}\n" for i in range(5000)))
    with subprocess.Popen(
        [sys.executable, "-m", "rowex", "run", "-q", "-i", str(path), "-c", str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() == 0
    with rowex.open(path, "r") as index:
        assert len(index) == 5000


def test_each_answer_comes_before_the_next_command_is_given(path: Path, folder: Path) -> None:
    """A program may hold a conversation with it."""
    with subprocess.Popen(
        [sys.executable, "-m", "rowex", "run", "-i", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for i in range(3):
            child.stdin.write(b"insert a %d\nfind a\n" % i)
            child.stdin.flush()
            assert child.stdout.readline() == b'"a" => %d\n' % i
        child.stdin.close()
        assert child.wait() == 0
