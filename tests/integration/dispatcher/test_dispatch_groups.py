"""Groups over the broker: closed before, between and after their jobs; their end told once, whatever dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from leveret_dispatcher.groups import MOST
from leveret_proto.base import Visibility
from leveret_proto.manifest import Trigger
from leveret_proto.messages import (
    AttemptState,
    CancelJob,
    CloseGroup,
    CommandFailed,
    EndedGroup,
    GroupEvent,
    GroupReply,
    GroupView,
    JobStatus,
    Message,
)
from leveret_proto.topology import JOBS
from tests.integration.dispatcher.dispatcher_lab import (
    REQUIREMENT,
    FakeWorker,
    Lab,
    publish,
    ready_job,
    token,
)
from tests.support.services import Services

HOOK = Trigger(action="webhook", condition="failure", url="https://example.org/")


def viewed(answer: Message) -> GroupView:
    assert isinstance(answer, GroupReply), answer
    return answer.group


async def close(lab: Lab, size: int, **said: Any) -> GroupView:
    return viewed(await lab.command(CloseGroup(group="g", size=size, **said)))


async def end(worker: FakeWorker, lab: Lab, job: int, status: JobStatus = JobStatus.SUCCESS) -> None:
    """Run a job to its end, on a token of its own."""
    await worker.claim(token())
    grant = await worker.grant_of(job)
    await worker.status(grant, AttemptState.ENDED, result=status)
    await lab.job_is(job, status)


@asynccontextmanager
async def at_work(lab: Lab) -> AsyncIterator[FakeWorker]:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat()
        yield worker


async def test_a_group_closed_before_its_jobs_came_ends_with_the_last_of_them(lab: Lab) -> None:
    async with at_work(lab) as worker:
        assert (await close(lab, 2, triggers=(HOOK,), note="n", visibility=Visibility.PUBLIC)).state == "closed"
        first = await lab.submit(group="g")
        await end(worker, lab, first)
        second = await lab.submit(group="g")
        await end(worker, lab, second, JobStatus.FAILED)
        told = await lab.events.until(GroupEvent)
        assert (told.group.owner, told.group.group, told.group.state, told.group.note) == ("~alice", "g", "failed", "n")
        assert [(member.job, member.status) for member in told.group.jobs] == [(first, "success"), (second, "failed")]
        ended = await lab.notified.until(EndedGroup)
        assert (ended.group, ended.triggers, ended.ended_at) == (told.group, (HOOK,), told.at)


async def test_a_group_closed_after_its_jobs_ended_ends_at_once_and_only_once(lab: Lab) -> None:
    async with at_work(lab) as worker:
        jobs = [await lab.submit(group="g") for _ in range(2)]
        for job in jobs:
            await end(worker, lab, job)
        assert lab.events.of(GroupEvent) == []
        for _ in range(2):  # the same words again change nothing
            view = await close(lab, 2, triggers=(HOOK,))
            assert (view.state, [member.job for member in view.jobs]) == ("success", jobs)
        await lab.notified.until(EndedGroup)
        await end(worker, lab, await lab.submit(group="g"))  # a job too many: it runs, and is not counted
        last = await lab.submit(group="other")
        viewed(await lab.command(CloseGroup(group="other", size=1)))
        await end(worker, lab, last)
        await lab.events.until(GroupEvent, lambda event: event.group.group == "other")
        told = [event for event in lab.events.of(GroupEvent) if event.group.group == "g"]
        assert [(event.group.state, len(event.group.jobs)) for event in told] == [("success", 2)]
        assert len(lab.notified.of(EndedGroup)) == 1  # the other one has no triggers


async def test_the_end_of_a_group_is_told_behind_the_end_of_its_last_job(lab: Lab) -> None:
    async with at_work(lab) as worker:
        await close(lab, 1)
        job = await lab.submit(group="g")
        await end(worker, lab, job)
        event = await lab.events.until(GroupEvent)
        told = lab.events.all
        assert told.index(await lab.job_is(job, JobStatus.SUCCESS)) < told.index(event)


async def test_a_cancelled_job_counts_as_ended_also_when_the_cancel_came_first(lab: Lab) -> None:
    async with lab.dispatcher():
        await close(lab, 2)
        await lab.command(CancelJob(job=1))
        assert await lab.submit(group="g") == 1
        waiting = await lab.submit(group="g")
        await lab.job_is(waiting, JobStatus.PENDING)
        await lab.command(CancelJob(job=waiting))
        told = await lab.events.until(GroupEvent)
        assert (told.group.state, [member.status for member in told.group.jobs]) == ("failed", ["cancelled"] * 2)


async def test_other_words_and_too_small_a_size_are_a_conflict(lab: Lab) -> None:
    async with lab.dispatcher():
        for job in [await lab.submit(group="g") for _ in range(2)]:
            await lab.job_is(job, JobStatus.PENDING)
        for size, code in ((1, "conflict"), (3, None), (2, "conflict"), (3, None)):
            answer = await lab.command(CloseGroup(group="g", size=size))
            assert (answer.code if isinstance(answer, CommandFailed) else None) == code, answer
        refused = await lab.command(
            CloseGroup(group="new", size=1, triggers=(Trigger(action="email", condition="always"),))
        )
        assert isinstance(refused, CommandFailed) and refused.code == "bad-request"
        assert viewed(await lab.command(CloseGroup(group="new", size=1))).state == "closed"  # nothing was written


async def test_owners_groups_of_one_name_are_two_and_names_may_be_anything(lab: Lab) -> None:
    name = "a.b %\0é"
    async with at_work(lab) as worker:
        job = await lab.submit(group=name)
        await lab.job_is(job, JobStatus.PENDING)
        other = viewed(await lab.command(CloseGroup(group=name, size=1), "~bob"))
        assert (other.owner, other.state, other.jobs) == ("~bob", "closed", ())
        viewed(await lab.command(CloseGroup(group=name, size=1, triggers=(HOOK,))))
        await end(worker, lab, job)
        ended = await lab.notified.until(EndedGroup)
        assert (ended.group.owner, ended.group.group, len(lab.events.of(GroupEvent))) == ("~alice", name, 1)


async def test_a_group_takes_no_more_jobs_than_it_has_places(lab: Lab) -> None:
    async with lab.dispatcher():
        await close(lab, 2)
        for _ in range(2):
            await publish(lab.channel, JOBS, REQUIREMENT.key, ready_job(1, group="g"))  # delivered twice, joins once
        for number in (2, 3):
            await publish(lab.channel, JOBS, REQUIREMENT.key, ready_job(number, group="g"))
        async with asyncio.TaskGroup() as publishing:
            for number in range(10, 10 + MOST + 1):
                job = ready_job(number, group="open")
                publishing.create_task(publish(lab.channel, JOBS, REQUIREMENT.key, job))
        for number in range(10, 10 + MOST + 1):
            await lab.job_is(number, JobStatus.PENDING)
        assert [member.job for member in (await close(lab, 2)).jobs] == [1, 2]
        assert len(viewed(await lab.command(CloseGroup(group="open", size=MOST))).jobs) == MOST


@pytest.mark.parametrize(
    ("failpoints", "times"),
    [
        (["dispatcher.status.before-commit"], 1),
        (["dispatcher.status.before-ack"], 1),
        # the second one finds what the first has committed, publishes it, and leaves it to be published again
        (["dispatcher.status.before-ack", "dispatcher.outbox.between-publish-and-sent"], 2),
    ],
)
async def test_a_dispatcher_killed_at_the_end_of_a_group_tells_of_it_under_one_id(
    lab: Lab, services: Services, failpoints: list[str], times: int
) -> None:
    said = CloseGroup(group="g", size=1, triggers=(HOOK,))
    async with lab.worker() as worker:
        async with lab.dispatcher():
            viewed(await lab.command(said))
            job = await lab.submit(group="g")
            await worker.beat(token())
            grant = await worker.grant_of(job)
            await worker.run(grant)
            await lab.job_is(job, JobStatus.RUNNING)
        await worker.status(grant, AttemptState.ENDED, result=JobStatus.SUCCESS)
        for failpoint in failpoints:
            doomed = await services.start(
                "leveret_dispatcher.main", lab.environment(), failpoint=failpoint, ready=False
            )
            await doomed.until_crashed()
        async with lab.dispatcher():
            await lab.events.until(GroupEvent, nth=times)
            ended = await lab.notified.until(EndedGroup, nth=times)
            assert viewed(await lab.command(said)).state == "success"
        assert {event.at for event in lab.events.of(GroupEvent)} == {ended.ended_at}
        assert {again.ended_at for again in lab.notified.of(EndedGroup)} == {ended.ended_at}
        # published again after a crash it is the same message: the notifier makes one delivery of it
        for inbox, told in ((lab.events, GroupEvent), (lab.notified, EndedGroup)):
            (one,) = inbox.ids[told]
            assert one
