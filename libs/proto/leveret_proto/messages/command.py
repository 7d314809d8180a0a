"""Commands over `leveret.commands` and their replies. The routing key names the command and the owner."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from leveret_proto.base import Attempt, Bytes, JobId, Message, Part, Sha256, Time, Word
from leveret_proto.messages.job import Standing, Timings
from leveret_proto.messages.state import JobStatus


class CancelJob(Message):
    """Routing word `cancel`. Idempotent; a cancel that comes before its job is remembered."""

    TYPE: ClassVar[str] = "command.cancel.v1"

    job: JobId


class ShowJob(Message):
    """Routing word `show`."""

    TYPE: ClassVar[str] = "command.show.v1"

    job: JobId


class ListJobs(Message):
    """Routing word `list`: the owner's jobs, newest first, those before job `before`."""

    TYPE: ClassVar[str] = "command.list.v1"

    before: JobId | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    statuses: tuple[JobStatus, ...] = ()


class LogHistory(Message):
    """Routing word `history`, answered by logsink: a slice of a stored log, or with no `task` the list of logs."""

    TYPE: ClassVar[str] = "command.history.v1"

    job: JobId
    #: None: the latest attempt that logsink has heard of.
    attempt: Attempt | None = None
    task: Word | None = None
    offset: Bytes = 0
    limit: Annotated[int, Field(ge=1, le=256 * 1024)] = 256 * 1024


class JobView(Standing):
    """A job as it stands."""

    timings: Timings | None = None
    submitted_at: Time
    started_at: Time | None = None
    ended_at: Time | None = None


class LogView(Part):
    """A log as it is stored. `state`: `open` still grows, `sealed` is proven whole, `gap` is not and never will be."""

    attempt: Attempt
    task: Word
    state: Literal["open", "sealed", "gap"]
    #: Contiguous bytes from the start.
    bytes: Bytes
    sha256: Sha256 | None = None


class JobReply(Message):
    """Answer to `show`."""

    TYPE: ClassVar[str] = "reply.job.v1"

    job: JobView


class CancelReply(Message):
    """Answer to `cancel`. `job` is None where the job has not arrived yet: the cancel is remembered."""

    TYPE: ClassVar[str] = "reply.cancel.v1"

    #: False where the job had ended by itself before.
    cancelled: bool
    job: JobView | None = None


class ListReply(Message):
    """Answer to `list`. `more`: there are older jobs."""

    TYPE: ClassVar[str] = "reply.list.v1"

    jobs: tuple[JobView, ...]
    more: bool = False


class HistoryReply(Message):
    """Answer to `history`: the job's logs of one attempt, and the slice asked for."""

    TYPE: ClassVar[str] = "reply.history.v1"

    job: JobId
    attempt: Attempt | None = None
    logs: tuple[LogView, ...] = ()
    #: Base64 of the bytes at the asked offset.
    data: str | None = None


class CommandFailed(Message):
    """Any command's refusal. `code` is for programs, `message` for people."""

    TYPE: ClassVar[str] = "reply.failed.v1"

    code: Literal["not-found", "bad-request", "unavailable"]
    message: str
