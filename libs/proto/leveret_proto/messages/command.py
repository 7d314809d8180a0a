"""Commands over `leveret.commands` and their replies. The routing key names the command and the owner."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from leveret_proto.base import Attempt, Bytes, JobId, Message, Name, Part, Sha256, Time, Word
from leveret_proto.capability import Lack
from leveret_proto.messages.job import Standing, Timings
from leveret_proto.messages.state import JobStatus
from leveret_proto.messages.submission import Priority
from leveret_proto.messages.workers import Halt


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


class RetryJob(Message):
    """Routing word `retry`: submit the manifest of an ended job again, as a new job.

    Intake answers, as it answers any submission: `submission.accepted.v1`. The same command (by its `message_id`) makes
    the same job.
    """

    TYPE: ClassVar[str] = "command.retry.v1"

    job: JobId


class PrioritizeJob(Message):
    """Routing word `priority`: change the priority of a waiting job."""

    TYPE: ClassVar[str] = "command.priority.v1"

    job: JobId
    priority: Priority


class ExplainJob(Message):
    """Routing word `explain`: why a job waits, where it stands in line, and which workers could run it."""

    TYPE: ClassVar[str] = "command.explain.v1"

    job: JobId


class LogHistory(Message):
    """Routing word `history`, answered by logsink: a slice of a stored log, or with no `task` the list of logs."""

    TYPE: ClassVar[str] = "command.history.v1"

    job: JobId
    #: None: the latest attempt that logsink has heard of.
    attempt: Attempt | None = None
    task: Word | None = None
    offset: Bytes = 0
    limit: Annotated[int, Field(ge=1, le=256 * 1024)] = 256 * 1024


class AskLinks(Message):
    """Routing word `links`, answered by logsink: links to an attempt's logs and artifacts.

    Those to a private job's are signed, and work for `seconds`.
    """

    TYPE: ClassVar[str] = "command.links.v1"

    job: JobId
    #: None: the latest attempt that logsink has heard of.
    attempt: Attempt | None = None
    seconds: Annotated[int, Field(ge=1, le=7 * 86_400)] = 3600


class JobView(Standing):
    """A job as it stands."""

    priority: Priority = 0
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


class LogLink(LogView):
    """A stored log and where HTTP serves it."""

    url: str


class ArtifactLink(Part):
    """A stored artifact and where HTTP serves it. `index` is its place in the manifest's list."""

    attempt: Attempt
    index: int = Field(ge=0, lt=512)
    name: Annotated[str, Field(min_length=1, max_length=255)]
    bytes: Bytes
    sha256: Sha256
    url: str


class JobReply(Message):
    """Answer to `show` and `priority`."""

    TYPE: ClassVar[str] = "reply.job.v1"

    job: JobView


class CancelReply(Message):
    """Answer to `cancel`. `job` is None where the job has not arrived yet: the cancel is remembered."""

    TYPE: ClassVar[str] = "reply.cancel.v1"

    #: False where the job had ended by itself before.
    cancelled: bool
    job: JobView | None = None


class JobMatch(Part):
    """A live worker beside a job: whether it could run it, and what it lacks where not."""

    worker: Name
    #: None: it could run the job.
    lack: Lack | None = None
    #: The value asked for that it lacks.
    lacks: str | None = None
    slots: int
    free: int
    #: It takes no more jobs, by its own word or because it is halted.
    draining: bool = False
    halt: Halt | None = None


class Place(Part):
    """Where a waiting job stands. Fair share between owners decides whose turn it is, so a place is within its owner.

    Attributes:
        place: 1: the owner's next job among those that the same workers could run.
        waiting: the owner's waiting jobs of that kind.
        owners: owners who have jobs of that kind waiting, this one included.
        running: the owner's jobs granted or running.
        limit: the most of them there may be; None: no limit.
    """

    place: int
    waiting: int
    owners: int
    running: int
    limit: int | None = None


class ExplainReply(Message):
    """Answer to `explain`. `place` only where the job waits for a worker; `depends_on`: jobs it still waits for."""

    TYPE: ClassVar[str] = "reply.explain.v1"

    job: JobView
    place: Place | None = None
    depends_on: tuple[JobId, ...] = ()
    #: Those that could run it first, then the nearest; at most 20 of each.
    workers: tuple[JobMatch, ...] = ()


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


class LinksReply(Message):
    """Answer to `links`: what is stored of one attempt; of artifacts those that were proved whole."""

    TYPE: ClassVar[str] = "reply.links.v1"

    job: JobId
    attempt: Attempt | None = None
    logs: tuple[LogLink, ...] = ()
    artifacts: tuple[ArtifactLink, ...] = ()
    #: Until when the links work; None: for as long as what they lead to is kept.
    expires_at: Time | None = None


class CommandFailed(Message):
    """Any command's refusal. `code` is for programs, `message` for people."""

    TYPE: ClassVar[str] = "reply.failed.v1"

    code: Literal["not-found", "bad-request", "conflict", "unavailable"]
    message: str
