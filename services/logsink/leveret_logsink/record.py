"""What the dispatcher's job events say: whose a job is, who has which attempt, when one is over."""

from collections.abc import Callable, Sequence

from aio_pika.abc import AbstractIncomingMessage

from leveret_logsink.verdict import AttemptNews, news
from leveret_proto.envelope import Unreadable, unpack_as
from leveret_proto.messages import JobEvent
from leveret_proto.topology import LOGSINK_RECORD
from leveret_runtime.broker import Consumer, Publisher, settle
from leveret_runtime.db import Connection, Database
from leveret_runtime.dead import file_dead
from leveret_runtime.failpoints import failpoint

#: Events committed together.
BATCH = 100


class Record:
    """Keeps the tables of jobs and attempts. `learned` is called after every commit."""

    def __init__(self, database: Database, end_wait: float, learned: Callable[[], None]) -> None:
        self._database = database
        self._end_wait = end_wait
        self._learned = learned

    async def run(self, consumer: Consumer, publisher: Publisher) -> None:
        """Take events until `consumer` stops. `publisher` takes the dead letters."""
        async for message in consumer:
            await self._take([message, *consumer.ready(BATCH - 1)], publisher)

    async def _take(self, messages: Sequence[AbstractIncomingMessage], publisher: Publisher) -> None:
        events: list[JobEvent] = []
        refused: list[tuple[AbstractIncomingMessage, str]] = []
        last = None
        for message in messages:
            try:
                events.append(read(message.body, message.type))
                last = message
            except Unreadable as error:
                refused.append((message, str(error)))
        async with self._database.transaction() as on:
            # rows are locked in one order by every logsink
            for event in sorted(events, key=lambda event: event.facts.job):
                await self._apply(on, event)
            failpoint("logsink.record.before-commit")
        self._learned()
        for message, reason in refused:
            await file_dead(publisher, message, LOGSINK_RECORD, reason, app="logsink")
        failpoint("logsink.record.before-ack")
        if last is not None:
            await settle(last, multiple=True)

    async def _apply(self, on: Connection, event: JobEvent) -> None:
        """Take one event. One that is older than what is known, or comes again, changes nothing it should not."""
        await on.execute(
            """
            insert into job as j (job, seq, facts) values ($1, $2, $3)
            on conflict (job) do update set seq = excluded.seq, facts = excluded.facts where j.seq < excluded.seq
            """,
            event.facts.job, event.seq, event.facts.model_dump_json(),
        )  # fmt: skip
        told = news(event)
        if told is not None:
            await self._apply_attempt(on, event.facts.job, event.seq, told)

    async def _apply_attempt(self, on: Connection, job: int, seq: int, told: AttemptNews) -> None:
        await on.execute(
            """
            insert into attempt as a (job, attempt, seq, worker, started, ran, ended_at, judge_at)
            values ($1, $2, $3, $4, $5, $6, case when $7 then now() end,
                    case when $7 then now() + make_interval(secs => $8) end)
            on conflict (job, attempt) do update set
                seq = greatest(a.seq, excluded.seq),
                worker = case when excluded.seq > a.seq then coalesce(excluded.worker, a.worker)
                              else coalesce(a.worker, excluded.worker) end,
                started = a.started or excluded.started,
                ran = array(select unnest(a.ran) union select unnest(excluded.ran)),
                ended_at = coalesce(a.ended_at, excluded.ended_at),
                judge_at = case when a.ended_at is null then excluded.judge_at else a.judge_at end
            """,
            job, told.attempt, seq, told.worker, told.started, list(told.ran), told.ended, self._end_wait,
        )  # fmt: skip
        # a later attempt is proof that the earlier ones are over
        await on.execute(
            """
            update attempt set ended_at = now(), judge_at = now() + make_interval(secs => $3)
            where job = $1 and attempt < $2 and ended_at is null
            """,
            job, told.attempt, self._end_wait,
        )  # fmt: skip


def read(body: bytes, type_: str | None) -> JobEvent:
    """Read a job event. Raises Unreadable."""
    event = unpack_as(JobEvent, body, type_)
    for text in (event.worker or "", *(task.name for task in event.tasks)):
        if "\0" in text:  # PostgreSQL holds none
            raise Unreadable(f"{type_}: a name with a NUL character")
    return event
