"""Builds through all five services: how they end, what is told and kept of them, who is told by mail and webhook."""

import asyncio
import hashlib
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest

from leveret_client import LogBytes
from leveret_proto.messages import DeliveryEvent, JobEvent, JobStatus, Reason, TaskEvent, TaskState
from leveret_runtime.away import backoff
from tests.support.journal import LIMIT, fetch, proven
from tests.support.sinks import HttpSink, MailSink
from tests.support.system import System, manifest

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOOKED = "leveret@example.org"


async def test_a_build_succeeds_with_its_logs_and_artifact(system: System) -> None:
    job = await system.submit(
        manifest(("build", "echo made > thing; echo built"), ("check", "test -e thing"), artifacts=["thing"])
    )
    end = await system.journal.ended(job)
    assert (end.status, end.reason, end.attempt, end.worker) == (JobStatus.SUCCESS, Reason.COMPLETED, 1, "w1")
    assert [(task.name, task.state, task.exit_status) for task in end.tasks] == [
        ("build", TaskState.SUCCESS, 0),
        ("check", TaskState.SUCCESS, 0),
    ]
    logs = await system.journal.logs(end)
    assert b"built\n" in await proven(logs["build"])
    await proven(logs["@setup"])
    (artifact,) = end.artifacts
    assert artifact.url is not None
    assert await fetch(artifact.url) == b"made\n"
    statuses = [event.status for event in system.journal.of(job, JobEvent) if event.reason is not Reason.BUSY]
    assert statuses == [JobStatus.PENDING, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCESS]
    system.journal.check(job)


