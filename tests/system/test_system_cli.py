"""The `leveret` command against a running system, as scripts use it: in a pipe, by exit status, as JSON lines."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from leveret_client import exits
from leveret_proto.topology import INTAKE_SUBMISSIONS
from tests.support.system import IMAGE, OWNER, WORKER, System, manifest

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 60


async def started(system: System | None, *arguments: str | Path) -> asyncio.subprocess.Process:
    """A `leveret` in a pipe that is told of the system's broker, or of none."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    told = {"LEVERET_AMQP_URL": system.amqp_url, "LEVERET_OWNER": OWNER} if system is not None else {}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "leveret_client.main", *arguments,
        env=ours | told | {"XDG_CACHE_HOME": "/nonexistent", "TERM": "xterm"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=2**24,
    )  # fmt: skip


async def leveret(system: System | None, *arguments: str | Path) -> tuple[int, str, str]:
    process = await started(system, *arguments)
    async with asyncio.timeout(LIMIT):
        out, errors = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in errors, errors.decode()
    return process.returncode, out.decode(), errors.decode()


def write(folder: Path, text: str) -> Path:
    path = folder / "build.yml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("tasks", "extra", "status"),
    [
        pytest.param([("a", "echo said")], {}, exits.OK, id="success"),
        pytest.param([("a", "echo said; exit 9")], {}, exits.FAILED, id="failed"),
        pytest.param([("a", "echo said; sleep 600")], {"leveret": {"time_limit": 1}}, exits.TIMEOUT, id="timeout"),
    ],
)
async def test_a_followed_submission_is_plain_text_with_the_builds_exit_status(
    system: System, tmp_path: Path, tasks: list[tuple[str, str]], extra: dict[str, object], status: int
) -> None:
    given, out, errors = await leveret(system, "submit", write(tmp_path, manifest(*tasks, **extra)), "--follow")
    assert given == status, errors
    assert "\nsaid\n" in out
    assert "\x1b" not in out + errors
    assert re.search(r"^job \d+$", errors, re.MULTILINE)


async def test_json_lines_tell_the_whole_of_a_build(system: System, tmp_path: Path) -> None:
    path = write(tmp_path, manifest(("a", "set +x; seq 1 300")))
    status, out, errors = await leveret(system, "submit", path, "--follow", "--json")
    assert (status, errors) == (exits.OK, "")
    told = [json.loads(line) for line in out.splitlines()]
    assert told[0]["type"] == "submission.accepted.v1"
    text = "".join(piece["text"] for piece in told if piece["type"] == "log" and piece["task"] == "a")
    assert text.endswith("".join(f"{n}\n" for n in range(1, 301)))
    assert [event["status"] for event in told if event["type"] == "job.event.v1"][-1] == "success"


async def test_a_job_is_shown_listed_watched_and_cancelled(system: System, tmp_path: Path) -> None:
    gate = system.gate()
    path = write(tmp_path, manifest(("wait", f"echo waiting; {gate.script}")))
    status, out, _ = await leveret(system, "submit", path, "--note", "a note", "--tag", "x")
    assert status == exits.OK
    job = int(out)
    watching = await started(system, "events", "--json", "--job", str(job))
    following = await started(system, "logs", str(job), "--follow")
    assert following.stdout is not None
    async with asyncio.timeout(LIMIT):
        while b"waiting" not in await following.stdout.readline():
            pass

    status, out, _ = await leveret(system, "show", str(job), "--json")
    shown = json.loads(out)
    assert (status, shown["status"], shown["facts"]["note"], shown["facts"]["tags"]) == (0, "running", "a note", ["x"])
    status, out, _ = await leveret(system, "list", "--status", "running")
    assert status == exits.OK
    assert str(job) in [line.split("\t")[0] for line in out.splitlines()]
    status, out, _ = await leveret(system, "cancel", str(job))
    assert (status, out) == (exits.OK, f"job {job} is cancelled\n")

    async with asyncio.timeout(LIMIT):
        await following.communicate()
        assert following.returncode == exits.CANCELLED
        assert watching.stdout is not None
        while json.loads(await watching.stdout.readline()).get("status") != "cancelled":
            pass
        watching.terminate()
        await watching.communicate()
    status, out, _ = await leveret(system, "logs", str(job), "wait")
    assert status == exits.OK
    assert "waiting\n" in out


