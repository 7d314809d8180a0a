"""The `leveret` command and the stack of `leveret up`: real broker, database and services; `process` executor."""

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import asyncpg
import pytest

from leveret_client import Client, Following, LogBytes, NotFound, endpoint, exits
from leveret_client.demonstration.summary import fetch
from leveret_embedded.stack import Options, Stack, StackInUseError
from leveret_proto.messages import Event, JobEvent, JobStatus, TaskState
from tests.support.background import held_open
from tests.support.processes import descendants, until_gone

OWNER = "~tester"
LIMIT = 60
COUNTING = "for i in $(seq 200); do echo line $i; sleep 0.01; done"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for this file's tests; where `leveret up` would leave it for other terminals."""
    base = tmp_path_factory.mktemp("stack")
    options = Options(executor="process", slots=2, fsync=False)
    with held_open(lambda: Stack.start(base, owner=OWNER, options=options)) as running:
        yield running


@pytest.fixture(autouse=True)
def found(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("LEVERET_AMQP_URL", "LEVERET_OWNER"):
        monkeypatch.delenv(name, raising=False)
    endpoint.write(
        endpoint.Endpoint(amqp_url=stack.amqp_url, owner=stack.owner, logs_url=stack.logs_url, pid=os.getpid())
    )


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "build.yml"


def of(*tasks: str) -> str:
    listed = "".join(f"  - {task.partition(': ')[0]}: {json.dumps(task.partition(': ')[2])}\n" for task in tasks)
    return f"image: test/process\ntasks:\n{listed}"


async def leveret(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a `leveret` in a pipe; no argument names a broker."""
    process = await started(*arguments)
    async with asyncio.timeout(LIMIT):
        out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def started(*arguments: str | Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "leveret_client.main", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=2**24,
    )  # fmt: skip


async def documents(*arguments: str | Path) -> tuple[int, list[dict[str, object]]]:
    status, out, errors = await leveret(*arguments, "--json")
    assert errors == ""
    return status, [json.loads(line) for line in out.splitlines()]


async def test_a_followed_build_ends_with_its_log_its_events_and_its_status(manifest: Path) -> None:
    manifest.write_text(of("build: echo 'made it'", "check: exit 3", "ship: echo never"))
    status, out, errors = await leveret("submit", manifest, "--follow", "--note", "hello")
    assert status == exits.FAILED
    assert "── build ──" in out
    assert "\nmade it\n" in out
    assert "never" not in out
    for told in (
        "pending submitted",
        "success task build",
        r"failed task check \(exit status 3\)",
        "skipped task ship",
    ):
        assert re.search(told, errors), errors
    assert errors.splitlines()[-1].endswith("task check ended with exit status 3")
    job = re.search(r"^job (\d+)$", errors, re.MULTILINE)
    assert job is not None
    _, (shown,) = await documents("show", job[1])
    assert (shown["status"], shown["facts"]["note"]) == ("failed", "hello")  # type: ignore[index]


async def test_the_whole_of_a_big_log_comes_once_and_again_from_history(manifest: Path) -> None:
    manifest.write_text(of("big: set +x; seq 1 200000"))
    status, told = await documents("submit", manifest, "--follow")
    assert status == exits.OK
    pieces = [piece for piece in told if piece["type"] == "log" and piece["task"] == "big"]
    text = "".join(str(piece["text"]) for piece in pieces)
    assert text.endswith("".join(f"{n}\n" for n in range(1, 200_001)))
    offsets = [piece["offset"] for piece in pieces]
    ends = [int(str(piece["offset"])) + int(str(piece["bytes"])) for piece in pieces]
    assert offsets == [0, *ends[:-1]]
    job = next(piece for piece in told if piece["type"] == "submission.accepted.v1")["job"]
    assert await leveret("logs", str(job), "big") == (exits.OK, text, "")


async def test_following_from_the_middle_has_no_gap_and_no_repeat_at_the_seam(stack: Stack) -> None:
    async with asyncio.timeout(LIMIT), Client(stack.amqp_url, OWNER) as client:
        job = (await client.submit(of(f"count: {COUNTING}"), project="p")).job
        shown: list[LogBytes] = []
        early = Following(job)
        async for piece in client.follow(job, state=early):
            if isinstance(piece, LogBytes) and piece.task == "count" and b"line 20\n" in piece.data:
                break  # it runs: from here somebody else follows
        late = Following(job)
        async for piece in client.follow(job, state=late):
            if isinstance(piece, LogBytes) and piece.task == "count":
                shown.append(piece)
    lines = [line for line in b"".join(piece.data for piece in shown).splitlines() if line.startswith(b"line")]
    assert lines == [b"line %d" % n for n in range(1, 201)]
    assert len(shown) > 2  # history first, then live
    assert late.end is not None
    assert late.end.status is JobStatus.SUCCESS
    assert late.untold() == []


async def test_a_follower_who_stalls_reads_again_what_was_dropped_and_slows_nobody(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leveret_client.subscription.BACKLOG", 100_000)
    monkeypatch.setattr("leveret_client.subscription.PREFETCH", 2)
    monkeypatch.setattr("leveret_client.following.QUIET", 0.5)
    async with asyncio.timeout(LIMIT), Client(stack.amqp_url, OWNER) as client:
        job = (await client.submit(of("big: set +x; read -t 1 || true; seq 1 300000"), project="p")).job
        state = Following(job)
        shown: list[LogBytes] = []
        async with aclosing(client.follow(job, state=state)) as pieces:
            shown.append(await _next_bytes(pieces))
            # it stalls until the build is over, and the log whole
            while not (await client.show(job)).status.ended or (await _state(client, job, "big")) != "sealed":
                await asyncio.sleep(0.1)
            async for piece in pieces:
                if isinstance(piece, LogBytes):
                    shown.append(piece)
        logs = {task: b"".join(piece.data for piece in shown if piece.task == task) for task in ("@setup", "big")}
        reply, _ = await client.history(job)
    assert logs["big"].endswith(b"".join(b"%d\n" % n for n in range(1, 300_001)))
    assert {log.task: log.sha256 for log in reply.logs} == {
        task: hashlib.sha256(body).hexdigest() for task, body in logs.items()
    }


async def _next_bytes(pieces: AsyncIterator[Event | LogBytes]) -> LogBytes:
    async for piece in pieces:
        if isinstance(piece, LogBytes):
            return piece
    raise AssertionError("it ended without a byte")


async def _state(client: Client, job: int, task: str) -> str | None:
    reply, _ = await client.history(job)
    return next((log.state for log in reply.logs if log.task == task), None)


async def test_a_cancelled_build_ends_its_follower_with_a_status_of_its_own(manifest: Path) -> None:
    manifest.write_text(of("wait: echo waiting; sleep 60"))
    follower = await started("submit", manifest, "--follow", "--json")
    assert follower.stdout is not None
    job = 0
    async with asyncio.timeout(LIMIT):
        while True:
            told = json.loads(await follower.stdout.readline())
            job = told.get("job", job) if told["type"] == "submission.accepted.v1" else job
            if told["type"] == "log" and told["task"] == "wait":
                break
        assert (await leveret("cancel", str(job)))[:2] == (exits.OK, f"job {job} is cancelled\n")
        await follower.communicate()
    assert follower.returncode == exits.CANCELLED
    assert (await leveret("cancel", str(job)))[1] == f"job {job} is cancelled\n"  # again, to the same effect
    manifest.write_text(of("a: true"))
    _, _, errors = await leveret("submit", manifest, "--follow")
    done = errors.partition("job ")[2].partition("\n")[0]
    assert (await leveret("cancel", done))[1] == f"job {done} had ended already: success\n"


async def test_ctrl_c_ends_the_follower_and_says_that_the_build_goes_on(manifest: Path) -> None:
    manifest.write_text(of("wait: echo waiting; sleep 60"))
    follower = await started("submit", manifest, "--follow")
    assert follower.stdout is not None
    async with asyncio.timeout(LIMIT):
        while b"waiting" not in await follower.stdout.readline():
            pass
        follower.send_signal(2)
        _, errors = await follower.communicate()
    assert follower.returncode == exits.INTERRUPTED
    hint = re.search(rb"`leveret cancel (\d+)` ends it", errors)
    assert hint is not None, errors
    assert b"Traceback" not in errors
    assert (await leveret("cancel", hint[1].decode()))[0] == exits.OK


async def test_every_fault_of_a_manifest_is_shown_where_it_is(manifest: Path) -> None:
    manifest.write_text("image: [1]\ntasks:\n  - build: make\n  - BUILD: x\nenvironment: [a]\n")
    status, out, errors = await leveret("submit", manifest)
    assert (status, out) == (exits.FAILED, "")
    for line in (1, 4, 5):
        assert f"{manifest}:{line}:" in errors
    status, (answer,) = await documents("submit", manifest, "--follow")
    assert (status, answer["reason"], len(answer["diagnostics"])) == (exits.FAILED, "faults", 3)  # type: ignore[arg-type]


async def test_submitting_again_under_one_message_id_is_the_same_job_and_can_be_followed(manifest: Path) -> None:
    manifest.write_text(of("a: true"))
    _, first, _ = await leveret("submit", manifest, "--message-id", "again")
    status, _, errors = await leveret("submit", manifest, "--message-id", "again", "--follow")
    assert status == exits.OK
    assert f"job {first.strip()} (submitted before)" in errors
    manifest.write_text(of("b: true"))
    status, _, errors = await leveret("submit", manifest, "--message-id", "again")
    assert (status, f"job {first.strip()}" in errors) == (exits.FAILED, True)


async def test_what_is_not_there_or_not_yours_is_not_found(stack: Stack) -> None:
    for arguments in (("show", "999999"), ("logs", "999999"), ("show", "1", "--owner", "~other")):
        status, out, errors = await leveret(*arguments)
        assert (status, out) == (exits.NOT_FOUND, "")
        assert errors.startswith("leveret: ")
    async with Client(stack.amqp_url, OWNER) as client:
        with pytest.raises(NotFound):
            await client.show(999_999)


async def test_jobs_are_listed_newest_first_in_both_forms(manifest: Path) -> None:
    manifest.write_text(of("a: true"))
    older, newer = [(await leveret("submit", manifest, "--project", "listed"))[1].strip() for _ in range(2)]
    _, listed = await documents("list", "--limit", "2")
    assert [str(job["facts"]["job"]) for job in listed] == [newer, older]  # type: ignore[index]
    _, out, _ = await leveret("list", "--limit", "1")
    assert out.split("\t")[:2] == [newer, "listed"]


async def test_events_are_printed_as_they_happen(manifest: Path) -> None:
    watcher = await started("events", "--json")
    assert watcher.stdout is not None
    manifest.write_text(of("a: true"))
    heard: list[str] = []
    async with asyncio.timeout(LIMIT):
        # what was published before the watcher had bound its queue is not heard: submit until something is
        while not heard:
            assert (await leveret("submit", manifest, "--follow"))[0] == exits.OK
            heard = await _until_success(watcher.stdout)
        watcher.terminate()
        await watcher.wait()
    assert heard[-1] == "success"


async def _until_success(stream: asyncio.StreamReader) -> list[str]:
    """The statuses of job events up to `success`; none where nothing comes for two seconds."""
    heard: list[str] = []
    while not heard or heard[-1] != "success":
        try:
            async with asyncio.timeout(2):
                told = json.loads(await stream.readline())
        except TimeoutError:
            return []
        if told["type"] == JobEvent.TYPE:
            heard.append(told["status"])
    return heard


async def test_the_link_of_an_artifact_works(stack: Stack) -> None:
    body = of("make: echo built > thing") + "artifacts: [thing]\n"
    async with asyncio.timeout(LIMIT), Client(stack.amqp_url, OWNER) as client:
        job = (await client.submit(body, project="p")).job
        state = Following(job)
        async for _ in client.follow(job, state=state):
            pass
    assert state.end is not None
    assert [task.state for task in state.end.tasks] == [TaskState.SUCCESS]
    (artifact,) = state.end.artifacts
    path = await fetch(artifact, stack.base / "got")
    assert path.read_text() == "built\n"


async def test_a_role_reads_no_schema_but_its_own(stack: Stack) -> None:
    environment = Path(f"/proc/{stack.services['intake'].pid}/environ").read_bytes().split(b"\0")
    url = next(value for value in environment if value.startswith(b"LEVERET_INTAKE_DATABASE_URL=")).partition(b"=")[2]
    connection = await asyncpg.connect(url.decode(), timeout=LIMIT)
    try:
        assert await connection.fetchval("select count(*) from intake.submission") > 0
        for statement in ("select * from dispatch.job", "create schema other", "create table public.x (y int)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_worker_is_told_of_no_database(stack: Stack) -> None:
    assert b"postgresql" not in Path(f"/proc/{stack.services['worker'].pid}/environ").read_bytes()


async def test_a_second_stack_in_the_same_folder_is_refused(stack: Stack) -> None:
    with pytest.raises(StackInUseError):
        async with Stack.start(stack.base, owner=OWNER):
            pass


async def test_a_service_that_dies_is_started_again(stack: Stack, manifest: Path) -> None:
    service = stack.services["intake"]
    pid = service.pid
    os.kill(pid, 9)
    await until_gone([pid])
    manifest.write_text(of("a: true"))
    status, _, errors = await leveret("submit", manifest, "--follow")
    assert status == exits.OK, errors
    assert service.pid != pid


async def test_nothing_is_left_of_a_stack_that_was_interrupted(tmp_path: Path) -> None:
    """`leveret up` in a process of its own, ended by Ctrl-C: every process below it goes, and its endpoint file."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "up")}
    up = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "leveret_client.main", "up", "--executor", "process",
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert up.stderr is not None
    told = b""
    async with asyncio.timeout(LIMIT):
        while b"the worker is ready" not in told:
            line = await up.stderr.readline()
            assert line, told
            told += line
        family = descendants(up.pid)
        assert len(family) > 7
        assert (tmp_path / "up" / "leveret" / "up.json").exists()
        up.send_signal(2)
        out, _ = await up.communicate()
    assert up.returncode == exits.INTERRUPTED
    assert b"leveret submit FILE --follow" in out
    await until_gone(family)
    assert not (tmp_path / "up" / "leveret" / "up.json").exists()
