"""A log sent by the worker's own code: masked, spooled, delivered. Only what writes it is played."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from bench.played_worker import MANIFEST, PlayedWorker
from bench.submitting import Happened, Submitter
from leveret_proto.messages import AttemptState, Grant, LogEvent
from leveret_runtime.broker import Publisher, connection
from leveret_worker.backlog import Backlog
from leveret_worker.couriers import log_sender
from leveret_worker.log_limit import JobLimit, LogLimit
from leveret_worker.logs import SpooledLog
from leveret_worker.masked_output import MaskedOutput
from leveret_worker.masking import Mask
from leveret_worker.outlet import Outlet

#: Unconfirmed bytes at which a writer waits: what the worker's configuration says by default.
BACKLOG = 64 * 1024 * 1024
#: Ten, as a build may have.
MASK = Mask(f"s3cret/{n}&value+of-the-{n * 7919}th kind" for n in range(10))
LIMIT = 120.0

Write = Callable[[MaskedOutput, Grant], Awaitable[None]]


@asynccontextmanager
async def bulk_outlet(url: str) -> AsyncIterator[Outlet]:
    """Give a worker's way out for logs, connected for the time of the block."""
    outlet = Outlet("worker")
    async with connection(SecretStr(url), "bench bulk") as bulk, outlet.over(await Publisher.open(bulk)):
        yield outlet


@asynccontextmanager
async def sent(outlet: Outlet, worker: PlayedWorker, grant: Grant, folder: Path) -> AsyncIterator[MaskedOutput]:
    """Give where to write the log of the grant's one task. After the block it is confirmed, and the attempt ended."""
    name = grant.manifest.tasks[0].name
    unlimited = LogLimit(2**62, JobLimit(2**62))
    log = SpooledLog(folder / f"{grant.grant}.log", grant.grant, name, limit=unlimited, backlog=Backlog(BACKLOG))
    output = MaskedOutput(log, MASK)
    async with asyncio.TaskGroup() as group:
        group.create_task(log.deliver(log_sender(outlet, grant, name)))
        try:
            yield output
        finally:
            output.finish()
    await worker.status(grant, AttemptState.ENDED, output.digest())
    (folder / f"{grant.grant}.log").unlink()


async def seconds_until_sealed(url: str, folder: Path, write: Write, size: int) -> float:
    """Seconds from when `write` begins to the event that proves the log of `size` bytes complete.

    Raises RuntimeError where it is not.
    """
    sealed: asyncio.Future[LogEvent] = asyncio.get_running_loop().create_future()
    began: list[float] = []

    async def serve(worker: PlayedWorker, grant: Grant) -> None:
        await worker.status(grant, AttemptState.RUNNING)
        async with sent(outlet, worker, grant, folder) as output:
            began.append(time.perf_counter())
            await write(output, grant)

    def on_event(event: Happened) -> None:
        if isinstance(event, LogEvent) and event.bytes == size and not sealed.done():
            sealed.set_result(event)

    async with (
        asyncio.timeout(LIMIT),
        bulk_outlet(url) as outlet,
        PlayedWorker.running(url, 1, serve),
        Submitter.running(url, on_event) as submitter,
    ):
        await submitter.submit(MANIFEST)
        event = await sealed
        seconds = time.perf_counter() - began[0]
    if event.status != "sealed":
        raise RuntimeError(f"the log is not complete: {event}")
    return seconds