async def test_an_ended_job_is_run_again(system: System, tmp_path: Path) -> None:
    path = write(tmp_path, manifest(("a", "echo said; exit 3")))
    status, out, _ = await leveret(system, "submit", path, "--follow", "--json", "--note", "a note")
    first = json.loads(out.splitlines()[0])["job"]
    assert status == exits.FAILED

    status, out, errors = await leveret(system, "retry", str(first), "--follow")
    assert (status, out.count("\nsaid\n")) == (exits.FAILED, 1), errors
    status, out, _ = await leveret(system, "retry", str(first), "--message-id", "again")
    assert status == exits.OK
    second = int(out)
    assert (await leveret(system, "retry", str(first), "--message-id", "again"))[1] == f"{second}\n"
    status, out, _ = await leveret(system, "show", str(second), "--json")
    facts = json.loads(out)["facts"]
    assert (facts["retry_of"], facts["note"], facts["project"]) == (first, "a note", "default")
    assert (await leveret(system, "retry", "99999999"))[0] == exits.NOT_FOUND


async def test_a_waiting_job_is_explained_and_moved_in_line(system: System, tmp_path: Path) -> None:
    requires = {"leveret": {"requires": {"tags": ["disk=large"]}}}
    path = write(tmp_path, manifest(("a", "true"), **requires))
    jobs = [(await leveret(system, "submit", path))[1].strip() for _ in range(2)]
    status, out, _ = await leveret(system, "explain", jobs[1])
    assert status == exits.OK
    assert out.splitlines()[0].startswith(f"job {jobs[1]}  pending  ")
    assert "place       2 of the owner's 2 such jobs" in out
    assert f"worker      {WORKER}  lacks tags disk=large" in out
    status, out, errors = await leveret(system, "priority", jobs[1], "50")
    assert (status, out) == (exits.OK, f"job {jobs[1]} waits with priority 50\n"), errors
    status, out, _ = await leveret(system, "explain", jobs[1], "--json")
    told = json.loads(out)
    assert (told["type"], told["place"]["place"], told["job"]["priority"]) == ("reply.explain.v1", 1, 50)
    assert (await leveret(system, "priority", jobs[1], "-1"))[0] == exits.OK
    assert (await leveret(system, "priority", jobs[1], "101"))[0] == exits.USAGE
    status, _, errors = await leveret(system, "retry", jobs[0])
    assert (status, "only a job that has ended" in errors) == (exits.FAILED, True)
    for job in jobs:
        assert (await leveret(system, "cancel", job))[0] == exits.OK
    status, _, errors = await leveret(system, "priority", jobs[0], "1")
    assert (status, errors) == (
        exits.FAILED, f"leveret: job {jobs[0]} is cancelled: only a waiting job has a place in line\n"
    )  # fmt: skip


async def test_workers_are_listed(system: System) -> None:
    status, out, _ = await leveret(system, "workers")
    assert status == exits.OK
    (fields,) = [line.split("\t") for line in out.splitlines() if line.startswith(f"{WORKER}\t")]
    assert (fields[1], fields[3]) == ("live", "2")
    assert IMAGE in fields[5]
    status, out, _ = await leveret(system, "workers", "--json")
    assert [json.loads(line)["worker"] for line in out.splitlines()] == [WORKER]


