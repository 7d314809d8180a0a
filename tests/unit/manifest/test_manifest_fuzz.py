"""Fuzz: no text crashes the reader, holds it up, or makes it contradict itself.

`LEVERET_FUZZ_CASES` sets the number of cases a test; the default is a small share of a long run.
"""

import os
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leveret_proto.manifest import Limits, read, render
from leveret_proto.manifest.nesting import too_deep

CASES = int(os.environ.get("LEVERET_FUZZ_CASES", "300"))
FUZZ = settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
#: What YAML and manifests are made of.
PIECES = [
    "- ",
    "a: ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "\n",
    "  ",
    "\n  ",
    "\n- ",
    "'",
    '"',
    "|\n",
    ">-\n",
    "# ",
    "x",
    "? ",
    ": ",
    "&a ",
    "*a",
    "\t",
    "!!int ",
    "!x ",
    "<<: ",
    "\x00",
    "\x85",
    "\u2028",
    "\ufeff",
    "%",
    "@",
    "---\n",
    "...\n",
    "\\",
    "0",
    "~",
    "\r\n",
    "image: a\n",
    "tasks:\n",
    "- b: make\n",
    "shell: true\n",
    "packages:\n",
    "environment:\n",
    "triggers:\n",
    "leveret:\n",
    "artifacts: [",
    "action: email\n",
    "  to: a@b\n",
    "secrets: [",
    "sources: [",
    "9" * 50,
    "1e999",
    "é漢\U0001f600",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
#: The longest a reading of up to 16 KiB may take, in seconds of processor time; some 0.2 are measured.
BOUND = 2.0


def check(source: str | bytes, limits: Limits) -> None:
    started = time.process_time()
    reading = read(source, limits)
    assert time.process_time() - started < BOUND
    assert (reading.manifest is None) == bool(reading.faults)
    assert not (reading.fatal and reading.manifest)
    text = source if isinstance(source, str) else source.decode("utf-8", "replace")
    for found in reading.diagnostics:
        assert found.line <= len(text.splitlines()) + 2 and found.message
    assert "\x1b" not in render(reading.diagnostics, source, "f", color=False)
    if reading.manifest:
        again = read(reading.manifest.to_yaml(), Limits(size=2**20))
        assert again.manifest == reading.manifest


@FUZZ
@given(TEXTS)
def test_pieces_of_yaml(text: str) -> None:
    check(text, Limits())


@FUZZ
@given(TEXTS)
def test_pieces_of_yaml_in_a_manifest(text: str) -> None:
    check("image: a\ntasks:\n- b: c\n" + text, Limits(known_images=frozenset(["b"]), unknown="warn", artifacts=1))


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    check(raw, Limits())


@FUZZ
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    check(text, Limits())


@settings(FUZZ, max_examples=CASES // 10)
@given(
    st.lists(st.sampled_from(["[", "{", "- ", "a: ", "? ", "\n", " ", "&a ", "'", "|\n", "# "]), min_size=1, max_size=5)
)
def test_repeated_pieces_are_bounded(pieces: list[str]) -> None:
    unit = "".join(pieces)
    check((unit * (16384 // len(unit)))[:16384], Limits())


@FUZZ
@given(TEXTS, st.integers(0, 6))
def test_what_the_scan_lets_through_is_never_deeper(text: str, limit: int) -> None:
    reading = read(text, Limits(nesting=limit))
    if too_deep(text, limit) is not None:
        assert reading.fatal or "\ufeff" in text or not text.isprintable()
