"""Accepted jobs from intake: each becomes a row once, however often it is delivered."""

import asyncio

from aio_pika.abc import AbstractConnection

from leveret_dispatcher.config import Config
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.granting import grant_new, send
from leveret_dispatcher.handlers.reading import Delivery, batches, readable, settle_batch
from leveret_dispatcher.secret_granting import fail_without_secrets, requiring_secrets
from leveret_dispatcher.store import NewJob
from leveret_proto.envelope import unpack_as
from leveret_proto.messages import ReadyJob
from leveret_proto.topology import DISPATCHER_JOBS
from leveret_runtime.failpoints import failpoint

BATCH = 100
#: Seconds between two transactions.
APART = 0.01


async def consume_jobs(desk: Desk, on: AbstractConnection, stop: asyncio.Event) -> None:
    """Take jobs until `stop` is set. Those for which a slot is free are granted in the same transaction."""
    async with asyncio.TaskGroup() as sending:
        async for batch in batches(on, DISPATCHER_JOBS, stop, BATCH, apart=APART):
            jobs = [job for _, job in await readable(batch, DISPATCHER_JOBS, _read, desk.publisher)]
            if not jobs:
                continue
            async with desk.transaction(lambda: failpoint("dispatcher.jobs.before-commit")) as tx:
                await tx.accept([new_job(desk.config, job) for job in jobs])
                await fail_without_secrets(desk, tx, jobs)
                granted = await grant_new(desk, tx)
            send(desk, granted, sending)
            failpoint("dispatcher.jobs.before-ack")
            await settle_batch(batch)


def _read(delivery: Delivery) -> ReadyJob:
    return requiring_secrets(unpack_as(ReadyJob, delivery.body, delivery.type))


def new_job(config: Config, job: ReadyJob) -> NewJob:
    """Give `job` with its limits: what it asks for, up to what its owner may have."""
    asked = job.time_limit if job.time_limit is not None else job.manifest.leveret.time_limit
    deadline = job.queue_deadline if job.queue_deadline is not None else job.manifest.leveret.queue_deadline
    return NewJob(job, config.owner_time_limit(job.facts.owner, asked), deadline or config.queue_deadline)
