"""The table of streams: what is stored of each, under a lock while it changes.

A row's lock makes a writer safe from another logsink that has just taken the partition over.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leveret_logsink.assembly import End, Held
from leveret_logsink.chunks import Kind, StreamKey
from leveret_logsink.ranges import Ranges
from leveret_logsink.verdict import State
from leveret_runtime.db import Connection

if TYPE_CHECKING:
    from asyncpg import Record
else:
    Record = object

COLUMNS = """
    s.id, s.kind, s.job, s.attempt, s.worker, s.label, s.name, s.stored, s.total, s.sha256, s.lines, s.state,
    s.mismatch, s.distrusted
"""

#: Bytes of a log that is not compressed: it takes one block of a disk either way.
SMALL = 4096


@dataclass(frozen=True, slots=True)
class Stream:
    """A row."""

    id: int
    key: StreamKey
    held: Held
    state: State
    mismatch: bool
    name: str | None
    lines: int | None
    #: Its bytes were proven wrong once, and asked for anew.
    distrusted: bool


def of_row(row: Record) -> Stream:
    """Read a row that was selected with COLUMNS."""
    kind: Kind = row["kind"]
    key = StreamKey(kind, row["job"], row["attempt"], row["worker"], row["label"])
    end = None if row["total"] is None else End(row["total"], row["sha256"])
    held = Held(Ranges.of_flat(row["stored"]), end)
    return Stream(row["id"], key, held, row["state"], row["mismatch"], row["name"], row["lines"], row["distrusted"])


async def begin(on: Connection, names: Mapping[StreamKey, str | None], end_wait: float) -> None:
    """Make rows for streams that have none, outside of any transaction (so that no lock is held for another).

    A log that begins after its attempt has been judged is judged too, `end_wait` seconds from now.
    """
    keys = sorted(names)
    await on.execute(
        """
        with begun as (
            insert into stream (kind, job, attempt, worker, label, name)
            select * from unnest($1::text[], $2::bigint[], $3::integer[], $4::text[], $5::text[], $6::text[])
            on conflict do nothing returning kind, job, attempt, worker
        )
        update attempt a set judge_at = coalesce(a.judge_at, now() + make_interval(secs => $7))
        from begun b
        where b.kind = 'log' and a.ended_at is not null
          and (a.job, a.attempt, a.worker) = (b.job, b.attempt, b.worker)
        """,
        *_columns(keys),
        [names[key] for key in keys],
        end_wait,
    )


async def lock(on: Connection, keys: Iterable[StreamKey]) -> dict[StreamKey, Stream]:
    """Lock the rows of `keys` for the transaction, in the one order that everyone locks in."""
    rows = await on.fetch(
        f"""
        select {COLUMNS} from stream s
        join unnest($1::text[], $2::bigint[], $3::integer[], $4::text[], $5::text[])
          as k(kind, job, attempt, worker, label) using (kind, job, attempt, worker, label)
        order by s.id for update of s
        """,
        *_columns(sorted(keys)),
    )
    return {stream.key: stream for stream in map(of_row, rows)}


async def lock_ids(on: Connection, ids: Sequence[int]) -> dict[int, Stream]:
    """Lock rows for the transaction, in the same order."""
    rows = await on.fetch(
        f"select {COLUMNS} from stream s where s.id = any($1::bigint[]) order by s.id for update", ids
    )
    return {row["id"]: of_row(row) for row in rows}


async def log_states(
    on: Connection, attempts: Sequence[tuple[int, int, str | None]]
) -> dict[tuple[int, int, str], dict[str, State]]:
    """Read how each log of these (job, attempt, worker) stands, by label."""
    rows = await on.fetch(
        """
        select s.job, s.attempt, s.worker, s.label, s.state
        from stream s join unnest($1::bigint[], $2::integer[], $3::text[]) u (job, attempt, worker)
          using (job, attempt, worker)
        where s.kind = 'log'
        """,
        [job for job, _, _ in attempts],
        [attempt for _, attempt, _ in attempts],
        [worker for _, _, worker in attempts],
    )
    found: dict[tuple[int, int, str], dict[str, State]] = {}
    for row in rows:
        found.setdefault((row["job"], row["attempt"], row["worker"]), {})[row["label"]] = row["state"]
    return found


async def settle(on: Connection, settled: Sequence[tuple[int, str, int | None, bool]]) -> None:
    """Write (row, state, lines, mismatch) of locked rows. A sealed log is put up for compression, if that pays."""
    await on.execute(
        f"""
        update stream s set state = u.state, lines = u.lines, mismatch = u.mismatch,
            compress_at = case when u.state = 'sealed' and s.kind = 'log' and s.total > {SMALL} then now() end
        from unnest($1::bigint[], $2::text[], $3::bigint[], $4::boolean[]) as u(id, state, lines, mismatch)
        where s.id = u.id
        """,
        *map(list, zip(*settled, strict=True)),
    )


async def distrust(on: Connection, ids: Sequence[int]) -> set[int]:
    """Forget what is stored in locked rows whose bytes were proven wrong, to have it sent anew; give those rows.

    Only logs, once, and while somebody will still judge them.
    """
    rows = await on.fetch(
        """
        update stream s set stored = '{}', contiguous = 0, distrusted = true, asked_at = null, touched_at = '-infinity'
        from attempt a
        where s.id = any($1::bigint[]) and s.kind = 'log' and s.state = 'open' and not s.distrusted
          and (a.job, a.attempt, a.worker) = (s.job, s.attempt, s.worker)
          and (a.ended_at is null or a.judge_at is not null)
        returning s.id
        """,
        ids,
    )
    return {row["id"] for row in rows}


async def save(on: Connection, changed: Iterable[tuple[int, Held]]) -> None:
    """Write what is now held of the locked rows."""
    await on.executemany(
        "update stream set stored = $2, contiguous = $3, total = $4, sha256 = $5, touched_at = now() where id = $1",
        [
            (
                id_,
                held.stored.flat(),
                held.stored.contiguous,
                held.end.total if held.end else None,
                held.end.sha256 if held.end else None,
            )
            for id_, held in changed
        ],
    )


def _columns(keys: Sequence[StreamKey]) -> tuple[list[Any], ...]:
    return (
        [key.kind for key in keys],
        [key.job for key in keys],
        [key.attempt for key in keys],
        [key.worker for key in keys],
        [key.label for key in keys],
    )
