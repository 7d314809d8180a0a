"""Workers that are given no jobs: drained by an operator, or quarantined after faults; and how both end."""

import asyncio

import pytest

from leveret_proto.messages import (
    AttemptState,
    CommandFailed,
    Drain,
    DrainWorker,
    ExplainJob,
    ExplainReply,
    Grant,
    JobEvent,
    JobStatus,
    ListWorkers,
    Reason,
    Resume,
    ResumeWorker,
    WorkerEvent,
    WorkerReply,
    WorkersReply,
    WorkerView,
)
from tests.integration.dispatcher.dispatcher_lab import FakeWorker, Lab, token

OPS = "~ops"


async def drain(lab: Lab, name: str = "w1", limit: float | None = None) -> WorkerReply:
    answer = await lab.command(DrainWorker(worker=name, limit=limit), OPS)
    assert isinstance(answer, WorkerReply), answer
    return answer


async def resume(lab: Lab, name: str = "w1") -> WorkerReply:
    answer = await lab.command(ResumeWorker(worker=name), OPS)
    assert isinstance(answer, WorkerReply), answer
    return answer


async def listed(lab: Lab) -> dict[str, WorkerView]:
    answer = await lab.command(ListWorkers(), OPS)
    assert isinstance(answer, WorkersReply)
    return {view.worker: view for view in answer.workers}


async def told(lab: Lab, state: str, *, nth: int = 1) -> WorkerEvent:
    return await lab.events.until(WorkerEvent, lambda event: event.state == state, nth=nth)


async def fault(worker: FakeWorker, grant: Grant, why: str = "the worker's spool can't take it") -> None:
    """Hand a job back as a worker does that can't take it, and claim the slot anew."""
    await worker.status(grant, AttemptState.ENDED, reason=Reason.WORKER_FAULT, detail=why)


async def quarantine(lab: Lab, worker: FakeWorker, job: int, faults: int) -> None:
    for nth in range(1, faults + 1):
        await worker.claim(token())
        await fault(worker, await worker.grant_of(job, nth=nth))
    await told(lab, "quarantined")


async def test_a_drained_worker_is_given_no_jobs_until_it_is_resumed(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token(), token())
        running = await lab.submit()
        grant = await worker.grant_of(running)
        await worker.run(grant)
        reply = await drain(lab, limit=60)
        assert (reply.live, reply.running) == (True, 1)
        assert reply.halt is not None and (reply.halt.kind, reply.halt.why) == ("drained", "drained by ~ops")
        assert (await worker.inbox.until(Drain)).limit == 60
        assert (await told(lab, "draining")).detail == "drained by ~ops"

        waiting = await lab.submit()
        event = await lab.job_is(waiting, JobStatus.PENDING, reason=Reason.NO_WORKER)
        assert (event.detail or "").endswith("w1 could, but is drained by ~ops")
        explained = await lab.command(ExplainJob(job=waiting))
        assert isinstance(explained, ExplainReply)
        assert [(match.worker, match.draining, match.halt) for match in explained.workers] == [("w1", True, reply.halt)]
        view = (await listed(lab))["w1"]
        assert (view.live, view.draining, view.halt) == (True, True, reply.halt)

        # what ran goes on, and what it says counts
        await worker.beat(draining=True, drained=True)
        await worker.succeed(grant)
        await lab.job_is(running, JobStatus.SUCCESS)
        assert worker.inbox.of(Resume) == []

        assert (await resume(lab)).halt is None
        await worker.inbox.until(Resume)
        assert (await told(lab, "resumed")).detail == "by ~ops"
        await worker.beat(token())
        await worker.succeed(await worker.grant_of(waiting))
        await lab.job_is(waiting, JobStatus.SUCCESS)
        assert [e.state for e in lab.events.of(WorkerEvent)] == ["joined", "draining", "resumed"]


async def test_a_drained_worker_stays_drained_through_its_restart_and_the_dispatchers(lab: Lab) -> None:
    async with lab.dispatcher():
        async with lab.worker("w1") as before:
            await before.beat(token())
            await told(lab, "joined")
            await drain(lab)
            await before.beat(draining=True, drained=True, closing=True)
            await told(lab, "left")
        away = (await listed(lab))["w1"]
        assert (away.live, away.slots, away.halt and away.halt.kind) == (False, 0, "drained")
    async with lab.dispatcher(), lab.worker("w1", spool=before.spool) as after:
        await after.beat(token())
        assert (await told(lab, "joined", nth=2)).detail == "drained by ~ops"
        await after.inbox.until(Drain)
        job = await lab.submit()
        await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        # a beat from before the order came is answered with it again
        await after.beat(token())
        await after.inbox.until(Drain, nth=2)
        await after.beat(draining=True, drained=True)
        await resume(lab)
        await after.inbox.until(Resume)
        # and so is one from before it was resumed
        await after.beat(draining=True, drained=True)
        await after.inbox.until(Resume, nth=2)
        await after.beat(token())
        await after.grant_of(job)
        assert len(after.inbox.of(Grant)) == 1


