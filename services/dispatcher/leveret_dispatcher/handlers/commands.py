"""Commands from people and programs: cancel, show, list. Every one is answered where there is a way to answer."""

import asyncio

from aio_pika.abc import AbstractConnection

from leveret_dispatcher import events, store
from leveret_dispatcher.config import APP
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.handlers.reading import Delivery, batches
from leveret_dispatcher.lifecycle import CancelAsked
from leveret_dispatcher.store import JobRow
from leveret_proto import keys
from leveret_proto.base import Visibility
from leveret_proto.envelope import Unreadable, pack, unpack
from leveret_proto.keys import RoutingKeyError
from leveret_proto.messages import (
    CancelJob,
    CancelReply,
    CommandFailed,
    JobReply,
    JobStatus,
    ListJobs,
    ListReply,
    Message,
    ShowJob,
)
from leveret_proto.topology import DISPATCHER_COMMANDS
from leveret_runtime.broker import Refused, settle
from leveret_runtime.dead import file_dead
from leveret_runtime.failpoints import failpoint

Command = CancelJob | ShowJob | ListJobs
_WORDS: dict[str, type[Command]] = {"cancel": CancelJob, "show": ShowJob, "list": ListJobs}
#: Where an answer may go: RabbitMQ's direct reply-to, or a queue that the broker named.
_REPLY_QUEUES = ("amq.rabbitmq.reply-to", "amq.gen-")


async def consume_commands(desk: Desk, on: AbstractConnection, stop: asyncio.Event) -> None:
    """Take commands until `stop` is set."""
    async for batch in batches(on, DISPATCHER_COMMANDS, stop, 1):
        for delivery in batch:
            try:
                owner, command = _read(delivery)
            except (Unreadable, RoutingKeyError) as error:
                await _reply(desk, delivery, CommandFailed(code="bad-request", message=str(error)))
                await file_dead(desk.publisher, delivery, DISPATCHER_COMMANDS, str(error), app=APP)
                continue
            answer = await obey(desk, owner, command)
            failpoint("dispatcher.commands.between-commit-and-publish")
            await _reply(desk, delivery, answer)
            failpoint("dispatcher.commands.before-ack")
            await settle(delivery)


def _read(delivery: Delivery) -> tuple[str, Command]:
    key = keys.parse_command(delivery.routing_key or "")
    command = unpack(delivery.body, delivery.type)
    expected = _WORDS.get(key.command)
    if expected is None or not isinstance(command, CancelJob | ShowJob | ListJobs) or type(command) is not expected:
        raise Unreadable(f"{delivery.type} is not what {key.command!r} takes")
    return key.owner, command


async def obey(desk: Desk, owner: str, command: Command) -> Message:
    """Do what `owner` commands and give the answer."""
    if isinstance(command, CancelJob):
        return await _cancel(desk, owner, command.job)
    if isinstance(command, ShowJob):
        return await _show(desk, owner, command.job)
    async with desk.database.connection() as on:
        rows = await store.list_jobs(on, owner, command.before, command.limit + 1, command.statuses)
    views = tuple(events.view(row, desk.links) for row in rows[: command.limit])
    return ListReply(jobs=views, more=len(rows) > command.limit)


async def _cancel(desk: Desk, owner: str, job: int) -> Message:
    async with desk.transaction(lambda: failpoint("dispatcher.commands.before-commit")) as tx:
        rows = await store.lock_jobs(tx.on, [job])
        row = rows.get(job)
        if row is None:
            if await store.remember_cancellation(tx.on, job, owner, desk.config.cancellations_most):
                return CancelReply(cancelled=True)
            return CommandFailed(code="unavailable", message="too many cancels of jobs that have not come: try later")
        if row.facts.owner != owner:
            return _not_found(job)
        await tx.advance([row], {job: CancelAsked()}, {})
        after = tx.changes[-1].row if tx.changes else row
    await desk.order_cancel(job)
    status = after.course.status
    return CancelReply(cancelled=not status.ended or status is JobStatus.CANCELLED, job=events.view(after, desk.links))


async def _show(desk: Desk, owner: str, job: int) -> Message:
    async with desk.database.connection() as on:
        row = await store.find_job(on, job)
    if row is None or not _may_see(row, owner):
        return _not_found(job)
    return JobReply(job=events.view(row, desk.links))


def _may_see(row: JobRow, owner: str) -> bool:
    return row.facts.owner == owner or row.facts.visibility is Visibility.PUBLIC


def _not_found(job: int) -> CommandFailed:
    return CommandFailed(code="not-found", message=f"there is no job {job} of yours")


async def _reply(desk: Desk, delivery: Delivery, answer: Message) -> None:
    to = delivery.reply_to
    if not to or not to.startswith(_REPLY_QUEUES):
        return
    try:
        await desk.publisher.send(
            "", to, pack(answer), app=APP, mandatory=False, correlation_id=delivery.correlation_id
        )
    except Refused:
        pass  # the asker's own queue is full, and the asker will ask again
