"""The notifier's tables: ended jobs, and the deliveries they caused. All times are PostgreSQL's."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from leveret_notifier.outcome import ANSWER_LIMIT, Outcome
from leveret_notifier.triggers import delivery_id
from leveret_proto.manifest import Trigger
from leveret_proto.messages import EndedJob
from leveret_runtime.db import Connection, Database


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery whose try has begun. `tries` counts this one."""

    id: UUID
    ended: EndedJob
    trigger: Trigger
    tries: int
    remaining: tuple[str, ...] | None
    reached: int


async def add(on: Connection, ended: EndedJob, fired: list[int]) -> None:
    """Write the deliveries for the triggers with these indexes. Nothing changes where the job is known already."""
    fresh = await on.fetchval(
        "insert into ended_job (job, message) values ($1, $2) on conflict do nothing returning job",
        ended.facts.job,
        ended.model_copy(update={"triggers": ()}).model_dump_json(exclude_none=True).encode(),
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


async def claim(database: Database, most: int, seconds: float) -> list[Delivery]:
    """Begin a try of up to `most` due deliveries.

    A delivery whose try is not recorded within `seconds` is due again: so a crash repeats and does not lose.
    """
    async with database.transaction() as on:
        rows = await on.fetch(
            """
            update delivery d set tries = d.tries + 1, due_at = now() + make_interval(secs => $2)
            from ended_job j
            where j.job = d.job and d.id in (
                select id from delivery where state = 'waiting' and due_at <= now()
                order by due_at limit $1 for update skip locked
            )
            returning d.id, j.message, d.trigger, d.tries, d.remaining, d.reached
            """,
            most,
            seconds,
        )
    return [_delivery(row) for row in rows]


def _delivery(row: Any) -> Delivery:
    return Delivery(
        id=row["id"],
        ended=EndedJob.model_validate_json(row["message"]),
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
