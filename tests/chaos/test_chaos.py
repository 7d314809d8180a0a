"""Jobs while services, workers and the broker are killed at random: every job ends once, no attempt runs twice.

`LEVERET_CHAOS_SEED` repeats a run's choice of victims and pauses; each run prints its own.
"""

import asyncio
import os
import random
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from leveret_client import Client, NoAnswer, NotReached
from leveret_embedded import Broker, MissingProgramError, ProgramFailedError, rabbitmq
from leveret_embedded.quorum import registered_name, until_on_disk
from leveret_proto.definitions import definitions
from leveret_proto.messages import JobEvent, JobStatus, Reason
from leveret_proto.permissions import SERVICES, service
from leveret_runtime.rabbit_password import password_hash
from tests.support.databases import Database
from tests.support.journal import fetch, proven
from tests.support.services import Services
from tests.support.sinks import HttpSink, http_server
from tests.support.system import JOURNAL, OWNER, System, manifest, open_system, roles

VHOST = "chaos"
WORKERS = ("w1", "w2")
#: Whom to kill, each as often as it stands here. The broker comes on top.
VICTIMS = ("intake", "dispatcher", "dispatcher", "logsink", "notifier", "worker", "worker", "w2", "w2")
SETTLED = 120.0
BROKER_STARTS = 4
#: Jobs submitted before each deed: there is always something running.
JOBS_EACH = 2


@dataclass(frozen=True)
class Accounts:
    """The virtual host of a broker that this test may kill."""

    broker: Broker
    password: str

    def url(self, user: str = "admin") -> str:
        return self.broker.amqp_url(user, None if user == "admin" else self.password, VHOST)


@dataclass(frozen=True)
class Deed:
    """One thing that the chaos does: kill `victim`, bring it back after `away` seconds, then let `pause` pass."""

    victim: str
    away: float
    pause: float


def deeds(chance: random.Random, kills: int, broker_kills: int) -> list[Deed]:
    victims = [chance.choice(VICTIMS) for _ in range(kills)] + ["broker"] * broker_kills
    chance.shuffle(victims)
    return [Deed(victim, chance.uniform(0, 0.5), chance.uniform(0.1, 1.0)) for victim in victims]


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    chosen = int(os.environ.get("LEVERET_CHAOS_SEED") or secrets.randbelow(2**32))
    with capsys.disabled():
        sys.stdout.write(f" LEVERET_CHAOS_SEED={chosen} ")
    return chosen


@pytest.fixture
async def broker_to_kill(tmp_path: Path) -> AsyncIterator[Accounts]:
    password = secrets.token_hex(16)
    users = {name: service(name) for name in SERVICES} | roles(*WORKERS)
    document = definitions(VHOST, {name: (password_hash(password), granted) for name, granted in users.items()})
    try:
        async with rabbitmq(tmp_path / "rabbitmq", definitions=document) as broker:
            yield Accounts(broker, password)
    except MissingProgramError as missing:
        pytest.skip(f"needs a broker of its own to kill: {missing}")


@pytest.fixture
async def system(broker_to_kill: Accounts, database: Database, services: Services) -> AsyncIterator[System]:
    async with open_system(broker_to_kill, database, services, steady=False) as system:
        await system.start("worker", worker="w2")
        data = broker_to_kill.broker.base / "data"
        await until_on_disk(data, [registered_name(VHOST, JOURNAL)])
        yield system


@pytest.fixture
async def http() -> AsyncIterator[HttpSink]:
    async with http_server() as sink:
        yield sink


@pytest.mark.parametrize(
    ("kills", "broker_kills"),
    [
        pytest.param(9, 1, id="small"),
        pytest.param(70, 5, id="large", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
async def test_every_job_ends_once_whatever_is_killed(
    system: System, broker_to_kill: Accounts, http: HttpSink, seed: int, kills: int, broker_kills: int
) -> None:
    plan = deeds(random.Random(seed), kills, broker_kills)
    runs = system.services.folder / "runs"
    runs.mkdir()
    async with asyncio.TaskGroup() as group:
        submissions: list[asyncio.Task[int]] = []
        for deed in plan:
            for _ in range(JOBS_EACH):
                submitting = submit(system, http, runs, f"chaos-{len(submissions)}")
                submissions.append(group.create_task(submitting))
            await do(deed, system, broker_to_kill.broker)
    jobs = [submission.result() for submission in submissions]
    assert len(set(jobs)) == len(jobs)
    assert [row["n"] for row in await system.rows("select count(*) as n from intake.submission")] == [len(jobs)]

    ends = [await system.journal.ended(job, SETTLED) for job in jobs]
    for n, end in enumerate(ends):
        await right(system, http, end, runs / f"chaos-{n}", f"/chaos-{n}")
    for job in jobs:
        system.journal.check(job)
    assert any(end.status is JobStatus.SUCCESS for end in ends)
    if kills > 20:  # so many cannot all have missed
        assert any(end.attempt is not None and end.attempt > 1 for end in ends)


async def do(deed: Deed, system: System, broker: Broker) -> None:
    """Kill and bring back, without waiting until what is back is ready."""
    if deed.victim == "broker":
        await broker.kill()
        await _brought_back(broker)
    else:
        await system.running[deed.victim].kill()
        await asyncio.sleep(deed.away)
        name, worker = ("worker", deed.victim) if deed.victim in WORKERS else (deed.victim, WORKERS[0])
        await system.start(name, worker=worker, ready=False)
    await asyncio.sleep(deed.pause)


async def _brought_back(broker: Broker) -> None:
    """Start the broker as a service manager would: RabbitMQ 4.0, killed, may fail one boot over a stream queue."""
    for starts_left in reversed(range(BROKER_STARTS)):
        try:
            await broker.start()
            return
        except ProgramFailedError:
            if not starts_left:
                raise


async def submit(system: System, http: HttpSink, runs: Path, name: str) -> int:
    """Submit until there is an answer: the same `message_id` is the same job."""
    # a guest's home is in its grant's folder, so each line names one (job, attempt)
    build = f'echo "$HOME" >> {runs / name}; sleep 0.$((RANDOM % 9)); echo made > thing; seq 1 2000'
    body = manifest(
        ("build", build),
        ("check", "sleep 0.$((RANDOM % 9))"),
        artifacts=["thing"],
        triggers=[{"action": "webhook", "condition": "always", "url": http.url(f"/{name}")}],
    )
    while True:
        try:
            async with Client(system.amqp_url, OWNER, limit=10) as client:
                return (await client.submit(body, project="chaos", message_id=name)).job
        except (NotReached, NoAnswer):
            await asyncio.sleep(0.2)


async def right(system: System, http: HttpSink, end: JobEvent, runs: Path, path: str) -> None:
    """The job ended as it may, each of its attempts ran once at most, and all it made is there."""
    job = end.facts.job
    ran = runs.read_text().split() if runs.exists() else []
    assert len(ran) == len(set(ran)), f"job {job}: an attempt ran twice: {ran}"
    assert end.attempt is not None
    assert len(ran) <= end.attempt
    if end.status is JobStatus.SUCCESS:
        for log in (await system.journal.logs(end, SETTLED)).values():
            await proven(log)
        (artifact,) = end.artifacts
        assert artifact.url is not None
        assert await fetch(artifact.url) == b"made\n"
    else:  # three of its attempts were killed after they had started
        assert (end.status, end.reason) == (JobStatus.FAILED, Reason.LOST)
        assert end.attempt >= 3
    (delivered,) = await system.journal.delivered(job, limit=SETTLED)
    assert {post.delivery for post in http.posts if post.path == path} == {delivered.delivery}
