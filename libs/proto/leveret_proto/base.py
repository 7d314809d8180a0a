"""What all messages share: strictness, bounds, and the registry that finds a model by its `type`.

A reader ignores fields it does not know, so that a newer sender can be read; it refuses what it knows but can't accept.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from leveret_proto.words import escape


def _routable(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        escape(text, limit)  # raises WordError, a ValueError
        return text

    return AfterValidator(check)


#: A text that becomes a word of a routing key: a project, a task.
Word = Annotated[str, Field(min_length=1, max_length=128), _routable(128)]
#: An image; shorter, so that a grant's key (which has a worker's name too) stays under 255 bytes.
Image = Annotated[str, Field(min_length=1, max_length=80), _routable(80)]
#: An owner, a worker, an architecture.
Name = Annotated[str, Field(min_length=1, max_length=64), _routable(64)]
#: An operator's or submitter's label such as `disk=large`.
Tag = Annotated[str, Field(min_length=1, max_length=128)]
Note = Annotated[str, Field(max_length=4096)]
#: A session, grant or slot token: a UUID's text.
Token = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
#: The `message_id` a submitter chose, or the one intake gave.
MessageId = Annotated[str, Field(min_length=1, max_length=255)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
JobId = Annotated[int, Field(ge=1, lt=2**63)]
Attempt = Annotated[int, Field(ge=1, lt=2**31)]
Bytes = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, lt=1e9, allow_inf_nan=False)]
#: A time in UTC, from PostgreSQL's clock.
Time = AwareDatetime


class Visibility(StrEnum):
    """Who may see a job: everyone, everyone who has its link, or its owner."""

    PUBLIC = "public"
    UNLISTED = "unlisted"
    PRIVATE = "private"


class Part(BaseModel):
    """A frozen piece of a message."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Message(Part):
    """A whole message. `TYPE` is the AMQP `type` property: the name and its version."""

    TYPE: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "TYPE" in cls.__dict__:
            if cls.TYPE in REGISTRY:
                raise TypeError(f"two models for message type {cls.TYPE}")
            REGISTRY[cls.TYPE] = cls


#: Every message model by its `type`.
REGISTRY: dict[str, type[Message]] = {}


class JobFacts(Part):
    """What stays the same for a job's whole life; every event repeats it."""

    job: JobId
    owner: Name
    project: Word
    visibility: Visibility = Visibility.UNLISTED
    #: The submission's `message_id`.
    submission: MessageId
    tags: tuple[Tag, ...] = ()
    note: Note | None = None
    group: Word | None = None
    #: The job that this one repeats.
    retry_of: JobId | None = None
    #: The unguessable word in the links to the job's logs and artifacts.
    link: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{16,64}$")]
