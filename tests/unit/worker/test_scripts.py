"""What the guest gets to read: checked by the shell that reads it."""

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from leveret_worker.scripts import buildenv, task_script

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def printed(environment: str, command: str) -> bytes:
    script = f"{environment}\n{command}"
    return subprocess.run(["bash", "-c", script], capture_output=True, check=True, timeout=10).stdout


@settings(max_examples=25, deadline=None)
@given(texts)
def test_any_text_arrives_as_it_is(text: str) -> None:
    assert printed(buildenv({"VALUE": text}, {}), 'printf %s "$VALUE"') == text.encode()


@settings(max_examples=25, deadline=None)
@given(st.lists(texts, max_size=4))
def test_a_list_becomes_a_bash_array(items: list[str]) -> None:
    out = printed(buildenv({"VALUES": tuple(items)}, {}), r'for v in "${VALUES[@]}"; do printf "%s\0" "$v"; done')
    assert out == b"".join(item.encode() + b"\0" for item in items)


def test_scalars_keep_their_text() -> None:
    environment = buildenv({"NOTHING": None, "YES": True, "NO": False, "WHOLE": 12345678901234567890, "PART": 1.5}, {})
    assert printed(environment, 'echo "$NOTHING|$YES|$NO|$WHOLE|$PART"') == b"|true|false|12345678901234567890|1.5\n"


def test_variables_are_exported() -> None:
    assert printed(buildenv({"VALUE": "x"}, {}), "sh -c 'printf %s $VALUE'") == b"x"


def test_the_manifest_wins_over_built_in_variables() -> None:
    assert printed(buildenv({"JOB_ID": "mine"}, {"JOB_ID": "7", "CI_NAME": "leveret"}), "echo $JOB_ID $CI_NAME") == (
        b"mine leveret\n"
    )


def test_complete_build_ends_the_script_with_255() -> None:
    done = subprocess.run(["bash", "-c", buildenv({}, {}) + "complete-build; echo on"], capture_output=True, timeout=10)
    assert (done.returncode, done.stdout) == (255, b"")


def test_the_preamble_stands_before_the_script() -> None:
    assert task_script("#!/bin/sh\nset -e\n\n", "make\n") == "#!/bin/sh\nset -e\nmake\n"
