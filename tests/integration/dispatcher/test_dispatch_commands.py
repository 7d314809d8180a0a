"""Cancel, show and list over the broker; and what can't be read."""

import asyncio

import aio_pika
import asyncpg

from leveret_proto.messages import (
    AttemptState,
    Cancel,
    CancelJob,
    CancelReply,
    CommandFailed,
    JobReply,
    JobStatus,
    ListJobs,
    ListReply,
    Reason,
    ShowJob,
    WorkerBeat,
    WorkerEvent,
)
from leveret_proto.topology import (
    COMMANDS,
    DEAD,
    DISPATCHER_COMMANDS,
    DISPATCHER_JOBS,
    DISPATCHER_STATUS,
    DISPATCHER_WORKERS,
    JOBS,
    STATUS,
    WORKERS,
)
from tests.integration.dispatcher.dispatcher_lab import OFFER, Lab, held, publish, ready_job, token


async def cancel(lab: Lab, job: int, owner: str = "~alice") -> CancelReply:
    answer = await lab.command(CancelJob(job=job), owner)
    assert isinstance(answer, CancelReply), answer
    return answer


async def test_a_waiting_job_is_cancelled_at_once_and_again(lab: Lab) -> None:
    async with lab.dispatcher():
        job = await lab.submit()
        await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        for _ in range(2):
            answer = await cancel(lab, job)
            assert answer.cancelled and answer.job is not None and answer.job.status is JobStatus.CANCELLED
        await lab.job_is(job, JobStatus.CANCELLED)
        assert lab.course(job) == ["pending", "pending", "cancelled"]


