"""Groups: jobs of one owner that share a name, with triggers of their own for when all of them have ended."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from leveret_proto.base import JobId, Message, Name, Part, Time, Visibility, Word
from leveret_proto.manifest import Trigger
from leveret_proto.messages.state import JobStatus

GroupState = Literal["open", "closed", "success", "failed"]


class CloseGroup(Message):
    """Routing word `group`: say how many jobs the group has, and what to do when they have all ended.

    Jobs join by the `group` of their submission, before or after this. The group ends with its last job: `success`
    where every one succeeded, else `failed`. The same words again change nothing; others are a conflict.
    """

    TYPE: ClassVar[str] = "command.group.v1"

    group: Word
    size: Annotated[int, Field(ge=1, le=512)]
    triggers: Annotated[tuple[Trigger, ...], Field(max_length=16)] = ()
    visibility: Visibility = Visibility.UNLISTED
    note: Annotated[str, Field(max_length=4096)] | None = None


class GroupMember(Part):
    """A job of a group and how it stands."""

    job: JobId
    status: JobStatus


class GroupView(Part):
    """A group as it stands. `size` is None while it is open."""

    owner: Name
    group: Word
    state: GroupState
    size: int | None = None
    jobs: tuple[GroupMember, ...] = ()
    visibility: Visibility = Visibility.UNLISTED
    note: str | None = None


class GroupReply(Message):
    """Answer to `group`."""

    TYPE: ClassVar[str] = "reply.group.v1"

    group: GroupView


class GroupEvent(Message):
    """A group has ended. Not numbered: there is one for a group."""

    TYPE: ClassVar[str] = "group.event.v1"

    group: GroupView
    at: Time


class EndedGroup(Message):
    """An ended group with its triggers, for the notifier alone."""

    TYPE: ClassVar[str] = "group.ended.v1"

    group: GroupView
    triggers: tuple[Trigger, ...] = ()
    ended_at: Time
