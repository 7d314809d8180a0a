"""Commands about jobs: cancel, show, list, retry, priority."""

from dataclasses import replace
from functools import partial
from uuid import UUID, uuid5

from leveret_dispatcher import events, store
from leveret_dispatcher.commands.asked import Asked, Handlers, not_found
from leveret_dispatcher.config import APP
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.lifecycle import CancelAsked
from leveret_dispatcher.store import JobRow
from leveret_proto import keys
from leveret_proto.base import Visibility
from leveret_proto.envelope import pack
from leveret_proto.messages import (
    CancelJob,
    CancelReply,
    CommandFailed,
    JobReply,
    JobStatus,
    ListJobs,
    ListReply,
    Message,
    PrioritizeJob,
    RetryJob,
    ShowJob,
)
from leveret_proto.topology import SUBMIT
from leveret_runtime.broker import Refused, Unroutable
from leveret_runtime.failpoints import failpoint

#: Names the `message_id` of a job that is retried, after RFC 9562 section 5.5.
_RETRIES = UUID("7d2f7c0e-9a53-4a63-8d0b-5f3f2b1f6f5c")


async def cancel(desk: Desk, asked: Asked[CancelJob]) -> Message:
    """Cancel a job, or remember that one which has not come yet is to be cancelled."""
    job, owner = asked.command.job, asked.owner
    async with desk.transaction(lambda: failpoint("dispatcher.commands.before-commit")) as tx:
        rows = await tx.jobs([job])
        row = rows.get(job)
        if row is None:
            if await store.remember_cancellation(tx.on, job, owner, desk.config.cancellations_most):
                return CancelReply(cancelled=True)
            return CommandFailed(code="unavailable", message="too many cancels of jobs that have not come: try later")
        if row.facts.owner != owner:
            return not_found(job)
        await tx.advance([row], {job: CancelAsked()}, {})
        after = (await tx.jobs([job]))[job]
    await desk.order_cancel(job)
    status = after.course.status
    return CancelReply(cancelled=not status.ended or status is JobStatus.CANCELLED, job=events.view(after, desk.links))


async def show(desk: Desk, asked: Asked[ShowJob]) -> Message:
    """Show a job as it stands."""
    async with desk.database.connection() as on:
        row = await store.find_job(on, asked.command.job)
    if row is None or not may_see(row, asked.owner):
        return not_found(asked.command.job)
    return JobReply(job=events.view(row, desk.links))


async def list_jobs(desk: Desk, asked: Asked[ListJobs]) -> Message:
    """List the owner's jobs."""
    command = asked.command
    async with desk.database.connection() as on:
        rows = await store.list_jobs(on, asked.owner, command.before, command.limit + 1, command.statuses)
    views = tuple(events.view(row, desk.links) for row in rows[: command.limit])
    return ListReply(jobs=views, more=len(rows) > command.limit)


async def retry(desk: Desk, asked: Asked[RetryJob]) -> Message | None:
    """Submit the manifest of an ended job again; intake gives the asker the answer, as to any submission.

    The new job depends on nothing and is in no group: its owner wants it run, whatever became of others.
    """
    job = asked.command.job
    if not asked.message_id:
        return CommandFailed(code="bad-request", message="give the command a message_id: the same one, the same job")
    async with desk.database.connection() as on:
        row = await store.find_job(on, job)
        again = await store.resubmission(on, job) if row is not None else None
    if row is None or again is None or row.facts.owner != asked.owner:
        return not_found(job)
    if not row.course.status.ended:
        return CommandFailed(
            code="conflict", message=f"job {job} is {row.course.status}: only a job that has ended is run again"
        )
    parcel = replace(pack(again), message_id=str(uuid5(_RETRIES, f"{job} {asked.message_id}")))
    key = keys.submission(row.facts.owner, row.facts.project)
    try:
        await desk.publisher.send(
            SUBMIT, key, parcel, app=APP, reply_to=asked.reply_to, correlation_id=asked.correlation_id
        )
    except (Unroutable, Refused) as error:
        return CommandFailed(code="unavailable", message=f"it can't be submitted now ({error}): try later")
    return None


async def prioritize(desk: Desk, asked: Asked[PrioritizeJob]) -> Message:
    """Change the priority of a waiting job."""
    job, priority = asked.command.job, asked.command.priority
    async with desk.transaction(lambda: failpoint("dispatcher.commands.before-commit")) as tx:
        row = (await tx.jobs([job])).get(job)
        if row is None or row.facts.owner != asked.owner:
            return not_found(job)
        if row.course.status is not JobStatus.PENDING:
            return CommandFailed(
                code="conflict", message=f"job {job} is {row.course.status}: only a waiting job has a place in line"
            )
        await store.prioritize(tx.on, job, priority)
        tx.after.append(partial(desk.prioritize, job, priority))
    return JobReply(job=events.view(replace(row, priority=priority), desk.links))


def may_see(row: JobRow, owner: str) -> bool:
    return row.facts.owner == owner or row.facts.visibility is Visibility.PUBLIC


HANDLERS: Handlers = {
    CancelJob: cancel, ShowJob: show, ListJobs: list_jobs, RetryJob: retry, PrioritizeJob: prioritize,
}  # fmt: skip
