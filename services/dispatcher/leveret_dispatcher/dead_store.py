"""The dead-letter desk's tables. `dead_desk` has the sums of what `dead` holds; both change in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from leveret_dispatcher.dead_letters import DeadLetter
from leveret_dispatcher.store import storable

if TYPE_CHECKING:
    from leveret_runtime.db import Connection

#: Letters pushed out by one statement, so that none takes long.
STEP = 200

_HEAD = "queue, reason, service, type, message_id, exchange, key, content_type, headers, bytes, sha256"
_COLUMNS = f"{_HEAD}, body, history"
_WITHOUT_BODY = f"{_HEAD}, ''::bytea as body, '' as history"


@dataclass(frozen=True, slots=True)
class Filed:
    """A letter on the desk."""

    id: int
    letter: DeadLetter
    #: Whether its whole body is kept (of which `letter` may have none, see `page`).
    whole: bool
    filed_at: datetime


@dataclass(frozen=True, slots=True)
class Sums:
    """Letters on the desk, and those that its limits have pushed out, ever."""

    letters: int
    dropped: int


async def file(on: "Connection", letters: Sequence[DeadLetter], most: int, bytes_most: int) -> None:
    """File `letters`; past `most` letters or `bytes_most` bytes the oldest go."""
    await on.executemany(
        f"insert into dead ({_COLUMNS}, kept) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        [
            (
                one.queue, one.reason, one.service, one.type, one.message_id, one.exchange, one.key, one.content_type,
                one.headers, one.size, one.sha256, one.body, one.history, one.kept,
            )
            for one in letters
        ],
    )  # fmt: skip
    sums = await on.fetchrow(
        "update dead_desk set letters = letters + $1, bytes = bytes + $2 returning letters, bytes",
        len(letters), sum(one.kept for one in letters),
    )  # fmt: skip
    while sums is not None and (sums["letters"] > most or sums["bytes"] > bytes_most):
        sums = await on.fetchrow(_PUSH_OUT, STEP, sums["letters"] - most, sums["bytes"] - bytes_most)


#: Drop as many of the oldest as bring both sums within their limits, STEP at most.
_PUSH_OUT = """
    with oldest as (
        select id, row_number() over (order by id) as nth, sum(kept) over (order by id) - kept as before
        from (select id, kept from dead order by id limit $1) o
    ), gone as (
        delete from dead where id in (select id from oldest where nth <= $2 or before < $3::bigint) returning kept
    )
    update dead_desk set letters = letters - g.count, bytes = bytes - g.size, dropped = dropped + g.count
    from (select count(*) as count, coalesce(sum(kept), 0)::bigint as size from gone) g
    where g.count > 0 returning letters, bytes
"""


async def page(on: "Connection", before: int | None, queue: str | None, limit: int) -> list[Filed]:
    """Read letters, newest first; of one queue where `queue` is given. Their bodies stay where they are."""
    rows = await on.fetch(
        f"""
        select id, filed_at, octet_length(body) = bytes as whole, {_WITHOUT_BODY}
        from dead where ($1::bigint is null or id < $1) and ($2::text is null or queue = $2) order by id desc limit $3
        """,
        before, storable(queue), limit,
    )  # fmt: skip
    return [_filed(row) for row in rows]


async def letters(on: "Connection", ids: Iterable[int]) -> dict[int, Filed]:
    """Read letters whole."""
    rows = await on.fetch(
        f"select id, filed_at, octet_length(body) = bytes as whole, {_COLUMNS} from dead where id = any($1::bigint[])",
        list(ids),
    )
    return {row["id"]: _filed(row) for row in rows}


async def drop(on: "Connection", ids: Iterable[int]) -> set[int]:
    """Forget letters; give those that were there."""
    await on.execute("select from dead_desk for update")  # first, as `file` does
    rows = await on.fetch("delete from dead where id = any($1::bigint[]) returning id, kept", list(ids))
    if rows:
        await on.execute(
            "update dead_desk set letters = letters - $1, bytes = bytes - $2",
            len(rows), sum(row["kept"] for row in rows),
        )  # fmt: skip
    return {row["id"] for row in rows}


async def sums(on: "Connection") -> Sums:
    row = await on.fetchrow("select letters, dropped from dead_desk")
    return Sums(row["letters"], row["dropped"]) if row is not None else Sums(0, 0)


def _filed(row: Any) -> Filed:
    letter = DeadLetter(
        row["queue"], row["reason"], row["service"], row["type"], row["message_id"], row["exchange"], row["key"],
        row["content_type"], row["headers"], row["bytes"], row["sha256"], row["body"], row["history"],
    )  # fmt: skip
    return Filed(row["id"], letter, row["whole"], row["filed_at"])
