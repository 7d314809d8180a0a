"""What the dispatcher's job events say: whose a job is, who has which attempt, when one is over."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aio_pika.abc import AbstractIncomingMessage

from leveret_logsink.verdict import news
from leveret_proto.envelope import Unreadable, unpack_as
from leveret_proto.messages import JobEvent
from leveret_proto.topology import LOGSINK_RECORD
from leveret_runtime.broker import Consumer, Publisher, settle
from leveret_runtime.db import Connection, Database
from leveret_runtime.dead import file_dead
from leveret_runtime.failpoints import failpoint
from leveret_runtime.waits import Pace

#: Events committed together.
BATCH = 100
#: Seconds between two batches: nobody waits for these tables but a log's first tail, and that not so closely.
INTERVAL = 0.02


@dataclass(slots=True)
class Told:
    """What a batch of events says of one attempt."""

    seq: int
    worker: str | None
    started: bool
    ended: bool
    ran: set[str]


class Record:
    """Keeps the tables of jobs and attempts. `learned` is called after every commit."""

    def __init__(self, database: Database, end_wait: float, learned: Callable[[], None]) -> None:
        self._database = database
        self._end_wait = end_wait
        self._learned = learned

    async def run(self, consumer: Consumer, publisher: Publisher) -> None:
        """Take events until `consumer` stops. `publisher` takes the dead letters."""
        pace = Pace(INTERVAL)
        async for message in consumer:
            await pace.turn()
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
            await self._apply(on, events)
            failpoint("logsink.record.before-commit")
        self._learned()
        for message, reason in refused:
            await file_dead(publisher, message, LOGSINK_RECORD, reason, app="logsink")
        failpoint("logsink.record.before-ack")
        if last is not None:
            await settle(last, multiple=True)

    async def _apply(self, on: Connection, events: Sequence[JobEvent]) -> None:
        """Take events. One that is older than what is known, or comes again, changes nothing it should not.

        Rows are locked in one order by every logsink.
        """
        newest = {event.facts.job: event for event in sorted(events, key=lambda event: (event.facts.job, event.seq))}
        await on.execute(
            """
            insert into job as j (job, seq, facts, owner, ended_at)
            select u.job, u.seq, u.facts, u.owner, case when u.ended then now() end
            from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::boolean[])
                as u (job, seq, facts, owner, ended)
            on conflict (job) do update
                set seq = excluded.seq, facts = excluded.facts, owner = excluded.owner, ended_at = excluded.ended_at
                where j.seq < excluded.seq
            """,
            list(newest),
            [event.seq for event in newest.values()],
            [event.facts.model_dump_json() for event in newest.values()],
            [event.facts.owner for event in newest.values()],
            [event.status.ended for event in newest.values()],
        )
        told = sorted(gathered(events).items())
        if told:
            await self._apply_attempts(on, told)

    async def _apply_attempts(self, on: Connection, told: Sequence[tuple[tuple[int, int], Told]]) -> None:
        """Take what is told of each (job, attempt), in this order."""
        await on.execute(
            """
            insert into attempt as a (job, attempt, seq, worker, started, ran, ended_at, judge_at)
            select u.job, u.attempt, u.seq, u.worker, u.started,
                   array(select jsonb_array_elements_text(u.ran)), case when u.ended then now() end,
                   case when u.ended then now() + make_interval(secs => $8) end
            from unnest($1::bigint[], $2::integer[], $3::bigint[], $4::text[], $5::boolean[], $6::jsonb[],
                        $7::boolean[]) u (job, attempt, seq, worker, started, ran, ended)
            on conflict (job, attempt) do update set
                seq = greatest(a.seq, excluded.seq),
                worker = case when excluded.seq > a.seq then coalesce(excluded.worker, a.worker)
                              else coalesce(a.worker, excluded.worker) end,
                started = a.started or excluded.started,
                ran = array(select unnest(a.ran) union select unnest(excluded.ran)),
                ended_at = coalesce(a.ended_at, excluded.ended_at),
                judge_at = case when a.ended_at is null then excluded.judge_at else a.judge_at end
            """,
            [job for (job, _), _ in told],
            [attempt for (_, attempt), _ in told],
            [one.seq for _, one in told],
            [one.worker for _, one in told],
            [one.started for _, one in told],
            [json.dumps(sorted(one.ran)) for _, one in told],
            [one.ended for _, one in told],
            self._end_wait,
        )
        later = [which for which, _ in told if which[1] > 1]
        if later:
            # a later attempt is proof that the earlier ones are over
            await on.execute(
                """
                update attempt a set ended_at = now(), judge_at = now() + make_interval(secs => $3)
                from unnest($1::bigint[], $2::integer[]) u (job, attempt)
                where a.job = u.job and a.attempt < u.attempt and a.ended_at is null
                """,
                [job for job, _ in later], [attempt for _, attempt in later], self._end_wait,
            )  # fmt: skip


def gathered(events: Sequence[JobEvent]) -> dict[tuple[int, int], Told]:
    """Put together what `events` say of each (job, attempt), in whatever order they came."""
    found: dict[tuple[int, int], Told] = {}
    for event in sorted(events, key=lambda event: event.seq):
        told = news(event)
        if told is None:
            continue
        one = found.setdefault((event.facts.job, told.attempt), Told(event.seq, None, False, False, set()))
        one.seq = event.seq
        one.worker = told.worker or one.worker
        one.started |= told.started
        one.ended |= told.ended
        one.ran.update(told.ran)
    return found


def read(body: bytes, type_: str | None) -> JobEvent:
    """Read a job event. Raises Unreadable."""
    event = unpack_as(JobEvent, body, type_)
    for text in (event.worker or "", *(task.name for task in event.tasks)):
        if "\0" in text:  # PostgreSQL holds none
            raise Unreadable(f"{type_}: a name with a NUL character")
    return event
