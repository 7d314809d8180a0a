"""Public events: what a subscriber sees. Numbered without gap per (job, source); see docs/events.md."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from leveret_proto.base import Attempt, Bytes, JobFacts, Message, MessageId, Name, Part, Sha256, Time, Visibility, Word
from leveret_proto.capability import Capabilities
from leveret_proto.manifest import Diagnostic
from leveret_proto.messages.group import GroupEvent
from leveret_proto.messages.job import Standing, TaskResult, Timings

Source = Literal["dispatcher", "logsink", "notifier"]


class NumberedEvent(Message):
    """An event about a job."""

    facts: JobFacts
    source: Source
    #: 1, 2, 3 … for this job and source.
    seq: int = Field(ge=1)
    at: Time


class JobEvent(Standing, NumberedEvent):
    """A job moved, or the reason it waits changed. The terminal one carries tasks, artifacts and timings."""

    TYPE: ClassVar[str] = "job.event.v1"

    timings: Timings | None = None
    #: Seconds from submission until the last attempt's grant reached its worker.
    queued_seconds: float | None = None


class TaskEvent(NumberedEvent):
    """A task moved."""

    TYPE: ClassVar[str] = "task.event.v1"

    attempt: Attempt
    task: TaskResult


#: Missing ranges that a message lists at most.
MAX_MISSING = 100


class MissingRange(Part):
    """Bytes `start` up to but not including `end` that never came; `end` None where not even the length is known."""

    start: Bytes
    end: Bytes | None = None


class LogEvent(NumberedEvent):
    """A log is proven complete (`sealed`) or proven incomplete (`gap`)."""

    TYPE: ClassVar[str] = "log.event.v1"

    status: Literal["sealed", "gap"]
    attempt: Attempt
    task: Word
    bytes: Bytes
    lines: Bytes | None = None
    sha256: Sha256 | None = None
    missing: tuple[MissingRange, ...] = ()
    detail: str | None = None
    url: str | None = None


class DeliveryEvent(NumberedEvent):
    """A trigger's mail or webhook went out, will be tried again, or was given up."""

    TYPE: ClassVar[str] = "delivery.event.v1"

    #: Never changes, whatever is tried again.
    delivery: str
    action: Literal["email", "webhook"]
    status: Literal["delivered", "retrying", "failed"]
    tries: int = Field(ge=1)
    detail: str | None = None


class SubmissionEvent(Message):
    """A submission was rejected. Not numbered: it has no job."""

    TYPE: ClassVar[str] = "submission.event.v1"

    owner: Name
    project: Word
    visibility: Visibility = Visibility.PRIVATE
    submission: MessageId | None = None
    reason: str
    message: str
    diagnostics: tuple[Diagnostic, ...] = ()
    at: Time


class WorkerEvent(Message):
    """A worker came, went, or is given jobs no more or again. Not numbered: it has no job.

    `draining`: by its own word or an operator's; `quarantined`: after faults; `resumed`: after either.
    """

    TYPE: ClassVar[str] = "worker.event.v1"

    worker: Name
    state: Literal["joined", "left", "lost", "refused", "changed", "draining", "quarantined", "resumed"]
    capabilities: Capabilities | None = None
    slots: int | None = None
    detail: str | None = None
    notes: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    at: Time


Event = JobEvent | TaskEvent | LogEvent | DeliveryEvent | SubmissionEvent | WorkerEvent | GroupEvent
