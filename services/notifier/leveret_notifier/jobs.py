"""Takes ended jobs and groups from the queue and writes a delivery for each trigger that fires."""

import structlog
from aio_pika.abc import AbstractIncomingMessage

from leveret_notifier import store
from leveret_notifier.ended import Ended, named, status
from leveret_notifier.failpoints import JOB_BEFORE_ACK, JOB_BEFORE_COMMIT
from leveret_notifier.sending import Sending
from leveret_notifier.triggers import fired
from leveret_proto.envelope import Unreadable, unpack
from leveret_proto.messages import EndedGroup, EndedJob
from leveret_proto.topology import NOTIFIER_JOBS
from leveret_runtime.broker import Consumer, Publisher, settle
from leveret_runtime.db import Database
from leveret_runtime.dead import file_dead
from leveret_runtime.failpoints import failpoint

log = structlog.get_logger(__name__)

APP = "notifier"


async def consume(consumer: Consumer, database: Database, dead: Publisher, sending: Sending) -> None:
    """Take what has ended until the consumer ends: commit, then ack. What can't be read is filed as a dead letter."""
    async for message in consumer:
        try:
            ended = _read(message)
        except Unreadable as error:
            await file_dead(dead, message, NOTIFIER_JOBS, str(error), app=APP)
            continue
        await _take(ended, message, database)
        sending.wake()


def _read(message: AbstractIncomingMessage) -> Ended:
    ended = unpack(message.body, message.type)
    if not isinstance(ended, EndedJob | EndedGroup):
        raise Unreadable(f"expected {EndedJob.TYPE} or {EndedGroup.TYPE}, got {message.type}")
    return ended


async def _take(ended: Ended, message: AbstractIncomingMessage, database: Database) -> None:
    indexes = fired(ended)
    if indexes:
        async with database.transaction() as on:
            await store.add(on, ended, indexes)
            failpoint(JOB_BEFORE_COMMIT)
    log.info("ended", **named(ended), status=str(status(ended)), deliveries=len(indexes))
    failpoint(JOB_BEFORE_ACK)
    await settle(message)
