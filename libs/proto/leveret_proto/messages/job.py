"""Jobs between services: accepted (intake → dispatcher) and ended (dispatcher → notifier)."""

from typing import Annotated, ClassVar

from pydantic import Field

from leveret_proto.base import (
    Attempt,
    Bytes,
    JobFacts,
    JobId,
    Message,
    Name,
    Part,
    Seconds,
    Sha256,
    Time,
    Word,
)
from leveret_proto.capability import Requirement
from leveret_proto.manifest import Manifest, Trigger
from leveret_proto.messages.state import JobStatus, Reason, TaskState
from leveret_proto.messages.submission import Priority


class ReadyJob(Message):
    """An accepted job on its way to the dispatcher."""

    TYPE: ClassVar[str] = "job.ready.v1"

    facts: JobFacts
    manifest: Manifest
    requirement: Requirement
    priority: Priority = 0
    secrets: bool = True
    depends_on: tuple[JobId, ...] = ()
    #: The broker account that submitted, where the broker vouched for it.
    submitter: str | None = None
    #: Seconds; None leaves it to the installation.
    time_limit: Seconds | None = None
    queue_deadline: Seconds | None = None
    submitted_at: Time


class TaskResult(Part):
    """A task's state in an event, a view or a notification."""

    name: Word
    state: TaskState
    #: The script's exit status; None while it has none (a signal's death is 128 + its number).
    exit_status: int | None = None
    #: Seconds it ran, by the worker's clock.
    seconds: Seconds | None = None
    log_url: str | None = None


class Artifact(Part):
    """An artifact that logsink has confirmed."""

    #: As the manifest names it.
    path: Annotated[str, Field(max_length=4096)]
    name: Annotated[str, Field(min_length=1, max_length=255)]
    bytes: Bytes
    sha256: Sha256
    url: str | None = None


class Timings(Part):
    """Where an attempt's time went, in seconds by the worker's clock."""

    #: From the grant's arrival to the guest's first answer.
    boot: Seconds | None = None
    #: Environment, repositories, packages and sources.
    setup: Seconds | None = None
    tasks: Seconds | None = None
    artifacts: Seconds | None = None
    total: Seconds | None = None


class Standing(Part):
    """How a job stands, in an event, a view or a notification."""

    facts: JobFacts
    status: JobStatus
    reason: Reason
    detail: str | None = None
    #: None until the first grant.
    attempt: Attempt | None = None
    worker: Name | None = None
    tasks: tuple[TaskResult, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


class EndedJob(Standing, Message):
    """An ended job with its triggers, for the notifier alone: addresses are nobody else's business."""

    TYPE: ClassVar[str] = "job.ended.v1"

    setup_log_url: str | None = None
    triggers: tuple[Trigger, ...] = ()
    ended_at: Time
