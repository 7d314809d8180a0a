"""Status snapshots of an attempt. Pure: what has happened so far, cumulative, with a number that only grows."""

from dataclasses import dataclass, field

from leveret_proto.messages import (
    Artifact,
    AttemptState,
    AttemptStatus,
    Grant,
    HeldGrant,
    JobStatus,
    LogDigest,
    Reason,
    TaskResult,
    TaskState,
    Timings,
)


@dataclass
class Snapshot:
    """An attempt as it stands. Every change raises `seq`; `message` gives the status to send."""

    grant: Grant
    seq: int = 1
    state: AttemptState = AttemptState.GRANTED
    result: JobStatus | None = None
    reason: Reason | None = None
    detail: str | None = None
    timings: Timings = field(default_factory=Timings)
    tasks: list[TaskResult] = field(default_factory=list)
    logs: list[LogDigest] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.tasks:
            self.tasks = [TaskResult(name=task.name, state=TaskState.PENDING) for task in self.grant.manifest.tasks]

    def started(self, boot: float) -> None:
        """The guest has answered, `boot` seconds after the grant came."""
        self.state = AttemptState.RUNNING
        self.timed(boot=boot)

    def timed(self, **seconds: float) -> None:
        """Note durations (fields of Timings), in seconds."""
        self.timings = self.timings.model_copy(update={name: round(value, 3) for name, value in seconds.items()})
        self.seq += 1

    def task(self, index: int, state: TaskState, exit_status: int | None, seconds: float | None) -> None:
        """The task at `index` has moved."""
        self.tasks[index] = self.tasks[index].model_copy(
            update={
                "state": state,
                "exit_status": exit_status,
                "seconds": None if seconds is None else round(seconds, 3),
            }
        )
        self.seq += 1

    def ended(self, result: JobStatus | None, reason: Reason, detail: str | None) -> None:
        """The attempt is over. Tasks that never ran are skipped, one that was running has failed."""
        self.state = AttemptState.ENDED
        self.result, self.reason = result, reason
        self.detail = None if detail is None else detail[:4096]
        over = {TaskState.PENDING: TaskState.SKIPPED, TaskState.RUNNING: TaskState.FAILED}
        self.tasks = [task.model_copy(update={"state": over.get(task.state, task.state)}) for task in self.tasks]
        self.seq += 1

    def held(self) -> HeldGrant:
        """Give the line that a beat carries."""
        return HeldGrant(
            grant=self.grant.grant,
            job=self.grant.facts.job,
            attempt=self.grant.attempt,
            state=self.state,
            seq=self.seq,
        )

    def message(self) -> AttemptStatus:
        """Give the snapshot as it is sent."""
        return AttemptStatus(
            grant=self.grant.grant,
            job=self.grant.facts.job,
            attempt=self.grant.attempt,
            worker=self.grant.worker,
            session=self.grant.session,
            seq=self.seq,
            state=self.state,
            tasks=tuple(self.tasks),
            result=self.result,
            reason=self.reason,
            detail=self.detail,
            logs=tuple(self.logs),
            artifacts=tuple(self.artifacts),
            timings=self.timings,
        )
