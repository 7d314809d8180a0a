"""Ends jobs that wait in vain: one that they depend on did not succeed, or their queue deadline is over."""

import asyncio

from leveret_dispatcher import store
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.lifecycle import DeadlinePassed, DependencyFailed
from leveret_runtime.failpoints import failpoint
from leveret_runtime.waits import pause

#: Jobs ended in one transaction.
BATCH = 100
#: Seconds between looks for deadlines.
INTERVAL = 1.0


async def end_vain_waits(desk: Desk, stop: asyncio.Event) -> None:
    """End what waits in vain, at once or within INTERVAL, until `stop` is set."""
    while not stop.is_set():
        desk.broke.clear()
        while await _end_broken(desk) and not stop.is_set():
            pass  # each end may break the dependents of those that ended
        while await _end_overstayed(desk) and not stop.is_set():
            pass
        await pause(INTERVAL, desk.broke, stop)


async def _end_broken(desk: Desk) -> bool:
    """End one batch of jobs whose dependency failed; say whether there were any."""
    batch = dict(list(desk.broken.items())[:BATCH])
    if not batch:
        return False
    async with desk.transaction(lambda: failpoint("dispatcher.waits.before-commit")) as tx:
        await desk.move(tx, {job: DependencyFailed(why) for job, why in batch.items()})
    return True


async def _end_overstayed(desk: Desk) -> bool:
    """End one batch of jobs that were not granted in time; say whether there were any."""
    async with desk.database.connection() as on:
        jobs = await store.overstayed_jobs(on, BATCH)
    if not jobs:
        return False
    async with desk.transaction(lambda: failpoint("dispatcher.waits.before-commit")) as tx:
        why = "it was not granted to a worker before its queue deadline"
        await desk.move(tx, {job: DeadlinePassed(why) for job in jobs})
    return True
