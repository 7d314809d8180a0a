"""The notifier's tables: ended jobs and groups, and the deliveries they caused. All times are PostgreSQL's."""

from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from leveret_notifier.ended import Ended
from leveret_notifier.outcome import ANSWER_LIMIT, Outcome
from leveret_notifier.triggers import delivery_id, group_delivery_id, group_id
from leveret_proto.manifest import Trigger
from leveret_proto.messages import EndedGroup, EndedJob
from leveret_runtime.db import Connection, Database


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery whose try has begun. `tries` counts this one."""

    id: UUID
    ended: Ended
    trigger: Trigger
    tries: int
    remaining: tuple[str, ...] | None
    reached: int


class Waiting(NamedTuple):
    """Deliveries that wait for their next try, and the seconds since when the first of them is due; 0: none is yet."""

    number: int
    overdue: float


async def add(on: Connection, ended: Ended, fired: list[int]) -> None:
    """Write the deliveries for the triggers with these indexes. Nothing changes where what ended is known already."""
    if isinstance(ended, EndedJob):
        await _add_job(on, ended, fired)
    else:
        await _add_group(on, ended, fired)


async def _add_job(on: Connection, ended: EndedJob, fired: list[int]) -> None:
    fresh = await on.fetchval(
        "insert into ended_job (job, message) values ($1, $2) on conflict do nothing returning job",
        ended.facts.job,
        _without_triggers(ended),
    )
    if fresh is None:
        return
    await on.executemany(
        "insert into delivery (id, job, trigger_index, trigger) values ($1, $2, $3, $4)",
        [
            (delivery_id(ended.facts, index), ended.facts.job, index, ended.triggers[index].model_dump_json().encode())
            for index in fired
        ],
    )


async def _add_group(on: Connection, ended: EndedGroup, fired: list[int]) -> None:
    group = group_id(ended)
    fresh = await on.fetchval(
        "insert into ended_group (id, message) values ($1, $2) on conflict do nothing returning id",
        group,
        _without_triggers(ended),
    )
    if fresh is None:
        return
    await on.executemany(
        "insert into delivery (id, ended_group, trigger_index, trigger) values ($1, $2, $3, $4)",
        [
            (group_delivery_id(group, index), group, index, ended.triggers[index].model_dump_json().encode())
            for index in fired
        ],
    )


def _without_triggers(ended: Ended) -> bytes:
    return ended.model_copy(update={"triggers": ()}).model_dump_json(exclude_none=True).encode()


async def claim(database: Database, most: int, seconds: float) -> list[Delivery]:
    """Begin a try of up to `most` due deliveries.

    A delivery whose try is not recorded within `seconds` is due again: so a crash repeats and does not lose.
    """
    async with database.transaction() as on:
        rows = await on.fetch(
            """
            update delivery d set tries = d.tries + 1, due_at = now() + make_interval(secs => $2)
            where d.id in (
                select id from delivery where state = 'waiting' and due_at <= now()
                order by due_at limit $1 for update skip locked
            )
            returning d.id, d.trigger, d.tries, d.remaining, d.reached,
                (select message from ended_job j where j.job = d.job) as of_job,
                (select message from ended_group g where g.id = d.ended_group) as of_group
            """,
            most,
            seconds,
        )
    return [_delivery(row) for row in rows]


def _delivery(row: Any) -> Delivery:
    ended: Ended
    if row["of_job"] is not None:
        ended = EndedJob.model_validate_json(row["of_job"])
    else:
        ended = EndedGroup.model_validate_json(row["of_group"])
    return Delivery(
        id=row["id"],
        ended=ended,
        trigger=Trigger.model_validate_json(row["trigger"]),
        tries=row["tries"],
        remaining=None if row["remaining"] is None else tuple(row["remaining"]),
        reached=row["reached"],
    )


async def seconds_to_next(database: Database) -> float | None:
    """Give the seconds until a delivery is due; None where none waits."""
    async with database.connection() as on:
        found: float | None = await on.fetchval(
            "select extract(epoch from min(due_at) - clock_timestamp())::float8 from delivery where state = 'waiting'"
        )
    return found


async def waiting(on: Connection) -> Waiting:
    """Count the deliveries that have not come to an end."""
    row = await on.fetchrow(
        """
        select count(*) as number, coalesce(greatest(extract(epoch from now() - min(due_at)), 0), 0)::float8 as overdue
        from delivery where state = 'waiting'
        """
    )
    return Waiting(row["number"], row["overdue"]) if row is not None else Waiting(0, 0.0)


async def record(on: Connection, delivery: Delivery, outcome: Outcome, delay: float) -> bool:
    """Write what came of a try, in the caller's transaction; `delay` is used where the outcome is `retrying`.

    Returns:
        False where it was too late: the delivery has ended, or a later try has begun, which then counts. A success
        counts however late it comes.
    """
    state = "waiting" if outcome.status == "retrying" else outcome.status
    done = await on.fetchval(
        """
        update delivery set
            state = $3,
            due_at = now() + make_interval(secs => $4),
            remaining = coalesce($5, remaining),
            reached = reached + $6,
            detail = $7,
            answer = $8,
            ended_at = case when $3 = 'waiting' then null else now() end
        where id = $1 and state = 'waiting' and (tries = $2 or $3 = 'delivered')
        returning id
        """,
        delivery.id,
        delivery.tries,
        state,
        delay,
        outcome.remaining,
        outcome.reached,
        outcome.detail,
        # a text column refuses NUL
        outcome.answer.replace("\0", "�")[:ANSWER_LIMIT],
    )
    return done is not None
