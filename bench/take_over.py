"""Taking over: a leading dispatcher is ended in one way or another; how long until its standby grants?"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.backlog import Backlog
from bench.crowd import Crowd, Granted
from leveret_embedded.child import Child, running_child
from leveret_embedded.stack import Stack
from leveret_runtime.db import Database

#: Seconds between looks at the leader's row.
LOOK = 0.01
#: Seconds after which a leader that is not heard of may be replaced: the dispatcher's default.
STALE = 15.0
#: Claims a second meanwhile.
CLAIMS = 20
READY_LIMIT = 30.0
LIMIT = 60.0


@dataclass(frozen=True)
class TakenOver:
    """Seconds until the first grant of the new leader: from its predecessor's end, and from when it might lead."""

    since_end: float
    since_free: float


@asynccontextmanager
async def standby(stack: Stack, folder: Path) -> AsyncIterator[Child]:
    """Run a second dispatcher of the stack for the time of the block, which begins when it stands by."""
    environment = _environment(stack.services["dispatcher"].pid)
    argv = [sys.executable, "-m", "leveret_dispatcher.main"]
    async with running_child(argv, env=environment, cwd=folder, log=folder / "standby.log") as child:
        await child.until_ready(READY_LIMIT)
        yield child


def _environment(pid: int) -> dict[str, str]:
    """Give what a process was started with: so the second dispatcher is told what the first one was."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {
        os.fsdecode(name): os.fsdecode(value)
        for name, _, value in (entry.partition(b"=") for entry in entries)
        if name not in (b"", b"NOTIFY_SOCKET")
    }


async def restarted(stack: Stack, before: int) -> None:
    """Return when the stack has started its dispatcher anew, and that stands by. `before`: the process id it had."""
    dispatcher = stack.services["dispatcher"]
    async with asyncio.timeout(READY_LIMIT):
        while dispatcher.pid == before:
            await asyncio.sleep(LOOK)
        await dispatcher.until_ready()


async def take_over(crowd: Crowd, backlog: Backlog, database: Database, end: Callable[[], None]) -> TakenOver:
    """Have `end` end the leader while workers go on claiming; give how long no one granted."""
    async with database.connection() as on:
        epoch = await on.fetchval("select epoch from leader")
    granted: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        claiming = group.create_task(_claim_until(crowd, backlog, epoch, granted))
        await asyncio.sleep(1 / CLAIMS)
        began = time.perf_counter()
        end()
        free = await _until_free(database, epoch)
        first = await granted
        await claiming
    return TakenOver(first - began, max(0.0, first - free))


async def _claim_until(crowd: Crowd, backlog: Backlog, epoch: int, granted: asyncio.Future[float]) -> None:
    """Claim at a steady rate until a leader after `epoch` has granted, a new job for each; then wait for the rest."""

    def note(answered: Granted) -> None:
        if answered.grant.epoch > epoch and not granted.done():
            granted.set_result(answered.arrived)

    async def claim() -> None:
        note(await crowd.claim())

    async with asyncio.TaskGroup() as group:
        while not granted.done():
            group.create_task(claim())
            group.create_task(backlog.add(1))
            await asyncio.sleep(1 / CLAIMS)


async def _until_free(database: Database, epoch: int) -> float:
    """Give the time at which a standby may lead, or, where that was too short to see, does."""
    async with database.connection() as on:
        while not await on.fetchval(
            """
            select epoch > $1 or holder is null or renewed_at < clock_timestamp() - make_interval(secs => $2)
            from leader
            """,
            epoch, STALE,
        ):  # fmt: skip
            await asyncio.sleep(LOOK)
    return time.perf_counter()
