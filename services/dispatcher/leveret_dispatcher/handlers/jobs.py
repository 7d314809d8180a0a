"""Accepted jobs from intake: each becomes a row once, however often it is delivered."""

import asyncio

from aio_pika.abc import AbstractConnection

from leveret_dispatcher.config import Config
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.handlers.reading import Delivery, batches, readable, settle_batch
from leveret_proto.envelope import unpack_as
from leveret_proto.messages import ReadyJob
from leveret_proto.topology import DISPATCHER_JOBS
from leveret_runtime.failpoints import failpoint

BATCH = 100


async def consume_jobs(desk: Desk, on: AbstractConnection, stop: asyncio.Event) -> None:
    """Take jobs until `stop` is set."""
    async for batch in batches(on, DISPATCHER_JOBS, stop, BATCH):
        jobs = [job for _, job in await readable(batch, DISPATCHER_JOBS, _read, desk.publisher)]
        if not jobs:
            continue
        async with desk.transaction(lambda: failpoint("dispatcher.jobs.before-commit")) as tx:
            await tx.accept([(job, time_limit(desk.config, job)) for job in jobs])
        failpoint("dispatcher.jobs.before-ack")
        await settle_batch(batch)


def _read(delivery: Delivery) -> ReadyJob:
    return unpack_as(ReadyJob, delivery.body, delivery.type)


def time_limit(config: Config, job: ReadyJob) -> float:
    """Give the seconds an attempt at `job` may run: what it asks for, up to the installation's most."""
    asked = job.time_limit if job.time_limit is not None else job.manifest.leveret.time_limit
    return min(asked or config.time_limit, config.time_limit_most)
