"""Workers and their dispatcher: beats, claims, grants, control and status (DESIGN: claims, grants, leases)."""

from typing import Annotated, ClassVar

from pydantic import Field

from leveret_proto.base import Attempt, Bytes, JobFacts, JobId, Message, Name, Part, Seconds, Sha256, Token, Word
from leveret_proto.capability import MIB, Capabilities
from leveret_proto.manifest import Manifest
from leveret_proto.messages.event import MAX_MISSING, MissingRange
from leveret_proto.messages.job import Artifact, TaskResult, Timings
from leveret_proto.messages.secret import PublicKey, SealedSecret
from leveret_proto.messages.state import AttemptState, JobStatus, Reason

#: Slots a worker may have at most.
MAX_SLOTS = 256
Tokens = Annotated[tuple[Token, ...], Field(max_length=MAX_SLOTS)]


class HeldGrant(Part):
    """A grant that a session still holds; an ended one is listed until it is settled."""

    grant: Token
    job: JobId
    attempt: Attempt
    state: AttemptState
    #: The last status sent under it.
    seq: int = Field(ge=0)


class WorkerBeat(Message):
    """What a session says of itself at its start and every 10 s: its offer, free slots and held grants."""

    TYPE: ClassVar[str] = "worker.beat.v1"

    worker: Name
    session: Token
    #: The identity of the worker's spool: a second session with the same one is the same worker restarted.
    spool: Token
    #: Counts up from 1 in a session.
    beat: int = Field(ge=1)
    capabilities: Capabilities
    slots: int = Field(ge=0, le=MAX_SLOTS)
    #: One-use tokens, one for every free slot.
    tokens: Tokens = ()
    #: Grants as they stood when this beat was made; those received up to then are all in it.
    held: Annotated[tuple[HeldGrant, ...], Field(max_length=4 * MAX_SLOTS)] = ()
    #: It claims no more, because it is being stopped or was ordered to drain.
    draining: bool = False
    #: It was ordered to drain, and not to resume since.
    drained: bool = False
    #: True in a session's last beat: it will not come back.
    closing: bool = False
    #: X25519 public key, base64, that secrets are sealed to.
    public_key: PublicKey | None = None
    #: What the worker could not prove, in words: for people.
    notes: Annotated[tuple[str, ...], Field(max_length=64)] = ()


class WorkerClaim(Message):
    """Slots that have just become free, between two beats."""

    TYPE: ClassVar[str] = "worker.claim.v1"

    worker: Name
    session: Token
    tokens: Tokens


class Grant(Message):
    """One attempt at a job, for one slot token of one session."""

    TYPE: ClassVar[str] = "work.grant.v1"

    grant: Token
    facts: JobFacts
    attempt: Attempt
    worker: Name
    session: Token
    token: Token
    #: The leader that granted.
    epoch: int = Field(ge=1)
    manifest: Manifest
    #: Seconds from the attempt's start until the worker ends it.
    time_limit: Seconds
    #: Bytes of log per task and of all logs together, past which only the last of each is kept; and of each artifact.
    log_limit: Bytes
    job_log_limit: Bytes = 64 * MIB
    artifact_limit: Bytes
    secrets: tuple[SealedSecret, ...] = ()


class JobHead(Part):
    """The job that a grant is about."""

    job: JobId


class GrantHead(Part):
    """What a grant of any version says: enough to hand back one that can't be read."""

    grant: Token
    facts: JobHead
    attempt: Attempt
    token: Token


class Settle(Message):
    """The dispatcher has the results of `grants`: the worker may forget them."""

    TYPE: ClassVar[str] = "control.settle.v1"

    grants: Annotated[tuple[Token, ...], Field(min_length=1, max_length=4 * MAX_SLOTS)]


class Cancel(Message):
    """End the attempt, result `cancelled`."""

    TYPE: ClassVar[str] = "control.cancel.v1"

    grant: Token
    reason: Reason = Reason.CANCELLED


class Abandon(Message):
    """The grant is void (lost, fenced, unknown): stop its VM, send nothing more under it."""

    TYPE: ClassVar[str] = "control.abandon.v1"

    grant: Token
    why: str = ""


class Drain(Message):
    """Claim no more, until ordered to resume; what runs goes on."""

    TYPE: ClassVar[str] = "control.drain.v1"

    #: Seconds from now after which what still runs is handed back. None: as the worker's configuration says.
    limit: Seconds | None = None


class Resume(Message):
    """The order to drain is over: claim again."""

    TYPE: ClassVar[str] = "control.resume.v1"


class Refuse(Message):
    """The session is refused: another one is live under its name."""

    TYPE: ClassVar[str] = "control.refuse.v1"

    why: str


class Report(Message):
    """Send a beat now: a new leader wants to know."""

    TYPE: ClassVar[str] = "control.report.v1"


class Resend(Message):
    """Logsink misses parts of a log: send them again, as far as they are there. Chunks come as they came at first."""

    TYPE: ClassVar[str] = "log.resend.v1"

    job: JobId
    attempt: Attempt
    task: Word
    missing: Annotated[tuple[MissingRange, ...], Field(min_length=1, max_length=MAX_MISSING)]


class LogDigest(Part):
    """A log's end as the worker knows it."""

    task: Word
    bytes: Bytes
    sha256: Sha256


class AttemptStatus(Message):
    """A cumulative snapshot of an attempt: the highest `seq` wins, the order of arrival does not matter."""

    TYPE: ClassVar[str] = "attempt.status.v1"

    grant: Token
    job: JobId
    attempt: Attempt
    worker: Name
    session: Token
    seq: int = Field(ge=1)
    state: AttemptState
    tasks: Annotated[tuple[TaskResult, ...], Field(max_length=512)] = ()
    #: Only in state `ended`. None there means handed back: the attempt is not counted and the job waits again.
    result: JobStatus | None = None
    #: Of what was handed back: `worker-fault` where the worker could not take it, which counts against the worker.
    reason: Reason | None = None
    detail: Annotated[str, Field(max_length=4096)] | None = None
    logs: Annotated[tuple[LogDigest, ...], Field(max_length=513)] = ()
    artifacts: Annotated[tuple[Artifact, ...], Field(max_length=512)] = ()
    timings: Timings = Timings()