async def test_orders_may_be_repeated_and_a_name_that_nobody_has_is_told(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat()
        await told(lab, "joined")
        first = await drain(lab)
        await worker.inbox.until(Drain)
        again = await drain(lab, limit=5)
        assert first.halt == again.halt
        assert (await worker.inbox.until(Drain, nth=2)).limit == 5
        await resume(lab)
        await resume(lab)
        for command in (DrainWorker(worker="w3"), ResumeWorker(worker="w3")):
            refused = await lab.command(command, OPS)
            assert isinstance(refused, CommandFailed) and refused.code == "not-found"
        await told(lab, "resumed")
        await drain(lab)
        await told(lab, "draining", nth=2)
        states = [event.state for event in lab.events.of(WorkerEvent)]
        assert states == ["joined", "draining", "resumed", "draining"]


async def test_a_worker_that_stops_by_itself_is_not_told_to_resume(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat()
        await worker.beat(draining=True)
        await told(lab, "draining")
        await resume(lab)
        await worker.beat(draining=True)
        await worker.beat(draining=True, closing=True)
        await told(lab, "left")
        assert worker.inbox.of(Resume) == []


async def test_faults_in_a_row_put_a_worker_into_quarantine_until_it_is_resumed(lab: Lab) -> None:
    async with lab.dispatcher(quarantine_after=3), lab.worker("w1") as worker:
        await worker.beat()
        await told(lab, "joined")
        job = await lab.submit()
        await quarantine(lab, worker, job, 3)
        why = "3 faults in a row, the last: the worker's spool can't take it"
        assert (await told(lab, "quarantined")).detail == why
        event = await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        assert (event.detail or "").endswith(f"w1 could, but is quarantined after {why}")
        await worker.claim(token())
        view = (await listed(lab))["w1"]
        assert view.halt is not None and (view.halt.kind, view.halt.why) == ("quarantined", f"quarantined after {why}")
        assert len(worker.inbox.of(Grant)) == 3
    async with lab.dispatcher(quarantine_after=3), lab.worker("w1", spool=worker.spool) as again:
        await again.beat(token())
        assert (await told(lab, "joined", nth=2)).detail == f"restarted; quarantined after {why}"
        assert (await resume(lab)).halt is None
        grant = await again.grant_of(job)
        assert grant.attempt == 4
        # the count starts afresh, and the job has lost nothing by it
        await fault(again, grant)
        await again.claim(token())
        await again.succeed(await again.grant_of(job, nth=2))
        await lab.job_is(job, JobStatus.SUCCESS)


async def test_an_attempt_that_ends_well_ends_a_quarantine(lab: Lab) -> None:
    async with lab.dispatcher(quarantine_after=2), lab.worker() as worker:
        await worker.beat(token())
        running = await lab.submit()
        grant = await worker.grant_of(running)
        await worker.run(grant)
        job = await lab.submit()
        await quarantine(lab, worker, job, 2)
        await worker.succeed(grant)
        await lab.job_is(running, JobStatus.SUCCESS)
        assert (await told(lab, "resumed")).detail == f"job {running} ended well"
        await worker.claim(token())
        await worker.succeed(await worker.grant_of(job, nth=3))
        await lab.job_is(job, JobStatus.SUCCESS)


async def test_boots_that_fail_are_faults_and_the_next_jobs_go_elsewhere(lab: Lab) -> None:
    async with lab.dispatcher(quarantine_after=2), lab.worker("w1") as sick, lab.worker("w2") as sound:
        await sick.beat()
        for _ in range(2):
            await sick.claim(token())
            job = await lab.submit()
            grant = await sick.grant_of(job)
            await sick.status(
                grant, AttemptState.ENDED, result=JobStatus.FAILED, reason=Reason.BOOT_FAILED, detail="console: secret"
            )
            await lab.job_is(job, JobStatus.FAILED, reason=Reason.BOOT_FAILED)
        assert (await told(lab, "quarantined")).detail == "2 faults in a row, the last: boot-failed"
        await sick.claim(token())
        await sound.beat(token())
        await sound.grant_of(await lab.submit())
        assert len(sick.inbox.of(Grant)) == 2


@pytest.mark.parametrize("reason", [Reason.HANDED_BACK, None])
async def test_what_a_draining_worker_hands_back_is_no_fault(lab: Lab, reason: Reason | None) -> None:
    async with lab.dispatcher(quarantine_after=1), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        await worker.status(await worker.grant_of(job), AttemptState.ENDED, reason=reason)
        await lab.job_is(job, JobStatus.PENDING, reason=Reason.HANDED_BACK)
        await worker.claim(token())
        await worker.succeed(await worker.grant_of(job, nth=2))
        await lab.job_is(job, JobStatus.SUCCESS)


async def test_a_worker_that_beats_and_takes_no_grant_is_quarantined_and_its_slot_is_not_lost(lab: Lab) -> None:
    """As a worker too old to hand back what it can't read."""
    async with lab.dispatcher(lease=1.0, quarantine_after=2), lab.worker() as deaf:
        slot = token()
        await deaf.beat(slot)
        await told(lab, "joined")
        job = await lab.submit()
        async with asyncio.timeout(20):
            while not [event for event in lab.events.of(WorkerEvent) if event.state == "quarantined"]:
                await deaf.beat(slot)
                await asyncio.sleep(0.1)  # as a worker does
        event = await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        assert (event.detail or "").endswith("after 2 faults in a row, the last: it beats, and takes no grant")
        assert {(grant.attempt, grant.token) for grant in deaf.inbox.of(Grant)} == {(1, slot), (2, slot)}
        backs = [e.detail for e in lab.events.of(JobEvent) if e.reason is Reason.HANDED_BACK]
        assert backs == ["worker w1 did not take it"] * 2
