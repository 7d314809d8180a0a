"""The full path for builds that do nothing, all state and events durable, beside what others do in the same minutes."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bench.buildbot_peer import BUILDERS, BuildbotPeer
from bench.celery_peer import CeleryPeer
from bench.peer_environment import PeersUnavailable, installed
from bench.plain import plain_rate
from bench.played_worker import MANIFEST, PlayedWorker, do_nothing
from bench.result import Result, median, skipped
from bench.setting import Bench
from bench.submitting import Happened, Submitter
from leveret_proto.messages import LogEvent

ROUNDS = 5
JOBS = 800
SLOTS = 128
#: Of its setup and of its one task.
LOGS_EACH = 2
#: Manifests under way to the broker.
WINDOW = 100
LIMIT = 60.0
PLAIN = 3000
KIB = 1024
TASKS = 400
BUILDS = 30
#: One after the other, for how long one takes.
DELAYED_TASKS = 100
DELAYED_BUILDS = 10

LEVERET = "no-op jobs, submission → terminal event"
SHARE = "no-op jobs as a share of plain"
CELERY = "Celery no-op tasks"
CELERY_ANSWERED = "Celery no-op tasks, results sent back"
CELERY_DELAY = "Celery task published → running, p50"
CELERY_RATIO = "no-op jobs / Celery no-op tasks"
ANSWERED_RATIO = "no-op jobs / Celery tasks with results"
BUILDBOT = "Buildbot no-op builds"
BUILDBOT_DELAY = "Buildbot build triggered → finished, p50"
BUILDBOT_RATIO = "no-op jobs / Buildbot no-op builds"


@dataclass(frozen=True)
class Peers:
    """The other systems, running."""

    celery: CeleryPeer
    buildbot: BuildbotPeer

    @classmethod
    @asynccontextmanager
    async def running(cls, bench: Bench, url: str) -> AsyncIterator["Peers"]:
        """Run them for the time of the block. Raises PeersUnavailable."""
        programs = await installed()
        async with (
            CeleryPeer.running(programs, bench.folder / "celery", url) as celery,
            BuildbotPeer.running(programs, bench.folder / "buildbot") as buildbot,
        ):
            yield cls(celery, buildbot)


async def measure(bench: Bench) -> list[Result]:
    """Take everyone's rate in turns, round by round: whatever else the machine does hits all of them."""
    stack = await bench.stack()
    contenders: dict[str, Callable[[], Awaitable[float]]] = {
        "plain": lambda: plain_rate(stack.admin_url, size=KIB, count=PLAIN),
        LEVERET: lambda: _jobs_per_second(stack.admin_url),
    }
    async with AsyncExitStack() as open_:
        peers, unavailable = None, ""
        try:
            peers = await open_.enter_async_context(Peers.running(bench, stack.admin_url))
            celery, buildbot = peers.celery, peers.buildbot
            contenders |= {
                CELERY: lambda: celery.rate(TASKS),
                CELERY_ANSWERED: lambda: celery.answered_rate(TASKS),
                BUILDBOT: lambda: buildbot.rate(BUILDS),
            }
        except PeersUnavailable as error:
            unavailable = str(error)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, rate in contenders.items():
                rates[name].append(await rate())
        beside_peers = _without_peers(unavailable) if peers is None else await _with_peers(peers, rates)
    taken = f"{JOBS} jobs, worker of {SLOTS} slots played over AMQP; median of {ROUNDS}"
    share = "of plain aio-pika publish, confirm, consume of 1 KiB persistent"
    return [
        Result(LEVERET, median(rates[LEVERET]), "jobs/s", compared_with=taken),
        Result(
            "plain 1 KiB persistent messages", median(rates["plain"]), "msg/s",
            compared_with="window of 100, quorum queue",
        ),
        Result(SHARE, _ratio(rates, LEVERET, "plain"), "ratio", 0.1, "higher", share),
        *beside_peers,
    ]  # fmt: skip


def _ratio(rates: dict[str, list[float]], one: str, other: str) -> float:
    """Give the median of the ratios round by round."""
    return median([a / b for a, b in zip(rates[one], rates[other], strict=True)])


async def _with_peers(peers: Peers, rates: dict[str, list[float]]) -> list[Result]:
    celery_delays = await peers.celery.delays(DELAYED_TASKS)
    buildbot_delays = await peers.buildbot.delays(DELAYED_BUILDS)
    tasks = f"{TASKS} tasks, persistent, acks_late, prefork; median of {ROUNDS}"
    builds = f"{BUILDS} builds of one step `true`, {BUILDERS} builders, one worker, SQLite; median of {ROUNDS}"
    aim = "aim: 1; Celery keeps no state"
    one_by_one = "one after the other"
    return [
        Result(CELERY, median(rates[CELERY]), "tasks/s", compared_with=f"{tasks}; no results"),
        Result(CELERY_ANSWERED, median(rates[CELERY_ANSWERED]), "tasks/s", compared_with=f"{tasks}; rpc results"),
        Result(CELERY_DELAY, 1000 * median(celery_delays), "ms", compared_with=f"{DELAYED_TASKS}, {one_by_one}"),
        Result(CELERY_RATIO, _ratio(rates, LEVERET, CELERY), "ratio", None, "higher", aim),
        Result(ANSWERED_RATIO, _ratio(rates, LEVERET, CELERY_ANSWERED), "ratio", None, "higher", aim),
        Result(BUILDBOT, median(rates[BUILDBOT]), "builds/s", compared_with=builds),
        Result(BUILDBOT_DELAY, 1000 * median(buildbot_delays), "ms", compared_with=f"{DELAYED_BUILDS}, {one_by_one}"),
        Result(BUILDBOT_RATIO, _ratio(rates, LEVERET, BUILDBOT), "ratio", 50, "higher", "in the same rounds"),
    ]


def _without_peers(reason: str) -> list[Result]:
    return [skipped(name, "ratio", reason) for name in (CELERY_RATIO, ANSWERED_RATIO, BUILDBOT_RATIO)]


async def _jobs_per_second(url: str) -> float:
    """Give jobs per second. The round ends when their (empty) logs are sealed: that is not timed."""
    ended: set[int] = set()
    all_ended, all_sealed = asyncio.Event(), asyncio.Event()
    sealed = Counter[int]()

    def on_event(event: Happened) -> None:
        if isinstance(event, LogEvent):
            sealed[event.facts.job] += 1
            if sealed.total() == JOBS * LOGS_EACH:
                all_sealed.set()
        elif event.status.ended:
            ended.add(event.facts.job)
            if len(ended) == JOBS:
                all_ended.set()

    async with (
        asyncio.timeout(LIMIT),
        PlayedWorker.running(url, SLOTS, do_nothing) as worker,
        Submitter.running(url, on_event) as submitter,
    ):
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for first in range(WINDOW):
                group.create_task(_submit(submitter, len(range(first, JOBS, WINDOW))))
        await all_ended.wait()
        rate = JOBS / (time.perf_counter() - began)
        await worker.end_logs()
        await all_sealed.wait()
    return rate


async def _submit(submitter: Submitter, count: int) -> None:
    for _ in range(count):
        await submitter.submit(MANIFEST)
