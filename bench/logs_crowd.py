"""A hundred builds that log at once, one of them as fast as it can: how soon the others' lines are with a follower."""

import asyncio
import random
import time
from pathlib import Path

from pydantic import SecretStr

from bench.log_sender import bulk_outlet, sent
from bench.logs import LINE
from bench.played_worker import MANIFEST, PlayedWorker
from bench.result import MB, Result, median, percentile
from bench.setting import OWNER, Bench
from bench.submitting import Happened, Submitter
from leveret_embedded.stack import Options, Stack
from leveret_proto import keys
from leveret_proto.messages import SETUP_LOG, AttemptState, Grant, LogEvent
from leveret_proto.topology import TAIL
from leveret_runtime.broker import Consumer, connection
from leveret_worker.logs import CHUNK
from leveret_worker.masked_output import MaskedOutput

BUILDS = 100
#: How long all of them log, and how often the quiet ones print a line; seconds.
SECONDS = 15.0
GAP = 0.5
LIMIT = 240.0
#: Bytes that the flooding build prints at once: what a frame of the guest API holds.
_FLOOD = (LINE * (32 * 1024 // len(LINE) + 1))[: 32 * 1024]
assert len(_FLOOD) < CHUNK


async def measure(bench: Bench) -> list[Result]:
    """One played worker with the worker's own log code; one follower of the ninety-nine who don't flood."""
    unlimited = {"LEVERET_LOGSINK_LOG_LIMIT": str(2**40)}  # else the flood would soon be over
    options = Options(executor="process", slots=1, environment=unlimited)
    async with Stack.start(bench.folder / "crowd-stack", owner=OWNER, options=options) as stack:
        crowd = _Crowd(stack.admin_url, bench.folder, stack.services["logsink"].pid)
        async with asyncio.timeout(LIMIT):
            await crowd.run()
    milliseconds = [1000 * seconds for seconds in crowd.latencies]
    taken = f"{BUILDS} builds in one worker, one flooding; {len(milliseconds)} lines"
    shown = "line of a quiet build → follower"
    flooded = crowd.flooded / MB / SECONDS
    return [
        Result(f"{shown}, p50", median(milliseconds), "ms", compared_with=taken),
        Result(f"{shown}, p99", percentile(milliseconds, 0.99), "ms", 300, compared_with=taken),
        Result("the flooding build's log", flooded, "MB/s", compared_with="masked, spooled and sealed"),
        Result("logsink's memory meanwhile", crowd.memory, "MiB", 150, compared_with="resident, the most seen"),
        Result("logs sealed", crowd.sealed, "logs", BUILDS, "higher", "those of the crowd, flooding one included"),
    ]


class _Crowd:
    """The builds, and who follows them."""

    def __init__(self, url: str, folder: Path, logsink: int) -> None:
        """`logsink`: its process."""
        self._url = url
        self._folder = folder
        self._logsink = logsink
        self.latencies: list[float] = []
        self.memory = 0.0
        self.flooded = 0
        self.sealed = 0
        self._granted: list[Grant] = []
        self._all_granted = asyncio.Event()
        self._begin = asyncio.Event()
        self._told = 0
        self._all_told = asyncio.Event()
        self._until = 0.0

    async def run(self) -> None:
        """Have them all log for a while; returns when each log is sealed or given up."""

        async def serve(worker: PlayedWorker, grant: Grant) -> None:
            await worker.status(grant, AttemptState.RUNNING)
            self._granted.append(grant)
            if len(self._granted) == BUILDS:
                self._all_granted.set()
            async with sent(outlet, worker, grant, self._folder) as output:
                await self._begin.wait()
                await (self._flood(output) if grant is self._granted[0] else self._print(output))

        async with (
            bulk_outlet(self._url) as outlet,
            PlayedWorker.running(self._url, BUILDS, serve),
            Submitter.running(self._url, self._on_event) as submitter,
            connection(SecretStr(self._url), "bench follower") as connected,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(BUILDS):
                await submitter.submit(MANIFEST)
            await self._all_granted.wait()
            channel = await connected.channel()
            queue = await channel.declare_queue(exclusive=True)
            for grant in self._granted[1:]:
                facts, task = grant.facts, grant.manifest.tasks[0].name
                await queue.bind(TAIL, keys.tail(facts.visibility, facts.owner, facts.job, task))
            following = group.create_task(self._follow(await Consumer.open(connected, queue.name, prefetch=500)))
            watching = group.create_task(self._watch())
            self._until = time.perf_counter() + SECONDS
            self._begin.set()
            await self._all_told.wait()
            following.cancel()
            watching.cancel()

    async def _print(self, output: MaskedOutput) -> None:
        await asyncio.sleep(random.uniform(0, GAP))
        while (now := time.perf_counter()) < self._until:
            await output.append(b"%.6f a line\n" % now)
            await asyncio.sleep(GAP)

    async def _flood(self, output: MaskedOutput) -> None:
        while time.perf_counter() < self._until:
            await output.append(_FLOOD)
            self.flooded += len(_FLOOD)
            await asyncio.sleep(0)  # where it would wait for its guest

    async def _follow(self, consumer: Consumer) -> None:
        async for message in consumer:
            now = time.perf_counter()
            self.latencies += [now - float(line.split()[0]) for line in message.body.splitlines()]
            await message.ack()

    async def _watch(self) -> None:
        while True:
            status = Path(f"/proc/{self._logsink}/status").read_text()
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
            self.memory = max(self.memory, int(resident.split()[1]) / 1024)
            await asyncio.sleep(0.2)

    def _on_event(self, event: Happened) -> None:
        if isinstance(event, LogEvent) and event.task != SETUP_LOG:
            self._told += 1
            self.sealed += event.status == "sealed"
            if self._told == BUILDS:
                self._all_told.set()
