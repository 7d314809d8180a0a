"""A log's way from the worker's spool to the event that proves it complete."""

import asyncio
import time
from pathlib import Path

from pydantic import SecretStr

from bench.plain import plain_rate
from bench.played_worker import MANIFEST, PlayedWorker
from bench.result import MB, Result, median
from bench.setting import Bench
from bench.submitting import Happened, Submitter
from leveret_proto.messages import AttemptState, Grant, LogEvent
from leveret_runtime.broker import Publisher, connection
from leveret_worker.couriers import log_sender
from leveret_worker.logs import CHUNK, SpooledLog
from leveret_worker.outlet import Outlet

ROUNDS = 3
#: Below a log's limit of 64 MiB.
SIZE = 48 * 1024 * 1024
LINE = b"gcc -O2 -Wall -Wextra -c -o build/objects/module.o src/module.c\n"
BACKLOG = 64 * 1024 * 1024
LIMIT = 60.0


async def measure(bench: Bench) -> list[Result]:
    """Send a long log with the worker's own code, and plain messages, in turns."""
    stack = await bench.stack()
    plain: list[float] = []
    rates: list[float] = []
    for n in range(ROUNDS):
        plain.append(await plain_rate(stack.admin_url, size=CHUNK, count=SIZE // CHUNK) * CHUNK / MB)
        spool = bench.folder / f"spooled-{n}.log"
        rates.append(SIZE / MB / await _seconds_until_sealed(stack.admin_url, spool))
    shares = [one / other for one, other in zip(rates, plain, strict=True)]
    taken = f"one log of {SIZE // 2**20} MiB, median of {ROUNDS}"
    share = "of plain aio-pika publish, confirm, consume of 64 KiB persistent"
    return [
        Result("log, worker → sealed", median(rates), "MB/s", compared_with=taken),
        Result("plain 64 KiB persistent messages", median(plain), "MB/s", compared_with="window of 100, quorum queue"),
        Result("log, worker → sealed, as a share of plain", median(shares), "ratio", 0.3, "higher", share),
    ]


async def _seconds_until_sealed(url: str, spool: Path) -> float:
    began: list[float] = []
    sealed: asyncio.Future[LogEvent] = asyncio.get_running_loop().create_future()

    async def serve(worker: PlayedWorker, grant: Grant) -> None:
        await worker.status(grant, AttemptState.RUNNING)
        began.append(time.perf_counter())
        await _send_log(url, worker, grant, spool)

    def on_event(event: Happened) -> None:
        if isinstance(event, LogEvent) and event.bytes == SIZE and not sealed.done():
            sealed.set_result(event)

    async with (
        asyncio.timeout(LIMIT),
        PlayedWorker.running(url, 1, serve),
        Submitter.running(url, on_event) as submitter,
    ):
        await submitter.submit(MANIFEST)
        event = await sealed
        seconds = time.perf_counter() - began[0]
    if event.status != "sealed":
        raise RuntimeError(f"the log is not complete: {event}")
    return seconds


async def _send_log(url: str, worker: PlayedWorker, grant: Grant, spool: Path) -> None:
    name = grant.manifest.tasks[0].name
    log = SpooledLog(spool, grant.grant, name, limit=grant.log_limit, backlog=BACKLOG)
    piece = (LINE * (CHUNK // len(LINE) + 1))[:CHUNK]
    outlet = Outlet("worker")
    async with connection(SecretStr(url), "bench bulk") as bulk, outlet.over(await Publisher.open(bulk)):
        async with asyncio.TaskGroup() as group:
            group.create_task(log.deliver(log_sender(outlet, grant, name)))
            for _ in range(SIZE // CHUNK):
                await log.append(piece)
                await asyncio.sleep(0)  # where a build would wait for its guest
            log.finish()
    await worker.status(grant, AttemptState.ENDED, log.digest())
