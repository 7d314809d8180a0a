"""Takes ended jobs from the queue and writes a delivery for each trigger that fires."""

import structlog
from aio_pika.abc import AbstractIncomingMessage

from leveret_notifier import store
from leveret_notifier.failpoints import JOB_BEFORE_ACK, JOB_BEFORE_COMMIT
from leveret_notifier.sending import Sending
from leveret_notifier.triggers import fires
from leveret_proto.envelope import Unreadable, unpack_as
from leveret_proto.messages import EndedJob
from leveret_proto.topology import NOTIFIER_JOBS
from leveret_runtime.broker import Consumer, Publisher, settle
from leveret_runtime.db import Database
from leveret_runtime.dead import file_dead
from leveret_runtime.failpoints import failpoint

log = structlog.get_logger(__name__)

APP = "notifier"


async def consume(consumer: Consumer, database: Database, dead: Publisher, sending: Sending) -> None:
    """Take ended jobs until the consumer ends: commit, then ack. What can't be read is filed as a dead letter."""
    async for message in consumer:
        try:
            ended = unpack_as(EndedJob, message.body, message.type)
        except Unreadable as error:
            await file_dead(dead, message, NOTIFIER_JOBS, str(error), app=APP)
            continue
        await _take(ended, message, database)
        sending.wake()


async def _take(ended: EndedJob, message: AbstractIncomingMessage, database: Database) -> None:
    fired = [index for index, trigger in enumerate(ended.triggers) if fires(trigger.condition, ended.status)]
    if fired:
        async with database.transaction() as on:
            await store.add(on, ended, fired)
            failpoint(JOB_BEFORE_COMMIT)
    log.info("job ended", job=ended.facts.job, status=ended.status.value, deliveries=len(fired))
    failpoint(JOB_BEFORE_ACK)
    await settle(message)