@pytest.mark.parametrize("mib", [8, pytest.param(1024, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
async def test_a_large_artifact_of_a_failed_job_is_streamed_in_little_memory(system: System, mib: int) -> None:
    before = peak_mib(system.running["worker"].pid)
    script = f"head -c {mib}M /dev/urandom > big; sha256sum big | cut -c-64; exit 3"
    job = await system.submit(manifest(("fill", script), artifacts=["big"], leveret={"artifacts_on": "always"}))
    end = await system.journal.ended(job, 300)
    assert (end.status, end.reason) == (JobStatus.FAILED, Reason.TASK_FAILED)
    log = await proven((await system.journal.logs(end, 60))["fill"])
    (artifact,) = end.artifacts
    assert artifact.bytes == mib * 2**20
    assert artifact.sha256.encode() in log.splitlines()
    assert artifact.url is not None
    assert await fetched(artifact.url) == (artifact.bytes, artifact.sha256)
    assert peak_mib(system.running["worker"].pid) - before < 50
    assert peak_mib(system.running["logsink"].pid) < 150


def peak_mib(pid: int) -> int:
    """The most memory that the process has had."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


async def fetched(url: str) -> tuple[int, str]:
    """Length and SHA-256 of what is served there, when the last bytes are stored and proven."""
    digest, count = hashlib.sha256(), 0
    async with asyncio.timeout(240), aiohttp.ClientSession() as http:
        for delay in backoff():
            async with http.get(url) as response:
                if response.status == 200:
                    async for piece in response.content.iter_any():
                        digest.update(piece)
                        count += len(piece)
                    return count, digest.hexdigest()
                assert response.status == 404
            await asyncio.sleep(delay)
    raise AssertionError("unreachable")


async def test_a_log_that_logsink_has_lost_while_its_build_runs_comes_again(system: System) -> None:
    """Row and file are gone, as after a restore from a backup: only the worker still has the bytes."""
    gate = system.gate()
    job = await system.submit(manifest(("build", f"seq 1 50000; {gate.script}; echo through")))
    await system.until_rows(
        "select from logsink.stream where job = $1 and label = 'build' and contiguous > 288000", job
    )
    await system.rows("delete from logsink.stream where job = $1 and label = 'build'", job)
    (file,) = system.services.folder.glob(f"storage/*/{job}/1/*/build.log")
    file.unlink()
    gate.open()
    log = (await system.journal.logs(await system.journal.ended(job)))["build"]
    whole = await proven(log)
    assert "".join(f"{number}\n" for number in range(1, 50001)).encode() in whole
    assert whole.endswith(b"through\n")
    assert "its worker is asked" in system.running["logsink"].log.read_text()


async def test_a_failing_task_ends_the_job_and_the_tasks_after_it_are_skipped(system: System) -> None:
    job = await system.submit(
        manifest(("build", "echo fine"), ("check", "seq 1 50000; echo broken; exit 7"), ("ship", "echo never"))
    )
    end = await system.journal.ended(job)
    assert (end.status, end.reason) == (JobStatus.FAILED, Reason.TASK_FAILED)
    told = [(task.name, task.state, task.exit_status) for task in end.tasks]
    assert told == [
        ("build", TaskState.SUCCESS, 0),
        ("check", TaskState.FAILED, 7),
        ("ship", TaskState.SKIPPED, None),
    ]
    failed = [event.task for event in system.journal.of(job, TaskEvent) if event.task.state is TaskState.FAILED]
    assert [(task.name, task.exit_status) for task in failed] == [("check", 7)]
    logs = await system.journal.logs(end)
    assert "ship" not in logs
    text = await proven(logs["check"])
    assert b"".join(b"%d\n" % n for n in range(1, 50_001)) in text
    assert b"\nbroken\n" in text
    system.journal.check(job)


async def test_a_build_past_its_time_limit_ends_as_timeout(system: System) -> None:
    job = await system.submit(manifest(("hang", "sleep 600"), leveret={"time_limit": 1}))
    end = await system.journal.ended(job)
    assert (end.status, end.reason) == (JobStatus.TIMEOUT, Reason.TIME_LIMIT)
    system.journal.check(job)


async def test_a_waiting_job_is_cancelled_and_never_runs(system: System) -> None:
    job = await system.submit(manifest(("a", "true"), leveret={"requires": {"tags": ["nobody=has-this"]}}))
    await system.journal.event(job, JobEvent, lambda event: event.reason is Reason.NO_WORKER)
    reply = await system.client.cancel(job)
    assert reply.cancelled
    end = await system.journal.ended(job)
    assert (end.status, end.attempt) == (JobStatus.CANCELLED, None)
    system.journal.check(job)


async def test_a_running_job_is_cancelled_and_its_log_kept(system: System) -> None:
    gate = system.gate()
    job = await system.submit(manifest(("wait", f"echo before; {gate.script}; echo after"), ("next", "true")))
    async with asyncio.timeout(LIMIT), aclosing(system.client.follow(job)) as told:
        async for one in told:
            if isinstance(one, LogBytes) and b"before\n" in one.data:
                break
    assert (await system.client.cancel(job)).cancelled
    end = await system.journal.ended(job)
    assert (end.status, end.reason) == (JobStatus.CANCELLED, Reason.CANCELLED)
    logs = await system.journal.logs(end)
    text = await proven(logs["wait"])
    assert b"before\n" in text
    assert b"after" not in text
    system.journal.check(job)
    again = await system.client.cancel(job)
    assert again.cancelled  # to the same effect


async def test_a_cancel_that_comes_before_its_job_is_remembered(system: System) -> None:
    """Cancelled while intake has it and the dispatcher has not heard of it yet."""
    coming = await system.submit(manifest(("a", "true"))) + 1
    assert (await system.client.cancel(coming)).cancelled
    job = await system.submit(manifest(("never", "echo ran")))
    assert job == coming
    end = await system.journal.ended(job)
    assert end.status is JobStatus.CANCELLED
    assert {event.attempt for event in system.journal.of(job, JobEvent)} == {None}
    system.journal.check(job)


async def test_both_triggers_fire_once_though_the_notifier_is_killed_between_tries(
    system: System, http: HttpSink, smtp: MailSink
) -> None:
    http.statuses += [503, 503]
    job = await system.submit(
        manifest(
            ("build", "true"),
            triggers=[
                {"action": "email", "condition": "always", "to": f"Ada <{HOOKED}>"},
                {"action": "webhook", "condition": "always", "url": http.url("/both")},
            ],
        )
    )
    journal = system.journal
    await journal.ended(job)
    await journal.event(job, DeliveryEvent, lambda event: event.action == "email" and event.status == "delivered")
    await journal.event(job, DeliveryEvent, lambda event: event.action == "webhook" and event.status == "retrying")
    await system.running["notifier"].kill()
    await system.start("notifier", smtp_port=smtp.port)
    mail, hook = sorted(await journal.delivered(job, 2), key=lambda event: event.action)
    assert (mail.action, hook.action) == ("email", "webhook")
    assert [post.path for post in http.posts] == ["/both"] * len(http.posts)
    assert len(http.posts) >= 3
    assert {post.delivery for post in http.posts} == {hook.delivery}
    assert http.posts[-1].json["id"] == job
    assert [letter.recipients for letter in smtp.mails] == [[HOOKED]]
    journal.check(job)
