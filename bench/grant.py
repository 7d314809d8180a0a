"""From a manifest's publishing to its grant in a worker's hands, on an otherwise idle engine."""

import asyncio
import time
from dataclasses import dataclass, field

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
    delays = await measured(stack.admin_url, SAMPLES)
    taken = f"{SAMPLES} jobs, one after the other; worker played over AMQP"
    return [
        Result("manifest published → grant, p50", percentile(delays.grant, 0.5), "ms", 15, compared_with=taken),
        Result("manifest published → grant, p99", percentile(delays.grant, 0.99), "ms", 60, compared_with=taken),
        Result("manifest published → terminal event, p50", percentile(delays.end, 0.5), "ms", compared_with=taken),
    ]


@dataclass
class Delays:
    """Milliseconds from a manifest's publishing to its grant's arrival, and to its terminal event's."""

    grant: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)


async def measured(url: str, samples: int) -> Delays:
    """Run `samples` jobs, after some to warm up, on a worker of their own."""
    arrived: dict[str, float] = {}
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def serve(worker: PlayedWorker, grant: Grant) -> None:
        arrived[grant.facts.submission] = time.perf_counter()
        await worker.status(grant, AttemptState.ENDED)

    def on_event(event: Happened) -> None:
        if isinstance(event, JobEvent) and event.status.ended:
            ended.put_nowait(event.facts.submission)

    delays = Delays()
    async with (
        PlayedWorker.running(url, 8, serve),
        Submitter.running(url, on_event) as submitter,
    ):
        for n in range(WARM_UP + samples):
            name = message_id()
            began = time.perf_counter()
            async with asyncio.timeout(LIMIT):
                await submitter.submit(MANIFEST, name)
                while await ended.get() != name:
                    pass
            if n >= WARM_UP:
                delays.grant.append(1000 * (arrived[name] - began))
                delays.end.append(1000 * (time.perf_counter() - began))
    return delays
