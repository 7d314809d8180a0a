"""Scale: grants out of a large backlog to many workers, compared with a small one to few, in one run, taken alike.

Two paths to a grant are measured while everyone beats:
- slot claimed → grant: a slot becomes free, and the whole backlog waits for just that. Claims come at a steady rate,
  and a new job comes for each that ends, so that the backlog stays as long as it is;
- manifest published → grant: a job that a free worker serves is submitted, while all others wait (bench/grant.py is
  the same on an idle engine).
"""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from bench import grant
from bench.backlog import Backlog
from bench.crowd import Crowd, Granted
from bench.plain import plain_rate
from bench.result import Result, median
from bench.setting import Bench
from bench.take_over import CLAIMS as CLAIMS_MEANWHILE
from bench.take_over import STALE, TakenOver, restarted, standby, take_over
from leveret_embedded.stack import Stack
from leveret_runtime.broker import Publisher, connection
from leveret_runtime.db import Database

SMALL_JOBS = 100
SMALL_WORKERS = 10
JOBS = 10_000
WORKERS = 1000
#: Measured, after some to warm up.
CLAIMS = 100
WARM_UP = 10
#: Claims a second.
RATE = 10
SUBMISSIONS = 100
PLAIN = 1000
#: Seconds for one setting's claims; and for a job of the backlog, as a bound, no expectation.
LIMIT = 60.0
JOB_LIMIT = 0.03


async def measure(bench: Bench) -> list[Result]:
    """Measure in the small setting, let it grow, measure again; then end the leader, twice."""
    stack = await bench.stack()
    jobs = bench.scale_jobs
    async with (
        Database.open(SecretStr(stack.database_url), "dispatch") as database,
        connection(SecretStr(stack.admin_url), "bench backlog") as connected,
        Crowd.running(stack.admin_url) as crowd,
    ):
        backlog = Backlog(await Publisher.open(connected), database)
        await crowd.grow(SMALL_WORKERS)
        await _grow(backlog, 0, SMALL_JOBS)
        small = await _delays(stack, crowd, backlog)
        await crowd.grow(WORKERS)
        accepted = await _grow(backlog, SMALL_JOBS, jobs)
        large = await _delays(stack, crowd, backlog)
        ends = await _end_leaders(stack, crowd, backlog, database, bench.folder)
    return [
        Result(f"{jobs:,} jobs accepted, told, and heard of", accepted, "jobs/s", compared_with="from leveret.jobs on"),
        Result(
            "plain 1 KiB persistent messages, large / small", large.plain / small.plain, "ratio", None, "higher",
            "the machine may be busier in one setting than in the other",
        ),
        *_delay_results("slot claimed → grant, p50", small.claimed, large.claimed, jobs),
        *_delay_results("manifest published → grant, p50", small.submitted, large.submitted, jobs),
        *_end_results(ends, jobs),
    ]  # fmt: skip


@dataclass(frozen=True)
class Delays:
    """Medians of one setting, in milliseconds."""

    claimed: float
    submitted: float
    #: Plain messages per second in the same setting: how much of the machine was left for anyone.
    plain: float


async def _grow(backlog: Backlog, before: int, count: int) -> float:
    """Let the backlog grow to `count` jobs; give how many a second were accepted, told and heard of."""
    began = time.perf_counter()
    async with asyncio.timeout(LIMIT + JOB_LIMIT * count):
        await backlog.add(count - before)
        await backlog.until_waiting(count)
    return (count - before) / (time.perf_counter() - began)


async def _delays(stack: Stack, crowd: Crowd, backlog: Backlog) -> Delays:
    async with asyncio.timeout(LIMIT):
        answered = await _claims(crowd, backlog)
    claimed = [one.milliseconds for one in answered[WARM_UP:]]
    submitted = await grant.measured(stack.admin_url, SUBMISSIONS)
    plain = await plain_rate(stack.admin_url, size=1024, count=PLAIN)
    return Delays(median(claimed), median(submitted.grant), plain)


async def _claims(crowd: Crowd, backlog: Backlog) -> list[Granted]:
    """Claim at a steady rate; for each job that thereby ends, another one comes."""
    async with asyncio.TaskGroup() as group:
        tasks = []
        for _ in range(WARM_UP + CLAIMS):
            tasks.append(group.create_task(crowd.claim()))
            group.create_task(backlog.add(1))
            await asyncio.sleep(1 / RATE)
    return [task.result() for task in tasks]


@dataclass(frozen=True)
class Ends:
    """What became of two leaders: MiB each had at its most; one asked to end, the other killed."""

    memory: tuple[float, float]
    terminated: TakenOver
    killed: TakenOver


async def _end_leaders(stack: Stack, crowd: Crowd, backlog: Backlog, database: Database, folder: Path) -> Ends:
    first = stack.services["dispatcher"].pid
    async with standby(stack, folder) as second:
        used = _peak_memory(first)
        terminated = await take_over(crowd, backlog, database, partial(os.kill, first, signal.SIGTERM))
        await restarted(stack, first)
        used_by_second = _peak_memory(second.pid)
        killed = await take_over(crowd, backlog, database, partial(os.kill, second.pid, signal.SIGKILL))
    return Ends((used, used_by_second), terminated, killed)


def _peak_memory(pid: int) -> float:
    """MiB of memory that a process had at its most (VmHWM of proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return kib / 1024


def _delay_results(name: str, small: float, large: float, jobs: int) -> list[Result]:
    settings = f"{jobs:,} jobs and {WORKERS:,} workers / {SMALL_JOBS} and {SMALL_WORKERS}"
    return [
        Result(f"{name}, large", large, "ms", compared_with=f"{jobs:,} jobs waiting, {WORKERS:,} workers"),
        Result(f"{name}, small", small, "ms", compared_with=f"{SMALL_JOBS} jobs waiting, {SMALL_WORKERS} workers"),
        Result(f"{name}, large / small", large / small, "ratio", _promised(2, jobs), compared_with=settings),
    ]


def _end_results(ends: Ends, jobs: int) -> list[Result]:
    over = f"{jobs:,} jobs waiting, {WORKERS:,} workers, {CLAIMS_MEANWHILE} claims/s"
    released, stale = f"{over}; SIGTERM to the leader", f"{over}; kill -9, and {STALE:.0f} s to go stale not counted"
    each = " and ".join(f"{value:.0f}" for value in ends.memory)
    return [
        Result("dispatcher's memory at its most", max(ends.memory), "MiB", _promised(200, jobs),
               compared_with=f"{jobs:,} jobs, {WORKERS:,} workers; first leader and its successor: {each}"),
        Result("leader released → first grant", ends.terminated.since_free, "s", _promised(3, jobs),
               compared_with=released),
        Result("leader's SIGTERM → first grant", ends.terminated.since_end, "s", compared_with=over),
        Result("leader killed and stale → first grant", ends.killed.since_free, "s", _promised(3, jobs),
               compared_with=stale),
        Result("leader killed → first grant", ends.killed.since_end, "s", compared_with=over),
    ]  # fmt: skip


def _promised(limit: float, jobs: int) -> float | None:
    """Promises are made of JOBS jobs; other backlogs are measured for information."""
    return limit if jobs == JOBS else None
