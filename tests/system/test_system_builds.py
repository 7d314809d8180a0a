"""Builds through all five services: how they end, what is told and kept of them, who is told by mail and webhook."""

import asyncio
from contextlib import aclosing

import pytest

from leveret_client import LogBytes
from leveret_proto.messages import DeliveryEvent, JobEvent, JobStatus, Reason, TaskEvent, TaskState
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
