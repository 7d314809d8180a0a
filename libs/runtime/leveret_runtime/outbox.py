"""The outbox: messages that commit in the same transaction as the state they tell of, and leave after it.

Rows of one job leave in order and one at a time, so that no reader sees a gap; rows of different jobs leave together. A
row is deleted when the broker has taken it; a crash before that publishes it twice, with the same `message_id` and seq.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from leveret_proto.envelope import JSON, Parcel
from leveret_proto.ids import uuid7
from leveret_proto.messages import Message
from leveret_proto.topology import EVENTS, RECORD
from leveret_runtime.broker import Publisher, Refused, Unroutable
from leveret_runtime.failpoints import failpoint
from leveret_runtime.metrics import Metric, Sampler, gauge
from leveret_runtime.waits import pause

if TYPE_CHECKING:
    from leveret_runtime.db import Connection, Database

log = structlog.get_logger(__name__)

#: Rows published together.
BATCH = 200
#: Seconds for one job's rows of a batch; a single publish has its own limit.
CHAIN_LIMIT = 5.0
#: Seconds between looks at the table where nobody wakes us (rows left by a crash, or by another process).
IDLE = 2.0

Guard = Callable[["Connection"], Awaitable[None]]


async def next_seq(on: "Connection", job: int) -> int:
    """Number the job's next event of this source, in the caller's transaction."""
    seq: int = await on.fetchval(
        """
        insert into event_number values ($1, 1)
        on conflict (job) do update set seq = event_number.seq + 1 returning seq
        """,
        job,
    )
    return seq


async def put(on: "Connection", job: int, exchange: str, key: str, message: Message) -> None:
    """Put `message` into the outbox, in the caller's transaction. What leaves for RECORD is copied to EVENTS."""
    await on.execute(
        "insert into outbox (job, exchange, routing_key, type, message_id, body) values ($1, $2, $3, $4, $5, $6)",
        job, exchange, key, message.TYPE, uuid7(), message.model_dump_json(exclude_none=True).encode(),
    )  # fmt: skip


async def number(on: "Connection", counts: Mapping[int, int]) -> dict[int, int]:
    """Number many jobs' next events at once: job → how many events; gives job → the first one's seq."""
    jobs = sorted(counts)  # in one order, so that two processes never wait for each other
    rows = await on.fetch(
        """
        insert into event_number as n (job, seq) select * from unnest($1::bigint[], $2::integer[])
        on conflict (job) do update set seq = n.seq + excluded.seq returning job, seq
        """,
        jobs, [counts[job] for job in jobs],
    )  # fmt: skip
    return {row["job"]: row["seq"] - counts[row["job"]] + 1 for row in rows}


async def put_all(on: "Connection", rows: Sequence[tuple[int, str, str, Message]]) -> None:
    """Put many (job, exchange, key, message) at once, in this order."""
    await on.execute(
        """
        insert into outbox (job, exchange, routing_key, type, message_id, body)
        select * from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::bytea[])
        """,
        [job for job, _, _, _ in rows],
        [exchange for _, exchange, _, _ in rows],
        [key for _, _, key, _ in rows],
        [message.TYPE for _, _, _, message in rows],
        [uuid7() for _ in rows],
        [message.model_dump_json(exclude_none=True).encode() for _, _, _, message in rows],
    )


def lag(database: "Database") -> Sampler:
    """Give what samples how much waits in the outbox, and for how long."""

    async def sample() -> list[Metric]:
        async with database.connection() as on:
            (row,) = await on.fetch(
                """
                select count(*) as waiting, coalesce(extract(epoch from now() - min(made_at)), 0)::float8 as age
                from outbox
                """
            )
        return [
            gauge("leveret_outbox_messages", "Messages that were committed and have not left yet.", row["waiting"]),
            gauge("leveret_outbox_oldest_seconds", "Since when the oldest of them waits.", row["age"]),
        ]

    return sample


class Outbox:
    """Publishes what the outbox holds, and deletes what the broker has taken. `wake` it after a commit."""

    def __init__(self, database: "Database", app: str, guard: Guard | None = None) -> None:
        """`guard` is run in every transaction and raises where this process may no longer publish (epoch fencing)."""
        self._database = database
        self._app = app
        self._guard = guard
        self._wake = asyncio.Event()
        #: Where the next batch begins.
        self._past = 0

    def wake(self) -> None:
        """There may be new rows."""
        self._wake.set()

    async def run(self, publisher: Publisher, public: Publisher, stop: asyncio.Event) -> None:
        """Publish until `stop` is set and nothing is left.

        Args:
            publisher: confirmed.
            public: unconfirmed, for the copy on `leveret.events` that nobody waits for.
        """
        while True:
            stopping = stop.is_set()
            self._wake.clear()
            while await self._publish_some(publisher, public):
                pass
            if stopping:
                return
            await pause(IDLE, self._wake, stop)

    async def _publish_some(self, publisher: Publisher, public: Publisher) -> bool:
        """Publish the oldest rows; say whether to go on."""
        async with self._database.transaction() as on:
            if self._guard is not None:
                await self._guard(on)
            rows = await on.fetch(
                """
                select id, job, exchange, routing_key, type, message_id, body from outbox where id > $1
                order by id limit $2 for update skip locked
                """,
                self._past, BATCH,
            )  # fmt: skip
            sent = await self._publish(await self._chains(on, rows), publisher, public)
            failpoint(f"{self._app}.outbox.between-publish-and-sent")
            await on.execute("delete from outbox where id = any($1::bigint[])", sent)
        # a batch full of what no queue takes now must not hold up the rows after it
        full = len(rows) == BATCH
        self._past = rows[-1]["id"] if full else 0
        return full or bool(sent)

    async def _chains(self, on: "Connection", rows: list[Any]) -> list[list[Any]]:
        """Give the rows job by job, without those of a job that has an older row not among them.

        That one was not taken before, or another process is publishing it just now.
        """
        chains: dict[int, list[Any]] = {}
        for row in rows:
            chains.setdefault(row["job"], []).append(row)
        oldest = await on.fetch(
            "select job, min(id) as id from outbox where job = any($1::bigint[]) group by job", list(chains)
        )
        return [chains[first["job"]] for first in oldest if chains[first["job"]][0]["id"] == first["id"]]

    async def _publish(self, chains: list[list[Any]], publisher: Publisher, public: Publisher) -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._publish_chain(chain, publisher, public)) for chain in chains]
        return [id_ for task in tasks for id_ in task.result()]

    async def _publish_chain(self, chain: list[Any], publisher: Publisher, public: Publisher) -> list[int]:
        """Publish one job's rows, each after the confirm of the one before; give those that were taken.

        What is not sent within CHAIN_LIMIT waits for the next batch, so that no transaction stays open for long.
        """
        sent: list[int] = []
        loop = asyncio.get_running_loop()
        until = loop.time() + CHAIN_LIMIT
        for row in chain:
            parcel = Parcel(row["body"], row["type"], JSON, {}, str(row["message_id"]))
            try:
                await publisher.send(row["exchange"], row["routing_key"], parcel, app=self._app)
            except (Refused, Unroutable) as error:
                log.warning("event not taken, will be repeated", reason=str(error), type=row["type"])
                break
            sent.append(row["id"])
            if row["exchange"] == RECORD:
                await public.send(EVENTS, row["routing_key"], parcel, app=self._app, mandatory=False)
            if loop.time() >= until:
                break
        return sent
