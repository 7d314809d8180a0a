"""Every service killed at each of its failpoints during a build, and started again: nothing is lost or told twice.

A build with an artifact and a webhook runs each time. What does not happen in every build (a cancel, a dead letter, a
worker's restart) is provoked beside it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from leveret_client import SubmissionFailed
from leveret_dispatcher.failpoints import FAILPOINTS as DISPATCHER
from leveret_intake.failpoints import FAILPOINTS as INTAKE
from leveret_logsink.failpoints import FAILPOINTS as LOGSINK
from leveret_notifier.failpoints import FAILPOINTS as NOTIFIER
from leveret_proto.messages import JobEvent, JobStatus, LogEvent, Reason
from leveret_worker.failpoints import FAILPOINTS as WORKER
from tests.support.journal import fetch, proven
from tests.support.sinks import HttpSink
from tests.support.system import Gate, System, manifest

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Where the worker dies with the attempt's result not written down the job runs again. Of the status that was sent it
#: is not known: the first may already be the last, of a build that was quick.
ATTEMPTS = dict.fromkeys(WORKER, (2,)) | {"worker.result.spooled": (1,), "worker.status.sent": (1, 2)}


@dataclass
class Scene:
    """A build on its way while a service is about to crash."""

    system: System
    gate: Gate
    submitted: asyncio.Task[int]
    #: Attempts the build may take.
    attempts: tuple[int, ...] = (1,)
    #: Jobs besides the build, each with the end it must come to.
    others: dict[int, JobStatus] = field(default_factory=dict)


async def cancel_another(scene: Scene) -> None:
    system, gate = scene.system, scene.system.gate()
    job = await system.submit(manifest(("wait", gate.script)))
    scene.others[job] = JobStatus.CANCELLED
    await system.journal.task_runs(job, "wait")
    assert (await system.client.cancel(job)).cancelled


async def submit_rubbish(scene: Scene) -> None:
    with pytest.raises(SubmissionFailed):
        await scene.system.client.submit(b"\xff\xfe\xfd", project="p")


async def fail_a_dependency(scene: Scene) -> None:
    """The job that waits for it waits in vain."""
    system, gate = scene.system, scene.system.gate()
    needed = await system.submit(manifest(("fail", f"{gate.script}; exit 1")))
    waiting = await system.submit(manifest(("a", "true")), depends_on=[needed])
    scene.others |= {needed: JobStatus.FAILED, waiting: JobStatus.CANCELLED}
    await system.journal.event(waiting, JobEvent, lambda event: event.reason is Reason.DEPENDENCY)
    gate.open()


async def crash_worker(scene: Scene) -> None:
    """The build is lost half-way, with a log that never ends."""
    scene.attempts = (2,)
    await scene.system.journal.task_runs(await scene.submitted, "build")
    await scene.system.running["worker"].kill()
    await scene.system.start("worker")


PROVOKE: dict[str, Callable[[Scene], Coroutine[None, None, None]]] = {
    "dispatcher.commands": cancel_another,
    "dispatcher.dead": submit_rubbish,
    "dispatcher.waits": fail_a_dependency,
    "dispatcher.beats.before-commit": crash_worker,
    "dispatcher.beats.between-commit-and-publish": crash_worker,
    "logsink.gap": crash_worker,
}


@pytest.mark.parametrize("point", [*INTAKE, *DISPATCHER, *LOGSINK, *NOTIFIER, *WORKER])
async def test_a_service_killed_there_and_started_again_loses_nothing(
    system: System, http: HttpSink, point: str
) -> None:
    service = point.partition(".")[0]
    provoke = next((provoke for prefix, provoke in PROVOKE.items() if point.startswith(prefix)), None)
    path = f"/{uuid4()}"
    changes = {"end_wait": 1} if point.startswith("logsink.gap") else {}
    await system.restart(service, failpoint=point, **changes)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        submitting = group.create_task(submit(system, http.url(path), gate := system.gate()))
        scene = Scene(system, gate, submitting, attempts=ATTEMPTS.get(point, (1,)))
        if provoke is crash_worker:
            group.create_task(provoke(scene))
        else:
            gate.open()
            if provoke is not None:
                group.create_task(provoke(scene))
        await system.running[service].until_crashed()
        await system.start(service)
        gate.open()
    await whole(scene, http, path)


async def submit(system: System, hook: str, gate: Gate) -> int:
    build = f"{gate.script}; echo made > thing; seq 1 5000"
    triggers = [{"action": "webhook", "condition": "always", "url": hook}]
    return await system.submit(
        manifest(("build", build), ("check", "echo checked"), artifacts=["thing"], triggers=triggers)
    )


async def whole(scene: Scene, http: HttpSink, path: str) -> None:
    """The build came to its one right end, and so did everything that belongs to it."""
    job, journal = scene.submitted.result(), scene.system.journal
    end = await journal.ended(job)
    assert (end.status, end.reason) == (JobStatus.SUCCESS, Reason.COMPLETED), end
    assert end.attempt in scene.attempts, end
    logs = await journal.logs(end)
    assert logs.keys() == {"@setup", "build", "check"}
    texts = {name: await proven(log) for name, log in logs.items()}
    assert texts["build"].count(b"\n5000\n") == 1
    (artifact,) = end.artifacts
    assert artifact.url is not None
    assert await fetch(artifact.url) == b"made\n"
    (delivered,) = await journal.delivered(job)
    assert {post.delivery for post in http.posts if post.path == path} == {delivered.delivery}
    for other, status in scene.others.items():
        assert (await journal.ended(other)).status is status
        journal.check(other)
    journal.check(job)


async def test_each_job_was_told_of_once(system: System) -> None:
    """Asked at the very end, of all jobs of the tests before: nothing more was said of any after its end."""
    last = await system.submit(manifest(("a", "true")))
    await system.journal.logs(await system.journal.ended(last))
    assert len(system.journal.told) > 1
    for job in system.journal.told:
        system.journal.check(job)


async def test_a_lost_attempts_log_is_a_gap_and_keeps_what_came(system: System) -> None:
    await system.restart("logsink", end_wait=1)
    gate = system.gate()
    job = await system.submit(manifest(("build", f"echo so far; {gate.script}; echo done")))
    await system.journal.task_runs(job, "build")
    while b"so far\n" not in (await system.client.history(job, task="build"))[1]:
        await asyncio.sleep(0.02)  # what is stored is told to followers, and this is none
    await system.running["worker"].kill()
    await system.start("worker")
    lost = await system.journal.event(job, LogEvent, lambda log: (log.attempt, log.task) == (1, "build"))
    assert lost.status == "gap"
    assert lost.url is not None
    assert b"so far\n" in await fetch(lost.url)
    await system.journal.task_runs(job, "build", attempt=2)
    gate.open()
    end = await system.journal.ended(job)
    assert (end.status, end.attempt) == (JobStatus.SUCCESS, 2)
    assert b"done\n" in await proven((await system.journal.logs(end))["build"])
    system.journal.check(job)
