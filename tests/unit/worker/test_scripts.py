"""What the guest gets to read: checked by the shell that reads it."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from leveret_proto.manifest.model import EnvironmentValue
from leveret_worker.scripts import COMPLETE_BUILD, MARK, buildenv, task_script

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
#: Names that bash gives no meaning of its own.
names = st.from_regex(r"v_[A-Za-z0-9_]{0,8}", fullmatch=True)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
environments = st.dictionaries(names, scalars | st.lists(texts, max_size=4).map(tuple), max_size=6)

PRINT = r"""
for name in "$@"; do
    declare -n value=$name
    printf '%s\0%s\0' "$name" "${#value[@]}"
    for item in "${value[@]}"; do printf '%s\0' "$item"; done
done
"""


def printed(environment: str, command: str, *arguments: str) -> bytes:
    words = ["bash", "-c", f"{environment}\n{command}", "bash", *arguments]
    return subprocess.run(words, capture_output=True, check=True, timeout=10).stdout


def text_of(value: EnvironmentValue) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case _:
            return str(value)


@settings(max_examples=40, deadline=None)
@given(environments)
def test_every_value_arrives_in_bash_as_it_is(environment: Mapping[str, EnvironmentValue]) -> None:
    expected = []
    for name, value in environment.items():
        items = list(value) if isinstance(value, tuple) else [text_of(value)]
        expected += [name, str(len(items)), *items]
    found = printed(buildenv(environment, {}), PRINT, *environment).split(b"\0")[:-1]
    assert found == [text.encode() for text in expected]


def test_a_list_is_an_array_and_nothing_in_it_is_expanded() -> None:
    environment = buildenv({"LIST": ("a b", "$HOME", "`id`", '"')}, {})
    assert printed(environment, r'printf "%s|" "${LIST[@]}"') == b'a b|$HOME|`id`|"|'


def test_scalars_keep_their_text() -> None:
    environment = buildenv({"NOTHING": None, "YES": True, "NO": False, "WHOLE": 12345678901234567890, "PART": 1.5}, {})
    assert printed(environment, 'echo "$NOTHING|$YES|$NO|$WHOLE|$PART"') == b"|true|false|12345678901234567890|1.5\n"


def test_variables_are_exported() -> None:
    assert printed(buildenv({"VALUE": "x"}, {}), "sh -c 'printf %s $VALUE'") == b"x"


def test_built_in_variables_win_over_the_manifest() -> None:
    """As on builds.sr.ht: who reads JOB_ID may trust it."""
    assert printed(buildenv({"JOB_ID": "mine"}, {"JOB_ID": "7", "CI_NAME": "leveret"}), "echo $JOB_ID $CI_NAME") == (
        b"7 leveret\n"
    )


def test_a_name_that_bash_cannot_take_spoils_no_other() -> None:
    environment = buildenv({"A-B": ("x",), "1": "x", "$(exit 9)": "x", "": "x", "GOOD": "y"}, {})
    assert printed(f"set -e\n{environment}", "echo $GOOD") == b"y\n"


def test_complete_build_ends_the_script_with_success_and_leaves_its_mark(tmp_path: Path) -> None:
    script = buildenv({}, {}) + "complete-build; echo on"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=10, env={"HOME": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / COMPLETE_BUILD).read_bytes().strip() == MARK


def test_the_preamble_stands_before_the_script() -> None:
    assert task_script("#!/bin/sh\nset -e\n\n", "make \\\n  all") == "#!/bin/sh\nset -e\nmake \\\n  all\n"
