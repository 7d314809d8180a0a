"""One submission from its delivery to its ack: judge, store, hand on, answer. Read `Intake.handle` top to bottom.

Every step may be repeated after a crash: the row is found again by its `message_id`, the dispatcher knows jobs by their
id, and an answer given twice is the same answer.
"""

import asyncio

import structlog
from aio_pika.abc import AbstractIncomingMessage

from leveret_intake.decide import Accept, Envelope, Reject, conflict, decide, unknown_jobs
from leveret_intake.failpoints import BEFORE_ACK, BETWEEN_COMMIT_AND_PUBLISH
from leveret_intake.metrics import SUBMISSION_SECONDS, SUBMISSIONS
from leveret_intake.store import Store, Stored, UnknownJobs
from leveret_proto import keys
from leveret_proto.base import JobFacts, Message
from leveret_proto.envelope import Parcel, pack
from leveret_proto.manifest import Limits
from leveret_proto.messages import ReadyJob, SubmissionAccepted, SubmissionEvent
from leveret_proto.topology import EVENTS, INTAKE_SUBMISSIONS, JOBS, RECORD, REPLY_QUEUES
from leveret_runtime.away import backoff
from leveret_runtime.broker import Publisher, Refused, Unroutable, settle
from leveret_runtime.dead import file_dead
from leveret_runtime.failpoints import failpoint
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

APP = "intake"


class Intake:
    """Handles submissions over one connection."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        public: Publisher,
        stop: asyncio.Event,
        *,
        limits: Limits,
        default_arch: str,
    ) -> None:
        """`publisher` confirms; `public` does not, for copies and answers that nobody's safety rests on."""
        self._store = store
        self._publisher = publisher
        self._public = public
        self._stop = stop
        self._limits = limits
        self._default_arch = default_arch

    async def handle(self, message: AbstractIncomingMessage) -> None:
        """Take one delivery to its end. Raises Away; then nothing was acked, and the delivery comes again."""
        with SUBMISSION_SECONDS.time():
            await self._handle(message)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        decision = decide(_envelope(message), message.body, self._limits, self._default_arch)
        if isinstance(decision, Reject):
            await self._reject(message, decision)
            return
        try:
            stored = await self._store.record(decision, bool(message.redelivered))
        except UnknownJobs as unknown:
            await self._reject(message, unknown_jobs(decision, unknown.jobs))
            return
        if stored.digest != decision.digest:
            await self._reject(message, conflict(decision, stored.job))
            return
        failpoint(BETWEEN_COMMIT_AND_PUBLISH)
        if not stored.handed_on:
            if not await self._hand_on(ready_job(decision, stored)):
                return  # stopping; unacked, so it comes again
            await self._store.handed_on(stored.job)
        await self._answer(message, accepted_answer(decision, stored))
        failpoint(BEFORE_ACK)
        await settle(message)
        if decision.message_id is None:
            await self._store.settled(stored.job)
        SUBMISSIONS.labels("known" if stored.known else "accepted").inc()
        log.info("accepted", job=stored.job, owner=decision.owner, known=stored.known)

    async def _hand_on(self, job: ReadyJob) -> bool:
        return await self._publish(JOBS, job.requirement.key, pack(job))

    async def _reject(self, message: AbstractIncomingMessage, reject: Reject) -> None:
        """Tell the submitter and the record; file what could not even be read."""
        if reject.owner is not None and reject.project is not None:
            event = SubmissionEvent(
                owner=reject.owner,
                project=reject.project,
                visibility=reject.visibility,
                submission=reject.answer.submission,
                reason=reject.answer.reason,
                message=reject.answer.message,
                diagnostics=reject.answer.diagnostics,
                at=await self._store.now(),
            )
            key = keys.submission_event(event.visibility, event.owner)
            parcel = pack(event)
            if not await self._publish(RECORD, key, parcel):
                return
            await self._public.send(EVENTS, key, parcel, app=APP, mandatory=False)
        await self._answer(message, reject.answer)
        SUBMISSIONS.labels(reject.answer.reason).inc()
        log.info("rejected", owner=reject.owner, reason=reject.answer.reason, message=reject.answer.message)
        failpoint(BEFORE_ACK)
        if reject.fatal:
            reason = f"{reject.answer.reason}: {reject.answer.message}"
            await file_dead(self._publisher, message, INTAKE_SUBMISSIONS, reason, app=APP)
        else:
            await settle(message)

    async def _publish(self, exchange: str, key: str, parcel: Parcel) -> bool:
        """Publish until the broker has taken it; False where the service stops first."""
        for delay in backoff():
            try:
                await self._publisher.send(exchange, key, parcel, app=APP)
            except (Refused, Unroutable) as error:
                log.warning("not taken, will be repeated", reason=str(error), seconds=round(delay, 1))
                await pause(delay, self._stop)
                if self._stop.is_set():
                    return False
            else:
                return True
        return False

    async def _answer(self, message: AbstractIncomingMessage, answer: Message) -> None:
        """Answer where an answer was asked for. Whether it arrives is the submitter's affair: asking again is safe."""
        reply_to = message.reply_to
        if not reply_to:
            return
        if not reply_to.startswith(REPLY_QUEUES):
            log.warning("no answer to a queue that is not a reply queue", reply_to=reply_to[:80])
            return
        await self._public.send(
            "", reply_to, pack(answer), app=APP, mandatory=False, correlation_id=message.correlation_id
        )


def ready_job(accepted: Accept, stored: Stored) -> ReadyJob:
    """Give the job as the dispatcher gets it."""
    submission = accepted.submission
    return ReadyJob(
        facts=JobFacts(
            job=stored.job,
            owner=accepted.owner,
            project=accepted.project,
            visibility=submission.visibility,
            submission=stored.message_id,
            tags=submission.tags,
            note=submission.note,
            group=submission.group,
            retry_of=submission.retry_of,
            link=stored.link,
        ),
        # said outright, so that no worker has to guess what the installation's default is
        manifest=accepted.manifest.model_copy(update={"arch": accepted.requirement.arch}),
        requirement=accepted.requirement,
        priority=submission.priority,
        secrets=submission.secrets,
        depends_on=tuple(dict.fromkeys(submission.depends_on)),
        submitter=accepted.submitter,
        time_limit=accepted.manifest.leveret.time_limit,
        queue_deadline=accepted.manifest.leveret.queue_deadline,
        submitted_at=stored.submitted_at,
    )


def accepted_answer(accepted: Accept, stored: Stored) -> SubmissionAccepted:
    """Give the answer to the submitter."""
    return SubmissionAccepted(
        submission=stored.message_id,
        job=stored.job,
        owner=accepted.owner,
        known=stored.known,
        warnings=accepted.warnings,
    )


def _envelope(message: AbstractIncomingMessage) -> Envelope:
    return Envelope(
        routing_key=message.routing_key or "",
        content_type=message.content_type or "",
        type=message.type or "",
        message_id=message.message_id,
        user_id=message.user_id,
        headers=message.headers,
    )
