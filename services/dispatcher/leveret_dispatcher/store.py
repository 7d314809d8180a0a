"""The dispatcher's tables: each function is one statement (or two) inside the caller's transaction. No decisions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter

from leveret_dispatcher.lifecycle import AttemptRecord, Course, Fate, pending_tasks
from leveret_proto.base import JobFacts
from leveret_proto.capability import Requirement
from leveret_proto.manifest import Manifest
from leveret_proto.messages import Artifact, JobStatus, ReadyJob, Reason, Submission, TaskResult, Timings
from leveret_proto.words import escape, unescape

if TYPE_CHECKING:
    from leveret_runtime.db import Connection

_TASKS = TypeAdapter(tuple[TaskResult, ...])
_ARTIFACTS = TypeAdapter(tuple[Artifact, ...])


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as its row has it, without the manifest."""

    id: int
    facts: JobFacts
    requirement: Requirement
    course: Course
    time_limit: float
    artifacts: tuple[Artifact, ...]
    timings: Timings | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that has come, and the seconds that an attempt at it may run and that it may wait for its first one."""

    ready: ReadyJob
    time_limit: float
    queue_deadline: float


class WaitingJob(NamedTuple):
    """A job in the backlog. `reason` is the one last told."""

    id: int
    owner: str
    requirement: Requirement
    priority: int
    reason: Reason


class WaitingJobs(NamedTuple):
    """Jobs that wait and ask for the same, for the same reason; without a requirement: jobs of several kinds.

    `oldest`: seconds since the first of them was submitted.
    """

    requirement: Requirement | None
    reason: Reason | None
    jobs: int
    oldest: float


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """A grant about to be made."""

    grant: str
    job: int
    number: int
    worker: str
    session: str
    token: str
    time_limit: float


_JOB = """
    id, facts, requirement, time_limit, status, reason, detail, attempt, worker, losses, cancelling, tasks, artifacts,
    timings, submitted_at, started_at, ended_at, priority
"""


async def read_jobs(on: "Connection", jobs: Iterable[int]) -> dict[int, JobRow]:
    """Read the rows of `jobs`. Nobody else changes them until the leader's transaction ends."""
    rows = await on.fetch(f"select {_JOB} from job where id = any($1::bigint[])", list(jobs))
    return {row["id"]: _job(row) for row in rows}


async def insert_jobs(on: "Connection", jobs: Sequence[NewJob]) -> set[int]:
    """Insert jobs; give the ids of those that were new. All are `pending` for now."""
    ready = [job.ready for job in jobs]
    rows = await on.fetch(
        """
        insert into job (id, owner, facts, requirement, manifest, priority, ready, time_limit, submitted_at,
                         queue_until, status, reason, tasks)
        select id, owner, facts, requirement, manifest, priority, ready, time_limit, submitted_at,
               queue_until, 'pending', 'submitted', tasks
        from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::text[],
                    $8::double precision[], $9::timestamptz[], $10::timestamptz[], $11::text[])
             u (id, owner, facts, requirement, manifest, priority, ready, time_limit, submitted_at, queue_until, tasks)
        on conflict do nothing returning id
        """,
        [job.facts.job for job in ready],
        [escape(job.facts.owner) for job in ready],
        [job.facts.model_dump_json() for job in ready],
        [job.requirement.model_dump_json() for job in ready],
        [job.manifest.model_dump_json(exclude_defaults=True) for job in ready],
        [job.priority for job in ready],
        [job.model_dump_json(exclude={"facts", "requirement", "manifest"}) for job in ready],
        [job.time_limit for job in jobs],
        [job.submitted_at for job in ready],
        [job.ready.submitted_at + timedelta(seconds=job.queue_deadline) for job in jobs],
        [_TASKS.dump_json(pending_tasks(task.name for task in job.manifest.tasks)).decode() for job in ready],
    )
    return {row["id"] for row in rows}


async def write_jobs(on: "Connection", jobs: Sequence[JobRow]) -> None:
    """Write the courses, results and times of `jobs`."""
    await on.execute(
        """
        update job set status = u.status, reason = u.reason, detail = u.detail, attempt = u.attempt,
            worker = u.worker, losses = u.losses, cancelling = u.cancelling, tasks = u.tasks,
            artifacts = u.artifacts, timings = u.timings, started_at = u.started_at, ended_at = u.ended_at
        from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::text[], $7::integer[],
                    $8::boolean[], $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::timestamptz[])
             u (id, status, reason, detail, attempt, worker, losses, cancelling, tasks, artifacts, timings,
                started_at, ended_at)
        where job.id = u.id
        """,
        [job.id for job in jobs],
        [job.course.status.value for job in jobs],
        [job.course.reason.value for job in jobs],
        [storable(job.course.detail) for job in jobs],
        [job.course.attempt for job in jobs],
        [job.course.worker for job in jobs],
        [job.course.losses for job in jobs],
        [job.course.cancelling for job in jobs],
        [_TASKS.dump_json(job.course.tasks).decode() for job in jobs],
        [_ARTIFACTS.dump_json(job.artifacts).decode() for job in jobs],
        [job.timings.model_dump_json() if job.timings else None for job in jobs],
        [job.started_at for job in jobs],
        [job.ended_at for job in jobs],
    )


