"""How a job's state may move: everything that decides it is in this file. Pure; the rules first, the table last.

A job stands somewhere on its `Course`. An input (something that happened) makes a `Step`: the new course, what is told
to subscribers in order, and what becomes of the attempt that was under way. What the table does not name changes
nothing.

    pending ──Granted──▶ queued ──Snapshot──▶ running ──Snapshot──▶ success | failed | timeout | cancelled
       ▲                    │                    │
       └── Lost, handed back, Returned ──────────┘        CancelAsked: from any state that has not ended
                                                          DependencyFailed, DeadlinePassed: from pending
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from leveret_proto.messages import AttemptState, AttemptStatus, JobStatus, Reason, TaskResult, TaskState

#: So many *started* attempts may be lost; then the job has failed.
MOST_LOSSES = 3


class Fate(StrEnum):
    """What became of an attempt that is no longer under way."""

    ENDED = "ended"
    HANDED_BACK = "handed-back"
    LOST = "lost"
    #: Nobody took its grant: the slot token is free again.
    RETURNED = "returned"
    OVERDUE = "overdue"


@dataclass(frozen=True, slots=True)
class Course:
    """Where a job stands.

    Attributes:
        attempt: the latest attempt granted; 0 before the first.
        worker: whose attempt that is or was.
        losses: started attempts lost.
        cancelling: a cancel was asked for while an attempt was under way.
        tasks: the tasks of the latest attempt, in the manifest's order.
    """

    status: JobStatus
    reason: Reason
    detail: str | None = None
    attempt: int = 0
    worker: str | None = None
    losses: int = 0
    cancelling: bool = False
    tasks: tuple[TaskResult, ...] = ()


# What may happen to a job.


@dataclass(frozen=True, slots=True)
class Granted:
    """The job was given to `worker`."""

    worker: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The attempt's worker told how it stands; `result` None in state `ended` means handed back."""

    state: AttemptState
    tasks: tuple[TaskResult, ...] = ()
    result: JobStatus | None = None
    reason: Reason | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt's lease ran out, or its worker said or showed that it is gone."""

    why: str


@dataclass(frozen=True, slots=True)
class Returned:
    """The grant came back from the broker, or stayed with a worker that does not take it."""

    why: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Somebody with the right to it wants the job to end."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """The attempt outlived its limit, and its worker did not end it."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Matching found why the job has to wait."""

    reason: Reason
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class SecretMissing:
    """A secret that the job names can't be given to it; `why` has the secret's name."""

    why: str


@dataclass(frozen=True, slots=True)
class DependencyFailed:
    """A job that this one depends on ended without success."""

    why: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The job has waited as long as it may."""

    why: str


Input = (
    Granted
    | Snapshot
    | Lost
    | Returned
    | CancelAsked
    | Overdue
    | Waits
    | SecretMissing
    | DependencyFailed
    | DeadlinePassed
)


# What follows.


@dataclass(frozen=True, slots=True)
class JobMoved:
    """A JobEvent's content."""

    course: Course


@dataclass(frozen=True, slots=True)
class TaskMoved:
    """A TaskEvent's content."""

    attempt: int
    task: TaskResult


@dataclass(frozen=True, slots=True)
class Step:
    """The course after an input, what is told of it in this order, and the fate of the attempt where it is over."""

    course: Course
    told: tuple[JobMoved | TaskMoved, ...] = ()
    fate: Fate | None = None


def accept(
    task_names: tuple[str, ...], *, cancelled: bool = False, waits_for: str | None = None, failed: str | None = None
) -> Step:
    """Begin a job's course.

    Args:
        cancelled: a cancel came before the job did.
        waits_for: jobs that must succeed first, in words.
        failed: one of these that has ended without success, in words.
    """
    begun = Course(JobStatus.PENDING, Reason.SUBMITTED, tasks=pending_tasks(task_names))
    if waits_for is not None:
        begun = replace(begun, reason=Reason.DEPENDENCY, detail=waits_for)
    told = Step(begun, (JobMoved(begun),))
    if not cancelled and failed is None:
        return told
    ended = step(begun, CancelAsked() if failed is None or cancelled else DependencyFailed(failed))
    return Step(ended.course, told.told + ended.told)


def pending_tasks(names: Iterable[str]) -> tuple[TaskResult, ...]:
    """Give the tasks of an attempt before it starts."""
    return tuple(TaskResult(name=name, state=TaskState.PENDING) for name in names)


def step(course: Course, happened: Input) -> Step:
    """Move a job. An input that its status has no rule for (late, repeated, overtaken) changes nothing."""
    rule = RULES.get(course.status, {}).get(type(happened))
    return rule(course, happened) if rule is not None else Step(course)


