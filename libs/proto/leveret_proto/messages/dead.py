"""The dead-letter desk over `leveret.commands` (routing word `dead`, for operators alone)."""

from typing import Annotated, ClassVar

from pydantic import Field

from leveret_proto.base import Bytes, Message, Part, Sha256, Time

LetterId = Annotated[int, Field(ge=1, lt=2**63)]


class ListDead(Message):
    """Give dead letters, newest first, those before `before`; of one queue where `queue` is given."""

    TYPE: ClassVar[str] = "command.dead-list.v1"

    before: LetterId | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    queue: Annotated[str, Field(max_length=255)] | None = None


class ShowDead(Message):
    """Give one dead letter with its body."""

    TYPE: ClassVar[str] = "command.dead-show.v1"

    letter: LetterId


class RetryDead(Message):
    """Publish dead letters again as they came; a letter taken by the broker leaves the desk."""

    TYPE: ClassVar[str] = "command.dead-retry.v1"

    letters: Annotated[tuple[LetterId, ...], Field(min_length=1, max_length=500)]


class DropDead(Message):
    """Forget dead letters."""

    TYPE: ClassVar[str] = "command.dead-drop.v1"

    letters: Annotated[tuple[LetterId, ...], Field(min_length=1, max_length=500)]


class DeadLetterView(Part):
    """A dead letter: where it died and why, and where it came from."""

    letter: LetterId
    queue: str
    reason: str
    #: The service that gave it up; None where the broker did.
    service: str | None = None
    type: str
    message_id: str
    #: Where it had been published, and under which key.
    exchange: str
    key: str
    bytes: Bytes
    sha256: Sha256
    #: Whether the whole body was kept: only then can it be published again.
    whole: bool
    filed_at: Time


class DeadListReply(Message):
    """Answer to ListDead. `dropped`: letters that the desk's limit has pushed out since it was set up."""

    TYPE: ClassVar[str] = "reply.dead-list.v1"

    letters: tuple[DeadLetterView, ...]
    more: bool = False
    total: Bytes = 0
    dropped: Bytes = 0


class DeadReply(Message):
    """Answer to ShowDead. `history`: the message's headers as JSON, among them the broker's account of its way."""

    TYPE: ClassVar[str] = "reply.dead.v1"

    letter: DeadLetterView
    history: str
    #: Base64 of what was kept.
    body: str


class DeadRefusal(Part):
    """A letter that was not dealt with, and why."""

    letter: LetterId
    why: str


class DeadDoneReply(Message):
    """Answer to RetryDead and DropDead."""

    TYPE: ClassVar[str] = "reply.dead-done.v1"

    done: tuple[LetterId, ...]
    refused: tuple[DeadRefusal, ...] = ()
