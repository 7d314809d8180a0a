"""Removes logs and artifacts of jobs that ended long ago, each owner's at its own age, a few jobs at a time.

Rows go first and name their files in the table `removal` in the same transaction: from then on readers get 404, and
what a crash leaves is removed by whoever comes next. A job that runs again (`retry`) is kept until it has ended again.
A job's numbers of events stay: were it to speak again, subscribers would take number 1 for one they have seen.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime

import structlog

from leveret_logsink.chunks import StreamKey
from leveret_logsink.storage import Storage
from leveret_runtime.db import Connection, Database
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

#: Seconds between looks where nobody wakes us.
IDLE = 300.0
#: Jobs, and files, removed in one step.
JOBS = 20
FILES = 200
#: Seconds between steps.
STEP = 0.05
DAY = 86_400.0


class Retention:
    """Removes what is old. Several logsinks may do so at the same time."""

    def __init__(
        self, database: Database, storage: Storage, keep_days: float | None, owners: Mapping[str, float | None]
    ) -> None:
        """`keep_days`: the age at which all goes; None: never. `owners`: those for whom another age holds."""
        self._database = database
        self._storage = storage
        self._seconds = None if keep_days is None else keep_days * DAY
        self._owners = {owner: None if days is None else days * DAY for owner, days in owners.items()}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Room is wanted."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Remove until `stop` is set. Raises StorageAway, DatabaseAway."""
        while not stop.is_set():
            self._wake.clear()
            while not stop.is_set() and (await self.remove_files() or await self.forget_jobs()):
                await pause(STEP, stop)
            await pause(IDLE, self._wake, stop)

    async def forget_jobs(self) -> int:
        """Move the streams of some old jobs to `removal`; give how many jobs there were. Raises DatabaseAway."""
        if self._seconds is None and all(age is None for age in self._owners.values()):
            return 0
        async with self._database.transaction() as on:
            jobs = await self._lock(on, await self._old(on))
            if jobs:
                await _forget(on, jobs)
        if jobs:
            log.info("removed old jobs", jobs=jobs)
        return len(jobs)

    async def remove_files(self) -> int:
        """Remove some files named in `removal`; give how many streams there were. Raises StorageAway, DatabaseAway."""
        async with self._database.connection() as on:
            rows = await on.fetch("select kind, job, attempt, worker, label from removal limit $1", FILES)
        keys = [StreamKey(*row) for row in rows]
        if keys:
            await asyncio.to_thread(self._storage.remove, keys)
            async with self._database.connection() as on:
                await on.executemany(
                    "delete from removal where (kind, job, attempt, worker, label) = ($1, $2, $3, $4, $5)", keys
                )
        return len(keys)

    async def _old(self, on: Connection) -> Mapping[int, datetime]:
        """Give some jobs that are too old, each with its end; goes from owner to owner along the index."""
        rows = await on.fetch(
            """
            with recursive known (owner) as (
                (select owner from job where ended_at is not null order by owner limit 1)
                union all
                select (select j.owner from job j where j.ended_at is not null and j.owner > known.owner
                        order by j.owner limit 1)
                from known where known.owner is not null
            )
            select old.job, old.ended_at
            from known left join unnest($1::text[], $2::float8[]) as own (owner, age) using (owner)
            cross join lateral (
                select j.job, j.ended_at from job j
                where j.owner = known.owner
                  and j.ended_at < now() - make_interval(secs => case when own.owner is null then $3 else own.age end)
                order by j.ended_at limit $4
            ) old
            limit $4
            """,
            list(self._owners), list(self._owners.values()), self._seconds, JOBS,
        )  # fmt: skip
        return {row["job"]: row["ended_at"] for row in rows}

    async def _lock(self, on: Connection, ended: Mapping[int, datetime]) -> list[int]:
        """Lock those jobs that are still there and have not run again."""
        rows = await on.fetch(
            """
            select j.job from job j join unnest($1::bigint[], $2::timestamptz[]) u (job, ended_at) using (job, ended_at)
            order by j.job for update of j skip locked
            """,
            list(ended), list(ended.values()),
        )  # fmt: skip
        return [row["job"] for row in rows]


async def _forget(on: Connection, jobs: list[int]) -> None:
    # locked in the order in which everyone locks
    await on.execute("select from attempt where job = any($1::bigint[]) order by job, attempt for update", jobs)
    await on.execute("select from stream where job = any($1::bigint[]) order by id for update", jobs)
    await on.execute(
        """
        with gone as (delete from stream where job = any($1::bigint[]) returning kind, job, attempt, worker, label)
        insert into removal select * from gone on conflict do nothing
        """,
        jobs,
    )
    await on.execute("delete from attempt where job = any($1::bigint[])", jobs)
    await on.execute("delete from job where job = any($1::bigint[])", jobs)
