"""Asks workers to send again what is missing of their logs, well before a log is given up.

A chunk is confirmed to its worker once the broker has it, and may still get lost before it is stored for good. Whoever
is asked keeps a log for a while after it was confirmed; if not, the proof will find the gap.
"""

import asyncio

import structlog

from leveret_logsink import streams
from leveret_logsink.streams import Stream
from leveret_logsink.verdict import missing
from leveret_proto import keys
from leveret_proto.envelope import pack
from leveret_proto.messages import SETUP_LOG, Resend
from leveret_proto.topology import RESEND
from leveret_runtime.broker import Publisher, Refused, Unroutable
from leveret_runtime.db import Connection, Database
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

#: Seconds between looks.
IDLE = 1.0
#: Logs asked for together.
BATCH = 100
#: How often a log is asked for until it is given up: about every third of the time that there is.
TIMES = 3


class Resending:
    """Finds logs with holes that nothing fills, and asks for the rest of them."""

    def __init__(self, database: Database, after: float, end_wait: float) -> None:
        """
        Args:
            after: seconds without a new chunk, and since an attempt's end, after which something is amiss.
            end_wait: seconds from an attempt's end until its logs are given up.
        """
        self._database = database
        self._after = after
        self._again = max(after, end_wait / TIMES)

    async def run(self, publisher: Publisher, stop: asyncio.Event) -> None:
        """Look and ask until `stop` is set."""
        while not stop.is_set():
            while len(wanting := await self._wanting()) == BATCH:
                await self._ask(wanting, publisher)
            await self._ask(wanting, publisher)
            await pause(min(IDLE, self._after), stop)

    async def _wanting(self) -> list[Stream]:
        """Choose logs to ask for, and note that they are asked for: another logsink chooses others."""
        async with self._database.transaction() as on:
            await self._begin_owed(on)
            rows = await on.fetch(
                f"""
                with wanting as (
                    select s.id from stream s join attempt a using (job, attempt, worker)
                    where s.kind = 'log' and s.state = 'open' and s.contiguous is distinct from s.total
                      and (s.total is not null or a.ended_at < now() - make_interval(secs => $1))
                      and s.touched_at < now() - make_interval(secs => $1)
                      and (s.asked_at is null or s.asked_at < now() - make_interval(secs => $2))
                    order by s.id limit {BATCH} for update of s skip locked
                )
                update stream s set asked_at = now() from wanting w where w.id = s.id returning {streams.COLUMNS}
                """,
                self._after, self._again,
            )  # fmt: skip
        return [streams.of_row(row) for row in rows]

    async def _begin_owed(self, on: Connection) -> None:
        """Make rows for the logs that ended attempts owe and of which nothing came."""
        await on.execute(
            """
            insert into stream (kind, job, attempt, worker, label, touched_at)
            select 'log', a.job, a.attempt, a.worker, owed.label, a.ended_at
            from attempt a cross join lateral unnest(a.ran || case when a.started then array[$2] end) owed (label)
            where a.judge_at is not null and a.worker is not null and a.ended_at < now() - make_interval(secs => $1)
              and not exists (
                select from stream s where (s.job, s.attempt, s.worker) = (a.job, a.attempt, a.worker)
                                       and s.kind = 'log' and s.label = owed.label
              )
            on conflict do nothing
            """,
            self._after, SETUP_LOG,
        )  # fmt: skip

    async def _ask(self, wanting: list[Stream], publisher: Publisher) -> None:
        for stream in wanting:
            key = stream.key
            wanted = Resend(
                job=key.job, attempt=key.attempt, task=key.label, missing=missing(stream.held, mismatch=False)
            )
            told = {"job": key.job, "attempt": key.attempt, "task": key.label, "worker": key.worker}
            try:
                await publisher.send(RESEND, keys.worker(key.worker), pack(wanted), app="logsink")
            except (Unroutable, Refused) as error:  # not there now; a worker that comes back sends what it has anyway
                log.warning("a log has holes, and its worker can't be asked", **told, reason=str(error))
            else:
                log.warning("a log has holes, its worker is asked", **told, missing=len(wanted.missing))