async def test_a_cancel_that_comes_before_its_job_is_remembered_for_its_owner(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        assert (await cancel(lab, 1)) == CancelReply(cancelled=True)
        assert (await cancel(lab, 2, "~mallory")).cancelled  # of no effect: the job will be alice's
        first, second = await lab.submit(), await lab.submit()
        await lab.job_is(first, JobStatus.CANCELLED)
        await worker.grant_of(second)
        assert lab.course(first) == ["pending", "cancelled"]


async def test_remembered_cancels_are_bounded(lab: Lab) -> None:
    async with lab.dispatcher(cancellations_most=1):
        assert (await cancel(lab, 1)).cancelled
        answer = await lab.command(CancelJob(job=2))
        assert isinstance(answer, CommandFailed) and answer.code == "unavailable"


async def test_a_running_job_is_cancelled_by_its_worker(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        grant = await worker.grant_of(job)
        await worker.run(grant)
        await lab.job_is(job, JobStatus.RUNNING)
        answer = await cancel(lab, job)
        assert answer.cancelled and answer.job is not None and answer.job.status is JobStatus.RUNNING
        assert (await worker.inbox.until(Cancel)).grant == grant.grant
        await worker.beat(held=(held(grant, AttemptState.RUNNING, 1),))
        await worker.inbox.until(Cancel, nth=2)  # a lost order is repeated
        await worker.status(grant, AttemptState.ENDED, result=JobStatus.CANCELLED, reason=Reason.CANCELLED)
        await lab.job_is(job, JobStatus.CANCELLED)


async def test_a_granted_job_whose_worker_is_gone_is_cancelled_with_the_lease(lab: Lab) -> None:
    async with lab.dispatcher(lease=1.0), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        await worker.grant_of(job)
        assert (await cancel(lab, job)).cancelled
        await lab.events.until(WorkerEvent, lambda e: e.state == "lost")
        await lab.job_is(job, JobStatus.CANCELLED)
        assert lab.course(job)[-1] == "cancelled"


async def test_an_ended_job_is_not_cancelled(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        await worker.succeed(await worker.grant_of(job))
        await lab.job_is(job, JobStatus.SUCCESS)
        answer = await cancel(lab, job)
        assert not answer.cancelled and answer.job is not None and answer.job.status is JobStatus.SUCCESS


async def test_only_its_owner_may_cancel_or_see_a_job_unless_it_is_public(lab: Lab) -> None:
    async with lab.dispatcher():
        hidden, public = await lab.submit(), await lab.submit(visibility="public")
        for job in (hidden, public):
            await lab.job_is(job, JobStatus.PENDING)
            answer = await lab.command(CancelJob(job=job), "~mallory")
            assert isinstance(answer, CommandFailed) and answer.code == "not-found"
        assert isinstance(await lab.command(ShowJob(job=hidden), "~mallory"), CommandFailed)
        shown = await lab.command(ShowJob(job=public), "~mallory")
        assert isinstance(shown, JobReply) and shown.job.facts.owner == "~alice"
        mine = await lab.command(ShowJob(job=hidden))
        assert isinstance(mine, JobReply) and mine.job.status is JobStatus.PENDING
        assert isinstance(await lab.command(ShowJob(job=99)), CommandFailed)


async def test_the_list_is_the_owners_newest_first_and_pages(lab: Lab) -> None:
    async with lab.dispatcher():
        jobs = [await lab.submit() for _ in range(3)]
        await lab.job_is(await lab.submit(owner="~bob"), JobStatus.PENDING)
        await cancel(lab, jobs[1])
        first = await lab.command(ListJobs(limit=2))
        assert isinstance(first, ListReply)
        assert ([view.facts.job for view in first.jobs], first.more) == ([3, 2], True)
        rest = await lab.command(ListJobs(limit=2, before=2))
        assert isinstance(rest, ListReply) and ([view.facts.job for view in rest.jobs], rest.more) == ([1], False)
        cancelled = await lab.command(ListJobs(statuses=(JobStatus.CANCELLED,)))
        assert isinstance(cancelled, ListReply) and [view.facts.job for view in cancelled.jobs] == [2]


async def raw(lab: Lab, exchange: str, key: str, body: bytes, type_: str, reply_to: str | None = None) -> None:
    target = await lab.channel.get_exchange(exchange, ensure=False)
    await target.publish(aio_pika.Message(body, type=type_, reply_to=reply_to), key)


async def until_dead(lab: Lab, queue: str) -> list[asyncpg.Record]:
    """Wait until a letter from `queue` is filed, and give all that are. The answer to a command paces the looks."""
    async with asyncio.timeout(20):
        await lab.command(ListJobs())  # once it is answered, the tables are there
        connection = await asyncpg.connect(lab.database.dsn)
        try:
            while True:
                rows = await connection.fetch("select * from dispatch.dead order by id")
                if any(row["queue"] == queue for row in rows):
                    return rows
                await lab.command(ListJobs())
        finally:
            await connection.close()


async def test_what_cannot_be_read_is_filed_and_the_rest_goes_on(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await raw(lab, JOBS, "x.y.any", b"\xff\x00 no json", "job.ready.v1")
        await raw(lab, STATUS, "w1.1.1", b"{}", "attempt.status.v1")
        await raw(lab, WORKERS, "w1", b"[" * 100_000, "worker.beat.v1")
        await raw(lab, COMMANDS, "cancel.~alice", b'{"job": 1}', "command.show.v1", lab.reply_queue)
        await publish(lab.channel, JOBS, "x.y.any", ready_job(7, note="nul \0 is kept"))
        await worker.beat(token())
        await worker.succeed(await worker.grant_of(7), detail="nul \0 too")
        await lab.job_is(7, JobStatus.SUCCESS)
        failed = lab.replies.of(CommandFailed)
        assert [answer.code for answer in failed] == ["bad-request"]
        lab.replies.all.clear()
        for queue in (DISPATCHER_JOBS, DISPATCHER_STATUS, DISPATCHER_WORKERS, DISPATCHER_COMMANDS):
            filed = await until_dead(lab, queue)
            assert all(row["reason"] != "unknown" and row["sha256"] for row in filed)


async def test_a_worker_that_names_another_in_its_body_is_not_believed(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker("w1") as worker:
        beat = WorkerBeat(
            worker="w2",
            session=worker.session,
            spool=worker.spool,
            beat=1,
            capabilities=OFFER,
            slots=1,
            tokens=(token(),),
        )
        await publish(worker.channel, WORKERS, "w1", beat)
        (filed,) = await until_dead(lab, DISPATCHER_WORKERS)
        assert filed["reason"] == "the routing key is worker 'w1''s, the body says 'w2'"
        assert lab.events.of(WorkerEvent) == []


async def test_dead_letters_are_bounded_and_keep_their_history(lab: Lab) -> None:
    async with lab.dispatcher(dead_most=3):
        for number in range(6):
            await raw(lab, DEAD, f"queue.{number}", b"x" * 100_000, "t")
        filed = await until_dead(lab, "queue.5")
        assert [row["queue"] for row in filed] == ["queue.3", "queue.4", "queue.5"]
        assert (filed[0]["bytes"], len(filed[0]["body"])) == (100_000, 64 * 1024)
