"""The `leveret` command where it needs no broker: validate, its settings, its exit statuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from leveret_client import endpoint, exits
from leveret_client.commands.demo import manifest
from leveret_client.main import main
from leveret_client.options import _settings
from leveret_proto.manifest import read
from leveret_proto.messages import JobStatus

GOOD = "image: debian/trixie\ntasks:\n  - build: make\n"
BAD = "image: [1]\ntasks:\n  - build: make\n  - BUILD: x\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("LEVERET_AMQP_URL", "LEVERET_OWNER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_good_manifest_is_good() -> None:
    result = CliRunner().invoke(main, ["validate", "-"], input=GOOD)
    assert (result.exit_code, result.output) == (exits.OK, "<stdin>: good\n")


def test_faults_are_shown_like_a_compiler_does(tmp_path: Path) -> None:
    path = tmp_path / "build.yml"
    path.write_text(BAD)
    result = CliRunner().invoke(main, ["validate", str(path)])
    assert result.exit_code == exits.FAILED
    assert f"{path}:1:8: fault: image:" in result.output
    assert "1 | image: [1]" in result.output
    assert result.output.endswith(": 2 faults\n")


def test_validate_as_json_is_one_document_a_line() -> None:
    result = CliRunner().invoke(main, ["validate", "--json", "-"], input=BAD)
    documents = [json.loads(line) for line in result.output.splitlines()]
    assert [document["type"] for document in documents] == ["diagnostic", "diagnostic", "verdict"]
    assert documents[0]["line"] == 1
    assert documents[-1] == {"type": "verdict", "file": "<stdin>", "accepted": False, "faults": 2, "warnings": 0}


def test_a_file_that_is_not_there_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["validate", "/no/such/file"])
    assert result.exit_code == exits.USAGE
    assert "No such file" in result.output


def test_without_a_broker_it_says_how_to_name_one() -> None:
    result = CliRunner().invoke(main, ["show", "1"])
    assert result.exit_code == exits.USAGE
    assert "leveret up" in result.output


def test_a_broker_that_is_not_there_is_not_reached() -> None:
    argv = ["--amqp", "amqp://a:b@127.0.0.1:1/x", "--owner", "~a"]
    # a process of its own: the command sets signal handlers and a loop
    result = subprocess.run(
        [sys.executable, "-m", "leveret_client.main", "show", "1", *argv], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == exits.NOT_REACHED
    assert result.stderr.startswith("leveret: RabbitMQ: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_running_stack_is_found_and_a_dead_one_is_not() -> None:
    running = endpoint.Endpoint(amqp_url="amqp://u:p@h/v", owner="~me", logs_url="http://h", pid=os.getpid())
    endpoint.write(running)
    assert endpoint.endpoint_file().stat().st_mode & 0o777 == 0o600
    settings = _settings(None, None, False)
    assert (settings.amqp_url, settings.owner) == ("amqp://u:p@h/v", "~me")
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    endpoint.write(running.model_copy(update={"pid": gone.pid}))
    assert endpoint.find() is None


def test_every_end_of_a_build_has_an_exit_status_of_its_own() -> None:
    ends = [status for status in JobStatus if status.ended]
    assert len({exits.of_build(status) for status in ends}) == len(ends)
    assert exits.of_build(JobStatus.SUCCESS) == 0


def test_the_demo_submits_the_example_manifest() -> None:
    example = Path(__file__).parents[3] / "examples" / "scdoc.yml"
    assert manifest() == example.read_bytes()
    assert read(manifest()).diagnostics == []


def test_help_names_every_exit_status() -> None:
    told = CliRunner().invoke(main, ["--help"]).output
    for status in (0, 1, 2, 3, 4, 5, 6, 130):
        assert f"\n  {status} " in told or f"\n    {status} " in told, told
