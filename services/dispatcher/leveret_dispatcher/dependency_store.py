"""Dependencies in the database: which job needs which others, and how those stand."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from leveret_proto.messages import JobStatus

if TYPE_CHECKING:
    from leveret_runtime.db import Connection


class Need(NamedTuple):
    """A job that another one needs. `status` is None where it has not come, or is another owner's."""

    job: int
    needs: int
    status: JobStatus | None


async def insert(on: "Connection", needs: Mapping[int, Iterable[int]]) -> None:
    """Note for new jobs what they need."""
    pairs = [(job, needed) for job, all_needed in needs.items() for needed in dict.fromkeys(all_needed)]
    await on.execute(
        "insert into dependency (job, needs) select * from unnest($1::bigint[], $2::bigint[])",
        [job for job, _ in pairs], [needed for _, needed in pairs],
    )  # fmt: skip


async def unmet(on: "Connection", jobs: Iterable[int] | None = None) -> list[Need]:
    """Give what waiting jobs (`jobs`, or all) still need, by job."""
    rows = await on.fetch(
        """
        select d.job, d.needs, n.status
        from dependency d join job j on j.id = d.job left join job n on n.id = d.needs and n.owner = j.owner
        where j.status = 'pending' and n.status is distinct from 'success'
          and ($1::bigint[] is null or d.job = any($1))
        order by d.job, d.needs
        """,
        None if jobs is None else list(jobs),
    )
    return [Need(job, needs, JobStatus(status) if status is not None else None) for job, needs, status in rows]
