"""The examples, run as a reader would run them: each in a process of its own, against a running stack."""

import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest

from leveret_embedded.stack import Options, Stack
from tests.support.background import held_open

EXAMPLES = Path(__file__).parents[2] / "examples"
HELLO = EXAMPLES / "hello.yml"
OWNER = "~ex.ample"  # the dot has to be escaped
LIMIT = 60
NPM_LIMIT = 60
THREE_FAULTS = "image: [1]\ntasks:\n  - build: make\n  - BUILD: x\nenvironment: [a]\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The process executor pretends to have the image of hello.yml: that manifest is run as it is."""
    options = Options(
        executor="process", slots=2, fsync=False, environment={"LEVERET_WORKER_PROCESS_IMAGES": '["debian/trixie"]'}
    )
    base = tmp_path_factory.mktemp("stack")
    with held_open(lambda: Stack.start(base, owner=OWNER, options=options)) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERET_AMQP_URL", stack.amqp_url)
    monkeypatch.setenv("LEVERET_OWNER", stack.owner)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    path = tmp_path / "faulty.yml"
    path.write_text(THREE_FAULTS)
    return path


@pytest.fixture(scope="module")
def nodejs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the Node examples with amqplib installed."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node or npm is not installed")
    folder = tmp_path_factory.mktemp("nodejs")
    shutil.copytree(EXAMPLES / "nodejs", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--fetch-retries=0"]
    try:
        done = subprocess.run(
            ["npm", "install", *quiet], cwd=folder, capture_output=True, text=True, timeout=NPM_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm install took longer than {NPM_LIMIT} s")
    if done.returncode:
        pytest.skip(f"amqplib can't be installed: {done.stderr[-200:]}")
    return folder


@asynccontextmanager
async def running(*argv: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        async with asyncio.timeout(LIMIT):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run(*argv: str | Path) -> tuple[int, str, str]:
    async with running(*argv) as process:
        out, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), errors.decode()


@asynccontextmanager
async def listening(*argv: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A subscriber whose bindings are in place."""
    async with running(*argv) as subscriber:
        assert subscriber.stderr is not None
        assert await subscriber.stderr.readline() == b"listening\n"
        yield subscriber


async def lines_up_to(subscriber: asyncio.subprocess.Process, last: str) -> list[str]:
    assert subscriber.stdout is not None
    lines: list[str] = []
    while not lines or last not in lines[-1]:
        line = await subscriber.stdout.readline()
        assert line, f"ended before {last!r}: {lines}"
        lines.append(line.decode().rstrip("\n"))
    return lines


def python(name: str, *arguments: str | Path) -> list[str | Path]:
    return [sys.executable, EXAMPLES / name, *arguments]


def assert_hello(events: list[str], job: str) -> None:
    """The events of hello.yml: in order, numbered from 1 without gap, and as far as the end."""
    about = f"unlisted.~ex%2Eample.{job}"
    told = [line.split("\t") for line in events]
    assert {key.split(".")[3] for key, _, _ in told} == {job}
    dispatcher = [(key, int(seq)) for key, seq, _ in told if key.startswith(("job", "task"))]
    assert [seq for _, seq in dispatcher] == list(range(1, len(dispatcher) + 1))
    keys = [key for key, _ in dispatcher]
    assert keys[0] == f"job.{about}.pending"
    assert f"task.{about}.hello.success" in keys
    assert told[-1][::2] == [f"job.{about}.success", "completed"]


async def test_the_subscriber_prints_the_events_of_a_build_that_the_publisher_submitted() -> None:
    async with listening(*python("subscribe_pika.py", "--until-end")) as subscriber:
        status, job, errors = await run(*python("publish_pika.py", HELLO))
        assert (status, errors) == (0, "")
        out, told = await subscriber.communicate()
    assert (subscriber.returncode, told) == (0, b"")
    assert_hello(out.decode().splitlines(), job.strip())


async def test_a_subscriber_to_one_job_hears_of_no_other(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waits = tmp_path / "waits.yml"
    waits.write_text(f"image: debian/trixie\ntasks:\n  - wait: until test -e {gate}; do sleep 0.05; done\n")
    _, job, _ = await run(*python("publish_pika.py", waits))
    async with listening(*python("subscribe_pika.py", "--job", job.strip(), "--until-end")) as subscriber:
        async with listening(*python("subscribe_pika.py", "--until-end")) as other:
            await run(*python("publish_pika.py", HELLO))
            await other.communicate()
        gate.touch()
        out, _ = await subscriber.communicate()
    events = out.decode().splitlines()
    assert {line.split(".")[3] for line in events} == {job.strip()}
    assert ".success\t" in events[-1]


async def test_faults_are_printed_with_their_lines(faulty: Path) -> None:
    status, out, errors = await run(*python("publish_pika.py", faulty))
    assert (status, out) == (1, "")
    for line in (1, 4, 5):
        assert f"{faulty}:{line}:" in errors
    status, out, errors = await run(*python("publish_aio_pika.py", faulty))
    assert (status, errors) == (1, "")
    assert [found["line"] for found in json.loads(out)["diagnostics"]] == [1, 4, 5]


async def test_aio_pika_follows_what_aio_pika_submitted_with_its_log() -> None:
    async with listening(*python("subscribe_aio_pika.py")) as subscriber:
        status, out, _ = await run(*python("publish_aio_pika.py", HELLO))
        assert status == 0
        job = json.loads(out)["job"]
        # the log's end and the job's have no order between them
        lines = await lines_up_to(subscriber, "hello.sealed")
        if f"{job} success (completed)" not in lines:
            lines += await lines_up_to(subscriber, "success (completed)")
    assert f"{job} hello success" in lines
    assert any(line.startswith(f"{job} hello | Hello from") for line in lines)


async def test_the_resuming_subscriber_killed_and_run_again_prints_every_event_once(tmp_path: Path) -> None:
    command = python("subscribe_resuming.py", tmp_path / "place.json")
    seqs: list[tuple[str, int]] = []
    for _ in range(2):
        job = (await run(*python("publish_pika.py", HELLO)))[1].strip()
        async with running(*command) as subscriber:  # leaving it kills it
            assert subscriber.stdout is not None
            ended = sealed = False
            while not (ended and sealed):
                offset, type_, body = (await subscriber.stdout.readline()).decode().split("\t")
                event = json.loads(body)
                if event.get("facts", {}).get("job") != int(job):
                    continue
                seqs.append((f"{job} {event['source']}", event["seq"]))
                ended = ended or event.get("status") == "success"
                sealed = sealed or (type_ == "log.event.v1" and event["task"] == "hello")
            place = tmp_path / "place.json"
            while not place.exists() or json.loads(place.read_text()) < int(offset):
                await asyncio.sleep(0.01)
    for about in {about for about, _ in seqs}:
        numbered = [seq for who, seq in seqs if who == about]
        assert numbered == list(range(1, len(numbered) + 1))
    assert len({about for about, _ in seqs}) == 4  # two jobs, dispatcher and logsink


async def test_a_line_of_shell_submits(faulty: Path) -> None:
    if not shutil.which("amqp-publish"):
        pytest.skip("amqp-publish is not installed (Debian's amqp-tools)")
    owner = OWNER.replace(".", "%2E")
    publish = ("env", f"LEVERET_OWNER={owner}", EXAMPLES / "publish.sh")
    async with listening(*python("subscribe_pika.py", "--until-end")) as subscriber:
        assert await run(*publish, faulty) == (0, "", "")
        (rejected,) = await lines_up_to(subscriber, "rejected")
        assert rejected == f"submission.unlisted.{owner}.rejected\t-\tfaults"
        assert await run(*publish, HELLO) == (0, "", "")
        out, _ = await subscriber.communicate()
    events = out.decode().splitlines()
    assert_hello(events, events[0].split(".")[3])


async def test_node_follows_what_node_submitted(nodejs: Path, faulty: Path) -> None:
    async with listening("node", nodejs / "subscribe.js", "--until-end") as subscriber:
        status, job, errors = await run("node", nodejs / "publish.js", HELLO)
        assert (status, errors) == (0, "")
        out, told = await subscriber.communicate()
    assert (subscriber.returncode, told) == (0, b"")
    assert_hello(out.decode().splitlines(), job.strip())
    status, out_text, errors = await run("node", nodejs / "publish.js", faulty)
    assert (status, out_text) == (1, "")
    for line in (1, 4, 5):
        assert f"{faulty}:{line}:" in errors


def test_repeats_are_dropped_and_gaps_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    example = loaded("subscribe_pika.py")
    last: dict[tuple[int, str], int] = {}
    numbers = [(1, "dispatcher", n) for n in (1, 2, 2, 1, 5, 5)] + [(1, "logsink", 1), (2, "dispatcher", 7)]
    new = [example.is_new({"facts": {"job": job}, "source": source, "seq": seq}, last) for job, source, seq in numbers]
    assert new == [True, True, False, False, True, False, True, True]
    assert capsys.readouterr().err == "job 1: dispatcher's events 3 to 4 are missing\n"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), EXAMPLES / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROGRAMS = [path for kind in ("*.py", "*.sh", "nodejs/*.js") for path in sorted(EXAMPLES.glob(kind))]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_an_example_is_short_and_uses_no_code_of_leveret(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) < 80
    assert not [line for line in lines if re.match(r"\s*(import|from) leveret|.*require\(.leveret", line)]
