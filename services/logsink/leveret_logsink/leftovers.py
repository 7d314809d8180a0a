"""Searches the storage for what nobody will ask for: a crash's files, and streams of jobs that are not known.

A shelf (a thousand jobs) at a time, round and round. Where the search is stands in the database, so that several
logsinks share it and a restart goes on.
"""

import asyncio

import structlog

from leveret_logsink.chunks import StreamKey
from leveret_logsink.storage import Storage
from leveret_runtime.db import Connection, Database
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

#: Seconds between looks at whether a shelf is due, between two shelves, and between two rounds.
IDLE = 10.0
STEP = 1.0
ROUND = 86_400.0
#: Seconds that something must have lain untouched to be left over: longer than anyone may be at it, or frozen at it.
AGE = 2 * 86_400.0
JOBS = 1000


class Leftovers:
    """Removes what is left over. Several logsinks may do so at the same time."""

    def __init__(self, database: Database, storage: Storage, *, age: float = AGE) -> None:
        self._database = database
        self._storage = storage
        self._age = age

    async def run(self, stop: asyncio.Event) -> None:
        """Search until `stop` is set. Raises StorageAway, DatabaseAway."""
        while not stop.is_set():
            found = await self.search_one()
            await pause(STEP if found else IDLE, stop)

    async def search_one(self) -> bool:
        """Search the next shelf, where one is due; say whether it was."""
        async with self._database.transaction() as on:
            after = await on.fetchval("select shelf from sweep where at <= now() for update skip locked")
            if after is None:
                return False
            shelf = await self._next(on, after)
            await on.execute(
                "update sweep set shelf = $1, at = now() + make_interval(secs => $2)",
                -1 if shelf is None else shelf, ROUND if shelf is None else 0.0,
            )  # fmt: skip
            if shelf is not None:
                await self._forget_strangers(on, shelf)
        if shelf is not None:
            await self._remove_files(shelf)
        return shelf is not None

    async def _next(self, on: Connection, after: int) -> int | None:
        """Give the next shelf on which there are files, or streams whose rows say so."""
        job = await on.fetchval("select min(job) from stream where job >= $1", (after + 1) * JOBS)
        found = [await asyncio.to_thread(self._storage.next_shelf, after), None if job is None else job // JOBS]
        return min((shelf for shelf in found if shelf is not None), default=None)

    async def _forget_strangers(self, on: Connection, shelf: int) -> None:
        """Remove rows of streams whose job nobody told us of, or is removed: nobody may read them."""
        forgotten = await on.fetch(
            """
            delete from stream where id in (
                select s.id from stream s where s.job between $1 and $2
                  and s.began_at < now() - make_interval(secs => $3)
                  and not exists (select from job j where j.job = s.job)
                order by s.id for update skip locked
            ) returning job
            """,
            shelf * JOBS, shelf * JOBS + JOBS - 1, self._age,
        )  # fmt: skip
        if forgotten:
            log.info("removed streams of unknown jobs", jobs=sorted({row["job"] for row in forgotten}))

    async def _remove_files(self, shelf: int) -> None:
        # rows are made before their files are: one that comes after this look has young files
        async with self._database.connection() as on:
            rows = await on.fetch(
                "select kind, job, attempt, worker, label from stream where job between $1 and $2",
                shelf * JOBS, shelf * JOBS + JOBS - 1,
            )  # fmt: skip
        known = [StreamKey(*row) for row in rows]
        count = await asyncio.to_thread(self._storage.remove_leftovers, shelf, known, self._age)
        if count:
            log.warning("removed files that belonged to nothing", shelf=shelf, files=count)