async def manifests(on: "Connection", jobs: Iterable[int]) -> dict[int, Manifest]:
    """Read the manifests of `jobs`."""
    rows = await on.fetch("select id, manifest from job where id = any($1::bigint[])", list(jobs))
    return {row["id"]: Manifest.model_validate_json(row["manifest"]) for row in rows}


async def resubmission(on: "Connection", job: int) -> Submission | None:
    """Read what submits a job again, as it is now: its manifest and circumstances, without group and dependencies."""
    row = await on.fetchrow("select facts, manifest, priority, ready from job where id = $1", job)
    if row is None:
        return None
    facts = JobFacts.model_validate_json(row["facts"])
    return Submission(
        manifest=Manifest.model_validate_json(row["manifest"]).to_yaml(),
        note=facts.note,
        tags=facts.tags,
        visibility=facts.visibility,
        priority=row["priority"],
        # what was withheld from a stranger's patch stays withheld
        secrets=secrets_allowed(row["ready"]),
        retry_of=job,
    )


def secrets_allowed(ready: str) -> bool:
    """Read of `job.ready` whether the submission lets the job have secrets."""
    return bool(json.loads(ready)["secrets"])


async def find_job(on: "Connection", job: int) -> JobRow | None:
    row = await on.fetchrow(f"select {_JOB} from job where id = $1", job)
    return None if row is None else _job(row)


async def list_jobs(
    on: "Connection", owner: str, before: int | None, limit: int, statuses: Sequence[JobStatus]
) -> list[JobRow]:
    """Read an owner's jobs, newest first."""
    rows = await on.fetch(
        f"""
        select {_JOB} from job
        where owner = $1 and ($2::bigint is null or id < $2) and (cardinality($4::text[]) = 0 or status = any($4))
        order by id desc limit $3
        """,
        escape(owner), before, limit, [status.value for status in statuses],
    )  # fmt: skip
    return [_job(row) for row in rows]


async def waiting_jobs(on: "Connection") -> list[WaitingJob]:
    """Read the backlog, the lowest id first. Few distinct requirements and owners, so each is parsed once."""
    requirement, owner = cache(Requirement.model_validate_json), cache(unescape)
    rows = await on.fetch(
        "select id, owner, requirement, priority, reason from job where status = 'pending' order by id"
    )
    return [
        WaitingJob(id_, owner(word), requirement(text), priority, Reason(reason))
        for id_, word, text, priority, reason in rows
    ]


async def backlog(on: "Connection", most: int) -> list[WaitingJobs]:
    """Read how many jobs wait for what: the `most` kinds of which there are the most, and all others as one."""
    rows = await on.fetch(
        """
        with kind as (
            select requirement, reason, count(*) as jobs, min(submitted_at) as first
            from job where status = 'pending' group by requirement, reason
        ), ranked as (select *, row_number() over (order by jobs desc, first) <= $1 as shown from kind)
        select case when shown then requirement end as requirement, case when shown then reason end as reason,
            sum(jobs)::bigint as jobs, greatest(extract(epoch from now() - min(first)), 0)::float8 as oldest
        from ranked group by 1, 2
        """,
        most,
    )
    return [
        WaitingJobs(
            None if row["requirement"] is None else Requirement.model_validate_json(row["requirement"]),
            None if row["reason"] is None else Reason(row["reason"]),
            row["jobs"], row["oldest"],
        )
        for row in rows
    ]  # fmt: skip


async def prioritize(on: "Connection", job: int, priority: int) -> None:
    """Change a job's priority."""
    await on.execute("update job set priority = $2 where id = $1", job, priority)


async def overstayed_jobs(on: "Connection", most: int) -> list[int]:
    """Give up to `most` jobs that have waited for their first attempt as long as they may."""
    rows = await on.fetch(
        """
        select id from job where status = 'pending' and attempt = 0 and queue_until <= now()
        order by queue_until limit $1
        """,
        most,
    )
    return [row["id"] for row in rows]


def _job(row: Any) -> JobRow:
    course = Course(
        JobStatus(row["status"]), Reason(row["reason"]), row["detail"], row["attempt"], row["worker"],
        row["losses"], row["cancelling"], _TASKS.validate_json(row["tasks"]),
    )  # fmt: skip
    return JobRow(
        row["id"], JobFacts.model_validate_json(row["facts"]), Requirement.model_validate_json(row["requirement"]),
        course, row["time_limit"], _ARTIFACTS.validate_json(row["artifacts"]),
        Timings.model_validate_json(row["timings"]) if row["timings"] else None,
        row["submitted_at"], row["started_at"], row["ended_at"], row["priority"],
    )  # fmt: skip


# Attempts


