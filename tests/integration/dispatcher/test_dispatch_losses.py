"""Everything that can be lost on the way: grants, workers, sessions, results. It ends in one run of an attempt."""

import asyncio

from leveret_proto import keys
from leveret_proto.capability import Capabilities
from leveret_proto.messages import (
    Abandon,
    AttemptState,
    Grant,
    JobStatus,
    Reason,
    Refuse,
    Settle,
    WorkerEvent,
)
from leveret_proto.topology import WORK
from tests.integration.dispatcher.dispatcher_lab import OFFER, REQUIREMENT, Lab, held, token


async def test_a_lost_grant_is_published_again(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        first = await worker.grant_of(job)
        await worker.beat()  # may have been made before the grant came: proves nothing
        await worker.beat()
        again = await worker.grant_of(job, nth=2)
        assert (again.grant, again.token, again.attempt) == (first.grant, first.token, first.attempt)
        await worker.beat(held=(held(again),))
        await worker.succeed(again)
        await lab.job_is(job, JobStatus.SUCCESS)
        assert lab.course(job)[-3:] == ["queued", "running", "success"]


async def test_a_grant_that_no_session_takes_is_matched_again(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker("w1", grants=False) as unbound, lab.worker("w2") as bound:
        slot = token()
        await unbound.beat(slot)
        job = await lab.submit()
        await lab.job_is(job, JobStatus.PENDING, reason=Reason.HANDED_BACK)
        await bound.beat(token())
        grant = await bound.grant_of(job)
        assert grant.attempt == 2
        await bound.succeed(grant)
        await lab.job_is(job, JobStatus.SUCCESS)

        # what the first session does take after all, it is granted: its token was never used
        await unbound.queue.bind(WORK, keys.grant(REQUIREMENT.key, "w1", unbound.session))
        await unbound.beat(slot)
        other = await lab.submit()
        assert (await unbound.grant_of(other)).token == slot


async def test_a_restarted_worker_loses_its_attempts_at_once_but_not_its_results(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker("w2") as other:
        async with lab.worker("w1") as before:
            await before.beat(token(), token())
            running, ended = await lab.submit(), await lab.submit()
            lost, done = await before.grant_of(running), await before.grant_of(ended)
            await before.run(lost)
            await before.run(done)
            await lab.job_is(running, JobStatus.RUNNING)
            await lab.job_is(ended, JobStatus.RUNNING)
        async with lab.worker("w1", spool=before.spool) as after:
            await after.beat(held=(held(done, AttemptState.ENDED, 2),))
            event = await lab.job_is(running, JobStatus.PENDING, reason=Reason.LOST)
            assert (event.attempt, event.worker) == (1, "w1")
            await other.beat(token())
            again = await other.grant_of(running)
            assert again.attempt == 2

            after.seqs[done.grant] = 1
            await after.succeed(done)
            await lab.job_is(ended, JobStatus.SUCCESS)
            await after.inbox.until(Settle, lambda order: done.grant in order.grants)
            after.seqs[lost.grant] = 1
            await after.succeed(lost)  # the old grant is void, whatever it says
            await after.inbox.until(Abandon, lambda order: order.grant == lost.grant)
            await other.succeed(again)
            assert (await lab.job_is(running, JobStatus.SUCCESS)).worker == "w2"


async def test_a_second_session_under_a_live_name_is_refused(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker("w1") as first, lab.worker("w1") as second:
        await first.beat(token())
        job = await lab.submit()
        grant = await first.grant_of(job)
        await second.beat(token(), token())
        await second.inbox.until(Refuse)
        await second.beat(token(), token())
        await second.inbox.until(Refuse, nth=2)
        await first.succeed(grant)
        await lab.job_is(job, JobStatus.SUCCESS)
        waiting = await lab.submit()
        await lab.job_is(waiting, JobStatus.PENDING, reason=Reason.BUSY)
        assert second.inbox.of(Grant) == []
        assert [e.state for e in lab.events.of(WorkerEvent)] == ["joined", "refused"]


async def test_a_worker_not_heard_is_lost_and_may_come_back(lab: Lab) -> None:
    async with lab.dispatcher(lease=1.0), lab.worker("w1") as silent:
        await silent.beat(token())
        job = await lab.submit()
        grant = await silent.grant_of(job)
        await silent.run(grant)
        await lab.events.until(WorkerEvent, lambda e: e.state == "lost")
        await lab.job_is(job, JobStatus.PENDING, reason=Reason.LOST)
        await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER, nth=1)

        await silent.beat(token(), held=(held(grant, AttemptState.RUNNING, 1),))
        await silent.inbox.until(Abandon, lambda order: order.grant == grant.grant)
        again = await silent.grant_of(job, nth=2)
        assert again.attempt == 2
        await silent.succeed(again)
        await lab.job_is(job, JobStatus.SUCCESS)


async def test_the_third_started_attempt_lost_fails_the_job(lab: Lab) -> None:
    async with lab.dispatcher():
        job = await lab.submit()
        spool = token()
        for attempt in range(1, 4):
            async with lab.worker("w1", spool=spool) as worker:
                await worker.beat(token())
                grant = await worker.grant_of(job)
                assert grant.attempt == attempt
                await worker.run(grant)
                await lab.job_is(job, JobStatus.RUNNING, nth=attempt)
                await worker.beat(closing=True)
                if attempt < 3:
                    await lab.job_is(job, JobStatus.PENDING, reason=Reason.LOST, nth=attempt)
        ended = await lab.job_is(job, JobStatus.FAILED)
        assert (ended.reason, ended.attempt) == (Reason.LOST, 3)
        lab.course(job)


async def test_a_job_that_outlives_its_limit_is_ended_here(lab: Lab) -> None:
    async with lab.dispatcher(lease=1.0, overrun=0.5, time_limit=1.0), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        grant = await worker.grant_of(job)
        await worker.run(grant)
        async with asyncio.timeout(20):
            while not worker.inbox.of(Abandon):
                await worker.beat(held=(held(grant, AttemptState.RUNNING, 1),))
                await asyncio.sleep(0.1)  # as a worker does
        assert worker.inbox.of(Abandon)[0].grant == grant.grant
        assert (await lab.job_is(job, JobStatus.TIMEOUT)).reason is Reason.TIME_LIMIT


async def test_statuses_may_repeat_and_overtake_each_other(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        grant = await worker.grant_of(job)
        await worker.succeed(grant, seq=9)
        await worker.status(grant, AttemptState.RUNNING, seq=8)
        await worker.succeed(grant, seq=9)
        await worker.inbox.until(Settle, nth=2)
        await lab.job_is(job, JobStatus.SUCCESS)
        assert lab.course(job)[-2:] == ["running", "success"]
        assert worker.inbox.of(Abandon) == []


async def test_nobody_speaks_for_another_workers_grant(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker("w1") as owner, lab.worker("w2") as thief:
        await owner.beat(token())
        await thief.beat()
        job = await lab.submit()
        grant = await owner.grant_of(job)
        await thief.succeed(grant)
        await thief.inbox.until(Abandon, lambda order: order.grant == grant.grant)
        await thief.beat(held=(held(grant),))
        await thief.inbox.until(Abandon, nth=2)
        await owner.succeed(grant)
        assert (await lab.job_is(job, JobStatus.SUCCESS)).worker == "w1"


async def test_a_withdrawn_offer_leaves_its_jobs_without_a_worker(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        worker.offer = Capabilities()
        await worker.beat(token())
        await lab.events.until(WorkerEvent, lambda e: e.state == "changed")
        job = await lab.submit()
        await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        worker.offer = OFFER
        await worker.beat(token())
        assert (await worker.grant_of(job)).facts.job == job
