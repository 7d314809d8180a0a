"""What subscribers, the notifier and the asker of `show` are told of a job: rows and steps made into messages. Pure."""

from collections.abc import Iterable
from datetime import datetime

from leveret_dispatcher.lifecycle import Course, JobMoved, Step
from leveret_dispatcher.store import JobRow
from leveret_proto import keys
from leveret_proto.links import artifact_path, log_path
from leveret_proto.manifest import Manifest
from leveret_proto.messages import (
    SETUP_LOG,
    Artifact,
    EndedJob,
    JobEvent,
    JobView,
    Message,
    Standing,
    TaskEvent,
    TaskResult,
    TaskState,
)

_WITH_LOG = {TaskState.RUNNING, TaskState.SUCCESS, TaskState.FAILED}


class Links:
    """Makes the links into logsink's HTTP server."""

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")

    def task(self, row: JobRow, task: TaskResult) -> TaskResult:
        """Give `task` with its log's link, where it has a log."""
        if task.state not in _WITH_LOG or not row.course.attempt:
            return task
        return task.model_copy(update={"log_url": self.log(row, task.name)})

    def tasks(self, row: JobRow, tasks: Iterable[TaskResult]) -> tuple[TaskResult, ...]:
        return tuple(self.task(row, task) for task in tasks)

    def log(self, row: JobRow, task: str) -> str:
        return self._base + log_path(row.id, row.facts.link, row.course.attempt, task)

    def artifacts(self, row: JobRow, told: Iterable[Artifact], manifest: Manifest) -> tuple[Artifact, ...]:
        """Give those of `told` that the manifest names, once each, with their links."""
        index = {path: number for number, path in reversed(list(enumerate(manifest.artifacts)))}
        kept: dict[str, Artifact] = {}
        for artifact in told:
            if artifact.path in index:
                path = artifact_path(row.id, row.facts.link, row.course.attempt, index[artifact.path], artifact.name)
                kept.setdefault(artifact.path, artifact.model_copy(update={"url": self._base + path}))
        return tuple(kept.values())


def of_step(row: JobRow, step: Step, first_seq: int, at: datetime, links: Links) -> list[tuple[str, Message]]:
    """Make the events of a step, numbered from `first_seq`, with their routing keys. `row` is as the step left it."""
    made: list[tuple[str, Message]] = []
    for seq, told in enumerate(step.told, first_seq):
        facts = row.facts
        if isinstance(told, JobMoved):
            status = told.course.status
            key = keys.job_event(facts.visibility, facts.owner, facts.job, status)
            made.append((key, _job_event(row, told.course, seq, at, links)))
        else:
            key = keys.task_event(facts.visibility, facts.owner, facts.job, told.task.name, told.task.state)
            task = links.task(row, told.task)
            made.append(
                (key, TaskEvent(facts=facts, source="dispatcher", seq=seq, at=at, attempt=told.attempt, task=task))
            )
    return made


def _job_event(row: JobRow, course: Course, seq: int, at: datetime, links: Links) -> JobEvent:
    ended = course.status.ended
    return JobEvent(
        facts=row.facts,
        source="dispatcher",
        seq=seq,
        at=at,
        status=course.status,
        reason=course.reason,
        detail=course.detail,
        attempt=course.attempt or None,
        worker=course.worker,
        tasks=links.tasks(row, course.tasks) if ended else (),
        artifacts=row.artifacts if ended else (),
        timings=row.timings if ended else None,
        queued_seconds=_queued(row),
    )


def _queued(row: JobRow) -> float | None:
    """Seconds from submission to the grant's arrival: until the start, less what the worker says the boot took."""
    if row.started_at is None:
        return None
    boot = (row.timings.boot if row.timings else None) or 0.0
    return round(max((row.started_at - row.submitted_at).total_seconds() - boot, 0.0), 3)


def _standing(row: JobRow, links: Links) -> Standing:
    course = row.course
    return Standing(
        facts=row.facts,
        status=course.status,
        reason=course.reason,
        detail=course.detail,
        attempt=course.attempt or None,
        worker=course.worker,
        tasks=links.tasks(row, course.tasks),
        artifacts=row.artifacts,
    )


def ended_job(row: JobRow, manifest: Manifest, at: datetime, links: Links) -> EndedJob:
    """Make the notifier's message of an ended job."""
    return EndedJob(
        **dict(_standing(row, links)),
        setup_log_url=links.log(row, SETUP_LOG) if row.started_at else None,
        triggers=manifest.triggers,
        ended_at=at,
    )


def view(row: JobRow, links: Links) -> JobView:
    """Make the answer to `show`."""
    return JobView(
        **dict(_standing(row, links)),
        priority=row.priority,
        timings=row.timings,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
