"""`leveret submit` of several files and `leveret group`, as far as no broker is needed."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leveret_client import exits
from leveret_client.commands.group import MOST, show_group
from leveret_client.main import main
from leveret_client.output import Output
from leveret_proto.messages import CloseGroup, GroupMember, GroupView, JobStatus

AWAY = ["--amqp", "amqp://a:b@127.0.0.1:1/x", "--owner", "~a"]


def called(folder: Path, *arguments: str) -> Result:
    for name in ("a.yml", "b.yml"):
        (folder / name).write_text("image: debian/trixie\ntasks:\n  - build: make\n")
    placed = [str(folder / argument) if argument.endswith(".yml") else argument for argument in arguments]
    return CliRunner().invoke(main, [*placed, *AWAY])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a.yml", "b.yml"], "give --group NAME"),
        (["a.yml", "--email", "a@b.example"], "give --group NAME"),
        (["a.yml", "b.yml", "--group", "g", "--follow"], "--follow watches one job"),
        (["a.yml", "b.yml", "--group", "g", "--message-id", "m"], "--message-id names one job"),
        (["a.yml", *["b.yml"] * MOST, "--group", "g"], f"at most {MOST} jobs"),
        (["a.yml", "--group", "x" * 200], "the limit is"),
        (["a.yml", "--after", "0"], "--after"),
        (["a.yml", "--group", "g", "--webhook", "http://h", "--when", "never"], "--when"),
    ],
)
def test_what_can_not_be_a_group_is_said_before_anything_is_sent(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    result = called(tmp_path, "submit", *arguments)
    assert (result.exit_code, told in result.output) == (exits.USAGE, True), result.output


@pytest.mark.parametrize(
    "arguments", [["g"], ["g", "--size", "0"], ["g", "--size", str(MOST + 1)], ["", "--size", "1"]]
)
def test_a_group_needs_a_name_and_a_size_in_bounds(tmp_path: Path, arguments: list[str]) -> None:
    assert called(tmp_path, "group", *arguments).exit_code == exits.USAGE


def test_the_largest_size_is_the_protocols() -> None:
    assert CloseGroup(group="g", size=MOST).size == MOST
    with pytest.raises(ValueError, match="size"):
        CloseGroup(group="g", size=MOST + 1)


def test_a_group_is_shown_with_its_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    members = (GroupMember(job=7, status=JobStatus.SUCCESS), GroupMember(job=8, status=JobStatus.RUNNING))
    show_group(Output(as_json=False), GroupView(owner="~a", group="g\x1b", state="closed", size=3, jobs=members))
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert [line.split() for line in told.splitlines()[1:]] == [["job", "7", "success"], ["job", "8", "running"]]
    assert "of 3 jobs  closed" in told
