"""Writes what `lifecycle` decides: a job's new state, its attempt's fate and its numbered events, all or nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from leveret_dispatcher import events, lifecycle, store
from leveret_dispatcher.events import Links
from leveret_dispatcher.lifecycle import Fate, Input, JobMoved, Snapshot, Step
from leveret_dispatcher.store import JobRow
from leveret_proto.manifest import Manifest
from leveret_proto.messages import Artifact, AttemptStatus, JobStatus, Message, ReadyJob, Timings
from leveret_proto.topology import NOTIFY, RECORD
from leveret_runtime import outbox

if TYPE_CHECKING:
    from leveret_runtime.db import Connection


@dataclass(frozen=True, slots=True)
class Result:
    """What a snapshot brings besides the states: kept when it ends the attempt."""

    artifacts: tuple[Artifact, ...]
    timings: Timings


@dataclass(frozen=True, slots=True)
class Change:
    """A job as it was before a step, the step, and the job after it."""

    before: JobRow | None
    step: Step
    row: JobRow

    @property
    def started(self) -> bool:
        return any(isinstance(told, JobMoved) and told.course.status is JobStatus.RUNNING for told in self.step.told)


class Transaction:
    """One transaction of the leader. Once it has committed, `changes` take effect in memory and `after` is called."""

    def __init__(self, on: "Connection", at: datetime, links: Links) -> None:
        self.on = on
        self.at = at
        self._links = links
        self.changes: list[Change] = []
        self.after: list[Callable[[], None]] = []

    async def accept(self, jobs: Sequence[tuple[ReadyJob, float]]) -> None:
        """Begin the courses of those of `jobs` (with their time limits) that are new."""
        new = await store.insert_jobs(self.on, jobs)
        if not new:
            return
        cancelled = await store.take_cancellations(
            self.on, [(job.facts.job, job.facts.owner) for job, _ in jobs if job.facts.job in new]
        )
        changes = []
        for job, limit in jobs:
            number = job.facts.job
            if number not in new:
                continue
            new.discard(number)  # the same job may be twice in one batch
            names = tuple(task.name for task in job.manifest.tasks)
            step = lifecycle.accept(names, cancelled=number in cancelled)
            row = JobRow(number, job.facts, job.requirement, step.course, limit, (), None, job.submitted_at, None, None)
            changes.append(Change(None, step, _after(row, step, None, self.at)))
        await self._write(changes)

    async def advance(self, rows: Sequence[JobRow], inputs: Mapping[int, Input], results: Mapping[int, Result]) -> None:
        """Take one input for each of the locked `rows`; a job whose input moves nothing is left alone."""
        changes = []
        for row in rows:
            step = lifecycle.step(row.course, inputs[row.id])
            if step.course != row.course or step.told or step.fate is not None:
                changes.append(Change(row, step, _after(row, step, results.get(row.id), self.at)))
        await self._write(changes)

    async def tell(self, exchange: str, key: str, message: Message) -> None:
        """Put a message that is about no job into the outbox."""
        await outbox.put(self.on, 0, exchange, key, message)

    async def _write(self, changes: list[Change]) -> None:
        if not changes:
            return
        ended = [change.row.id for change in changes if change.row.course.status.ended]
        manifests = await store.manifests(self.on, ended) if ended else {}
        changes = [self._with_links(change, manifests.get(change.row.id)) for change in changes]
        await store.write_jobs(self.on, [change.row for change in changes])
        started = [(c.row.id, c.row.course.attempt) for c in changes if c.started]
        if started:
            await store.start_attempts(self.on, started)
        ends = [(c.row.id, c.row.course.attempt, c.step.fate) for c in changes if c.step.fate is not None]
        if ends:
            await store.end_attempts(self.on, ends)
        await self._tell(changes, manifests)
        self.changes += changes

    async def _tell(self, changes: Sequence[Change], manifests: Mapping[int, Manifest]) -> None:
        counts = {change.row.id: len(change.step.told) for change in changes if change.step.told}
        if not counts:
            return
        first = await outbox.number(self.on, counts)
        rows: list[tuple[int, str, str, Message]] = []
        for change in changes:
            row, step = change.row, change.step
            if not step.told:
                continue
            for key, message in events.of_step(row, step, first[row.id], self.at, self._links):
                rows.append((row.id, RECORD, key, message))
            if row.course.status.ended and manifests[row.id].triggers:
                message = events.ended_job(row, manifests[row.id], self.at, self._links)
                rows.append((row.id, NOTIFY, str(row.id), message))
        await outbox.put_all(self.on, rows)

    def _with_links(self, change: Change, manifest: Manifest | None) -> Change:
        if manifest is None or not change.row.artifacts:
            return change
        kept = self._links.artifacts(change.row, change.row.artifacts, manifest)
        return replace(change, row=replace(change.row, artifacts=kept))


def _after(row: JobRow, step: Step, result: Result | None, at: datetime) -> JobRow:
    """Give the row as the step leaves it."""
    course = step.course
    started_at = None if course.attempt > row.course.attempt else row.started_at
    if any(isinstance(told, JobMoved) and told.course.status is JobStatus.RUNNING for told in step.told):
        started_at = at
    ended = course.status.ended
    keep = ended and result is not None and step.fate is Fate.ENDED
    return replace(
        row,
        course=course,
        started_at=started_at,
        ended_at=at if ended else None,
        artifacts=result.artifacts if keep and result else (),
        timings=result.timings if keep and result else None,
    )


def snapshot_of(status: AttemptStatus) -> tuple[Snapshot, Result]:
    """Take an attempt's status apart: what moves the job, and what its end brings."""
    snapshot = Snapshot(status.state, status.tasks, status.result, status.reason, store.storable(status.detail))
    return snapshot, Result(status.artifacts, status.timings)