async def insert_attempts(on: "Connection", attempts: Sequence[NewAttempt], epoch: int) -> set[str]:
    """Insert grants; give those that are new. One whose slot token was used before is left out."""
    rows = await on.fetch(
        """
        insert into attempt (id, job, number, worker, session, token, time_limit, epoch)
        select u.*, $8 from unnest($1::uuid[], $2::bigint[], $3::integer[], $4::text[], $5::uuid[], $6::uuid[],
                                   $7::double precision[]) u
        on conflict do nothing returning id
        """,
        [attempt.grant for attempt in attempts],
        [attempt.job for attempt in attempts],
        [attempt.number for attempt in attempts],
        [attempt.worker for attempt in attempts],
        [attempt.session for attempt in attempts],
        [attempt.token for attempt in attempts],
        [attempt.time_limit for attempt in attempts],
        epoch,
    )
    return {str(row["id"]) for row in rows}


async def attempts(on: "Connection", grants: Iterable[str]) -> dict[str, AttemptRecord]:
    """Read attempts by their grants."""
    rows = await on.fetch(
        "select id, job, number, worker, seq, fate from attempt where id = any($1::uuid[])", sorted(set(grants))
    )
    return {
        str(row["id"]): AttemptRecord(
            str(row["id"]), row["job"], row["number"], row["worker"], row["seq"],
            Fate(row["fate"]) if row["fate"] else None,
        )
        for row in rows
    }  # fmt: skip


async def note_statuses(on: "Connection", seqs: Mapping[str, int]) -> None:
    """Note the highest status seen of each grant."""
    await on.execute(
        """
        update attempt set seq = u.seq from unnest($1::uuid[], $2::bigint[]) u (id, seq)
        where attempt.id = u.id
        """,
        list(seqs), list(seqs.values()),
    )  # fmt: skip


async def start_attempts(on: "Connection", attempts: Sequence[tuple[int, int]]) -> None:
    """Note that (job, number) runs."""
    await on.execute(
        """
        update attempt set started_at = now() from unnest($1::bigint[], $2::integer[]) u (job, number)
        where attempt.job = u.job and attempt.number = u.number and started_at is null
        """,
        [job for job, _ in attempts], [number for _, number in attempts],
    )  # fmt: skip


async def end_attempts(on: "Connection", ends: Sequence[tuple[int, int, Fate]]) -> None:
    """Write the fate of (job, number); a returned grant's token is free again."""
    await on.execute(
        """
        update attempt set fate = u.fate, ended_at = now(),
            token = case when u.fate = 'returned' then null else token end
        from unnest($1::bigint[], $2::integer[], $3::text[]) u (job, number, fate)
        where attempt.job = u.job and attempt.number = u.number and attempt.fate is null
        """,
        [job for job, _, _ in ends], [number for _, number, _ in ends], [fate.value for _, _, fate in ends],
    )  # fmt: skip


async def attempts_under_way(on: "Connection") -> list[Any]:
    """Read every attempt without a fate, and the seconds since it started (or was granted)."""
    return await on.fetch(
        """
        select a.id, a.job, a.number, a.worker, a.seq, a.time_limit, j.owner, j.cancelling,
               extract(epoch from now() - coalesce(a.started_at, a.granted_at))::double precision as elapsed
        from attempt a join job j on j.id = a.job where a.fate is null
        """
    )


async def grants(on: "Connection", ids: Iterable[str]) -> list[Any]:
    """Read grants that are under way, to publish them again."""
    return await on.fetch(
        """
        select a.id, a.job, a.number, a.worker, a.session, a.token, a.time_limit, j.facts, j.requirement, j.manifest
        from attempt a join job j on j.id = a.job where a.id = any($1::uuid[]) and a.fate is null
        """,
        list(ids),
    )


# Cancels before arrival


async def remember_cancellation(on: "Connection", job: int, owner: str, most: int) -> bool:
    """Remember a cancel for a day; False where its owner has too many remembered already."""
    await on.execute("delete from cancellation where at < now() - interval '1 day'")
    kept: int | None = await on.fetchval(
        """
        insert into cancellation (job, owner)
        select $1, $2 where (select count(*) from cancellation where owner = $2) < $3
        on conflict (owner, job) do update set at = now() returning 1
        """,
        job, escape(owner), most,
    )  # fmt: skip
    return kept is not None


async def take_cancellations(on: "Connection", jobs: Sequence[tuple[int, str]]) -> set[int]:
    """Give those of (job, owner) that were cancelled before they came, and forget the cancels."""
    rows = await on.fetch(
        """
        delete from cancellation c using unnest($1::bigint[], $2::text[]) u (job, owner)
        where c.job = u.job and c.owner = u.owner returning c.job
        """,
        [job for job, _ in jobs], [escape(owner) for _, owner in jobs],
    )  # fmt: skip
    return {row["job"] for row in rows}


def storable(text: str | None) -> str | None:
    """PostgreSQL's texts can't hold NUL."""
    return text.replace("\0", "�") if text is not None else None