def _grant(course: Course, happened: Granted) -> Step:
    return _moved(
        replace(
            course, status=JobStatus.QUEUED, reason=Reason.GRANTED, detail=None,
            attempt=course.attempt + 1, worker=happened.worker,
        )
    )  # fmt: skip


def _wait(course: Course, happened: Waits) -> Step:
    if happened.reason == course.reason:
        return Step(course)
    return _moved(replace(course, reason=happened.reason, detail=happened.detail))


def _follow(course: Course, happened: Snapshot) -> Step:
    if happened.state is AttemptState.GRANTED:
        return Step(course)
    if happened.state is AttemptState.ENDED and happened.result is None:
        why = happened.detail or f"worker {course.worker} gave the job back before running it"
        return _wait_again(course, Reason.HANDED_BACK, why, Fate.HANDED_BACK)
    begun = _start(course, happened)
    moved = _move_tasks(begun.course, happened.tasks)
    told = begun.told + moved.told
    if happened.state is not AttemptState.ENDED or happened.result is None:
        return Step(moved.course, told)
    reason = happened.reason or _DEFAULT_REASON[happened.result]
    ended = _end(moved.course, happened.result, reason, happened.detail, Fate.ENDED)
    return Step(ended.course, told + ended.told, ended.fate)


def _start(course: Course, happened: Snapshot) -> Step:
    # An attempt cancelled before its guest ran never was running; any other end was, though the snapshot that said so
    # may have been overtaken.
    if course.status is JobStatus.RUNNING or happened.result is JobStatus.CANCELLED:
        return Step(course)
    return _moved(replace(course, status=JobStatus.RUNNING, reason=Reason.STARTED, detail=None))


def _lose(course: Course, happened: Lost) -> Step:
    losses = course.losses + (course.status is JobStatus.RUNNING)
    course = replace(course, losses=losses)
    if course.cancelling:
        return _end(course, JobStatus.CANCELLED, Reason.CANCELLED, happened.why, Fate.LOST)
    if losses >= MOST_LOSSES:
        why = f"{happened.why}; {losses} attempts were lost after they had started"
        return _end(course, JobStatus.FAILED, Reason.LOST, why, Fate.LOST)
    return _wait_again(course, Reason.LOST, happened.why, Fate.LOST)


def _return(course: Course, happened: Returned) -> Step:
    return _wait_again(course, Reason.HANDED_BACK, happened.why, Fate.RETURNED)


def _wait_again(course: Course, reason: Reason, why: str, fate: Fate) -> Step:
    if course.cancelling:
        return _end(course, JobStatus.CANCELLED, Reason.CANCELLED, why, fate)
    fresh = pending_tasks(task.name for task in course.tasks)
    back = replace(course, status=JobStatus.PENDING, reason=reason, detail=why, tasks=fresh)
    return Step(back, (JobMoved(back),), fate)


def _cancel_waiting(course: Course, _: CancelAsked) -> Step:
    return _end(course, JobStatus.CANCELLED, Reason.CANCELLED, None, None)


def _fail_with_dependency(course: Course, happened: DependencyFailed) -> Step:
    return _end(course, JobStatus.CANCELLED, Reason.DEPENDENCY, happened.why, None)


def _give_up_waiting(course: Course, happened: DeadlinePassed) -> Step:
    # a job that waits again after an attempt has had its turn once, and keeps it
    if course.attempt:
        return Step(course)
    return _end(course, JobStatus.TIMEOUT, Reason.QUEUE_DEADLINE, happened.why, None)


def _cancel_under_way(course: Course, _: CancelAsked) -> Step:
    # Its worker ends it; if the worker is gone, the loss of the lease does.
    return Step(replace(course, cancelling=True))


def _overrun(course: Course, _: Overdue) -> Step:
    why = f"worker {course.worker} did not end the attempt at its time limit"
    return _end(course, JobStatus.TIMEOUT, Reason.TIME_LIMIT, why, Fate.OVERDUE)


def _miss_secret(course: Course, happened: SecretMissing) -> Step:
    return _end(course, JobStatus.FAILED, Reason.SECRET_MISSING, happened.why, None)


def _miss_secret_again(course: Course, happened: SecretMissing) -> Step:
    # Found while its grant was to be published again; should the first one have arrived, it is void.
    if course.cancelling:
        return _end(course, JobStatus.CANCELLED, Reason.CANCELLED, happened.why, Fate.LOST)
    return _end(course, JobStatus.FAILED, Reason.SECRET_MISSING, happened.why, Fate.LOST)


