"""From a manifest's publishing to its grant in a worker's hands, on an otherwise idle engine."""

import asyncio
import time

from bench.played_worker import MANIFEST, PlayedWorker
from bench.result import Result, percentile
from bench.setting import Bench
from bench.submitting import Happened, Submitter
from leveret_proto.ids import message_id
from leveret_proto.messages import AttemptState, Grant, JobEvent

WARM_UP = 30
SAMPLES = 200
LIMIT = 10.0


async def measure(bench: Bench) -> list[Result]:
    """Submit one job after the other, each when the last has ended."""
    stack = await bench.stack()
    arrived: dict[str, float] = {}
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def serve(worker: PlayedWorker, grant: Grant) -> None:
        arrived[grant.facts.submission] = time.perf_counter()
        await worker.status(grant, AttemptState.ENDED)

    def on_event(event: Happened) -> None:
        if isinstance(event, JobEvent) and event.status.ended:
            ended.put_nowait(event.facts.submission)

    seconds: list[float] = []
    async with (
        PlayedWorker.running(stack.admin_url, 8, serve),
        Submitter.running(stack.admin_url, on_event) as submitter,
    ):
        for _ in range(WARM_UP + SAMPLES):
            name = message_id()
            began = time.perf_counter()
            async with asyncio.timeout(LIMIT):
                await submitter.submit(MANIFEST, name)
                while await ended.get() != name:
                    pass
            seconds.append(arrived[name] - began)
    milliseconds = [1000 * value for value in seconds[WARM_UP:]]
    taken = f"{SAMPLES} jobs, one after the other; worker played over AMQP"
    return [
        Result("manifest published → grant, p50", percentile(milliseconds, 0.5), "ms", 15, compared_with=taken),
        Result("manifest published → grant, p99", percentile(milliseconds, 0.99), "ms", 60, compared_with=taken),
    ]
