"""Events of the past over `leveret.commands` (routing word `replay`), answered from the replay stream by logsink.

A stream can't be filtered by permission, so a service reads it and gives an owner what that owner may see.
"""

from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from leveret_proto.base import JobId, Message, MessageId, Part, Time

#: A place in the stream. Places are ordered, not dense.
StreamOffset = Annotated[int, Field(ge=0, lt=2**63)]


class Replay(Message):
    """Give the owner's recorded events in their order, a page at a time.

    Attributes:
        after: only events past this place: the `next` of the page before.
        since: only events of this time (`at`) or later. Holds beside `after`: give it with every page of a reading.
        job: of the events about jobs, only this one's; none of submissions and groups.
        public: everybody's events of public jobs, submissions and groups, too.
        workers: events of workers, too.
        limit: the most events in a page.
    """

    TYPE: ClassVar[str] = "command.replay.v1"

    after: StreamOffset | None = None
    since: Time | None = None
    job: JobId | None = None
    public: bool = False
    workers: bool = False
    limit: Annotated[int, Field(ge=1, le=1000)] = 500


class ReplayedEvent(Part):
    """A recorded event: `body` is what was published under `type`."""

    offset: StreamOffset
    type: str
    message_id: MessageId | None = None
    body: JsonValue


class ReplayReply(Message):
    """A page, which may be empty though more follows: only so much of the stream is read for one.

    Attributes:
        next: goes into the next page's `after`; None where nothing was read yet.
        end: nothing came after.
        truncated: the place `after` is gone, and perhaps events past it, because the stream keeps them no longer.
    """

    TYPE: ClassVar[str] = "reply.replay.v1"

    events: tuple[ReplayedEvent, ...]
    next: StreamOffset | None = None
    end: bool
    truncated: bool = False
