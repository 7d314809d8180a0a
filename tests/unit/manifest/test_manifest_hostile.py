"""Hostile inputs: every one gets a clear answer in bounded time, and never reaches a parser it could harm."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from leveret_proto.manifest import Limits, read, reader
from leveret_proto.manifest.loaders import PythonLoader
from leveret_proto.manifest.nesting import too_deep
from tests.unit.manifest.support import BASE

MIB = 2**20
#: A rejection in under a second is promised; processor time, for the machine may be shared.
PROMISE = 1.0


@pytest.fixture
def unparsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fail the test if any text reaches a YAML parser."""
    seen: list[str] = []

    def parse(text: str, *_: Any) -> None:
        seen.append(text[:20])
        raise AssertionError(f"a parser saw {text[:20]!r}")

    monkeypatch.setattr(reader, "compose", parse)
    yield seen
    assert not seen


def indented(levels: int) -> str:
    return "".join(" " * n + "a:\n" for n in range(levels))


def listed(levels: int) -> str:
    return "".join("  " * n + "-\n" for n in range(levels))


DEEP = {
    "flow lists": "[" * 10 * MIB,
    "flow mappings": "{" * 10 * MIB,
    "flow mappings with keys": "{a: " * MIB,
    "flow pairs": "[a: " * MIB,
    "flow lists over lines": "[\n" * MIB,
    "block lists": "- " * 5 * MIB,
    "block keys": "? " * 5 * MIB,
    "indentation": indented(3000),
    "indented lists": listed(3000),
    "mixed": "- ? - ? [{" * MIB,
    "behind anchors": "&a [&b [" * MIB,
    "behind tags": "!!seq [" * MIB,
    "behind a quote": "'it''s': \"\\\"\": [" + "[" * MIB,
    "under a manifest": BASE + "submitter: " + "[" * MIB,
    "behind a block scalar": BASE + "- x: |\n    [[[\n- y: " + "[" * MIB,
    "behind a comment": "# [ '\n" + "[" * MIB,
    "in a second line ending": "a: b\r" + "[" * MIB,
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP.keys())
def test_nesting_is_refused_before_any_parser_sees_a_byte(text: str, unparsed: list[str]) -> None:
    started = time.process_time()
    reading = read(text, Limits(size=20 * MIB))
    assert time.process_time() - started < PROMISE
    assert reading.fatal and "nest deeper than 64" in reading.faults[0].message


@pytest.mark.parametrize("unit", [b"[", b"- ", b"a: b\n", b"\x00", b"'", b"&a ", b"\xff", b" "])
def test_ten_mib_of_anything_is_refused_by_size_first(unit: bytes, unparsed: list[str]) -> None:
    raw = unit * (10 * MIB // len(unit))
    started = time.process_time()
    reading = read(raw)
    assert time.process_time() - started < PROMISE / 10
    assert reading.fatal and "bytes; the limit is 16384" in reading.faults[0].message


def test_the_size_limit_counts_bytes_and_is_inclusive() -> None:
    text = BASE + "#" * (16384 - len(BASE))
    assert read(text).manifest is not None
    assert read(text + "#").fatal
    assert read(text[:-1] + "é").fatal
    assert read(text + "#", Limits(size=16385)).manifest is not None


@pytest.mark.parametrize("shape", ["[" * 64 + "]" * 64, indented(64), "- " * 64 + "a"])
def test_the_nesting_limit_is_inclusive(shape: str) -> None:
    assert too_deep(shape, 64) is None
    assert too_deep(shape, 63) is not None
    assert not read(shape).fatal


def test_brackets_in_scripts_do_not_nest() -> None:
    script = "      printf '\\e[1m{['\n" * 100
    text = (
        BASE
        + "- colour: |\n"
        + script
        + "- plain: echo [ { [ ( [\n- folded: >-\n    [[[[\n    {{{{\n"
        + "# [[[[\n" * 40
    )
    assert read(text).manifest is not None
    assert read(BASE + "- one: echo \\\n" + "     [[ [[ {{ {{\n" * 60).manifest is not None


def test_nesting_hidden_in_aliases_counts() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100))
    reading = read(text)
    assert reading.fatal and "nest deeper" in reading.faults[0].message


BOMBS = {
    "lists": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)),
    "merges": "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 50)),
    "keys": "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{? *a{n - 1} : *a{n - 1}}}\n" for n in range(1, 50)),
}


@pytest.mark.parametrize("loader", [yaml.CSafeLoader, PythonLoader])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_alias_bombs_are_fatal(bomb: str, loader: Any) -> None:
    started = time.process_time()
    reading = read(BASE + bomb, loader=loader)
    assert time.process_time() - started < PROMISE
    assert reading.fatal and "aliases" in reading.faults[0].message


def test_more_values_than_the_limit_are_fatal() -> None:
    reading = read(BASE + "submitter: [" + "a, " * MIB + "]\n", Limits(size=20 * MIB))
    assert reading.fatal and "more than 100000 values" in reading.faults[0].message


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\x00\x80",
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"{not: yaml: [",
        b"%PDF-1.4\n%\xc3\xa9\n",
        b"\x00" * 100,
        b"@ @",
        b"'",
    ],
)
def test_bytes_that_are_no_yaml_are_fatal(raw: bytes) -> None:
    reading = read(raw)
    assert reading.manifest is None and reading.faults and reading.fatal


def test_what_is_not_utf8_is_told_with_its_place() -> None:
    (fault,) = read(BASE.encode() + b"oauth: \xe9\n").faults
    assert (fault.line, fault.column) == (4, 8) and "UTF-8" in fault.message


def test_byte_order_marks_and_utf16_are_read() -> None:
    assert read(b"\xef\xbb\xbf" + BASE.encode()).manifest is not None
    assert read(BASE.encode("utf-16")).manifest is not None


def test_control_characters_are_faults_in_their_place() -> None:
    reading = read(BASE + "oauth: a\x07b\nimagee: \ud800\n")
    assert [(fault.line, fault.column) for fault in reading.faults] == [(4, 9), (5, 9)]
    assert not reading.fatal


def test_the_answer_is_bounded_and_still_holds_a_fault() -> None:
    text = BASE + "".join(f"k{n}: x\n" for n in range(1000)) + "shell: maybe\n"
    reading = read(text)
    assert reading.manifest is None and reading.faults
    assert len(reading.diagnostics) == 101
    assert "not shown" in reading.diagnostics[-1].message


def test_long_texts_are_cut_in_messages() -> None:
    (fault,) = read(f"{BASE}shell: {'x' * 10_000}\n").faults
    assert len(fault.message) < 200
