"""Commands about jobs and workers over the broker; and what can't be read."""

import asyncio

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractIncomingMessage

from leveret_proto import keys, permissions
from leveret_proto.capability import Capabilities, Requirement
from leveret_proto.envelope import pack, unpack, unpack_as
from leveret_proto.messages import (
    AttemptState,
    Cancel,
    CancelJob,
    CancelReply,
    CommandFailed,
    ExplainJob,
    ExplainReply,
    JobReply,
    JobStatus,
    ListJobs,
    ListReply,
    ListWorkers,
    Message,
    PrioritizeJob,
    Reason,
    RetryJob,
    ShowJob,
    Submission,
    SubmissionAccepted,
    WorkerBeat,
    WorkerEvent,
    WorkersReply,
)
from leveret_proto.topology import (
    COMMANDS,
    DISPATCHER_COMMANDS,
    DISPATCHER_JOBS,
    DISPATCHER_STATUS,
    DISPATCHER_WORKERS,
    INTAKE_SUBMISSIONS,
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


async def test_a_queued_job_is_cancelled_by_its_worker(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        grant = await worker.grant_of(job)
        for _ in range(2):
            answer = await cancel(lab, job)
            assert answer.cancelled and answer.job is not None and answer.job.status is JobStatus.QUEUED
        assert (await worker.inbox.until(Cancel)).grant == grant.grant
        await worker.status(grant, AttemptState.ENDED, result=JobStatus.CANCELLED, reason=Reason.CANCELLED)
        await lab.job_is(job, JobStatus.CANCELLED)
        assert lab.course(job)[-2:] == ["queued", "cancelled"]


async def test_a_job_that_waits_for_another_is_cancelled_at_once(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token(), token())
        first = await lab.submit()
        grant = await worker.grant_of(first)
        waiting = await lab.submit(depends_on=(first,))
        await lab.job_is(waiting, JobStatus.PENDING, reason=Reason.DEPENDENCY)
        assert (await cancel(lab, waiting)).cancelled
        await lab.job_is(waiting, JobStatus.CANCELLED, reason=Reason.CANCELLED)
        await worker.succeed(grant)
        await lab.job_is(first, JobStatus.SUCCESS)
        await worker.grant_of(await lab.submit())  # the slot that is left is for the next one
        assert lab.course(waiting)[-1] == "cancelled"


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


async def refused(lab: Lab, command: Message, code: str, owner: str = "~alice") -> CommandFailed:
    answer = await lab.command(command, owner)
    assert isinstance(answer, CommandFailed) and answer.code == code, answer
    return answer


async def submissions(lab: Lab) -> asyncio.Queue[AbstractIncomingMessage]:
    """Submissions on their way to intake, which is not there."""
    arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await (await lab.channel.get_queue(INTAKE_SUBMISSIONS, ensure=False)).consume(arrived.put, no_ack=True)
    return arrived


async def test_an_ended_job_is_submitted_again_and_intake_answers_the_asker(lab: Lab) -> None:
    await lab.vhost.provision({"alice": permissions.submitter(("~alice",))})
    connection = await aio_pika.connect(lab.vhost.url("alice"))
    async with connection, lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit(
            visibility="private", note="a note", priority=7, secrets=False, depends_on=(), group="g",
            manifest={"environment": {"A": "1"}},
        )  # fmt: skip
        await worker.succeed(await worker.grant_of(job))
        await lab.job_is(job, JobStatus.SUCCESS)

        channel = await connection.channel()
        answers: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await (await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)).consume(answers.put, no_ack=True)
        asked = pack(RetryJob(job=job))
        message = aio_pika.Message(
            asked.body, type=asked.type, message_id="mine", reply_to="amq.rabbitmq.reply-to", correlation_id="c"
        )
        target = await channel.get_exchange(COMMANDS, ensure=False)
        ids = set()
        sent = await submissions(lab)
        for _ in range(2):  # the same command, the same submission
            await target.publish(message, keys.command("retry", "~alice"))
            async with asyncio.timeout(20):
                again = await sent.get()
            ids.add(again.message_id)
        assert len(ids) == 1 and again.message_id
        assert (again.routing_key, again.correlation_id) == ("~alice.p", "c")
        submission = unpack_as(Submission, again.body, again.type)
        assert (submission.visibility, submission.note, submission.priority) == ("private", "a note", 7)
        assert (submission.secrets, submission.retry_of, submission.group) == (False, job, None)
        grant = await worker.grant_of(job)
        assert submission.manifest == grant.manifest.to_yaml()

        # as intake answers: under its own account, to where the submission says
        service = await aio_pika.connect(lab.vhost.url("intake"))
        async with service:
            accepted = pack(SubmissionAccepted(submission=again.message_id, job=2, owner="~alice"))
            await (await service.channel()).default_exchange.publish(
                aio_pika.Message(accepted.body, type=accepted.type, correlation_id=again.correlation_id),
                again.reply_to or "",
            )
            async with asyncio.timeout(20):
                answer = await answers.get()
        told = unpack(answer.body, answer.type)
        assert isinstance(told, SubmissionAccepted) and told.job == 2 and answer.correlation_id == "c"


async def test_only_an_ended_job_of_ones_own_is_run_again(lab: Lab) -> None:
    async with lab.dispatcher():
        job = await lab.submit(visibility="public")
        await lab.job_is(job, JobStatus.PENDING)
        failed = await refused(lab, RetryJob(job=job), "conflict")
        assert failed.message == "job 1 is pending: only a job that has ended is run again"
        await refused(lab, RetryJob(job=99), "not-found")
        await cancel(lab, job)
        await refused(lab, RetryJob(job=job), "not-found", "~mallory")
        # without a message_id nobody could tell a repeated command from a new one
        properties = {"type": "command.retry.v1", "reply_to": lab.reply_queue}
        body = {"properties": properties, "routing_key": "retry.~alice", "payload": '{"job": 1}'}
        await lab.vhost.api(
            "POST", f"exchanges/{lab.vhost.name}/{COMMANDS}/publish", body | {"payload_encoding": "string"}
        )
        await lab.replies.until(CommandFailed, lambda answer: answer.code == "bad-request")
        intake = await lab.channel.get_queue(INTAKE_SUBMISSIONS, ensure=False)
        assert await intake.get(fail=False) is None


async def test_a_waiting_job_changes_its_priority_and_its_place(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        first, second = await lab.submit(), await lab.submit()
        await lab.job_is(second, JobStatus.PENDING, reason=Reason.NO_WORKER)
        answer = await lab.command(PrioritizeJob(job=second, priority=9))
        assert isinstance(answer, JobReply) and answer.job.priority == 9
        shown = await lab.command(ShowJob(job=second))
        assert isinstance(shown, JobReply) and shown.job.priority == 9
        await worker.beat(token())
        await worker.grant_of(second)
        assert (await refused(lab, PrioritizeJob(job=second, priority=0), "conflict")).code == "conflict"
        await refused(lab, PrioritizeJob(job=first, priority=0), "not-found", "~mallory")
        await refused(lab, PrioritizeJob(job=99, priority=0), "not-found")
        await worker.beat(token(), held=(held(await worker.grant_of(second)),))
        await worker.grant_of(first)


async def explained(lab: Lab, job: int, owner: str = "~alice") -> ExplainReply:
    answer = await lab.command(ExplainJob(job=job), owner)
    assert isinstance(answer, ExplainReply), answer
    return answer


async def test_a_waiting_job_is_explained(lab: Lab) -> None:
    large = Capabilities(images=OFFER.images, tags=("disk=large",))
    async with lab.dispatcher(owner_running=1), lab.worker("w1") as small, lab.worker("w2", offer=large) as other:
        await small.beat(token())
        await other.beat()
        running = await lab.submit()
        await small.grant_of(running)
        wanted = Requirement(arch="x86_64", image="debian/trixie", tags=("disk=large",))
        jobs = [await lab.submit(requirement=wanted) for _ in range(3)]
        await lab.submit(requirement=wanted, owner="~bob")
        dependent = await lab.submit(depends_on=(running,))
        await lab.job_is(dependent, JobStatus.PENDING, reason=Reason.DEPENDENCY)
        await lab.job_is(jobs[2], JobStatus.PENDING, reason=Reason.LIMIT)
        reply = await explained(lab, jobs[2])
        assert reply.place is not None
        place = reply.place
        assert (place.place, place.waiting, place.owners, place.running, place.limit) == (3, 3, 2, 1, 1)
        assert [(match.worker, match.lack, match.lacks) for match in reply.workers] == [
            ("w2", None, None), ("w1", "tags", "disk=large"),
        ]  # fmt: skip
        assert (await explained(lab, dependent)).depends_on == (running,)
        assert (await explained(lab, running)).place is None
        await refused(lab, ExplainJob(job=running), "not-found", "~mallory")


async def test_the_live_workers_are_listed_by_name(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker("w1") as first, lab.worker("w2") as second:
        await first.beat(token(), token())
        await second.beat(token(), draining=True)
        job = await lab.submit()
        await first.grant_of(job)
        answer = await lab.command(ListWorkers(limit=1))
        assert isinstance(answer, WorkersReply) and answer.more
        (view,) = answer.workers
        assert (view.worker, view.slots, view.free, view.running, view.draining) == ("w1", 4, 1, 1, False)
        assert view.capabilities == OFFER
        answer = await lab.command(ListWorkers(after="w1"))
        assert isinstance(answer, WorkersReply) and not answer.more
        assert [(view.worker, view.draining) for view in answer.workers] == [("w2", True)]


@pytest.mark.parametrize(
    ("word", "type_"),
    [("show", "command.cancel.v1"), ("dead-list", "command.dead-list.v1"), ("cancel", "command.dead-drop.v1"),
     ("history", "command.show.v1")],
)  # fmt: skip
async def test_a_word_takes_no_other_type_than_its_own(lab: Lab, word: str, type_: str) -> None:
    """Else `cancel`, which every submitter may say, could carry what is for operators alone."""
    async with lab.dispatcher():
        queue = await lab.channel.get_queue(DISPATCHER_COMMANDS, ensure=False)
        await queue.bind(COMMANDS, f"{word}.#")
        await raw(lab, COMMANDS, f"{word}.~alice", b'{"job": 1, "letters": [1]}', type_, lab.reply_queue)
        failed = await lab.replies.until(CommandFailed)
        assert (failed.code, failed.message) == ("bad-request", f"{type_} is not what {word!r} takes")


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