def _end(course: Course, status: JobStatus, reason: Reason, detail: str | None, fate: Fate | None) -> Step:
    left = tuple(
        task.model_copy(update={"state": _LEFT_BEHIND[task.state]})
        for task in course.tasks
        if task.state in _LEFT_BEHIND
    )
    # without a fate no attempt is under way: the tasks of the last one have been told of
    closed = _move_tasks(course, left) if fate is not None else Step(replace(course, tasks=_merged(course.tasks, left)))
    ended = replace(closed.course, status=status, reason=reason, detail=detail)
    return Step(ended, (*closed.told, JobMoved(ended)), fate)


def _move_tasks(course: Course, told: tuple[TaskResult, ...]) -> Step:
    merged = _merged(course.tasks, told)
    moved = tuple(
        TaskMoved(course.attempt, new)
        for old, new in zip(course.tasks, merged, strict=True)
        if new.state is not old.state
    )
    return Step(replace(course, tasks=merged), moved)


def _merged(known: tuple[TaskResult, ...], told: tuple[TaskResult, ...]) -> tuple[TaskResult, ...]:
    """Take of `told` what moves a known task forward; links are ours to make."""
    news = {task.name: task.model_copy(update={"log_url": None}) for task in told}
    return tuple(
        news[task.name] if task.name in news and _ORDER[news[task.name].state] > _ORDER[task.state] else task
        for task in known
    )


def _moved(course: Course) -> Step:
    return Step(course, (JobMoved(course),))


_ORDER = {
    TaskState.PENDING: 0, TaskState.RUNNING: 1, TaskState.SUCCESS: 2, TaskState.FAILED: 2, TaskState.SKIPPED: 2,
}  # fmt: skip
#: What a task becomes that had not ended when its job did.
_LEFT_BEHIND = {TaskState.PENDING: TaskState.SKIPPED, TaskState.RUNNING: TaskState.FAILED}
_DEFAULT_REASON = {
    JobStatus.SUCCESS: Reason.COMPLETED,
    JobStatus.FAILED: Reason.TASK_FAILED,
    JobStatus.TIMEOUT: Reason.TIME_LIMIT,
    JobStatus.CANCELLED: Reason.CANCELLED,
}

Rule = Callable[[Course, Any], Step]

RULES: dict[JobStatus, dict[type[Input], Rule]] = {
    JobStatus.PENDING: {
        Granted: _grant,
        Waits: _wait,
        CancelAsked: _cancel_waiting,
        DependencyFailed: _fail_with_dependency,
        DeadlinePassed: _give_up_waiting,
        SecretMissing: _miss_secret,
    },
    JobStatus.QUEUED: {
        Snapshot: _follow,
        Lost: _lose,
        Returned: _return,
        CancelAsked: _cancel_under_way,
        Overdue: _overrun,
        SecretMissing: _miss_secret_again,
    },
    JobStatus.RUNNING: {
        Snapshot: _follow,
        Lost: _lose,
        CancelAsked: _cancel_under_way,
        Overdue: _overrun,
    },
    JobStatus.SUCCESS: {},
    JobStatus.FAILED: {},
    JobStatus.TIMEOUT: {},
    JobStatus.CANCELLED: {},
}


# The fence: whose word moves a job at all.


class Verdict(StrEnum):
    """What to do with what a worker says under a grant."""

    APPLY = "apply"
    #: Seen already, or overtaken by a later snapshot.
    STALE = "stale"
    #: Its result is ours: the worker may forget it.
    SETTLE = "settle"
    #: The grant is void: the worker must stop.
    ABANDON = "abandon"


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """An attempt as the database knows it. `seq` is the highest snapshot applied; `fate` None while under way."""

    grant: str
    job: int
    attempt: int
    worker: str
    seq: int
    fate: Fate | None


def judge_grant(known: AttemptRecord | None, worker: str) -> Verdict:
    """Say what a worker that lists a grant must be told; APPLY: nothing, it is rightly under way."""
    if known is None or known.worker != worker:
        return Verdict.ABANDON
    if known.fate in (Fate.ENDED, Fate.HANDED_BACK):
        return Verdict.SETTLE
    return Verdict.APPLY if known.fate is None else Verdict.ABANDON


def judge_status(known: AttemptRecord | None, worker: str, status: AttemptStatus) -> Verdict:
    """Say what becomes of a status from `worker` (as the routing key names it)."""
    if known is not None and (known.job, known.attempt) != (status.job, status.attempt):
        return Verdict.ABANDON
    verdict = judge_grant(known, worker)
    if verdict is Verdict.APPLY and known is not None and status.seq <= known.seq:
        return Verdict.STALE
    if verdict is Verdict.SETTLE and status.state is not AttemptState.ENDED:
        return Verdict.STALE
    return verdict
