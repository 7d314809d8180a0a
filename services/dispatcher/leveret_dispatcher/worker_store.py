"""Workers' records in the database: there is a row where there is something to keep."""

from typing import TYPE_CHECKING, Any

from leveret_dispatcher.store import storable
from leveret_dispatcher.worker_record import BLANK, Drained, WorkerRecord

if TYPE_CHECKING:
    from leveret_runtime.db import Connection


async def records(on: "Connection") -> dict[str, WorkerRecord]:
    """Read the records of all workers that have one."""
    return {row["name"]: _record(row) for row in await on.fetch("select * from worker")}


async def write(on: "Connection", worker: str, record: WorkerRecord) -> None:
    """Write a worker's record."""
    if record == BLANK:
        await on.execute("delete from worker where name = $1", worker)
        return
    drained = record.drained
    await on.execute(
        """
        insert into worker (name, drained_at, drained_by, drain_limit, faults, last_fault, quarantined_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (name) do update set drained_at = excluded.drained_at, drained_by = excluded.drained_by,
            drain_limit = excluded.drain_limit, faults = excluded.faults, last_fault = excluded.last_fault,
            quarantined_at = excluded.quarantined_at
        """,
        worker, drained and drained.since, drained and storable(drained.by), drained and drained.limit,
        record.faults, storable(record.last_fault), record.quarantined,
    )  # fmt: skip


def _record(row: Any) -> WorkerRecord:
    drained = None
    if row["drained_at"] is not None:
        drained = Drained(row["drained_by"], row["drain_limit"], row["drained_at"])
    return WorkerRecord(drained, row["faults"], row["last_fault"], row["quarantined_at"])
