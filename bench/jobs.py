"""The full path for builds that do nothing: from submission to terminal event, all state and events durable."""

import asyncio
import time

from bench.plain import plain_rate
from bench.played_worker import MANIFEST, PlayedWorker, do_nothing
from bench.result import Result, median
from bench.setting import Bench
from bench.submitting import Happened, Submitter
from leveret_proto.messages import JobEvent

ROUNDS = 3
JOBS = 400
SLOTS = 64
#: Manifests under way to the broker.
WINDOW = 100
LIMIT = 60.0
PLAIN = 1500
KIB = 1024


async def measure(bench: Bench) -> list[Result]:
    """Compare jobs per second with plain messages per second, in turns: whatever else the machine does hits both."""
    stack = await bench.stack()
    plain: list[float] = []
    jobs: list[float] = []
    for _ in range(ROUNDS):
        plain.append(await plain_rate(stack.admin_url, size=KIB, count=PLAIN))
        jobs.append(await _jobs_per_second(stack.admin_url))
    shares = [one / other for one, other in zip(jobs, plain, strict=True)]
    taken = f"{JOBS} jobs, worker of {SLOTS} slots played over AMQP; median of {ROUNDS}"
    share = "of plain aio-pika publish, confirm, consume of 1 KiB persistent"
    return [
        Result("no-op jobs, submission → terminal event", median(jobs), "jobs/s", compared_with=taken),
        Result("plain 1 KiB persistent messages", median(plain), "msg/s", compared_with="window of 100, quorum queue"),
        Result("no-op jobs as a share of plain", median(shares), "ratio", 0.1, "higher", share),
    ]


async def _jobs_per_second(url: str) -> float:
    ended: set[int] = set()
    all_ended = asyncio.Event()

    def on_event(event: Happened) -> None:
        if isinstance(event, JobEvent) and event.status.ended:
            ended.add(event.facts.job)
            if len(ended) == JOBS:
                all_ended.set()

    async with (
        asyncio.timeout(LIMIT),
        PlayedWorker.running(url, SLOTS, do_nothing),
        Submitter.running(url, on_event) as submitter,
    ):
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for first in range(WINDOW):
                group.create_task(_submit(submitter, len(range(first, JOBS, WINDOW))))
        await all_ended.wait()
        return JOBS / (time.perf_counter() - began)


async def _submit(submitter: Submitter, count: int) -> None:
    for _ in range(count):
        await submitter.submit(MANIFEST)