async def test_an_operator_drains_a_worker_and_has_it_take_jobs_again(system: System) -> None:
    status, _, errors = await leveret(system, "worker", "drain", WORKER)
    assert (status, "may not publish 'worker.~tester'" in errors) == (exits.NOT_FOUND, True)
    operator = ("--amqp", system.vhost.url("operator"))
    status, out, errors = await leveret(system, "worker", "drain", WORKER, "--limit", "60", *operator)
    said = f"worker {WORKER} is given no jobs: drained by {OWNER}; 0 jobs run there\n"
    assert (status, out) == (exits.OK, said), errors
    _, out, _ = await leveret(system, "workers")
    (fields,) = [line.split("\t") for line in out.splitlines()]
    assert (fields[1], fields[-1]) == ("drained", f"drained by {OWNER}")
    status, out, errors = await leveret(system, "worker", "resume", WORKER, "--json", *operator)
    assert (status, json.loads(out)["worker"], "halt" in json.loads(out)) == (exits.OK, WORKER, False), errors
    status, _, errors = await leveret(system, "worker", "drain", "w9", *operator)
    assert (status, "no worker w9" in errors) == (exits.NOT_FOUND, True)
    assert (await leveret(system, "worker", "drain", "x" * 65, *operator))[0] == exits.USAGE


async def test_dead_letters_are_an_operators_affair(system: System, tmp_path: Path) -> None:
    status, _, errors = await leveret(system, "dead", "list")
    assert (status, "may not publish 'dead.~tester'" in errors) == (exits.NOT_FOUND, True)
    rubbish = tmp_path / "build.yml"
    rubbish.write_bytes(b"\xc3( rubbish")
    assert (await leveret(system, "submit", rubbish))[0] == exits.FAILED
    (row,) = await system.until_rows("select id from dispatch.dead where queue = $1", INTAKE_SUBMISSIONS)
    letter, operator = str(row["id"]), ("--amqp", system.vhost.url("operator"))

    status, out, errors = await leveret(system, "dead", "list", *operator)
    assert status == exits.OK, errors
    (fields,) = [line.split("\t") for line in out.splitlines() if line.startswith(f"{letter}\t")]
    assert fields[2:4] == [INTAKE_SUBMISSIONS, "intake"]
    status, out, _ = await leveret(system, "dead", "show", letter, *operator)
    assert (status, "leveret.submit" in out, "rubbish" in out) == (exits.OK, True, True)
    assert "\x1b" not in out
    status, out, _ = await leveret(system, "dead", "show", letter, "--json", *operator)
    assert json.loads(out)["letter"]["key"] == f"{OWNER}.default"

    # rubbish still: it comes back as another letter
    status, out, _ = await leveret(system, "dead", "retry", letter, *operator)
    assert (status, out) == (exits.OK, f"letter {letter} published again\n")
    (row,) = await system.until_rows("select id from dispatch.dead where queue = $1", INTAKE_SUBMISSIONS)
    assert row["id"] > int(letter)
    status, out, errors = await leveret(system, "dead", "drop", str(row["id"]), letter, *operator)
    assert (status, out) == (exits.FAILED, f"letter {row['id']} dropped\n")
    assert errors == f"leveret: letter {letter} not dropped: there is no such letter\n"


async def test_exit_statuses_tell_what_went_wrong(system: System, tmp_path: Path) -> None:
    assert (await leveret(system, "show", "99999999"))[0] == exits.NOT_FOUND
    assert (await leveret(system, "show", "none"))[0] == exits.USAGE
    assert (await leveret(None, "list"))[0] == exits.USAGE
    away = ("--amqp", "amqp://a:b@127.0.0.1:1/x", "--owner", OWNER)
    assert (await leveret(None, "list", *away))[0] == exits.NOT_REACHED
    path = write(tmp_path, "image: test/process\ntasks:\n  - Bad Name: x\n")
    status, out, errors = await leveret(system, "submit", path)
    assert (status, out) == (exits.FAILED, "")
    assert f"{path}:3:" in errors


async def test_a_manifest_is_validated_without_a_broker(tmp_path: Path) -> None:
    good = write(tmp_path, manifest(("a", "true")))
    assert (await leveret(None, "validate", good))[0] == exits.OK
    bad = write(tmp_path, "image: x\ntasks:\n  - Bad Name: x\n  - b: [1]\n")
    status, out, errors = await leveret(None, "validate", bad)
    assert status == exits.FAILED
    for line in (3, 4):
        assert f"{bad}:{line}:" in out + errors
    assert (await leveret(None, "validate", tmp_path / "missing"))[0] == exits.USAGE
