"""The model: its JSON form, its YAML, its schema; and what is shown of diagnostics."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from leveret_proto.manifest import Diagnostic, Limits, Manifest, Source, read, render, schema
from leveret_proto.manifest.json_schema import main
from leveret_proto.manifest.model import MAX_TIME_LIMIT
from tests.unit.manifest.support import BASE

# -- round trip

#: Any text YAML may hold, without the line breaks that YAML itself turns into others.
CHARACTERS = st.characters(
    codec="utf-8", exclude_categories=["Cs", "Cc", "Cn"], include_characters="\n\t", exclude_characters="\ufeff"
)
TEXT = st.one_of(
    st.text(CHARACTERS, max_size=40),
    st.sampled_from(
        ["3.10", "y", "no", "~", "null", "1:30", "0o17", "<<", "=", "-", "a: b", "# x", "1e3", "*a", "&a", "!t"]
    ),
    st.text("ab \n\t'\"#:-", max_size=30),
)
LINE = st.text("abcXYZ019-_./:~ @+", min_size=1, max_size=30).map(str.strip).filter(bool)
NAME = st.text("abc019_-", min_size=1, max_size=12)
VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.lists(TEXT, max_size=3),
)
TRIGGER = st.one_of(
    st.fixed_dictionaries(
        {"action": st.just("email"), "condition": st.sampled_from(["success", "failure", "always"]), "to": LINE},
        optional={"cc": LINE, "in_reply_to": LINE},
    ),
    st.fixed_dictionaries({"action": st.just("webhook"), "condition": st.just("always"), "url": LINE}),
)
MANIFESTS = st.fixed_dictionaries(
    {
        "image": st.lists(st.text("abcz019", min_size=1, max_size=8), min_size=1, max_size=3).map("/".join),
        "tasks": st.lists(st.tuples(NAME, TEXT), min_size=1, max_size=4, unique_by=lambda task: task[0]).map(
            lambda tasks: [{name: script} for name, script in tasks]
        ),
    },
    optional={
        "arch": st.sampled_from(["x86_64", "aarch64", "riscv64"]),
        "packages": st.lists(TEXT.filter(bool), max_size=3),
        "repositories": st.dictionaries(TEXT, TEXT.filter(bool), max_size=3),
        "sources": st.lists(TEXT.filter(bool), max_size=3),
        "environment": st.dictionaries(st.one_of(NAME, TEXT), VALUE, max_size=4),
        "secrets": st.lists(st.text("abc 019", min_size=4, max_size=40), max_size=3),
        "triggers": st.lists(TRIGGER, max_size=3),
        "artifacts": st.lists(st.text("abc019._", min_size=1, max_size=9), max_size=8, unique=True),
        "shell": st.booleans(),
        "oauth": TEXT,
        "submitter": st.dictionaries(TEXT, st.one_of(VALUE, st.dictionaries(TEXT, VALUE, max_size=2)), max_size=2),
        "leveret": st.fixed_dictionaries(
            {},
            optional={
                "requires": st.fixed_dictionaries({}, optional={"kvm": st.booleans(), "tags": st.just(["disk=large"])}),
                "memory": st.integers(64, 2048).map(lambda mib: mib * 1024 * 1024),
                "cpus": st.integers(1, 256),
                "time_limit": st.integers(1, MAX_TIME_LIMIT),
                "task_time_limit": st.integers(1, MAX_TIME_LIMIT),
                "artifacts_on": st.sampled_from(["success", "always"]),
            },
        ),
    },
)


@settings(max_examples=150, deadline=None)
@given(MANIFESTS)
def test_manifest_to_model_to_yaml_is_the_same_manifest(values: dict[str, Any]) -> None:
    manifest = Manifest.model_validate(values)
    reading = read(manifest.to_yaml(), Limits(size=2**20))
    assert reading.faults == []
    assert reading.manifest == manifest
    assert Manifest.model_validate(manifest.model_dump(mode="json")) == manifest
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_the_json_form_is_the_form_people_write() -> None:
    manifest = read(BASE + "sources: ['a::https://h/x#r']\nenvironment: {L: [x], N: 1}\n").manifest
    assert manifest is not None
    form = manifest.model_dump(mode="json", exclude_defaults=True)
    assert form == {
        "image": "alpine/edge",
        "sources": ["a::https://h/x#r"],
        "environment": {"L": ["x"], "N": 1},
        "tasks": [{"build": "make"}],
    }


def test_scripts_are_written_as_block_scalars() -> None:
    manifest = read("image: a\ntasks:\n- b: |\n    make\n    make check\n- name: x\n").manifest
    assert manifest is not None
    assert manifest.to_yaml() == "image: a\ntasks:\n- b: |\n    make\n    make check\n- name: x\n"


def test_the_model_is_frozen_and_checks_messages() -> None:
    manifest = read(BASE).manifest
    assert manifest is not None
    with pytest.raises(ValidationError):
        manifest.image = "other"  # type: ignore[misc]
    for bad in (
        {"image": ""},
        {"image": "a", "tasks": [{"Bad Name": ""}]},
        {"image": "a", "tasks": [{"a": "", "b": ""}]},
    ):
        with pytest.raises(ValidationError):
            Manifest.model_validate(bad)
    assert Source.parse("https://h/x.git").directory == "x"


# -- schema


def test_the_schema_in_the_manual_is_fresh() -> None:
    path = Path(__file__).parents[3] / "docs" / "manifest.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == schema()
    assert main(["--check", str(path)]) == 0


def test_the_schema_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "schema.json"
    assert main(["--check", str(path)]) == 1
    assert "stale" in capsys.readouterr().err
    assert main([str(path)]) == 0
    assert main(["--check", str(path)]) == 0
    path.write_text("{}")
    assert main(["--check", str(path)]) == 1


def test_the_schema_has_every_key_of_the_reader() -> None:
    from leveret_proto.manifest.reader import RULES

    made = schema()
    assert set(made["properties"]) == set(RULES) == set(Manifest.model_fields)
    assert made["required"] == ["image"]
    assert made["$defs"]["Extension"]["additionalProperties"] is False


# -- rendering

FOUND = Diagnostic(severity="fault", path="tasks[0].Build", line=3, column=3, message="bad name", hint="small letters")


def test_rendering_shows_the_line_and_a_caret() -> None:
    assert render([FOUND], "image: a\ntasks:\n- Build: make\n", ".build.yml", color=False) == (
        ".build.yml:3:3: fault: tasks[0].Build: bad name\n  |\n3 | - Build: make\n  |   ^\n  = hint: small letters\n"
    )


def test_rendering_in_colour_says_the_same() -> None:
    import re

    text = "image: a\ntasks:\n- Build: make\n"
    coloured = render([FOUND], text, "f", color=True)
    assert "\x1b[1;31m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render([FOUND], text, "f", color=False)


def test_the_caret_stands_under_its_column_behind_tabs_and_wide_characters() -> None:
    found = FOUND.model_copy(update={"line": 1, "column": 5})
    line, caret = render([found], "\t漢字 X", "f", color=False).splitlines()[2:4]
    assert line == "1 |     漢字 X"
    assert caret == "  | " + " " * 9 + "^"


def test_no_control_character_of_the_source_reaches_the_terminal() -> None:
    shown = render(read("image: \x1b]0;x\x07\n").diagnostics, "image: \x1b]0;x\x07\n", "\x1b[2J", color=False)
    assert "\x1b" not in shown and "\x07" not in shown


def test_long_lines_are_shown_around_the_column() -> None:
    found = FOUND.model_copy(update={"line": 1, "column": 5001})
    line, caret = render([found], "a" * 5000 + "X" + "b" * 5000, "f", color=False).splitlines()[2:4]
    assert len(line) < 120 and line[caret.index("^")] == "X"


@pytest.mark.parametrize("source", ["", "one line", b"\xff\xfe\x00"])
def test_rendering_takes_any_source(source: str | bytes) -> None:
    assert "fault" in render([FOUND], source, "f", color=False)
    assert render([], source, "f", color=False) == ""
