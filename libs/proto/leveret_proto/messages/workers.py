"""Commands about workers and their replies: who is there, and who is to be given jobs."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from leveret_proto.base import Message, Name, Part, Seconds, Time
from leveret_proto.capability import Capabilities


class ListWorkers(Message):
    """Routing word `workers`: by name, those after `after`; the live ones, and those that are halted while away."""

    TYPE: ClassVar[str] = "command.workers.v1"

    after: Name | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class DrainWorker(Message):
    """Routing word `worker`, for operators: give it no more jobs, now and after its restarts, until it is resumed."""

    TYPE: ClassVar[str] = "command.worker-drain.v1"

    worker: Name
    #: Seconds after which what still runs is handed back. None: as the worker's configuration says.
    limit: Seconds | None = None


class ResumeWorker(Message):
    """Routing word `worker`, for operators: give it jobs again, drained or quarantined."""

    TYPE: ClassVar[str] = "command.worker-resume.v1"

    worker: Name


class Halt(Part):
    """Why a worker is given no jobs, whatever it offers. `why` says it in words."""

    kind: Literal["drained", "quarantined"]
    why: str
    since: Time


class WorkerView(Part):
    """A worker as the dispatcher sees it."""

    worker: Name
    capabilities: Capabilities
    slots: int
    free: int
    #: Attempts granted to it that have not ended.
    running: int
    #: It takes no more jobs, by its own word or because it is halted.
    draining: bool = False
    #: When its session began; of one that is away, when it was halted.
    since: Time
    halt: Halt | None = None
    #: False: no session of it is there.
    live: bool = True


class WorkersReply(Message):
    """Answer to `workers`. `more`: there are others after the last."""

    TYPE: ClassVar[str] = "reply.workers.v1"

    workers: tuple[WorkerView, ...]
    more: bool = False


class WorkerReply(Message):
    """Answer to `worker`: how the worker stands now."""

    TYPE: ClassVar[str] = "reply.worker.v1"

    worker: Name
    #: Whether a session of it is there.
    live: bool
    #: Attempts granted to it that have not ended.
    running: int
    halt: Halt | None = None
