"""Who goes first, who waits and why, over a real broker and database."""

from datetime import UTC, datetime, timedelta

from leveret_dispatcher.config import OwnerPolicy
from leveret_proto.messages import (
    AttemptState,
    CancelJob,
    ExplainJob,
    ExplainReply,
    Grant,
    JobEvent,
    JobStatus,
    PrioritizeJob,
    Reason,
    WorkerEvent,
)
from tests.integration.dispatcher.dispatcher_lab import FakeWorker, Lab, token
from tests.support.services import Services

MODULE = "leveret_dispatcher.main"
ALICE, BOB = "~alice", "~bob"


def order(worker: FakeWorker) -> list[int]:
    return [grant.facts.job for grant in worker.inbox.of(Grant)]


async def waiting(lab: Lab, *jobs: int) -> None:
    for job in jobs:
        await lab.job_is(job, JobStatus.PENDING)


async def test_owners_share_however_many_jobs_one_of_them_has(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        alices = [await lab.submit(priority=100) for _ in range(4)]
        bobs = [await lab.submit(owner=BOB) for _ in range(2)]
        await waiting(lab, *alices, *bobs)
        await worker.beat(token(), token(), token(), token())
        await worker.inbox.until(Grant, nth=4)
        assert order(worker) == [alices[0], bobs[0], alices[1], bobs[1]]


async def test_a_job_over_its_owners_limit_says_so_and_runs_when_another_has_ended(lab: Lab) -> None:
    async with lab.dispatcher(owner_running=1, owners={BOB: OwnerPolicy(running=None)}), lab.worker() as worker:
        first, second = await lab.submit(), await lab.submit()
        bobs = [await lab.submit(owner=BOB) for _ in range(2)]
        await waiting(lab, first, second, *bobs)
        await worker.beat(*(token() for _ in range(4)))
        waits = await lab.job_is(second, JobStatus.PENDING, reason=Reason.LIMIT)
        assert waits.detail == "at most 1 of ~alice's jobs may run at once"
        for job in bobs:
            await worker.grant_of(job)
        assert second not in order(worker)
        await worker.succeed(await worker.grant_of(first))
        await worker.grant_of(second)


async def test_a_limit_holds_across_a_takeover(lab: Lab) -> None:
    async with lab.worker() as worker:
        async with lab.dispatcher(owner_running=1):
            await worker.beat(token())
            grant = await worker.grant_of(await lab.submit())
        async with lab.dispatcher(owner_running=1):
            second = await lab.submit()
            await worker.beat(token(), token())
            await lab.job_is(second, JobStatus.PENDING, reason=Reason.LIMIT)
            await worker.succeed(grant)
            await worker.grant_of(second)


async def test_the_highest_priority_goes_first_and_may_be_changed(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        low, high, raised = await lab.submit(), await lab.submit(priority=5), await lab.submit(priority=-5)
        await waiting(lab, low, high, raised)
        await lab.command(PrioritizeJob(job=raised, priority=6))
        await worker.beat(token(), token(), token())
        await worker.inbox.until(Grant, nth=3)
        assert order(worker) == [raised, high, low]


async def test_a_late_owner_is_running_within_two_job_lengths_past_2000_waiting(lab: Lab) -> None:
    async with lab.dispatcher(lease=120.0), lab.worker("w1") as one, lab.worker("w2") as two:
        for worker in (one, two):
            await worker.beat(*(token() for _ in range(3)))
        await lab.events.until(WorkerEvent, lambda e: e.state == "joined", nth=2)
        for _ in range(10):
            last = [await lab.submit() for _ in range(200)][-1]
            await waiting(lab, last)
        bobs = {await lab.submit(owner=BOB) for _ in range(5)}
        await waiting(lab, *bobs)
        for length in (1, 2):
            for worker in (one, two):  # a length: everything that runs ends, and as many begin
                await worker.inbox.until(Grant, nth=3 * length)
                for grant in worker.inbox.of(Grant)[3 * length - 3 :]:
                    await worker.succeed(grant)
                await worker.claim(*(token() for _ in range(3)))
        for worker in (one, two):
            await worker.inbox.until(Grant, nth=9)
        assert bobs <= {*order(one), *order(two)}


async def test_a_job_waits_for_those_it_depends_on(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token(), token(), token())
        first = await lab.submit()
        second = await lab.submit()
        third = await lab.submit(depends_on=(first, second))
        waits = await lab.job_is(third, JobStatus.PENDING, reason=Reason.DEPENDENCY)
        assert waits.detail == f"waits for jobs {first}, {second}"
        await worker.succeed(await worker.grant_of(first))
        await lab.job_is(first, JobStatus.SUCCESS)
        explained = await lab.command(ExplainJob(job=third))
        assert isinstance(explained, ExplainReply)
        assert (explained.depends_on, explained.place) == ((second,), None)
        assert third not in order(worker)
        await worker.succeed(await worker.grant_of(second))
        await worker.succeed(await worker.grant_of(third))
        await lab.job_is(third, JobStatus.SUCCESS)
        assert lab.course(third) == ["pending", "queued", "running", "success"]
        after = await lab.submit(depends_on=(first, third))  # both are there already
        await worker.claim(token())
        await worker.grant_of(after)


async def test_a_failed_dependency_ends_all_that_stand_on_it(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        first = await lab.submit()
        second = await lab.submit(depends_on=(first,))
        third = await lab.submit(depends_on=(second,))
        await waiting(lab, second, third)
        await worker.status(await worker.grant_of(first), AttemptState.ENDED, result=JobStatus.FAILED)
        ended = await lab.job_is(second, JobStatus.CANCELLED, reason=Reason.DEPENDENCY)
        assert ended.detail == f"job {first}, which it depends on, ended failed"
        ended = await lab.job_is(third, JobStatus.CANCELLED, reason=Reason.DEPENDENCY)
        assert ended.detail == f"job {second}, which it depends on, ended cancelled"
        late = await lab.submit(depends_on=(first,))
        await lab.job_is(late, JobStatus.CANCELLED, reason=Reason.DEPENDENCY)
        assert [lab.course(job) for job in (second, third, late)] == [["pending", "cancelled"]] * 3


async def test_a_dependency_of_another_owner_or_not_come_yet_is_waited_for(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token(), token())
        bobs = await lab.submit(owner=BOB)
        mine = await lab.submit(depends_on=(bobs,))
        early = await lab.submit(depends_on=(4,))
        await waiting(lab, mine, early)
        await worker.succeed(await worker.grant_of(bobs))
        await lab.job_is(bobs, JobStatus.SUCCESS)
        assert await lab.submit() == 4
        await worker.succeed(await worker.grant_of(4))
        await worker.claim(token())
        await worker.grant_of(early)
        await lab.command(CancelJob(job=mine))
        await lab.job_is(mine, JobStatus.CANCELLED, reason=Reason.CANCELLED)
        assert mine not in order(worker)


async def test_a_leader_killed_before_it_ended_the_dependents_is_made_good_by_the_next(
    lab: Lab, services: Services
) -> None:
    environment = lab.environment(leader_renew=0.1, leader_stale=0.5)
    crashing = await services.start(MODULE, environment, failpoint="dispatcher.waits.before-commit")
    first = await lab.submit()
    second = await lab.submit(depends_on=(first,))
    third = await lab.submit(depends_on=(second,))
    other = await lab.submit()
    fourth = await lab.submit(depends_on=(other,))
    await waiting(lab, second, third, fourth)
    await lab.command(CancelJob(job=first))
    await crashing.until_crashed()
    async with lab.dispatcher(leader_stale=0.6), lab.worker() as worker:
        await lab.job_is(second, JobStatus.CANCELLED, reason=Reason.DEPENDENCY)
        await lab.job_is(third, JobStatus.CANCELLED, reason=Reason.DEPENDENCY)
        await worker.beat(token(), token())
        await worker.succeed(await worker.grant_of(other))
        await worker.grant_of(fourth)
    assert lab.course(second) == ["pending", "cancelled"]


async def test_a_job_that_was_never_granted_in_time_is_given_up(lab: Lab) -> None:
    async with lab.dispatcher(queue_deadline=3600.0), lab.worker() as worker:
        long_ago = datetime.now(UTC) - timedelta(hours=2)
        asked = await lab.submit(submitted_at=long_ago, queue_deadline=3 * 3600.0)
        late = await lab.submit(submitted_at=long_ago)
        written = await lab.submit(manifest={"leveret": {"queue_deadline": 1}}, depends_on=(asked,))
        for job in (late, written):
            ended = await lab.job_is(job, JobStatus.TIMEOUT, reason=Reason.QUEUE_DEADLINE)
            assert ended.detail == "it was not granted to a worker before its queue deadline"
        await worker.beat(token())
        await worker.grant_of(asked)


async def test_a_job_that_waits_again_after_an_attempt_has_no_deadline(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit(queue_deadline=1.0)
        await worker.status(await worker.grant_of(job), AttemptState.ENDED)
        await lab.job_is(job, JobStatus.PENDING, reason=Reason.HANDED_BACK)
        other = await lab.submit(queue_deadline=1.0)
        await lab.job_is(other, JobStatus.TIMEOUT)  # so the look for deadlines has passed the first one by
        await worker.claim(token())
        await worker.grant_of(job, nth=2)
        assert not [e for e in lab.events.of(JobEvent) if e.facts.job == job and e.status.ended]


async def test_an_owner_may_have_time_limits_of_its_own(lab: Lab) -> None:
    owners = {ALICE: OwnerPolicy(time_limit=50, time_limit_most=500), BOB: OwnerPolicy(time_limit_most=5000)}
    async with lab.dispatcher(owners=owners, time_limit=100.0, time_limit_most=1000.0), lab.worker() as worker:
        await worker.beat(*(token() for _ in range(4)))
        limits = []
        for owner, asked in ((ALICE, None), (ALICE, 3000), (BOB, None), (BOB, 3000)):
            job = await lab.submit(owner=owner, manifest={"leveret": {"time_limit": asked}} if asked else {})
            limits.append((await worker.grant_of(job)).time_limit)
        assert limits == [50, 500, 100, 1000]
